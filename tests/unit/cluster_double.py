"""Claims in memory, in place of the API server's.

Written from what a real kube-apiserver (1.29 and later) answers, as the tests of
``tests/cluster`` and ``test_claims.py`` hold it: a name that is taken is a Conflict and nothing
is written; a PATCH with another uid or an older resourceVersion is a Conflict; each write gives
the object a new resourceVersion; a LIST shows everything or is Doubt. Objects read are copies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict
from tests.unit.given import NAMESPACE


def _changed(now: Any, by: Any) -> Any:
    merged = {**now, **by}
    return MappingProxyType({key: value for key, value in merged.items() if value is not None})


def _selected(claim: Claim, selector: str) -> bool:
    """For selectors of one form: ``key in (value,value)``."""
    if not selector:
        return True
    found = re.fullmatch(r"(\S+) in \(([^()]+)\)", selector)
    assert found, selector
    return claim.labels.get(found[1]) in found[2].split(",")


@dataclass
class ClusterDouble:
    """Implements what is used of ``ClaimsApi``; *calls* is the audit log."""

    namespace: str = NAMESPACE
    stored: dict[str, Claim] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    #: For each verb what is raised next: an exception, or None for a call that works.
    faults: dict[str, list[Exception | None]] = field(default_factory=dict)
    #: Called before each call with its verb and name: somebody else's doings.
    meanwhile: Callable[[str, str], None] = lambda verb, name: None
    #: What a LIST leaves out, as a broken proxy does.
    hidden: set[str] = field(default_factory=set)

    def put(self, *claims: Claim) -> ClusterDouble:
        self.stored |= {claim.name: claim for claim in claims}
        return self

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]

    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] not in ("read", "list")]

    def _called(self, verb: str, name: str = "") -> None:
        self.calls.append((verb, name))
        self.meanwhile(verb, name)
        faults = self.faults.get(verb, [])
        if faults and (fault := faults.pop(0)) is not None:
            raise fault

    async def read(self, name: str) -> Claim | None:
        self._called("read", name)
        return self.stored.get(name)

    async def list(self, selector: str = "") -> dict[str, Claim]:
        self._called("list", selector)
        return {
            name: claim
            for name, claim in self.stored.items()
            if name not in self.hidden and _selected(claim, selector)
        }

    async def create(self, manifest: Any) -> Claim:
        name = manifest.metadata.name
        self._called("create", name)
        if name in self.stored:
            raise Conflict(f'creating claim {name}: persistentvolumeclaims "{name}" already exists')
        spec = manifest.spec
        self.stored[name] = Claim(
            name,
            self.namespace,
            uid=f"created-{len(self.calls)}",
            resource_version="1",
            phase="Pending",
            capacity=spec.resources.requests["storage"] if spec else "",
            storage_class=spec.storage_class_name or "" if spec else "",
            access_modes=tuple(spec.access_modes) if spec else (),
            volume=spec.volume_name or "" if spec else "",
            volume_mode=spec.volume_mode or "Filesystem" if spec else "Filesystem",
            annotations=MappingProxyType(dict(manifest.metadata.annotations or {})),
            labels=MappingProxyType(dict(manifest.metadata.labels or {})),
        )
        return self.stored[name]

    async def annotate(self, claim: Claim, annotations: Any, labels: Any = None) -> Claim:
        self._called("annotate", claim.name)
        self._same(claim, "annotating")
        now = self.stored[claim.name]
        self.stored[claim.name] = replace(
            now,
            resource_version=str(int(now.resource_version) + 1),
            annotations=_changed(now.annotations, annotations),
            labels=_changed(now.labels, labels or {}),
        )
        return self.stored[claim.name]

    async def resize(self, claim: Claim, capacity: str) -> Claim:
        self._called("resize", claim.name)
        self._same(claim, "enlarging")
        now = self.stored[claim.name]
        self.stored[claim.name] = replace(
            now, resource_version=str(int(now.resource_version) + 1), capacity=capacity
        )
        return self.stored[claim.name]

    async def delete(self, claim: Claim, *, unchanged: bool = False) -> None:
        self._called("delete", claim.name)
        if unchanged and claim.name in self.stored:
            self._same(claim, "deleting")
        if claim.name in self.stored and self.stored[claim.name].uid != claim.uid:
            raise Conflict(f"deleting claim {claim.name}: the UID in the precondition differs")
        self.stored.pop(claim.name, None)

    def _same(self, claim: Claim, what: str) -> None:
        now = self.stored.get(claim.name)
        if now is None or (now.uid, now.resource_version) != (claim.uid, claim.resource_version):
            raise Conflict(f"{what} claim {claim.name}: the object has been modified")


def holding(*claims: Claim) -> ClusterDouble:
    return ClusterDouble().put(*claims)


def counts(cluster: ClusterDouble) -> dict[str, int]:
    """How often each verb was asked."""
    verbs = cluster.verbs()
    return {verb: verbs.count(verb) for verb in dict.fromkeys(verbs)}
