"""One listing for all who need one: bounded, never a failure's, never older than asked for."""

from __future__ import annotations

import asyncio
import gc

import pytest

from jhub_safety.errors import Doubt
from jhub_safety.volumes.listing import SharedListing
from tests.unit.given import ALICE, BOB, claim, ours, question


class Fetch:
    """A LIST that is counted, can be held up and can fail."""

    def __init__(self) -> None:
        self.count = 0
        self.begun: list[float] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.claims = {"claim-alice": ours(ALICE, "claim-alice")}
        self.now = 100.0
        self.takes = 0.0

    def clock(self) -> float:
        return self.now

    async def __call__(self):
        self.count += 1
        self.begun.append(self.now)
        await self.gate.wait()
        self.now += self.takes
        if self.failures:
            raise self.failures.pop(0)
        return dict(self.claims)


@pytest.fixture
async def fetch():
    return Fetch()


@pytest.fixture
async def listing(fetch):
    return SharedListing(fetch, max_age=5.0, clock=fetch.clock)


def names(index) -> set[str]:
    return set(index.about(question(ALICE)))


async def until(done) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)


async def waiting(fetch, *callers):
    """They all wait for the listing that has begun."""
    tasks = [asyncio.create_task(one) for one in callers]
    await until(lambda: fetch.begun)
    return tasks


async def test_a_thousand_callers_cost_one_listing(fetch, listing):
    fetch.gate.clear()
    callers = await waiting(fetch, *(listing.claims() for _ in range(1000)))
    fetch.gate.set()
    results = await asyncio.gather(*callers)
    assert fetch.count == 1
    assert all(names(result) == {"claim-alice"} for result in results)


async def test_a_thousand_callers_who_want_a_new_one_cost_one_listing(fetch, listing):
    """Who asks first waits for the others that come in at the same time."""
    asked = listing.now()
    await asyncio.gather(*(listing.claims(asked) for _ in range(1000)))
    assert fetch.count == 1


@pytest.mark.parametrize(("age", "listings"), [(0.0, 1), (4.9, 1), (5.0, 1), (5.1, 2)])
async def test_a_listing_is_shared_while_it_is_young(fetch, listing, age, listings):
    await listing.claims()
    fetch.now += age
    await listing.claims()
    assert fetch.count == listings


async def test_age_counts_from_when_the_listing_began(fetch, listing):
    """What was made while it ran may be missing from it."""
    fetch.takes = 0.4
    await listing.claims()
    fetch.now += 4.7
    await listing.claims()
    assert fetch.count == 2


async def test_a_slow_listing_is_shared_for_longer(fetch, listing):
    """Listing never costs more than a tenth of the hub's time."""
    fetch.takes = 3.0
    await listing.claims()
    fetch.now += 26.9
    await listing.claims()
    assert fetch.count == 1
    fetch.now += 0.2
    fetch.takes = 0.0
    await listing.claims()
    assert fetch.count == 2


async def test_who_asks_for_a_new_one_gets_a_new_one(fetch, listing):
    await listing.claims()
    fetch.now += 1.0
    fetch.claims["claim-bob"] = ours(ALICE, "claim-bob")
    assert "claim-bob" not in names(await listing.claims())
    assert "claim-bob" in names(await listing.claims(listing.now()))
    assert fetch.begun == [100.0, 101.0]


async def test_a_listing_under_way_is_too_old_for_who_asks_after_it_began(fetch, listing):
    """It may have passed the place where something was written since."""
    fetch.gate.clear()
    (first,) = await waiting(fetch, listing.claims())
    fetch.now += 0.01
    second = asyncio.create_task(listing.claims(listing.now()))
    await asyncio.sleep(0)
    fetch.gate.set()
    await asyncio.gather(first, second)
    assert fetch.begun == pytest.approx([100.0, 100.01], abs=1e-6)


async def test_who_needs_none_made_since_is_content_with_one_that_is_new_enough(fetch, listing):
    asked = listing.now()
    fetch.now += 1.0
    await listing.claims()
    fetch.now += 1.0
    await listing.claims(asked)
    assert fetch.count == 1


async def test_a_failure_is_told_to_all_who_wait_and_not_kept(fetch, listing):
    fetch.gate.clear()
    fetch.failures = [Doubt("HTTP 503")]
    callers = await waiting(fetch, *(listing.claims() for _ in range(100)))
    fetch.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert {str(result) for result in results} == {"HTTP 503"}
    assert fetch.count == 1
    assert names(await listing.claims()) == {"claim-alice"}
    assert fetch.count == 2


