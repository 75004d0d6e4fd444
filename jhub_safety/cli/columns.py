"""Lines in columns: as wide as they need to be, and fast.

Rich's own table takes seconds for 10,000 lines; and nothing of it is needed, since no cell has
colours or more than one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from jhub_safety.cli.connection import spelled


def lines(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The title and a line for each row. Cells are hostile input; an empty one is ``-``."""
    cells = [
        list(titles),
        *([spelled(cell) if cell not in ("", None) else "-" for cell in row] for row in rows),
    ]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return [_line(row, widths) for row in cells]


def _width(cell: str) -> int:
    return len(cell) if cell.isascii() else cell_len(cell)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
