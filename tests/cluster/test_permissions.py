"""A hub with the Zero to JupyterHub chart's Role alone does all that needs no more, and says what
it lacks; with examples/helm/rbac.yaml it lacks nothing."""

from __future__ import annotations

import pytest

from tests.cluster.audit import CLAIMS
from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import CHART_ROLE, LIBRARY_ROLE, Home

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

OLD = {
    "erin@school.edu": "claim-erin-40school-2eedu",
    "finn@school.edu": "claim-finn-40school-2eedu",
}
TWINS = ("twin@school.edu", "pair@school.edu")


async def _hub(space, hub_factory) -> Hub:
    """Two homes named by KubeSpawner 6, and two users with two homes each."""
    for user, name in OLD.items():
        await space.make_claim(name, user)
    for user in TWINS:
        await space.make_claim(f"claim-{user[:4]}-40school-2eedu", user)
        await space.make_claim(f"claim-{user[:4]}", user)
    hub: Hub = await hub_factory(space, Setup())
    await hub.start()
    return hub


async def test_with_the_charts_role_alone_homes_are_found_and_made_and_the_log_says_what_lacks(
    space_factory, hub_factory, audit
):
    space = await space_factory(CHART_ROLE)
    hub = await _hub(space, hub_factory)
    before = await space.uids()
    audit.mark()

    found = {user: await hub.start_lab(user) for user in OLD}
    new = await hub.start_lab("newcomer")
    refused = [(await hub.refusal(user)).status for user in TWINS]

    assert found == {user: Home(name, before[name]) for user, name in OLD.items()}
    assert await space.uids() == before | {new.name: new.uid}
    assert refused == [409, 409]
    assert await space.events("HomeRefused") == []
    for name in OLD.values():
        assert not any(key.startswith("jhub-safety/") for key in await space.marks(name))
    assert (await space.marks(new.name))["jhub-safety/user"] == "newcomer", "needs no PATCH"
    for lacking in ("patch", "create"):
        refusals = [call for call in audit.calls(user=space.hub_user) if call.status == 403]
        assert [call.verb for call in refusals].count(lacking) <= 2
    (patch,) = hub.log_lines("[W ", "Homes are found but not annotated", "examples/helm/rbac.yaml")
    assert "persistentvolumeclaims" in patch
    (create,) = hub.log_lines("[W ", "Refusals are in this log only", "events")
    assert "403" in create
    # And everybody's home is found again when the database is lost, still without a mark.
    await hub.lose_the_database()
    assert {user: (await hub.start_lab(user)).uid for user in ("newcomer", *OLD)} == {
        "newcomer": new.uid,
        **{user: home.uid for user, home in found.items()},
    }


async def test_with_our_role_as_well_homes_are_annotated_and_refusals_are_events(
    space_factory, hub_factory, audit
):
    space = await space_factory(CHART_ROLE, LIBRARY_ROLE)
    hub = await _hub(space, hub_factory)
    before = await space.uids()
    audit.mark()

    found = {user: await hub.start_lab(user) for user in OLD}
    for user in TWINS:
        await hub.refusal(user)

    assert found == {user: Home(name, before[name]) for user, name in OLD.items()}
    assert await space.uids() == before
    for user, name in OLD.items():
        marks = await space.marks(name)
        assert marks["jhub-safety/user"] == user
        assert marks["jhub-safety/hub"] == space.name
        assert marks["hub.jupyter.org/username"] == user, "KubeSpawner's own is left"
    events = await space.events("HomeRefused")
    assert {event.involved_object.name[:10] for event in events} == {"claim-twin", "claim-pair"}
    calls = audit.calls(user=space.hub_user)
    assert [str(call) for call in calls if call.status == 403] == []
    assert {call.verb for call in calls if call.resource == CLAIMS} == {"get", "list", "patch"}
    assert hub.log_lines("[W ", "rbac.yaml") == []
