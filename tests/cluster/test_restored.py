"""A hub that holds serves after ``jhub-safety db restore`` inside it, with every lab as it was."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.cluster.test_guard import LONG, Site, holding, site

__all__ = ["holding", "site"]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_a_hub_that_holds_serves_after_a_restore_inside_it(holding: Site):
    site = holding
    home = await site.hub.start_lab("ada")
    assert (await site.db("backup")).status == 0
    kept = site.users()
    # As on any hub: what is known is of later than the snapshot.
    async with await site.hub.login("late"):
        pass
    before = await site.known(lambda one: one.users == len(kept) + 1)
    pods = await site.hub.space.pods()
    await site.hub.kill()
    site.hub.empty_the_database()

    starting, row = await site.start_and_hold()
    assert row == "zero-bytes"
    told = json.loads((await site.db("status", "--json")).out)
    assert told["next"].startswith("jhub-safety db restore newest (")
    said = await site.db("restore", "newest", "--yes", "--json")
    assert said.status == 0, said.err
    assert json.loads(said.out)["outcome"]["next"] == ""
    async with asyncio.timeout(LONG):
        await starting
    assert site.users().keys() == kept.keys()
    after = await site.known(lambda one: one.users == len(kept))
    assert after.identity == before.identity
    assert after.epoch > before.epoch
    assert (await site.db("status")).status == 0
    assert site.journal("hold-hub")[-2:] == [("zero-bytes", "done"), ("zero-bytes", "ended")]

    assert await site.hub.space.pods() == pods
    assert await site.hub.space.home_of("ada") == home
    await site.hub.stop_lab("ada")
