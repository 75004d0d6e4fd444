"""A database is made again by one process at a time, whatever it is on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.alone import alone, lock_state
from tests.databases.waiting import SEEN

#: Takes the lock, says so, and keeps it until its standard input ends.
HOLDER = """
import os, sys
from jhub_safety.hubdb.alone import alone, lock_state
with alone(os.environ["URL"], looking="looking" in sys.argv):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(url: str, *arguments: str):
    """A process that is at it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *arguments],
        env={**os.environ, "URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate("", timeout=30)


@contextmanager
def soon_alone(url: str):
    """A server keeps the lock until it has seen its holder go; a file's goes with the process."""
    deadline = time.monotonic() + (0 if url.startswith("sqlite") else SEEN)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(alone(url))
                break
            except Conflict:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.05)
        yield


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request, new_database) -> str:
    return new_database(request.param)


def test_a_second_one_is_refused_until_the_first_is_done(url):
    with another(url):
        for looking in (False, True):
            with pytest.raises(Conflict, match="another process"), alone(url, looking=looking):
                pytest.fail("two at once")
    with soon_alone(url):
        pass


def test_one_that_was_killed_is_in_nobodys_way(url):
    with another(url) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with soon_alone(url):
        pass


def test_those_who_only_look_do_not_mind_each_other(url):
    # Else two hubs that start would each hold for the other.
    with another(url, "looking"), alone(url, looking=True):
        pass


def test_it_is_over_when_it_is_over(url):
    """A hub that has made its database again looks at it at once, and met its own lock."""
    for _ in range(20):
        with alone(url):
            pass
        with alone(url, looking=True):
            pass


def test_what_is_done_meanwhile_is_done_as_ever(url):
    with alone(url):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE made (id INTEGER)"))
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE made"))
        engine.dispose()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_another_database_of_the_same_server_is_another_matter(engine, new_database):
    with another(new_database(engine)), alone(new_database(engine)):
        pass


def test_looking_makes_no_file_and_no_database(tmp_path):
    with alone(f"sqlite:///{tmp_path}/hub.sqlite", looking=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_making_again_leaves_the_lock_alone_beside_the_database(tmp_path):
    with alone(f"sqlite:///{tmp_path}/hub.sqlite"):
        pass
    assert [one.name for one in tmp_path.iterdir()] == [".hub.sqlite.jhub-safety-lock"]


@pytest.mark.parametrize("looking", [False, True])
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_server_that_is_not_there_is_a_doubt_that_names_no_password(
    engine, looking, new_database
):
    gone = make_url(new_database(engine)).set(port=1, password="s3cr3t-Pa55")
    with (
        pytest.raises(Doubt) as caught,
        alone(gone.render_as_string(hide_password=False), looking=looking),
    ):
        pytest.fail("alone with nobody")
    assert "s3cr3t" not in str(caught.value)


def test_a_folder_that_is_not_there_is_a_doubt(tmp_path):
    where = Path(tmp_path, "unmounted", "hub.sqlite")
    with pytest.raises(Doubt, match="cannot be opened"), alone(f"sqlite:///{where}"):
        pytest.fail("alone nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file for somebody else")
def test_a_lock_that_root_has_made_is_the_database_owners(tmp_path):
    database = tmp_path / "hub.sqlite"
    database.touch(mode=0o640)
    os.chown(database, 1000, 100)
    with alone(f"sqlite:///{database}"):
        pass
    made = (tmp_path / ".hub.sqlite.jhub-safety-lock").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (1000, 100, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file for somebody else")
def test_a_lock_beside_a_database_that_is_missing_is_the_folders_groups(tmp_path):
    """A volume with an fsGroup is root's: the hub could not open what root's command had made."""
    os.chown(tmp_path, 0, 100)
    tmp_path.chmod(0o2775)
    with alone(f"sqlite:///{tmp_path}/hub.sqlite"):
        pass
    made = (tmp_path / ".hub.sqlite.jhub-safety-lock").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (0, 100, 0o660)


def as_root(url: str, *statements: str) -> list[object]:
    """Of each the first value."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            found = [connection.execute(text(one)) for one in statements]
            return [one.scalar() if one.returns_rows else None for one in found]
    finally:
        engine.dispose()


HOLDERS = {
    "postgresql": "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database())",
    "mariadb": "SELECT max(id) FROM information_schema.processlist WHERE db = database() "
    "AND id <> connection_id()",
}


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_lock_that_is_lost_is_noticed_before_anything_is_changed(engine, new_database):
    """The server was restarted, or the connection was ended for being idle."""
    url = new_database(engine)
    with alone(url) as lock:
        lock.require()
        (holder,) = as_root(url, HOLDERS[engine])
        end = "SELECT pg_terminate_backend({})" if engine == "postgresql" else "KILL {}"
        as_root(url, end.format(holder))
        with pytest.raises(Conflict, match="was lost"):
            lock.require()
    with soon_alone(url):
        pass


def test_a_lock_file_that_is_made_anew_is_another_lock(tmp_path):
    with alone(f"sqlite:///{tmp_path}/hub.sqlite") as lock:
        lock.require()
        (tmp_path / ".hub.sqlite.jhub-safety-lock").unlink()
        with pytest.raises(Conflict, match="was lost"):
            lock.require()


@pytest.mark.parametrize("looking", [False, True])
def test_postgresqls_lock_is_its_transactions(new_database, looking):
    """Through PgBouncer with pool_mode=transaction a session's lock stayed for ever."""
    url = new_database("postgresql")
    with alone(url, looking=looking):
        (state,) = as_root(
            url, f"SELECT state FROM pg_stat_activity WHERE pid = ({HOLDERS['postgresql']})"
        )
        assert state == "idle in transaction"
    assert lock_state(url) == ("free", "")


def test_a_server_that_refuses_the_lock_is_told_of_in_its_own_words(new_database):
    """It said that the server does not answer."""
    url = new_database("postgresql")
    as_root(
        url,
        "DROP ROLE IF EXISTS plain",
        "CREATE ROLE plain LOGIN PASSWORD 'plain-s3cr3t'",
        "REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock_shared(bigint) FROM PUBLIC",
    )
    plain = make_url(url).set(username="plain", password="plain-s3cr3t")
    state, why = lock_state(plain.render_as_string(hide_password=False))
    assert state == "unknown"
    assert "permission denied for function pg_try_advisory_xact_lock_shared" in why
    assert "plain-s3cr3t" not in why


def test_how_the_lock_stands_is_told_and_nothing_is_changed(url):
    assert lock_state(url) == ("free", "")
    with another(url):
        assert lock_state(url)[0] == "held"
