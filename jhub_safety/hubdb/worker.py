"""Heavy work on databases is done in a process of its own: the hub's loop goes on.

A copy of tables in a thread held the loop for up to 100 ms at a time, in a niced process 8 ms.
Requests go to its standard input as one JSON object, so that passwords and keys are on no command
line; it answers with JSON lines: ``progress``, then ``result`` or ``error``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jhub_safety.errors import ConfigError, Conflict, Doubt, SafetyError
from jhub_safety.hubdb.packing import Damaged, OtherKey
from jhub_safety.hubdb.stores import NoRoom

#: Errors that keep their kind on the way back.
ERRORS: Mapping[str, type[SafetyError]] = {
    cls.__name__: cls
    for cls in (SafetyError, ConfigError, Conflict, Doubt, Damaged, OtherKey, NoRoom)
}
#: Seconds for a process that is ended to undo what it began, before it is killed.
ENDING = 120.0
#: The longest answer, in bytes: the names of 100,000 users who would be lost.
_LONGEST = 64 << 20


async def run(
    request: Mapping[str, Any],
    *,
    progress: Callable[[str, int], None] = lambda *_: None,
    timeout: float | None = None,
    keeping: Collection[int] = (),
) -> dict[str, Any]:
    """Have *request* done; returns its result. Cancelled, it is ended, with nothing half done.

    *keeping*: descriptors that it inherits, such as that of a lock. When this process is killed,
    it goes on for a moment, and nobody else is to begin meanwhile.

    Raises:
        SafetyError: as the work raised it, of the same kind.
        Doubt: it ended without an answer, or took longer than *timeout* seconds.
    """
    try:
        asked = json.dumps(request).encode()
    except TypeError as error:
        # connect_args, or keys of them, that only this process can hold: an SSLContext.
        raise ConfigError(
            f"JupyterHub.db_kwargs cannot be given to the process that does the work ({error}). "
            "Name files of certificates in connect_args instead. Nothing was changed"
        ) from error
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not from the working directory: what lies there is not ours.
        "-P",
        "-m",
        "jhub_safety.hubdb",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST,
        pass_fds=tuple(keeping),
    )
    try:
        async with asyncio.timeout(timeout):
            return await _converse(process, asked, progress)
    except TimeoutError as error:
        raise Doubt(f"work on the database took longer than {timeout:.0f} s, and was ended") from (
            error
        )
    finally:
        if process.returncode is None:
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    # SIGTERM: it undoes what it began, and removes its temporary files.
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), ENDING)
    except TimeoutError:
        # In a driver's call that no signal reaches, such as one over a connection that is half
        # open: a server's transaction ends with its client.
        process.kill()
        await process.wait()


async def _converse(
    process: asyncio.subprocess.Process,
    asked: bytes,
    progress: Callable[[str, int], None],
) -> dict[str, Any]:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(asked)
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
