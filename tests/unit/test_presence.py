"""What one look at a lab says: only positive answers of the API server count."""

from __future__ import annotations

from typing import Any

import pytest

from jhub_safety.cluster.labs import Lab
from jhub_safety.errors import Doubt
from jhub_safety.sessions.absence import APART, Absences
from jhub_safety.sessions.presence import Presence, classify, look


def pod(
    phase: str = "Running",
    *,
    deleting: bool = False,
    exit_code: int | None = None,
    statuses: bool = True,
    reason: str = "",
) -> dict[str, Any]:
    """A pod as the API server gives it, as far as a lab is read from it."""
    ended = {"terminated": {"exitCode": exit_code}}
    state = {"running": {}} if exit_code is None else ended
    metadata = {"name": "jupyter-alice", "namespace": "hub", "uid": "u1"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    status: dict[str, Any] = {"phase": phase, "reason": reason}
    if statuses:
        status["containerStatuses"] = [{"name": "notebook", "state": state}]
    token = {"name": "JUPYTERHUB_API_TOKEN", "value": "s3cr3t-token"}
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "notebook", "env": [token]}],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": {"claimName": "claim-alice"}},
                {"name": "memory", "emptyDir": {}},
            ],
        },
        "status": status,
    }


CASES = {
    "running": (pod(), Presence.ALIVE),
    "pending, nothing scheduled yet": (pod("Pending", statuses=False), Presence.ALIVE),
    "running, no container status yet": (pod(statuses=False), Presence.ALIVE),
    "node lost": (pod("Unknown"), Presence.ALIVE),
    "being deleted": (pod(deleting=True), Presence.TERMINATING),
    "ended and being deleted": (pod(exit_code=0, deleting=True), Presence.TERMINATING),
    "notebook ended well": (pod(exit_code=0), Presence.ENDED),
    "notebook killed": (pod(exit_code=137), Presence.ENDED),
    "failed": (pod("Failed", statuses=False), Presence.ENDED),
    "evicted": (pod("Failed", statuses=False, reason="Evicted"), Presence.ENDED),
    "completed": (pod("Succeeded", exit_code=0), Presence.ENDED),
}


@pytest.mark.parametrize("case", CASES)
def test_a_lab_is_what_the_api_server_says_of_it(case: str):
    item, expected = CASES[case]
    assert classify(Lab.parse(item)) is expected


def test_a_lab_knows_its_claims_and_token_and_shows_no_token():
    lab = Lab.parse(pod())
    assert lab.claims == ("claim-alice",)
    assert lab.api_token == "s3cr3t-token"
    assert "s3cr3t" not in repr(lab)


@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
def test_a_pod_that_is_not_whole_is_doubt(part: str):
    item = pod()
    del item[part]
    with pytest.raises(Doubt):
        Lab.parse(item)


class Labs:
    """Stands in for LabsApi: gives what it is told to, as the API server would."""

    namespace = "hub"

    def __init__(self, *answers: Lab | Doubt | None) -> None:
        self.answers = list(answers)

    async def read(self, name: str) -> Lab | None:
        answer = self.answers.pop(0)
        if isinstance(answer, Doubt):
            raise answer
        return answer


async def sight(answer: Lab | Doubt | None, absences: Absences, *, proven: bool | Doubt = True):
    async def place() -> bool:
        if isinstance(proven, Doubt):
            raise proven
        return proven

    return await look(
        "jupyter-alice", Labs(answer), absences, place_is_proven=place, sessions=lambda: 100
    )


async def test_an_error_is_doubt_and_not_a_sighting():
    now = [0.0]
    absences = Absences(lambda: now[0])
    for _ in range(5):
        found = await sight(Doubt("HTTP 503"), absences)
        assert (found.presence, found.why) == (Presence.DOUBT, "HTTP 503")
        now[0] += APART
    assert (await sight(None, absences)).presence is Presence.DOUBT


@pytest.mark.parametrize("proven", [False, Doubt("no answer")], ids=["not proven", "no answer"])
async def test_a_404_in_a_place_that_is_not_proven_is_never_a_sighting(proven: bool | Doubt):
    now = [0.0]
    absences = Absences(lambda: now[0])
    for _ in range(5):
        assert (await sight(None, absences, proven=proven)).presence is Presence.DOUBT
        now[0] += APART
    assert (await sight(None, absences)).presence is Presence.DOUBT


async def test_a_lab_is_gone_when_it_is_missing_twice_in_the_right_place():
    now = [0.0]
    absences = Absences(lambda: now[0])
    assert (await sight(None, absences)).presence is Presence.DOUBT
    now[0] += APART
    assert (await sight(None, absences)).presence is Presence.GONE


async def test_a_lab_that_comes_back_was_never_gone():
    now = [0.0]
    absences = Absences(lambda: now[0])
    await sight(None, absences)
    now[0] += APART
    assert (await sight(Lab.parse(pod()), absences)).presence is Presence.ALIVE
    assert (await sight(None, absences)).presence is Presence.DOUBT
