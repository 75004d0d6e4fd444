"""Everybody's browsers, and the web server that plays most people's servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from aiohttp import web
from jupyterhub import __version__

from tools.demo.client import ClientError, HubClient
from tools.demo.hub import free_ports

#: Seconds for one person, from the hub's first page to their own server.
PATIENCE = 120.0
PAUSE = 0.2
FILES = "files"
_AS_A_PAGE = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
#: Of the proxy and the hub while a route is about to come.
_NOT_YET = (404, 424, 502, 503)
_PENDING = "/hub/spawn-pending/"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Arrival:
    """A person has come to their own server, or not.

    at: ``time.monotonic()`` then. seconds: it took them. problem: one line, "" when all is well.
    """

    at: float
    seconds: float
    problem: str = ""


class Browser(HubClient):
    """One person's, with the cookies that it had before the loss."""

    def cookies(self) -> dict[str, str]:
        """What it sends to the hub's API now."""
        found = self._http.cookie_jar.filter_cookies(self._at("hub/api/user"))
        return {name: morsel.value for name, morsel in found.items()}

    async def log_in(self, password: str) -> None:
        await self._log_in(password)

    async def who(self) -> str:
        """Whom the hub takes this browser for; "" for nobody."""
        try:
            return str((await self.api("GET", "user"))["name"])
        except ClientError as error:
            if error.status in (401, 403):
                return ""
            raise

    async def arrive(self, password: str) -> Arrival:
        """Ask for the own server, log in when asked to, wait until it answers with HTTP 200."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                problem = await self._arrive(password)
        except TimeoutError:
            problem = f"no server within {PATIENCE:.0f} s"
        except (ClientError, aiohttp.ClientError) as error:
            problem = " ".join(str(error).split())[:300] or type(error).__name__
        now = time.monotonic()
        return Arrival(now, now - begun, problem)

    async def _arrive(self, password: str) -> str:
        home, login = self.lab_url().path, self._at("hub/login")
        status, path = await self._open("hub/spawn")
        if path.startswith("/user/") and not path.startswith(home):
            return f"an old cookie led to {path}"
        if path == "/hub/login":
            form = {"username": self.user, "password": password, "_xsrf": self._xsrf(login)}
            target = login.with_query(next="/hub/spawn")
            async with self._http.post(target, data=form, headers=_AS_A_PAGE) as answer:
                await answer.read()
                status, path = answer.status, answer.url.path
        while not (status == 200 and path.startswith(home)):
            if path.startswith("/user/") and not path.startswith(home):
                return f"landed at {path}"
            if status >= 400 and not (
                status in _NOT_YET and path.startswith((home, f"/hub{home}"))
            ):
                return f"{path} answered {status}"
            if path.startswith(_PENDING):
                # As that page does: it waits for the hub to say how the start ended, and is loaded
                # again. To ask for pages all the time cost the hub an eighth of its time.
                ended = (await self.progress())[-1]
                if ended.get("failed"):
                    return str(ended.get("message"))
            else:
                await asyncio.sleep(PAUSE)
            status, path = await self._open("hub/spawn")
        return ""

    async def _open(self, path: str) -> tuple[int, str]:
        async with self._http.get(self._at(path), headers=_AS_A_PAGE) as answer:
            await answer.read()
            return answer.status, answer.url.path

    async def read_own(self, name: str) -> tuple[int, str]:
        """A file of the home, as the user's lab gives it out through the proxy."""
        url = self._lab("", f"{FILES}/{name}")
        # Without a route the proxy asks the hub, which sends people to its own pages.
        async with self._http.get(url, allow_redirects=False) as answer:
            return answer.status, await answer.text()


async def whose(url: str, cookies: dict[str, str]) -> str:
    """Whom the hub takes a browser with these cookies for; "" for nobody."""
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-XSRFToken": cookies.get("_xsrf", ""),
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
    }
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
        client.get(f"{url}/hub/api/user", headers=headers) as answer,
    ):
        return str((await answer.json())["name"]) if answer.status == 200 else ""


async def at_once(number: int, items: Iterable[_T], work: Callable[[_T], Awaitable[None]]) -> None:
    """Do it for each, *number* at a time."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(worker())


@asynccontextmanager
async def responder() -> AsyncIterator[str]:
    """Answers 200 to anything, for all servers that are played; its URL."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            text=f"played: {request.path}\n", headers={"X-JupyterHub-Version": __version__}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    (port,) = free_ports("127.0.0.1")
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
