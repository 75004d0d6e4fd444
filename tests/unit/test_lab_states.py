"""What kubectl's STATUS column says of a lab, and what a row makes of it.

The words are those of ``printPod`` (pkg/printers/internalversion/printers.go, Kubernetes 1.34) and
of the kubelet's waiting reasons (pkg/kubelet/images/types.go and kuberuntime_container.go).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.cluster.labtable import Row
from jhub_safety.sessions.decide import decide
from jhub_safety.sessions.kubernetes import parse, state_of
from jhub_safety.sessions.model import Lab, LabState, Rules, Verdict
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_given import IP, lab_name, observed, session

STATES = {
    LabState.PENDING: (
        # status.phase, and the scheduler's gate
        "Pending",
        "SchedulingGated",
        # Containers that wait
        "ContainerCreating",
        "PodInitializing",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "ImageInspectError",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        # Init containers
        "Init:0/1",
        "Init:1/2",
        "Init:Error",
        "Init:CrashLoopBackOff",
        "Init:ImagePullBackOff",
        "Init:ErrImagePull",
        "Init:OOMKilled",
        "Init:Signal:9",
        "Init:ExitCode:1",
    ),
    # A container that is started again keeps its claims, and may serve a moment later.
    # NotReady: some container has completed, and another one runs.
    LabState.RUNNING: ("Running", "NotReady", "CrashLoopBackOff", "RunContainerError"),
    # With and without deletionTimestamp.
    LabState.LOST: ("Unknown", "NodeLost"),
    LabState.TERMINATING: ("Terminating",),
    LabState.ENDED: (
        # status.phase
        "Succeeded",
        "Failed",
        # A container's end
        "Completed",
        "Error",
        "OOMKilled",
        "ContainerCannotRun",
        "StartError",
        "ContainerStatusUnknown",
        "DeadlineExceeded",
        "Signal:9",
        "Signal:15",
        "ExitCode:0",
        "ExitCode:1",
        # status.reason of a pod that failed
        "Evicted",
        "Preempting",
        "NodeShutdown",
        "Shutdown",
        "Terminated",
        "NodeAffinity",
        "OutOfcpu",
        "OutOfmemory",
        "UnexpectedAdmissionError",
    ),
}


@pytest.mark.parametrize(
    ("status", "state"), [(status, state) for state, words in STATES.items() for status in words]
)
def test_each_word_of_kubectl_has_its_state(status: str, state: LabState):
    assert state_of(status) is state


def test_every_state_has_a_word():
    assert set(STATES) == set(LabState)


@given(st.text(max_size=30))
def test_a_word_that_is_not_known_is_a_suspicion_only(status: str):
    """It raises nothing and never counts as running; what follows reads the lab first."""
    assert state_of(status) in LabState


def row(ready: str = "1/1", status: str = "Running", ip: str = IP, node: str = "node-1") -> Row:
    return Row("jupyter-ada", ready, status, ip, node)


def test_a_row_is_a_lab():
    assert parse(row(), NAMESPACE) == Lab(
        "jupyter-ada", LabState.RUNNING, "Running", True, NAMESPACE, IP, "node-1"
    )


def test_a_lab_that_has_no_node_yet_has_neither_address_nor_node():
    found = parse(row("0/1", "Pending", "<none>", "<none>"), NAMESPACE)
    assert (found.ip, found.node) == ("", "")


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("1/1", True),
        ("2/2", True),
        ("10/10", True),
        ("0/1", False),
        ("1/2", False),
        ("0/0", False),
        ("", False),
        ("1", False),
        ("/", False),
        ("<none>", False),
    ],
)
def test_a_lab_is_ready_only_when_each_of_its_containers_is(text: str, ready: bool):
    assert parse(row(text), NAMESPACE).ready is ready


@pytest.mark.parametrize(
    ("ready", "status", "verdict"),
    [
        ("1/1", "Running", Verdict.IN_STEP),
        ("1/2", "Running", Verdict.UNREACHABLE),
        ("1/2", "NotReady", Verdict.UNREACHABLE),
        ("0/1", "CrashLoopBackOff", Verdict.UNREACHABLE),
        ("0/1", "ImagePullBackOff", Verdict.BUSY),
        ("0/1", "Unknown", Verdict.NODE_LOST),
        ("0/1", "NodeLost", Verdict.NODE_LOST),
        ("1/1", "Terminating", Verdict.TERMINATING),
        ("0/1", "Evicted", Verdict.ENDED),
    ],
)
def test_a_session_is_judged_by_what_kubectl_prints(ready, status, verdict):
    seen = observed(parse(row(ready, status), NAMESPACE), sessions=(session(),))
    assert lab_name(session().server) == "jupyter-ada"
    assert decide(seen, Rules(), HUB).counts == {verdict: 1}
