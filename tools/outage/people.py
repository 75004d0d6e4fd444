"""Who the users are, and what their homes are called: names as they were in 2017, and claims of
every generation since.

Everything follows from a number, so that two runs have the same people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from jhub_safety.owner import Owner
from jhub_safety.volumes.names import BUILT_IN, OWN

#: Names of one group differ in what some generation of names did not keep apart: in 2017 the first
#: three had claims that differed in the user's number alone.
NAMES = (
    "anna.lee{}",
    "anna-lee{}",
    "Anna.Lee{}",
    "anna{}",
    "anna.lee{}@school.edu",
)
#: Of the people: who comes after the newest snapshot.
LATE = 0.05
#: A volume that is not there: claims that ask for it stay Pending, and no pod mounts them. Of a
#: class that is not there, each of 1,000 had an event written about it every 15 s; no cluster
#: does that for homes that are bound.
NO_VOLUME = "not-there"


class Kind(StrEnum):
    """Who named a claim."""

    #: Says nothing of its owner; the hub's database alone knows.
    OF_2017 = "2017: name and number, no owner on it"
    KUBESPAWNER_6 = "KubeSpawner 6: escaped name, annotated"
    KUBESPAWNER_7 = "KubeSpawner 7: slug, annotated"
    OURS = "jhub-safety"


@dataclass(frozen=True)
class Person:
    """One user with one home.

    real: has a real lab and a real volume; the servers of the others are played.
    runs: that lab runs when the database is lost.
    late: comes after the newest snapshot, which does not know them.
    """

    number: int
    kind: Kind
    hub: str
    real: bool = False
    runs: bool = False
    late: bool = False

    @cached_property
    def name(self) -> str:
        return NAMES[self.number % len(NAMES)].format(self.number // len(NAMES))

    @cached_property
    def claim(self) -> str:
        """The name of their home."""
        owner = Owner(self.hub, self.name)
        match self.kind:
            case Kind.OURS:
                found = OWN.render(owner)
            case Kind.KUBESPAWNER_7:
                found = BUILT_IN["kubespawner-7"].render(owner)
            case Kind.KUBESPAWNER_6:
                found = BUILT_IN["kubespawner-6"].render(owner)
            case _:
                found = BUILT_IN["2017"].render(owner, userid=str(self.number + 1))
        if found is None:
            raise ValueError(f"no name for the claim of {self.name}")
        return found

    def manifest(self, storage_class: str) -> dict[str, Any]:
        """The claim as whoever named it made it."""
        labels = {"app": "jupyterhub", "component": "singleuser-storage", "heritage": "jupyterhub"}
        annotations: Mapping[str, str] = {}
        if self.kind is Kind.OURS:
            owner = Owner(self.hub, self.name)
            annotations, labels = owner.annotations("jhub-safety"), labels | owner.labels()
        elif self.kind is Kind.OF_2017:
            labels = {}
        else:
            annotations = {"hub.jupyter.org/username": self.name}
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        if not self.real:
            spec |= {"storageClassName": "", "volumeName": NO_VOLUME}
        elif storage_class:
            spec["storageClassName"] = storage_class
        return {
            "metadata": {"name": self.claim, "labels": labels, "annotations": dict(annotations)},
            "spec": spec,
        }

    def state(self, namespace: str) -> dict[str, str]:
        """What the hub's database knew of their server before this library was installed."""
        if self.kind is Kind.KUBESPAWNER_6:
            # Named no claim; from the name alone it was made anew at each start.
            return {"pod_name": f"jupyter-{self.claim.removeprefix('claim-')}"}
        return {
            "pvc_name": self.claim,
            "namespace": namespace,
            "kubespawner_version": "7.1.0",
        }


def people(users: int, labs: int, hub: str) -> list[Person]:
    """*users* of them, *labs* with a real lab, half of which run when the database is lost.

    Raises:
        ValueError: there are not five users for each lab.
    """
    groups = users // len(NAMES)
    if labs * len(NAMES) > users or labs < 2:
        raise ValueError(f"{labs} real labs need at least 2, and {len(NAMES)} users for each")
    # Odd, so that the groups with a lab are of every generation.
    apart = groups // labs
    apart -= apart % 2 == 0
    with_lab = {
        lab * apart * len(NAMES) + lab % len(NAMES): lab < (labs + 1) // 2 for lab in range(labs)
    }
    late = users - max(1, round(users * LATE))
    kinds = list(Kind)
    found = []
    for number in range(users):
        kind = kinds[(number // len(NAMES)) % len(kinds)]
        is_late = number >= late and number not in with_lab
        found.append(
            Person(
                number,
                Kind.OURS if is_late else kind,
                hub,
                real=number in with_lab,
                runs=with_lab.get(number, False),
                late=is_late,
            )
        )
    return found
