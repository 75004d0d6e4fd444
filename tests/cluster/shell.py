"""An operator's shell beside a hub: `jhub-safety ...` with an administrator's rights."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.cluster.hubs import Hub
from tests.cluster.space import ROOT

TIMEOUT = 180.0


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Standard error without its line breaks."""
        return " ".join(self.err.split())


@dataclass(frozen=True)
class Shell:
    """*directory* is where the journal is."""

    #: The commands are of this group.
    group: ClassVar[str] = "claims"

    hub: Hub
    directory: Path

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        """A command with the rights and options of an operator, not waited for."""
        command, *rest = arguments
        where = (
            f"--config={self.hub.config}",
            f"--namespace={self.hub.space.name}",
            f"--db-url=sqlite:///{self.hub.database}",
        )
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jhub_safety", self.group, command, *where, *rest),
            cwd=ROOT,
            env={
                **os.environ,
                **self.hub.environment,
                "KUBECONFIG": str(self.hub.cluster.kubeconfig),
                "XDG_STATE_HOME": str(self.directory),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, answer: str = "") -> Answer:
        process = await self.begin(*arguments)
        try:
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate(answer.encode())
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        # For what a failed test shows.
        print(f"$ jhub-safety {self.group} {' '.join(arguments)}\n{err.decode()}{out.decode()}")
        assert b"Traceback" not in err, err.decode()
        return Answer(process.returncode, out.decode(), err.decode())

    def journal(self) -> list[dict[str, Any]]:
        """Whole lines only: one may just be written."""
        file = self.directory / "jhub-safety" / "journal.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]
