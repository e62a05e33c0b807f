"""Run data: what type it may have, fresh values, and how it is written down and brought back.

A snapshot maps each field to its JSON, so that two snapshots say which fields changed, and a
store can keep the changed ones alone. Dataclasses and msgspec structs are written by msgspec,
pydantic models by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar, get_type_hints

import msgspec

from cano.errors import DataError

D = TypeVar("D")

Snapshot: TypeAlias = dict[str, bytes]


class DataType(Generic[D]):
    """How values of one type are made, written down and brought back."""

    def __init__(self, kind: type[D], decoders: Mapping[str, Callable[[bytes], Any]]) -> None:
        self.kind = kind
        self._decoders = decoders

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
        saved: Snapshot = {}
        for name, value in self._fields(data):
            try:
                saved[name] = _encode(value)
            except Exception as error:
                raise DataError(
                    f"{self.kind.__name__}.{name} holds a {type(value).__name__} that cannot be "
                    f"written down: {error}; keep such objects in resources, not in run data"
                ) from error
        return saved

    def restore(self, data: D, saved: Snapshot) -> D:
        """Bring every field back to what was saved: in *data* itself, or a copy if it is frozen."""
        return self._put(data, {name: self._decoders[name](raw) for name, raw in saved.items()})

    def problem(self, data: object) -> str | None:
        """Why *data* is not what this workflow's runs work on, if so."""
        if isinstance(data, self.kind):
            return None
        return f"run data is a {type(data).__name__}, not a {self.kind.__name__}"

    def _fields(self, data: D) -> list[tuple[str, Any]]:
        return [(name, getattr(data, name)) for name in self._decoders]

    def _put(self, data: D, values: dict[str, Any]) -> D:
        try:
            for name, value in values.items():
                setattr(data, name, value)
        except (AttributeError, TypeError):  # frozen: the first assignment is refused
            replace: Any = msgspec.structs.replace
            if not isinstance(data, msgspec.Struct):
                replace = dataclasses.replace
            copied: D = replace(data, **values)
            return copied
        return data


class _PydanticData(DataType[D]):
    """A pydantic model writes and validates itself; its JSON is split into fields here."""

    def _fields(self, data: D) -> list[tuple[str, Any]]:
        dumped: dict[str, Any] = data.model_dump(mode="json")  # type: ignore[attr-defined]
        return [(name, dumped[name]) for name in self._decoders]

    def _put(self, data: D, values: dict[str, Any]) -> D:
        restored = self.kind.model_validate(values)  # type: ignore[attr-defined]
        data.__dict__.update(restored.__dict__)
        return data


@lru_cache(maxsize=256)
def data_type(kind: type[D]) -> DataType[D]:
    """Look at *kind* once. Raises `DataError` if runs cannot work on it."""
    if hasattr(kind, "model_validate") and hasattr(kind, "model_fields"):
        fields: Any = getattr(kind, "model_fields")  # noqa: B009 -- no type says that it is there
        return _PydanticData(kind, dict.fromkeys(fields, msgspec.json.decode))
    if not (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
        raise DataError(
            f"run data of type {kind.__name__} cannot be written down; "
            "use a dataclass, a msgspec.Struct or a pydantic model"
        )
    hints = get_type_hints(kind, include_extras=True)
    names = (
        [field.name for field in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else list(kind.__struct_fields__)  # type: ignore[attr-defined]
    )
    return DataType(kind, {name: _decoder(kind, name, hints[name]) for name in names})


def _decoder(owner: type[Any], name: str, hint: Any) -> Callable[[bytes], Any]:
    """How a field is read back. Raises `DataError` if its type says that it cannot be."""
    import msgspec.inspect  # noqa: PLC0415 -- only workflows with data pay for it

    try:
        foreign = list(_foreign(msgspec.inspect.type_info(hint), set()))
        decoder = msgspec.json.Decoder(hint, dec_hook=_revive)
    except TypeError as error:
        raise DataError(f"{owner.__name__}.{name} cannot be written down: {error}") from error
    if foreign:
        raise DataError(
            f"{owner.__name__}.{name} holds a {foreign[0].__name__}, which cannot be written "
            "down; keep such objects in resources, or give the field a plain type"
        )
    return decoder.decode


def _foreign(info: Any, seen: set[int]) -> list[type[Any]]:
    """The types inside *info* that msgspec knows nothing about and we cannot revive either."""
    if id(info) in seen:
        return []
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return [] if hasattr(info.cls, "model_validate") else [info.cls]
    if isinstance(info, msgspec.inspect.RawType | msgspec.inspect.ExtType):
        return [type(info)]
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return []
    found: list[type[Any]] = []
    for name in info.__struct_fields__:
        part = getattr(info, name)
        for inner in part if isinstance(part, tuple) else (part,):
            found += _foreign(inner, seen)
    return found


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_reduce, order="deterministic")


def _reduce(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} is no type that JSON or msgspec knows")


def _revive(kind: type[Any], value: Any) -> Any:
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise NotImplementedError(f"{kind.__name__} is no type that JSON or msgspec knows")
