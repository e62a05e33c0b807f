"""Run data from the command line: JSON text, a file, or standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from cano._data import _revive
from cano.cli.outcome import INVALID, NOT_FOUND, CommandError
from cano.cli.target import AnyWorkflow


def decode(workflow: AnyWorkflow, given: str) -> Any:
    """What `--data` *given* means, as the workflow's own data type. Raises `CommandError`."""
    kind = workflow.data
    if kind is None:
        raise CommandError(
            f"{workflow.name} has no run data, so --data has nowhere to go; say "
            f"Workflow({workflow.states.__name__}, data=...) to give it a type",
            INVALID,
        )
    raw = _read(given)
    try:
        if hasattr(kind, "model_validate_json"):
            return kind.model_validate_json(raw)
        _refuse_unknown(raw, kind)
        return msgspec.json.decode(raw, type=kind, dec_hook=_revive)
    except (msgspec.DecodeError, ValueError) as error:  # pydantic's is a ValueError
        syntax = isinstance(error, msgspec.DecodeError) and not isinstance(
            error, msgspec.ValidationError
        )
        what = "JSON" if syntax else kind.__name__
        raise CommandError(f"--data is no {what}: {error}", INVALID) from None


def _read(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise CommandError(f"--data: {given[1:]}: {error.strerror}", NOT_FOUND) from None


def _refuse_unknown(raw: bytes, kind: type[Any]) -> None:
    """A misspelt field would silently keep its default. Raises `ValueError`."""
    known: list[str] = (
        [field.name for field in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else list(kind.__struct_encode_fields__)
    )
    given: Any = msgspec.json.decode(raw)
    for name in _keys(given):
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"there is no field {name!r}; {hint}")


def _keys(value: Any) -> Sequence[str]:
    return list(value.keys()) if hasattr(value, "keys") else ()
