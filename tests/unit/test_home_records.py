"""Homes and the hub's records of other servers: no new home hides that one was lost."""

from __future__ import annotations

import pytest
from jupyterhub import orm

from jhub_safety import owner as marks
from jhub_safety.errors import Doubt
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from jhub_safety.volumes.model import Row, Verdict
from jhub_safety.volumes.names import OWN_TEMPLATE
from tests.unit.cluster_double import holding
from tests.unit.given import ALICE, BOB, HUB, claim, ours, question
from tests.unit.resolver_double import Stage
from tests.unit.volume_hub import HOME, VolumeHub, install

ADA, CLEO = Owner(HUB, "ada"), Owner(HUB, "cleo")
#: One home for all servers of a user, by a name that does not change with what is lost.
SHARED = {
    "homes": "enforce",
    "extra_pvcs": [],
    "storage_pvc_ensure": True,
    "storage_capacity": "1Gi",
    "pvc_name_template": "home-{username}",
}
FORBIDDEN = Doubt("HTTP 403", status=403, retryable=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    db = orm.new_session_factory("sqlite:///:memory:")()
    made = install(monkeypatch, VolumeHub(tmp_path, db, settings=SHARED))
    # The listing is not empty: somebody has a home.
    made.cluster.put(ours(BOB))
    yield made
    db.close()
    db.get_bind().dispose()


async def refused(hub: VolumeHub, user: str, server: str = "") -> SpawnRefused:
    before = dict(hub.cluster.stored)
    with pytest.raises(SpawnRefused) as caught:
        await hub.start(user, server)
    hub.save()
    assert hub.cluster.stored == before
    return caught.value


async def test_a_lost_home_of_all_servers_is_refused_at_whichever_starts_next(hub):
    await hub.start("ada")
    hub.lose("home-ada")
    for server in ("two", ""):
        error = await refused(hub, "ada", server)
        assert error.code == "gone"
        assert "claims forget home-ada --user=ada" in error.story
    hub.give_up("home-ada", ADA, HOME)
    hub.later()
    await hub.start("ada", "two")
    assert "home-ada" in hub.cluster.stored
    await hub.start("ada")


async def test_a_home_of_each_server_says_nothing_of_the_others(hub):
    hub.settings = {**SHARED, "pvc_name_template": "home-{user_server}"}
    await hub.start("ada")
    hub.lose("home-ada")
    await hub.start("ada", "two")
    assert "home-ada--two" in hub.cluster.stored


async def test_a_home_that_is_there_is_shared_as_before(hub):
    await hub.start("ada")
    await hub.start("ada", "two")
    assert hub.cluster.stored.keys() == {BOB.claim_name, "home-ada"}


@pytest.mark.parametrize("template", ["home-{username}", OWN_TEMPLATE])
async def test_whoever_gets_a_former_name_makes_no_home_that_the_renamed_user_would_mount(
    hub, template
):
    """The renamed user's is lost and could not be annotated."""
    hub.settings = {**SHARED, "pvc_name_template": template}
    await hub.start("cleo")
    (name,) = hub.cluster.stored.keys() - {BOB.claim_name}
    hub.cluster.faults["annotate"] = [FORBIDDEN]
    with pytest.raises(Doubt):
        await hub.rename_user("cleo", "cleopatra")
    hub.lose(name)
    if template == OWN_TEMPLATE:
        await hub.start("cleo")
        (theirs,) = hub.cluster.stored.keys() - {BOB.claim_name}
        assert theirs != name
        assert hub.cluster.stored[theirs].annotations[marks.USER] == "cleo"
    else:
        # Such a name has no second.
        error = await refused(hub, "cleo")
        assert error.code == "taken"
        assert "the hub's record of cleopatra names it" in error.story
    before = hub.cluster.stored.keys()
    assert (await refused(hub, "cleopatra")).code == "gone"
    assert hub.cluster.stored.keys() == before


# -- the resolver


async def test_a_doubt_about_other_records_makes_no_home(tmp_path):
    here = Stage(holding(ours(BOB)), tmp_path, lost=Doubt("HTTP 503"))
    decision = await here.resolver.resolve(question())
    assert (decision.row, decision.verdict) == (Row.INCOMPLETE, Verdict.REFUSE)
    assert here.cluster.writes() == []


async def test_a_name_on_another_record_is_not_given_to_a_new_home(tmp_path):
    here = Stage(holding(ours(BOB)), tmp_path, recorded={ALICE.claim_name: "alice.smith"})
    asked = question()
    decision = await here.resolver.resolve(asked)
    assert (decision.row, decision.verdict) == (Row.NEW, Verdict.CREATE)
    assert decision.name == asked.spare_names[0]
    assert set(here.cluster.stored) == {BOB.claim_name, decision.name}


async def test_of_the_spare_names_one_is_taken_that_nobody_has_and_nobodys_record_names(tmp_path):
    asked = question()
    first, second, *_ = asked.spare_names
    recorded = {ALICE.claim_name: "x", second: "y"}
    here = Stage(holding(ours(BOB), claim(first)), tmp_path, recorded=recorded)
    decision = await here.resolver.resolve(asked)
    assert decision.name == asked.spare_names[2]


async def test_where_all_names_are_on_record_the_start_is_refused(tmp_path):
    asked = question()
    recorded = dict.fromkeys((ALICE.claim_name, *asked.spare_names), "alice.smith")
    here = Stage(holding(ours(BOB)), tmp_path, recorded=recorded)
    decision = await here.resolver.resolve(asked)
    assert (decision.row, decision.verdict) == (Row.TAKEN, Verdict.REFUSE)
    assert "alice.smith" in decision.why
    assert here.cluster.writes() == []
