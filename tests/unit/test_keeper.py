"""The first process of a server's container, run as it is: under each shell that images have."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
from pathlib import Path

import pytest

from jhub_safety.sidecars.server import kind_of
from tests.unit.keeper_pod import (
    KEEPER,
    NOBODY,
    Pod,
    a_pod_with_data,
    contents,
    pod,
    shell,
    until,
)

__all__ = ["pod", "shell"]


def test_the_server_is_made_asked_and_ended_by_its_own_signal(pod: Pod):
    started = pod.until_ready()
    assert pod.log == ["made", "up", "after"]
    assert not (pod.volume / ".jhub-safety-half-made").exists()
    assert stat.S_IMODE(pod.data.stat().st_mode) == 0o700
    started.terminate()
    assert pod.ends(started) == 0
    assert pod.log[-1] == "ended"


def test_a_second_start_makes_nothing_anew(pod: Pod):
    before = a_pod_with_data(pod)
    pod.until_ready()
    assert pod.log == ["up", "after"]
    assert contents(pod.data) == before


def test_a_reserve_is_kept_that_takes_real_room(pod: Pod):
    a_pod_with_data(pod)
    found = (pod.volume / ".jhub-safety-reserve").stat()
    assert found.st_size == 64 * 1024
    assert found.st_blocks * 512 >= found.st_size


def test_a_reserve_is_given_to_a_server_whose_volume_is_full(pod: Pod):
    before = a_pod_with_data(pod)
    # There is never as much room as this asks for.
    pod.environment["JHS_RESERVE"] = str(2**45)
    assert pod.ends(pod.run()) == 1
    code, used, size = pod.told.removeprefix("jhub-safety ").split()
    assert code == "disk-full"
    assert used.isdigit()
    assert size.isdigit()
    assert not (pod.volume / ".jhub-safety-reserve").exists()
    pod.restarted()
    until((pod.state / "ready").exists, "the server does not run without a reserve")
    assert contents(pod.data) == before


def _other_version(pod: Pod) -> None:
    (pod.data / "VERSION").write_text("15\n")


def _no_version(pod: Pod) -> None:
    (pod.data / "VERSION").unlink()


def _something_else(pod: Pod) -> None:
    shutil.rmtree(pod.data)
    pod.data.mkdir()
    (pod.data / "thesis.txt").write_text("not a database")


def _lost_and_found(pod: Pod) -> None:
    shutil.rmtree(pod.data)
    (pod.data / "lost+found").mkdir(parents=True)


def _a_file(pod: Pod) -> None:
    shutil.rmtree(pod.data)
    pod.data.write_text("a file")


def _emptied(pod: Pod) -> None:
    shutil.rmtree(pod.data)
    pod.data.mkdir()


def _gone(pod: Pod) -> None:
    pod.data.rename(pod.volume / "moved")


def _link(pod: Pod) -> None:
    pod.data.rename(pod.folder / "elsewhere")
    pod.data.symlink_to(pod.folder / "elsewhere")


def _dangling(pod: Pod) -> None:
    pod.data.rename(pod.folder / "elsewhere")
    pod.data.symlink_to("/nowhere")


def _linked_reserve(pod: Pod) -> None:
    (pod.volume / ".jhub-safety-reserve.new").symlink_to(pod.folder / "victim")


def _linked_version(pod: Pod) -> None:
    (pod.volume / ".jhub-safety-version").unlink()
    (pod.volume / ".jhub-safety-version").symlink_to(pod.folder / "victim")


def _linked_new_version(pod: Pod) -> None:
    (pod.volume / ".jhub-safety-version.new").symlink_to(pod.folder / "victim")


def _emptied_with_its_version(pod: Pod) -> None:
    _emptied(pod)
    (pod.volume / ".jhub-safety-version").write_text("")


def _linked_lock(pod: Pod) -> None:
    (pod.volume / ".jhub-safety-lock").unlink()
    (pod.volume / ".jhub-safety-lock").symlink_to(pod.folder / "victim")


def _not_mounted(pod: Pod) -> None:
    (pod.folder / "mounts").write_text("x /elsewhere ext4 rw 0 0\n")


FAULTS = [
    pytest.param(_other_version, "version 15 17", id="another version's data"),
    pytest.param(_no_version, "unknown-data", id="data that does not say its version"),
    pytest.param(_something_else, "unknown-data", id="a folder with something else"),
    pytest.param(_lost_and_found, "unknown-data", id="lost+found in the data folder"),
    pytest.param(_a_file, "unknown-data", id="a file where the folder should be"),
    pytest.param(_emptied, "missing-data", id="the data folder was emptied"),
    pytest.param(_gone, "missing-data", id="the data folder was moved away"),
    pytest.param(_link, "link", id="a link where the folder should be"),
    pytest.param(_dangling, "link", id="a link to nowhere"),
    pytest.param(_linked_reserve, "link", id="a link where the reserve is made"),
    pytest.param(_linked_version, "link", id="a link where the version is noted"),
    pytest.param(_linked_new_version, "link", id="a link where the version is written"),
    pytest.param(_emptied_with_its_version, "missing-data", id="emptied, the version cut off"),
    pytest.param(_linked_lock, "link", id="a link where the lock is"),
    pytest.param(_not_mounted, "no-volume", id="no volume is mounted"),
]


@pytest.mark.parametrize(("fault", "told"), FAULTS)
def test_what_is_not_understood_is_told_and_left_and_the_lab_goes_on(pod: Pod, fault, told):
    a_pod_with_data(pod)
    fault(pod)
    before = contents(pod.folder / "volume")
    assert pod.ends(pod.run()) == 1
    assert pod.told == f"jhub-safety {told}"
    # The kubelet runs it once more: it holds, the probe passes, and nothing has been touched.
    held = pod.restarted()
    assert pod.probe() == 0
    assert pod.log == []
    assert contents(pod.folder / "volume") == before
    assert not (pod.folder / "victim").exists()
    assert held.poll() is None
    until(lambda: "the server is not run" in pod.output(), "it does not hold")
    held.terminate()
    assert pod.ends(held) == 0


@pytest.mark.parametrize(
    ("kind", "inside", "made"),
    [
        pytest.param("mysql", "mysql", Path.mkdir, id="MySQL and MariaDB"),
        pytest.param("redis_database.Redis", "appendonlydir", Path.mkdir, id="Redis"),
        pytest.param("mongodb_database.MongoDB", "WiredTiger", Path.touch, id="MongoDB"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(b"\n", id="a blank line"),
        pytest.param(bytes(9), id="what a crash leaves of a file"),
        pytest.param(None, id="none"),
    ],
)
def test_intact_data_whose_version_file_was_cut_off_is_served(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, kind: str, inside: str, made, said: bytes | None
):
    a_pod_with_data(pod)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples"))
    pod.environment["JHS_DATA_VERSION"] = kind_of(kind, "test").data_version
    made(pod.data / inside)
    before = contents(pod.data)
    noted = pod.volume / ".jhub-safety-version"
    noted.unlink()
    if said is not None:
        noted.write_bytes(said)
    pod.until_ready()
    assert noted.read_text() == "17\n"
    assert contents(pod.data) == before


def test_a_version_that_is_noted_is_not_written_again(pod: Pod):
    a_pod_with_data(pod)
    noted = pod.volume / ".jhub-safety-version"
    before = noted.stat()
    pod.until_ready()
    after = noted.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_version_that_cannot_be_written_cuts_off_none(pod: Pod):
    """The volume is full: a folder in the way fails as surely, also for root."""
    a_pod_with_data(pod)
    noted = pod.volume / ".jhub-safety-version"
    noted.write_text("16\n")
    (pod.volume / ".jhub-safety-version.new").mkdir()
    pod.until_ready()
    assert noted.read_text() == "16\n"


def _give_the_volume(pod: Pod) -> None:
    os.chown(pod.volume, NOBODY, NOBODY)


def _give_all_but_the_lock(pod: Pod) -> None:
    _give_the_volume(pod)
    os.chown(pod.data, NOBODY, NOBODY)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    "closed",
    [
        pytest.param(lambda pod: pod.volume.chmod(0o755), id="the volume"),
        pytest.param(_give_the_volume, id="the data folder"),
        pytest.param(_give_all_but_the_lock, id="the lock"),
    ],
)
def test_a_folder_of_somebody_else_is_told_with_its_owner(pod: Pod, closed):
    for folder in (pod.folder, *pod.folder.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    a_pod_with_data(pod)
    for path in pod.folder.glob("message"):
        path.unlink()
    pod.folder.chmod(0o777)
    (pod.folder / "state").chmod(0o777)
    closed(pod)
    before = contents(pod.volume)
    assert pod.ends(pod.run(user=NOBODY)) == 1
    assert pod.told.startswith("jhub-safety permission 0 ")
    assert pod.told.endswith(f" {NOBODY}")
    assert (pod.state / "failed").exists()
    assert contents(pod.volume) == before


def test_a_volume_with_other_data_gets_no_new_database_beside_it(pod: Pod):
    """An adopted claim, and an entry whose `folder` is another than the data's."""
    (pod.volume / "pgdata").mkdir()
    (pod.volume / "pgdata" / "VERSION").write_text("17")
    before = contents(pod.volume)
    assert pod.ends(pod.run()) == 1
    assert pod.told == "jhub-safety missing-data"
    assert contents(pod.volume) == before


