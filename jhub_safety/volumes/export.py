"""``claims export``: see claims and volumes together, keep the volumes, write the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import RETAIN, Volume, VolumesApi
from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.exported import Entry, LeftOut, bare


def pair(
    claims: Mapping[str, Claim], volumes: Mapping[str, Volume]
) -> tuple[tuple[Entry, ...], tuple[LeftOut, ...]]:
    """Each claim with its volume, and those that have none, both in the order of their names.

    *claims* must have been listed before *volumes*: a claim is bound after its volume is there.
    One that is being deleted is among them: while a pod still uses it, its data can be kept.
    """
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    for name, claim in sorted(claims.items()):
        volume = volumes.get(claim.volume)
        if not claim.volume:
            left_out.append(LeftOut(name, "it has no volume yet, so no data"))
        elif volume is None:
            why = f"its volume {claim.volume} is not in the cluster"
            left_out.append(LeftOut(name, why, lost=True))
        elif volume.holder.get("uid") != claim.uid:
            why = f"its volume {claim.volume} is not bound to it"
            left_out.append(LeftOut(name, why, lost=True))
        else:
            entries.append(bare(claim, volume))
    return tuple(entries), tuple(left_out)


def plan_retaining(
    claims: Mapping[str, Claim], volumes: Mapping[str, Volume], entries: tuple[Entry, ...]
) -> Plan:
    """Switch to Retain every exported volume that would be deleted together with its claim."""
    actions = tuple(
        Action(
            "retain-volume",
            claims[entry.claim.name].namespace,
            entry.volume.name,
            f"of claim {entry.claim.name}, {entry.owner}, {entry.claim.capacity}"
            f"{', which is being deleted' if claims[entry.claim.name].deleting else ''}: "
            f"{volumes[entry.volume.name].reclaim or 'no policy'} -> {RETAIN}",
            uid=volumes[entry.volume.name].uid,
        )
        for entry in entries
        if volumes[entry.volume.name].reclaim != RETAIN
    )
    return Plan(f"retain {len(actions)} volume(s)", actions)


async def execute(
    plan: Plan,
    entries: tuple[Entry, ...],
    volumes: VolumesApi,
    journal: Journal,
    progress: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Carry out the very plan that was shown; go on after one item's error. May be run again."""
    claim_uids = {entry.volume.name: entry.claim.uid for entry in entries}
    outcomes = []
    for action in plan.actions:
        try:
            changed = await volumes.retain(action.name, claim_uids[action.name])
            result = "done" if changed else "unchanged"
        except (Conflict, Doubt) as error:
            result = f"failed: {error}"
        journal.write(action, result)
        outcome = Outcome(action, "done" if result == "unchanged" else result)
        outcomes.append(outcome)
        progress(outcome)
    return tuple(outcomes)


def refuse_existing(path: Path) -> None:
    """Raises SafetyError when there is something at *path*."""
    if path.exists() or path.is_symlink():
        raise SafetyError(
            f"{path} exists; nothing was changed. Name another file, or add --overwrite"
        )


def write(path: Path, text: str, *, overwrite: bool) -> None:
    """The whole file or none, readable by nobody else (mode 0600).

    Raises:
        SafetyError: it cannot be written, or is there and *overwrite* is False.
    """
    try:
        # mkstemp makes it 0600, beside the file: a rename works within one file system only.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise SafetyError(f"{path} cannot be written: {error}; nothing was exported") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _put(temporary, path)
    except OSError as error:
        raise SafetyError(f"{path} cannot be written: {error}; nothing was exported") from error
    finally:
        temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Under its name unless somebody was faster: a link, unlike a rename, replaces nothing."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        refuse_existing(path)
    except OSError:
        # File systems without hard links (vfat, some network ones).
        refuse_existing(path)
        temporary.replace(path)
