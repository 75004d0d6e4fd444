"""What a hub that holds answers: its health, and one page that says why nobody can log in.

It runs in a thread of its own, before the hub has a loop that could serve anything.
"""

from __future__ import annotations

import asyncio
import html
import re
import threading
from collections.abc import Callable

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

#: What is wrong now, as a row's name; and the command to run.
Told = Callable[[], tuple[str, str]]

#: Seconds after which a browser, or a proxy, may ask again.
RETRY = 10
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta http-equiv="refresh" content="{retry}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>JupyterHub is being looked after</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 10vh auto; padding: 0 1rem;
  color: #222; background: #fff; }}
code {{ background: #f2f2f2; padding: .15em .35em; border-radius: 3px; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #111; }}
  code {{ background: #222; }} }}
</style>
</head>
<body>
<h1>Nobody can log in just now</h1>
<p>The record of this JupyterHub's users needs a person to look at it. Your files are where they
were, and servers that run go on running. This page asks again by itself.</p>
<p>For the people who run this hub ({row}): see the hub's log, and run<br>
<code>{command}</code></p>
</body>
</html>
"""


class _Health(RequestHandler):  # type: ignore[misc]
    def initialize(self, told: Told) -> None:
        self._row, _ = told()

    def get(self) -> None:
        # A probe that fails would have the pod restarted, again and again.
        self.write({"hold": self._row})

    head = get


class _Rest(RequestHandler):  # type: ignore[misc]
    """Whatever else is asked, by whatever method."""

    def initialize(self, told: Told) -> None:
        self._row, self._command = told()

    def prepare(self) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY))
        self.set_header("Cache-Control", "no-store")
        if "/hub/api" in self.request.path:
            self.finish({"status": 503, "message": f"The hub holds: {self._row}."})
        else:
            row, command = html.escape(self._row), html.escape(self._command)
            self.finish(_PAGE.format(retry=RETRY, row=row, command=command))


class Hold:
    """An HTTP server on the hub's own address; *told* gives what is wrong, and what to run."""

    def __init__(self, address: tuple[str, int], base_url: str, told: Told) -> None:
        host, port = address
        # Here, not in the thread: an address that is taken is the caller's to know.
        self._sockets = bind_sockets(port, host or None)
        given = {"told": told}
        health = rf"(?:{re.escape(base_url.rstrip('/'))})?/hub/health"
        self._application = Application(
            [(health, _Health, given), (r".*", _Rest, given)],
            # The hub's log has a line about the hold, not one for each request.
            log_function=lambda _: None,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="jhub-safety-hold", daemon=True
        )
        self._thread.start()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = HTTPServer(self._application)
        server.add_sockets(self._sockets)
        await self._over.wait()
        server.stop()
        await server.close_all_connections()

    def close(self) -> None:
        """Free the address. Returns when that is so."""
        while self._loop is None:
            self._thread.join(0.01)
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