def test_a_new_file_system_and_folders_that_were_moved_aside_are_no_other_data(pod: Pod):
    for name in ("lost+found", "data.aside", "data.half-made"):
        (pod.volume / name).mkdir()
    pod.until_ready()
    assert pod.log[0] == "made"


def test_a_first_start_that_was_cut_off_is_made_again_and_what_was_half_made_is_kept(pod: Pod):
    (pod.fake / "never-made").touch()
    pod.environment["JHS_READY"] = "false"
    first = pod.run()
    until(lambda: "up" in pod.log, "the server does not run")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = contents(pod.data)
    assert before

    (pod.fake / "never-made").unlink()
    pod.environment["JHS_READY"] = "[ -e $FAKE/up ]"
    pod.new_pod()
    assert pod.ends(pod.run()) == 1
    assert pod.told == "jhub-safety half-made"
    assert contents(pod.volume / "data.half-made") == before
    pod.restarted()
    until((pod.state / "ready").exists, "not made again")
    assert contents(pod.volume / "data.half-made") == before


def test_a_second_cut_off_is_told_and_neither_folder_is_touched(pod: Pod):
    for folder in ("data", "data.half-made"):
        (pod.volume / folder).mkdir()
        (pod.volume / folder / "half").write_text(folder)
    (pod.volume / ".jhub-safety-half-made").touch()
    before = contents(pod.volume)
    assert pod.ends(pod.run()) == 1
    assert pod.told == "jhub-safety half-made-again"
    assert contents(pod.volume) == before


