"""What is left over goes at an operator's word, and only that; killed half-way or not."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
import pytest_asyncio
import yaml

from jhub_safety import owner as marks
from jhub_safety.owner import Owner
from tests.cluster.audit import CLAIMS
from tests.cluster.hubs import UNHURRIED, Hub, Setup
from tests.cluster.shell import Shell
from tests.cluster.space import Home, Space

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

ENTRY = "data-{username}"
DECLARED = (
    UNHURRIED
    + f"""
c.SafeKubeSpawner.extra_pvcs = [{{"name": "{ENTRY}", "capacity": "1Gi", "mount_path": "/data"}}]
"""
)
#: So many that the command is still at it when it is killed, on a machine that stalls too.
MANY = 200
#: No such class: claims stay as they are made. One that is bound meanwhile is skipped as changed.
NEVER = "none"
MERGE = "application/merge-patch+json"


class Site(Shell):
    """The hub, its namespace, and an operator beside them."""

    @property
    def space(self) -> Space:
        return self.hub.space

    @property
    def server(self) -> str:
        (config,) = yaml.safe_load_all(self.hub.cluster.kubeconfig.read_text())
        return str(config["clusters"][0]["cluster"]["server"])

    @property
    def script(self) -> tuple[str, ...]:
        return ("--yes", f"--hub={self.space.name}", f"--cluster={self.server}")

    async def make(
        self, user: str, name: str, hub: str = "", component: str = "extra-pvc", **more: str
    ) -> str:
        """A claim as this library makes it for an owner. Its name."""
        owner = Owner(hub or self.space.name, user)
        volume = {marks.VOLUME: ENTRY} if component == "extra-pvc" else {}
        await self.space.create_claim(
            name,
            NEVER,
            {"component": component, **owner.labels()},
            {**owner.annotations("extra"), **volume, **more},
        )
        return name

    async def unlabelled(self, user: str, name: str) -> str:
        """As 2i2c's recipe makes it."""
        written = {marks.KUBESPAWNER_USER: user}
        await self.space.create_claim(name, NEVER, {"component": "extra-pvc"}, written)
        return name

    async def bystanders(self, user: str, tag: str) -> tuple[str, ...]:
        """One claim of each kind that no filter ever takes, whoever their owner is."""
        return (
            await self.make(user, f"{tag}-home", component="singleuser-storage"),
            await self.make(user, f"{tag}-other-hub", hub="other-hub"),
            await self.make(user, f"{tag}-protected", **{marks.PROTECT: "true"}),
            await self.unlabelled(user, f"{tag}-unlabelled"),
        )

    async def uids(self) -> dict[str, str]:
        return await self.space.uids()

    async def known_users(self, least: int) -> None:
        """Wait until the hub's guard has a fingerprint of so many users, in the cluster."""
        core, prefix = self.space._core, "jhub-safety-database-"
        async with asyncio.timeout(60):
            while True:
                found = await core.list_namespaced_secret(self.space.name)
                notes = [one.data for one in found.items if one.metadata.name.startswith(prefix)]
                if any(int(base64.b64decode(one["users"])) >= least for one in notes):
                    return
                assert self.hub.running(), self.hub.log_text()[-3000:]
                await asyncio.sleep(0.3)

    async def gone(self, *names: str) -> None:
        for name in names:
            await self.space.until_gone(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(space, hub_factory, tmp_path_factory) -> Site:
    hub: Hub = await hub_factory(space, Setup(extra=DECLARED))
    await hub.start()
    return Site(hub, tmp_path_factory.mktemp("operator"))


def without(uids: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: uid for name, uid in uids.items() if name not in names}


async def deleted_claims(audit: Any, site: Site) -> set[str]:
    calls = audit.calls(namespace=site.space.name, resource=CLAIMS, verbs=("delete",))
    return {call.name for call in calls}


async def test_the_list_knows_who_mounts_what_and_what_size_is_wanted(site: Site):
    await site.hub.start_lab("lovelace")
    told = {one["name"]: one for one in (await site.run("list", "--mounted-by", "--json")).json}
    human = await site.run("list", "--mounted", "--owner=lovelace", "--component=extra-pvc")
    data = told["data-lovelace"]
    assert (data["component"], data["user"], data["hub"]) == (
        "extra-pvc",
        "lovelace",
        site.space.name,
    )
    assert (data["wanted"], data["orphaned"], data["mounted_by"]) == (
        "1Gi",
        False,
        ["jupyter-lovelace"],
    )
    assert {one["name"]: one["uid"] for one in told.values()} == await site.uids()
    _, row = human.out.splitlines()
    assert row.split()[0] == "data-lovelace"
    assert row.endswith("jupyter-lovelace")
    await site.hub.stop_lab("lovelace")


async def test_a_claim_in_use_goes_when_its_lab_stops_and_is_made_anew_after_it_was_given_up(
    site: Site,
):
    home = await site.hub.start_lab("ada")
    pods, before = await site.space.pods(), await site.uids()

    asked = await site.run("delete", "data-ada", answer=f"{site.space.name}\n")

    assert asked.status == 0, asked.err
    assert "jupyter-ada (goes when that ends)" in asked.err
    assert "data-ada: goes when pod jupyter-ada ends" in asked.out
    assert await site.space.pods() == pods
    assert (await site.space.phases())["jupyter-ada"][1] == "Running"
    assert await site.uids() == before
    (row,) = (await site.run("list", "--phase=terminating", "--json")).json
    assert (row["name"], row["deleting"]) == ("data-ada", True)

    await site.hub.stop_lab("ada")
    await site.gone("data-ada")
    assert await site.uids() == without(before, "data-ada")

    mark = len(site.hub.log_text())
    assert (await site.hub.refusal("ada")).status == 409
    [line] = site.hub.log_lines("Run: jhub-safety claims forget data-ada", since=mark)
    forget = line.split("Run: jhub-safety claims ")[1].replace("'", "").split()
    given_up = await site.run(*forget, "--yes")
    assert given_up.status == 0, given_up.err
    assert await site.hub.start_lab("ada") == home
    after = await site.uids()
    assert without(after, "data-ada") == without(before, "data-ada")
    assert after["data-ada"] != before["data-ada"]
    await site.hub.stop_lab("ada")

    # That word was for the former one; it has the same name.
    again = await site.run("delete", "data-ada", answer=f"{site.space.name}\n")
    assert again.status == 0, again.err
    await site.gone("data-ada")
    mark = len(site.hub.log_text())
    assert (await site.hub.refusal("ada")).status == 409
    assert site.hub.log_lines("Run: jhub-safety claims forget data-ada", since=mark)
    assert await site.uids() == without(after, "data-ada")
    assert (await site.run(*forget, "--yes")).status == 0
    assert await site.hub.start_lab("ada") == home
    await site.hub.stop_lab("ada")


async def test_killed_half_way_it_is_finished_by_running_it_again(site: Site, audit):
    kept = await site.bystanders("gone-user", "kill")
    left_over = {await site.make("gone-user", f"left-{number:02}") for number in range(MANY)}
    before = await site.uids()
    command = ("delete", "--owner=gone-user", *site.script)

    process = await site.begin(*command)
    async with asyncio.timeout(60):
        while sum(line["name"] in left_over for line in site.journal()) < 10:
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.005)
    process.kill()
    await process.wait()

    begun = {line["name"] for line in site.journal() if line["name"] in left_over}
    done = {
        line["name"]
        for line in site.journal()
        if line["name"] in left_over and line["outcome"] == "done"
    }
    # The one that was begun last may have gone or not.
    await site.gone(*done)
    assert len(begun - done) <= 1
    assert 0 < len(done) < MANY
    half = await site.uids()
    assert {name: before[name] for name in half} == half
    assert done <= set(before) - set(half) <= begun

    again = await site.run(*command)

    assert again.status == 0, again.err
    await site.gone(*left_over)
    assert await site.uids() == without(before, *left_over)
    assert set(kept) <= set(await site.uids())
    assert await deleted_claims(audit, site) == left_over
    assert "There is nothing to delete." in (await site.run(*command)).err


