"""What a workflow looks like to stored runs: what counts as a change, and how it is told."""

from __future__ import annotations

import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from cano._data import data_type
from cano._shape import (
    FieldShape,
    Leads,
    Shape,
    StateShape,
    changes,
    fields_of,
    fingerprint,
    read,
    shape_of,
    type_text,
)


class Step(Enum):
    PAY = "pay"
    SHIP = "ship"
    FAILED = "failed"
    DONE = "done"


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Hue(Enum):
    AZURE = "blue"
    SCARLET = "red"


@dataclass
class Line:
    sku: str
    count: int = 1


@dataclass
class Item:
    count: int = 1
    sku: str = field(kw_only=True)


@dataclass
class Order:
    total: int
    lines: list[Line] = field(default_factory=list)
    note: str | None = None


class Node(msgspec.Struct):
    children: list[Node] = []


class Tagged(msgspec.Struct, tag="card", rename="camel"):
    card_number: str


class Listed(msgspec.Struct, array_like=True):
    b: int
    a: int


class Pair(NamedTuple):
    b: int
    a: str = ""


class Loose(TypedDict, total=False):
    x: int


class Model(pydantic.BaseModel):
    count: Annotated[int, pydantic.Field(gt=0)]
    parent: Model | None = None
    lines: list[Line] = pydantic.Field(default_factory=list)


LEADS: Leads = (
    ("PAY", "SHIP"),
    (frozenset({Step.SHIP, Step.DONE}), None),
    (("FAILED",), ()),
)
PAY = StateShape("run", True, ("DONE", "SHIP"), ("FAILED",))
SHAPE = Shape(
    3,
    {"PAY": PAY, "SHIP": StateShape("step")},
    ("DONE", "FAILED"),
    {"total": FieldShape("int"), "note": FieldShape("str", default=True)},
)


def shape(**other: Any) -> Shape:
    settings: dict[str, Any] = {
        "exits": ["FAILED", "DONE"],
        "models": {"PAY": "run", "SHIP": "step"},
        "undoable": lambda state: state == "PAY",
        "data": data_type(Order),
    }
    return shape_of(3, LEADS, **{**settings, **other})


def state(**changed: Any) -> Shape:
    """SHAPE with another PAY."""
    pay = msgspec.structs.replace(PAY, **changed)
    return msgspec.structs.replace(SHAPE, states={**SHAPE.states, "PAY": pay})


def test_a_shape_says_what_stored_runs_depend_on() -> None:
    """States with their models, edges and undoing, exits, and fields of the data are in it."""
    assert (
        Shape(
            3,
            {"PAY": PAY, "SHIP": StateShape("step")},
            ("DONE", "FAILED"),
            {
                "total": FieldShape("int"),
                "lines": FieldShape("list[{count: int = ..., sku: str}]", default=True),
                "note": FieldShape("str | None", default=True),
            },
        )
        == shape()
    )


def test_a_workflow_without_data_has_no_fields() -> None:
    """No run data is the same as run data without fields: a run stores neither."""
    assert {} == shape(data=None).data


def test_states_and_exits_are_in_a_shape() -> None:
    """A run can be in a state with a task and in an exit, and nowhere else."""
    assert [True, True, False] == [name in SHAPE for name in ("PAY", "DONE", "GONE")]


def test_order_of_definition_does_not_matter() -> None:
    """The same workflow, registered in another order, has the same fingerprint."""
    leads: Leads = (
        ("SHIP", "PAY"),
        (None, frozenset({Step.DONE, Step.SHIP})),
        ((), ("FAILED",)),
    )
    turned = shape_of(
        3,
        leads,
        exits=["DONE", "FAILED"],
        models={"SHIP": "step", "PAY": "run"},
        undoable=lambda state: state == "PAY",
        data=data_type(Order),
    )

    assert fingerprint(shape()) == fingerprint(turned)


def test_a_fingerprint_is_for_ever() -> None:
    """Fingerprints are stored: a later cano must work out the same for the same workflow."""
    assert "cc13f7bba8c049b6" == fingerprint(SHAPE)


