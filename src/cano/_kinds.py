"""Types and names, as lookups and their error messages need them. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import Enum
from itertools import islice
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

_COMPARED: Final = 200  # names looked at for a "did you mean": a miss must stay cheap


def fits(value: object, kind: Any) -> bool:
    """Whether *value* is a *kind*, as far as that can be told without looking inside it.

    An int passes as a `float`, as it does for type checkers.
    """
    if kind is Any or type(value) is kind:
        return True
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        return any(fits(value, each) for each in get_args(kind))
    if kind is float or kind is complex:
        return isinstance(value, int | float | kind)
    return isinstance(value, origin or kind)


def kind_name(kind: Any) -> str:
    """Return a type as one would write it."""
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def shown(name: Hashable) -> str:
    """Return a name as one would write it."""
    return f"{type(name).__name__}.{name.name}" if isinstance(name, Enum) else repr(name)


def an(name: str) -> str:
    """Put the article before a name that is spoken as it is spelled."""
    return f"an {name}" if name[:1].lower() in {*"aeiou"} else f"a {name}"


def did_you_mean(wanted: Hashable, there: Iterable[Hashable]) -> str:
    """Return a hint at the name in *there* that is most like *wanted*, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for it

    names = [shown(name) for name in islice(there, _COMPARED)]
    close = get_close_matches(shown(wanted), names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
