"""Inside a hub: find every point of a pass at which the hub can die, and die at one of them.

A point is each suspension of a coroutine that belongs to a pass (whatever it awaits: the API
server, the proxy, a thread, a lock), in the pass itself and in every task that it starts; each
statement that writes to the hub's database, before and after the commit that it is part of; and
each line of the journal. The hub's configuration calls `install`; orders come through a socket.

The minute between two sightings of one thing is shortened: it is not what is tested here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import types
from collections import Counter
from collections.abc import Coroutine, Generator, Iterator
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

import jhub_safety
from jhub_safety.control import socket_path

ROOT = Path(__file__).resolve().parents[2]
#: At the end of the hub's configuration file.
KILLABLE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.cluster import killing
killing.install()
c.SafeKubeSpawner.journal = "journal.jsonl"
"""
#: Seconds between two sightings that count.
APART = 0.3
#: The names of all points up to the one where the hub died, in its working directory.
DIED_AT = "died-at"
_PACKAGE = str(Path(jhub_safety.__file__).parent)
_WRITES = ("INSERT", "UPDATE", "DELETE")


def orders_path(hub_name: str) -> Path:
    """Where a hub that was made killable takes orders."""
    return socket_path(hub_name).with_suffix(".orders")


class Points:
    """Counted while a pass runs. *die_at*: the name of the one to die at; "": none.

    Each has a name of its own that is the same in every pass over the same world: what is waited
    for where, in which call of that function, for which time. What is waited for is the network
    as a rule, and how often one request waits depends on how its bytes come in.
    """

    def __init__(self, die_at: str) -> None:
        self.die_at = die_at
        self.reached: list[str] = []
        self.counting = False
        #: Something was written to the database and not committed yet.
        self.written = False
        self._times: Counter[Any] = Counter()
        #: Which call of its function a frame is. Holding it keeps another from being taken for it.
        self._calls: dict[types.FrameType, int] = {}

    def wrote(self, what: str) -> None:
        if self.counting:
            self._times[what] += 1
            self._reach(f"write {what} #{self._times[what]}")

    def waits(self, coroutine: Any) -> None:
        """Some coroutine of the pass is about to be suspended."""
        if not self.counting:
            return
        frames = list(_frames(coroutine))
        ours = [frame for frame in frames if frame.f_code.co_filename.startswith(_PACKAGE)]
        call = ours[-1] if ours else frames[0]
        name = call.f_code.co_qualname
        if call not in self._calls:
            self._times[name] += 1
            self._calls[call] = self._times[name]
        place = f"{name}#{self._calls[call]} line {call.f_lineno}"
        self._times[place] += 1
        inner = frames[-1].f_code
        where = f"{Path(inner.co_filename).stem}.{inner.co_name}"
        self._reach(f"await {place}, {where}, #{self._times[place]}")

    def _reach(self, name: str) -> None:
        self.reached.append(name)
        if name == self.die_at:
            Path(DIED_AT).write_text(json.dumps(self.reached))
            os.kill(os.getpid(), signal.SIGKILL)


