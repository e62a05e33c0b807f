"""What SQLite says, in words that help."""

from __future__ import annotations

import sqlite3
from copy import copy
from pathlib import Path

from cano.errors import CheckpointError

_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 26

_REMEDIES = {
    _BUSY: "another program has locked it; end that program, or allow more with busy_timeout",
    _LOCKED: "another program has locked it; end that program, or allow more with busy_timeout",
    _READONLY: "it may not be written; look at the permissions of the file and its directory",
    _IOERR: "it could not be read or written; look for a full or failing disk, or a size limit",
    _CORRUPT: "it is damaged; look at it with `cano db check`, and restore it from a backup",
    _FULL: "its disk is full; make room, and resume the runs that stopped",
    _CANTOPEN: "it cannot be opened; look at the permissions of the file and its directory",
    _NOTADB: "it is not a database; give the store a file of its own",
}
_HOPELESS = {*_REMEDIES, 7, 9}  # and: no memory, interrupted


def explain(error: BaseException, path: Path) -> CheckpointError:
    """A new error for whoever asked; SQLite's own, or the system's, is its cause."""
    if isinstance(error, CheckpointError):
        return copy(error)
    if isinstance(error, sqlite3.Error):
        text = f"{path}: {_REMEDIES.get(_code(error), 'it refused this')} ({error})"
    elif isinstance(error, OSError):
        text = f"{path} cannot be used: {error}; look at the permissions of its directory"
    else:
        text = f"{path}: this cannot be written down ({type(error).__name__}: {error})"
    explained = CheckpointError(text)
    explained.__cause__ = error
    return explained


def hopeless(error: BaseException) -> bool:
    """Whether it is the database that is in trouble, and not one change."""
    return isinstance(error, sqlite3.Error) and _code(error) in _HOPELESS


def spoiled(error: BaseException) -> bool:
    """Whether the connection may be the cause, so that a new one may do better."""
    if not isinstance(error, sqlite3.Error):
        return False
    return hopeless(error) and _code(error) not in (_BUSY, _LOCKED, _FULL)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
