"""Exceptions, written down and brought back: what is left of them in another process."""

from __future__ import annotations

import importlib
from typing import Any

from cano.errors import CanoError, RecordedError, note
from cano.events import Cause

LONGEST = 20_000
"""Characters of a traceback, and of a message, that are kept."""


def cause_of(error: BaseException) -> Cause:
    """Write *error* down, with its notes and where it was raised."""
    from traceback import format_exception  # noqa: PLC0415 -- only failures pay for it

    kind = type(error)
    text = "".join(format_exception(error))
    return Cause(
        kind=f"{kind.__module__}:{kind.__qualname__}",
        message=_short(said(error)),
        notes=tuple(writable(text) for text in getattr(error, "__notes__", ())),
        traceback=_short(writable(text)),
    )


def revive(cause: Cause) -> Exception:
    """The exception that *cause* tells of: as its own class if one text makes it, else recorded."""
    error = _own(cause) or RecordedError(cause.kind.partition(":")[2], cause.message)
    for text in cause.notes:
        note(error, text)
    if cause.traceback:
        note(error, f"cano: recorded in an earlier process:\n{cause.traceback}")
    return error


def _own(cause: Cause) -> Exception | None:
    module, _, name = cause.kind.partition(":")
    try:
        kind: Any = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        if not issubclass(kind, Exception) or issubclass(kind, ExceptionGroup):
            return None
        made = kind(cause.message)
    except Exception:  # noqa: BLE001 -- whatever it is: then it is only recorded
        return None
    # A class that says something else than it was told would tell a lie.
    return made if isinstance(made, Exception) and said(made) == cause.message else None


def said(error: BaseException) -> str:
    """What *error* says, as text that can be written down."""
    own = isinstance(error, CanoError)
    try:
        if isinstance(error, KeyError) and not own and len(error.args) == 1:
            return writable(str(error.args[0]))  # its str is a repr
        return writable(str(error))
    except Exception:  # noqa: BLE001 -- it has nothing to say for itself, but it did happen
        return "<its str() failed>"


def writable(text: str) -> str:
    """*text*, with what UTF-8 has no bytes for (file names may hold it) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n… {len(text) - LONGEST} characters left out …\n{text[-half:]}"
