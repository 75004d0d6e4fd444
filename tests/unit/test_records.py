"""The hub's database, made by JupyterHub itself: what is read of it; nothing is written."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime

import pytest
from jupyterhub import orm

from jhub_safety.errors import Doubt
from jhub_safety.hubdb.records import (
    CLAIMS_MADE,
    FORMER_USERS,
    VOLUMES,
    HubRecords,
    Kept,
    Record,
    claims_kept,
    former_users,
    read,
    remember_former_user,
    same_home,
    servers_naming,
    servers_with_volumes,
    when_made,
)

#: User, server, saved state; None is a server that was never started.
SERVERS = (
    ("alice", "", {"pvc_name": "claim-alice", "pod_name": "jupyter-alice"}),
    ("alice", "gpu", {"pvc_name": "claim-alice--gpu"}),
    ("bob", "", {"pvc_name": "claim-bob"}),
    ("carol", "", None),
    ("erin@school.edu", "", {"pvc_name": "claim-alice"}),
    # Says the name, but not as its claim.
    ("frank", "", {"pod_name": "claim-alice", "notes": ["claim-alice"]}),
    ("grace", "", {"pvc_name": "claim_alice"}),
)
USERS = ("alice", "bob", "carol", "erin@school.edu", "frank", "grace", "nobody")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "jupyterhub.sqlite"


@pytest.fixture
def session(database):
    """A database as the running JupyterHub makes it, and its session."""
    db = orm.new_session_factory(f"sqlite:///{database}")()
    for name in USERS:
        db.add(orm.User(name=name))
    db.commit()
    for user, server, state in SERVERS:
        owner = db.query(orm.User).filter_by(name=user).one()
        db.add(orm.Spawner(name=server, user=owner, state=state))
    db.commit()
    yield db
    db.close()
    db.get_bind().dispose()


def url(file) -> str:
    return f"sqlite:///{file}"


# -- servers_naming


@pytest.mark.parametrize(
    ("claim", "named_by"),
    [
        pytest.param("claim-bob", {Record("bob", "")}, id="one server"),
        pytest.param(
            "claim-alice", {Record("alice", ""), Record("erin@school.edu", "")}, id="two users"
        ),
        pytest.param("claim-alice--gpu", {Record("alice", "gpu")}, id="a named server"),
        pytest.param("claim-alice--", set(), id="a part of a name"),
        pytest.param("jupyter-alice", set(), id="a pod's name"),
        pytest.param("claim_alice", {Record("grace", "")}, id="_ is no wildcard"),
        pytest.param("claim%", set(), id="% is no wildcard"),
        pytest.param("claim-nobody", set(), id="nobody"),
    ],
)
def test_the_servers_whose_record_names_a_claim_and_only_those(session, claim, named_by):
    found = servers_naming(session, claim)
    assert set(found) == named_by
    assert len(found) == len(named_by)


@pytest.mark.parametrize("state", ["", "null", "[]", '"claim-bob"', '{"pvc_name": "claim-bob"'])
def test_a_state_that_is_no_object_names_nothing_and_hides_nobody_else(session, database, state):
    raw = session.connection().connection.cursor()
    raw.execute("UPDATE spawners SET state = ? WHERE state LIKE '%jupyter-alice%'", (state,))
    session.commit()
    assert servers_naming(session, "claim-bob") == (Record("bob", ""),)
    assert read(url(database)).claim_of("alice", "") is None
    assert read(url(database)).claim_of("bob", "") == "claim-bob"


# -- extra volumes


@pytest.fixture
def volumes(session):
    """alice has postgres-alice twice and erin once; frank speaks of it, grace's is like it."""
    made = "2026-05-01T10:00:00+00:00"
    said = {
        ("alice", ""): {VOLUMES: {"p": "postgres-alice", "d": 7}, CLAIMS_MADE: {"p": made}},
        ("alice", "gpu"): {VOLUMES: {"p": "postgres-alice"}, "pvc_name": "claim-gpu"},
        ("erin@school.edu", ""): {VOLUMES: {"p": "postgres-erin", "other": "postgres-alice"}},
        ("frank", ""): {VOLUMES: {"postgres-alice": "x"}, "notes": "postgres-alice"},
        ("grace", ""): {VOLUMES: {"p": "postgres_alice"}},
        ("bob", ""): {VOLUMES: ["postgres-alice"]},
    }
    for (user, server), state in said.items():
        session.query(orm.User).filter_by(name=user).one().orm_spawners[server].state = state
    session.commit()
    return session


