"""A person at a browser, without the browser: real logins, real cookies, real labs.

    async with await HubClient.login(hub.url, "ada", password) as ada:
        await ada.start_server()
        await ada.wait_ready()
        await ada.write_file("notes.txt", b"...")
        digest = await ada.file_sha256("notes.txt")

Every request goes the way a browser's goes: through the proxy, with the cookies that hub and lab
have set, with the _xsrf token that belongs to the path.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import uuid
from http.cookies import BaseCookie
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

READY_TIMEOUT = 120.0
KERNEL_TIMEOUT = 60.0
# The hub knows a lab is ready a moment before a freshly added route answers.
ROUTE_TIMEOUT = 20.0
POLL_SECONDS = 0.2
_NO_URL = URL()


class ClientError(Exception):
    """An answer that was not what the step needs.

    status: the HTTP status, 0 when there was none.
    body: text of the answer, at most its first 2,000 characters.
    """

    def __init__(self, what: str, status: int = 0, body: str = "") -> None:
        super().__init__(f"{what}: {status} {body}" if status else what)
        self.status = status
        self.body = body


class LabCodeError(Exception):
    """The code that ran in the lab raised; the message is its traceback."""


class _Jar(aiohttp.CookieJar):
    """Keeps cookies whose path is percent-encoded, as the hub sets them for users like "zoë".

    aiohttp compares a cookie's path as written with a request's path decoded: never equal. A path
    encoded twice decodes to what was written.
    """

    def filter_cookies(self, request_url: URL = _NO_URL) -> BaseCookie[str]:
        as_written = quote(request_url.raw_path, safe="/")
        return super().filter_cookies(request_url.with_path(as_written, encoded=True))


class HubClient:
    """One user's logged-in session; use it as an async context manager, or await close()."""

    def __init__(self, url: str, user: str) -> None:
        self.url = URL(url)
        self.user = user
        # "unsafe" only means that cookies of a host given by address are kept; unquoted, because
        # the hub compares signed values as they are.
        jar = _Jar(unsafe=True, quote_cookie=False)
        # A connection for each request. The proxy ends one that has been idle for 5 s, and a POST
        # sent in that moment fails; a browser sends it again by itself, aiohttp does not. Seen
        # where a hub was started again between two requests.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=jar,
            timeout=aiohttp.ClientTimeout(total=120),
        )
        self._entered: set[str] = set()

    @classmethod
    async def login(cls, url: str, user: str, password: str) -> HubClient:
        """Log in by the hub's form. Raises ClientError when hub or authenticator say no."""
        client = cls(url, user)
        try:
            await client._log_in(password)
        except BaseException:
            await client.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    # The hub

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the hub's REST API as this user, e.g. api("GET", "users/ada").

        Gives the decoded JSON, None for an empty answer. Raises ClientError from status 400 on.
        """
        return await self._json(method, self._at(f"hub/api/{path}"), body)

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the hub as the browser shows it, e.g. "hub/spawn"."""
        async with self._http.get(self._at(path), headers=_NAVIGATE) as answer:
            return answer.status, await answer.text()

    async def start_server(self, server: str = "", options: dict[str, Any] | None = None) -> None:
        """Ask for a start; returns as soon as the hub has taken the request."""
        await self.api("POST", self._server_path(server), options or {})

    async def stop_server(self, server: str = "", timeout: float = READY_TIMEOUT) -> None:
        """Stop it, and wait until the hub has seen it gone."""
        self._entered.discard(server)
        await self.api("DELETE", self._server_path(server))
        await self._until(timeout, f"stop of {self._name(server)}", self._gone, server)

    async def delete_server(self, server: str, timeout: float = READY_TIMEOUT) -> None:
        """Stop and delete a named server; the hub then calls the spawner's own deletion."""
        self._entered.discard(server)
        await self.api("DELETE", self._server_path(server), {"remove": True})
        await self._until(timeout, f"deletion of {self._name(server)}", self._gone, server)

    async def server(self, server: str = "") -> dict[str, Any] | None:
        """What the hub knows of a server: ready, pending, started, url; None without one."""
        model = await self.api("GET", f"users/{quote(self.user, safe='')}")
        found: dict[str, Any] | None = (model.get("servers") or {}).get(server)
        return found

    async def wait_ready(self, server: str = "", timeout: float = READY_TIMEOUT) -> dict[str, Any]:
        """Wait until the server is ready; gives its model.

        Raises ClientError as soon as the hub has given up on the start, with the message that the
        person sees on the spawn page as its `body`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            model = await self.server(server)
            if model is not None and model["ready"]:
                return model
            if model is None or not model.get("pending"):
                reason = await self.failure(server)
                raise ClientError(f"start of {self._name(server)} failed: {reason}", body=reason)
            if loop.time() > deadline:
                raise ClientError(f"{self._name(server)} not ready after {timeout:.0f} s: {model}")
            await asyncio.sleep(POLL_SECONDS)

    async def progress(self, server: str = "") -> list[dict[str, Any]]:
        """What the page of a start shows, to its end."""
        url = self._at(f"hub/api/{self._server_path(server)}/progress")
        async with self._http.get(url, headers=self._headers(url)) as answer:
            text = await answer.text()
        # An event stream: one "data: {...}" for each event, the last one says how it ended.
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        if not lines:
            raise ClientError(f"no progress of {self._name(server)}", answer.status, text[:500])
        return [json.loads(line) for line in lines]

    async def failure(self, server: str = "") -> str:
        """Why the last start failed, in the words of the spawn page; what the hub says else."""
        events = await self.progress(server)
        ended = next((event for event in reversed(events) if event.get("failed")), None)
        return str(ended["message"]) if ended else json.dumps(events)[:2000]

    # The lab

    def lab_url(self, server: str = "") -> URL:
        # JupyterHub leaves these two as they are, and cookies are bound to the path as written.
        path = f"user/{quote(self.user, safe='@~')}/"
        return self._at(f"{path}{quote(server, safe='@~')}/" if server else path)

    async def enter_lab(self, server: str = "") -> None:
        """Open the lab's page once: the OAuth round trip gives the cookies that its API needs."""
        if server in self._entered:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROUTE_TIMEOUT
        while True:
            async with self._http.get(self._lab(server, "lab"), headers=_NAVIGATE) as answer:
                text = await answer.text()
                inside = answer.url.path.startswith(self.lab_url(server).path)
                if answer.status == 200 and inside:
                    break
                status, reached = answer.status, answer.url.path
            if loop.time() > deadline:
                raise ClientError(f"no way into the lab, ended at {reached}", status, text[:2000])
            await asyncio.sleep(POLL_SECONDS)
        self._entered.add(server)

    async def write_file(self, path: str, content: bytes, server: str = "") -> None:
        """Save a file below the lab's root folder, by the contents API."""
        await self.enter_lab(server)
        body = {
            "type": "file",
            "format": "base64",
            "content": base64.b64encode(content).decode(),
        }
        await self._json("PUT", self._lab(server, f"api/contents/{quote(path)}"), body)

    async def read_file(self, path: str, server: str = "") -> bytes:
        """A file below the lab's root folder. Raises ClientError with status 404 without one."""
        await self.enter_lab(server)
        url = self._lab(server, f"api/contents/{quote(path)}")
        model = await self._json("GET", url.with_query(type="file", format="base64"))
        return base64.b64decode(model["content"])

    async def file_sha256(self, path: str, server: str = "") -> str | None:
        """Hex sha256 of a file as the lab gives it out; None when the lab has no such file."""
        try:
            return hashlib.sha256(await self.read_file(path, server)).hexdigest()
        except ClientError as error:
            if error.status == 404:
                return None
            raise

    async def lab_exec(self, code: str, server: str = "", timeout: float = KERNEL_TIMEOUT) -> str:
        """Run Python code in a fresh kernel of the lab; gives what it printed.

        Raises LabCodeError when the code raises, TimeoutError when it does not end in time.
        """
        kernel = await self.open_kernel(server)
        try:
            return await self.kernel_exec(kernel, code, server, timeout)
        finally:
            await self._json("DELETE", self._lab(server, f"api/kernels/{kernel}"))

    async def open_kernel(self, server: str = "") -> str:
        """Start a kernel in the lab; its id. It goes on until the lab ends."""
        await self.enter_lab(server)
        made = await self._json("POST", self._lab(server, "api/kernels"), {"name": "python3"})
        return str(made["id"])

    async def kernel_exec(
        self, kernel: str, code: str, server: str = "", timeout: float = KERNEL_TIMEOUT
    ) -> str:
        """Run Python code in a kernel that was opened before; gives what it printed."""
        await self.enter_lab(server)
        async with asyncio.timeout(timeout):
            return await self._run(self._lab(server, f"api/kernels/{kernel}/channels"), code)

    async def _run(self, url: URL, code: str) -> str:
        identifier = uuid.uuid4().hex
        message = {
            "header": {
                "msg_id": identifier,
                "msg_type": "execute_request",
                "username": self.user,
                "session": identifier,
                "version": "5.3",
            },
            "parent_header": {},
            "metadata": {},
            "content": {"code": code, "silent": False, "store_history": False},
            "channel": "shell",
        }
        printed: list[str] = []
        # A browser names where its page came from, and the lab refuses a websocket without it.
        origin = {"Origin": str(self.url.origin())}
        async with self._http.ws_connect(url, headers=origin, max_msg_size=0) as socket:
            await socket.send_json(message)
            async for frame in socket:
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    continue
                answer = frame.json()
                if answer["parent_header"].get("msg_id") != identifier:
                    continue
                content = answer["content"]
                match answer["msg_type"]:
                    case "stream":
                        printed.append(content["text"])
                    case "error":
                        raise LabCodeError("\n".join(content["traceback"]))
                    case "status" if content["execution_state"] == "idle":
                        return "".join(printed)
        raise ClientError("the lab closed the kernel's websocket before the code had ended")

    # Plumbing

    async def _log_in(self, password: str) -> None:
        login = self._at("hub/login")
        async with self._http.get(login, headers=_NAVIGATE) as answer:
            await _check(answer, "login page")
        form = {"username": self.user, "password": password, "_xsrf": self._xsrf(login)}
        # Straight to a plain page: the default one would start a lab.
        target = login.with_query(next="/hub/home")
        async with self._http.post(target, data=form, headers=_NAVIGATE) as answer:
            await _check(answer, f"login of {self.user}")
            if answer.url.path != "/hub/home":
                raise ClientError(f"login of {self.user} ended at {answer.url.path}", answer.status)
        # The hub goes on with a normalized name: lower case, or what a username map says.
        self.user = (await self.api("GET", "user"))["name"]

    async def _json(self, method: str, url: URL, body: Any = None) -> Any:
        async with self._http.request(method, url, json=body, headers=self._headers(url)) as answer:
            await _check(answer, f"{method} {url.path}")
            return await answer.json() if await answer.read() else None

    def _headers(self, url: URL) -> dict[str, str]:
        """What a page's own script sends along."""
        return {
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Site": "same-origin",
            "X-XSRFToken": self._xsrf(url),
        }

    def _xsrf(self, url: URL) -> str:
        """Hub and each lab set a cookie of that name, each for its own path."""
        found = self._http.cookie_jar.filter_cookies(url).get("_xsrf")
        return found.value if found else ""

    def _at(self, path: str) -> URL:
        """A path that is quoted already."""
        return URL(f"{str(self.url).rstrip('/')}/{path}", encoded=True)

    def _lab(self, server: str, path: str) -> URL:
        return URL(f"{self.lab_url(server)}{path}", encoded=True)

    def _server_path(self, server: str) -> str:
        user = quote(self.user, safe="")
        return (
            f"users/{user}/servers/{quote(server, safe='')}" if server else f"users/{user}/server"
        )

    def _name(self, server: str) -> str:
        return f"{self.user}/{server}" if server else self.user

    async def _gone(self, server: str) -> bool:
        model = await self.server(server)
        return model is None or (model.get("stopped", False) and not model.get("pending"))

    async def _until(self, timeout: float, what: str, condition: Any, *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not await condition(*arguments):
            if loop.time() > deadline:
                raise ClientError(f"{what} not done after {timeout:.0f} s")
            await asyncio.sleep(POLL_SECONDS)


# Set by browsers; the hub gives out _xsrf cookies on such requests only.
_NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}


async def _check(answer: aiohttp.ClientResponse, what: str) -> None:
    if answer.status >= 400:
        raise ClientError(what, answer.status, (await answer.text())[:2000])
