"""Run data: what type it may have, fresh values, and how it is written down and brought back.

A snapshot maps each attribute to its JSON, so that two snapshots say which fields changed, and a
store can keep the changed ones alone. Dataclasses and msgspec structs are written by msgspec,
pydantic models by themselves.

Rule 1: what is written down comes back equal, or writing it is an error. A value comes back as
        what its field is annotated with: a tuple in a `Sequence` field as a list.
Rule 2: what cannot ever be written down is found in the type, before the first run.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, Generic, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast, get_type_hints

import msgspec

from cano._kinds import an
from cano.errors import DataError
from cano.events import Patch

D = TypeVar("D")

Snapshot: TypeAlias = dict[str, bytes]

LARGEST = 64 * 1024 * 1024
"""Bytes of JSON that one field, or one value, may come to."""


class FieldType(NamedTuple):
    """How one field is read back."""

    decode: Callable[[bytes], Any]
    loose: bool
    """Whether it may hold anything, so that what it holds must be looked at when written."""
    plain: type[Any] | None = None
    """What it is annotated with, if that is `str`, `int` or `bool`: nothing to look at then."""


class DataType(Generic[D]):
    """How values of one type are made, written down and brought back."""

    def __init__(self, kind: type[D], fields: Mapping[str, FieldType], frozen: bool) -> None:
        self.kind = kind
        self.fields = fields
        self.frozen = frozen
        self._plain = tuple((name, field.plain) for name, field in fields.items())

    def new(self) -> D:
        """A fresh value, from the type's own defaults. Raises `DataError` if one is missing."""
        try:
            return self.kind()
        except Exception as error:
            raise DataError(
                f"{self.kind.__name__}() raised {type(error).__name__}: {error}; give every field "
                f"a default or start the run with data={self.kind.__name__}(...)"
            ) from error

    def snapshot(self, data: D) -> Snapshot:
        """Write every field down. Raises `DataError` naming the field that cannot be."""
        return {name: self._write(name, getattr(data, name)) for name in self.fields}

    def changes(self, data: D, known: Mapping[str, Any]) -> Patch | None:
        """The fields that are not as *known*, ready to be recorded; None if all are.

        Raises `DataError`, also for what could not be read back as what its field is annotated
        with: a resume would be too late to find that.
        """
        changed: dict[str, Any] = {}
        for name, plain in self._plain:
            value: Any = getattr(data, name)
            kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
            before = known.get(name)
            short = kind is str and value.isascii() and len(value) <= _SHORT
            if kind is plain and (short or (kind is not str and _LEAST <= value <= _MOST)):
                if type(before) is msgspec.Raw:  # it was read from the store
                    before = self.fields[name].decode(bytes(before))
                if value != before or type(before) is not kind:
                    changed[name] = value
            else:
                raw = self._write(name, value)
                if type(before) is not msgspec.Raw or raw != bytes(before):
                    self._read(name, raw)
                    changed[name] = msgspec.Raw(raw)
        return changed or None

    def _write(self, name: str, value: object) -> bytes:
        """One field. Raises `DataError`."""
        kind = type(value)
        decode, loose, _ = self.fields[name]
        try:
            raw = encode(value)
            if loose or b"null" in raw:
                verify(value, raw, decode if loose else None)
        except Exception as error:
            raise DataError(
                f"{self.kind.__name__}.{name} holds {an(kind.__name__)} that cannot be written "
                f"down: {error}; keep such objects in resources, not in run data"
            ) from error
        return raw

    def rebuild(self, saved: Mapping[str, bytes]) -> D:
        """A value made of what was saved, whatever the type does when one is made.

        A field that was not saved, because it is new, has its default. Raises `DataError`.
        """
        values = {
            name: self._read(name, saved[name]) if name in saved else self._default(name)
            for name in self.fields
        }
        put: Callable[..., None] = object.__setattr__
        if issubclass(self.kind, msgspec.Struct):  # cannot be made without its __init__
            put = msgspec.structs.force_setattr
            try:
                data: Any = self.kind(**values)
            except Exception as error:
                raise DataError(
                    f"{an(self.kind.__name__)} cannot be made of what was saved: {error}; its "
                    "__post_init__ must accept what it has become"
                ) from error
        else:
            data = self.kind.__new__(self.kind)
        for name, value in values.items():
            put(data, name, value)
        return cast("D", data)

    def _default(self, name: str) -> Any:
        """What a field has that was not saved. Raises `DataError` if it has no default."""
        lacking: Any = dataclasses.MISSING
        fields: Any = dataclasses.fields
        if issubclass(self.kind, msgspec.Struct):
            lacking, fields = msgspec.NODEFAULT, msgspec.structs.fields
        field = next(field for field in fields(self.kind) if field.name == name)
        if field.default is not lacking:
            return field.default
        if field.default_factory is lacking:
            raise DataError(
                f"{self.kind.__name__}.{name} was not saved and has no default; give it one"
            )
        try:
            return field.default_factory()
        except Exception as error:
            raise DataError(
                f"the default of {self.kind.__name__}.{name} raised {type(error).__name__}: {error}"
            ) from error

    def restore(self, data: D, saved: Snapshot) -> D:
        """Bring every field back to what was saved: in *data* itself, or a copy if it is frozen."""
        values = {name: self._read(name, raw) for name, raw in saved.items()}
        put: Callable[..., None] = setattr
        if self.frozen:
            data = copy.copy(data)
            struct = isinstance(data, msgspec.Struct)
            put = msgspec.structs.force_setattr if struct else object.__setattr__
        for name, value in values.items():
            put(data, name, value)
        return data

    def problem(self, data: object) -> str | None:
        """Why *data* is not what this workflow's runs work on, if so."""
        kind = type(data)
        if kind is self.kind:
            return None
        wanted = self.kind.__name__
        if not isinstance(data, self.kind):
            return f"run data is {an(kind.__name__)}, not {an(wanted)}"
        if data_type(kind).fields.keys() != self.fields.keys():
            return (
                f"run data is {an(kind.__name__)}, whose own fields {an(wanted)} does not have; "
                f"say data={kind.__name__} to the workflow"
            )
        return None

    def _read(self, name: str, raw: bytes) -> Any:
        try:
            return self.fields[name].decode(raw)
        except Exception as error:
            raise DataError(
                f"{self.kind.__name__}.{name} was saved as {raw[:100].decode(errors='replace')}, "
                f"which is not what it is annotated with: {error}; mend the annotation, or what "
                "is assigned to it"
            ) from error


