"""Where the histories of runs are kept."""

from typing import TYPE_CHECKING, Any

from cano.checkpoints.store import (
    CheckpointStore,
    Claim,
    Due,
    Message,
    NewRun,
    Owner,
    RunQuery,
    RunSummary,
    Status,
)

if TYPE_CHECKING:  # loaded when first asked for, by `__getattr__`
    from cano.checkpoints.memory import MemoryCheckpoints
    from cano.checkpoints.sqlite import SqliteCheckpoints

_LATER = {
    "MemoryCheckpoints": "cano.checkpoints.memory",
    "SqliteCheckpoints": "cano.checkpoints.sqlite",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cano.checkpoints' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 -- with it, what few programs need

    return getattr(import_module(_LATER[name]), name)


__all__ = [
    "CheckpointStore",
    "Claim",
    "Due",
    "MemoryCheckpoints",
    "Message",
    "NewRun",
    "Owner",
    "RunQuery",
    "RunSummary",
    "SqliteCheckpoints",
    "Status",
]
