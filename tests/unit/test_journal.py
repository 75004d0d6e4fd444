"""The journal: one whole line for each action, and never in the way of one."""

from __future__ import annotations

import json
import logging
import stat
from datetime import UTC, datetime
from threading import Thread
from types import MappingProxyType

import pytest

from jhub_safety.journal import Journal, NotWritten
from jhub_safety.plan import Action

ACTION = Action(
    "annotate-claim",
    "jupyter",
    "claim-alice",
    "single: KubeSpawner annotated it",
    uid="1234",
    annotations=MappingProxyType({"jhub-safety/user": "alice"}),
)
LOG = logging.getLogger("tests.unit.journal")


def journal(path, **options):
    return Journal(path, log=LOG, now=lambda: datetime(2024, 5, 1, 12, tzinfo=UTC), **options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_what_and_how_it_ended(tmp_path):
    journal(tmp_path / "j").write(ACTION, "done", created_uid="5678")
    assert lines(tmp_path / "j") == [
        {
            "time": "2024-05-01T12:00:00+00:00",
            "outcome": "done",
            "created_uid": "5678",
            **ACTION.record(),
        }
    ]


def test_lines_are_added(tmp_path):
    for outcome in ("failed: HTTP 500", "done"):
        journal(tmp_path / "j").write(ACTION, outcome)
    assert [line["outcome"] for line in lines(tmp_path / "j")] == ["failed: HTTP 500", "done"]


@pytest.mark.parametrize("text", ["two\nlines", "\u2028", "quote\"'", "🦊", "\ud800", "nul\0"])
def test_whatever_a_name_holds_it_stays_one_line(tmp_path, text):
    journal(tmp_path / "j").write(Action("create-claim", "ns", "c", text), "done")
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1
    assert lines(tmp_path / "j")[0]["reason"] == text


def test_lines_of_many_writers_do_not_mix(tmp_path):
    """The hub and an operator's command write to one file."""
    big = Action("create-claim", "ns", "c", "x" * 3000)
    threads = [
        Thread(target=lambda: [journal(tmp_path / "j").write(big, "done") for _ in range(25)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path / "j")) == 200


def test_nobody_else_can_read_it(tmp_path):
    journal(tmp_path / "j").write(ACTION, "done")
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


def test_a_rotated_file_is_begun_anew(tmp_path):
    one = journal(tmp_path / "j")
    one.write(ACTION, "one")
    (tmp_path / "j").rename(tmp_path / "j.1")
    one.write(ACTION, "two")
    assert [line["outcome"] for line in lines(tmp_path / "j")] == ["two"]


def test_every_line_is_in_the_log_too(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        journal(None).write(ACTION, "done")
    assert '"name": "claim-alice"' in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_stops_nothing_and_says_so_once(tmp_path, caplog):
    one = journal(tmp_path / "missing" / "j")
    with caplog.at_level(logging.INFO):
        one.write(ACTION, "one")
        one.write(ACTION, "two")
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "SafeKubeSpawner.journal" in warnings[0].getMessage()
    assert '"outcome": "two"' in caplog.text


def test_a_journal_that_can_be_written_again_is_written_again(tmp_path):
    one = journal(tmp_path / "later" / "j")
    one.write(ACTION, "one")
    (tmp_path / "later").mkdir()
    one.write(ACTION, "two")
    assert [line["outcome"] for line in lines(tmp_path / "later" / "j")] == ["two"]


@pytest.mark.parametrize("path", [None, "missing/j"], ids=["no journal", "not writable"])
def test_what_must_not_go_unrecorded_is_an_error_and_in_the_log_all_the_same(
    tmp_path, caplog, path
):
    one = journal(path and tmp_path / path)
    with caplog.at_level(logging.INFO), pytest.raises(NotWritten):
        one.keep(ACTION, "begun")
    assert '"outcome": "begun"' in caplog.text


def test_a_line_that_was_kept_is_as_any_other(tmp_path):
    for one in (journal(tmp_path / "a").write, journal(tmp_path / "b").keep):
        one(ACTION, "done", cluster="k8s")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_line_that_was_cut_off_since_the_volume_is_full_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("jhub_safety.journal.os.write", lambda *_: 3)
    with pytest.raises(NotWritten, match="No space left"):
        journal(tmp_path / "j").keep(ACTION, "begun")
