"""A hub's database: JupyterHub's own schema, 100,000 users, the sessions of a population."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from jupyterhub import orm
from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Text,
    Unicode,
    column,
    create_engine,
    select,
    table,
)

from benchmarks.population import NAMESPACE, PLACE, USERS, Subject, user_name
from tools.cluster.kwok import FakeLab

#: Rows of one INSERT.
_BATCH = 10_000
_STARTED = datetime(2025, 1, 1)  # noqa: DTZ001 - the hub's columns are naive UTC

_USERS = table("users", column("id", Integer), column("name", Unicode))
_SPAWNERS = table(
    "spawners",
    column("id", Integer),
    column("user_id", Integer),
    column("server_id", Integer),
    column("name", Unicode),
    column("state", Text),
    column("started", Text),
)
_SERVERS = table("servers", column("id", Integer), column("ip", Unicode), column("port", Integer))
#: The floor: the rows of all running servers, and nothing done with them. Text columns alone, so
#: that nothing is parsed.
ACTIVE = (
    select(
        _USERS.c.name,
        _SPAWNERS.c.name,
        _SPAWNERS.c.state,
        _SPAWNERS.c.started,
        _SERVERS.c.ip,
        _SERVERS.c.port,
    )
    .join_from(_SPAWNERS, _USERS, _SPAWNERS.c.user_id == _USERS.c.id)
    .join(_SERVERS, _SPAWNERS.c.server_id == _SERVERS.c.id)
)


def active(engine: Engine) -> list[Any]:
    """All rows of :data:`ACTIVE`."""
    with engine.connect() as connection:
        return [*connection.execute(ACTIVE).all()]


def make(path: Path, subjects: Iterable[Subject], addresses: Mapping[str, str]) -> str:
    """Write the database; its URL.

    *addresses*: IP address by pod. A lab that has none yet gets the record of a start under way.
    """
    url = f"sqlite:///{path}"
    # The hub's way: tables, indexes and the revision.
    with _quiet():
        orm.new_session_factory(url)().close()
    running = [subject for subject in subjects if subject.has_session]
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            _insert(connection, orm.User.__table__, map(_user, range(USERS)))
            _insert(connection, orm.OAuthClient.__table__, map(_client, running))
            servers = (_server(subject, addresses) for subject in running)
            _insert(connection, orm.Server.__table__, servers)
            _insert(connection, orm.Spawner.__table__, _spawners(running))
    finally:
        engine.dispose()
    return url


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the migration tool's three lines on how it begins."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _insert(connection: Connection, into: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    batch: list[Mapping[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            connection.execute(into.insert(), batch)
            batch = []
    if batch:
        connection.execute(into.insert(), batch)


def _user(number: int) -> dict[str, Any]:
    return {
        "id": number + 1,
        "name": user_name(number),
        "admin": False,
        "created": _STARTED,
        "last_activity": _STARTED,
        "cookie_id": f"{number:032x}",
    }


def _client_id(subject: Subject) -> str:
    return f"jupyterhub-user-{subject.user}-{subject.server}"


def _client(subject: Subject) -> dict[str, Any]:
    return {
        "id": subject.number + 1,
        "identifier": _client_id(subject),
        "secret": "",
        "description": f"Server at /user/{subject.user}/{subject.server}",
        "allowed_scopes": [],
    }


def _server(subject: Subject, addresses: Mapping[str, str]) -> dict[str, Any]:
    ip = subject.address(addresses.get(subject.lab.name, ""))
    return {
        "id": subject.number + 1,
        "proto": "http",
        "ip": ip,
        "port": 8888,
        "base_url": f"/user/{subject.user}/{subject.server}".rstrip("/") + "/",
        "cookie_name": f"user-{subject.number}",
    }


def _spawners(running: list[Subject]) -> Iterator[dict[str, Any]]:
    """The running ones, and each user's default server that was started once and stopped."""
    by_user = {subject.user_number: subject for subject in running}
    for number in range(USERS):
        subject = by_user.get(number)
        if subject is None or subject.server:
            yield _spawner(number, FakeLab(user_name(number)), None)
        if subject is not None:
            yield _spawner(number, subject.lab, subject)


def _spawner(user: int, lab: FakeLab, running: Subject | None) -> dict[str, Any]:
    return {
        "user_id": user + 1,
        "server_id": None if running is None else running.number + 1,
        "name": lab.server,
        "state": {
            "kubespawner_version": "7.1.0",
            "pod_name": lab.name,
            "namespace": NAMESPACE,
            "dns_name": f"{lab.name}.{NAMESPACE}.svc.cluster.local",
            "pvc_name": lab.claim,
            "jhub_safety_place": PLACE,
        },
        "started": None if running is None else _STARTED,
        "last_activity": _STARTED,
        "user_options": {},
        "oauth_client_id": None if running is None else _client_id(running),
    }
