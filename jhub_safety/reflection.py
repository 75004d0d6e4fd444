"""KubeSpawner's reflector, made so that a dead or frozen one is noticed and replaced."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

#: Seconds after which a reflector that has loaded nothing counts as frozen. A healthy one lists
#: again after some 40 s at the latest (restart_seconds and timeout_seconds, reflector.py:131).
FROZEN = 120.0


@cache
def watched(reflector_class: type) -> type:
    """*reflector_class*, remembering when it last loaded everything."""

    class Watched(reflector_class):  # type: ignore[misc, valid-type]
        loaded_at: float = float("-inf")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # With user namespaces it is sys.exit (kubespawner/spawner.py:2867, 7.1.0): the hub
            # would end because the API server did.
            kwargs["on_failure"] = None
            super().__init__(*args, **kwargs)

        async def _list_and_update(self, resource_version: str | None = None) -> Any:
            version = await super()._list_and_update(resource_version)
            self.loaded_at = time.monotonic()
            return version

    Watched.__name__ = reflector_class.__name__
    return Watched


def is_dead(reflector: Any) -> bool:
    """True when it will never load anything again (reflector.py:379 and :417, 7.1.0)."""
    first = reflector.first_load_future
    if first.done() and (first.cancelled() or first.exception() is not None):
        return True
    task = reflector.watch_task
    return first.done() and (task is None or task.done())


def is_loaded(reflector: Any) -> bool:
    """True when it has loaded everything once and goes on watching."""
    return reflector.first_load_future.done() and not is_dead(reflector)


def is_fresh(reflector: Any) -> bool:
    """True when what it holds is at most FROZEN seconds old."""
    loaded_at = getattr(reflector, "loaded_at", float("-inf"))
    return not is_dead(reflector) and time.monotonic() - loaded_at <= FROZEN