async def test_a_protected_claim_and_one_of_another_hub_are_not_taken_by_name_either(
    site: Site, audit
):
    home, other, protected, unlabelled = await site.bystanders("carol", "named")
    before = await site.uids()

    asked = await site.run("delete", other, protected, unlabelled, *site.script)

    assert asked.status == 1
    assert f"refused {other}: it is of hub other-hub" in asked.said
    assert f"refused {protected}: its annotation jhub-safety/protect" in asked.said
    await site.gone(unlabelled)
    assert await site.uids() == without(before, unlabelled)
    assert await deleted_claims(audit, site) == {unlabelled}
    assert home in await site.uids()


@pytest.mark.parametrize("wrong", ["hub", "cluster"])
async def test_a_script_that_means_another_hub_or_cluster_deletes_nothing(site: Site, audit, wrong):
    name = await site.make("ada", f"wrong-{wrong}")
    before = await site.uids()
    yes, hub, cluster = site.script
    word = (yes, "--hub=other", cluster) if wrong == "hub" else (yes, hub, "--cluster=https://x")
    asked = await site.run("delete", name, *word)
    assert asked.status == 1
    assert "nothing was deleted" in asked.said
    assert await site.uids() == before
    assert await deleted_claims(audit, site) == set()


async def test_while_the_guard_knows_of_more_users_nobody_is_an_orphan(site: Site, audit):
    """The hub's database loses fifty users whom its guard knows; nothing else is wrong with it."""
    await site.hub.start_lab("lovelace")
    await site.hub.stop_lab("lovelace")
    orphan = await site.make("nobody", "orphan-in-doubt")
    await site.hub.stop()
    for number in range(50):
        site.hub.remember(f"student-{number}", {})
    await site.hub.start()
    await site.known_users(50)
    await site.hub.stop()
    whole = site.hub.database.read_bytes()
    with closing(sqlite3.connect(site.hub.database)) as database:
        database.execute("DELETE FROM users WHERE name LIKE 'student-%'")
        database.commit()
    before = await site.uids()

    command = ("delete", "--orphaned", "--owner=nobody", *site.script)
    refused = await site.run(*command)

    assert refused.status == 1
    assert "fewer-users" in refused.said
    assert "nothing was deleted" in refused.said
    assert "Next: put the former database back, or: jhub-safety db accept" in refused.said
    assert await site.uids() == before
    assert await deleted_claims(audit, site) == set()
    assert not [line for line in site.journal() if line["name"] == orphan]

    site.hub.database.write_bytes(whole)
    asked = await site.run(*command)
    assert asked.status == 0, asked.err
    await site.gone(orphan)
    assert await site.uids() == without(before, orphan)
    await site.hub.start()


