"""A hub's database on disk, made by JupyterHub itself, and compared whole."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyterhub import orm
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import MetaData, create_engine, select, text

from jhub_safety.sessions.model import Server

Tables = dict[str, set[tuple[tuple[str, Any], ...]]]


@contextmanager
def opened(file: Path):
    made = orm.new_session_factory(f"sqlite:///{file}")()
    try:
        yield made
        made.commit()
    finally:
        made.close()
        made.get_bind().dispose()


def base_url(server: Server) -> str:
    """As ``User.spawn`` makes it."""
    return url_path_join("/user", url_escape_path(server.user), url_escape_path(server.name), "/")


def client_id(server: Server) -> str:
    """As ``User._new_spawner`` makes it."""
    named = f"-{quote(server.name)}" if server.name else ""
    return f"jupyterhub-user-{quote(server.user)}{named}"


def add_user(db: Any, name: str) -> Any:
    user = orm.User.find(db, name)
    if user is None:
        user = orm.User(name=name)
        db.add(user)
        db.commit()
    return user


def add_server(
    db: Any,
    server: Server,
    state: dict[str, Any] | None = None,
    *,
    running: bool = True,
    address: tuple[str, int] = ("10.88.0.7", 8888),
) -> Any:
    """A row; *running*: with server, token and OAuth client, as a spawn leaves them."""
    user = add_user(db, server.user)
    row = orm.Spawner(name=server.name, user=user, state=state)
    db.add(row)
    if running:
        row.server = orm.Server(
            ip=address[0], port=address[1], base_url=base_url(server), cookie_name="c"
        )
        client = orm.OAuthClient(identifier=client_id(server), description=f"Server {server}")
        db.add(client)
        row.oauth_client = client
        db.commit()
        token(db, server, f"Server at {base_url(server)}")
        # The browser's, issued through the client.
        token(db, server, "oauth", client=client)
        code = orm.OAuthCode(client=client, user=user, code="c0de")
        db.add(code)
    db.commit()
    return row


def token(db: Any, server: Server, note: str, client: Any = None) -> None:
    hub = db.query(orm.OAuthClient).filter_by(identifier="jupyterhub").first()
    if hub is None:
        hub = orm.OAuthClient(identifier="jupyterhub")
        db.add(hub)
        db.commit()
    made = orm.APIToken(
        user=orm.User.find(db, server.user),
        note=note,
        oauth_client=client or hub,
        prefix=server.user[:4],
        hashed=f"{note} of {server} {client and client.identifier}",
        scopes=["inherit"],
    )
    db.add(made)
    db.commit()


def tables(file: Path) -> Tables:
    """Every row of every table, as it is on disk."""
    engine = create_engine(f"sqlite:///{file}")
    found = MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        rows = {
            name: {
                tuple((key, str(value)) for key, value in row._mapping.items())
                for row in connection.execute(
                    select(*(text(f'"{c.name}"') for c in table.columns)).select_from(table)
                )
            }
            for name, table in found.tables.items()
        }
    engine.dispose()
    return rows


def differences(before: Tables, after: Tables) -> dict[str, tuple[int, int]]:
    """By table: how many rows went, and how many came."""
    assert before.keys() == after.keys()
    return {
        name: (len(before[name] - after[name]), len(after[name] - before[name]))
        for name in before
        if before[name] != after[name]
    }
