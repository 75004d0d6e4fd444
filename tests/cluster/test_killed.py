"""A hub that dies in the middle of a pass, at whatever point, ends where an undisturbed one does.

One small world has something of everything that a pass mends. It is broken anew for each point,
two passes run, the hub is killed at the point with SIGKILL and started again, and when there is
nothing left to be done the whole set of sessions, routes, labs, tokens and claims is compared with
that of the run that was not interrupted. `make soak` dies at every point, `make test` at a few.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections import Counter, deque
from contextlib import closing, suppress
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.cluster.hubs import UNHURRIED, Hub, Setup
from tests.cluster.killing import DIED_AT, KILLABLE, orders_path
from tools.demo.client import HubClient

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

#: Set by `make soak`: die at every point, however long it takes.
SOAK = "JHUB_SAFETY_SOAK"
SAMPLE = 6
#: Passes in which a point that does not come up each time is waited for.
TRIES = 3
DEADLINE = 60.0
#: Only ordered passes run: the hub's own one at its start, and no polls in between.
QUIET = (
    UNHURRIED
    + """
c.KubeSpawner.poll_interval = 0
c.SessionReconciler.interval = 86400
c.SessionReconciler.orphans = "relink"
c.JupyterHub.last_activity_interval = 86400
"""
)
PROXY_RUNS = """
c.ConfigurableHTTPProxy.should_start = False
"""
#: What a whole pass sees when there is nothing to be waited for.
_SETTLED = {"in step", "ended"}
#: Beside what Hub.rows() says: nothing else of a session may be left over, or be missing.
_MORE_ROWS = {
    "servers": "SELECT base_url, ip, port FROM servers ORDER BY 1",
    "spawners": """
        SELECT users.name, spawners.name, server_id IS NOT NULL, spawners.state
        FROM spawners JOIN users ON users.id = user_id ORDER BY 1, 2""",
    "all tokens": """
        SELECT users.name, note, api_tokens.client_id, count(*), group_concat(scopes)
        FROM api_tokens JOIN users ON users.id = user_id GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
    "all clients": "SELECT identifier, description FROM oauth_clients ORDER BY 1",
    "owners": """
        SELECT users.name, spawners.name, identifier
        FROM spawners JOIN users ON users.id = user_id
        JOIN oauth_clients ON identifier = oauth_client_id ORDER BY 1, 2""",
}

NOWHERE = {"target": "http://127.0.0.1:9", "jupyterhub": True, "user": "grace", "server_name": ""}
#: Labs that go on running, whatever happens to the hub.
LIVES = {"jupyter-ada", "jupyter-ada--gpu", "jupyter-emmy--lab"}


