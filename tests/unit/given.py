"""Claims, owners and questions, written as briefly as a table wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner, label_value
from jhub_safety.volumes.model import Observation, Question
from jhub_safety.volumes.names import BUILT_IN, OWN, Generation, Place, spare_names

HUB = "hub"
NAMESPACE = "jupyter"
PLACE = Place(NAMESPACE, NAMESPACE)
ALICE = Owner(HUB, "alice")
GPU = Owner(HUB, "alice", "gpu")
BOB = Owner(HUB, "bob")

#: Names that have broken something somewhere.
AWKWARD = (
    ".",
    "-",
    "--",
    "@",
    "_",
    "%",
    "100%",
    " ",
    "a b",
    "Alice",
    "UPPER.CASE",
    "john.doe",
    "john-2edoe",
    "john-doe",
    "erin@school.edu",
    "1user",
    "-user",
    "user-",
    "a--b",
    "ß",
    "ü",
    "İstanbul",
    "李雷",
    "🦊",
    "\ud800",
    "tab\tname",
    "line\nbreak",
    "nul\0byte",
    "<b>'\"</b>",
    "x" * 40,
    "x" * 41,
    "x" * 63,
    "x" * 64,
    "x" * 255,
    "é" * 255,
    "a-" * 127,
    "x" * 1000,
)
#: Any text at all: every plane, control characters, halves of surrogate pairs.
any_text = st.one_of(
    st.text(min_size=1, max_size=40),
    st.text(st.characters(), min_size=1, max_size=40),
    st.sampled_from(AWKWARD),
)
users = any_text
servers = st.one_of(st.just(""), any_text)


def claim(
    name: str,
    annotations: Mapping[str, str] = MappingProxyType({}),
    labels: Mapping[str, str] = MappingProxyType({}),
    **fields: Any,
) -> Claim:
    """A bound claim as the API server would show it, with no owner unless one is given."""
    fields = {"uid": f"uid-of-{name}", "resource_version": "1", "volume": f"pv-{name}"} | fields
    return Claim(
        name,
        NAMESPACE,
        annotations=MappingProxyType(dict(annotations)),
        labels=MappingProxyType(dict(labels)),
        **fields,
    )


def ours(
    owner: Owner,
    name: str | None = None,
    *,
    supersedes: str | None = None,
    released: bool = False,
    **fields: Any,
) -> Claim:
    """A claim that this library has annotated for *owner*."""
    annotations = owner.annotations("jhub-safety")
    if supersedes is not None:
        annotations[marks.SUPERSEDES] = supersedes
    if released:
        annotations[marks.RELEASED] = "2024-05-01 by an operator"
    return claim(name or owner.claim_name, annotations, owner.labels(), **fields)


def kubespawner(
    name: str, user: str, server: str = "", labels: Mapping[str, str] | None = None, **fields: Any
) -> Claim:
    """A claim with the annotations that KubeSpawner writes (none for an empty server name)."""
    annotations = {marks.KUBESPAWNER_USER: user}
    if server:
        annotations[marks.KUBESPAWNER_SERVER] = server
    shown = {"component": "singleuser-storage"} | dict(labels or {})
    return claim(name, annotations, shown, **fields)


def hub_label(hub: str) -> dict[str, str]:
    return {marks.HUB_LABEL: label_value(hub)}


def question(
    owner: Owner = ALICE,
    *,
    saved: str | None = None,
    declared: Iterable[str] = (),
    configured: Generation | None = None,
    **fields: Any,
) -> Question:
    """What a spawn of *owner* asks on a hub that declared the generations named *declared*.

    *configured* is a template that the hub has set itself.
    """
    now = (OWN,) if configured is None else (OWN, configured)
    name = (configured or OWN).render(owner, place=PLACE)
    assert name is not None
    spares = spare_names(configured or OWN, owner, place=PLACE)
    fields = {"own_name": name, "spare_names": spares} | fields
    return Question(
        owner=owner,
        saved=saved,
        place=PLACE,
        known=(*now, *BUILT_IN.values()),
        declared=(*now, *(BUILT_IN[key] for key in declared)),
        **fields,
    )


def seen(*claims: Claim, complete: bool = True, absent: Iterable[str] = ()) -> Observation:
    """An observation of exactly these claims."""
    return Observation(
        MappingProxyType({found.name: found for found in claims}),
        complete=complete,
        absent=frozenset(absent),
    )
