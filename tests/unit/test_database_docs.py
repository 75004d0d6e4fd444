"""docs/databases.md is complete: whoever meets a message or a key finds it there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jhub_safety.sidecars.notice import CODES
from jhub_safety.sidecars.server import KINDS, DatabaseServer, kind_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "databases.md").read_text()


def rows_of(heading: str) -> set[str]:
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line[:1] == "|"]
    return {name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_each_code_has_a_row():
    assert rows_of("Faults") - {"code"} == CODES


def test_each_key_of_an_entry_has_a_row():
    keys = {one.name for one in fields(DatabaseServer)} - {"storage_class"}
    assert rows_of("An entry") == keys | {"kind", "class"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named_with_its_image_and_port(kind: str):
    made = kind_of(kind, "x").from_entry({}, "x")
    assert f"`{kind}`" in PAGE
    assert f"`{made.image}`" in PAGE
    assert f"`{made.port}`" in PAGE
