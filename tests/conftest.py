"""Starts the real parts: the Kubernetes named `test`, namespaces in it, hubs on top of them.

A test on the cluster asks for `space` (a fresh namespace) and `hub_factory`; both live as long as
its module, so that tests which do not weaken one another share a hub.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from jhub_safety.hubdb.stores import SnapshotStore
    from tests.cluster.audit import AuditLog
    from tests.cluster.hubs import Hub, Setup
    from tests.cluster.space import Space
    from tools.cluster import ClusterInfo

    SpaceFactory = Callable[..., Awaitable[Space]]
    HubFactory = Callable[[Space, Setup], Awaitable[Hub]]

CLUSTER = "test"
REQUIRE = "JHUB_SAFETY_REQUIRE_CLUSTER"
#: Set by `make test` when it could not bring the cluster up, so that nobody tries again.
NONE = "JHUB_SAFETY_NO_CLUSTER"


#: The hubs of the module that runs now, for what a failure shows.
_hubs: list[Hub] = []
LOG_LINES = 60


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """A failure shows what its hubs said last."""
    report = yield
    if report.failed:
        for hub in _hubs:
            last = "\n".join(hub.log_text().splitlines()[-LOG_LINES:])
            report.sections.append((f"the hub's log, {hub.log}", last))
    return report


def _cannot(reason: str) -> None:
    """Skip with the reason; on the machines that must run everything it is a failure."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"no cluster for the tests, and {REQUIRE}=1: {reason}", pytrace=False)
    pytest.skip(f"no cluster for the tests: {reason}")


@pytest.fixture(scope="session")
def cluster() -> ClusterInfo:
    """The running Kubernetes of the tests; brought up when it is not."""
    from tools.cluster import ClusterError, ensure_up, load

    found = load(CLUSTER)
    if found is None:
        if reason := os.environ.get(NONE):
            _cannot(reason)
        try:
            found = ensure_up(CLUSTER, os.environ.get("CLUSTER") or "auto")
        except ClusterError as error:
            _cannot(str(error).splitlines()[0])
            raise
    if found.namespace is not None:
        _cannot(f"{found.kind} allows the namespace {found.namespace} only, and these make theirs")
    return found


@pytest.fixture(scope="session")
def database_images(cluster: ClusterInfo) -> Callable[..., None]:
    """Sees to it that pods find the images of these database servers, "postgres:15"."""
    from tools.cluster import ClusterError, ensure_images

    def ensure(*tags: str) -> None:
        try:
            ensure_images(CLUSTER, tags)
        except ClusterError as error:
            _cannot(str(error).splitlines()[0])

    return ensure


@pytest.fixture(scope="session")
def hub_ip(cluster: ClusterInfo) -> str:
    """The address of this machine on which labs reach a hub."""
    chosen = os.environ.get("JHUB_SAFETY_HOST_IP") or cluster.host_ip
    if not chosen:
        _cannot("it is not known how pods reach this machine; set JHUB_SAFETY_HOST_IP")
    return str(chosen)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def space_factory(cluster: ClusterInfo) -> AsyncIterator[SpaceFactory]:
    """Makes namespaces in which the service account `hub` has the given Roles."""
    from kubernetes_asyncio.client import ApiException

    from tests.cluster.space import CHART_ROLE, LIBRARY_ROLE, Space

    made: list[Space] = []

    async def make(*roles: Path) -> Space:
        space = Space(cluster.kubeconfig, f"test-{secrets.token_hex(4)}")
        await space.__aenter__()
        made.append(space)
        await space.prepare(*(roles or (CHART_ROLE, LIBRARY_ROLE)))
        return space

    try:
        yield make
    finally:
        for space in made:
            try:
                await space.delete()
            except ApiException as error:
                # Gone, or going: a test has deleted it. The others still have to go.
                if error.status not in (404, 409):
                    raise
            finally:
                await space.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def space(space_factory: SpaceFactory) -> Space:
    """A fresh namespace; the hub has the chart's Role and ours."""
    return await space_factory()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub_factory(
    cluster: ClusterInfo, hub_ip: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HubFactory]:
    """Makes hubs, not started yet; ends them all. They run on this very interpreter."""
    from tests.cluster.hubs import Hub

    async def make(space: Space, setup: Setup) -> Hub:
        hub = Hub(cluster, space, tmp_path_factory.mktemp("hub"), hub_ip, sys.executable)
        _hubs.append(hub)
        await hub.set_up(setup)
        return hub

    try:
        yield make
    finally:
        while _hubs:
            _hubs.pop().close()


@pytest.fixture
def audit(cluster: ClusterInfo) -> AuditLog:
    """The API server's audit log, from the start of the test on."""
    from tests.cluster.audit import AuditLog

    if cluster.audit_log is None:
        _cannot(f"{cluster.kind} has no audit log that can be read here")
    assert cluster.audit_log is not None
    return AuditLog(cluster.audit_log)


@pytest.fixture
def put(store: SnapshotStore, tmp_path: Path) -> Callable[[str, bytes], None]:
    """Into a place for snapshots, which the module's own ``store`` is."""

    def run(name: str, data: bytes) -> None:
        (tmp_path / "in").write_bytes(data)
        store.put(name, tmp_path / "in")

    return run


@pytest.fixture
def get(store: SnapshotStore, tmp_path: Path) -> Callable[[str], bytes]:
    """Out of the module's own ``store``, into a file that nobody else may read."""

    def run(name: str) -> bytes:
        store.get(name, tmp_path / "out")
        assert (tmp_path / "out").stat().st_mode & 0o077 == 0
        return (tmp_path / "out").read_bytes()

    return run
