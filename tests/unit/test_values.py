"""Values on their way through a store."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest

from cano import DataError
from cano._values import awaited, returns_of, value_type


class Color(Enum):
    RED = 1


@dataclass
class Point:
    x: int
    y: float = 0.0


class Pair(NamedTuple):
    left: int
    right: str


class Model(pydantic.BaseModel):
    name: str


class Struct(msgspec.Struct):
    name: str


VALUES: list[tuple[Any, Any]] = [
    (int, 3),
    (float, 2.5),
    (str, "ü\n"),
    (bool, True),
    (None, None),
    (int | None, None),
    (bytes, b"\x00\xff"),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (dict[str, Point], {"a": Point(1)}),
    (datetime, datetime(2024, 2, 29, 12, tzinfo=UTC)),
    (timedelta, timedelta(days=1, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (Color, Color.RED),
    (Point, Point(1, 2.0)),
    (Pair, Pair(1, "a")),
    (Model, Model(name="x")),
    (Struct, Struct("x")),
    (Annotated[int, "seconds"], 3),
    (Any, {"plain": [1, 2.5, None, "x", True]}),
]


@pytest.mark.parametrize(("hint", "value"), VALUES)
def test_a_value_comes_back_as_its_annotation_says(hint: Any, value: Any) -> None:
    """What is written comes back equal, and of the same type."""
    kind = value_type(hint, "effect 'e'")
    back = kind.read(kind.write(value))
    assert value == back
    assert type(value) is type(back)


@pytest.mark.parametrize(
    "value", [(1, 2), {1: "a"}, Point(1), {1, 2}, b"x", float("nan"), float("inf"), Path("/x")]
)
def test_what_is_not_annotated_is_plain_json(value: Any) -> None:
    """A value that would come back as another one is refused when it is written."""
    with pytest.raises(DataError, match=r"effect 'e' returned a \w+ that cannot be written down"):
        value_type(Any, "effect 'e'").write(value)


@pytest.mark.parametrize(("hint", "value"), [(object, object()), (int, object()), (str, lambda: 0)])
def test_what_cannot_be_written_says_whose_it_is(hint: Any, value: Any) -> None:
    """The error names the origin, the type and the remedy."""
    with pytest.raises(DataError, match=r"effect 'e' .*"):
        value_type(hint, "effect 'e'").write(value)


def test_what_does_not_fit_says_what_was_found() -> None:
    """A recorded value that is not what the annotation says is shown, shortened."""
    with pytest.raises(DataError) as error:
        value_type(int, "branch 'eu'").read(b'"' + b"x" * 500 + b'"')
    assert "branch 'eu' was recorded as \"xxx" in str(error.value)
    assert 400 > len(str(error.value))


def test_a_value_over_the_limit_is_refused() -> None:
    """One value may come to 64 MiB of JSON."""
    kind = value_type(str, "effect 'e'")
    limit = 64 * 1024 * 1024
    assert limit == len(kind.write("x" * (limit - 2)))
    with pytest.raises(DataError, match="is the limit; keep it in a file or an object store"):
        kind.write("x" * (limit - 1))


@pytest.mark.parametrize(
    ("hint", "found"),
    [
        (int, int),
        (Awaitable[int], int),
        (Coroutine[Any, Any, str], str),
        (Annotated[Awaitable[int], "x"], int),
    ],
)
def test_what_awaiting_gives(hint: Any, found: Any) -> None:
    """A function that returns an awaitable is read as what that gives."""
    assert found == awaited(hint)


def test_what_a_call_returns() -> None:
    """Functions, methods, partials and unreadable annotations."""

    async def number() -> int:
        return 1

    async def lost() -> NoSuchName:  # type: ignore[name-defined] # noqa: F821
        return None

    class Client:
        async def get(self, path: str) -> Point:
            return Point(1)

    assert int is returns_of(number)
    assert Point is returns_of(Client().get)
    assert Point is returns_of(partial(Client().get, "/"))
    assert Any is returns_of(lost)
    assert Any is returns_of(lambda: number())
