"""Run data that is refused: types and values that could not come back as they were."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from cano import Context, Workflow
from cano._data import data_type
from cano.errors import DataError, DefinitionError
from cano.testing import run


class Step(Enum):
    WORK = 1
    DONE = 2


class Color(Enum):
    RED = "red"


@dataclass
class Line:
    name: str = "x"
    count: int = 1


@dataclass
class Order:
    total: int = 0
    lines: list[Line] = field(default_factory=list)
    paid: date | None = None
    color: Color = Color.RED
    file: Path = Path("a/b")
    by_id: dict[int, Line] = field(default_factory=dict)
    anything: Any = None


class Struct(msgspec.Struct, rename="camel"):
    total_price: int = 0
    line_items: list[Line] = []


class Inner(pydantic.BaseModel):
    some_name: str = pydantic.Field("x", alias="someName")


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, validate_assignment=True, extra="allow")

    total: int = pydantic.Field(0, alias="grandTotal", ge=0)
    inner: list[Inner] = []
    day: date = date(2020, 1, 2)
    tags: frozenset[str] = frozenset()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.total


@dataclass
class Needy:
    total: int


class NeedyModel(pydantic.BaseModel):
    total: int


@pytest.mark.parametrize("kind", [Needy, NeedyModel])
def test_missing_default(kind: Any) -> None:
    """A type that cannot be made from nothing says so, with both ways out."""
    with pytest.raises(DataError, match=r"give every field a default or start .*data=Needy"):
        data_type(kind).new()


class Plain:
    """No kind of record."""


class Dictionary(TypedDict):
    total: int


class Tuple(NamedTuple):
    total: int = 0


@pytest.mark.parametrize("kind", [Plain, Dictionary, Tuple, dict, int])
def test_types_that_are_no_records(kind: Any) -> None:
    """Only dataclasses, structs and models are run data."""
    with pytest.raises(DataError, match=f"run data of type {kind.__name__} cannot .*; use a data"):
        data_type(kind)


@pytest.mark.parametrize("kind", [Order(), Struct(), Model(), dict[str, int], None, "Order"])
def test_what_is_no_class(kind: Any) -> None:
    """An instance, or an alias, is not a type."""
    with pytest.raises(DataError, match="data must be a class, not .*; pass the class itself"):
        data_type(kind)


@dataclass
class HasSocket:
    deep: dict[str, list[socket.socket]] = field(default_factory=dict)


@dataclass
class HasThread:
    worker: threading.Thread | None = None


@dataclass
class HasCallable:
    call: Callable[[], int] | None = None


@dataclass
class HasPlain:
    plain: Plain | None = None


@dataclass
class Nested:
    inside: list[HasPlain] = field(default_factory=list)


@dataclass
class HasObject:
    thing: object = None


@dataclass
class HasTupleKeys:
    grid: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass
class TwoRecords:
    either: Order | Line | None = None


class TupleValues(Enum):
    A = (1, 2)


@dataclass
class HasTupleEnum:
    kind: TupleValues = TupleValues.A


class HasRaw(msgspec.Struct):
    raw: msgspec.Raw = msgspec.Raw()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (HasSocket, r"HasSocket\.deep holds a socket, which cannot be written down; keep such"),
        (HasThread, r"HasThread\.worker holds a Thread"),
        (HasCallable, r"HasCallable\.call holds a Callable"),
        (HasPlain, r"HasPlain\.plain holds a Plain"),
        (Nested, r"Nested\.inside holds a Plain"),
        (HasObject, r"HasObject\.thing holds an object"),
        (HasTupleKeys, r"HasTupleKeys\.grid holds a dict with keys of TupleType"),
        (TwoRecords, r"TwoRecords\.either cannot be written down: Type unions may not"),
        (HasTupleEnum, r"HasTupleEnum\.kind cannot be written down: Enums must contain"),
        (HasRaw, r"HasRaw\.raw holds a RawType"),
    ],
)
def test_fields_that_cannot_be_written_down(kind: Any, expected: str) -> None:
    """A field whose type says that it can never be written is found, however deep it is."""
    with pytest.raises(DataError, match=expected):
        data_type(kind)


def test_annotations_that_cannot_be_read() -> None:
    """A class that names what it cannot see gets told."""

    class Hidden:
        pass

    @dataclass
    class Blind:
        other: Hidden | None = None

    with pytest.raises(DataError, match="annotations of Blind cannot be read: name 'Hidden'"):
        data_type(Blind)


class LockedModel(pydantic.BaseModel, arbitrary_types_allowed=True):
    threads: list[threading.Thread] = []


class CallingModel(pydantic.BaseModel):
    call: Callable[[], int] | None = None


class SecretModel(pydantic.BaseModel):
    inner: list[pydantic.SecretStr] = []


class HidingModel(pydantic.BaseModel):
    hidden: int = pydantic.Field(0, exclude=True)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LockedModel, "LockedModel cannot be written down: .*Thread"),
        (CallingModel, "CallingModel cannot be written down: .*Callable"),
        (SecretModel, "SecretModel does not write down a secret, which would be lost"),
        (HidingModel, "HidingModel does not write down hidden, which would be lost"),
    ],
)
def test_models_that_cannot_be_written_down(kind: Any, expected: str) -> None:
    """So is what pydantic cannot write, and what it would leave out."""
    with pytest.raises(DataError, match=f"(?s){expected}"):
        data_type(kind)


@dataclass
class Number:
    value: float = 0.0
    maybe: float | None = None
    many: list[float | None] = field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Order(anything={1, 2}), r"Order\.anything holds a set .* come back as something else"),
        (Order(anything=(1, 2)), r"Order\.anything holds a tuple .*; annotate the field"),
        (Order(anything={1: 2}), r"Order\.anything holds a dict .* come back as something else"),
        (Order(anything=Line()), r"Order\.anything holds a Line"),
        (Order(anything=threading.Lock()), r"Order\.anything holds a lock .*; keep such objects"),
        (Order(total=1j), r"Order\.total holds a complex"),  # type: ignore[arg-type]
        (Number(float("nan")), r"Number\.value holds a float .*JSON has no nan"),
        (Number(maybe=float("inf")), r"Number\.maybe holds a float .*JSON has no inf"),
        (Number(many=[None, float("-inf")]), r"Number\.many holds a list .*JSON has no -inf"),
        (Line("\ud800"), r"Line\.name holds a str"),
    ],
)
def test_values_that_cannot_be_written_down(value: Any, expected: str) -> None:
    """What would not come back as it was is an error where it is written, naming the field."""
    with pytest.raises(DataError, match=expected):
        data_type(type(value)).snapshot(value)


def test_model_value_that_cannot_be_written_down() -> None:
    """A model that fails to write itself is named."""

    class Loose(pydantic.BaseModel):
        anything: Any = None

    with pytest.raises(DataError, match="a Loose cannot be written down: Unable to serialize"):
        data_type(Loose).snapshot(Loose(anything=threading.Lock()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Line(count="many"), r'Line\.count was saved as "many", which is not what it is annot'),  # type: ignore[arg-type]
        (Model.model_construct(total=-1), r"a Model cannot be read back: "),
    ],
)
def test_values_that_break_their_own_annotation(value: Any, expected: str) -> None:
    """What was assigned against the annotation cannot come back, and the message says which."""
    kind = data_type(type(value))
    with pytest.raises(DataError, match=expected):
        kind.restore(value, kind.snapshot(value))


@dataclass
class MoreThanOrder(Order):
    extra: int = 0


@dataclass
class LikeOrder(Order):
    """Adds no field."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Line(), "run data is a Line, not an Order"),
        ({"total": 1}, "run data is a dict, not an Order"),
        (Order, "run data is a type, not an Order"),
        (MoreThanOrder(), "run data is a MoreThanOrder, whose own fields an Order does not have; "
         "say data=MoreThanOrder to the workflow"),
        (LikeOrder(), None),
        (Order(), None),
    ],
)  # fmt: skip
def test_what_a_run_is_given(value: Any, expected: str | None) -> None:
    """Data of another type is refused, and of a subtype with fields that would be lost."""
    assert expected == data_type(Order).problem(value)


async def done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def flow(**settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).register(Step.WORK, done).exits(Step.DONE)


@pytest.mark.parametrize(
    ("settings", "data", "expected"),
    [
        ({"data": Order}, Line(), "run data is a Line, not an Order"),
        ({"data": Needy}, None, "Needy.* raised TypeError: .*; give every field a default"),
        ({}, Order(), r"Step has no run data; say Workflow\(Step, data=Order\)"),
    ],
)
def test_runs_refuse_wrong_data(settings: Any, data: Any, expected: str) -> None:
    """A run that cannot have its data does not start."""
    with pytest.raises(DataError, match=expected):
        run(flow(**settings).run(Step.WORK, data=data))


@pytest.mark.parametrize("kind", [Plain, HasSocket, Order(), LockedModel])
def test_wrong_data_is_a_definition_error(kind: Any) -> None:
    """A type of run data that cannot work is found by the check."""
    with pytest.raises(DefinitionError, match="cannot be written down|must be a class"):
        flow(data=kind).check()