async def test_orphans_are_deleted_by_a_database_that_was_there_all_the_time_only(
    site: Site, audit
):
    await site.hub.start_lab("erin")
    await site.hub.stop_lab("erin")
    kept = await site.bystanders("nobody", "orphan")
    orphan = await site.make("nobody", "orphan-data")
    before = await site.uids()

    asked = await site.run("delete", "--orphaned", *site.script)
    assert asked.status == 0, asked.err
    await site.gone(orphan)
    assert await site.uids() == without(before, orphan)
    assert set(kept) | {"data-erin"} <= set(await site.uids())

    await site.hub.lose_the_database()
    second = await site.make("nobody", "orphan-second")
    await site.hub.start_lab("erin")
    await site.hub.stop_lab("erin")
    refused = await site.run("delete", "--orphaned", *site.script)
    assert refused.status == 1
    assert "most claims are older than the hub's database" in refused.said
    assert second in await site.uids()
    assert await deleted_claims(audit, site) == {orphan}


async def test_with_retain_the_volume_outlives_its_claim(site: Site):
    await site.hub.start_lab("grace")
    await site.hub.stop_lab("grace")
    volume = (await site.space.claim("data-grace")).spec.volume_name
    before = await site.uids()

    asked = await site.run("delete", "data-grace", "--reclaim=retain", *site.script)

    assert asked.status == 0, asked.err
    await site.gone("data-grace")
    assert await site.uids() == without(before, "data-grace")
    core = site.space._core
    async with asyncio.timeout(60):
        while True:
            found = await core.read_persistent_volume(volume)
            if found.status.phase == "Released":
                break
            await asyncio.sleep(0.1)
    assert found.spec.persistent_volume_reclaim_policy == "Retain"
    (line,) = [
        one for one in site.journal() if (one["name"], one["outcome"]) == ("data-grace", "done")
    ]
    assert line["volume"] == volume
    # Let the cluster have it back.
    body = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    await core.patch_persistent_volume(volume, body, _content_type=MERGE)


async def test_claims_grow_by_filter_to_what_is_asked_for_and_never_shrink(site: Site):
    home = await site.hub.start_lab("hopper")
    await site.hub.stop_lab("hopper")
    before = await site.uids()

    async def sizes() -> dict[str, str]:
        found = [await site.space.claim(name) for name in (home.name, "data-hopper")]
        return {one.metadata.name: one.spec.resources.requests["storage"] for one in found}

    first = await sizes()
    grow = ("resize", "--owner=hopper", "--component=extra-pvc")
    for answer in ("n\n", "y\n", "other-hub\n"):
        declined = await site.run(*grow, "--to=2Gi", answer=answer)
        assert (declined.status, await sizes()) == (1, first)
    wrong = await site.run(*grow, "--to=2Gi", "--yes", "--hub=other", f"--cluster={site.server}")
    assert (wrong.status, await sizes()) == (1, first)
    assert "nothing was enlarged" in wrong.said

    grown = await site.run(*grow, "--to=2Gi", *site.script)
    assert (grown.status, grown.out) == (0, "1 of 1 done\n"), grown.err
    assert await sizes() == {**first, "data-hopper": "2Gi"}

    both = await site.run("resize", "--owner=hopper", "--to=2Gi", *site.script)
    assert (both.status, await sizes()) == (0, {**first, "data-hopper": "2Gi"})
    assert f"left out: 1 a home: only by its name ({home.name})" in both.said

    smaller = await site.run(*grow, *site.script)
    assert smaller.status == 1
    assert "a volume cannot shrink" in smaller.said
    huge = await site.run(*grow, "--to=100Gi", *site.script)
    assert "--over-limit" in huge.said
    assert await sizes() == {**first, "data-hopper": "2Gi"}
    assert await site.uids() == before
    assert await site.hub.start_lab("hopper") == Home(home.name, home.uid)
    await site.hub.stop_lab("hopper")
