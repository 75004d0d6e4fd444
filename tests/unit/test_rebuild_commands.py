"""``jhub-safety db rebuild``: the plan, the table for a person, and rows that stay."""

from __future__ import annotations

import csv
import json
from typing import Any, ClassVar

import pytest
from aiohttp import web
from click.testing import CliRunner
from jupyterhub import orm

from jhub_safety import owner as marks
from jhub_safety.cli import cli, hubalive
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubdb.alone import alone
from tests.unit import session_world
from tests.unit.given import HUB, NAMESPACE
from tests.unit.hub_database import opened, tables
from tests.unit.session_world import ClusterDouble, Running, refused, surroundings

#: What a hub may call somebody.
MARKUP = "[red]eve.o'hara@school.edu"
TABLE = {
    "kind": "Table",
    "apiVersion": "meta.k8s.io/v1",
    "metadata": {"resourceVersion": "1"},
    "columnDefinitions": [
        {"name": name, "type": "string"} for name in ("Name", "Ready", "Status", "IP", "Node")
    ],
    "rows": [],
}


class Claims(ClusterDouble):
    """With claims, and no labs."""

    there: ClassVar[dict[str, dict[str, Any]]] = {}
    #: Claims may not be listed.
    forbidden: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        selector = request.query.get("labelSelector")
        if self.status or kind == "secrets" or selector == hubalive.HUB_POD:
            return await super().answer(request)
        if kind == "pods":
            return web.json_response(TABLE)
        if self.forbidden:
            return self._no(403, "")
        items = [*self.there.values()]
        metadata = {"resourceVersion": "1"}
        return web.json_response(
            {"kind": "PersistentVolumeClaimList", "metadata": metadata, "items": items}
        )


def claim(name: str, user: str | None, server: str = "") -> None:
    """As KubeSpawner makes it; of one before 0.11 nothing says whose it is."""
    annotations = {} if user is None else {marks.KUBESPAWNER_USER: user}
    if server:
        annotations[marks.KUBESPAWNER_SERVER] = server
    Claims.there[name] = {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": annotations,
            "labels": {"component": "singleuser-storage"},
        },
        "spec": {"resources": {"requests": {"storage": "10Gi"}}},
        "status": {"phase": "Bound"},
    }


@pytest.fixture
def world(monkeypatch):
    """A hub that is down, whose database is gone; three claims name users, two do not."""
    monkeypatch.setattr(session_world, "ClusterDouble", Claims)
    monkeypatch.setattr(Claims, "there", {})
    with surroundings(monkeypatch) as made:
        known = str(made.directory / "known.json")
        made.extra = (
            f"\nc.DatabaseGuard.fingerprint_file = {known!r}\n"
            "c.Authenticator.admin_users = {'ada'}\n"
        )
        made.write_config()
        claim("claim-ada", "ada")
        claim("claim-ada--gpu", "ada", "gpu")
        claim("claim-eve", MARKUP)
        claim("claim-john-2edoe", None)
        claim("claim-john-doe", None)
        made.database.touch()
        yield made


def run(world, *arguments: str, answer: str = ""):
    result = CliRunner().invoke(cli, ["db", "rebuild", *arguments], input=answer)
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def people(world) -> dict[str, tuple[bool, set[tuple[str, str]]]]:
    """By user: whether administrator, and each server with its home."""
    with opened(world.database) as db:
        return {
            user.name: (
                user.admin,
                {
                    (one.name, (one.state or {}).get("pvc_name"))
                    for one in user.orm_spawners.values()
                },
            )
            for user in db.query(orm.User)
        }


ADA = (True, {("", "claim-ada"), ("gpu", "claim-ada--gpu")})
EVE = (False, {("", "claim-eve")})


# -- the plan


def test_what_would_be_done_is_said_before_it_is_asked_for(world):
    result = run(world, answer="n\n")
    words = " ".join(result.output.split())
    assert "2 users, 3 homes that are theirs, 0 labs that run" in words
    assert "2 claims do not say whose they are; list them with --unclear FILE" in words
    assert words.index("2 users") < words.index("Go on?")


@pytest.mark.parametrize("answer", ["n\n", "\n", ""], ids=["no", "just Enter", "end of input"])
def test_without_a_yes_nothing_is_written(world, answer):
    assert run(world, answer=answer).exit_code == 1
    assert world.database.read_bytes() == b""


@pytest.mark.parametrize("how", [("--yes",), ()], ids=["--yes", "y"])
def test_users_homes_and_administrators_are_what_claims_and_configuration_say(world, how):
    result = run(world, *how, answer="y\n")
    assert result.exit_code == 0, result.output
    assert people(world) == {"ada": ADA, MARKUP: EVE}
    assert "2 users and 3 of their servers were added" in " ".join(result.output.split())


