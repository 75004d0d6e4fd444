"""A user who is renamed keeps their home, also when the hub's memory of them is out of date."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.spawner import Spawner
from jupyterhub.user import UserDict
from sqlalchemy import event

from jhub_safety.hub import application
from jhub_safety.hubdb.records import former_users
from tests.unit.hub_database import add_server, opened
from tests.unit.session_given import ADA, GPU


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """A database whose renames are followed; the listening ends with the test."""
    heard = []

    def listen(target, name, function, **options):
        heard.append((target, name, function))
        event.listen(target, name, function, **options)

    # Not in SQLAlchemy's module: it listens by that, too.
    monkeypatch.setattr(application, "event", SimpleNamespace(listen=listen))
    with opened(tmp_path / "jupyterhub.sqlite") as db:
        for server in (ADA, GPU):
            add_server(db, server, {"pvc_name": "claim-ada"})
        users = UserDict(lambda: db, {"spawner_class": Spawner, "base_url": "/"})
        application.follow_renamed_users(SimpleNamespace(db=db, users=users))
        yield db
    for one in heard:
        event.remove(*one)


FORGET = {
    "nothing": lambda db, user: None,
    "after a rollback": lambda db, _: db.rollback(),
    "everything": lambda db, _: db.expire_all(),
    "its name": lambda db, user: db.expire(user, ["name"]),
}


@pytest.mark.parametrize("what", FORGET)
async def test_a_rename_is_seen_whatever_the_hub_has_forgotten(followed, what):
    """The name was not in memory after a database error: the next start made an empty home."""
    user = orm.User.find(followed, "ada")
    FORGET[what](followed, user)
    user.name = "ada.l"
    followed.commit()
    followed.expire_all()
    for spawner in followed.query(orm.Spawner):
        assert tuple(former_users(spawner.state)) == ("ada",)


async def test_the_same_name_again_is_no_rename(followed):
    user = orm.User.find(followed, "ada")
    followed.expire_all()
    user.name = "ada"
    followed.commit()
    assert [former_users(spawner.state) for spawner in followed.query(orm.Spawner)] == [()] * 2


async def test_a_new_user_was_nobody_before(followed):
    followed.add(orm.User(name="bob"))
    followed.commit()
    assert orm.User.find(followed, "bob") is not None
