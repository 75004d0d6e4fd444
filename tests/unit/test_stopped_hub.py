"""A hub that is down: sessions are ended in its database, and nothing else of it changes."""

from __future__ import annotations

import pytest
from jupyterhub import orm

from jhub_safety.cluster.labs import Lab
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions import records
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import LabIdentity, Server
from jhub_safety.sessions.presence import Presence, Sighting
from jhub_safety.sessions.stopped import StoppedHub, database_of
from tests.unit.given import HUB, NAMESPACE
from tests.unit.hub_database import (
    add_server,
    base_url,
    client_id,
    differences,
    opened,
    tables,
    token,
)
from tests.unit.session_given import ADA, BOB, GPU, lab_name

ODD = Server("erin@school.edu", "a b")
#: Its default server; and a named one of a user whose name it begins with.
ALIKE = Server("ada-x")
RUNNING = (ADA, GPU, BOB, ODD, ALIKE)
WHY = "it was deleted"
#: What a clear takes: a row of each table; the spawner's own row changes.
CLEARED = {"servers": (1, 0), "spawners": (1, 1), "oauth_clients": (1, 0), "oauth_codes": (1, 0)}


class Labs(Inventory):
    """Sees each lab as it is told to; remembers what was deleted."""

    def __init__(self, *sightings: Sighting) -> None:
        super().__init__()
        self.sightings = list(sightings)
        self.deleted: list[tuple[LabIdentity, str]] = []

    def lab_of(self, user, server, state):
        return (state["pod_name"], NAMESPACE) if "pod_name" in state else None

    async def take(self, sessions):
        raise NotImplementedError

    async def look(self, session):
        return self.sightings.pop(0) if len(self.sightings) > 1 else self.sightings[0]

    async def delete(self, identity, name):
        self.deleted.append((identity, name))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "jupyterhub.sqlite"
    with opened(path) as db:
        for server in RUNNING:
            add_server(db, server, {"pod_name": lab_name(server), "pvc_name": "claim", "x": 1})
            token(db, server, "made by hand")
            token(db, server, f"retrieved from spawner {server.name}")
        add_server(db, Server("carol"), {"pvc_name": "claim-carol"}, running=False)
        token(db, ADA, "Server at /user/ada")
        token(db, ADA, f"Server at {base_url(GPU)}x")
    return path


@pytest.fixture
def hub(file):
    return StoppedHub(f"sqlite:///{file}", Labs(Sighting(Presence.GONE)))


def with_labs(file, *sightings: Sighting) -> tuple[StoppedHub, Labs]:
    labs = Labs(*sightings)
    return StoppedHub(f"sqlite:///{file}", labs), labs


async def test_no_hub_is_busy_with_anything(hub):
    assert await hub.live() is None
    assert await hub.routes() is None
    assert hub.pending(ADA) == ""
    assert "unchanged" in await hub.unstick(ADA)
    await hub.check_routes()


async def test_its_sessions_are_those_on_record(hub):
    assert {one.server for one in await hub.sessions()} == set(RUNNING)
    for server in RUNNING:
        session = await hub.session(server)
        assert (session.server, session.lab) == (server, lab_name(server))
    assert await hub.session(Server("carol")) is None
    assert await hub.session(Server("nobody")) is None


@pytest.mark.parametrize("server", RUNNING, ids=str)
async def test_clear_takes_exactly_that_servers_row_token_and_client(hub, file, server):
    before = tables(file)
    await hub.clear(await hub.session(server), WHY)
    # Its own token, the one taken from a spawner, and the browser's with the client.
    assert differences(before, tables(file)) == CLEARED | {"api_tokens": (3, 0)}
    assert {one.server for one in await hub.sessions()} == set(RUNNING) - {server}
    with opened(file) as db:
        assert not db.query(orm.OAuthClient).filter_by(identifier=client_id(server)).count()
        user = orm.User.find(db, server.user)
        notes = [one.note for one in user.api_tokens]
        assert "made by hand" in notes
        assert f"Server at {base_url(server)}" not in notes
        assert f"retrieved from spawner {server.name}" not in notes
        row = user.orm_spawners[server.name]
        assert (row.server, row.started, row.oauth_client_id) == (None, None, None)
        # The lab's name and its claim stay, and what the user is told at the next start.
        assert row.state == {
            "pod_name": lab_name(server),
            "pvc_name": "claim",
            "x": 1,
            records.ENDED: WHY,
        }


async def test_clearing_twice_changes_nothing_more(hub, file):
    session = await hub.session(ADA)
    await hub.clear(session, WHY)
    after = tables(file)
    await hub.clear(session, "something else")
    assert tables(file) == after


@pytest.mark.parametrize("server", [Server("nobody"), Server("ada", "none"), Server("carol")])
async def test_clearing_what_is_not_there_is_success(hub, file, server):
    before = tables(file)
    session = await hub.session(ADA)
    await hub.clear(type(session)(server, "x"), WHY)
    assert tables(file) == before


async def test_all_sessions_cleared_leave_users_states_and_claims(hub, file):
    before = tables(file)
    for session in await hub.sessions():
        await hub.clear(session, WHY)
    after = tables(file)
    assert await hub.sessions() == ()
    assert after["servers"] == set()
    assert after["users"] == before["users"]
    with opened(file) as db:
        assert {one.state["pvc_name"] for one in db.query(orm.Spawner)} == {"claim", "claim-carol"}
        assert [one.identifier for one in db.query(orm.OAuthClient)] == ["jupyterhub"]


# -- stop


