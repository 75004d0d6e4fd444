"""The script that gives folders away, run as it is: only what is wrong, never through a link."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")

SCRIPT = files("jhub_safety.sidecars").joinpath("ownership.sh").read_text()
SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
UID, GID, OTHER = 1000, 100, 999


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    return argv


@dataclass
class Container:
    """The init container: what is mounted where, and what it is asked to give."""

    folder: Path
    shell: list[str]

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.mounted = []

    def mount(self, name: str, uid: int = 0, gid: int = 0, mode: int = 0o755) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        os.chown(path, uid, gid)
        path.chmod(mode)
        self.mounted.append(path)
        return path

    def programs(self) -> str:
        """Where find, stat and chown are: busybox's own for busybox's shell, as in its image."""
        if self.shell[0] != "busybox":
            return os.environ["PATH"]
        programs = self.folder / "bin"
        if not programs.exists():
            programs.mkdir()
            busybox = str(shutil.which("busybox"))
            subprocess.run([busybox, "--install", "-s", str(programs)], check=True)
            (programs / "busybox").unlink(missing_ok=True)
            (programs / "busybox").symlink_to(busybox)
        return str(programs)

    def give(self, *folders: tuple[str, Path]) -> str:
        info = self.folder / "mountinfo"
        lines = (f"36 35 98:0 / {one} rw - ext4 x rw\n" for one in self.mounted)
        info.write_text("35 1 98:0 / / rw - ext4 x rw\n" + "".join(lines))
        words = [
            word
            for rule, path in folders
            for word in (rule, str(path), str(UID), str(GID), str(path))
        ]
        done = subprocess.run(
            [*self.shell, "-c", SCRIPT, "sh", *words],
            env={"PATH": self.programs(), "JHS_MOUNTINFO": str(info)},
            capture_output=True,
            text=True,
            check=False,
        )
        # A lab is never kept from starting by it.
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def container(tmp_path: Path, shell: list[str]) -> Container:
    return Container(tmp_path, shell)


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def file(path: Path, uid: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.chown(path, uid, uid)
    return path


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and time of the last change of each entry, the folder itself too."""
    found = [folder, *folder.rglob("*")]
    return {str(one.relative_to(folder)): (*owner(one), one.lstat().st_ctime_ns) for one in found}


@pytest.mark.parametrize(
    ("rule", "is_", "mode", "given"),
    [
        pytest.param("home", (0, 0), 0o750, True, id="home of root"),
        pytest.param("home", (OTHER, OTHER), 0o755, True, id="home of a uid of before"),
        pytest.param("guess", (OTHER, OTHER), 0o700, False, id="home of somebody else"),
        pytest.param("guess", (0, 0), 0o755, True, id="home of root, of whom is not known"),
        pytest.param("guess", (0, 0), 0o000, True, id="home of root, closed"),
        pytest.param("guess", (0, 0), 0o775, False, id="home of root's group"),
        pytest.param("guess", (0, 2000), 0o2770, False, id="home of a group"),
        pytest.param("guess", (0, 0), 0o1777, False, id="home of everybody"),
        pytest.param("home", (0, GID), 0o755, True, id="home that the group may only read"),
        pytest.param("home", (0, GID), 0o2775, False, id="home that the group may write"),
        pytest.param("home", (UID, 0), 0o700, False, id="home of the user, of another group"),
        pytest.param("root", (0, 0), 0o755, True, id="shared folder of root"),
        pytest.param("root", (OTHER, OTHER), 0o700, False, id="shared folder of somebody else"),
        pytest.param("volume", (0, 0), 0o750, True, id="database's volume of root"),
        pytest.param("volume", (0, GID), 0o2775, True, id="database's volume, open to the group"),
        pytest.param("volume", (UID, 0), 0o700, False, id="database's volume of its server"),
    ],
)
def test_a_folder_is_given_when_it_is_wrong_and_left_otherwise(
    container: Container, rule: str, is_: tuple[int, int], mode: int, given: bool
):
    folder = container.mount("folder", *is_, mode)
    inside = file(folder / "sub" / "file")
    before = tree(folder)
    said = container.give((rule, folder))
    after = tree(folder)
    assert owner(folder) == ((UID, GID) if given else is_)
    assert ("is now" in said) is given
    # What is in it is nobody's business, and what was right is not even touched.
    changed = {name for name in before if before[name] != after[name]}
    assert changed == ({"."} if given else set())
    assert inside.exists()


def test_a_databases_folder_of_another_account_is_given_with_all_in_it(container: Container):
    volume = container.mount("db", UID, GID)
    data = volume / "data"
    file(data / "base" / "5" / "1259", OTHER)
    file(data / ".hidden" / "..odd", OTHER)
    file(data / "with blank" / "-n", OTHER)
    mine = file(data / "mine", UID)
    (data / "link").symlink_to("/etc/passwd")
    os.chown(data, OTHER, OTHER)
    before = mine.lstat().st_ctime_ns
    said = container.give(("volume", volume), ("data", data))
    assert {one[0] for one in tree(data).values()} == {UID}
    assert mine.lstat().st_ctime_ns == before
    assert owner(Path("/etc/passwd")) == (0, 0)
    assert said.count("is now") == 1