def test_a_server_that_cannot_be_asked_keeps_its_data_over_a_restart(pod: Pod):
    """Its image has no client program: it may have been in use for hours."""
    pod.environment |= {"JHS_READY": "no-such-program", "JHS_DEADLINE": "1"}
    first = pod.run()
    marker = pod.volume / ".jhub-safety-half-made"
    until(lambda: "up" in pod.log and not marker.exists(), "still called half made")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = contents(pod.data)
    pod.new_pod()
    (pod.fake / "log").unlink()
    pod.run()
    until(lambda: "up" in pod.log, "the server does not run")
    assert pod.log == ["up"]
    assert contents(pod.data) == before


def test_a_server_that_ends_is_tried_twice_and_its_words_are_the_last_of_the_log(pod: Pod):
    before = a_pod_with_data(pod)
    (pod.fake / "broken").write_text("FATAL: could not open file")
    assert pod.ends(pod.run()) == 3
    assert pod.output().splitlines()[-1] == "FATAL: could not open file"
    assert pod.output().count("FATAL") == 2
    assert pod.told == ""
    held = pod.restarted()
    assert pod.probe() == 0
    assert contents(pod.data) == before
    assert held.poll() is None


def test_a_server_that_was_ready_is_not_held_when_it_ends(pod: Pod):
    a_pod_with_data(pod)
    started = pod.until_ready()
    (pod.fake / "broken").write_text("out of memory")
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    for child in children:
        if b"server" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    assert pod.ends(started) == 137
    assert not (pod.state / "failed").exists()
    (pod.fake / "broken").unlink()
    pod.until_ready()


def _no_flock(pod: Pod) -> None:
    """Every program but that one."""
    programs = pod.folder / "programs"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":")[::-1]:
        for program in Path(folder).glob("*"):
            if program.name != "flock":
                (programs / program.name).unlink(missing_ok=True)
                (programs / program.name).symlink_to(program)
    pod.environment["PATH"] = str(programs)


def _failing_flock(pod: Pod) -> None:
    programs = pod.folder / "programs"
    programs.mkdir()
    (programs / "flock").write_text("#!/bin/sh\necho flock: 9: No locks available >&2; exit 1\n")
    (programs / "flock").chmod(0o755)
    pod.environment["PATH"] = f"{programs}:{pod.environment['PATH']}"


@pytest.fixture(params=[_no_flock, _failing_flock], ids=["no flock", "no locks"])
def unlocked(request: pytest.FixtureRequest, pod: Pod) -> Pod:
    a_pod_with_data(pod)
    request.param(pod)
    return pod