@pytest.mark.parametrize(
    ("claims", "named_by"),
    [
        (
            ["postgres-alice", "postgres-erin", "none"],
            {
                "postgres-alice": [("alice", ""), ("alice", "gpu"), ("erin@school.edu", "")],
                "postgres-erin": [("erin@school.edu", "")],
            },
        ),
        (["postgres_alice"], {"postgres_alice": [("grace", "")]}),
        (["postgres%", "postgres-alic", "x"], {"x": [("frank", "")]}),
        ([], {}),
    ],
    ids=["two", "_ is no wildcard", "nor is %, and a part is not it", "of none"],
)
def test_the_servers_on_whose_record_a_claim_is_an_extra_volume(volumes, claims, named_by):
    found = servers_with_volumes(volumes, claims)
    assert {claim: [(one.user, one.server) for one in who] for claim, who in found.items()} == (
        named_by
    )


def test_what_a_users_servers_have_on_record(volumes):
    made = datetime(2026, 5, 1, 10, tzinfo=UTC)
    kept = Kept("postgres-alice")
    assert claims_kept(volumes, "alice", "p") == {
        "": Kept("postgres-alice", made),
        "gpu": kept,
    }
    assert claims_kept(volumes, "alice", "d") == claims_kept(volumes, "bob", "p") == {}
    assert claims_kept(volumes, "alice") == {"gpu": Kept("claim-gpu")}


@pytest.mark.parametrize(
    "times", [None, 7, {}, {"p": 7}, {"p": "x"}, {"p": "2026-05-01T10:00:00"}], ids=repr
)
def test_a_time_that_cannot_be_read_is_none(times):
    assert when_made({CLAIMS_MADE: times}, "p") is None


def test_a_former_name_is_remembered_for_a_server_with_extra_volumes_alone(volumes):
    """A hub whose homes are no claims, or are left alone."""
    erin = volumes.query(orm.User).filter_by(name="erin@school.edu").one()
    assert len(remember_former_user(erin.orm_spawners.values(), "erin")) == 1
    assert former_users(erin.orm_spawners[""].state) == ("erin",)


# -- HubRecords


@pytest.mark.parametrize(
    ("user", "server", "claim"),
    [
        ("alice", "", "claim-alice"),
        ("alice", "gpu", "claim-alice--gpu"),
        ("alice", "cpu", None),
        ("carol", "", None),
        ("frank", "", None),
        ("nobody", "", None),
        ("who?", "", None),
    ],
)
def test_the_claim_on_record_is_that_of_this_very_server(session, database, user, server, claim):
    assert read(url(database)).claim_of(user, server) == claim


@pytest.mark.parametrize("name", [None, 7, ["claim-a"], {"claim": "a"}])
def test_a_claims_name_that_is_no_text_is_none(name):
    records = HubRecords(("alice",), {Record("alice", ""): {"pvc_name": name}})
    assert records.claim_of("alice", "") is None
    assert records.others_naming("claim-a", "bob", "", per_server=True) == ""


@pytest.mark.parametrize(
    ("claim", "user", "server", "per_server", "other"),
    [
        pytest.param("claim-bob", "bob", "", True, "", id="their own"),
        pytest.param("claim-bob", "alice", "", True, "bob", id="another user's"),
        pytest.param(
            "claim-alice", "alice", "", True, "erin@school.edu", id="theirs and another's"
        ),
        pytest.param(
            "claim-alice--gpu", "alice", "", True, "alice/gpu", id="another server's, per server"
        ),
        pytest.param("claim-alice--gpu", "alice", "", False, "", id="another server's, shared"),
        pytest.param(
            "claim-alice--gpu", "bob", "gpu", False, "alice/gpu", id="a server's namesake"
        ),
        pytest.param("claim-none", "alice", "", True, "", id="on no record"),
    ],
)
def test_another_server_on_record_for_a_claim_is_named(
    session, database, claim, user, server, per_server, other
):
    records = read(url(database))
    assert records.others_naming(claim, user, server, per_server=per_server) == other


@pytest.mark.parametrize(
    ("user", "server", "per_server", "same"),
    [
        ("alice", "gpu", True, True),
        ("alice", "", True, False),
        ("alice", "", False, True),
        ("bob", "gpu", True, False),
        ("bob", "gpu", False, False),
    ],
)
def test_one_home_is_one_server_or_one_user(user, server, per_server, same):
    assert same_home(Record("alice", "gpu"), user, server, per_server=per_server) is same