async def test_a_failure_does_not_make_an_old_listing_new(fetch, listing):
    await listing.claims()
    fetch.now += 60.0
    fetch.failures = [Doubt("HTTP 503")]
    with pytest.raises(Doubt):
        await listing.claims()
    await listing.claims()
    assert fetch.count == 3


async def test_one_callers_end_does_not_end_the_others(fetch, listing):
    """A user who closes the spawn page, or a start_timeout."""
    fetch.gate.clear()
    callers = await waiting(fetch, *(listing.claims() for _ in range(3)))
    callers[0].cancel()
    await asyncio.wait({callers[0]}, timeout=5)
    fetch.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [names(result) for result in results[1:]] == [{"claim-alice"}] * 2
    assert fetch.count == 1


async def test_a_listing_whose_callers_are_all_gone_is_kept(fetch, listing):
    fetch.gate.clear()
    (caller,) = await waiting(fetch, listing.claims())
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    fetch.gate.set()
    await until(lambda: listing.shows(fetch.begun[0]))
    await listing.claims()
    assert fetch.count == 1


async def test_a_failure_that_nobody_waits_for_is_not_shouted(fetch, listing):
    """asyncio logs exceptions that nobody fetched, with a traceback, at a time of its own."""
    shouts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: shouts.append(context))
    fetch.gate.clear()
    fetch.failures = [Doubt("HTTP 503")]
    (caller,) = await waiting(fetch, listing.claims())
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    fetch.gate.set()
    await until(lambda: not fetch.failures)
    # Whoever comes now gets one of their own.
    await listing.claims()
    gc.collect()
    assert (shouts, fetch.count) == ([], 2)


def shield_of_python_3_14(inner):
    """It tells the loop of an error when who waited was cancelled (asyncio/tasks.py)."""
    outer = REAL_SHIELD(inner)

    def tell(_):
        if outer.cancelled() and inner.exception() is not None:
            inner.get_loop().call_exception_handler({"exception": inner.exception()})

    inner.add_done_callback(tell)
    return outer


REAL_SHIELD = asyncio.shield


async def test_a_failure_that_the_others_were_told_is_not_shouted(fetch, listing, monkeypatch):
    """One user closed the spawn page; the API server then answered 503 to all the others."""
    monkeypatch.setattr(asyncio, "shield", shield_of_python_3_14)
    shouts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: shouts.append(context))
    fetch.gate.clear()
    fetch.failures = [Doubt("HTTP 503")]
    gone, *others = await waiting(fetch, *(listing.claims() for _ in range(3)))
    gone.cancel()
    await asyncio.wait({gone}, timeout=5)
    fetch.gate.set()
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [str(result) for result in results] == ["HTTP 503"] * 2
    gc.collect()
    await asyncio.sleep(0)
    assert shouts == []


async def test_a_listing_that_was_broken_off_is_doubt_and_ends_no_caller(fetch, listing):
    fetch.gate.clear()
    (caller,) = await waiting(fetch, listing.claims())
    listing._flight.cancel()
    with pytest.raises(Doubt, match="not finished"):
        await asyncio.wait_for(caller, 5)


async def test_forgetting_makes_the_next_caller_list_anew(fetch, listing):
    await listing.claims()
    listing.forget()
    await listing.claims()
    assert fetch.count == 2


async def test_forgetting_before_the_first_listing_is_harmless(fetch, listing):
    listing.forget()
    await listing.claims()
    assert fetch.count == 1


async def test_what_was_just_written_is_seen_by_the_next(fetch, listing):
    await listing.claims()
    listing.note(ours(ALICE, "claim-new"))
    assert names(await listing.claims()) == {"claim-alice", "claim-new"}
    listing.note(claim("claim-new", BOB.annotations("x")))
    assert names(await listing.claims()) == {"claim-alice"}
    assert fetch.count == 1


async def test_no_age_means_one_listing_for_those_who_come_together(fetch):
    listing = SharedListing(fetch, max_age=0.0, clock=fetch.clock)
    await asyncio.gather(*(listing.claims() for _ in range(100)))
    fetch.now += 0.01
    await asyncio.gather(*(listing.claims() for _ in range(100)))
    assert fetch.count == 2


async def test_twenty_thousand_claims_do_not_hold_the_loop(fetch, listing):
    """Others get their turn while the answer is sorted."""
    fetch.claims = {f"claim-{n}": claim(f"claim-{n}") for n in range(5000)}
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    await asyncio.sleep(0)
    task = asyncio.create_task(others())
    index = await listing.claims()
    task.cancel()
    assert len(index) == 5000
    assert turns >= 5
