"""Labs: the single-user pods, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Conflict, Doubt

#: KubeSpawner's name for the container that the user works in.
NOTEBOOK = "notebook"


@dataclass(frozen=True, slots=True)
class InitState:
    """How far an init container has come. The exit code is of its last run, None before that."""

    exit_code: int | None = None
    #: What it wrote into its termination message; the container's own words.
    message: str = ""
    #: Why it waits, as Kubernetes names it (ImagePullBackOff).
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """A pod as it was when it was read."""

    name: str
    namespace: str
    uid: str
    phase: str
    deleting: bool = False
    reason: str = ""
    #: Exit code of the notebook container when it has ended, else None.
    exit_code: int | None = None
    claims: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ip: str = ""
    #: Seconds that it asks for to end.
    grace: int = 0
    started: datetime | None = None
    inits: Mapping[str, InitState] = field(default_factory=lambda: MappingProxyType({}))
    #: Of the notebook container. Holds the lab's own token; never shown.
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def api_token(self) -> str:
        """The lab's own token; never shown."""
        return self.environment.get("JUPYTERHUB_API_TOKEN", "")

    @property
    def ended(self) -> bool:
        """True when it will not run again: its notebook ended, or it failed or was evicted."""
        return self.exit_code is not None or self.phase in ("Failed", "Succeeded")

    @property
    def alive(self) -> bool:
        """True when somebody may be working in it, now or in a moment.

        Unknown (its node is lost) counts: it may come back with all that is in its memory.
        """
        return not self.ended and not self.deleting

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Lab:
        """From the API's JSON.

        Raises:
            Doubt: a part that every pod has is missing.
        """
        try:
            meta, spec, status = item["metadata"], item["spec"], item["status"]
            volumes = spec.get("volumes") or []
            ended = _ended(status)
            return cls(
                name=meta["name"],
                namespace=meta["namespace"],
                uid=meta["uid"],
                phase=status["phase"],
                deleting="deletionTimestamp" in meta,
                reason=status.get("reason") or (ended or {}).get("reason") or "",
                exit_code=None if ended is None else int(ended["exitCode"]),
                claims=tuple(
                    volume["persistentVolumeClaim"]["claimName"]
                    for volume in volumes
                    if "persistentVolumeClaim" in volume
                ),
                annotations=MappingProxyType(dict(meta.get("annotations") or {})),
                labels=MappingProxyType(dict(meta.get("labels") or {})),
                environment=MappingProxyType(_environment(spec)),
                ip=status.get("podIP") or "",
                inits=MappingProxyType(_inits(status)),
                grace=int(spec.get("terminationGracePeriodSeconds") or 0),
                started=datetime.fromisoformat(status["startTime"])
                if status.get("startTime")
                else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Doubt(f"a lab in the API server's answer is not whole: {error!r}") from error


def _ended(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the notebook container ended; None while it has not."""
    for container in status.get("containerStatuses") or []:
        if container["name"] == NOTEBOOK:
            return container["state"].get("terminated") or None
    return None


def _inits(status: Mapping[str, Any]) -> dict[str, InitState]:
    found = {}
    for one in status.get("initContainerStatuses") or []:
        state, last = one.get("state") or {}, one.get("lastState") or {}
        # One that failed waits for its next run, or runs again: what it said is in lastState then.
        ended = state.get("terminated") or last.get("terminated") or {}
        found[one["name"]] = InitState(
            int(ended["exitCode"]) if "exitCode" in ended else None,
            ended.get("message") or "",
            (state.get("waiting") or {}).get("reason") or "",
        )
    return found


def _environment(spec: Mapping[str, Any]) -> dict[str, str]:
    """Values that are written out; those taken from Secrets are not among them."""
    for container in spec["containers"]:
        if container["name"] == NOTEBOOK:
            return {
                variable["name"]: variable["value"]
                for variable in container.get("env") or []
                if "value" in variable
            }
    return {}


class LabsApi:
    """The labs of one namespace. *timeout* is for one request; nothing is tried twice here."""

    def __init__(self, api: kube.CoreV1Api, namespace: str, *, timeout: float = 5.0) -> None:
        self._api = api
        self.namespace = namespace
        self._timeout = timeout

    async def read(self, name: str) -> Lab | None:
        """The lab, or None when the API server says 404 for this very pod.

        Raises:
            Doubt: any other answer.
        """
        what = f"reading lab {name} in namespace {self.namespace}"
        answer = await ask(
            partial(self._api.read_namespaced_pod, name, self.namespace, _preload_content=False),
            what,
            timeout=self._timeout,
        )
        if is_absent(answer, what, name):
            return None
        return Lab.parse(expect(answer, what, "Pod"))

    async def delete(self, lab: Lab, *, grace: int | None) -> None:
        """Delete exactly the lab that was read; its being gone already is success.

        *grace*: seconds between its being told to end and its being killed; None: as long as
        the lab itself asks for.

        Raises:
            Conflict: the name belongs to another lab now.
            Doubt: any other failure.
        """
        what = f"deleting lab {lab.name} in namespace {self.namespace}"
        body = kube.V1DeleteOptions(
            grace_period_seconds=grace, preconditions=kube.V1Preconditions(uid=lab.uid)
        )
        answer = await ask(
            partial(
                self._api.delete_namespaced_pod,
                lab.name,
                self.namespace,
                body=body,
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        if answer.status == 409:
            raise Conflict(f"{what}: {answer.message}")
        if not is_absent(answer, what, lab.name) and not 200 <= answer.status < 300:
            raise Doubt(f"{what}: HTTP {answer.status} {answer.message}", status=answer.status)
