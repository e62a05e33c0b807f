"""Run data: fresh values, snapshots, and what is brought back."""

from __future__ import annotations

import asyncio
from dataclasses import InitVar, dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from cano import Context, Retry, Workflow
from cano._data import data_type
from cano.errors import DataError
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


@dataclass(frozen=True)
class Frozen:
    total: int = 0
    twice: int = field(init=False, default=0)
    given: InitVar[int] = 1

    def __post_init__(self, given: int) -> None:
        object.__setattr__(self, "twice", 2 * self.total)


@dataclass(slots=True, kw_only=True)
class Slotted:
    total: int = 0
    computed: int = field(init=False)
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.computed = self.total + 1


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    total: int = 0


class Struct(msgspec.Struct, rename="camel"):
    total_price: int = 0
    line_items: list[Line] = []


class FrozenStruct(msgspec.Struct, frozen=True, rename={"total": "t"}):
    total: int = 0


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


class FrozenModel(pydantic.BaseModel, frozen=True):
    total: int = 0


@dataclass
class HoldsModel:
    model: Model = field(default_factory=Model)


def test_snapshot_is_by_attribute() -> None:
    """A snapshot maps attribute names to JSON, whatever the names on the wire are."""
    assert {"total_price": b"3", "line_items": b"[]"} == data_type(Struct).snapshot(Struct(3))
    assert {"total": b"3"} == data_type(FrozenStruct).snapshot(FrozenStruct(3))
    model = Model(grandTotal=3, inner=[Inner(someName="y")])
    assert {
        "total": b"3",
        "inner": b'[{"some_name":"y"}]',
        "day": b'"2020-01-02"',
        "tags": b"[]",
    } == data_type(Model).snapshot(model)


def test_snapshots_differ_where_the_data_does() -> None:
    """Equal values are written alike, so that two snapshots show which fields changed."""
    kind = data_type(Order)
    one, two = Order(by_id={1: Line(), 2: Line()}), Order(by_id={1: Line(), 2: Line()}, total=1)
    first, second = kind.snapshot(one), kind.snapshot(two)

    assert ["total"] == [name for name in first if first[name] != second[name]]


def test_dicts_keep_their_order() -> None:
    """What is restored has its keys in the order they came in."""
    kind = data_type(Order)
    saved = kind.snapshot(Order(by_id={2: Line(), 1: Line()}, anything={"b": 1, "a": 2}))
    order = kind.restore(Order(), saved)

    assert ([2, 1], ["b", "a"]) == (list(order.by_id), list(order.anything))


@pytest.mark.parametrize(
    "value",
    [
        Order(3, [Line("y", 2)], date(2020, 1, 2), Color.RED, Path("/c"), {1: Line()}, {"a": [1]}),
        Slotted(total=2),
        Struct(4, [Line()]),
        Model(grandTotal=5, inner=[Inner(someName="z")], tags=frozenset("a"), another=[1]),
        HoldsModel(Model(grandTotal=1, inner=[Inner(someName="z")], day=date(2021, 1, 1))),
    ],
)
def test_restored_in_place(value: Any) -> None:
    """A mutable value is itself brought back, and equals what was saved."""
    kind: Any = data_type(type(value))
    saved = kind.snapshot(value)
    pristine = kind.restore(kind.new(), saved)
    for name in kind.fields:
        inside = getattr(value, name)
        if isinstance(inside, list):
            inside.append(inside[0] if inside else Line())
    value.__init__(**({"total": 77} if hasattr(value, "total") else {}))
    restored = kind.restore(value, saved)

    assert restored is value
    assert pristine == restored
    assert saved == kind.snapshot(restored)


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        (Frozen(3), Frozen(4)),
        (FrozenSlotted(3), FrozenSlotted(4)),
        (FrozenStruct(3), FrozenStruct(4)),
        (FrozenModel(total=3), FrozenModel(total=4)),
    ],
)
def test_frozen_is_restored_as_a_copy(value: Any, changed: Any) -> None:
    """A frozen value is left alone: what comes back is another, equal to what was saved."""
    kind: Any = data_type(type(value))
    restored = kind.restore(changed, kind.snapshot(value))

    assert value == restored
    assert 4 == changed.total
    assert restored is not changed


