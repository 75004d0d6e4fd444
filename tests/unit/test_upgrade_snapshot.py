"""Before the hub changes the schema of its database, a snapshot of it is made."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from traitlets.config import Config

from jhub_safety.hub.snapshots import before_upgrade
from jhub_safety.hubdb import snapshot
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from tests.schemas import alembic, downgrade
from tests.unit.hub_database import add_user, opened


@pytest.fixture
def hub(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    with opened(file) as db:
        add_user(db, "ada")
    config = Config()
    config.DatabaseBackup.destination = (tmp_path / "kept").as_uri()
    return SimpleNamespace(
        config=config,
        log=logging.getLogger("test"),
        db_url=f"sqlite:///{file}",
        db_kwargs={},
        upgrade_db=True,
    )


def kept(tmp_path: Path) -> list[str]:
    """Revisions of the snapshots."""
    if not (tmp_path / "kept").exists():
        return []
    shelf = Shelf(FolderStore(str(tmp_path / "kept")), "jhub", "jhub")
    return [one.manifest.revision for one in snapshot.listing(shelf) if one.manifest]


def test_the_database_as_it_was_is_kept_and_the_upgrade_goes_on(hub, tmp_path):
    former = downgrade(hub.db_url)
    before_upgrade(hub, "jhub", None)
    assert kept(tmp_path) == [former]
    assert alembic(hub.db_url, "upgrade", "head") != former
    with closing(orm.new_session_factory(hub.db_url)()) as db:
        assert [user.name for user in db.query(orm.User)] == ["ada"]
        db.get_bind().dispose()
    # At the next start there is nothing to upgrade.
    before_upgrade(hub, "jhub", None)
    assert kept(tmp_path) == [former]


def test_a_hub_that_is_not_told_to_upgrade_makes_none(hub, tmp_path):
    downgrade(hub.db_url)
    hub.upgrade_db = False
    before_upgrade(hub, "jhub", None)
    assert kept(tmp_path) == []


def test_a_snapshot_that_cannot_be_made_is_said_and_keeps_nobody_out(hub, tmp_path, caplog):
    downgrade(hub.db_url)
    (tmp_path / "kept").write_text("a file where the folder should be")
    before_upgrade(hub, "jhub", None)
    assert "without a snapshot of it before" in caplog.text


def test_a_database_that_is_made_just_now_is_not_copied(hub, tmp_path):
    hub.db_url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    before_upgrade(hub, "jhub", None)
    assert kept(tmp_path) == []
    assert not (tmp_path / "new.sqlite").exists()