def test_a_databases_folder_that_is_right_is_not_walked_through(container: Container):
    volume = container.mount("db", UID, GID)
    file(volume / "data" / "odd", OTHER)
    os.chown(volume / "data", UID, GID)
    before = tree(volume)
    assert container.give(("volume", volume), ("data", volume / "data")) == ""
    assert tree(volume) == before


def test_what_the_keeper_has_in_a_volume_is_given_with_it(container: Container):
    volume = container.mount("db", OTHER, OTHER)
    lock = file(volume / ".jhub-safety-lock", OTHER)
    other = file(volume / "backup.sql", OTHER)
    container.give(("volume", volume))
    assert owner(lock) == owner(volume) == (UID, GID)
    assert owner(other) == (OTHER, OTHER)


def _link_for_data(container: Container) -> tuple[Path, Path]:
    volume = container.mount("db", UID, GID)
    victim = container.mount("shared", 0, 0)
    (volume / "data").symlink_to(victim)
    return volume, victim


def _link_for_a_lock(container: Container) -> tuple[Path, Path]:
    volume = container.mount("db", 0, 0)
    victim = container.mount("shared", 0, 0)
    (volume / ".jhub-safety-lock").symlink_to(victim / "thesis")
    return volume, victim


def _links_in_data(container: Container) -> tuple[Path, Path]:
    volume = container.mount("db", UID, GID)
    victim = container.mount("shared", 0, 0)
    (volume / "data").mkdir()
    (volume / "data" / "base").symlink_to(victim)
    (volume / "data" / "up").symlink_to("../../shared")
    return volume, victim


def _mounted_in_data(container: Container) -> tuple[Path, Path]:
    """~/a/b leads to the data folder: the container runtime mounts the shared folder there."""
    volume = container.mount("db", UID, GID)
    return volume, container.mount("db/data", 0, 0)


def _mounted_below_data(container: Container) -> tuple[Path, Path]:
    volume = container.mount("db", UID, GID)
    (volume / "data").mkdir()
    return volume, container.mount("db/data/base", 0, 0)


def _mounted_over_the_volume(container: Container) -> tuple[Path, Path]:
    volume = container.mount("db", 0, 0)
    container.mounted.append(volume)
    return volume, volume


@pytest.mark.parametrize(
    "trap",
    [
        pytest.param(_link_for_data, id="a link for the data folder"),
        pytest.param(_link_for_a_lock, id="a link for the lock"),
        pytest.param(_links_in_data, id="links in the data folder"),
        pytest.param(_mounted_in_data, id="a shared folder mounted as the data folder"),
        pytest.param(_mounted_below_data, id="a shared folder mounted in the data folder"),
        pytest.param(_mounted_over_the_volume, id="a shared folder mounted over the volume"),
    ],
)
def test_a_trap_of_a_hostile_user_gives_nothing_of_others(
    container: Container, trap: Callable[[Container], tuple[Path, Path]]
):
    volume, victim = trap(container)
    file(victim / "thesis")
    before = tree(victim)
    container.give(("volume", volume), ("data", volume / "data"))
    assert tree(victim) == before


def test_a_link_where_a_home_or_shared_folder_should_be_is_not_followed(container: Container):
    victim = container.mount("victim", 0, 0)
    (container.folder / "link").symlink_to(victim)
    before = tree(victim)
    container.give(("root", container.folder / "link"), ("home", container.folder / "link"))
    (victim / "below").mkdir()
    before = tree(victim)
    said = container.give(("root", container.folder / "link" / "below"))
    assert tree(victim) == before
    assert "a link leads to it" in said


@pytest.mark.parametrize("rule", ["home", "root"])
def test_a_folder_that_nothing_is_mounted_at_is_not_given(container: Container, rule: str):
    """``~/shared`` is a link to ``.``: a folder of root's in the share stands in its place."""
    share = container.mount("share", UID, GID)
    folder = share / "shared"
    folder.mkdir()
    file(folder / "thesis")
    before = tree(share)
    assert "something else is mounted there" in container.give((rule, folder))
    assert tree(share) == before


def test_folders_swapped_for_links_while_it_runs_lead_nowhere(container: Container):
    """Another lab of the same user runs, and its server's superuser is hostile."""
    victim = container.mount("shared", 0, 0)
    for number in range(20):
        file(victim / "base" / f"{number}")
    before = tree(victim)
    volume = container.mount("db", UID, GID)
    data = volume / "data"
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for number in range(8):
                real, away = data / f"d{number}", data / f"away{number}"
                try:
                    real.rename(away)
                    real.symlink_to(victim)
                    real.unlink()
                    real.symlink_to("../../shared/base")
                    real.unlink()
                    away.rename(real)
                except OSError:
                    continue

    for _ in range(10):
        shutil.rmtree(data, ignore_errors=True)
        for number in range(8):
            for name in range(5):
                file(data / f"d{number}" / "base" / f"{name}", OTHER)
        os.chown(data, OTHER, OTHER)
        ended.clear()
        hostile = threading.Thread(target=swap)
        hostile.start()
        try:
            container.give(("volume", volume), ("data", data))
        finally:
            ended.set()
            hostile.join()
    assert tree(victim) == before
