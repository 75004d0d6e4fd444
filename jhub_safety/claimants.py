"""Who else may have a folder of the shared claim: names that hubs gave, and whom this one knows."""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from jhub_safety.hubdb import records
from jhub_safety.owner import Owner
from jhub_safety.volumes.folders import Question, readings
from jhub_safety.volumes.names import Generation, Place


def others(
    db: Session,
    question: Question,
    every: tuple[Generation, ...],
    place: Place,
    former: tuple[str, ...],
) -> tuple[dict[str, str], dict[str, str]]:
    """By folder: a user whom the hub knows and who may have it; one whom nobody knows."""
    owner = question.owner
    rivals: dict[str, str] = {}
    guesses: dict[str, str] = {}
    mine = {owner.user, *former}
    for folder in question.names:
        for generation, guess in readings(folder, owner, every, place):
            if guess.user in mine and not guess.many:
                continue
            if guess.server and guess.server != owner.server and guess.user is not None:
                # "{username}{servername}" can be cut anywhere: only servers that there are count.
                if records.has_server(db, guess.user, guess.server):
                    rivals.setdefault(folder, f"{guess.user}/{guess.server}")
            elif guess.user is not None and not guess.many:
                known = bool(records.users_named(db, [guess.user]))
                (rivals if known else guesses).setdefault(folder, guess.user)
            elif others := _who_renders(db, folder, generation, place, mine):
                rivals.setdefault(folder, others)
    for folder, servers in records.servers_in_folders(db, question.names).items():
        for one in servers:
            same = one.user == owner.user and not (owner.server and one.server != owner.server)
            if not same:
                rivals[folder] = str(one)
    return rivals, guesses


def _who_renders(
    db: Session, folder: str, generation: Generation, place: Place, mine: set[str]
) -> str:
    """A known user whose folder is called the same by a hash; "" without one."""
    # A slug that would not begin with a letter begins with an "x" that is not in the name.
    slug = re.sub(r"^x(-|$)", "", _slug_of(folder))
    longest: str = max(re.findall(r"[a-z0-9]+", slug), key=len, default="")
    for name in records.users_with(db, longest):
        theirs = generation.render(Owner("", name), place=place)
        if name not in mine and theirs is not None and theirs.rstrip("/") == folder:
            return name
    return ""


def _slug_of(folder: str) -> str:
    """What is left of a hashed folder's name without its hash."""
    return re.sub(r"---[0-9a-f]{8}.*", "", folder.rpartition("/")[2])
