"""What a start would decide about extra volumes, asked from the command line."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from jhub_safety.cli.claimfilter import configured
from jhub_safety.cli.connection import Connection
from jhub_safety.cluster import forgotten
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.people import People
from jhub_safety.hubdb.records import HubRecords, Record, former_users, same_home
from jhub_safety.owner import OWNER_LABEL, Owner
from jhub_safety.settings import STYLE_NAMES
from jhub_safety.volumes.declared import ExtraVolume
from jhub_safety.volumes.extra import Listed, Wanted, at_stake, decide, records_differ
from jhub_safety.volumes.model import Decision, Row


@dataclass(frozen=True, slots=True)
class Answer:
    """One declared volume of one server."""

    wanted: Wanted
    decision: Decision

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        decision = self.decision
        return {
            "volume": self.wanted.volume.name,
            "verdict": decision.verdict,
            "row": decision.row,
            "claim": decision.name,
            "why": decision.why,
            "saved": self.wanted.saved,
            "capacity": self.wanted.given.capacity,
            "command": f"jhub-safety {decision.command}" if decision.command else None,
        }


async def answers(
    connection: Connection,
    records: HubRecords | None,
    people: People | None,
    owner: Owner,
    listed: Listed,
    home: Claim | None,
) -> tuple[Answer, ...]:
    """For each declared volume, in the order of a start.

    *owner*: with the server's own name. *home*: what they get as home; its label counts, too.

    Raises:
        ConfigError: an entry of extra_pvcs cannot be used.
        Doubt: what was given up could not be read.
    """
    found = []
    for volume in configured(connection).volumes:
        wanted = _ask(connection, records, people, owner, volume)
        hashes = set(wanted.hashes)
        if home is not None and OWNER_LABEL in home.labels:
            hashes.add(home.labels[OWNER_LABEL])
        names = _names_on_record(records, owner, wanted)
        answer = _answer(records, owner, wanted, names, listed, hashes)
        if answer.decision.row in (Row.GONE, Row.CONFLICT):
            word = await _given_up(connection, wanted)
            if word in names:
                left = names - {word} or _names_on_record(records, owner, wanted, without=word)
                answer = _answer(records, owner, wanted, left, listed, hashes)
        found.append(answer)
    return tuple(found)


def _names_on_record(
    records: HubRecords | None, owner: Owner, wanted: Wanted, without: str = ""
) -> set[str]:
    """As a start does: this server's own record; without one those of the user's other servers."""
    if wanted.saved is not None and wanted.saved != without:
        return {wanted.saved}
    if records is None or wanted.generations[0].per_server:
        return set()
    kept = [
        records.volumes_of(one.user, one.server).get(wanted.volume.name)
        for one in records.states
        if one.user == owner.user and one.server != owner.server
    ]
    return {name for name in kept if name is not None and name != without}


def _answer(
    records: HubRecords | None,
    owner: Owner,
    wanted: Wanted,
    names: set[str],
    listed: Listed,
    hashes: Collection[str],
) -> Answer:
    if len(names) > 1:
        return Answer(wanted, records_differ(wanted, names))
    wanted = replace(wanted, saved=next(iter(names), None))
    claims = listed.concerned(wanted, hashes)
    recorded: dict[str, Owner] = {}
    per_server = wanted.generations[0].per_server
    for claim in at_stake(wanted, claims) if records is not None else ():
        for one in records.with_volume(claim) if records is not None else ():
            if not same_home(one, owner.user, owner.server, per_server=per_server):
                recorded[claim] = Owner(owner.hub, one.user, one.server)
    return Answer(wanted, decide(wanted, claims, recorded))


def _ask(
    connection: Connection,
    records: HubRecords | None,
    people: People | None,
    owner: Owner,
    volume: ExtraVolume,
) -> Wanted:
    state = records.states.get(Record(owner.user, owner.server)) if records else None
    saved = records.volumes_of(owner.user, owner.server) if records else {}
    style = STYLE_NAMES[0] if connection.hub.slug_scheme == "safe" else STYLE_NAMES[1]
    return Wanted.ask(
        volume,
        owner,
        groups=people.groups.get(owner.user, ()) if people else (),
        saved=saved.get(volume.name),
        place=configured(connection).place,
        former=former_users(dict(state) if state else None),
        style=style,
    )


def owner_of_volume(connection: Connection, owner: Owner, volume: str) -> Owner:
    """*owner*, without the server where the volume is of all their servers.

    Raises:
        SafetyError: no volume is declared so.
    """
    for one in configured(connection).volumes:
        if one.name == volume:
            return Wanted.ask(one, owner).owner
    names = ", ".join(one.name for one in configured(connection).volumes) or "none"
    raise SafetyError(
        f"extra_pvcs has no entry called {volume} (it has: {names}); nothing was changed"
    )


def volume_on_record(records: HubRecords | None, user: str, claim: str) -> str:
    """The extra volume for which the record of any of the user's servers names *claim*, or ""."""
    if records is None:
        return ""
    for record in records.states:
        if record.user == user:
            for volume, name in records.volumes_of(record.user, record.server).items():
                if name == claim:
                    return volume
    return ""


async def _given_up(connection: Connection, wanted: Wanted) -> str | None:
    return await forgotten.read(
        connection.cluster.api,
        connection.claims.namespace,
        wanted.owner,
        wanted.volume.name,
    )