def _frames(coroutine: Any) -> Iterator[types.FrameType]:
    """From the outermost to where it really waits."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        inner = getattr(coroutine, "cr_await", None)
        coroutine = inner if inner is not None else getattr(coroutine, "gi_yieldfrom", None)


#: Of the pass to which the running code belongs; tasks and threads inherit it.
_points: ContextVar[Points | None] = ContextVar("points", default=None)


def _wrote(what: str) -> None:
    if (points := _points.get()) is not None:
        points.wrote(what)


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, Any], points: Points) -> Generator[Any, Any, Any]:
    """Await a coroutine by hand, to see each of its suspensions."""
    go_on, value = coroutine.send, None
    while True:
        try:
            waits_for = go_on(value)
        except StopIteration as end:
            return end.value
        points.waits(coroutine)
        try:
            value, go_on = (yield waits_for), coroutine.send
        except BaseException as error:  # noqa: BLE001 - handed on to whom it is thrown at
            value, go_on = error, coroutine.throw


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    points = _points.get()
    if points is not None and points.counting and asyncio.iscoroutine(coroutine):
        coroutine = _drive(coroutine, points)
    return asyncio.Task(coroutine, loop=loop, **options)


async def _drive(coroutine: Any, points: Points) -> Any:
    return await stepped(coroutine, points)


def install() -> None:
    """Make the hub of this process killable; from its configuration file."""
    from jhub_safety import labs
    from jhub_safety.hub.reconciling import Watch
    from jhub_safety.journal import Journal
    from jhub_safety.sessions import absence, reconciler

    absence.APART = reconciler.APART = APART
    labs.PAUSES = (0.2, 2.0)
    _count_writes()
    write, begin = Journal.write, Watch.begin

    @wraps(write)
    def counted(self: Journal, *args: Any, **kwargs: Any) -> None:
        _wrote("journal")
        write(self, *args, **kwargs)

    @wraps(begin)
    async def begun(self: Watch) -> None:
        await begin(self)
        path = orders_path(self.hub_name)
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(Orders(self).take, path)

    Journal.write, Watch.begin = counted, begun


def _count_writes() -> None:
    from sqlalchemy import Engine, event
    from sqlalchemy.orm import Session

    def executed(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split(None, 3)
        points = _points.get()
        if points is not None and words and words[0].upper() in _WRITES:
            points.written = True
            points.wrote(" ".join(words[:3]))

    def committing(_: Any) -> None:
        points = _points.get()
        if points is not None and points.written:
            points.wrote("before commit")

    def committed(_: Any) -> None:
        points = _points.get()
        if points is not None and points.written:
            points.written = False
            points.wrote("after commit")

    event.listen(Engine, "after_cursor_execute", executed)
    event.listen(Engine, "commit", committing)
    event.listen(Session, "after_commit", committed)


class Orders:
    """What a test tells the hub to do: one line of JSON in, one out."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self._reconciler = watch.reconciler

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = json.loads(await reader.readline())
        try:
            answer = await getattr(self, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 - the test says what it is
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def lose(self, user: str, server: str) -> dict[str, Any]:
        """End a session and leave its lab; not even the row of its server stays."""
        from jhub_safety.sessions.model import Server

        hub, app = self._watch.hub, self._watch._app
        await hub.clear(await hub.session(Server(user, server)), "")
        app.db.delete(app.users[user].orm_spawners[server])
        app.db.commit()
        return {}

    async def passes(self, die_at: str) -> dict[str, Any]:
        """The first pass of a new version, which is dry, and the one after it, which acts."""
        first = self._reconciler._first_pass
        async with self._reconciler._one_at_a_time:  # the hub's own pass at its start
            await first._note.delete()
            first._known = False
        for user in list(self._watch._app.users.values()):
            for spawner in user.spawners.values():
                # As in a hub that was started after they were.
                spawner.api_token = ""
        # A hub that reached its point did not live on to here. One that did not must not find
        # more labs gone within the hour than is plausible: it would want a third sighting.
        absences = self._reconciler._absences
        for kept in (absences._missing, absences._gone, absences._believed):
            kept.clear()
        points = Points(die_at)
        _points.set(points)
        asyncio.get_running_loop().set_task_factory(_task)
        reports = []
        for _ in range(2):
            await asyncio.sleep(APART)
            points.counting = True
            reports.append(await stepped(self._reconciler.one_pass(), points))
            points.counting = False
        asyncio.get_running_loop().set_task_factory(None)
        outcomes = [f"{one.action.kind} {one.outcome}" for one in reports[1].outcomes]
        return {"points": points.reached, "dry": reports[0].dry, "outcomes": outcomes}

    async def one_pass(self) -> dict[str, Any]:
        """A pass that nothing happens to; whether there is anything left to be done."""
        await asyncio.sleep(APART)
        judgement = (await self._reconciler.one_pass()).judgement
        plan = judgement.plan
        return {
            "left": len(plan.actions) + len(plan.refusals),
            "verdicts": {str(verdict): n for verdict, n in judgement.counts.items()},
        }