class World:
    """A hub with a few servers, broken and mended again and again.

    Broken, ada is in step and ada/gpu has lost its route; the lab of katherine/work is gone, and
    mary's has ended; emmy/lab is an orphan, whose server has no row; grace has a route and no
    server.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._good = hub.directory / "good.sqlite"
        self._clients: dict[str, HubClient] = {}

    async def begin(self) -> None:
        # A proxy of its own, as in a cluster: a hub that starts its proxy starts it anew, and all
        # routes with it.
        await self.hub.start()
        await self.hub.kill()
        await self.hub.set_up(Setup(extra=QUIET + PROXY_RUNS + KILLABLE))
        await self.hub.start()
        for user in ("ada", "katherine", "mary", "emmy"):
            self._clients[user] = await self.hub.login(user)
        await asyncio.gather(*(self._start(*one) for one in (("ada", ""), ("ada", "gpu"))))
        await self._start("emmy", "lab")
        await self.mend()
        await self.settle()

    async def end(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def _start(self, user: str, server: str) -> None:
        await self._clients[user].start_server(server)
        await self._clients[user].wait_ready(server)

    async def mend(self) -> None:
        """Whose servers a pass has ended start them again."""
        await asyncio.gather(self._start("katherine", "work"), self._start("mary", ""))

    async def break_(self) -> None:
        space = self.hub.space
        await asyncio.gather(
            space.delete_pod("jupyter-katherine--work"),
            self._end_marys(),
            self.order("lose", user="emmy", server="lab"),
            self.hub.proxy_api("DELETE", "/user/ada/gpu"),
            self.hub.proxy_api(
                "POST",
                "/user/grace",
                NOWHERE,
            ),
        )

    async def _end_marys(self) -> None:
        await self.hub.space.end_pod("jupyter-mary")
        async with asyncio.timeout(DEADLINE):
            while (await self.hub.space.pod("jupyter-mary")).status.phase != "Failed":
                await asyncio.sleep(0.1)

    async def order(self, what: str, **details: Any) -> dict[str, Any] | None:
        """None: the hub died over it."""
        try:
            reader, writer = await asyncio.open_unix_connection(orders_path(self.hub.space.name))
            writer.write(json.dumps({"do": what, **details}).encode() + b"\n")
            line = await reader.readline()
            writer.close()
        except ConnectionError:
            line = b""
        if not line:
            return None
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer
        return answer

    async def die_at(self, point: str) -> list[str] | None:
        """Two passes, and a new start of the hub; the points up to this one.

        None when the passes ended: it did not come up this time.
        """
        died = self.hub.directory / DIED_AT
        died.unlink(missing_ok=True)
        if await self.order("passes", die_at=point) is not None:
            return None
        async with asyncio.timeout(DEADLINE):
            while self.hub.running():
                await asyncio.sleep(0.02)
        assert died.exists(), "the hub ended, and not at the point"
        await self.hub.start()
        reached: list[str] = json.loads(died.read_text())
        return reached

    async def settle(self) -> None:
        """Passes, until one finds nothing to be done or waited for."""
        async with asyncio.timeout(DEADLINE):
            while True:
                # The hub answers a moment before the passes begin, and takes away what a killed
                # one has left in place of the socket.
                found = None
                with suppress(FileNotFoundError):
                    found = await self.order("one_pass")
                if found and not found["left"] and set(found["verdicts"]) <= _SETTLED:
                    return
                await asyncio.sleep(0.1)

    async def state(self) -> dict[str, Any]:
        """All that there is of every server, in all records."""
        space = self.hub.space
        pods = await space.phases()
        with closing(sqlite3.connect(f"file:{self.hub.database}?mode=ro", uri=True)) as database:
            more = {what: database.execute(query).fetchall() for what, query in _MORE_ROWS.items()}
        # Sets and mappings, in whatever order they were written.
        more["all tokens"] = [
            (*rest, sorted(map(sorted, json.loads(f"[{scopes}]"))))
            for *rest, scopes in more["all tokens"]
        ]
        more["spawners"] = [
            (*rest, sorted(json.loads(state or "{}").items())) for *rest, state in more["spawners"]
        ]
        routes = await self.hub.proxy_api("GET")
        return {
            **self.hub.rows(),
            **more,
            "routes": {path: route["target"] for path, route in routes.items()},
            "labs": {
                name: (phase, uid if name in LIVES else "") for name, (uid, phase) in pods.items()
            },
            "claims": await space.uids(),
        }

    def remember(self) -> None:
        """What the database says now is how it is after a run that was not interrupted."""
        with (
            closing(sqlite3.connect(self.hub.database)) as database,
            closing(sqlite3.connect(self._good)) as copy,
        ):
            database.backup(copy)

    async def recall(self) -> None:
        """What went wrong at one point is not to be found again at all others."""
        await self.hub.kill()
        self.hub.empty_the_database()
        self.hub.database.write_bytes(self._good.read_bytes())
        await self.hub.start()
        await self.settle()

    async def problem(self, wanted: dict[str, Any]) -> str:
        """How what there is in the end differs from what there should be; "" when it does not."""
        try:
            await self.settle()
        except TimeoutError:
            return "it never comes to rest"
        found = await self.state()
        who = await self.whose_token("jupyter-emmy--lab")
        if who != "emmy":
            return f"the token of emmy's lab is {who or 'nobody'}'s"
        return _differences(wanted, found)

    async def whose_token(self, pod_name: str) -> str:
        """Whom the hub takes the lab itself for; "" when it does not know its token."""
        pod = await self.hub.space.pod(pod_name)
        [token] = [
            one.value for one in pod.spec.containers[0].env if one.name == "JUPYTERHUB_API_TOKEN"
        ]
        headers = {"Authorization": f"token {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.get(f"{self.hub.url}/hub/api/user") as answer,
        ):
            return str((await answer.json())["name"]) if answer.status == 200 else ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(space, hub_factory):
    made = World(await hub_factory(space, Setup(extra=QUIET + KILLABLE)))
    await made.begin()
    yield made
    await made.end()


def _sure(point: str) -> bool:
    """False where it depends on the network whether it comes up, and how often.

    A request waits once more when its connection is new, or its answer comes in two pieces.
    """
    return point.startswith("write") or (point.endswith("#1") and " streams." not in point)


def _sample(points: list[str]) -> list[str]:
    """First, last, and those evenly between, of the points that come up each time."""
    sure = [point for point in points if _sure(point)]
    return [sure[round(n * (len(sure) - 1) / (SAMPLE - 1))] for n in range(SAMPLE)]


def _asked(points: list[str]) -> list[str]:
    """`make soak` dies at all points, or at those with these numbers."""
    asked = os.environ.get(SOAK, "")
    if not asked:
        return _sample(points)
    first, _, last = asked.partition("-")
    return points if asked == "all" else points[int(first) - 1 : int(last or first)]


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    words = []
    for what, value in wanted.items():
        if found[what] != value:
            here, there = _entries(found[what]), _entries(value)
            words.append(f"{what}: +{sorted(here - there)} -{sorted(there - here)}")
    return "; ".join(words)


def _entries(part: Any) -> set[str]:
    return {str(one) for one in (part.items() if isinstance(part, dict) else part)}


async def _undisturbed(world: World) -> tuple[list[str], dict[str, Any]]:
    """All points of two passes, and what there is in the end."""
    await world.break_()
    found = await world.order("passes", die_at="")
    assert found is not None
    assert found["dry"]
    assert found["outcomes"] == [
        "clear-session done",
        "clear-session done",
        "relink-lab done",
        "check-routes done",
    ]
    await world.settle()
    state = await world.state()
    assert {path for path in state["routes"] if path.startswith("/user/")} == {
        "/user/ada",
        "/user/ada/gpu",
        "/user/emmy/lab",
    }
    assert {user for user, *_ in state["tokens"]} == {"ada", "emmy"}
    assert set(state["labs"]) == LIVES
    world.remember()
    assert len(set(found["points"])) == len(found["points"])
    return found["points"], state


# All the points, each with two starts of servers and one of the hub.
@pytest.mark.timeout(4 * 3600 if os.environ.get(SOAK) else 600)
async def test_killed_at_any_point_of_a_pass_a_hub_ends_in_the_very_same_set(
    world: World, capsys: pytest.CaptureFixture[str]
):
    def tell(words: str) -> None:
        with capsys.disabled():
            print(words, flush=True)

    points, wanted = await _undisturbed(world)
    tell(f"\ntwo passes have {len(points)} points")

    left = deque(_asked(points))
    everything = len(left) == len(points)
    tries: Counter[str] = Counter()
    killed: list[str] = []
    wrong: list[str] = []
    while left:
        point = left.popleft()
        tries[point] += 1
        await world.mend()
        await world.break_()
        reached = await world.die_at(point)
        problem = await world.problem(wanted)
        if problem:
            wrong.append(f"{point}: {problem}")
            await world.recall()
        if reached is None:
            left.extend([point] if tries[point] < TRIES else [])
        else:
            killed.append(point)
            if everything:
                # A request that waited once more than in all passes so far.
                left.extend(one for one in reached if one not in tries and one not in left)
        tell(f"{point}: {'not reached' if reached is None else 'killed'}; {problem or 'the same'}")
    never = set(tries) - set(killed)
    tell(
        f"killed at {len(killed)} points; {len(never)} came up once and not in {TRIES} more passes;"
        f" {len(wrong)} ended otherwise"
    )
    assert not wrong
    assert not [point for point in never if _sure(point)]
