"""What is wrong around a hub's database: its file system, its journal, the cookie secret."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from traitlets.config import Config

from jhub_safety.finding import Severity
from jhub_safety.hubdb import files
from jhub_safety.hubdb.files import check_files, file_system


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder with a database in WAL mode and a secret that only its owner reads."""
    monkeypatch.delenv("JPY_COOKIE_SECRET", raising=False)
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(tmp_path / "jupyterhub.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE users (id)")
    secret = tmp_path / "jupyterhub_cookie_secret"
    secret.write_text("ab" * 32)
    secret.chmod(0o600)
    return tmp_path


def found(hub, config: Config | None = None, url: str = "") -> dict[str, Severity]:
    url = url or f"sqlite:///{hub / 'jupyterhub.sqlite'}"
    return {one.code: one.severity for one in check_files(url, config or Config())}


def test_a_secret_beside_the_database_is_a_note_and_no_more(hub):
    assert found(hub) == {"secret-beside": Severity.OK}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_an_error(hub, mode):
    (hub / "jupyterhub_cookie_secret").chmod(mode)
    assert found(hub)["secret-open"] is Severity.ERROR


def test_a_short_secret_is_found_in_its_file_and_in_the_configuration(hub):
    (hub / "jupyterhub_cookie_secret").write_text("ab" * 16)
    assert found(hub)["secret-short"] is Severity.WARNING
    config = Config()
    config.JupyterHub.cookie_secret = b"x" * 16
    assert found(hub, config) == {"secret-short": Severity.WARNING}
    config.JupyterHub.cookie_secret = b"x" * 32
    assert found(hub, config) == {}


def test_a_secret_from_the_environment_is_not_looked_for_in_files(hub, monkeypatch):
    monkeypatch.setenv("JPY_COOKIE_SECRET", "ab" * 32)
    assert found(hub) == {}


def test_no_finding_holds_the_secret(hub):
    (hub / "jupyterhub_cookie_secret").write_text("5ec4e7")
    url = f"sqlite:///{hub / 'jupyterhub.sqlite'}"
    assert "5ec4e7" not in repr(check_files(url, Config()))


def test_a_database_without_write_ahead_log_is_a_note(hub):
    with closing(sqlite3.connect(hub / "jupyterhub.sqlite")) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    assert found(hub)["db-no-wal"] is Severity.OK


@pytest.mark.parametrize("url", ["postgresql://db/hub", "sqlite://", "sqlite:////none/x.sqlite"])
def test_without_a_file_nothing_is_said_of_one(hub, url):
    assert found(hub, url=url) == {}


def test_a_network_file_system_is_told(hub, monkeypatch):
    monkeypatch.setattr(files, "file_system", lambda _: "nfs4")
    assert found(hub)["db-network"] is Severity.WARNING


MOUNTS = """\
overlay / overlay rw 0 0
server:/a /srv nfs4 rw 0 0
/dev/sda1 /srv/local ext4 rw 0 0
server:/b /srv/with\\040space nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        pytest.param("/etc/x", "overlay", id="root"),
        pytest.param("/srv/hub.sqlite", "nfs4", id="on the mount"),
        pytest.param("/srv/local/hub.sqlite", "ext4", id="a mount in a mount"),
        pytest.param("/srv/localhost/hub.sqlite", "nfs4", id="a name that begins alike"),
        pytest.param("/srv/with space/hub.sqlite", "nfs", id="a space"),
    ],
)
def test_the_innermost_mount_counts(tmp_path, path, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert file_system(Path(path), mounts) == kind


def test_where_mounts_cannot_be_read_nothing_is_claimed(tmp_path):
    assert file_system(Path("/srv/x"), tmp_path / "none") == ""
