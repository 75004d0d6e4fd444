"""What a start shows of its databases, how long it waits for that, and when it goes on without."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from selectors import DefaultSelector
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety import databases
from jhub_safety.cluster import events
from jhub_safety.databases import DatabasesMixin, _WithoutThem
from jhub_safety.errors import Doubt
from jhub_safety.extras import ExtrasMixin
from jhub_safety.hubdb.records import VOLUMES
from jhub_safety.refused import SpawnRefused
from jhub_safety.sidecars.notice import Notice, of_folders
from jhub_safety.spawner import SafeKubeSpawner

NAME = "jhub-safety-postgres"
CLAIM = "postgres-ada"
SHOW, LOOK = databases._SHOW_SECONDS, databases._LOOK_SECONDS


# -- a clock that jumps to whatever is waited for


class _Jump(DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.jumps = 0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout else timeout)
        if not ready and timeout:
            self.now += timeout
            self.jumps += 1
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """Hours take no time: nobody but these tests' own tasks is waited for."""

    def __init__(self) -> None:
        self.clock = _Jump()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(test: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(test)


def now() -> float:
    return asyncio.get_running_loop().time()


async def took(what: Coroutine[Any, Any, Any]) -> float:
    began = now()
    await what
    return round(now() - began, 3)


# -- a start


@pytest.fixture
def make(monkeypatch):
    """Spawners as a hub makes them, without a cluster to connect to."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr(DatabasesMixin, "_telling", set())

    def one(*entries: object, pending: bool = True) -> SafeKubeSpawner:
        settings = {"databases": list(entries or ["postgres"])}
        row = orm.Spawner(name="", state={})
        made = SafeKubeSpawner(_mock=True, orm_spawner=row, config=Config(SafeKubeSpawner=settings))
        made._spawn_pending = pending
        return made

    return one


@pytest.fixture
def kube_events(monkeypatch):
    """What KubeSpawner says, and after how many seconds."""
    said: list[tuple[float, str]] = []

    async def progress(_: object) -> Any:
        for seconds, message in said:
            await asyncio.sleep(seconds)
            yield {"message": message}

    monkeypatch.setattr(KubeSpawner, "progress", progress)
    return said


def notice(code: str, database: str = "postgres", *, down: bool = True) -> Notice:
    return Notice(code, database, f"it is {code}", "mend it", down)


def knows(spawner: SafeKubeSpawner, *found: Notice) -> None:
    """As is_pod_running and poll note them."""
    spawner._notices |= {(one.database, one.code): one for one in found}


async def watch(spawner: SafeKubeSpawner, page: list[tuple[float, str]]) -> None:
    """A browser that shows all there is, and when."""
    async with aclosing(spawner.progress()) as coming:
        async for event in coming:
            page.append((round(now(), 1), event["message"]))  # noqa: PERF401 - as they come


def shows(code: str) -> str:
    return f"Your database postgres: it is {code}."


# -- the page


def test_a_notice_is_shown_at_once_and_not_only_with_kubespawners_next_event(make, kube_events):
    kube_events += [(1, "Pulling the image"), (5, "Started")]

    async def test():
        spawner, page = make(), []
        watching = asyncio.ensure_future(watch(spawner, page))
        await asyncio.sleep(2)
        knows(spawner, notice("full"))
        await asyncio.sleep(5)
        watching.cancel()
        return page

    page = run(test())
    assert [text for _, text in page] == ["Pulling the image", shows("full"), "Started"]
    assert page[1][0] <= 2 + LOOK


def test_each_page_shows_every_notice_once_whenever_it_was_opened(make, kube_events):
    kube_events += [(20, "Started")]

    async def test():
        spawner, early, late = make(), [], []
        both = [asyncio.ensure_future(watch(spawner, early))]
        knows(spawner, notice("full"))
        await asyncio.sleep(5)
        both.append(asyncio.ensure_future(watch(spawner, late)))
        knows(spawner, notice("late"))
        await asyncio.sleep(5)
        for one in both:
            one.cancel()
        return [text for _, text in early], [text for _, text in late]

    assert run(test()) == ([shows("full"), shows("late")],) * 2


@pytest.mark.parametrize("said", [[], [(1, "Started")]], ids=["events_enabled off", "the last one"])
def test_notices_are_shown_after_kubespawners_events_until_the_start_is_over(
    make, kube_events, said
):
    kube_events += said

    async def test():
        spawner, page = make(), []
        watching = asyncio.ensure_future(watch(spawner, page))
        await asyncio.sleep(3)
        knows(spawner, notice("full"))
        await asyncio.sleep(3)
        spawner._spawn_pending = False
        await watching
        return [text for _, text in page]

    assert run(test()) == [*(text for _, text in said), shows("full")]


def test_what_is_known_when_nothing_is_pending_any_more_is_shown_to_the_end(make, kube_events):
    async def test():
        spawner, page = make(pending=False), []
        knows(spawner, notice("full"), notice("late"))
        await watch(spawner, page)
        return [text for _, text in page]

    assert run(test()) == [shows("full"), shows("late")]


def test_a_page_that_is_closed_is_not_waited_for_and_leaves_nothing_running(make, kube_events):
    kube_events += [(1, "Pulling the image"), (3600, "Started")]

    async def test():
        spawner = make()
        knows(spawner, notice("full"))
        async with aclosing(spawner.progress()) as page:
            await anext(page)
            assert len(spawner._shown) == 1
        assert spawner._shown == {}
        await asyncio.sleep(LOOK)
        return [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]

    assert run(test()) == []


# -- how long a lab that is up waits for its pages


@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        pytest.param([], SHOW, id="nobody has opened a page"),
        pytest.param([0], SHOW, id="a page that shows nothing"),
        pytest.param([1], SHOW, id="a page with one still to show"),
        pytest.param([2], 0, id="all is shown"),
        pytest.param([2, 2], 0, id="on both pages"),
        pytest.param([2, 1], SHOW, id="not yet on one of two"),
    ],
)
def test_a_lab_waits_no_longer_than_three_seconds_for_pages(make, shown, seconds):
    async def test():
        spawner = make()
        knows(spawner, notice("full"), notice("late"))
        spawner._shown = {object(): number for number in shown}
        return await took(spawner._until_shown())

    assert run(test()) == pytest.approx(seconds, abs=0.01)


def test_a_hub_without_databases_looks_at_none_while_a_page_is_open(make, kube_events):
    """1,000 pages that looked ten times a second took 9 % of a core."""
    kube_events[:] = [(5.0, "pulling"), (5.0, "running")]

    async def test():
        spawner = make()
        spawner.databases = []
        page: list[tuple[float, str]] = []
        await watch(spawner, page)
        return page, asyncio.get_running_loop().clock.jumps

    assert run(test()) == ([(5.0, "pulling"), (10.0, "running")], 2)


@pytest.mark.parametrize("pages", [0, 1])
def test_where_nothing_is_wrong_nobody_waits(make, pages):
    async def test():
        spawner = make()
        spawner._shown = {object(): 0 for _ in range(pages)}
        return await took(spawner._until_shown())

    assert run(test()) == 0


def test_a_page_that_opens_late_shows_what_is_wrong_and_then_the_lab_opens(make, kube_events):
    kube_events += [(60, "Started")]

    async def test():
        spawner, page = make(), []
        knows(spawner, notice("full"))

        async def open_late() -> None:
            await asyncio.sleep(2)
            await watch(spawner, page)

        opening = asyncio.ensure_future(open_late())
        seconds = await took(spawner._until_shown())
        opening.cancel()
        return [text for _, text in page], seconds

    page, seconds = run(test())
    assert page == [shows("full")]
    assert 2 < seconds <= 2 + 3 * LOOK


# -- a start that waits for what will not come


def absent(*names: str) -> dict[str, Any]:
    """A status in which these do not come to run at all."""
    return {
        "initContainerStatuses": [
            {"name": f"jhub-safety-{name}", "state": {"waiting": {"reason": "ErrImagePull"}}}
            for name in names
        ]
    }


@pytest.mark.parametrize(
    ("entry", "found", "status", "waited", "outcome"),
    [
        pytest.param({}, [], {}, 900, None, id="nothing is wrong"),
        pytest.param({}, [notice("version")], {}, 900, None, id="held: the lab starts beside it"),
        pytest.param({}, [], absent("postgres"), 900, None, id="its image is still coming"),
        pytest.param({}, [notice("pull")], absent("postgres"), 59, None, id="within its deadline"),
        pytest.param(
            {}, [notice("pull")], absent("postgres"), 60, {"postgres"}, id="its deadline is over"
        ),
        pytest.param(
            {"startup_deadline": 3},
            [notice("pull")],
            absent("postgres"),
            3,
            {"postgres"},
            id="a deadline of its own",
        ),
        pytest.param(
            {}, [notice("pull", "other")], absent("postgres"), 900, None, id="another one is down"
        ),
        pytest.param({"required": True}, [], {}, 900, None, id="required, and nothing is wrong"),
        pytest.param(
            {"required": True}, [notice("version")], {}, 0, "database-version", id="required"
        ),
        pytest.param(
            {"required": True},
            [notice("disk-full", down=False)],
            {},
            900,
            None,
            id="required, and told of something while it runs",
        ),
        pytest.param(
            {"required": True},
            [notice("pull")],
            absent("postgres"),
            59,
            None,
            id="required, within its deadline",
        ),
        pytest.param(
            {"required": True},
            [notice("pull")],
            absent("postgres"),
            60,
            "database-pull",
            id="required, and its deadline is over",
        ),
    ],
)
def test_when_a_start_goes_on_without_a_server_or_is_refused(
    make, entry, found, status, waited, outcome
):
    async def test():
        spawner = make({"kind": "postgres", **entry})
        servers = {one.container: one for one in spawner._servers()}
        knows(spawner, *found)
        spawner._began = now()
        await asyncio.sleep(waited)
        try:
            spawner._mind_the_lab(status, servers)
        except _WithoutThem as without:
            return set(without.names)
        except SpawnRefused as refused:
            return refused.code
        return None

    assert run(test()) == outcome


def test_a_refusal_tells_the_user_what_is_wrong_and_the_operator_what_to_do(make):
    async def test():
        spawner = make({"kind": "postgres", "required": True})
        knows(spawner, notice("version"))
        spawner._began = now()
        servers = {one.container: one for one in spawner._servers()}
        with pytest.raises(SpawnRefused) as refused:
            spawner._mind_the_lab({}, servers)
        return refused.value

    refused = run(test())
    told = "Your server was not started: your database postgres: it is version."
    assert told in refused.jupyterhub_message
    assert "mend it" not in refused.jupyterhub_message
    assert "To do: mend it" in refused.story
    assert not refused.retryable


def test_a_lab_that_runs_already_is_not_ended_for_a_server(make):
    async def test():
        spawner = make({"kind": "postgres", "required": True})
        knows(spawner, notice("version"))
        spawner._mind_the_lab({}, {one.container: one for one in spawner._servers()})

    run(test())


def test_of_several_only_the_servers_that_cannot_come_are_left_out(make):
    async def test():
        spawner = make("postgres", "mysql")
        knows(spawner, notice("pull"))
        spawner._began = now()
        await asyncio.sleep(900)
        servers = {one.container: one for one in spawner._servers()}
        with pytest.raises(_WithoutThem) as without:
            spawner._mind_the_lab(absent("postgres", "mysql"), servers)
        return set(without.value.names)

    assert run(test()) == {"postgres"}


def giving(state: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A status in which folders are to be given to the user."""
    return {"initContainerStatuses": [{"name": "jhub-safety-ownership", "state": state, **keys}]}


NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff"}}


@pytest.mark.parametrize(
    ("entries", "state", "waited", "outcome"),
    [
        pytest.param([], NO_IMAGE, 29, None, id="its image may still come"),
        pytest.param([], NO_IMAGE, 30, {"ownership"}, id="no image"),
        pytest.param(["postgres"], NO_IMAGE, 30, {"ownership"}, id="no image, and a database"),
        pytest.param(
            [{"kind": "postgres", "required": True}],
            NO_IMAGE,
            29,
            None,
            id="a database is required, and it may still come",
        ),
        pytest.param(
            [{"kind": "postgres", "required": True}],
            NO_IMAGE,
            30,
            "database-ownership",
            id="a database is required",
        ),
        pytest.param([], {"running": {}}, 900, None, id="it is at work"),
        pytest.param([], {"terminated": {"exitCode": 0}}, 900, None, id="it is done"),
        pytest.param([], {"terminated": {"exitCode": 128}}, 900, {"ownership"}, id="it fails"),
        pytest.param(
            [],
            {"waiting": {"reason": "CrashLoopBackOff"}},
            900,
            {"ownership"},
            id="it fails again and again",
        ),
        pytest.param([], {"waiting": {"reason": "PodInitializing"}}, 900, None, id="not its turn"),
        pytest.param([], {}, 900, None, id="no state yet"),
    ],
)
def test_when_a_start_goes_on_without_giving_folders(make, told, entries, state, waited, outcome):
    async def test():
        spawner = make()
        spawner.databases = entries
        spawner._home_claim = SimpleNamespace(name="claim-ada")
        spawner._began = now()
        await asyncio.sleep(waited)
        try:
            # As KubeSpawner asks while it waits.
            spawner.is_pod_running({"status": {"phase": "Pending", **giving(state)}})
        except _WithoutThem as without:
            return set(without.names)
        except SpawnRefused as refused:
            safe.append("Nothing was lost" in refused.jupyterhub_message)
            return refused.code
        finally:
            await asyncio.gather(*spawner._telling)
        return None

    safe: list[bool] = []
    assert run(test()) == outcome
    assert all(safe)
    words = [(claim, reason) for claim, reason, _ in told.written]
    assert words == ([] if outcome is None else [("claim-ada", "DatabaseOwnership")])


def test_a_page_says_that_folders_were_not_given(make, kube_events, told):
    async def test():
        page: list[tuple[float, str]] = []
        spawner = make()
        spawner._take_note([of_folders(spawner._where())])
        watching = asyncio.ensure_future(watch(spawner, page))
        await asyncio.sleep(1)
        watching.cancel()
        await asyncio.gather(watching, *spawner._telling, return_exceptions=True)
        return page

    [(_, text)] = run(test())
    assert text.startswith("Your folders: the container that gives folders to you cannot run")


# -- a lab that runs


def killed_in(name: str) -> dict[str, Any]:
    """As the kubelet writes it after the kernel's OOM killer, when the server runs again."""
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    container = {
        "name": name,
        "state": {"running": {"startedAt": "2026-11-21T18:00:01Z"}},
        "lastState": {"terminated": ended},
    }
    return {"status": {"phase": "Running", "initContainerStatuses": [container]}}


@pytest.fixture
def told(monkeypatch):
    """Events that were written, and the fault with which they are."""
    made = SimpleNamespace(written=[], fault=None)

    async def warn_about_claim(_api, _namespace, claim, _uid, reason, message):
        if made.fault:
            raise made.fault
        made.written.append((claim, reason, message))

    monkeypatch.setattr(events, "warn_about_claim", warn_about_claim)
    return made


async def polled(spawner, monkeypatch, pods, *, ended: int | None = None, times: int = 1) -> Any:
    async def poll(_: object) -> int | None:
        return ended

    monkeypatch.setattr(ExtrasMixin, "poll", poll)
    reflector = None if pods is None else SimpleNamespace(pods=pods)
    monkeypatch.setattr(SafeKubeSpawner, "pod_reflector", reflector)
    # As after a restart of the hub: it has settled nothing for a lab that runs.
    spawner.load_state({VOLUMES: {spawner._servers()[0].claim_template: CLAIM}})
    answers = [await spawner.poll() for _ in range(times)]
    await asyncio.gather(*spawner._telling)
    return answers


def pods_of(spawner, status: dict[str, Any]) -> dict[str, Any]:
    return {f"{spawner.namespace}/{spawner.pod_name}": status}


def test_a_server_that_is_killed_in_a_running_lab_is_told_once_and_the_lab_goes_on(
    make, monkeypatch, told, caplog
):
    async def test():
        spawner = make(pending=False)
        spawner.log.propagate = True
        answers = await polled(spawner, monkeypatch, pods_of(spawner, killed_in(NAME)), times=3)
        return answers, [code for _, code in spawner._notices]

    assert run(test()) == ([None] * 3, ["killed"])
    [(claim, reason, message)] = told.written
    assert (claim, reason) == (CLAIM, "DatabaseKilled")
    assert f"(claim {CLAIM}): it was killed" in message
    assert message.endswith("To do: raise resources.limits.memory of the entry in databases")
    [line] = [one for one in caplog.messages if "it was killed" in one]
    assert "To do: raise resources.limits.memory of the entry in databases." in line


@pytest.mark.parametrize(
    ("ended", "began", "name", "where"),
    [
        pytest.param(1, None, NAME, "there", id="the lab has ended"),
        pytest.param(None, 0.0, NAME, "there", id="a start is under way, which looks itself"),
        pytest.param(None, None, "notebook", "there", id="another container"),
        pytest.param(None, None, NAME, "elsewhere", id="another lab"),
        pytest.param(None, None, NAME, None, id="no reflector"),
    ],
)
def test_what_says_nothing_of_a_running_labs_servers_is_not_told(
    make, monkeypatch, told, ended, began, name, where
):
    async def test():
        spawner = make(pending=False)
        spawner._began = began
        pods = {"there": pods_of(spawner, killed_in(name)), "elsewhere": {"x/y": killed_in(name)}}
        answers = await polled(spawner, monkeypatch, pods.get(where), ended=ended)
        return answers, spawner._notices

    assert run(test()) == ([ended], {})
    assert told.written == []


def test_an_event_that_cannot_be_written_leaves_the_poll_and_the_log_as_they_are(
    make, monkeypatch, told, caplog
):
    told.fault = Doubt("HTTP 403", status=403)

    async def test():
        spawner = make(pending=False)
        spawner.log.propagate = True
        return await polled(spawner, monkeypatch, pods_of(spawner, killed_in(NAME)))

    assert run(test()) == [None]
    assert [one for one in caplog.messages if "it was killed" in one]


def test_without_servers_nothing_is_looked_at(make, monkeypatch, told):
    async def test():
        spawner = make(pending=False)
        spawner.databases = []
        monkeypatch.setattr(ExtrasMixin, "poll", lambda _: asyncio.sleep(0))
        monkeypatch.setattr(SafeKubeSpawner, "pod_reflector", None)
        await spawner.poll()
        return spawner._notices

    assert run(test()) == {}
