"""``jhub-safety databases``: users' database servers, and their way to a newer version."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.cluster.pods import Pod, PodsApi
from jhub_safety.errors import SafetyError
from jhub_safety.finding import Finding, Severity
from jhub_safety.plan import Plan
from jhub_safety.sidecars.moving import Mover, Outcome
from jhub_safety.sidecars.notice import Notice, Where, notices
from jhub_safety.sidecars.pod import LABEL
from jhub_safety.sidecars.server import DatabaseServer, parse_servers
from jhub_safety.sidecars.upgrade import Holder, Lab, Wanted, holders, plan_upgrades

#: Code of the doctor's findings about users' databases.
TROUBLE = "database-trouble"
CODES = {TROUBLE: "a user's database does not run, or says that something is wrong"}
#: Key in a server's saved state: claim by volume (extras.py).
_VOLUMES = "jhub_safety_volumes"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def databases() -> None:
    """The database servers beside users' labs."""


def _servers(connection: Connection) -> dict[str, DatabaseServer]:
    found = {one.name: one for one in parse_servers(connection.hub.settings.databases)}
    if not found:
        raise SafetyError(
            "this hub has no databases (SafeKubeSpawner.databases is empty). Nothing was changed"
        )
    return found


async def _holders(connection: Connection, server: DatabaseServer) -> list[Holder]:
    """By their annotations; of claims that have none, by the hub's records."""
    records = connection.records()
    on_record = {}
    for record, state in (records.states if records else {}).items():
        volumes = state.get(_VOLUMES)
        claim = volumes.get(server.claim_template) if isinstance(volumes, dict) else None
        if isinstance(claim, str):
            on_record[claim] = (record.user, record.server)
    claims = await connection.claims.list()
    return holders(claims.values(), server, connection.hub.hub_name, on_record)


def _pods(connection: Connection) -> PodsApi:
    return PodsApi(connection.cluster.api, connection.claims.namespace)


async def _with_labs(
    connection: Connection, servers: Mapping[str, DatabaseServer]
) -> list[tuple[Holder, DatabaseServer, Pod | None]]:
    """Each database, and the lab that runs it now."""
    labs = await _pods(connection).list(f"{LABEL}=true")
    by_claim = {claim: lab for lab in labs if not lab.ended for claim in lab.claims}
    return [
        (one, server, by_claim.get(one.claim.name))
        for server in servers.values()
        for one in await _holders(connection, server)
    ]


async def servers_of_users(connection: Connection) -> list[Finding]:
    """What running labs say of their databases: for the doctor."""
    servers = {one.name: one for one in parse_servers(connection.hub.settings.databases)}
    if not servers:
        return []
    return [
        Finding(
            Severity.WARNING,
            TROUBLE,
            f"{server.name} of {one}",
            f"claim {one.claim.name}: {notice.said}. To do: {notice.remedy}",
            f"jhub-safety databases list {shlex.quote(one.user)}",
        )
        for one, server, lab in await _with_labs(connection, servers)
        if lab is not None
        for notice in notices_of(one, server, lab, connection.claims.namespace)
    ]


# -- look


@databases.command("list")
@click.argument("user", required=False)
@json_option
@with_connection
async def list_databases(connection: Connection, user: str | None, as_json: bool) -> None:
    """One line for each user's database: its claim, and what its running lab says of it."""
    found = await _with_labs(connection, _servers(connection))
    rows = [
        _row(one, server, lab, connection.claims.namespace)
        for one, server, lab in found
        if user in (None, one.user)
    ]
    if as_json:
        _print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("USER", "SERVER", "DATABASE", "KIND", "CLAIM", "SIZE", "LAB", "IMAGE", "NOTICE"):
        table.add_column(title, overflow="fold")
    for row in rows:
        told = "; ".join(one["said"] for one in row["notices"])
        words = (row[key] for key in ("user", "server", "database", "kind", "claim", "size"))
        table.add_row(*map(shown, (*words, row["lab"] or "", row["image"] or "", told)))
    console.print(table)
    notes.print(f"{len(rows)} databases; {shown(connection.header())}")


def notices_of(one: Holder, server: DatabaseServer, lab: Pod, namespace: str) -> list[Notice]:
    """What the cluster says of one's database in their lab."""
    where = Where(namespace, lab.name, {server.name: one.claim.name})
    return notices(lab.status, {server.container: server}, where)


def _row(one: Holder, server: DatabaseServer, lab: Pod | None, namespace: str) -> dict[str, Any]:
    found = notices_of(one, server, lab, namespace) if lab else []
    return {
        "user": one.user,
        "server": one.server,
        "database": server.name,
        "kind": server.kind,
        "claim": one.claim.name,
        "phase": "Terminating" if one.claim.deleting else one.claim.phase,
        "size": one.claim.capacity,
        "lab": lab.name if lab else None,
        "image": lab.images.get(server.container) if lab else None,
        "notices": [_notice(notice) for notice in found],
    }


def _notice(notice: Notice) -> dict[str, Any]:
    return {
        "code": notice.code,
        "said": notice.said,
        "remedy": notice.remedy,
        "down": notice.down,
    }


# -- change


