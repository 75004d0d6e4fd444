"""The hub's sessions, read from a database that JupyterHub itself made; nothing is written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jupyterhub import orm
from sqlalchemy import create_engine, text

from jhub_safety.errors import Doubt
from jhub_safety.sessions import records
from jhub_safety.sessions.model import Server, Session
from jhub_safety.sessions.records import read, read_one, steps, unpack
from tests.unit.given import AWKWARD
from tests.unit.hub_database import add_server, add_user, opened, tables
from tests.unit.session_given import ADA, BOB, GPU, session

CAROL, DAN = Server("carol"), Server("dan", "big")


def lab_of(user, server, state):
    """As an inventory has it."""
    name = state.get("pod_name")
    return (name, state.get("namespace", "home")) if isinstance(name, str) else None


@pytest.fixture
def file(tmp_path):
    return tmp_path / "jupyterhub.sqlite"


@pytest.fixture
def url(file):
    return f"sqlite:///{file}"


@pytest.fixture
def filled(file):
    with opened(file) as db:
        add_user(db, "nobody")
        state = {"pod_name": "jupyter-ada", "namespace": "jupyter", "pvc_name": "claim-ada"}
        row = add_server(db, ADA, state | {records.PLACE: "uid-of-mark"})
        row.started = datetime(2026, 11, 21, 12)  # noqa: DTZ001 - as JupyterHub writes it
        add_server(db, BOB, {"pod_name": "jupyter-bob"}, running=False)
        add_server(db, GPU, {"pod_name": "jupyter-ada--gpu"}, address=("svc.jupyter", 80))
        add_server(db, CAROL, None)
        add_server(db, DAN, {"pod_name": 7, "pvc_name": 7, records.PLACE: 7})
    return file


ALL = {
    session(
        ADA,
        claim="claim-ada",
        place="uid-of-mark",
        started=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
    ),
    Session(GPU, "jupyter-ada--gpu", "home", "svc.jupyter:80"),
    Session(CAROL, "", "", "10.88.0.7:8888"),
    Session(DAN, "", "", "10.88.0.7:8888"),
}


def test_every_running_server_is_a_session_and_no_other(filled, url):
    found = read(url, lab_of)
    assert set(found) == ALL
    assert len(found) == len(ALL)


def test_nothing_is_written(filled, url):
    before, stat = tables(filled), filled.stat()
    read(url, lab_of)
    assert tables(filled) == before
    assert filled.stat().st_mtime_ns == stat.st_mtime_ns
    assert [one.name for one in filled.parent.iterdir()] == [filled.name]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 1000])
def test_sessions_come_in_steps_none_lost_and_none_twice(filled, url, step):
    engine = create_engine(url)
    with engine.connect() as connection:
        found = list(steps(connection, lab_of, step=step))
        assert not connection.in_transaction()
    engine.dispose()
    assert all(len(one) == step for one in found[:-1])
    assert len(found[-1]) < step
    assert sorted(one.server for part in found for one in part) == sorted(one.server for one in ALL)


def test_nothing_is_held_between_two_steps(filled, url):
    """The hub commits meanwhile; what starts behind the last row read is read, too."""
    engine = create_engine(url)
    with engine.connect() as connection:
        reading = steps(connection, lab_of, step=2)
        first = next(reading)
        with opened(filled) as db:
            add_server(db, Server("eve"), {"pod_name": "jupyter-eve"})
        rest = [one for part in reading for one in part]
    engine.dispose()
    assert {one.server for one in (*first, *rest)} == {one.server for one in ALL} | {Server("eve")}


def test_a_hub_in_memory_is_read_in_its_own_transaction(filled, url):
    """What it has not committed yet stays as it is."""
    with opened(filled) as db:
        user = add_user(db, "nobody")
        user.admin = True
        db.flush()
        found = [one for part in steps(db.connection(), lab_of, step=2, end=False) for one in part]
        assert set(found) == ALL
        assert db.in_transaction()
        assert user.admin


@pytest.mark.parametrize(
    "server",
    [ADA, GPU, CAROL, DAN, BOB, Server("nobody"), Server("ada", "x"), Server("x")],
    ids=str,
)
def test_one_session_is_read_as_it_is_now(filled, url, server):
    engine = create_engine(url)
    with engine.connect() as connection:
        found = read_one(connection, server, lab_of)
    engine.dispose()
    assert found == next((one for one in ALL if one.server == server), None)


def test_a_users_default_server_has_an_empty_name_even_where_it_is_null(filled, url):
    """As very old hubs wrote it."""
    with opened(filled) as db:
        db.execute(text("UPDATE spawners SET name = NULL WHERE name = ''"))
    assert {one.server for one in read(url, lab_of)} == {one.server for one in ALL}


STATES = ["", "null", "[]", "7", '"text"', "{", "nonsense", '{"pod_name":', "\x00", "[" * 50, None]


@pytest.mark.parametrize("state", STATES, ids=repr)
def test_a_state_that_is_no_json_object_names_no_lab(filled, url, state):
    """It is a session all the same, and one that is never acted upon."""
    with opened(filled) as db:
        db.execute(text("UPDATE spawners SET state = :state"), {"state": state})
    found = read(url, lab_of)
    assert {(one.server, one.lab, one.place, one.claim) for one in found} == {
        (one.server, "", None, None) for one in ALL
    }


@given(st.text() | st.none())
def test_any_saved_state_is_a_dict(state):
    assert isinstance(unpack(state), dict)


@pytest.mark.parametrize(
    ("ip", "address"),
    [("10.88.0.7", "10.88.0.7:8888"), ("svc", "svc:8888"), ("fd00::7", "[fd00::7]:8888"), ("", "")],
)
def test_an_address_is_written_as_the_proxys_routes_have_it(file, url, ip, address):
    """jupyterhub.objects.Server.host; else every route of an IPv6 cluster would look dead."""
    with opened(file) as db:
        add_server(db, ADA, {}, address=(ip, 8888))
    (found,) = read(url, lab_of)
    assert found.address == address


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([one for one in AWKWARD if len(one) < 256]), unique=True))
def test_any_name_is_read_as_it_is(tmp_path_factory, names):
    # SQLite stores no halves of surrogate pairs, and no hub has such a user.
    names = [one for one in names if "\ud800" not in one]
    file = tmp_path_factory.mktemp("hub") / "hub.sqlite"
    with opened(file) as db:
        for name in names:
            user = orm.User(name=name)
            row = orm.Spawner(name=name, user=user, state={"pod_name": name})
            row.server = orm.Server(ip="10.0.0.1", port=1)
            db.add(row)
    found = read(f"sqlite:///{file}", lab_of)
    assert {(one.server, one.lab) for one in found} == {(Server(one, one), one) for one in names}


# -- a database that cannot be read


def test_a_missing_file_is_doubt_and_is_not_made(file, url):
    """A hub would start on the empty one; every user would be new to it (2017)."""
    with pytest.raises(Doubt):
        read(url, lab_of)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"nonsense" * 1000, b"SQLite format 3\0"], ids=["empty", "garbage", "cut off"]
)
def test_a_file_that_is_no_hubs_database_is_doubt(file, url, content):
    file.write_bytes(content)
    with pytest.raises(Doubt):
        read(url, lab_of)
    assert file.read_bytes() == content


def test_a_database_half_of_whose_tables_are_missing_is_doubt(filled, url):
    with opened(filled) as db:
        db.execute(text("DROP TABLE servers"))
    with pytest.raises(Doubt):
        read(url, lab_of)


@pytest.mark.parametrize("address", ["nonsense", "nosuchengine:///x", ""])
def test_an_address_that_cannot_be_used_is_doubt(address):
    with pytest.raises(Doubt):
        read(address, lab_of)


def test_the_doubt_tells_no_password():
    with pytest.raises(Doubt) as caught:
        read("postgresql://hub:s3cr3t@127.0.0.1:1/hub", lab_of)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["with space.sqlite", "100%.sqlite", "ü.sqlite"])
def test_a_file_of_any_name_is_read(tmp_path, name):
    file = tmp_path / name
    with opened(file) as db:
        add_server(db, ADA, {})
    assert [one.server for one in read(f"sqlite:///{file}", lab_of)] == [ADA]
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_file_is_read_from_the_working_directory_too(filled, monkeypatch):
    """JupyterHub's default is ``sqlite:///jupyterhub.sqlite``."""
    monkeypatch.chdir(filled.parent)
    assert set(read("sqlite:///jupyterhub.sqlite", lab_of)) == ALL


def test_a_file_that_the_hub_names_by_a_uri_is_read(filled):
    assert set(read(f"sqlite:///file:{filled}?uri=true", lab_of)) == ALL
