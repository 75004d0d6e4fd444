"""A hub's ``db_kwargs``: what is needed to reach its database is used by all that reads it."""

from __future__ import annotations

import pytest
from jupyterhub import orm
from sqlalchemy import make_url, text

from jhub_safety.errors import Doubt
from jhub_safety.hubdb import worker
from jhub_safety.hubdb.backup import Backups, DatabaseBackup
from jhub_safety.hubdb.engines import address, reading

NAMES = {"ada", "grace", "zoë"}


@pytest.fixture(params=["postgresql", "mariadb"])
def reached(request, new_database):
    """An address that leads nowhere, and the arguments with which the database is reached."""
    url = make_url(new_database(request.param))
    db = orm.new_session_factory(url.render_as_string(hide_password=False))()
    for name in NAMES:
        db.add(orm.User(name=name))
    db.commit()
    db.close()
    db.get_bind().dispose()
    socket = "unix_socket" if "unix_socket" in url.query else "host"
    where = {socket: url.query[socket]}
    nowhere = url.update_query_dict({socket: "/nowhere"}).render_as_string(hide_password=False)
    return nowhere, where


def backups(tmp_path, url, connect_args) -> Backups:
    settings = DatabaseBackup(destination=str(tmp_path / "kept"))
    return Backups(settings, url, "hub", connect_args=connect_args)


async def test_a_snapshot_is_made_with_them(tmp_path, reached):
    url, arguments = reached
    made = (await backups(tmp_path, url, arguments).run_once())["snapshot"]
    assert made["tables"]["users"]["rows"] == len(NAMES)


async def test_without_them_there_is_doubt_and_no_snapshot(tmp_path, reached):
    url, _ = reached
    with pytest.raises(Doubt, match="cannot be read"):
        await backups(tmp_path, url, None).run_once()
    assert not (tmp_path / "kept").exists()


async def test_a_restore_writes_with_them(tmp_path, reached):
    url, arguments = reached
    shelf = backups(tmp_path, url, arguments)
    name = (await shelf.run_once())["snapshot"]["name"]
    asked = {"snapshot": name, "afterwards": []}
    found = await worker.run(shelf.request("propose-restore", **asked))
    await worker.run(shelf.request("restore", identity=found["identity"], **asked))
    with reading(address(url, arguments)) as connection:
        rows = connection.execute(text("SELECT name FROM users"))
        assert {row[0] for row in rows} == NAMES
