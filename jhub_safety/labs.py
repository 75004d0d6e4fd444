"""Labs, wired to a KubeSpawner: doubt never stops one. Starts and stops are in starts.py.

What is overridden of KubeSpawner 7.1, and what was seen without it:

- ``_start_reflector``: a reflector whose first load failed, or that gave up, stays in the class's
  dict for ever; each poll then says "stopped". And all who wait for one that loads wait for one
  future: whoever was cancelled (a spawn page that was closed) cancelled the others' starts as well.
- ``poll``: says 1 for a pod that its cache does not hold. One 503 or one empty 200 at hub start
  cleared every session (4 of 4).
- ``get_url``: the last call before JupyterHub gives a lab ``http_timeout`` to answer and then
  stops it (app.py:3107, 6.1.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import aiohttp
from jupyterhub.utils import make_ssl_context, url_path_join
from kubernetes_asyncio.client import ApiException

from jhub_safety import owner as marks
from jhub_safety.cluster.labs import Lab, LabsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.homes import HomesMixin
from jhub_safety.owner import label_value
from jhub_safety.reflection import is_dead, is_fresh, is_loaded, watched
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.place import Places
from jhub_safety.sessions.presence import Presence, Sighting, ending, look

#: Seconds between two tries while the cluster or a lab does not answer: at first, at most.
PAUSES = (1.0, 15.0)
#: Seconds for one try to reach a lab. One that accepts and hangs ignores JupyterHub's own limit.
HTTP_TRY = 5.0


class LabsMixin(HomesMixin):
    """What is believed of a lab, and when it is touched."""

    #: Shared by all sessions of this hub process.
    absences: ClassVar[Absences] = Absences()
    places: ClassVar[Places] = Places()
    #: How many sessions the hub has now; set by the hub package.
    count_sessions: ClassVar[Callable[[], int] | None] = None

    #: Set by the hub package: what JupyterHub would leave behind of a lab that is gone.
    on_gone: ClassVar[Callable[[Any], None] | None] = None

    #: The reflectors that are being loaded, each once however many wait for it.
    _loading: ClassVar[dict[Any, asyncio.Future[Any]]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: A start that has not asked for a lab yet, or was refused.
        self._nothing_started = False
        #: Somebody decided that whatever the hub is doing about this server is to end.
        self.given_up = asyncio.Event()
        #: The session ends, and what runs under the lab's name is not to be touched.
        self.leave_lab = False
        #: How the former lab ended; told at the next start.
        self.ended = ""
        super().__init__(*args, **kwargs)

    # -- the reflector

    async def _start_reflector(
        self, kind: str, reflector_class: type, replace: bool = False, **kwargs: Any
    ) -> Any:
        if self.sessions == "off":
            return await super()._start_reflector(kind, reflector_class, replace, **kwargs)
        key = self._get_reflector_key(kind)
        held = self.__class__.reflectors.get(key)
        if held is not None and not replace and is_loaded(held):
            # Without a pause: what the caller finds registered then is this one.
            return held
        loading = self._loading.get(key)
        # In a loop that was left behind (atexit cleans up in a new one) nothing ends any more.
        if loading is None or loading.get_loop() is not asyncio.get_running_loop():
            loading = asyncio.ensure_future(
                self._load_reflector(key, kind, reflector_class, replace, **kwargs)
            )
            self._loading[key] = loading
            loading.add_done_callback(partial(self._has_loaded, key))
        # It goes on when a caller is cancelled. Not by shield(): from Python 3.14 on that logs an
        # error which the others have been told.
        await asyncio.wait({loading})
        if loading.cancelled():
            raise Doubt(f"{key}: not loaded")
        return loading.result()

    async def _load_reflector(
        self, key: Any, kind: str, reflector_class: type, replace: bool, **kwargs: Any
    ) -> Any:
        reflectors = self.__class__.reflectors
        held = reflectors.get(key)
        if held is not None and is_dead(held):
            self.log.warning("The reflector of %s has ended; starting a new one", key)
            reflectors.pop(key, None)
        try:
            return await super()._start_reflector(
                kind, watched(reflector_class), replace=replace, **kwargs
            )
        except BaseException as error:
            failed = reflectors.get(key)
            if failed is not None and not is_loaded(failed):
                reflectors.pop(key)
                if held is not None and held is not failed:
                    # It watches on, or is noticed again. Seen: it watched on beside the next one,
                    # and starts that wait for their labs failed in between ("'NoneType' object has
                    # no attribute 'pods'").
                    reflectors[key] = held
            if isinstance(error, SystemExit):
                # What KubeSpawner does with user namespaces (spawner.py:2880, 7.1.0).
                raise Doubt(f"the reflector of {key} could not be started") from error
            raise

    @classmethod
    def _has_loaded(cls, key: Any, loading: asyncio.Future[Any]) -> None:
        if cls._loading.get(key) is loading:
            del cls._loading[key]
        _retrieve(loading)

    async def _fresh_pods(self) -> dict[str, Any] | None:
        """The reflector's pods, or None when it has nothing that may be believed."""
        # Waited for and never cancelled: the first load of 10,000 labs takes 8 s and more, and
        # would begin from nothing at each poll.
        watching = asyncio.ensure_future(self._watch_pods())
        watching.add_done_callback(_retrieve)
        await asyncio.wait({watching}, timeout=self.claim_request_timeout)
        if not watching.done() or watching.cancelled():
            return None
        if (error := watching.exception()) is not None:
            # Whatever it is, it is no answer about a lab.
            self.log.warning("Pods cannot be watched just now: %s", words(error))
            return None
        return watching.result().pods  # type: ignore[no-any-return]

    async def _watch_pods(self) -> Any:
        """The reflector of pods. What is registered a moment later may not have loaded yet."""
        reflector = await self._start_watching_pods()
        if not is_fresh(reflector):
            self.log.warning("The reflector of pods is frozen; starting a new one")
            reflector = await self._start_watching_pods(replace=True)
        return reflector

    def _build_pod_labels(self, extra_labels: dict[str, str]) -> dict[str, str]:
        """KubeSpawner's, and the hub's name: two hubs may share a namespace, and user names."""
        labels: dict[str, str] = super()._build_pod_labels(extra_labels)
        if "enforce" in (self.homes, self.sessions):
            labels[marks.HUB_LABEL] = label_value(self._safety_hub())
        return labels

    # -- is it there?

    def _labs_api(self) -> LabsApi:
        return LabsApi(self.api, self.namespace, timeout=self.claim_request_timeout)

    async def _sight(self) -> Sighting:
        """What the cluster says of this lab; never raises for a cluster that does not answer."""
        ref_key = f"{self.namespace}/{self.pod_name}"
        pods = await self._fresh_pods()
        if pods is not None and _is_alive(pods.get(ref_key)):
            self.absences.seen(ref_key)
            return Sighting(Presence.ALIVE)
        # Only a live read says that a lab has ended or gone; a cache may be of yesterday.
        return await look(
            self.pod_name,
            self._labs_api(),
            self.absences,
            place_is_proven=self._place_is_proven,
            sessions=type(self).count_sessions or (lambda: 1),
        )

    async def _place_is_proven(self) -> bool:
        """Whether namespace and cluster are where this session began. Raises Doubt."""
        return await self.places.proven(
            self.api,
            self._safety_hub(),
            self._claims_api(),
            place=self._saved_place,
            claim=self.pvc_name if self._pvc_exists else None,
            timeout=self.claim_request_timeout,
        )

    async def poll(self) -> int | None:
        """None while the lab runs or nobody can tell; a number only on the cluster's own word."""
        if self._nothing_started:
            # user.spawn stops what it could not start. This start made no lab; one that runs
            # under that name is none of the hub's sessions, and not its to delete.
            return 1
        if self.leave_lab and self.pending:
            # While it is being ended, that is: a check that was given up may end well all the same.
            return 1
        if self.sessions != "enforce":
            return await self._poll_observed()
        pause = PAUSES[0]
        while True:
            sighting = await self._sight()
            if sighting.presence is Presence.GONE:
                self.log.warning("Lab %s of %s is gone", self.pod_name, self._log_name)
                self.ended = self.ended or ending(None)
                self._lab_is_gone()
                return 1
            if sighting.presence is Presence.ENDED and sighting.lab is not None:
                return await self._clear_away(sighting.lab)
            if sighting.presence is Presence.ALIVE:
                await self._mend_url()
            # JupyterHub's check at start waits here: it would go on to stop a lab that does not
            # answer, and a server that is "being checked" loses nothing.
            if sighting.presence is not Presence.DOUBT or not self._check_pending:
                return None
            self.log.warning("%s stays as it is: %s", self._log_name, sighting.why)
            if await self._given_up_within(pause):
                return 1
            pause = min(2 * pause, PAUSES[1])

    async def _given_up_within(self, seconds: float) -> bool:
        """A pause of a check that ends at once when the check is given up.

        The check alone: the stop that it may go over into stays pending while the cluster does
        not answer, as any other.
        """
        try:
            await asyncio.wait_for(self.given_up.wait(), seconds)
        except TimeoutError:
            return False
        self.given_up.clear()
        return True

    def _lab_is_gone(self) -> None:
        """Before its session ends: a hub that is killed in between does it again."""
        if self.sessions != "enforce":
            return
        # By the class: a function that is a class attribute would get the spawner twice.
        if (told := type(self).on_gone) is not None:
            told(self)

    async def _poll_observed(self) -> int | None:
        status: int | None = await super().poll()
        if self.sessions == "observe" and status is not None:
            try:
                sighting = await self._sight()
                self.log.info(
                    "Session of %s (observe only): KubeSpawner says %s, the cluster says %s %s",
                    self._log_name,
                    status,
                    sighting.presence,
                    sighting.why,
                )
            except Exception as error:  # noqa: BLE001 - nothing observed may fail a poll
                self.log.warning("Session of %s could not be observed: %s", self._log_name, error)
        return status

    async def _mend_url(self) -> None:
        """KubeSpawner's own poll, which takes up a lab's new address; its verdict is not asked.

        Nor acted upon: that poll deletes the lab of that name where the reflector has a notebook
        that ended, also one that the kubelet has started again and that was just read alive.
        """
        # Between this look and that poll's own at the same pod nothing is waited for.
        reflector = self.pod_reflector
        if reflector is None or not is_fresh(reflector):
            return
        if not _is_alive(reflector.pods.get(f"{self.namespace}/{self.pod_name}")):
            return
        try:
            await super().poll()
        except Exception as error:  # noqa: BLE001 - only the address was wanted
            self.log.debug("Address of %s not checked: %s", self._log_name, error)

    async def _clear_away(self, lab: Lab) -> int:
        """Delete a lab that has ended, as KubeSpawner does, but exactly that one."""
        self.log.warning(
            "Lab %s of %s has ended: %s", lab.name, self._log_name, lab.reason or lab.phase
        )
        self.ended = self.ended or ending(lab)
        self._lab_is_gone()
        if self.delete_stopped_pods:
            try:
                # As in starts.py: a database beside it may still be ending.
                await self._labs_api().delete(lab, grace=None)
            except (Conflict, Doubt) as error:
                self.log.warning("%s. The next start clears it away.", error)
        return 1 if lab.exit_code is None else lab.exit_code

    # -- is it reachable?

    async def get_url(self) -> str:
        """At hub start: not before the lab answers, or is known to be gone."""
        url: str = await super().get_url()
        pause = PAUSES[0]
        while self.sessions == "enforce" and self._check_pending and not await self._answers(url):
            sighting = await self._sight()
            if sighting.presence in (Presence.GONE, Presence.ENDED):
                break
            self.log.warning(
                "%s stays as it is: its lab does not answer at %s yet", self._log_name, url
            )
            if await self._given_up_within(pause):
                # What follows is JupyterHub's own try to reach the lab.
                self.http_timeout = 1
                break
            if sighting.presence is Presence.ALIVE:
                # Of a start in the middle of which the hub was killed: the address on record is
                # what JupyterHub puts there before there is one (seen: held for ever).
                await self._mend_url()
            pause = min(2 * pause, PAUSES[1])
            url = await super().get_url()
        return url

    async def _answers(self, url: str) -> bool:
        context = None
        if self.internal_ssl:
            settings = self.user.settings
            context = make_ssl_context(
                settings.get("internal_ssl_key"),
                settings.get("internal_ssl_cert"),
                cafile=settings.get("internal_ssl_ca"),
            )
        limit = aiohttp.ClientTimeout(total=HTTP_TRY)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as client,
                client.get(
                    url_path_join(url, "api"), allow_redirects=False, ssl=context or True
                ) as answer,
            ):
                return answer.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


def _is_alive(pod: dict[str, Any] | None) -> bool:
    """Whether a reflector says so. That it does not proves nothing."""
    try:
        return pod is not None and Lab.parse(pod).alive
    except Doubt:
        return False


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Whoever waited was told, or has gone: asyncio need not log it."""
    if not task.cancelled():
        task.exception()


def words(error: BaseException) -> str:
    """An error without headers and bodies: kubernetes_asyncio prints both."""
    if isinstance(error, ApiException):
        return f"HTTP {error.status} {error.reason}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
