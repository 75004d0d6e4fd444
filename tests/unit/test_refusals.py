"""A start that was refused, by whatever, is told to JupyterHub once: version 5 would count it."""

from __future__ import annotations

import asyncio

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety.homes import HomesMixin
from jhub_safety.refused import SpawnRefused
from jhub_safety.spawner import SafeKubeSpawner

REFUSED = SpawnRefused("database-pull", "the story", "the text", retryable=False)


@pytest.fixture
def told(monkeypatch):
    found = []
    monkeypatch.setattr(HomesMixin, "on_refusal", staticmethod(found.append))
    return found


@pytest.fixture
def starting(monkeypatch):
    """KubeSpawner's own start; a test says how it ends."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    made = []

    def start(_):
        made.append(asyncio.get_running_loop().create_future())
        return made[-1]

    monkeypatch.setattr(KubeSpawner, "start", start)
    return made


def spawner(**settings):
    config = Config(SafeKubeSpawner=settings)
    return SafeKubeSpawner(_mock=True, orm_spawner=orm.Spawner(name="", state={}), config=config)


async def ended(start) -> None:
    with pytest.raises((Exception, asyncio.CancelledError)):
        await asyncio.wait_for(start, 5)
    # What was registered on the start is called at the loop's next turn.
    await asyncio.sleep(0)


@pytest.mark.parametrize("homes", ["enforce", "observe", "off"])
async def test_each_refusal_is_told_once(told, starting, homes):
    one = spawner(homes=homes)
    for number in (1, 2):
        start = one.start()
        starting[-1].set_exception(REFUSED)
        await ended(start)
        assert told == [one] * number


async def test_a_start_that_was_given_up_is_a_refusal(told, starting):
    one = spawner()
    start = one.start()
    one.given_up.set()
    await ended(start)
    assert told == [one]


@pytest.mark.parametrize("error", [OSError("x"), TimeoutError(), None], ids=["fault", "time", "no"])
async def test_what_is_no_refusal_counts_as_jupyterhub_has_it(told, starting, error):
    start = spawner().start()
    if error is None:
        start.cancel()
    else:
        starting[-1].set_exception(error)
    await ended(start)
    assert told == []


async def test_a_start_that_succeeds_tells_nothing(told, starting):
    start = spawner().start()
    starting[-1].set_result(("10.88.0.7", 8888))
    await asyncio.wait_for(start, 5)
    await asyncio.sleep(0)
    assert told == []