@databases.command()
@click.argument("user", required=False)
@click.argument("server", required=False)
@click.option("--all", "everybody", is_flag=True, help="Every user of the hub.")
@click.option("--database", "name", help="Name of the entry in databases (default: the only one).")
@click.option("--from-image", required=True, help="Image with the version that wrote the data.")
@click.option("--to-image", help="Image with the version to move to (default: as configured).")
@click.option(
    "--at-once",
    type=click.IntRange(1, 50),
    default=2,
    show_default=True,
    help="So many at the same time.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_connection
async def upgrade(
    connection: Connection,
    user: str | None,
    server: str | None,
    everybody: bool,
    yes: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Move data to another major version of the server, by dump and restore.

    For USER, for one of their servers ("" is the default one), or for --all. The hub may run; the
    users' own servers must be stopped. The old data is kept in the claim, untouched. What was cut
    off is completed by running the same command again.
    """
    if (user is None) != everybody:
        raise click.UsageError("Give a USER, or --all.")
    chosen = _chosen(_servers(connection), asked["name"])
    wanted = Wanted(chosen, asked["from_image"], asked["to_image"] or chosen.image)
    if wanted.from_image == wanted.to_image:
        raise click.UsageError(f"Both images are {wanted.to_image}; name another with --to-image.")
    with notes.status("Looking"):
        found = [
            one
            for one in await _holders(connection, chosen)
            if user in (None, one.user) and server in (None, one.server)
        ]
        plan = plan_upgrades(
            wanted, found, await _pods(connection).list(), connection.claims.namespace
        )
    _show(connection, plan, wanted)
    if not plan:
        raise SafetyError(
            "none of them can be moved just now; nothing was changed"
            if plan.refusals
            else f"there is no claim of database {chosen.name} for them; nothing was changed. "
            "See: jhub-safety databases list"
        )
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    mover = Mover(
        wanted,
        connection.claims,
        _pods(connection),
        _lab(connection.hub.of_labs),
        connection.hub.hub_name,
    )
    outcomes = await _with_a_bar(mover, plan, asked["at_once"])
    _sum_up(plan, outcomes, connection.claims.namespace, as_json=as_json)
    if plan.refusals or any(one.failed for one in outcomes):
        sys.exit(1)


def _chosen(servers: Mapping[str, DatabaseServer], name: str | None) -> DatabaseServer:
    if name is None and len(servers) == 1:
        return next(iter(servers.values()))
    if name is None or name not in servers:
        raise click.UsageError(f"Give --database, one of: {', '.join(servers)}.")
    return servers[name]


def _lab(of_labs: Mapping[str, Any]) -> Lab:
    """Whole numbers only: a hub may have functions there, which ask for a spawner."""
    uid, gid, fs_gid = (of_labs.get(key) for key in ("uid", "gid", "fs_gid"))
    selector = of_labs.get("node_selector")
    return Lab(
        uid=uid if isinstance(uid, int) and uid > 0 else 1000,
        gid=next((one for one in (gid, fs_gid) if isinstance(one, int) and one), 100),
        node_selector=selector if isinstance(selector, Mapping) else {},
        tolerations=_list(of_labs.get("tolerations")),
        image_pull_secrets=[
            {"name": one} if isinstance(one, str) else one
            for one in _list(of_labs.get("image_pull_secrets"))
        ],
    )


def _list(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value)]
    return list(value) if isinstance(value, list | tuple) else []


def _show(connection: Connection, plan: Plan, wanted: Wanted) -> None:
    notes.print(shown(connection.header()))
    notes.print(shown(plan.title))
    for action in plan.actions:
        notes.print(shown(f"  {action.kind} {action.name}: {action.reason}"))
    for refusal in plan.refusals:
        notes.print(f"  [red]refused[/] {shown(refusal.who)}: {shown(refusal.reason)}")
    if plan and wanted.to_image != wanted.server.image:
        notes.print(
            shown(
                f"The hub is configured for image {wanted.server.image}. With another version in "
                "it labs start without this database, until image is changed there too."
            )
        )


async def _with_a_bar(mover: Mover, plan: Plan, at_once: int) -> tuple[Outcome, ...]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("moved", total=len(plan.actions))

        def advance(outcome: Outcome) -> None:
            progress.advance(task)
            if outcome.failed:
                notes.print(shown(f"{outcome.action.user}: {outcome.result}"))

        try:
            return await mover.execute(plan, command_line_journal(), advance, at_once)
        except asyncio.CancelledError:
            notes.print(
                "Pods that were begun go on by themselves. The same command, run again, waits for "
                "them and does the rest."
            )
            raise


def _sum_up(plan: Plan, outcomes: tuple[Outcome, ...], namespace: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({**plan.record(), "outcomes": [one.record() for one in outcomes]})
        return
    for one in outcomes:
        console.print(shown(f"{one.action.user} {one.action.name}: {one.result}"))
    failed = [one for one in outcomes if one.failed]
    console.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    if failed:
        notes.print(
            shown(
                "Logs of those that failed: "
                f"kubectl -n {namespace} logs -l component=jhub-safety-upgrade -c new --prefix"
            )
        )


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
