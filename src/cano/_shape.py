"""What a workflow looks like to a stored run, and how two of its versions differ. Pure.

Rule 1: a shape holds what a stored run can meet: states, edges, data fields. Names that no run
        stores (of functions, classes, policies) may change without a trace here.
Rule 2: equal shapes, equal fingerprints and no changes are one and the same.
Rule 3: the same definition has the same fingerprint in every process and Python version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from cano._data import DataType

Leads: TypeAlias = tuple[
    tuple[str, ...], tuple[frozenset[Enum] | None, ...], tuple[tuple[str, ...], ...]
]
"""The states that have a task, and where each may lead: by what it returns, None is anywhere, and
by failing."""


class StateShape(msgspec.Struct, frozen=True, omit_defaults=True):
    """A state that has a task."""

    model: str = ""
    """How the task is carried out, empty for a plain one; what it has done of a visit means nothing
    to another model."""
    undoable: bool = False
    targets: tuple[str, ...] | None = None
    """None is anywhere."""
    otherwise: tuple[str, ...] = ()
    """Where a failure leads."""


class FieldShape(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field of the run data."""

    type: str
    """What its JSON may be; see `type_text`."""
    default: bool = False
    """Whether a run may lack it."""


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version of a workflow, as far as stored runs depend on it."""

    version: int = 0
    states: dict[str, StateShape] = {}
    exits: tuple[str, ...] = ()
    data: dict[str, FieldShape] = {}

    def __contains__(self, state: str) -> bool:
        return state in self.states or state in self.exits

    def written(self) -> bytes:
        """This as JSON, the same for equal shapes."""
        return msgspec.json.encode(self, order="deterministic")


def shape_of(
    version: int,
    leads: Leads,
    *,
    exits: Iterable[str],
    models: Mapping[str, str],
    undoable: Callable[[str], bool],
    data: DataType[Any] | None,
) -> Shape:
    """Describe a workflow that was found to be right.

    Args:
        version: the number its author gave it.
        leads: its edges.
        exits: the states that end a run.
        models: by state, what tells the model of its task from others, such as its verb.
        undoable: whether the work of a state can be undone.
        data: the run data, None if there is none.
    """
    states = {
        name: StateShape(
            models.get(name, ""),
            undoable(name),
            None if targets is None else _sorted(target._name_ for target in targets),
            _sorted(otherwise),
        )
        for name, targets, otherwise in zip(*leads, strict=True)
    }
    return Shape(version, states, _sorted(exits), {} if data is None else fields_of(data))


def fields_of(data: DataType[Any]) -> dict[str, FieldShape]:
    """The fields of the run data."""
    kind: Any = data.kind
    return dict(_fields(kind))


def read(written: bytes | None) -> Shape | None:
    """The shape that was written; None if it is not known, or written by a later cano."""
    try:
        return None if written is None else msgspec.json.decode(written, type=Shape)
    except msgspec.MsgspecError:
        return None


def fingerprint(shape: Shape) -> str:
    """16 hexadecimal digits that stand for *shape*."""
    from hashlib import sha256  # noqa: PLC0415 -- only workflows with a store pay for it

    return sha256(shape.written()).hexdigest()[:16]


def changes(old: Shape, new: Shape) -> list[str]:
    """Every difference as a sentence that names it; none if and only if the two are equal."""
    return [
        *([f"version {old.version} became {new.version}"] if old.version != new.version else ()),
        *_changed_states(old, new),
        *_changed_fields(old.data, new.data),
    ]


def _changed_states(old: Shape, new: Shape) -> Iterator[str]:
    for name in _sorted({*old.states, *old.exits, *new.states, *new.exits}):
        before, after = old.states.get(name), new.states.get(name)
        was, became = _role(old, name), _role(new, name)
        if not was:
            yield f"{became} {name} was added"
        elif not became:
            yield f"{was} {name} was removed"
        elif was != became:
            yield f"{name} was {_a(was)} and became {_a(became)}"
        if before is not None and after is not None:
            yield from _changed_state(name, before, after)


def _role(shape: Shape, name: str) -> str:
    return "exit" if name in shape.exits else "state" if name in shape.states else ""


def _changed_state(name: str, old: StateShape, new: StateShape) -> Iterator[str]:
    if old.model != new.model:
        was, became = old.model or "plain", new.model or "plain"
        yield f"the task of {name} is of another model: {was} became {became}"
    if old.undoable != new.undoable:
        yield f"the work of {name} can {'now' if new.undoable else 'no longer'} be undone"
    if old.targets is None and new.targets is not None:
        yield f"{name} could lead anywhere and leads to {_listed(new.targets)} now"
    elif old.targets is not None and new.targets is None:
        yield f"{name} led to {_listed(old.targets)} and may lead anywhere now"
    elif old.targets is not None and new.targets is not None:
        yield from _changed_edges(name, old.targets, new.targets, "")
    yield from _changed_edges(name, old.otherwise, new.otherwise, " (otherwise)")


def _changed_edges(
    source: str, old: tuple[str, ...], new: tuple[str, ...], kind: str
) -> Iterator[str]:
    for target in _sorted({*old, *new}):
        if target not in old:
            yield f"edge {source} → {target}{kind} was added"
        elif target not in new:
            yield f"edge {source} → {target}{kind} was removed"


def _changed_fields(old: Mapping[str, FieldShape], new: Mapping[str, FieldShape]) -> Iterator[str]:
    for name in _sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if after is None:
            yield f"data field {name} was removed"
        elif before is None:
            has = "with" if after.default else "without"
            yield f"data field {name} ({after.type}) was added, {has} a default"
        else:
            if before.type != after.type:
                yield f"data field {name} was {before.type} and is {after.type} now"
            if before.default != after.default:
                yield f"data field {name} has {'a' if after.default else 'no'} default now"


@lru_cache(maxsize=256)
def _fields(kind: Any) -> tuple[tuple[str, FieldShape], ...]:
    """What a type of run data consists of."""
    if hasattr(kind, "model_fields"):
        parts = [(name, each.annotation, each.is_required()) for name, each in _model(kind)]
    else:
        from msgspec import inspect  # noqa: PLC0415 -- only workflows with data pay for it

        info: Any = inspect.type_info(kind)
        parts = [(each.name, each.type, each.required) for each in info.fields]
    return tuple((name, FieldShape(type_text(of, {kind}), not must)) for name, of, must in parts)


def type_text(of: Any, shown: set[type[Any]] | None = None) -> str:
    """What the JSON of a type may be, in the notation of annotations.

    Classes are taken apart into their fields, so that a change inside them is seen and a new name
    for them is not; only where one occurs again (it is in *shown*) it is called by its name. Limits
    (`Meta(ge=0)`) and validators are left out: what they forbid shows when data is read.
    """
    from msgspec import inspect  # noqa: PLC0415 -- only workflows with data pay for it

    shown = set() if shown is None else shown
    if not isinstance(of, inspect.Type):
        try:
            of = inspect.type_info(of)
        except Exception:  # noqa: BLE001 -- what msgspec has no word for is still some type
            return _named(of)
    if isinstance(of, inspect.Metadata):
        return type_text(of.type, shown)
    if isinstance(of, inspect.UnionType):
        return " | ".join(_none_last({type_text(each, shown) for each in of.types}))
    if isinstance(of, inspect.LiteralType):
        return f"Literal[{', '.join(_sorted(map(repr, of.values)))}]"
    kind: Any = getattr(of, "cls", None)
    if isinstance(of, inspect.EnumType):
        return f"Literal[{', '.join(_sorted({repr(each.value) for each in kind}))}]"
    return _plain_text(of, shown) if kind is None else _class_text(of, kind, shown)


def _class_text(of: Any, kind: Any, shown: set[type[Any]]) -> str:
    """A class as its fields; the tag it is known by comes first."""
    listed = type(of).__name__ == "NamedTupleType" or getattr(of, "array_like", False)
    if hasattr(kind, "model_fields"):
        parts = [(name, each.annotation, each.is_required()) for name, each in _model(kind)]
    else:
        fields = getattr(of, "fields", None)
        parts = [(each.encode_name, each.type, each.required) for each in fields or ()]
        if fields is None:
            return _named(kind)
    if kind in shown:
        return _named(kind)
    shown.add(kind)
    if not listed:
        parts.sort(key=lambda part: part[0])  # where they are found by name, order is no matter
    texts = [f"{name}: {type_text(of, shown)}{' = ...' * (not must)}" for name, of, must in parts]
    if getattr(of, "tag", None) is not None:
        texts.insert(0, f"{of.tag_field}: {of.tag!r}")
    return f"[{', '.join(texts)}]" if listed else "{" + ", ".join(texts) + "}"


def _plain_text(of: Any, shown: set[type[Any]]) -> str:
    """A type of msgspec's own: its name, and the types inside it."""
    name = type(of).__name__.removesuffix("Type")
    name = name if name in ("Any", "None") else name.lower()
    within = [getattr(of, part) for part in of.__struct_fields__ if part.endswith("_type")]
    if name == "tuple":
        within = [*of.item_types]
    texts = [type_text(each, shown) for each in within]
    if name == "vartuple":
        name, texts = "tuple", [*texts, "..."]
    return f"{name}[{', '.join(texts)}]" if texts or name == "tuple" else name


def _model(kind: Any) -> Iterable[tuple[str, Any]]:
    """The fields of a pydantic model, as pydantic describes them."""
    fields: Mapping[str, Any] = kind.model_fields
    return fields.items()


def _named(of: Any) -> str:
    """What has no notation: by name, without what differs from process to process."""
    name = of.__name__ if isinstance(of, type) else str(of).replace("typing.", "")
    return re.sub(r" at 0x[0-9a-f]+", "", name)


def _none_last(texts: set[str]) -> list[str]:
    return sorted(texts, key=lambda text: (text == "None", text))


def _a(role: str) -> str:
    return "an exit" if role == "exit" else "a state with a task"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
