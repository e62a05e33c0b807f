"""What changed of the run data, on its way into a store.

Rule 1: a text, a whole number and a truth value travel as they are, and are written down together
        with the event they are in; everything else is JSON already.
Rule 2: whoever looks at them sees JSON: observers, and whoever reads what was stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from cano.events import Patch

Travelling: TypeAlias = msgspec.Raw | str | int
"""One field, as JSON or as it is."""

_encode = msgspec.json.Encoder().encode


def as_json(value: Travelling) -> bytes:
    """One field as JSON."""
    return bytes(value) if type(value) is msgspec.Raw else _encode(value)


def written(patch: Mapping[str, Any]) -> Patch:
    """All fields as JSON."""
    return {
        name: value if type(value) is msgspec.Raw else msgspec.Raw(_encode(value))
        for name, value in patch.items()
    }
