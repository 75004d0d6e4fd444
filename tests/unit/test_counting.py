"""Many labs that are missing at once cost the hub one count of its sessions a second."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import Spawner
from jupyterhub.user import UserDict
from traitlets.config import Config

from jhub_safety.hub import application
from jhub_safety.hub.counting import KEPT, SessionCount, session_count
from jhub_safety.hub.reconciling import Watch
from jhub_safety.labs import LabsMixin
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.model import Server
from jhub_safety.sessions.presence import Presence, look
from tests.unit.hub_database import add_server, opened
from tests.unit.session_given import ADA, BOB, GPU, Clock
from tests.unit.test_presence import Labs


@pytest.fixture
def app(tmp_path):
    """JupyterHub's own users; those who have a server are loaded, as after a start."""
    with opened(tmp_path / "jupyterhub.sqlite") as db:
        for server in (ADA, GPU, BOB):
            add_server(db, server)
        add_server(db, Server("carol"), running=False)
        made = SimpleNamespace(
            db=db, users=UserDict(lambda: db, {"spawner_class": Spawner, "base_url": "/"})
        )
        for name in ("ada", "bob", "carol"):
            user = made.users[name]
            for server in user.orm_spawners:
                assert user.spawners[server] is not None
        yield made


@pytest.fixture
def counted(app, monkeypatch):
    """How often JupyterHub went over all its users."""
    calls = []
    real = app.users.count_active_users

    def count():
        calls.append(1)
        return real()

    monkeypatch.setattr(app.users, "count_active_users", count)
    return calls


async def place() -> bool:
    return True


async def test_any_number_of_404s_within_a_second_is_one_count(app, counted):
    clock = Clock()
    count, absences = SessionCount(app, clock), Absences(clock)
    for number in range(100):
        found = await look(
            f"lab-{number}", Labs(None), absences, place_is_proven=place, sessions=count
        )
        assert found.presence is Presence.DOUBT
    assert len(counted) == 1
    clock.now += KEPT
    await look("lab-1", Labs(None), absences, place_is_proven=place, sessions=count)
    assert len(counted) == 2


def test_the_count_is_jupyterhubs_and_a_second_old_at_most(app, counted):
    clock = Clock()
    count = SessionCount(app, clock)
    assert count() == 3
    app.users["bob"].spawners[""].server = None
    clock.now += KEPT / 2
    assert count() == 3
    clock.now += KEPT / 2
    assert (count(), len(counted)) == (2, 2)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A JupyterHub that has loaded its configuration, and no cluster to ask."""
    JupyterHub.clear_instance()
    made = JupyterHub.instance()
    made.update_config(
        Config(
            JupyterHub={"spawner_class": "jhub-safety"},
            SafeKubeSpawner={"journal": "", "namespace": "hub"},
            SessionReconciler={"control_socket": str(tmp_path / "socket")},
        )
    )
    monkeypatch.setattr(application, "follow_renamed_users", lambda app: None)
    monkeypatch.setattr(Watch, "_api", lambda self: None)
    monkeypatch.setattr(LabsMixin, "count_sessions", None)
    monkeypatch.setattr(LabsMixin, "on_gone", None)
    yield made
    JupyterHub.clear_instance()


def test_polls_and_the_reconciler_share_one_count(hub):
    application.finish(hub)
    watch = Watch(hub, hub.spawner_class)
    assert LabsMixin.count_sessions is watch.inventory._count is session_count(hub)