class _PydanticData(DataType[Any]):
    """A pydantic model writes and validates itself; its JSON is split into fields here."""

    def snapshot(self, data: Any) -> Snapshot:
        computed = set(self.kind.model_computed_fields)
        try:
            dumped = data.model_dump(mode="json", by_alias=False, exclude=computed)
        except Exception as error:
            raise DataError(
                f"{an(self.kind.__name__)} cannot be written down: {error}; keep such objects in "
                "resources, not in run data"
            ) from error
        return {name: encode(value) for name, value in dumped.items()}

    def changes(self, data: Any, known: Mapping[str, Any]) -> Patch | None:
        saved = self.snapshot(data)
        written = {name: msgspec.Raw(raw) for name, raw in saved.items()}
        changed = {name: raw for name, raw in written.items() if raw != known.get(name)}
        if changed:
            self.rebuild(saved)  # raises now what a resume would raise too late
        return changed or None

    def rebuild(self, saved: Mapping[str, bytes]) -> Any:
        text = b",".join([encode(name) + b":" + raw for name, raw in saved.items()])
        try:
            return self.kind.model_validate_json(b"{" + text + b"}", by_name=True)
        except Exception as error:
            raise DataError(
                f"{an(self.kind.__name__)} cannot be read back: {error}; its validators must accept "
                "what it has become"
            ) from error

    def restore(self, data: Any, saved: Snapshot) -> Any:
        restored = self.rebuild(saved)
        if self.frozen:
            return restored
        for part in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__"):
            object.__setattr__(data, part, getattr(restored, part))
        return data


def data_type(kind: type[D]) -> DataType[D]:
    """Look at *kind*, once. Raises `DataError` if runs cannot work on it."""
    if not isinstance(kind, type):
        raise DataError(f"data must be a class, not {kind!r}; pass the class itself")
    anything: Any = kind
    return _look(anything)


@lru_cache(maxsize=256)
def _look(kind: type[Any]) -> DataType[Any]:
    if hasattr(kind, "model_validate_json") and hasattr(kind, "model_fields"):
        return _look_at_model(kind)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        frozen: bool = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    elif issubclass(kind, msgspec.Struct):
        names = list(kind.__struct_fields__)
        frozen = kind.__struct_config__.frozen
    else:
        raise DataError(
            f"run data of type {kind.__name__} cannot be written down; "
            "use a dataclass, a msgspec.Struct or a pydantic model"
        )
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception as error:
        raise DataError(
            f"the annotations of {kind.__name__} cannot be read: {error}; define what they name "
            "where the class can see it, at the top of its module"
        ) from error
    return DataType(
        kind, {name: field_type(f"{kind.__name__}.{name}", hints[name]) for name in names}, frozen
    )


