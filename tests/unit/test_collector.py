"""The collector rests as long as one block asks for it, and never longer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from jhub_safety import collector
from jhub_safety.collector import resting

#: Seconds for what happens at once, unless a test hangs.
SOON = 10


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """It is on; and on again for the next test, whatever this one did to it."""
    gc.enable()
    yield
    gc.enable()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as made:
        yield made


class Block:
    """A thread that is in a block until it is told to leave."""

    def __init__(self, threads: ThreadPoolExecutor, inside: Event | None = None) -> None:
        self.inside, self._leave = inside or Event(), Event()
        self._ended: Future[bool] = threads.submit(self._run)

    def _run(self) -> bool:
        with resting():
            collected = gc.isenabled()
            self.inside.set()
            assert self._leave.wait(SOON)
            return collected or gc.isenabled()

    def leave(self) -> None:
        self._leave.set()
        assert not self._ended.result(SOON), "it collected in the block"


class Collector:
    """gc, with something else happening in the middle of one of its functions, once."""

    def __init__(self, function: str, *, before: bool, meanwhile: Callable[[], object]) -> None:
        self._function, self._before, self._meanwhile = function, before, meanwhile

    def __getattr__(self, name: str) -> Callable[[], object]:
        def call() -> object:
            if name != self._function:
                return getattr(gc, name)()
            self._function = ""
            if self._before:
                self._meanwhile()
            answer = getattr(gc, name)()
            if not self._before:
                self._meanwhile()
            return answer

        return call


def test_it_rests_in_a_block_and_collects_after_it():
    with resting():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_rests_until_the_outermost_block_ends():
    with resting():
        with resting():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_collects_after_a_block_that_failed():
    with resting():
        with pytest.raises(ZeroDivisionError), resting():
            _ = 1 / 0
        assert not gc.isenabled()
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    with resting(), resting():
        assert not gc.isenabled()
    assert not gc.isenabled()
    # What was found the last time is not what is there now.
    gc.enable()
    with resting():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_it_rests_until_the_last_of_the_threads_has_left(threads, first_to_leave):
    blocks = [Block(threads)]
    assert blocks[0].inside.wait(SOON)
    blocks.append(Block(threads))
    assert blocks[1].inside.wait(SOON)
    blocks.pop(first_to_leave).leave()
    assert not gc.isenabled()
    blocks.pop().leave()
    assert gc.isenabled()


def test_a_block_that_begins_while_another_ends_does_not_leave_it_off(threads, monkeypatch):
    """It did, for good: the second had found it off, and put that back."""
    first = Block(threads)
    assert first.inside.wait(SOON)
    looked_or_inside, first_has_left = Event(), Event()

    def meanwhile() -> None:
        looked_or_inside.set()
        assert first_has_left.wait(SOON)

    monkeypatch.setattr(collector, "gc", Collector("isenabled", before=False, meanwhile=meanwhile))
    second = Block(threads, inside=looked_or_inside)
    assert looked_or_inside.wait(SOON)
    monkeypatch.setattr(collector, "gc", gc)
    first.leave()
    first_has_left.set()
    second.leave()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("function", "before"),
    [("isenabled", True), ("isenabled", False), ("enable", True), ("enable", False)],
)
def test_nobody_gets_in_while_it_is_put_to_rest_or_back_to_work(
    threads, monkeypatch, function, before
):
    others: list[Block] = []

    def meanwhile() -> None:
        others.append(Block(threads))
        # It must not come; one that would has far more time than it needs.
        assert not others[0].inside.wait(0.2)

    monkeypatch.setattr(collector, "gc", Collector(function, before=before, meanwhile=meanwhile))
    with resting():
        assert not gc.isenabled()
    assert others[0].inside.wait(SOON)
    others[0].leave()
    assert gc.isenabled()