def test_a_snapshot_is_no_reference() -> None:
    """What happens to the data after a snapshot does not happen to the snapshot."""
    kind = data_type(Order)
    order = Order(lines=[Line()])
    saved = kind.snapshot(order)
    order.lines[0].count = 99
    order.lines.append(Line())

    assert [Line()] == kind.restore(order, saved).lines


def test_unvalidated_leftovers_go() -> None:
    """Restoring a model takes away the extra fields that came after the snapshot."""
    kind = data_type(Model)
    model = Model()
    saved = kind.snapshot(model)
    model.stranger = 1  # type: ignore[attr-defined]

    assert Model() == kind.restore(model, saved)


def test_fresh_for_every_run() -> None:
    """Runs without data of their own share nothing."""
    kind = data_type(Order)
    kind.new().lines.append(Line())

    assert Order() == kind.new()


def test_custom_types_of_pydantic_are_its_own_affair() -> None:
    """A model that says how to write a foreign type is fine."""

    class Wire(pydantic.BaseModel, arbitrary_types_allowed=True):
        at: complex = 1j

        @pydantic.field_serializer("at")
        def _write(self, at: complex) -> str:
            return str(at)

        @pydantic.field_validator("at", mode="before")
        @classmethod
        def _read(cls, at: Any) -> complex:
            return complex(at)

    kind = data_type(Wire)

    assert Wire(at=2 + 1j) == kind.restore(Wire(), kind.snapshot(Wire(at=2 + 1j)))


@dataclass
class Number:
    value: float = 0.0
    maybe: float | None = None
    many: list[float | None] = field(default_factory=list)


def test_none_is_a_value() -> None:
    """None is written and read where it may be, and is not taken for a number that is none."""
    kind = data_type(Number)

    assert Number(1.5, None, [None]) == kind.restore(
        Number(), kind.snapshot(Number(1.5, None, [None]))
    )


class Constrained(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


def test_constraints_hold_when_read_back() -> None:
    """A constraint in the annotation is checked on the way back."""
    kind = data_type(Constrained)
    assert Constrained(5) == kind.restore(Constrained(), kind.snapshot(Constrained(5)))
    with pytest.raises(DataError, match=r"Constrained\.count was saved as -1, .*>= 0"):
        kind.restore(Constrained(), kind.snapshot(Constrained(-1)))


def test_given_data_is_the_runs_object() -> None:
    """What a run is given is what its tasks see, and what it leaves behind."""
    seen = []

    async def work(ctx: Context[Order]) -> Literal[Step.DONE]:
        seen.append(ctx.data)
        ctx.data.total = 5
        return Step.DONE

    order = Order()
    run(
        Workflow(Step, data=Order)
        .register(Step.WORK, work)
        .exits(Step.DONE)
        .run(Step.WORK, data=order)
    )

    assert seen[0] is order
    assert 5 == order.total


@pytest.mark.parametrize("kind", [Order, Slotted, Frozen, FrozenSlotted, Struct, FrozenStruct])
def test_every_attempt_starts_with_the_data_of_the_first(kind: Any) -> None:
    """A retry finds the data as the state was entered with it, in types of every make."""
    first, seen = next(iter(data_type(kind).fields)), []

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append(getattr(ctx.data, first))
        ctx.data = kind(**{first: 7})
        if ctx.attempt < 3:
            raise ConnectionError
        return Step.DONE

    built = Workflow(Step, data=kind).register(Step.WORK, work, Retry.fixed(3, 0))
    run(built.exits(Step.DONE).run(Step.WORK))

    assert [0, 0, 0] == seen


def test_secrets_in_tasks_do_not_stop_a_run_without_retry() -> None:
    """Data is only written down where something asks for it."""

    async def work(ctx: Context[Order]) -> Literal[Step.DONE]:
        ctx.data.anything = asyncio.current_task()
        return Step.DONE

    built = Workflow(Step, data=Order).register(Step.WORK, work).exits(Step.DONE)

    assert Step.DONE == run(built.run(Step.WORK))
