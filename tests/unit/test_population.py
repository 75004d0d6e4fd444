"""The population of the benchmark of sessions, and the database that is written of it."""

from __future__ import annotations

from collections import Counter

from jupyterhub import orm

from benchmarks import database
from benchmarks.population import ODD, SESSIONS, USERS, VERDICTS, Kind, expected, population


def test_is_of_the_size_that_is_told():
    """10,000 sessions, about as many labs, one in twenty not in step."""
    subjects = population()
    assert sum(one.has_session for one in subjects) == SESSIONS
    assert max(one.user_number for one in subjects) < USERS
    odd = Counter(one.kind for one in subjects if one.kind is not Kind.IN_STEP)
    assert odd == {kind: ODD for kind in Kind if kind is not Kind.IN_STEP}
    assert 0.04 < odd.total() / SESSIONS < 0.06
    names = [lab.name for one in subjects for lab in one.labs]
    assert len(names) == len(set(names))


def test_every_kind_has_a_verdict():
    """And every finding is counted once; a second lab is one more."""
    subjects = population()
    assert set(VERDICTS) == set(Kind)
    assert expected(subjects).total() == len(subjects) + ODD


def test_the_database_is_one_that_a_hub_reads(tmp_path, monkeypatch):
    """By the hub's own classes: rows, JSON, relations."""
    monkeypatch.setattr(database, "USERS", 500)
    subjects = population()[:50]
    addresses = {one.lab.name: "10.192.0.1" for one in subjects}
    url = database.make(tmp_path / "hub.sqlite", subjects, addresses)
    with_session = [one for one in subjects if one.has_session]
    session = orm.new_session_factory(url)()
    try:
        assert session.query(orm.User).count() == 500
        running = session.query(orm.Spawner).filter(orm.Spawner.server_id.is_not(None)).all()
        assert {(row.user.name, row.name) for row in running} == {
            (one.user, one.server) for one in with_session
        }
        first = running[0]
        assert first.state["pod_name"] == subjects[0].lab.name
        assert first.server.ip == "10.192.0.1"
        assert first.oauth_client is not None
    finally:
        session.close()
        session.get_bind().dispose()
    engine = database.create_engine(url)
    try:
        assert len(database.active(engine)) == len(with_session)
    finally:
        engine.dispose()
