"""Which hub a session command speaks to; a database is written only while none is alive."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from traitlets.config import Config

from jhub_safety.cli import hubalive
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubconfig import understand_sessions
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_world import (
    ADA,
    BOB,
    GPU,
    Labs,
    Running,
    lab_of,
    refused,
    run,
    surroundings,
)
from tests.unit.test_commands import HOSTILE, SPELLED_OUT

ALIVE = "a hub is alive but does not answer on its control socket"
COMMANDS = (["list"], ["delete", "ada", "--yes"], ["unstick", "ada"], ["reconcile", "--yes"])


@pytest.fixture
def world(monkeypatch):
    with surroundings(monkeypatch) as made:
        yield made


def pod(name: str, phase: str = "Running"):
    return {"metadata": {"name": name}, "status": {"phase": phase}}


# -- a hub that is alive without its socket


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_a_hub_whose_port_is_open_is_left_alone(world, command):
    world.write_database(ADA)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        world.write_config(hub_port=port)
        said = refused(run(*command))
    assert said.startswith(f"{ALIVE} {world.socket}: 127.0.0.1:{port} accepts connections.")
    assert "Nothing was changed." in said
    assert said.endswith("kubectl -n jupyter rollout restart deploy/hub")
    assert world.rows() == ({"ada"}, {"ada"})


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown"])
def test_a_hub_in_a_pod_of_its_own_is_left_alone_and_the_command_there_is_told(world, phase):
    world.write_database(ADA)
    world.cluster.pods = [[pod("hub-77f9", phase)]]
    said = refused(run("delete", "ada", "--yes"))
    assert f"pod hub-77f9 is {phase}" in said
    assert said.endswith("kubectl -n jupyter exec -it hub-77f9 -- jhub-safety sessions ...")
    assert world.rows() == ({"ada"}, {"ada"})


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([], id="none"),
        pytest.param([pod("hub-1", "Succeeded"), pod("hub-2", "Failed")], id="they have ended"),
        pytest.param([pod(socket.gethostname())], id="our own"),
    ],
)
def test_pods_that_are_no_other_hub_do_not_matter(world, monkeypatch, pods):
    # This machine may run other tests' hubs; in a pod there is nobody else.
    monkeypatch.setattr(hubalive, "_hub_process", lambda: None)
    world.write_database(ADA)
    world.cluster.pods = [pods]
    assert run("delete", "ada", "--yes").exit_code == 0
    assert world.rows() == ({"ada"}, set())


def test_in_the_pod_of_a_hub_a_process_that_is_one_is_a_hub(world):
    world.write_database(ADA)
    world.cluster.pods = [[pod(socket.gethostname())]]
    program = world.directory / "jupyterhub"
    program.write_text("import time; print('up', flush=True); time.sleep(60)")
    with Running(sys.executable, str(program)):
        said = refused(run("delete", "ada", "--yes"))
    assert "is a hub" in said


def test_a_process_that_has_the_database_open_is_a_hub(world):
    world.write_database(ADA)
    program = "import sys, time; f = open(sys.argv[1]); print('up', flush=True); time.sleep(60)"
    with Running(sys.executable, "-c", program, str(world.database)) as process:
        said = refused(run("delete", "ada", "--yes"))
    assert f"process {process.pid} (" in said
    assert "has its database open" in said
    assert world.rows() == ({"ada"}, {"ada"})


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_when_it_is_not_known_whether_a_hub_is_alive_nothing_is_changed(world, monkeypatch, status):
    monkeypatch.setattr("jhub_safety.cli.hubalive.PATIENCE", 0)
    world.write_database(ADA)
    world.cluster.status = status
    said = refused(run("delete", "ada", "--yes"))
    assert (
        f"whether one is alive is not known: looking for a hub in namespace jupyter: HTTP {status}"
        in said
    )
    assert "kubectl exec -it deploy/hub -- jhub-safety sessions" in said
    assert world.rows() == ({"ada"}, {"ada"})


def test_a_hub_that_started_while_somebody_read_the_plan_is_left_alone(world):
    world.write_database(ADA)
    world.cluster.pods = [[], [pod("hub-77f9")]]
    result = run("delete", "ada", answer="y\n")
    assert isinstance(result.exception, SafetyError)
    assert str(result.exception).startswith(ALIVE)
    assert world.rows() == ({"ada"}, {"ada"})
    assert lab_of(ADA) in Labs.there


def test_a_hub_that_compares_nothing_says_so(world):
    world.write_database(ADA)
    world.extra = "\nc.SessionReconciler.enabled = False\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        world.write_config(hub_port=listening.getsockname()[1])
        assert "SessionReconciler.enabled" in refused(run("delete", "ada", "--yes"))


def test_another_hubs_socket_is_not_taken_for_this_ones(world):
    world.start_hub("theirs")
    assert refused(run("list")).startswith(f"hub theirs listens on {world.socket}, not hub {HUB}.")


def test_a_socket_that_says_nothing_of_sense_is_a_hub_that_is_alive(world):
    world.write_database(ADA)
    world.socket.parent.mkdir()

    async def listen():
        async def answer(_reader, writer):
            writer.write(b"SSH-2.0-OpenSSH\r\n")
            writer.close()

        return await asyncio.start_unix_server(answer, str(world.socket))

    server = world.do(listen())
    said = refused(run("delete", "ada", "--yes"))
    assert said.startswith("a hub is alive, but does not answer on its control socket")
    world.loop.call_soon_threadsafe(server.close)
    assert world.rows() == ({"ada"}, {"ada"})


def test_a_hub_that_ends_while_it_works_is_told_of(world):
    world.start_hub()
    world.has(ADA)

    async def stop(session, why):
        world.control._runner.server.connections[0].transport.abort()

    world.hub.stop = stop
    said = refused(run("delete", "ada", "--yes"))
    assert said.startswith("the hub did not answer to the end (")
    assert said.endswith("jhub-safety sessions list")


def test_a_hub_that_fails_is_told_of_in_one_sentence(world):
    world.start_hub()

    async def sessions():
        raise RuntimeError("something that nobody thought of")

    world.hub.sessions = sessions
    said = refused(run("delete", "ada", "--yes"))
    assert said == "the hub answers HTTP 500; its log tells why. Nothing was changed"


# -- no hub at all


def test_without_hub_and_database_the_place_to_run_it_is_told(world):
    said = refused(run("list"))
    assert said.startswith(f"no hub answers here, and its database {world.database} is not here.")
    assert said.endswith("kubectl exec -it deploy/hub -- jhub-safety sessions ...")
    assert not world.database.exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("sqlite://", "in its memory", id="in memory"),
        pytest.param("not a url://", "is no URL", id="no URL"),
        pytest.param("postgresql+none://u:s3cret@nowhere/db", "kubectl exec", id="no driver"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_its_password(world, url, words):
    said = refused(run("list", f"--db-url={url}"))
    assert words in said
    assert "s3cret" not in said


def test_an_empty_file_is_no_database_and_stays_empty(world):
    world.database.write_bytes(b"")
    assert "cannot be read" in refused(run("delete", "ada", "--yes"))
    assert world.database.read_bytes() == b""


def test_while_the_hub_is_down_its_database_is_brought_in_step(world):
    world.write_database(ADA, GPU, BOB)
    listed = run("list")
    assert "No hub runs: what is pending and the proxy's routes are not known." in listed.stderr
    assert [row.split()[0] for row in listed.stdout.splitlines()[1:]] == ["ada", "ada/gpu", "bob"]
    assert [row.split()[2] for row in listed.stdout.splitlines()[1:]] == ["?"] * 3

    first = run("delete", "ada", "--server=gpu", "--yes")
    assert (first.exit_code, first.stdout) == (0, f"end-session ada/gpu ({lab_of(GPU)}): done\n")
    assert world.rows() == ({"ada", "bob"}, {"ada", "bob"})
    assert set(Labs.there) == {lab_of(ADA), lab_of(BOB)}

    again = run("delete", "ada", "--server=gpu", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    forgotten = run("delete", "ada", "--forget-user", "--yes")
    assert forgotten.exit_code == 0, forgotten.output
    assert "(claim claim-ada)" in forgotten.stderr
    assert world.rows() == ({"bob"}, {"bob"})
    nobody = run("delete", "ada", "--forget-user", "--yes")
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    stuck = run("unstick", "bob", "--yes")
    assert (stuck.exit_code, stuck.stdout) == (0, "")
    assert "nothing of bob is pending, no hub runs" in stuck.stderr
    journal = (world.directory / "state/jhub-safety/journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in journal] == [
        "end-session",
        "end-session",
        "forget-user",
    ]


# -- where a hub is looked for


@pytest.mark.parametrize(
    ("settings", "addresses"),
    [
        pytest.param({}, [("127.0.0.1", 8081)], id="default"),
        pytest.param({"hub_port": 9000}, [("127.0.0.1", 9000)], id="port"),
        pytest.param({"hub_ip": "0.0.0.0"}, [("127.0.0.1", 8081)], id="every interface"),
        pytest.param({"hub_ip": "::"}, [("::1", 8081)], id="every interface, IPv6"),
        pytest.param({"hub_ip": "10.0.0.5"}, [("10.0.0.5", 8081)], id="one interface"),
        pytest.param(
            {"hub_bind_url": "http://:8081", "hub_connect_url": "http://hub:8081"},
            [("127.0.0.1", 8081), ("hub", 8081)],
            id="as the chart has it",
        ),
        pytest.param(
            {"hub_ip": "", "hub_connect_ip": "hub"},
            [("127.0.0.1", 8081), ("hub", 8081)],
            id="another address for labs",
        ),
        pytest.param({"hub_bind_url": "https://hub.local/hub"}, [("hub.local", 443)], id="https"),
        pytest.param(
            {"hub_bind_url": "http+unix://%2Frun%2Fhub.sock"}, [("127.0.0.1", 8081)], id="a socket"
        ),
    ],
)
def test_the_hubs_own_port_is_read_from_its_configuration(settings, addresses):
    found = understand_sessions(Config({"JupyterHub": settings}), NAMESPACE)
    assert list(found.addresses) == addresses


NUBLADO = {"inventory_class": "jhub_safety.sessions.nublado.NubladoInventory"}
LOCAL = {"spawner_class": "jupyterhub.spawner.SimpleLocalProcessSpawner"}


@pytest.mark.parametrize(
    ("settings", "compares", "dry"),
    [
        pytest.param({}, True, False, id="default"),
        pytest.param({"SessionReconciler": {"enabled": False}}, False, False, id="not enabled"),
        pytest.param({"SafeKubeSpawner": {"sessions": "off"}}, False, False, id="off"),
        pytest.param({"SafeKubeSpawner": {"sessions": "observe"}}, True, True, id="observe"),
        pytest.param({"JupyterHub": LOCAL}, False, False, id="no KubeSpawner"),
        pytest.param(
            {"JupyterHub": LOCAL, "SessionReconciler": NUBLADO}, True, False, id="Nublado"
        ),
    ],
)
def test_whether_a_hub_compares_sessions_is_what_the_hub_itself_makes_of_it(
    settings, compares, dry
):
    found = understand_sessions(Config(settings), NAMESPACE)
    assert (found.compares, found.reconciler.dry_run) == (compares, dry)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"SessionReconciler": {"intervall": 5}}, id="unknown setting"),
        pytest.param({"SessionReconciler": {"interval": "often"}}, id="wrong form"),
        pytest.param({"JupyterHub": {"spawner_class": "no.such"}}, id="no such class"),
        pytest.param({"JupyterHub": {"hub_bind_url": "http://hub:port"}}, id="no such port"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_configuration_error(settings):
    with pytest.raises(ConfigError):
        understand_sessions(Config(settings), NAMESPACE)


# -- pause


def test_a_pause_is_kept_in_the_cluster_until_it_is_ended(world):
    first = run("pause", "1d12h", "--why", HOSTILE)
    assert first.exit_code == 0
    assert SPELLED_OUT in first.stdout
    assert "\x1b" not in first.output
    (name,) = world.cluster.secrets
    assert name == Note(None, NAMESPACE, HUB, "pause").name

    world.write_database(ADA)
    assert "change nothing just now: paused until " in run("list").stderr
    assert run("pause", "30m", "--why=again").exit_code == 0
    assert "(again)" in run("list").stderr

    assert run("resume").stdout == "Passes act again.\n"
    assert world.cluster.secrets == {}
    assert run("resume").stdout == "It was not paused.\n"
    assert "paused" not in run("list").stderr


def test_a_pause_that_is_not_readable_is_ended_all_the_same(world):
    world.cluster.secrets[Note(None, NAMESPACE, HUB, "pause").name] = {"until": "!"}
    assert run("resume").stdout == "Passes act again.\n"
    assert world.cluster.secrets == {}


@pytest.mark.parametrize(
    "command", [["pause", "2h", "--why=x"], ["resume"]], ids=lambda one: one[0]
)
@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_pause_that_the_cluster_refuses_is_one_sentence(world, command, status):
    world.cluster.status = status
    assert f"HTTP {status}" in refused(run(*command))
    assert world.cluster.secrets == {}


# -- watch


def test_watching_repaints_until_ctrl_c_and_ends_well(world):
    world.start_hub()
    world.has(ADA)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jhub_safety", "sessions", "list", "--watch"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=world.directory,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "20"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = until(ours, b"in step")
    assert b"http://10.0.0.1:8888" in seen
    process.send_signal(signal.SIGINT)
    rest = until(ours, b"")
    assert process.wait(10) == 0
    assert b"Traceback" not in seen + rest
    assert b"Aborted" not in seen + rest
    os.close(ours)


def until(terminal: int, words: bytes, seconds: float = 20.0) -> bytes:
    """What the program prints until it has printed *words*, or to its end."""
    seen, deadline = b"", time.monotonic() + seconds
    while not (words and words in seen) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            more = b""
            with suppress(OSError):
                more = os.read(terminal, 65536)
            if not more:
                break
            seen += more
    return seen


async def test_a_port_that_neither_answers_nor_refuses_is_doubt(monkeypatch):
    """A time-out is no proof that no hub listens there."""

    async def silent(*_):
        raise TimeoutError

    monkeypatch.setattr(asyncio, "open_connection", silent)
    with pytest.raises(Doubt, match="hub:8081 does not answer"):
        await hubalive._accepts("hub", 8081)
