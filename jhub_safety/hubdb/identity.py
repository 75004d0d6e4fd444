"""Which database this is: one small table of ours in the hub's database.

JupyterHub writes nothing into it that tells one database from another, or today's from last
week's copy. The table has a random identity, made once, and an epoch, which grows whenever a
fingerprint is taken. It travels with every copy, and JupyterHub does not look at it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

NAME = "jhub_safety"
_TABLE = Table(
    NAME,
    MetaData(),
    Column("key", String(64), primary_key=True),
    Column("value", String(255), nullable=False),
)
_IDENTITY, _EPOCH, _RENEWED, _UNFINISHED = "identity", "epoch", "renewed", "unfinished"
#: Of a recovery that needed no snapshot.
CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Identity:
    """*identity*: 32 hexadecimal digits. *epoch*: how many fingerprints were taken of it."""

    identity: str
    epoch: int
    #: It was made again from the cluster, and running labs are not sessions again yet.
    renewed: bool = False
    #: A recovery of it is not over: users of the cluster may be missing. The snapshot that it was
    #: made from, or :data:`CLUSTER`; "" when it is over.
    unfinished: str = ""


def read(connection: Connection) -> Identity | None:
    """None: this database has never been marked, or its mark is not whole."""
    if not inspect(connection).has_table(NAME):
        return None
    found: dict[str, str] = {row.key: row.value for row in connection.execute(select(_TABLE))}
    identity, epoch = found.get(_IDENTITY), found.get(_EPOCH, "0")
    if not identity or not epoch.isdigit():
        return None
    return Identity(identity, int(epoch), _RENEWED in found, found.get(_UNFINISHED, ""))


def advance(connection: Connection, above: int = 0) -> Identity:
    """Mark it where it has no mark, and take the next epoch. The caller commits.

    *above*: the epoch that is known, which an older copy that was accepted must pass: epochs only
    grow, so that the later of two fingerprints is told without a clock.
    """
    make_table(connection)
    found = read(connection) or Identity(secrets.token_hex(16), 0)
    made = replace(found, epoch=max(found.epoch, above) + 1)
    _write(connection, made)
    return made


def make_table(connection: Connection) -> None:
    """Without a mark in it. Before the transaction that is to carry one: MySQL commits what was
    done so far when a table is made, and one that was killed there took its own users for another
    database's.
    """
    _TABLE.create(connection, checkfirst=True)


def renew(connection: Connection, former: Identity | None) -> None:
    """Note that it was made again, in the transaction that does so: a hub that is killed right
    after finds its own database, not another one. The caller commits.
    """
    make_table(connection)
    found = read(connection) or former or Identity(secrets.token_hex(16), 0)
    epoch = found.epoch
    if former is not None and found.identity == former.identity:
        # Out of a snapshot, which is older: it is not a copy that somebody put back.
        epoch = max(epoch, former.epoch)
    unfinished = former.unfinished if former is not None else ""
    _write(connection, Identity(found.identity, epoch, renewed=True, unfinished=unfinished))


def to_relink(connection: Connection) -> bool:
    """Whether it was made again, and running labs are not sessions again yet."""
    found = read(connection)
    return found is not None and found.renewed


def finished(connection: Connection) -> None:
    """The recovery is over, but for running labs (:func:`relinked`). The caller commits."""
    connection.execute(_TABLE.delete().where(_TABLE.c.key == _UNFINISHED))


def relinked(connection: Connection) -> None:
    """Running labs are sessions again. The caller commits."""
    connection.execute(_TABLE.delete().where(_TABLE.c.key == _RENEWED))


def _write(connection: Connection, made: Identity) -> None:
    connection.execute(_TABLE.delete())
    rows = {_IDENTITY: made.identity, _EPOCH: str(made.epoch)}
    if made.renewed:
        rows[_RENEWED] = "yes"
    if made.unfinished:
        rows[_UNFINISHED] = made.unfinished
    connection.execute(
        _TABLE.insert(), [{"key": key, "value": value} for key, value in rows.items()]
    )
