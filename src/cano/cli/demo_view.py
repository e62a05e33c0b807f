"""The table that `cano demo` ends with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cano.cli.show import counted, most
from cano.demo import Counts, Place, Survey

WIDE = 100
"""From so many columns on, sections stand side by side."""
WIDEST = 130
BROKEN_ON_PURPOSE = re.compile(r"(lib2to3/tests/data|test/tokenizedata)/")
"""What the standard library has to test its own parsers with."""
BAR = 30
GAP = 4
KINDS = (
    ("code", "█", "cyan"),
    ("docstring", "▓", "green"),
    ("comment", "▒", "magenta"),
    ("blank", "░", "bright_black"),
)
"""The kinds of lines; told apart without colours, too."""


def view(title: str, survey: Survey, top: int, width: int, cost: str) -> RenderableType:
    """What there is to say about *survey*, at most *width* columns wide."""
    counts = survey.counts
    room = min(width, WIDEST) - 4
    wide = width >= WIDE
    left = room * 2 // 5 - GAP if wide else room
    right = room - left - GAP if wide else room
    sections = (
        (
            _ranking("Imported by the most modules", counts.imports, top, left),
            _places("Longest functions, in lines", counts.longest, top, right),
        ),
        (
            _ranking("Raised most often", counts.raises, top, left),
            _places("Deepest nesting, in levels", counts.deepest, top, right),
        ),
        (
            _ranking("Favourite function names", counts.names, top, left),
            _places("Largest modules, in lines", counts.largest, top, right),
        ),
    )
    parts: list[RenderableType] = [
        Text(title, "bold"),
        *_facts(counts),
        Text(),
        *_lines(counts, room),
    ]
    for pair in sections:
        parts += _beside(pair, (left, right)) if wide else _below(pair)
    parts += _unread(counts, top, room)
    parts += [Text(), Text(cost, "dim")]
    return Padding(Group(*parts), (1, 2), expand=False)


def _facts(counts: Counts) -> Iterable[RenderableType]:
    yield Text(
        f"{counted(counts.modules, 'module')} · {counted(counts.lines, 'line')} · "
        f"{counted(counts.functions, 'function')} · {counted(counts.classes, 'class', 'classes')}"
    )
    if definitions := counts.functions + counts.classes:
        share = counts.documented / definitions
        yield Text(
            f"{share:.0%} of the functions and classes have a docstring; "
            f"{counted(counts.async_functions, 'function')} async"
        )


def _lines(counts: Counts, width: int) -> Iterable[RenderableType]:
    """A bar of the kinds of lines, and what its parts mean."""
    bar, legend = Text(no_wrap=True), Text()
    drawn = seen = 0
    numbers = (counts.code, counts.docstrings, counts.comments, counts.blank)
    for (name, glyph, style), number in zip(KINDS, numbers, strict=True):
        seen += number
        end = round(width * seen / max(counts.lines, 1))
        bar.append(glyph * (end - drawn), style)
        legend.append(glyph, style).append(f" {name} {number / max(counts.lines, 1):.0%}   ")
        drawn = end
    return bar, legend


def _ranking(
    heading: str, numbers: Mapping[str, int], top: int, width: int
) -> RenderableType | None:
    """The largest of *numbers*, with bars."""
    best = most(numbers, top)
    if not best:
        return None
    digits = max(len(f"{number:,}") for _, number in best)
    names = min(max(cell_len(name) for name, _ in best), width // 2)
    bar = min(width - digits - names - 2, BAR)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(width=names, no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, style="cyan")
    for name, number in best:
        halves = max(round(2 * bar * number / best[0][1]), 1)
        table.add_row(f"{number:,}", name, "━" * (halves // 2) + "╸" * (halves % 2))
    return Group(Text(heading, "bold"), table)


def _places(heading: str, places: Sequence[Place], top: int, width: int) -> RenderableType | None:
    """The largest of *places*, and where they are."""
    best = [place for place in places[:top] if place.size]
    if not best:
        return None
    digits = max(len(f"{place.size:,}") for place in best)
    names = max(cell_len(place.what) for place in best)
    where = max(cell_len(place.where) for place in best)
    room = width - digits - 2
    where = min(where, max(room // 2, room - names - 1))
    names = min(names, room - where - 1)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    if names:
        table.add_column(width=names, no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, style="dim" if names else "")
    for place in best:
        cells = (place.what or "—",) if names else ()
        table.add_row(f"{place.size:,}", *cells, _tail(place.where, where))
    return Group(Text(heading, "bold"), table)


def _unread(counts: Counts, top: int, width: int) -> Iterable[RenderableType]:
    """The files that could not be read: counted, and not hidden."""
    if not counts.unread:
        return
    yield Text()
    heading = Text(f"{counted(len(counts.unread), 'file')} could not be read", "bold")
    if all(BROKEN_ON_PURPOSE.match(name) for name, _ in counts.unread):
        heading.append(", on purpose: they test Python itself", "not bold dim")
    yield heading
    names = min(max(cell_len(name) for name, _ in counts.unread[:top]), width // 2)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=names)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim", max_width=width - names - 1)
    for name, why in counts.unread[:top]:
        table.add_row(_tail(name, names), why.replace("\n", " "))
    yield table
    if len(counts.unread) > top:
        yield Text(f"and {len(counts.unread) - top:,} more; --json has them all", "dim")


def _tail(text: str, width: int) -> str:
    """The end of *text*: of a path, the more interesting one."""
    while cell_len(text) > width:
        text = "…" + text.removeprefix("…")[1:]
    return text


def _below(sections: Iterable[RenderableType | None]) -> Iterable[RenderableType]:
    for section in sections:
        if section is not None:
            yield Text()
            yield section


def _beside(
    sections: Sequence[RenderableType | None], widths: Sequence[int]
) -> Iterable[RenderableType]:
    if any(sections):
        row = Table.grid(padding=(0, GAP, 0, 0))
        for width in widths:
            row.add_column(width=width)
        row.add_row(*(section or "" for section in sections))
        yield Text()
        yield row
