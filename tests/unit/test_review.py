"""Who comes back with a snapshot is listed whole, and with nothing that logs anybody in."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jupyterhub import orm, roles

from jhub_safety.hubdb import review
from jhub_safety.hubdb.engines import opened_file
from jhub_safety.hubdb.review import SOME, Admin, Review, Token
from jhub_safety.sessions.model import Server
from tests import awkward
from tests.unit.hub_database import add_server, add_user, base_url, opened, token

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOSTILE = "[red]\x1b[2Jx\nCRITICAL all is well"


@pytest.fixture
def file(tmp_path) -> Path:
    """A hub's, with its roles and nobody in it."""
    made = tmp_path / "hub.sqlite"
    with opened(made) as db:
        for role in roles.get_default_roles():
            roles.create_role(db, role)
    return made


def read(file: Path, before: review.Held | None = None) -> Review:
    with opened_file(file) as connection:
        return review.read(connection, NOW, before)


def shell(file: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute(statement, values)
        database.commit()


def make(file: Path, user: str, called: str = "", /, **changes: object) -> str:
    """A token as the hub's page makes it; gives its id."""
    with opened(file) as db:
        add_user(db, user)
        token(db, Server(user), called)
        number = max(one.id for one in db.query(orm.APIToken))
    for column, value in changes.items():
        shell(file, f"UPDATE api_tokens SET {column} = ? WHERE id = {number}", value)
    return f"a{number}"


def ids(found: Review) -> set[str]:
    return {one.id for one in found.tokens}


# -- tokens


def test_a_token_that_somebody_made_is_listed_with_what_tells_it(file):
    mine = make(
        file,
        "ada",
        "for the cluster",
        created="2026-10-01 08:00:00.123456",
        last_activity="2026-11-20 09:00:00.000000",
        expires_at="2027-01-01 00:00:00.000000",
    )
    assert read(file).tokens == (
        Token(
            mine,
            "ada",
            "for the cluster",
            "2026-10-01T08:00:00+00:00",
            "2026-11-20T09:00:00+00:00",
            "2027-01-01T00:00:00+00:00",
        ),
    )


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        pytest.param({}, True, id="never expires"),
        pytest.param({"expires_at": str(NOW.replace(tzinfo=None))}, True, id="expires now"),
        pytest.param(
            {"expires_at": str((NOW - timedelta(seconds=1)).replace(tzinfo=None))},
            False,
            id="expired",
        ),
        pytest.param({"expires_at": "some day"}, True, id="nobody can tell when it expires"),
        pytest.param({"session_id": "s"}, False, id="a browser's, which the restore ends"),
        pytest.param(
            {"client_id": None}, False, id="without a client: the hub takes it for nothing"
        ),
        pytest.param({"note": None, "created": None}, True, id="without note and time"),
    ],
)
def test_what_can_be_used_after_a_restore_is_listed_and_nothing_else(file, change, listed):
    mine = make(file, "ada", "script", **change)
    assert ids(read(file)) == ({mine} if listed else set())


def test_the_token_of_a_lab_that_ran_is_counted_and_not_listed(file):
    with opened(file) as db:
        add_server(db, Server("ada"))
        add_server(db, Server("b@x.org", "gpu 2"))
    shell(file, "DELETE FROM api_tokens WHERE note = 'oauth'")
    assert read(file) == Review(labs=2)


def test_nobody_hides_a_token_behind_the_note_of_a_lab(file):
    note = f"Server at {base_url(Server('eve'))}"
    without_a_lab = make(file, "eve", "hidden", note=note)
    assert ids(read(file)) == {without_a_lab}
    with opened(file) as db:
        add_server(db, Server("eve"))
        add_server(db, Server("ada"))
    shell(file, "DELETE FROM api_tokens WHERE note = 'oauth'")
    of_another = make(file, "eve", f"Server at {base_url(Server('ada'))}")
    found = read(file)
    assert (len(found.tokens), found.labs) == (3, 1)
    assert {without_a_lab, of_another} < ids(found)


def test_tokens_of_services_are_counted(file):
    make(file, "ada", "mine")
    with opened(file) as db:
        db.add(orm.Service(name="culler"))
        db.commit()
        orm.Service.find(db, "culler").new_api_token(note="from config")
    found = read(file)
    assert (len(found.tokens), found.services) == (1, 1)


# -- administrators


