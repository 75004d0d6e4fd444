"""Heavy work on databases is done in a process of its own: the hub's loop goes on.

A copy of tables in a thread held the loop for up to 100 ms at a time, in a niced process 8 ms.
Requests go to its standard input as one JSON object, so that passwords and keys are on no command
line; it answers with JSON lines: ``progress``, then ``result`` or ``error``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jhub_safety.errors import ConfigError, Conflict, Doubt, SafetyError
from jhub_safety.hubdb.packing import Damaged

#: Errors that keep their kind on the way back.
ERRORS: Mapping[str, type[SafetyError]] = {
    cls.__name__: cls for cls in (SafetyError, ConfigError, Conflict, Doubt, Damaged)
}
#: The longest answer, in bytes: the names of 100,000 users who would be lost.
_LONGEST = 64 << 20


async def run(
    request: Mapping[str, Any],
    *,
    progress: Callable[[str, int], None] = lambda *_: None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Have *request* done; returns its result. Cancelled, it is ended, with nothing half done.

    Raises:
        SafetyError: as the work raised it, of the same kind.
        Doubt: it ended without an answer, or took longer than *timeout* seconds.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not from the working directory: what lies there is not ours.
        "-P",
        "-m",
        "jhub_safety.hubdb",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST,
    )
    try:
        async with asyncio.timeout(timeout):
            return await _converse(process, request, progress)
    except TimeoutError as error:
        raise Doubt(f"work on the database took longer than {timeout:.0f} s, and was ended") from (
            error
        )
    finally:
        if process.returncode is None:
            # SIGTERM: it undoes what it began, and removes its temporary files.
            process.terminate()
            await process.wait()


async def _converse(
    process: asyncio.subprocess.Process,
    request: Mapping[str, Any],
    progress: Callable[[str, int], None],
) -> dict[str, Any]:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    answer: dict[str, Any] | None = None
    async for line in process.stdout:
        told = json.loads(line)
        if "progress" in told:
            progress(*told["progress"])
        else:
            answer = told
    code = await process.wait()
    if answer is None:
        raise Doubt(f"work on the database ended without an answer (exit code {code})")
    if "error" in answer:
        found = answer["error"]
        raise ERRORS.get(found["type"], SafetyError)(found["message"])
    return dict(answer["result"])