def test_json_is_all_that_is_printed_and_names_what_is_unclear(world):
    result = run(world, "--yes", "--json")
    assert json.loads(result.stdout) == {
        "users": 2,
        "servers": 3,
        "labs": 0,
        "unclear": ["claim-john-2edoe", "claim-john-doe"],
        "aside": None,
    }


# -- the table


def test_names_that_a_person_fills_in_are_taken_and_the_others_stay_unclear(world):
    """'.' against '-': nobody can tell from the name of a claim."""
    file = world.directory / "claims.csv"
    assert run(world, f"--unclear={file}", answer="n\n").exit_code == 1
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["claim"] for row in rows] == ["claim-john-2edoe", "claim-john-doe"]
    assert {(row["user"], row["server"]) for row in rows} == {("", "")}
    rows[0] |= {"user": "john.doe"}
    with file.open("w") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    found = json.loads(run(world, f"--names={file}", "--yes", "--json").stdout)
    assert found["unclear"] == ["claim-john-doe"]
    assert people(world) == {
        "ada": ADA,
        MARKUP: EVE,
        "john.doe": (False, {("", "claim-john-2edoe")}),
    }


def test_a_table_never_says_otherwise_than_a_claim_does(world):
    file = world.directory / "claims.csv"
    file.write_text("claim,user\nclaim-ada,eve\n")
    run(world, f"--names={file}", "--yes")
    assert people(world) == {"ada": ADA, MARKUP: EVE}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param("claim;user\nclaim-john-doe;john\n", "no columns", id="semicolons"),
        pytest.param("", "no columns", id="empty"),
        pytest.param("claim,user\nc,a\nc,b\n", "names claim c twice", id="twice"),
    ],
)
def test_a_table_that_cannot_be_read_changes_nothing(world, table, words):
    file = world.directory / "claims.csv"
    file.write_text(table)
    result = run(world, f"--names={file}", "--yes")
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert world.database.read_bytes() == b""


# -- what is there stays


def test_in_a_database_that_holds_users_nothing_is_overwritten(world):
    with opened(world.database) as db:
        ada = orm.User(name="ada", cookie_id="kept", created=None)
        bob = orm.User(name="bob", admin=True)
        db.add_all([ada, bob])
        db.commit()
        db.add(orm.Spawner(name="", user=ada, state={"pvc_name": "another", "pod_name": "p"}))
    before = tables(world.database)
    found = json.loads(run(world, "--yes", "--json").stdout)
    after = tables(world.database)
    assert {name: rows - after[name] for name, rows in before.items()} == {
        name: set() for name in before
    }
    assert (found["users"], found["servers"]) == (1, 2)
    assert people(world) == {
        "ada": (False, {("", "another"), ("gpu", "claim-ada--gpu")}),
        "bob": (True, set()),
        MARKUP: EVE,
    }


def test_run_again_it_adds_nothing(world):
    run(world, "--yes")
    before = people(world), tables(world.database)["users"]
    found = json.loads(run(world, "--yes", "--json").stdout)
    assert (found["users"], found["servers"]) == (0, 0)
    assert (people(world), tables(world.database)["users"]) == before


def test_a_damaged_file_is_moved_aside_whole(world):
    with opened(world.database) as db:
        db.add(orm.User(name="before"))
    damaged = world.database.read_bytes()[:4096] + b"\xff" * 8192
    world.database.write_bytes(damaged)
    aside = json.loads(run(world, "--yes", "--json").stdout)["aside"]
    assert aside is not None
    assert (world.directory / aside).read_bytes() == damaged
    assert people(world) == {"ada": ADA, MARKUP: EVE}


# -- refused


def test_while_a_hub_serves_it_is_refused_with_what_stops_it(world):
    with Running("sh", "-c", f"exec 3<{world.database}; echo; exec sleep 60"):
        words = refused(run(world, "--yes"))
    assert "a hub is alive" in words
    assert "Nothing was changed" in words
    assert "scale deploy/hub --replicas=0" in words
    assert world.database.read_bytes() == b""


def test_while_another_process_makes_it_again_nothing_is_written(world):
    with alone(f"sqlite:///{world.database}"):
        words = str(run(world, "--yes").exception)
    assert words.startswith("another process is making the database again")
    assert "Nothing was changed" in words
    assert world.database.read_bytes() == b""


def test_a_listing_that_fails_is_doubt_and_changes_nothing(world):
    world.cluster.forbidden = True
    result = run(world, "--yes")
    assert isinstance(result.exception, Doubt)
    assert world.database.read_bytes() == b""


def test_a_cluster_in_which_nobody_is_named_changes_nothing(world):
    Claims.there.clear()
    result = run(world, "--yes")
    assert "no claim and no lab names a user; nothing was changed" in str(result.exception)
    assert world.database.read_bytes() == b""


def test_claims_of_another_hub_are_nobodys_here(world):
    for one in Claims.there.values():
        one["metadata"]["labels"][marks.HUB_LABEL] = f"not-{HUB}"
    assert "names a user" in str(run(world, "--yes").exception)