def test_administrators_are_listed_however_they_are_it(file):
    with opened(file) as db:
        for name in ("by flag", "by role", "by group", "nobody in particular"):
            add_user(db, name)
        orm.User.find(db, "by flag").admin = True
        admin = orm.Role.find(db, "admin")
        admin.users.append(orm.User.find(db, "by role"))
        group = orm.Group(name="staff")
        group.users += [orm.User.find(db, "by group"), orm.User.find(db, "by role")]
        db.add(group)
        admin.groups.append(group)
    assert read(file).admins == (Admin("by flag"), Admin("by group", ("staff",)), Admin("by role"))


def test_who_stands_in_admin_users_is_marked_and_comes_last():
    found = Review(admins=(Admin("ada"), Admin("eve"))).marked({"ada", "else"})
    assert found.admins == (Admin("eve"), Admin("ada", configured=True))


# -- beside what was there before


def test_what_was_taken_away_since_the_snapshot_comes_first(file, tmp_path):
    """A token that its owner revoked, rights that were taken back: the reason for the list."""
    kept, revoked = make(file, "ada", "kept"), make(file, "zoe", "revoked")
    with opened(file) as db:
        for name in ("ada", "zoe"):
            orm.User.find(db, name).admin = True
    now = tmp_path / "now.sqlite"
    now.write_bytes(file.read_bytes())
    shell(now, "DELETE FROM api_tokens WHERE note = 'revoked'")
    shell(now, "UPDATE users SET admin = 0 WHERE name = 'zoe'")
    with opened_file(now) as connection:
        before = review.held(connection)
    found = read(file, before)
    assert [(one.id, one.was_there) for one in found.tokens] == [(revoked, False), (kept, True)]
    assert [(one.name, one.was_there) for one in found.admins] == [("zoe", False), ("ada", True)]


# -- what is never in it, and what it never does


def test_neither_a_token_nor_its_hash_is_in_any_form_of_the_list(file):
    with opened(file) as db:
        secret = _real_token(db)
        hashed, prefix = db.query(orm.APIToken.hashed, orm.APIToken.prefix).one()
    with opened_file(file) as connection:
        before = review.held(connection)
    found = read(file, before)
    assert len(found.tokens) == 1
    everything = json.dumps([found.record(), found.brief(), found.lines("x")]) + repr(before)
    for one in (secret, hashed, hashed.rpartition(":")[2], f'"{prefix}"'):
        assert one not in everything


def _real_token(db) -> str:
    add_user(db, "ada")
    db.add(orm.OAuthClient(identifier="jupyterhub"))
    db.commit()
    return str(orm.User.find(db, "ada").new_api_token(note="real"))


def test_what_a_user_writes_stays_on_its_own_line_of_the_log(file):
    make(file, HOSTILE, HOSTILE)
    shell(file, "UPDATE users SET admin = 1")
    lines = read(file).lines("x")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("CRITICAL") for line in lines)


@pytest.mark.parametrize("count", [0, 1, SOME, SOME + 1, 1000])
def test_a_log_and_a_journal_stay_short_and_say_how_many_there_are(count):
    found = Review(
        tuple(Admin(f"user-{n}") for n in range(count)),
        tuple(Token(f"a{n}", "ada", "x" * 1023) for n in range(count)),
    )
    brief, lines = found.brief(), found.lines("20261121T1")
    assert (brief["admins_in_all"], brief["tokens_in_all"]) == (count, count)
    assert len(json.dumps(brief)) < 15_000
    assert len(lines) <= 2 * SOME + 4
    assert f"{count} administrators" in lines[0]
    named = "jhub-safety db restore 20261121T1 --dry-run --json" in "".join(lines)
    assert named == (count > SOME)


def test_it_is_the_same_after_its_way_through_json(file):
    make(file, "ada", "script")
    shell(file, "UPDATE users SET admin = 1")
    found = read(file).marked({"ada"})
    assert Review.parse(json.loads(json.dumps(found.record()))) == found


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DROP TABLE group_role_map", id="a table is missing"),
        pytest.param("ALTER TABLE api_tokens DROP COLUMN last_activity", id="a column is missing"),
    ],
)
def test_a_list_that_cannot_be_made_is_said_and_never_taken_for_an_empty_one(file, statement):
    make(file, "ada", "script")
    shell(file, statement)
    found = read(file)
    assert found.problem
    assert (found.admins, found.tokens) == ((), ())
    assert found.lines("x") == (
        f"Which administrators and tokens came back could not be read: {found.problem}",
    )


def test_the_most_awkward_database_is_read(tmp_path):
    made = awkward.make(tmp_path / "hub.sqlite", nul=True)
    found = read(made)
    assert found.problem == ""
    assert found.admins
