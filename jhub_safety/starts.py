"""Starts and stops: a live lab is never killed for a new one, and a stop ends with its lab.

What is overridden of KubeSpawner 7.1, and what was seen without it:

- ``_make_create_pod_request``: answers 409 by killing the pod that is there (spawner.py:3021).
- ``stop``: when it fails, JupyterHub clears the session all the same (user.py:1140), and the lab
  runs on unreachable. It succeeds while a lab runs that its cache does not hold.
- ``start``, ``progress``: a start that hangs can be given up; a user is told how the former lab
  ended.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException

from jhub_safety import owner as marks
from jhub_safety.cluster.client import ask, expect
from jhub_safety.cluster.labs import Lab
from jhub_safety.errors import Doubt
from jhub_safety.labs import PAUSES, LabsMixin, words
from jhub_safety.owner import label_value
from jhub_safety.refused import SpawnRefused
from jhub_safety.sessions.records import ENDED

#: Seconds to wait for a lab that is being stopped before its name is given to a new one.
STOPPING = 90.0
#: Seconds that a stop which somebody gave up still has.
LAST_TRY = 20.0


class StartsMixin(LabsMixin):
    """What a start may take up, and when a stop is over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: This start took up a lab that was running already.
        self._relinked = False
        self._tell_ended = ""
        super().__init__(*args, **kwargs)

    # -- how the former one ended

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.ended:
            state[ENDED] = self.ended
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        ended = state.get(ENDED)
        self.ended = ended if isinstance(ended, str) else ""

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        if self._tell_ended:
            yield {
                "progress": 1,
                "message": f"Your former server is not there any more: {self._tell_ended}. "
                "Your files are where they were.",
            }
        async for event in super().progress():
            yield event

    # -- what is left of a stop

    def run_post_stop_hook(self) -> Any:
        if not self.leave_lab:
            self._lab_is_gone()
        return super().run_post_stop_hook()

    # -- giving up

    def start(self) -> asyncio.Future[Any]:
        self._relinked = self.leave_lab = False
        self.given_up.clear()
        self._tell_ended, self.ended = self.ended, ""
        self.absences.seen(f"{self.namespace}/{self.pod_name}")
        return asyncio.ensure_future(self._until_given_up(super().start()))

    async def _until_given_up(self, starting: asyncio.Future[Any]) -> Any:
        giving_up = asyncio.ensure_future(self.given_up.wait())
        try:
            await asyncio.wait((starting, giving_up), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
            raise self._ended_by_an_administrator()
        finally:
            giving_up.cancel()
            # Also when JupyterHub's start_timeout cancels this.
            starting.cancel()

    def _ended_by_an_administrator(self) -> SpawnRefused:
        return SpawnRefused(
            "given-up",
            f"The start of {self._log_name} was ended by an administrator. Nothing was lost. "
            f"What is there now: jhub-safety sessions list {shlex.quote(self.user.name)}",
            "This start was ended by an administrator. Nothing was lost; you can try again.",
            retryable=True,
        )

    # -- stopping

    async def stop(self, now: bool = False) -> None:
        """Return when the lab is gone. While the cluster does not answer the stop stays pending.

        One that is given up leaves the lab: its user's next start finds it.
        """
        if self.leave_lab:
            return
        if self.sessions != "enforce":
            await super().stop(now=now)
            return
        starting = self._spawn_future is not None and not self._spawn_future.done()
        if self._relinked and (starting or self._waiting_for_response):
            # It was running before this start, and it may hold unsaved work: that the start
            # fails, or it does not answer within http_timeout, is no reason to delete it.
            self.log.warning("Leaving lab %s, which ran before this start, as it is", self.pod_name)
            return
        stopping = asyncio.ensure_future(self._stop_for_certain(now))
        giving_up = asyncio.ensure_future(self.given_up.wait())
        try:
            await asyncio.wait((stopping, giving_up), return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await asyncio.wait((stopping,), timeout=LAST_TRY)
            if stopping.done():
                stopping.result()
            else:
                self.log.warning(
                    "The stop of lab %s of %s was given up; the lab is left as it is",
                    self.pod_name,
                    self._log_name,
                )
        finally:
            giving_up.cancel()
            stopping.cancel()

    async def _stop_for_certain(self, now: bool) -> None:
        pause = PAUSES[0]
        while True:
            why = "KubeSpawner saw it go, the cluster does not say so"
            try:
                await super().stop(now=now)
            except (Doubt, ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
                why = words(error)
            # Also of a stop that went well: KubeSpawner waits until its cache does not hold the
            # lab, and that of a reflector which is being replaced holds none before it has loaded.
            if await self._is_stopped():
                return
            self.log.warning(
                "Lab %s of %s is not stopped yet (%s); trying again",
                self.pod_name,
                self._log_name,
                why,
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def _is_stopped(self) -> bool:
        """True when a live read says 404."""
        try:
            return await self._labs_api().read(self.pod_name) is None
        except Doubt:
            return False

    # -- starting where one runs already

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        if self.sessions != "enforce":
            self._nothing_started = False
            created: bool = await super()._make_create_pod_request(pod, request_timeout)
            return created
        what = f"creating lab {pod.metadata.name} in namespace {self.namespace}"
        create = partial(
            self.api.create_namespaced_pod, self.namespace, pod, _preload_content=False
        )
        try:
            answer = await ask(create, what, timeout=request_timeout)
            if answer.status != 409:
                expect(answer, what, "Pod")
            elif not await self._take_up(pod.metadata.name):
                return False
        except Doubt as doubt:
            if not doubt.retryable:
                raise
            self.log.warning("%s; trying again", doubt)
            return False
        # Not before: a quota answers 403 even where a lab of that name runs, and what follows a
        # failure is a stop.
        self._nothing_started = False
        return True

    async def _take_up(self, name: str) -> bool:
        """There is a lab of that name. True: it is this user's, and goes on as this session.

        Raises:
            SpawnRefused: it is somebody else's, or it is still being stopped.
            Doubt: it could not be read.
        """
        lab = await self._labs_api().read(name)
        if lab is None:
            return False
        if not self._is_mine(lab):
            raise self._lab_refused(
                "lab-taken",
                f"the lab {name} that would be made belongs to {_owner_words(lab)}",
                "its name is in use by another server",
            )
        if lab.deleting:
            await self._wait_until_gone(lab)
            return False
        if lab.ended:
            # No grace=0: what else is in the pod may still be ending, such as a database. The API
            # server gives none to a pod that is over.
            await self._labs_api().delete(lab, grace=None)
            return False
        self.log.warning(
            "Lab %s of %s runs already; it goes on as this session", name, self._log_name
        )
        self._relinked = True
        if lab.api_token:
            # user.spawn registers the token of a server that brings its own (user.py:1011).
            self.api_token = lab.api_token
        return True

    def _is_mine(self, lab: Lab) -> bool:
        hub = lab.labels.get(marks.HUB_LABEL)
        return (
            lab.annotations.get(marks.KUBESPAWNER_USER) == self.user.name
            and lab.annotations.get(marks.KUBESPAWNER_SERVER, "") == (self.name or "")
            and hub in (None, label_value(self._safety_hub()))
        )

    async def _wait_until_gone(self, lab: Lab) -> None:
        try:
            async with asyncio.timeout(STOPPING):
                while True:
                    found = await self._labs_api().read(lab.name)
                    if found is None or found.uid != lab.uid:
                        return
                    await asyncio.sleep(1)
        except TimeoutError:
            raise self._lab_refused(
                "lab-stopping",
                f"the former lab {lab.name} (uid {lab.uid}) is still being stopped after "
                f"{STOPPING:.0f} s; two labs must not write to one home",
                "your former server is still being stopped. Try again in a moment",
            ) from None

    def _lab_refused(self, code: str, why: str, said: str) -> SpawnRefused:
        story = (
            f"Server of {self._log_name} not started: {why}. Nothing was created or deleted. "
            f"Run: kubectl -n {self.namespace} describe pod {self.pod_name}"
        )
        self.log.error("%s", story)
        self._nothing_started = True
        return SpawnRefused(
            code, story, f"Your server was not started: {said}. Nothing was lost.", retryable=True
        )


def _owner_words(lab: Lab) -> str:
    user = lab.annotations.get(marks.KUBESPAWNER_USER, "nobody")
    server = lab.annotations.get(marks.KUBESPAWNER_SERVER, "")
    hub = lab.labels.get(marks.HUB_LABEL)
    return (f"{user}/{server}" if server else user) + (f" of hub {hub}" if hub else "")
