"""Values that travel through a store: what branches, effects and signals bring, and outputs.

They are written down as JSON and come back as what the annotation of their producer says. What is
not annotated is plain JSON, and is compared when it is written: rather an error then than another
value later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from cano._data import FieldType, encode, field_type, verify
from cano._kinds import an
from cano.errors import DataError


class ValueType(NamedTuple):
    """How values of one origin are written and read. *what* says whose they are, in errors."""

    what: str
    field: FieldType

    def write(self, value: Any) -> msgspec.Raw:
        """*value* as JSON. Raises `DataError`."""
        decode, loose, _ = self.field
        try:
            raw = encode(value)
            if loose or b"null" in raw:
                verify(value, raw, decode if loose else None)
            if not loose:
                decode(raw)  # a wrong annotation is to be found now, not when the value is needed
        except Exception as error:
            raise DataError(
                f"{self.what} returned {an(type(value).__name__)} that cannot be written down: "
                f"{error}; return something plainer, or annotate what it is"
            ) from error
        return msgspec.Raw(raw)

    def read(self, raw: bytes | msgspec.Raw) -> Any:
        """What was written. Raises `DataError` if it is not what the annotation says."""
        text = bytes(raw)
        try:
            return self.field.decode(text)
        except Exception as error:
            shown = text[:100].decode(errors="replace")
            raise DataError(
                f"{self.what} was recorded as {shown}, which is not what it is annotated with: "
                f"{error}; mend the annotation"
            ) from error


def value_type(hint: Any, what: str) -> ValueType:
    """How what *hint* annotates is kept. Raises `DataError` if it cannot be."""
    plain = awaited(hint)
    try:
        return ValueType(what, _field(plain))
    except (DataError, TypeError):  # to be told whose it is; or a hint that cannot be remembered
        return ValueType(what, field_type(what, plain))


@lru_cache(256)
def _field(hint: Any) -> FieldType:
    """An effect asks for it at every call, and the branches of a split are often of one type."""
    return field_type("", hint)


def returns_of(call: Any) -> Any:
    """What *call* is annotated to return; anything, where that cannot be read."""
    function = getattr(call, "func", call)  # a partial says what its function says
    try:
        return get_type_hints(function, include_extras=True).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


def raw(value: bytes) -> msgspec.Raw:
    """JSON that is written down already."""
    return msgspec.Raw(value)


def awaited(hint: Any) -> Any:
    """What awaiting something of type *hint* gives."""
    origin = get_origin(hint)
    if origin is Annotated:
        return awaited(get_args(hint)[0])
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        arguments = get_args(hint)
        return arguments[-1] if issubclass(origin, Coroutine) or arguments else Any
    return hint
