"""``jhub-safety doctor``: what it prints, when it fails, and that it says all there is to say."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from jhub_safety import owner as marks
from jhub_safety.cli import cli
from jhub_safety.cli.connection import Connection
from jhub_safety.cli.databases import servers_of_users
from jhub_safety.cli.doctor import CHECKS, CODES, run_checks, volumes
from jhub_safety.cluster.pods import Pod, PodsApi
from jhub_safety.errors import Doubt
from jhub_safety.finding import Finding, Severity
from jhub_safety.hub import checking
from jhub_safety.hubconfig import understand
from jhub_safety.owner import Owner
from jhub_safety.sidecars.server import parse_servers
from jhub_safety.spawner import SafeKubeSpawner
from tests.unit.given import claim

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
BAD = Finding(Severity.ERROR, "class-unknown", "[red]\x1b[2Jfast", "is not there", "kubectl x")
FINE = Finding(Severity.OK, "class-in-order", "fast", "as it should be")


async def fails(_):
    raise Doubt("the API server is away")


async def breaks(_):
    raise RuntimeError("password=secret")


async def finds(_):
    return [FINE, BAD]


async def test_worst_first_and_a_check_that_raises_is_a_finding():
    found = await run_checks(None, [finds, fails, breaks])
    assert [(one.severity, one.subject) for one in found] == [
        (Severity.ERROR, BAD.subject),
        (Severity.UNKNOWN, "fails"),
        (Severity.UNKNOWN, "breaks"),
        (Severity.OK, "fast"),
    ]
    assert "the API server is away" in found[1].story
    assert "secret" not in found[2].story


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Let the command run with these checks."""
    monkeypatch.chdir(tmp_path)

    @asynccontextmanager
    async def connected(_):
        yield SimpleNamespace(header=lambda: "cluster k8s")

    monkeypatch.setattr("jhub_safety.cli.connection.connected", connected)

    def on(*checks):
        # By sys.modules: the package's own "doctor" is the command.
        monkeypatch.setattr(sys.modules["jhub_safety.cli.doctor"], "CHECKS", list(checks))

    return on


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        pytest.param([finds], 1, id="an error"),
        pytest.param([fails], 0, id="not known"),
        pytest.param([], 0, id="nothing"),
    ],
)
def test_exit_code(on, checks, code):
    on(*checks)
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == code


def test_names_reach_no_terminal_as_they_are(on):
    on(finds)
    out = CliRunner().invoke(cli, ["doctor"]).stdout
    assert "\x1b" not in out
    assert "[red]\\x1b[2Jfast" in out


def test_json_holds_every_finding(on):
    on(finds, fails)
    said = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)
    assert [one["code"] for one in said] == ["class-unknown", "check-failed", "class-in-order"]
    assert said[0] == BAD.record()


def test_the_page_has_a_line_for_each_code():
    part = PAGE.read_text().partition("## What it can say")[2]
    lines = re.findall(r"^\| `([a-z-]+)` \|", part, re.MULTILINE)
    assert sorted(lines) == sorted(CODES)


def test_each_check_is_asked():
    names = [check.__name__ for check in CHECKS]
    assert names == [
        "storage_classes",
        "volumes",
        "folders",
        "containers",
        "servers_of_users",
        "database",
    ]


USERS, SHARED = {"subPath": "{username}"}, {"subPath": "_shared"}


@pytest.mark.parametrize(
    ("settings", "mounts", "expected"),
    [
        pytest.param({}, [], [], id="nothing"),
        pytest.param({}, [SHARED, {"name": "home"}], [], id="no folders of users"),
        pytest.param({}, [USERS], ["warning folders-not-looked-for {username}"], id="not set"),
        pytest.param({}, {"home": USERS}, ["warning folders-not-looked-for {username}"], id="dict"),
        pytest.param({}, [{"subPath": "{escaped_username}"}], [], id="never changes"),
        pytest.param(
            {"home_sub_path": "{username}"},
            [{"sub_path": "{username}"}, SHARED],
            ["ok folders-in-order home_sub_path"],
            id="set",
        ),
        pytest.param(
            {"home_sub_path": "{username}", "homes": "observe"},
            [USERS],
            ["warning folders-not-looked-for {username}"],
            id="set, and observed only",
        ),
        pytest.param(
            {"home_sub_path": "home/{username}"},
            [USERS],
            ["error folders-not-mounted home_sub_path"],
            id="written differently",
        ),
    ],
)
def test_homes_on_one_claim(settings, mounts, expected):
    config = Config({"SafeKubeSpawner": settings, "KubeSpawner": {"volume_mounts": mounts}})
    found = checking.look_at_folders(SafeKubeSpawner, config)
    assert [f"{one.severity} {one.code} {one.subject}" for one in found] == expected


