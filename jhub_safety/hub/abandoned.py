"""A spawner that the hub forgot while it was busy with it: whatever that ends one day is nobody's.

JupyterHub's check of a server at hub start cannot be cancelled: ``init_spawners`` waits for all of
them at once (app.py:3186, 6.1.1), and would end with it. And it ends servers by their name: a check
that ended badly an hour after it was given up stopped the server that its user had started since.
"""

from __future__ import annotations

import asyncio
from functools import cache
from types import SimpleNamespace
from typing import Any

from jupyterhub import __version__, orm


class _Name(str):
    """As it was, in what is logged; no server is found by it."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


class _Nowhere:
    """In place of a session: there is none, and whoever waits for its lab need not."""

    url = ""

    def __bool__(self) -> bool:
        return False

    async def wait_up(self, **_: Any) -> Any:
        return SimpleNamespace(headers={"X-JupyterHub-Version": __version__})


class Abandoned:
    """What a check (app.py:3050), ``User._wait_up`` and ``User.stop`` still ask of a spawner."""

    @property
    def server(self) -> _Nowhere:
        return _Nowhere()

    @server.setter
    def server(self, _: object) -> None:
        pass

    @property
    def name(self) -> str:
        return _Name(super().name)  # type: ignore[misc]

    def start_polling(self) -> None:
        pass

    async def stop(self, now: bool = False) -> None:
        """Its lab's name may be the next one's by now."""


@cache
def _abandoned(cls: type) -> type:
    return type(f"Abandoned{cls.__name__}", (Abandoned, cls), {})


def abandon(spawner: Any) -> None:
    """Leave *spawner* nothing that another start of the same server has, too."""
    spawner.stop_polling()
    spawner._callbacks = []
    row = spawner.orm_spawner
    # In no database.
    spawner.orm_spawner = orm.Spawner(name=row.name, state=dict(row.state or {}))
    spawner.oauth_client_id = ""
    # What has failed is not taken out of the user's servers when its stop ends (user.py:1212).
    spawner._spawn_future = asyncio.get_running_loop().create_future()
    spawner._stop_future = None
    made: Any = type(spawner)
    spawner.__class__ = _abandoned(made)
