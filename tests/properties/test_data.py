"""What is written down comes back equal, whatever it is."""

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pydantic
from hypothesis import given, settings
from hypothesis import strategies as st

from cano._data import data_type

thorough = settings(max_examples=40, deadline=None, database=None)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass
class Point:
    x: int
    y: float | None = None
    label: str = ""


@dataclass
class Tree:
    name: str = ""
    children: list[Tree] = field(default_factory=list)


@dataclass
class Everything:
    number: int = 0
    real: float = 0.0
    text: str = ""
    raw: bytes = b""
    flag: bool = False
    maybe: int | None = None
    either: int | str = 0
    color: Color = Color.RED
    size: Size = Size.SMALL
    moment: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    naive: datetime = datetime(2020, 1, 1)  # noqa: DTZ001
    day: date = date(2020, 1, 1)
    hour: time = time(1)
    span: timedelta = timedelta(0)
    money: Decimal = Decimal(0)
    id: uuid.UUID = uuid.UUID(int=0)
    path: PurePosixPath = PurePosixPath("a")
    many: list[int] = field(default_factory=list)
    pair: tuple[int, str] = (0, "")
    row: tuple[int, ...] = ()
    some: set[str] = field(default_factory=set)
    fixed: frozenset[int] = frozenset()
    by_name: dict[str, list[int]] = field(default_factory=dict)
    by_number: dict[int, str] = field(default_factory=dict)
    by_day: dict[date, Point] = field(default_factory=dict)
    point: Point | None = None
    tree: Tree = field(default_factory=Tree)
    anything: Any = None


class Struct(msgspec.Struct, rename="camel"):
    first_number: int = 0
    some_points: list[Point] = []
    by_name: dict[str, set[int]] = {}


class FrozenStruct(msgspec.Struct, frozen=True, rename="camel"):
    first_number: int = 0
    some_points: tuple[Point, ...] = ()


class Inner(pydantic.BaseModel):
    some_name: str = pydantic.Field("x", alias="someName")
    size: Size = Size.SMALL


class Model(pydantic.BaseModel):
    total: int = pydantic.Field(0, alias="grandTotal")
    inner: list[Inner] = []
    moment: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    fixed: frozenset[int] = frozenset()
    point: Point | None = None
    money: Decimal = Decimal(0)


finite = st.floats(allow_nan=False, allow_infinity=False)
points = st.builds(Point, x=st.integers(), y=st.none() | finite, label=st.text())
trees = st.recursive(
    st.builds(Tree, name=st.text(max_size=3)),
    lambda inner: st.builds(Tree, children=st.lists(inner, max_size=3)),
    max_leaves=6,
)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
everything = st.builds(
    Everything,
    number=st.integers(),
    real=finite,
    text=st.text(),
    raw=st.binary(),
    flag=st.booleans(),
    maybe=st.none() | st.integers(),
    either=st.integers() | st.text(),
    color=st.sampled_from(Color),
    size=st.sampled_from(Size),
    moment=st.datetimes(timezones=st.just(UTC)),
    naive=st.datetimes(),
    day=st.dates(),
    hour=st.times(),
    span=st.timedeltas(),
    money=st.decimals(allow_nan=False, allow_infinity=False),
    id=st.uuids(),
    path=st.lists(st.sampled_from("abc"), min_size=1).map(lambda parts: PurePosixPath(*parts)),
    many=st.lists(st.integers()),
    pair=st.tuples(st.integers(), st.text()),
    row=st.lists(st.integers()).map(tuple),
    some=st.sets(st.text()),
    fixed=st.frozensets(st.integers()),
    by_name=st.dictionaries(st.text(), st.lists(st.integers())),
    by_number=st.dictionaries(st.integers(), st.text()),
    by_day=st.dictionaries(st.dates(), points, max_size=3),
    point=st.none() | points,
    tree=trees,
    anything=json,
)
structs = st.builds(
    Struct,
    first_number=st.integers(),
    some_points=st.lists(points, max_size=3),
    by_name=st.dictionaries(st.text(), st.sets(st.integers()), max_size=3),
)
frozen_structs = st.builds(
    FrozenStruct,
    first_number=st.integers(),
    some_points=st.lists(points, max_size=3).map(tuple),
)
models = st.builds(
    Model,
    grandTotal=st.integers(),
    inner=st.lists(st.builds(Inner, someName=st.text(), size=st.sampled_from(Size)), max_size=3),
    moment=st.datetimes(timezones=st.just(UTC)),
    fixed=st.frozensets(st.integers()),
    point=st.none() | points,
    money=st.decimals(allow_nan=False, allow_infinity=False),
)
mutable = everything | structs | models


@thorough
@given(mutable)
def test_comes_back_equal(value: Any) -> None:
    """Into a fresh object, what was written down is read as it was."""
    kind: Any = data_type(type(value))
    fresh, saved = kind.new(), kind.snapshot(value)
    restored = kind.restore(fresh, saved)

    assert restored is fresh
    assert value == restored


@thorough
@given(mutable, st.data())
def test_changes_meanwhile_are_undone(value: Any, data: st.DataObject) -> None:
    """Whatever the same object became since the snapshot, it is again what it was."""
    kind: Any = data_type(type(value))
    before, saved = copy.deepcopy(value), kind.snapshot(value)
    strategy = {Everything: everything, Struct: structs, Model: models}[type(value)]
    other = data.draw(strategy)
    for name in kind.fields:
        setattr(value, name, getattr(other, name))
    for inside in [value.many, value.tree.children] if isinstance(value, Everything) else []:
        inside.clear()
    restored = kind.restore(value, saved)

    assert restored is value
    assert before == restored


@settings(thorough, max_examples=20)
@given(everything, st.text())
def test_a_change_shows_in_its_field_alone(value: Everything, text: str) -> None:
    """Two snapshots differ exactly in the fields that do."""
    kind = data_type(Everything)
    first, second = kind.snapshot(value), kind.snapshot(replace(value, text=text))
    expected = set() if text == value.text else {"text"}

    assert expected == {name for name in first if first[name] != second[name]}


@thorough
@given(frozen_structs, frozen_structs)
def test_frozen_values_come_back_as_others(value: FrozenStruct, later: FrozenStruct) -> None:
    """A frozen value is never changed by bringing one back."""
    kind = data_type(FrozenStruct)
    untouched = copy.deepcopy(later)

    assert value == kind.restore(later, kind.snapshot(value))
    assert untouched == later