# -- read


def test_every_user_and_every_servers_state_is_read(session, database):
    records = read(url(database))
    assert records.users == tuple(sorted(USERS))
    assert {record: dict(state) for record, state in records.states.items()} == {
        Record(user, server): state or {} for user, server, state in SERVERS
    }
    assert [str(Record("alice", "gpu")), str(Record("alice", ""))] == ["alice/gpu", "alice"]


def test_reading_leaves_every_file_as_it_was(session, database):
    def files():
        return {
            file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
            for file in database.parent.iterdir()
        }

    before = files()
    read(url(database))
    assert files() == before


def test_it_is_read_while_the_hub_is_in_the_middle_of_writing(session, database):
    session.add(orm.User(name="not-committed"))
    session.flush()
    assert read(url(database)).users == tuple(sorted(USERS))


def test_a_relative_path_counts_from_the_working_directory(session, database, monkeypatch):
    monkeypatch.chdir(database.parent)
    assert read(f"sqlite:///{database.name}").users == tuple(sorted(USERS))


def test_a_missing_file_is_doubt_and_is_not_made(database):
    with pytest.raises(Doubt, match=r"the hub's database .* cannot be read: unable to open"):
        read(url(database))
    assert list(database.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "no such table: users", id="zero bytes"),
        pytest.param(b"this is no database " * 200, "file is not a database", id="garbage"),
    ],
)
def test_a_file_that_is_no_hubs_database_is_doubt_and_stays_as_it_is(database, content, why):
    database.write_bytes(content)
    with pytest.raises(Doubt, match=why) as doubt:
        read(url(database))
    assert "SELECT" not in str(doubt.value)
    assert "sqlalche.me" not in str(doubt.value)
    assert database.read_bytes() == content
    assert list(database.parent.iterdir()) == [database]


def test_a_database_cut_in_half_is_doubt(session, database):
    session.close()
    session.get_bind().dispose()
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 8])
    with pytest.raises(Doubt, match="cannot be read"):
        read(url(database))


def test_a_password_is_not_in_the_error():
    with pytest.raises(Doubt) as doubt:
        read("nosuchdatabase://hub:s3cr3t@db.example/jupyterhub")
    assert "nosuchdatabase://hub:***@db.example/jupyterhub" in str(doubt.value)
    assert "s3cr3t" not in str(doubt.value)


def test_a_driver_that_is_not_installed_is_doubt(monkeypatch):
    # As on an operator's machine: only the hub's image has what its database needs.
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(Doubt, match="cannot be read"):
        read("mysql+pymysql://hub:s3cr3t@db.example/jupyterhub")


def test_a_url_that_cannot_be_understood_is_doubt():
    with pytest.raises(Doubt):
        read("://")


# -- former users


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (None, ()),
        ({}, ()),
        ({FORMER_USERS: ["alice", "alice.smith"]}, ("alice", "alice.smith")),
        ({FORMER_USERS: ["alice", 7, None]}, ("alice",)),
    ],
)
def test_the_former_names_of_a_user_are_read_from_the_state(state, names):
    assert former_users(state) == names


def test_a_former_name_is_remembered_in_the_database_for_each_server_with_a_claim(session):
    alice = session.query(orm.User).filter_by(name="alice").one()
    alice._orm_spawners.append(orm.Spawner(name="never-started"))
    session.commit()

    changed = remember_former_user(alice.orm_spawners.values(), "alice")
    session.commit()
    session.expire_all()

    assert {server.name for server in changed} == {"", "gpu"}
    states = {server.name: server.state for server in alice.orm_spawners.values()}
    assert former_users(states[""]) == former_users(states["gpu"]) == ("alice",)
    assert former_users(states["never-started"]) == ()
    assert states[""]["pvc_name"] == "claim-alice"
    assert json.loads(json.dumps(states[""]))[FORMER_USERS] == ["alice"]


def test_names_are_remembered_in_order_and_each_once(session):
    bob = session.query(orm.User).filter_by(name="bob").one()
    for name in ("first", "second", "first"):
        remember_former_user(bob.orm_spawners.values(), name)
    session.commit()
    session.expire_all()
    assert former_users(bob.orm_spawners[""].state) == ("first", "second")
