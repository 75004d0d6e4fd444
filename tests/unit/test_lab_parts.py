"""What is read of a lab beyond whether it runs: for a relink, and to tell its user how it ended."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jhub_safety.cluster.labs import Lab
from jhub_safety.errors import Doubt
from jhub_safety.sessions.presence import ending
from tests.unit.test_presence import pod


def changed(**parts):
    """A running pod with other parts in its metadata, spec or status."""
    item = pod()
    for part, fields in parts.items():
        item[part] = item[part] | fields
    return item


def container(name: str = "notebook", **fields):
    return {"name": name} | fields


def test_address_start_and_environment_are_read():
    variables = [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}]
    lab = Lab.parse(
        changed(
            spec={
                "containers": [
                    container("sidecar", env=[{"name": "A", "value": "2"}]),
                    container(env=variables),
                ]
            },
            status={"podIP": "10.88.0.7", "startTime": "2026-11-21T12:00:00Z"},
        )
    )
    assert (lab.ip, lab.started) == ("10.88.0.7", datetime(2026, 11, 21, 12, tzinfo=UTC))
    assert dict(lab.environment) == {"A": "1", "EMPTY": ""}


def test_how_long_it_may_take_to_end_is_read():
    assert Lab.parse(changed(spec={"terminationGracePeriodSeconds": 60})).grace == 60
    assert Lab.parse(changed()).grace == 0


@pytest.mark.parametrize(
    "item",
    [
        changed(),
        changed(status={"podIP": None, "startTime": None}),
        changed(spec={"containers": []}),
        changed(spec={"containers": [container()]}),
        changed(spec={"containers": [container(env=None)]}),
        changed(
            spec={
                "containers": [
                    container("other", env=[{"name": "JUPYTERHUB_API_TOKEN", "value": "x"}])
                ]
            }
        ),
        changed(
            spec={
                "containers": [container(env=[{"name": "JUPYTERHUB_API_TOKEN", "valueFrom": {}}])]
            }
        ),
    ],
    ids=[
        "not scheduled",
        "null",
        "no containers",
        "no variables",
        "variables null",
        "another container's token",
        "a token from a Secret",
    ],
)
def test_what_a_pod_does_not_say_is_empty(item):
    lab = Lab.parse(item)
    assert (lab.ip, lab.started) == ("", None)
    assert lab.api_token == ("s3cr3t-token" if lab.environment else "")


@pytest.mark.parametrize(
    "item",
    [
        changed(status={"startTime": "yesterday"}),
        changed(status={"startTime": 7}),
        changed(status={"containerStatuses": [{"name": "notebook"}]}),
        changed(
            status={
                "containerStatuses": [
                    {"name": "notebook", "state": {"terminated": {"reason": "x"}}}
                ]
            }
        ),
        changed(spec={"containers": None}),
        changed(spec={"containers": [{}]}),
    ],
    ids=["start", "start a number", "no state", "no exit code", "null", "no name"],
)
def test_a_part_that_is_malformed_is_doubt(item):
    with pytest.raises(Doubt):
        Lab.parse(item)


def terminated(reason, code, pod_reason=None):
    state = {"terminated": {"reason": reason, "exitCode": code}}
    status = {"containerStatuses": [{"name": "notebook", "state": state}], "reason": pod_reason}
    return changed(status=status)


ENDINGS = {
    "out of memory": (
        terminated("OOMKilled", 137),
        "it used more memory than it may (OOMKilled, exit code 137)",
    ),
    "error": (terminated("Error", 1), "it ended (Error, exit code 1)"),
    "completed": (terminated("Completed", 0), "it ended (Completed)"),
    "evicted": (
        changed(status={"phase": "Failed", "reason": "Evicted", "containerStatuses": None}),
        "its node ran out of room (Evicted)",
    ),
    "evicted, and the container's end is known": (
        terminated("Error", 143, "Evicted"),
        "its node ran out of room (Evicted, exit code 143)",
    ),
    "shut down": (
        changed(status={"phase": "Failed", "reason": "NodeShutdown", "containerStatuses": []}),
        "its node was shut down (NodeShutdown)",
    ),
    "failed, nothing is said": (
        changed(status={"phase": "Failed", "containerStatuses": []}),
        "it ended (Failed)",
    ),
    "succeeded": (
        changed(status={"phase": "Succeeded", "containerStatuses": []}),
        "it ended (Succeeded)",
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_its_end_is_told_in_words_and_in_kubernetes_own(case):
    item, words = ENDINGS[case]
    lab = Lab.parse(item)
    assert lab.ended
    assert ending(lab) == words


def test_a_lab_that_is_not_there_any_more_was_deleted():
    assert ending(None) == "it was deleted"


def test_another_containers_end_is_not_the_labs():
    """kubectl shows its reason as the pod's STATUS; the notebook runs on."""
    statuses = [
        {"name": "postgres", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}},
        {"name": "notebook", "state": {"running": {}}},
    ]
    lab = Lab.parse(changed(status={"containerStatuses": statuses}))
    assert (lab.alive, lab.ended, lab.reason) == (True, False, "")


def test_a_container_that_waits_to_be_started_again_has_not_ended():
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    lab = Lab.parse(changed(status={"containerStatuses": [{"name": "notebook", "state": state}]}))
    assert lab.alive