def test_fingerprints_agree_between_processes() -> None:
    """Another process, with other hashes of texts, works out the same fingerprint."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('shapes', {__file__!r})\n"
        "shapes = sys.modules['shapes'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(shapes)\n"
        "print(shapes.fingerprint(shapes.shape()))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert {fingerprint(shape())} == told


def test_a_written_shape_comes_back() -> None:
    """What a store keeps of a shape is all of it."""
    assert read(shape().written()) == shape()


def test_an_unknown_shape_is_none() -> None:
    """A shape that is not there, or cannot be read, is simply not known."""
    assert (None, None) == (read(None), read(b'{"version": "old"}'))


CHANGES: list[tuple[str, Callable[[], Shape], list[str]]] = [
    ("nothing", lambda: SHAPE, []),
    (
        "version",
        lambda: msgspec.structs.replace(SHAPE, version=4),
        ["version 3 became 4"],
    ),
    (
        "state removed",
        lambda: msgspec.structs.replace(SHAPE, states={"PAY": PAY}),
        ["state SHIP was removed"],
    ),
    (
        "state added",
        lambda: msgspec.structs.replace(SHAPE, states={**SHAPE.states, "PACK": StateShape()}),
        ["state PACK was added"],
    ),
    (
        "state became an exit",
        lambda: msgspec.structs.replace(SHAPE, states={"PAY": PAY}, exits=(*SHAPE.exits, "SHIP")),
        ["SHIP was a state with a task and became an exit"],
    ),
    (
        "exit became a state",
        lambda: msgspec.structs.replace(
            SHAPE, states={**SHAPE.states, "FAILED": StateShape()}, exits=("DONE",)
        ),
        ["FAILED was an exit and became a state with a task"],
    ),
    (
        "exit added",
        lambda: msgspec.structs.replace(SHAPE, exits=(*SHAPE.exits, "LATE")),
        ["exit LATE was added"],
    ),
    (
        "exit removed",
        lambda: msgspec.structs.replace(SHAPE, exits=("DONE",)),
        ["exit FAILED was removed"],
    ),
    (
        "edges",
        lambda: state(targets=("FAILED", "SHIP")),
        ["edge PAY → DONE was removed", "edge PAY → FAILED was added"],
    ),
    (
        "edges of failures",
        lambda: state(otherwise=("DONE",)),
        [
            "edge PAY → DONE (otherwise) was added",
            "edge PAY → FAILED (otherwise) was removed",
        ],
    ),
    (
        "anywhere",
        lambda: state(targets=None),
        ["PAY led to DONE, SHIP and may lead anywhere now"],
    ),
    (
        "not anywhere",
        lambda: msgspec.structs.replace(
            SHAPE, states={"PAY": PAY, "SHIP": StateShape("step", targets=())}
        ),
        ["SHIP could lead anywhere and leads to nothing now"],
    ),
    (
        "model",
        lambda: state(model="step"),
        ["the task of PAY is of another model: run became step"],
    ),
    (
        "plain model",
        lambda: state(model=""),
        ["the task of PAY is of another model: run became plain"],
    ),
    (
        "no undoing",
        lambda: state(undoable=False),
        ["the work of PAY can no longer be undone"],
    ),
    (
        "undoing",
        lambda: msgspec.structs.replace(
            SHAPE, states={"PAY": PAY, "SHIP": StateShape("step", undoable=True)}
        ),
        ["the work of SHIP can now be undone"],
    ),
    (
        "field removed",
        lambda: msgspec.structs.replace(SHAPE, data={"total": FieldShape("int")}),
        ["data field note was removed"],
    ),
    (
        "fields added",
        lambda: msgspec.structs.replace(
            SHAPE, data={**SHAPE.data, "a": FieldShape("int"), "b": FieldShape("str", default=True)}
        ),
        [
            "data field a (int) was added, without a default",
            "data field b (str) was added, with a default",
        ],
    ),
    (
        "field retyped, defaults",
        lambda: msgspec.structs.replace(
            SHAPE, data={"total": FieldShape("float", default=True), "note": FieldShape("str")}
        ),
        [
            "data field note has no default now",
            "data field total was int and is float now",
            "data field total has a default now",
        ],
    ),
]


@pytest.mark.parametrize(
    ("other", "told"), [(other, told) for _, other, told in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_every_change_is_named(other: Callable[[], Shape], told: list[str]) -> None:
    """Each difference of two shapes is a sentence that names it, and changes the fingerprint."""
    assert told == changes(SHAPE, other())
    assert (not told) == (fingerprint(SHAPE) == fingerprint(other()))


TYPES: list[tuple[Any, str]] = [
    (int, "int"),
    (Any, "Any"),
    (typing.Union[str, int, None], "int | str | None"),  # noqa: UP007
    (typing.Optional[int], "int | None"),  # noqa: UP045
    (Literal["b", "a", 1], "Literal['a', 'b', 1]"),
    (Annotated[int, msgspec.Meta(ge=0)], "int"),
    (Annotated[int, msgspec.Meta(title="Count")], "int"),
    (list, "list[Any]"),
    (dict[str, list[int]], "dict[str, list[int]]"),
    (tuple[int, str], "tuple[int, str]"),
    (tuple[int, ...], "tuple[int, ...]"),
    (tuple[()], "tuple[]"),
    (set[Decimal], "set[decimal]"),
    (Path, "Path"),
    (Color, "Literal['blue', 'red']"),
    (Line, "{count: int = ..., sku: str}"),
    (Node, "{children: list[Node] = ...}"),
    (Tagged, "{type: 'card', cardNumber: str}"),
    (Listed, "[b: int, a: int]"),
    (Pair, "[b: int, a: str = ...]"),
    (Loose, "{x: int = ...}"),
    (
        Model,
        "{count: int, lines: list[{count: int = ..., sku: str}] = ..., parent: Model | None = ...}",
    ),
    (lambda: None, "<function <lambda>>"),
]


@pytest.mark.parametrize(("kind", "text"), TYPES, ids=[text for _, text in TYPES])
def test_types_have_a_stable_text(kind: Any, text: str) -> None:
    """A type is written as its JSON may be: alike in every process, whatever it was imported as."""
    assert text == type_text(kind)


@pytest.mark.parametrize(("old", "new"), [(Line, Item), (Color, Hue)])
def test_a_new_name_for_a_type_is_no_change(old: type[Any], new: type[Any]) -> None:
    """Classes are compared by what they hold, not by what they or their members are called."""
    assert type_text(old) == type_text(new)


def test_fields_of_a_model() -> None:
    """A pydantic model is described as a dataclass is."""
    assert {
        "count": FieldShape("int"),
        "parent": FieldShape("Model | None", default=True),
        "lines": FieldShape("list[{count: int = ..., sku: str}]", default=True),
    } == fields_of(data_type(Model))


def test_fields_of_a_struct_have_their_own_names() -> None:
    """A struct that is run data is stored by attribute, whatever its fields are renamed to."""
    assert {"card_number": FieldShape("str")} == fields_of(data_type(Tagged))