class Listed:
    """Claims, listed as the API server does it."""

    namespace = "jhub"

    def __init__(self, *claims):
        self._claims = claims

    async def list(self, selector=""):
        return {one.name: one for one in self._claims if not selector or selector in one.labels}


async def test_a_claim_that_was_adopted_without_the_right_to_patch_is_looked_at():
    """With the chart's Role 2i2c's claims never get a label of ours."""
    adopted = claim(
        "postgres-erin-40school-2eedu",
        {marks.KUBESPAWNER_USER: "erin@school.edu"},
        {"component": "extra-pvc"},
        storage_class="slow",
    )
    entry = {"name": "postgres-{username}", "class": "fast", "capacity": "1Gi"}
    config = Config({"SafeKubeSpawner": {"hub_name": "hub", "extra_pvcs": [entry]}})
    connection = Connection(None, understand(config, "jhub"), Listed(adopted), None)
    (found,) = await volumes(connection)
    assert (found.code, found.subject) == ("volume-differs", "postgres-{username}")
    assert adopted.name in found.story


STATUS = {
    "initContainerStatuses": [
        {
            "name": "jhub-safety-postgres",
            "state": {"running": {"startedAt": "2026-11-21T18:00:01Z"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "jhub-safety version 15 17\n"}},
        }
    ]
}


@pytest.mark.parametrize(
    ("entries", "status", "wanted"),
    [
        pytest.param(["postgres"], STATUS, ["database-trouble"], id="another version"),
        pytest.param(["postgres"], {}, [], id="nothing wrong"),
        pytest.param([], STATUS, [], id="a hub without databases"),
    ],
)
async def test_what_labs_say_of_their_databases_is_told(monkeypatch, entries, status, wanted):
    config = Config({"SafeKubeSpawner": {"hub_name": "hub", "databases": entries}})
    hub = understand(config, "jhub")
    server = parse_servers(["postgres"])[0]
    owner = Owner("hub", "o'hara", "gpu")
    written = {**owner.annotations("extra"), marks.VOLUME: server.claim_template}
    theirs = claim("postgres-ohara", written, owner.labels())

    async def labs(_, selector):
        assert selector == "jhub-safety/databases=true"
        return (Pod("jupyter-ohara", "uid-1", claims=("postgres-ohara",), status=status),)

    monkeypatch.setattr(PodsApi, "list", labs)
    cluster = SimpleNamespace(api=None)
    connection = Connection(cluster, hub, Listed(theirs), None)
    monkeypatch.setattr(Connection, "records", lambda _: None)
    found = await servers_of_users(connection)
    assert [one.code for one in found] == wanted
    for one in found:
        assert one.severity is Severity.WARNING
        assert one.subject == "postgres of o'hara/gpu"
        assert "claim postgres-ohara: its data was written by version 15" in one.story
        assert "untouched" in one.story
        assert one.command == "jhub-safety databases list 'o'\"'\"'hara'"


# -- at hub start


def _app(caplog):
    caplog.set_level(logging.INFO)
    return SimpleNamespace(
        log=logging.getLogger("hub"),
        config=Config({"KubeSpawner": {"storage_pvc_ensure": True, "storage_class": "fast"}}),
        _start_future=asyncio.get_running_loop().create_future(),
        start=_nothing,
        cleanup=_nothing,
    )


async def _nothing():
    return None


async def _start(app, monkeypatch, look):
    monkeypatch.setattr(checking, "look_at_classes", look)
    app._start_future.set_result(None)
    checking.wire(app, SafeKubeSpawner)
    await app.start()


async def test_a_hub_warns_of_what_it_finds(monkeypatch, caplog):
    async def look(*_):
        return [FINE, BAD, Finding(Severity.UNKNOWN, "classes-not-seen", "all", "forbidden")]

    app = _app(caplog)
    await _start(app, monkeypatch, look)
    await asyncio.sleep(0)
    await app.cleanup()
    assert [(r.levelname, r.args[1]) for r in caplog.records if r.name == "hub"] == [
        ("WARNING", "class-unknown"),
        ("INFO", "classes-not-seen"),
    ]


async def test_a_cluster_that_never_answers_holds_up_neither_start_nor_end(monkeypatch, caplog):
    began = asyncio.Event()

    async def look(*_):
        began.set()
        await asyncio.Event().wait()

    app = _app(caplog)
    async with asyncio.timeout(5):
        await _start(app, monkeypatch, look)
        await began.wait()
        await app.cleanup()


async def test_an_error_of_any_kind_is_a_line_in_the_log(monkeypatch, caplog):
    async def look(*_):
        raise RuntimeError("password=secret")

    app = _app(caplog)
    await _start(app, monkeypatch, look)
    await asyncio.sleep(0)
    await app.cleanup()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "hub"]
    assert "RuntimeError" in line
    assert "secret" not in line
