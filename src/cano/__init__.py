"""Cano: a typed, durable, async workflow engine.

States are an `Enum`, a task is an async function, and its return annotation is where it may lead.
"""

from typing import TYPE_CHECKING, Any

from cano._graph import Edge, Graph
from cano.context import Context
from cano.errors import (
    AttemptTimeoutError,
    CanoError,
    CorruptHistoryError,
    DataError,
    DefinitionError,
    DetachedContextError,
    DuplicateResourceError,
    JoinFailedError,
    KeyNotFoundError,
    MissingExtraError,
    NotJoinedError,
    RemoteError,
    ResourceError,
    ResourceNotFoundError,
    ResourceTypeError,
    RoutingError,
    RunCancelledError,
    RunTimeoutError,
    SplitTimeoutError,
    StoreError,
    StrayCancelledError,
    TooFewBranchesError,
    ValueTypeError,
    WorkerCrashedError,
)
from cano.events import (
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Event,
    FailureRouted,
    Observer,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    SplitJoined,
    StateEntered,
    Subscriber,
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    on,
)
from cano.handle import RunHandle
from cano.health import Degraded, Health, Healthy, Unhealthy
from cano.join import BranchResult, SplitResult
from cano.policies import Bulkhead, Policy, Retry, Timeout
from cano.resources import Resource, Resources
from cano.tasks import Branch, RouterTask, Split, Task
from cano.workflow import Workflow

if TYPE_CHECKING:  # loaded when first asked for, by `__getattr__`
    from cano.executors import process, thread
    from cano.memory import Key, KeyValueStore, MemoryStore

__version__ = "0.1.0"

_LATER = {
    "process": "cano.executors",
    "thread": "cano.executors",
    "Key": "cano.memory",
    "KeyValueStore": "cano.memory",
    "MemoryStore": "cano.memory",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cano' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 -- with it, what few programs need

    return getattr(import_module(_LATER[name]), name)


__all__ = [
    "AttemptTimeoutError",
    "Branch",
    "BranchCancelled",
    "BranchFailed",
    "BranchFinished",
    "BranchResult",
    "BranchStarted",
    "Bulkhead",
    "CanoError",
    "Context",
    "CorruptHistoryError",
    "DataError",
    "DefinitionError",
    "Degraded",
    "DetachedContextError",
    "DuplicateResourceError",
    "Edge",
    "Event",
    "FailureRouted",
    "Graph",
    "Health",
    "Healthy",
    "JoinFailedError",
    "Key",
    "KeyNotFoundError",
    "KeyValueStore",
    "MemoryStore",
    "MissingExtraError",
    "NotJoinedError",
    "Observer",
    "Policy",
    "RemoteError",
    "Resource",
    "ResourceError",
    "ResourceNotFoundError",
    "ResourceTypeError",
    "Resources",
    "Retry",
    "RouterTask",
    "RoutingError",
    "RunCancelled",
    "RunCancelledError",
    "RunFailed",
    "RunFinished",
    "RunHandle",
    "RunStarted",
    "RunTimeoutError",
    "Split",
    "SplitJoined",
    "SplitResult",
    "SplitTimeoutError",
    "StateEntered",
    "StoreError",
    "StrayCancelledError",
    "Subscriber",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskRetried",
    "TaskStarted",
    "TaskSucceeded",
    "Timeout",
    "TooFewBranchesError",
    "Unhealthy",
    "ValueTypeError",
    "WorkerCrashedError",
    "Workflow",
    "on",
    "process",
    "thread",
]