def _look_at_model(kind: Any) -> DataType[Any]:
    hidden = [name for name, field in kind.model_fields.items() if field.exclude]
    try:
        with warnings.catch_warnings(action="ignore"):
            schema = kind.model_json_schema(mode="serialization")
    except Exception as error:
        raise DataError(
            f"{kind.__name__} cannot be written down: {error}; keep such objects in resources, or "
            "annotate what their field_serializer returns"
        ) from error
    if b'"writeOnly":true' in msgspec.json.encode(schema):
        hidden.append("a secret")
    if hidden:
        raise DataError(
            f"{kind.__name__} does not write down {', '.join(hidden)}, which would be lost; keep "
            "such values in resources, or drop exclude=True"
        )
    fields = dict.fromkeys(kind.model_fields, FieldType(msgspec.json.decode, loose=False))
    return _PydanticData(kind, fields, bool(kind.model_config.get("frozen")))


def field_type(what: str, hint: Any) -> FieldType:
    """How *what*, annotated with *hint*, is read back. Raises `DataError` if it cannot be."""
    import msgspec.inspect  # noqa: PLC0415 -- only workflows with data pay for it

    try:
        parts = list(_parts(msgspec.inspect.type_info(hint), set()))
        decoder = msgspec.json.Decoder(hint, dec_hook=_revive)
    except TypeError as error:
        raise DataError(f"{what} cannot be written down: {error}") from error
    for part in parts:
        if (foreign := _foreign(part)) is not None:
            raise DataError(
                f"{what} holds {foreign}, which cannot be written down; keep "
                "such objects in resources, or give the field a plain type"
            )
    loose = any(isinstance(part, msgspec.inspect.AnyType) for part in parts)
    plain = hint if hint in (str, int, bool) else None
    return FieldType(decoder.decode, loose, plain)


def _parts(info: Any, seen: set[int]) -> Iterator[Any]:
    """A type as msgspec sees it, and all types inside it."""
    if id(info) in seen or not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return
    seen.add(id(info))
    yield info
    for name in info.__struct_fields__:
        inside = getattr(info, name)
        for part in inside if _several(inside) else (inside,):
            yield from _parts(part, seen)


def _several(inside: object) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(inside, tuple)


def _foreign(part: Any) -> str | None:
    """What of a type msgspec knows nothing about and we cannot revive either."""
    types: Any = msgspec.inspect
    if isinstance(part, types.CustomType):
        known = hasattr(part.cls, "__fspath__") or hasattr(part.cls, "model_validate_json")
        return None if known else an(part.cls.__name__)
    if isinstance(part, types.RawType | types.ExtType):
        return an(type(part).__name__)
    if isinstance(part, types.DictType) and not isinstance(
        part.key_type,
        types.StrType | types.IntType | types.FloatType | types.DecimalType | types.UUIDType
        | types.DateTimeType | types.DateType | types.TimeType | types.TimeDeltaType
        | types.EnumType | types.LiteralType | types.BytesType | types.UnionType | types.AnyType
    ):  # fmt: skip
        return f"a dict with keys of {type(part.key_type).__name__}"
    return None


_SHORT = LARGEST // 12
"""Texts of fewer characters cannot be too long as JSON."""
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers that every encoder of JSON can write."""


def encode(value: Any) -> bytes:
    """*value* as JSON. Raises `ValueError` if that is more than may be kept."""
    raw = msgspec.json.encode(value, enc_hook=_reduce)  # unsorted: a dict keeps its order
    if len(raw) > LARGEST:
        raise ValueError(
            f"it is {len(raw) / 1e6:.0f} MB of JSON, and {LARGEST / 1e6:.0f} MB is the limit; keep "
            "it in a file or an object store, and its name here"
        )
    return raw


def verify(value: Any, raw: bytes, decode: Callable[[bytes], Any] | None) -> None:
    """Raise `ValueError` if *raw* says something else than *value*."""
    if b"null" in raw:
        for leaf in _leaves(msgspec.to_builtins(value, enc_hook=_reduce)):
            if isinstance(leaf, float) and not isfinite(leaf):
                raise ValueError(f"JSON has no {leaf}")
    if decode is not None and decode(raw) != value:
        raise ValueError("it would come back as something else; annotate the field with its type")


def _leaves(value: Any) -> Iterator[Any]:
    kind = cast("Any", type(value))
    if kind is dict:
        value = value.values()
    elif kind not in (list, tuple, set, frozenset):
        yield value
        return
    for inner in value:
        yield from _leaves(inner)


def _reduce(value: Any) -> Any:
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=False)
    raise NotImplementedError(f"{type(value).__name__} is no type that JSON or msgspec knows")


def _revive(kind: type[Any], value: Any) -> Any:
    if hasattr(kind, "__fspath__"):
        return kind(value)
    model: Any = kind
    return model.model_validate_json(msgspec.json.encode(value), by_name=True)
