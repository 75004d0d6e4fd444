"""The inventory of a cluster: KubeSpawner's labs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety import owner as marks
from jhub_safety.cluster import labtable
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.labs import Lab as Pod
from jhub_safety.cluster.labs import LabsApi
from jhub_safety.collector import resting
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import Lab, LabIdentity, LabState, Listing, Server, Session
from jhub_safety.sessions.place import Places
from jhub_safety.sessions.presence import Sighting, look

#: Labs whose metadata is read at the same time.
AT_ONCE = 16
#: Seconds for a lab that was told to end to be gone.
GOING = 90.0

#: What kubectl prints while a lab is on its way.
_PENDING = frozenset(
    {
        "Pending",
        "ContainerCreating",
        "PodInitializing",
        "SchedulingGated",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "ImageInspectError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
    }
)
#: "NotReady": some container has ended and another runs; whose it is, the spawner's poll tells.
_RUNNING = frozenset({"Running", "NotReady", "CrashLoopBackOff", "RunContainerError"})


def state_of(status: str) -> LabState:
    """The state behind kubectl's STATUS (printers.go of Kubernetes 1.34, ``printPod``).

    What is none of the known words names how a container or the pod ended: Completed, Error,
    OOMKilled, Evicted, Shutdown, Signal:9. It is a suspicion only; the lab is read before
    anything follows.
    """
    if status == "Terminating":
        return LabState.TERMINATING
    if status in ("Unknown", "NodeLost"):
        return LabState.LOST
    if status in _PENDING or status.startswith("Init:"):
        return LabState.PENDING
    if status in _RUNNING:
        return LabState.RUNNING
    return LabState.ENDED


def parse(row: labtable.Row, namespace: str) -> Lab:
    """Ready only when each of its containers is, as KubeSpawner sees it.

    STATUS is that of one container. Where another one is ready, it may be of a sidecar whose lab
    runs on (seen: 1/2 with OOMKilled, Error, Init:Error, Init:CrashLoopBackOff, Init:1/2), and a
    lab that "is pending" for an hour would be stopped.
    """
    ready, _, wanted = row.ready.partition("/")
    state = state_of(row.status)
    of_one = state is LabState.ENDED or row.status.startswith("Init:")
    if of_one and ready not in ("", "0"):
        state = LabState.RUNNING
    return Lab(
        name=row.name,
        state=state,
        words=row.status,
        ready=ready == wanted and wanted not in ("", "0"),
        namespace=namespace,
        ip=row.ip.replace("<none>", ""),
        node=row.node.replace("<none>", ""),
    )


class KubernetesInventory(Inventory):
    """Labs of one namespace, or of all with ``enable_user_namespaces``."""

    needs_sessions = False

    def __init__(
        self,
        api: kube.CoreV1Api,
        hub: str,
        namespace: str,
        *,
        component: str = "singleuser-server",
        everywhere: bool = False,
        absences: Absences | None = None,
        count: Callable[[], int] = lambda: 1,
        timeout: float = 30.0,
        **kwargs: Any,
    ) -> None:
        """*count*: how many sessions the hub has, for the cap of *absences*."""
        super().__init__(absences=absences, **kwargs)
        self._api = api
        self._hub = hub
        self._namespace = None if everywhere else namespace
        self._home = namespace
        self._selector = f"component={component}"
        self._count = count
        #: The hub gives its own here, which its polls ask as well; who asks alone asks anew.
        self.places = Places(keep=0.0)
        self._timeout = timeout
        #: By their rows of the latest listing.
        self._labs: dict[labtable.Row, tuple[Lab]] = {}
        #: By namespace and name. A lab that takes over a name is read again before it is touched.
        self._known: dict[tuple[str, str], tuple[Lab, LabIdentity]] = {}

    def lab_of(self, _user: str, _server: str, state: Mapping[str, Any]) -> tuple[str, str] | None:
        name, namespace = state.get("pod_name"), state.get("namespace")
        if not isinstance(name, str):
            return None
        return name, namespace if isinstance(namespace, str) else self._home

    async def take(self, _sessions: Collection[Session]) -> Listing:
        rows = await labtable.rows(
            self._api, self._namespace, self._selector, timeout=self._timeout
        )
        with resting():
            return self._listing(rows)

    def _listing(self, rows: tuple[labtable.Row, ...]) -> Listing:
        """2 ms for 10,000 labs of which most are known."""
        former, namespace = self._labs, self._namespace or ""
        # Most are as they were at the pass before.
        self._labs = {row: former.get(row) or (parse(row, namespace),) for row in rows}
        found: dict[str, tuple[Lab, ...]] = {row.name: labs for row, labs in self._labs.items()}
        if len(found) < len(rows):
            several: defaultdict[str, tuple[Lab, ...]] = defaultdict(tuple)
            for row in rows:
                several[row.name] += self._labs[row]
            found = dict(several)
        return Listing(MappingProxyType(found))

    async def look(self, session: Session) -> Sighting:
        return await look(
            session.lab,
            LabsApi(self._api, session.namespace, timeout=self._timeout),
            self._absences,
            place_is_proven=lambda: self._place_is_proven(session),
            sessions=self._count,
        )

    async def _place_is_proven(self, session: Session) -> bool:
        return await self.places.proven(
            self._api,
            self._hub,
            ClaimsApi(self._api, session.namespace, timeout=self._timeout),
            place=session.place,
            claim=session.claim,
            timeout=self._timeout,
        )

    async def identify(self, labs: Collection[Lab]) -> Mapping[tuple[str, str], LabIdentity]:
        seen = {lab.name: lab for lab in labs}
        # Read again when anything of it has changed: it may be another of that name.
        self._known = {key: one for key, one in self._known.items() if seen.get(key[1]) == one[0]}
        # A copy: while labs are asked for, a relink forgets the one that it takes up, and a survey
        # of that moment said of another lab that nobody knows whose it is (seen in a test).
        found = dict(self._known)
        unknown = seen.keys() - {name for _, name in found}
        limit = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str) -> None:
            async with limit:
                try:
                    items = await labtable.metadata(
                        self._api, self._namespace, name, timeout=self._timeout
                    )
                    identities = [_identity(item) for item in items]
                except (Doubt, AttributeError, KeyError, TypeError, ValueError) as error:
                    self.log.warning("Whose lab %s is, is not known: %s", name, error)
                    return
            for one in identities:
                found[one.namespace, name] = self._known[one.namespace, name] = seen[name], one

        await asyncio.gather(*map(ask, unknown))
        return {key: identity for key, (_, identity) in found.items()}

    async def read(self, namespace: str, name: str) -> Pod | None:
        """One lab whole, its environment included; for a relink.

        Raises:
            Doubt: it could not be read.
        """
        self._known.pop((namespace, name), None)
        return await LabsApi(self._api, namespace, timeout=self._timeout).read(name)

    def trust(self, session: Session) -> None:
        self._absences.take_word(f"{session.namespace}/{session.lab}")

    async def delete(self, identity: LabIdentity, name: str) -> None:
        labs = LabsApi(self._api, identity.namespace, timeout=self._timeout)
        lab = await labs.read(name)
        if lab is not None and lab.uid != identity.uid:
            self._known.pop((identity.namespace, name), None)
            raise Conflict(f"lab {name} is another one by now")
        if lab is None:
            return
        await labs.delete(lab, grace=None)
        try:
            async with asyncio.timeout(GOING):
                while lab is not None and lab.uid == identity.uid:
                    await asyncio.sleep(0.5)
                    lab = await labs.read(name)
        except TimeoutError:
            raise Conflict(
                f"lab {name} was told to end, and is still there after {GOING:.0f} s. "
                f"Run: kubectl -n {identity.namespace} describe pod {name}"
            ) from None


def _identity(metadata: Mapping[str, Any]) -> LabIdentity:
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    user = annotations.get(marks.KUBESPAWNER_USER)
    return LabIdentity(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        server=None
        if user is None
        else Server(user, annotations.get(marks.KUBESPAWNER_SERVER, "")),
        hub=labels.get(marks.HUB_LABEL),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
    )