@pytest.mark.parametrize("alone", ["0", None], ids=["others may have it", "not known"])
def test_data_that_others_may_have_open_is_not_served_without_a_lock(
    unlocked: Pod, alone: str | None
):
    before = contents(unlocked.data)
    if alone is not None:
        unlocked.environment["JHS_ALONE"] = alone
    assert unlocked.ends(unlocked.run()) == 1
    assert unlocked.told == "jhub-safety no-lock"
    unlocked.restarted()
    assert unlocked.probe() == 0
    assert unlocked.log == []
    assert contents(unlocked.data) == before


def test_data_that_nobody_else_can_have_open_is_served_and_that_is_told_once(unlocked: Pod):
    before = contents(unlocked.data)
    unlocked.environment |= {"JHS_ALONE": "1", "JHS_STALE": "rm $JHS_DATA/*"}
    assert unlocked.ends(unlocked.run()) == 1
    assert unlocked.told == "jhub-safety unlocked"
    unlocked.until_ready()
    assert "this volume cannot be locked" in unlocked.output()
    assert unlocked.log == ["up", "after"]
    assert contents(unlocked.data) == before


def test_an_image_that_lacks_the_server_too_says_only_that(unlocked: Pod):
    before = contents(unlocked.data)
    started = unlocked.begin(
        f"set -- {unlocked.folder}/no-such-server\n{KEEPER}", JHS_ALONE="1", JHS_READY="false"
    )
    assert unlocked.ends(started) == 127
    assert unlocked.told == ""
    assert "not found" in unlocked.output() or "No such file" in unlocked.output()
    assert contents(unlocked.data) == before


def test_a_first_start_that_may_be_under_way_elsewhere_keeps_its_folder(unlocked: Pod):
    """Seen: "mv data data.half-made" under the server of another pod, which went on in it."""
    (unlocked.volume / ".jhub-safety-half-made").touch()
    before = contents(unlocked.data)
    unlocked.environment["JHS_ALONE"] = "1"
    assert unlocked.ends(unlocked.run()) == 1
    assert unlocked.told == "jhub-safety unlocked"
    assert unlocked.ends(unlocked.restarted()) == 1
    assert unlocked.told == "jhub-safety no-lock"
    assert contents(unlocked.data) == before
    assert not (unlocked.volume / "data.half-made").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock here")
def test_two_pods_never_open_one_data_folder(pod: Pod):
    pod.until_ready()
    before = contents(pod.data)
    other = pod.begin(
        KEEPER.replace("lock 20", "lock 1"),
        "-c",
        "false",
        JHS_STATE=str(pod.folder / "state2"),
        JHS_MESSAGE=str(pod.folder / "message2"),
        JHS_STALE="rm $JHS_DATA/*",
    )
    assert pod.ends(other) == 1
    assert (pod.folder / "message2").read_text() == "jhub-safety busy\n"
    assert contents(pod.data) == before


@pytest.mark.parametrize(
    ("state", "required", "passes"),
    [
        pytest.param({}, "0", False, id="not up yet"),
        pytest.param({"ready": ""}, "0", True, id="ready"),
        pytest.param({"failed": ""}, "0", True, id="held"),
        pytest.param({"failed": ""}, "1", False, id="held, and required"),
        pytest.param({"since": "1000\n"}, "0", True, id="its time is over"),
        pytest.param({"since": "1000\n"}, "1", False, id="its time is over, and required"),
        pytest.param({"since": "9999999999\n"}, "0", False, id="a clock that went back"),
        pytest.param({"since": ""}, "0", False, id="its beginning is not written yet"),
        pytest.param({"since": "x[$(touch $FAKE/run)]\n"}, "0", False, id="a trap in a sum"),
    ],
)
def test_when_the_lab_may_start(pod: Pod, state: dict[str, str], required: str, passes: bool):
    pod.state.mkdir()
    for name, text in state.items():
        (pod.state / name).write_text(text)
    pod.environment["JHS_REQUIRED"] = required
    assert (pod.probe() == 0) is passes
    assert not (pod.fake / "run").exists()


def test_what_a_killed_server_has_left_goes_before_the_next_one_runs(pod: Pod):
    a_pod_with_data(pod)
    left = pod.data / "left.pid"
    left.write_text("1")
    pod.environment["JHS_STALE"] = "rm $JHS_DATA/left.pid; echo stale >>$FAKE/log"
    pod.until_ready()
    assert pod.log == ["stale", "up", "after"]


def test_a_hostile_word_in_the_data_is_not_run(pod: Pod):
    a_pod_with_data(pod)
    trap = f"$(touch {shlex.quote(str(pod.fake / 'run'))}); `touch {pod.fake / 'run'}`"
    (pod.data / "VERSION").write_text(trap)
    assert pod.ends(pod.run()) == 1
    assert pod.told.startswith("jhub-safety version ")
    assert not (pod.fake / "run").exists()
