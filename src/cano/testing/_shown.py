"""How failures of a test show states, paths and lists: short enough to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import zip_longest
from typing import TypeAlias

Named: TypeAlias = Enum | str
"""A state, as a member or by its name."""

MOST = 30
"""How many things are listed."""


def name_of(state: Named) -> str:
    """The name of a state. That a `StrEnum` member is a text as well is no matter."""
    return state._name_ if isinstance(state, Enum) else state


def some(things: Iterable[object]) -> str:
    """Things, one after the other; the middle of many is left out."""
    listed = [str(thing) for thing in things]
    left = len(listed) - MOST
    if left > 0:
        half = MOST // 2
        listed = [*listed[:half], f"… {left} more …", *listed[-half:]]
    return ", ".join(listed)


def differing(expected: Sequence[str], actual: Sequence[str]) -> int:
    """The first index at which two lists differ; the length of both if they do not."""
    for index, (one, other) in enumerate(zip_longest(expected, actual)):
        if one != other:
            return index
    return len(expected)


def path_text(path: Sequence[str], where: int) -> str:
    """A path, as far as it is of interest: around the index *where* it went wrong."""
    first, last = max(where - MOST // 2, 0), where + MOST // 2
    shown = [*path[first:last]]
    if first:
        shown.insert(0, f"… {first} before")
    if len(path) > last:
        shown.append(f"{len(path) - last} more …")
    return " → ".join(shown) or "no state"


def within(what: str, state: Named | None) -> str:
    """``failed in PAY``; only ``failed`` where nobody says in which state."""
    return what if state is None or not name_of(state) else f"{what} in {name_of(state)}"
