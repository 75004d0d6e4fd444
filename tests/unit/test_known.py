"""Where fingerprints are kept: of two notes one is always whole; what cannot be read is doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.guarding import Fingerprint
from jhub_safety.hubdb.known import FiledKnown, NotedKnown

FIRST = Fingerprint("a" * 32, 1, "rev", 10, 12, "2026-11-21T12:00:00.000+00:00", "sqlite /srv/x")
SECOND = replace(FIRST, epoch=2, users=11, taken="2026-11-21T12:01:00.000+00:00")
THIRD = replace(FIRST, epoch=3, users=12, taken="2026-11-21T12:02:00.000+00:00")


class Killed(Exception):
    """The hub's process ends here."""


class NoteDouble:
    """As :class:`~jhub_safety.cluster.notes.Note` writes: deleted, then made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text: dict[str, str] | None = None
        self.killed_between = False
        self.failing = False

    async def read(self):
        if self.failing:
            raise Doubt("HTTP 503")
        return self.text

    async def write(self, text) -> None:
        self.text = None
        if self.killed_between:
            raise Killed
        if self.failing:
            raise Conflict("another hub made it meanwhile")
        self.text = dict(text)

    async def delete(self) -> None:
        self.text = None


@pytest.fixture
def notes():
    return NoteDouble("a"), NoteDouble("b")


@pytest.fixture
def known(notes) -> NotedKnown:
    return NotedKnown(notes)


async def test_nothing_was_ever_known(known):
    assert await known.read() is None


async def test_the_later_one_counts(known):
    for one in (FIRST, SECOND, THIRD):
        await known.write(one)
        assert await known.read() == one


async def test_writing_replaces_the_older_one_and_leaves_the_other_alone(known, notes):
    for one in (FIRST, SECOND, THIRD):
        await known.write(one)
    assert {note.text["epoch"] for note in notes} == {"2", "3"}


@pytest.mark.parametrize("which", [0, 1], ids=["first note", "second note"])
async def test_a_hub_killed_between_delete_and_create_still_has_the_former_one(known, notes, which):
    await known.write(FIRST)
    if which == 0:
        await known.write(SECOND)
    for note in notes:
        note.killed_between = True
    before = await known.read()
    with pytest.raises(Killed):
        await known.write(THIRD)
    assert await known.read() == before
    for note in notes:
        note.killed_between = False
    await known.write(THIRD)
    assert await known.read() == THIRD


async def test_the_epoch_decides_not_a_clock_that_was_ahead(known):
    await known.write(replace(FIRST, taken="2031-01-01T00:00:00.000+00:00"))
    await known.write(SECOND)
    assert await known.read() == SECOND
    await known.write(THIRD)
    assert await known.read() == THIRD


async def test_one_note_that_cannot_be_read_is_doubt_and_nothing_is_written(known, notes):
    await known.write(FIRST)
    await known.write(SECOND)
    before = [note.text for note in notes]
    notes[0].failing = True
    with pytest.raises(Doubt):
        await known.read()
    with pytest.raises(Doubt):
        await known.write(THIRD)
    assert [note.text for note in notes] == before


@pytest.mark.parametrize(
    "text",
    [
        pytest.param({"identity": "a"}, id="incomplete"),
        pytest.param({**FIRST.record(), "users": "many"}, id="no number"),
        pytest.param({"other": "x"}, id="somebody else's"),
    ],
)
async def test_a_damaged_note_is_doubt_that_names_it(known, notes, text):
    await known.write(FIRST)
    notes[1].text = text
    with pytest.raises(Doubt, match="secret b"):
        await known.read()


async def test_forgetting_forgets_both(known, notes):
    await known.write(FIRST)
    await known.write(SECOND)
    await known.forget()
    assert await known.read() is None
    assert [note.text for note in notes] == [None, None]


# -- in a file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fingerprint.json"


async def test_a_file_keeps_the_latest(file):
    known = FiledKnown(file)
    assert await known.read() is None
    for one in (FIRST, SECOND):
        await known.write(one)
        assert await known.read() == one
    assert {one.name for one in file.parent.iterdir()} == {file.name}
    await known.forget()
    await known.forget()
    assert await known.read() is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"identity": "a"', id="cut off"),
        pytest.param('{"identity": "a"}', id="incomplete"),
        pytest.param("\x00\x01", id="noise"),
    ],
)
async def test_a_damaged_file_is_doubt(file, content):
    file.write_text(content)
    with pytest.raises(Doubt, match=r"fingerprint\.json"):
        await FiledKnown(file).read()


async def test_a_folder_that_is_not_there_is_doubt_when_writing(tmp_path):
    with pytest.raises(Doubt, match="cannot be written"):
        await FiledKnown(tmp_path / "none" / "file.json").write(FIRST)


async def test_a_folder_in_its_place_is_doubt(file):
    file.mkdir()
    known = FiledKnown(file)
    with pytest.raises(Doubt):
        await known.read()
    with pytest.raises(Doubt):
        await known.forget()
