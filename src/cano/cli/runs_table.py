"""Runs as a table that fits the terminal; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

import click

from cano.checkpoints.store import RunSummary
from cano.cli.runs_words import clock, condition, cut, lasted, painted, plain

SHORT = 16
"""How much of a name that was made up is shown at least where there is little room."""
_MADE_UP = re.compile(r"[0-9a-f]{32}")
_GAP = "  "


class Column(NamedTuple):
    """One column; from *least* on its texts are cut, and *needed* ones are never left out."""

    title: str
    texts: Sequence[str]
    least: float = inf
    needed: bool = False

    @property
    def width(self) -> int:
        """What it takes to show everything."""
        return max(map(len, (self.title, *self.texts)))


def table(runs: Sequence[RunSummary], now: float, width: int | None) -> Iterator[str]:
    """The lines of a table of *runs*, at most *width* wide if that can be; None is no limit."""
    words = [condition(run, now) for run in runs]
    columns = _columns(runs, words, now)
    if width is not None and _total(columns) > width:
        columns = _fitted(columns, width)
    widths = [column.width for column in columns]
    yield click.style(_line([column.title for column in columns], widths), dim=True)
    status = [column.title for column in columns].index("STATUS")
    for number, word in enumerate(words):
        cells = [column.texts[number] for column in columns]
        before = _GAP.join(map(str.ljust, cells[:status], widths)) + _GAP
        after = _line(cells[status:], widths[status:])
        yield before + painted(word) + after[len(word) :]


def took(run: RunSummary, now: float) -> str:
    """How long the run took, or has been there."""
    return lasted((run.ended if run.ended is not None else now) - run.created)


def _columns(runs: Sequence[RunSummary], words: Sequence[str], now: float) -> list[Column]:
    return [
        Column("RUN", [plain(run.run_id) for run in runs], needed=True),
        Column("WORKFLOW", [plain(run.workflow) for run in runs], 10),
        Column("STATUS", words, needed=True),
        Column("STATE", [plain(run.state) for run in runs], 10, needed=True),
        Column("CREATED", [clock(run.created, now) for run in runs]),
        Column("TOOK", [took(run, now) for run in runs]),
        Column("OWNER", ["" if run.over else plain(run.owner) for run in runs], 16),
    ]


def _fitted(columns: list[Column], width: int) -> list[Column]:
    """Shorten names that were made up, then cut long texts, then leave whole columns out."""
    columns = [columns[0]._replace(texts=_shortened(columns[0].texts)), *columns[1:]]
    for index in reversed(range(len(columns))):
        column = columns[index]
        over = _total(columns) - width
        if over > 0 and column.width > column.least:
            room = max(column.width - over, int(column.least))
            columns[index] = column._replace(texts=[cut(text, room) for text in column.texts])
    while _total(columns) > width:
        spare = [column for column in columns if not column.needed]
        if not spare:
            break
        columns.remove(spare[-1])
    return columns


def _shortened(names: Sequence[str]) -> list[str]:
    """As much of the names as tells these runs apart, so that it can be used in their place."""
    ordered = sorted(names)
    same = max((_common(a, b) for a, b in pairwise(ordered)), default=0)
    length = max(SHORT, same + 1)
    return [name[:length] if _MADE_UP.fullmatch(name) else name for name in names]


def _common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(map(str.ljust, cells, widths)).rstrip()