def pod(**fields) -> Lab:
    return Lab(lab_name(ADA), NAMESPACE, "uid-1", fields.pop("phase", "Running"), **fields)


@pytest.mark.parametrize(
    ("sighting", "deleted"),
    [
        (Sighting(Presence.ALIVE, pod()), True),
        (Sighting(Presence.ALIVE, pod(phase="Pending")), True),
        (Sighting(Presence.TERMINATING, pod(deleting=True)), True),
        (Sighting(Presence.ENDED, pod(phase="Failed")), True),
        (Sighting(Presence.GONE), False),
    ],
    ids=["alive", "pending", "terminating", "ended", "gone"],
)
async def test_stop_ends_the_lab_first_and_then_the_session(file, sighting, deleted):
    hub, labs = with_labs(file, sighting)
    before = tables(file)
    await hub.stop(await hub.session(ADA), "asked")
    wanted = [(LabIdentity("uid-1", NAMESPACE, ADA), lab_name(ADA))] if deleted else []
    assert labs.deleted == wanted
    assert differences(before, tables(file)) == CLEARED | {"api_tokens": (3, 0)}


async def test_stop_in_doubt_changes_nothing(file):
    """The lab may run on, and would be unreachable."""
    hub, labs = with_labs(file, Sighting(Presence.DOUBT, why="HTTP 503"))
    before, session = tables(file), await hub.session(ADA)
    with pytest.raises(Doubt, match="HTTP 503"):
        await hub.stop(session, "asked")
    assert labs.deleted == []
    assert tables(file) == before


async def test_stop_keeps_the_session_of_a_lab_that_does_not_go(file):
    hub, labs = with_labs(file, Sighting(Presence.ALIVE, pod()))

    async def refuses(*_):
        raise Conflict("still there")

    labs.delete = refuses
    before, session = tables(file), await hub.session(ADA)
    with pytest.raises(Conflict):
        await hub.stop(session, "asked")
    assert tables(file) == before


async def test_relinking_needs_a_hub_that_runs(hub, file):
    before = tables(file)
    with pytest.raises(Conflict, match="running hub"):
        await hub.relink(ADA, "jupyter-ada", LabIdentity("uid-1", NAMESPACE, ADA, HUB))
    assert tables(file) == before


# -- users


async def test_a_user_is_forgotten_with_all_that_is_theirs_and_nothing_else(hub, file):
    for server in (ADA, GPU):
        await hub.clear(await hub.session(server), WHY)
    before = tables(file)
    await hub.forget_user("ada")
    after = tables(file)
    gone = {name: count for name, (count, _) in differences(before, after).items()}
    # Two servers' rows; two tokens by hand, and two whose notes only look like a server's.
    assert gone == {"users": 1, "spawners": 2, "api_tokens": 4}
    assert all(after[name] <= before[name] for name in before)


async def test_a_user_with_a_session_is_not_forgotten(hub, file):
    await hub.clear(await hub.session(ADA), WHY)
    before = tables(file)
    with pytest.raises(Conflict, match="running server"):
        await hub.forget_user("ada")
    assert tables(file) == before


async def test_a_user_who_is_not_there_is_forgotten_already(hub, file):
    before = tables(file)
    await hub.forget_user("nobody")
    assert tables(file) == before


# -- a database that cannot be used


async def test_a_missing_file_is_doubt_and_is_not_made(tmp_path):
    """A hub would start on the empty one; every user would be new to it (2017)."""
    hub = StoppedHub(f"sqlite:///{tmp_path / 'hub.sqlite'}", Labs(Sighting(Presence.GONE)))
    with pytest.raises(Doubt):
        await hub.sessions()
    with pytest.raises(Doubt):
        await hub.session(ADA)
    with pytest.raises(Doubt):
        await hub.forget_user("ada")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"nonsense" * 1000, b""], ids=["garbage", "empty"])
async def test_a_file_that_is_no_hubs_database_is_doubt(tmp_path, content):
    file = tmp_path / "hub.sqlite"
    file.write_bytes(content)
    hub = StoppedHub(f"sqlite:///{file}", Labs(Sighting(Presence.GONE)))
    for ask in (hub.sessions(), hub.session(ADA), hub.forget_user("ada")):
        with pytest.raises(Doubt):
            await ask
    assert file.read_bytes() == content


async def test_a_database_of_another_version_is_doubt_and_stays(hub, file):
    """``jupyterhub upgrade-db`` has not been run."""
    with opened(file) as db:
        db.execute(orm.Base.metadata.tables["users"].select())
        db.connection().exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    before = tables(file)
    with pytest.raises(Doubt, match="DatabaseSchemaMismatch"):
        await hub.session(ADA)
    assert tables(file) == before


def test_a_transaction_that_fails_leaves_nothing_behind(file):
    before = tables(file)

    def fails() -> None:
        with database_of(f"sqlite:///{file}") as db:
            db.delete(orm.User.find(db, "ada"))
            db.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert tables(file) == before


async def test_a_locked_database_is_doubt(hub, file, monkeypatch):
    """Some hub is alive, after all."""
    import sqlite3

    session, before = await hub.session(ADA), tables(file)
    real = orm.new_session_factory
    # It would wait for five seconds.
    monkeypatch.setattr(records, "check", lambda *_: None)
    monkeypatch.setattr(
        orm,
        "new_session_factory",
        lambda url: real(url, connect_args={"timeout": 0.1, "check_same_thread": False}),
    )
    other = sqlite3.connect(file)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Doubt):
            await hub.clear(session, WHY)
    finally:
        other.rollback()
        other.close()
    assert tables(file) == before
