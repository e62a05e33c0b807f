"""Cano: a typed, durable, async workflow engine.

States are an `Enum`, a task is an async function, and its return annotation is where it may lead.
"""

from typing import TYPE_CHECKING, Any

from cano._graph import Edge, Graph
from cano._subscribe import Observer, Subscriber, on
from cano.context import Context
from cano.errors import (
    AttemptTimeoutError,
    BulkheadFullError,
    CallRefusedError,
    CanoError,
    CheckpointError,
    CircuitOpenError,
    CompensationFailedError,
    CorruptHistoryError,
    CostError,
    DataError,
    DefinitionError,
    DetachedContextError,
    DuplicateResourceError,
    EffectInDoubtError,
    FlowRefusedError,
    JoinFailedError,
    KeyNotFoundError,
    MissingExtraError,
    NotJoinedError,
    OrphanedCompensationError,
    PollExhaustedError,
    ProgressMismatchError,
    RateLimitedError,
    RecordedError,
    RemoteError,
    ResourceError,
    ResourceNotFoundError,
    ResourceTypeError,
    RollbackTimeoutError,
    RoutingError,
    RunCancelledError,
    RunEndedError,
    RunExistsError,
    RunFailedError,
    RunIdReusedError,
    RunLostError,
    RunNotFoundError,
    RunOwnedError,
    RunStuckError,
    RunTimeoutError,
    SignalTimeoutError,
    SplitTimeoutError,
    StoreError,
    StrayCancelledError,
    TooFewBranchesError,
    TooManyFailuresError,
    ValueTypeError,
    VersionMismatchError,
    WorkerCrashedError,
)
from cano.events import (
    BatchProcessed,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    CallDelayed,
    CallRefused,
    Cause,
    CircuitChanged,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    FallbackUsed,
    HedgeStarted,
    ItemFailed,
    PollAnswered,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunParked,
    RunReleased,
    RunReopened,
    RunResumed,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    StreamClosed,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TimerSet,
    WaitStarted,
    WindowFlushed,
)
from cano.handle import RunHandle
from cano.health import Degraded, Health, Healthy, Unhealthy
from cano.join import BranchResult, SplitResult
from cano.policies import Bulkhead, Policy, Retry, Timeout
from cano.resources import Resource, Resources
from cano.tasks import Branch, RouterTask, Split, Task
from cano.workflow import Workflow

if TYPE_CHECKING:  # loaded when first asked for, by `__getattr__`
    from cano._migrations import Saved
    from cano._nested import PartResult
    from cano._progress import Signal
    from cano._stored import StoredRun
    from cano.announced import (
        ResourceFailed,
        ResourceReady,
        ResourceReleased,
        ScheduleBackedOff,
        ScheduleEnded,
        ScheduleFired,
        ScheduleSkipped,
        ScheduleTripped,
    )
    from cano.checkpoints import (
        CheckpointStore,
        MemoryCheckpoints,
        RunQuery,
        RunSummary,
        SqliteCheckpoints,
        Status,
    )
    from cano.concurrent import ManyRuns, ManyStatus, RunOutcome, many, run_many
    from cano.executors.process import process
    from cano.executors.thread import thread
    from cano.memory import Key, KeyValueStore, MemoryStore
    from cano.policies.circuit import CircuitBreaker, CircuitState
    from cano.policies.fallback import Fallback
    from cano.policies.guarded import guarded
    from cano.policies.hedge import Hedge
    from cano.policies.multi_limit import MultiRateLimiter, Tier
    from cano.policies.rate_limit import RateLimiter, Reservation, WindowedRateLimiter
    from cano.scheduler import Allow, Backoff, CatchUp, FlowPhase, FlowStatus, Scheduler
    from cano.schedules import Cron, Every, Manual, Once, Schedule
    from cano.tasks.batch import BatchTask, ItemOutcome, Outcomes
    from cano.tasks.compensatable import CompensatableTask
    from cano.tasks.node import Node
    from cano.tasks.poll import Pending, PollTask, Ready, poll
    from cano.tasks.signal import SignalTask
    from cano.tasks.stepped import Done, More, SteppedTask
    from cano.tasks.stream import CloseReason, StreamTask, Window
    from cano.tasks.timer import TimerTask

__version__ = "0.1.0"

_LATER = {
    "Scheduler": "cano.scheduler",
    "FlowStatus": "cano.scheduler",
    "FlowPhase": "cano.scheduler",
    "Allow": "cano.scheduler",
    "CatchUp": "cano.scheduler",
    "Backoff": "cano.scheduler",
    "Every": "cano.schedules",
    "Cron": "cano.schedules",
    "Once": "cano.schedules",
    "Manual": "cano.schedules",
    "Schedule": "cano.schedules",
    "ScheduleFired": "cano.announced",
    "ScheduleEnded": "cano.announced",
    "ScheduleSkipped": "cano.announced",
    "ScheduleBackedOff": "cano.announced",
    "ScheduleTripped": "cano.announced",
    "ResourceReady": "cano.announced",
    "ResourceFailed": "cano.announced",
    "ResourceReleased": "cano.announced",
    "many": "cano.concurrent",
    "RunOutcome": "cano.concurrent",
    "ManyStatus": "cano.concurrent",
    "PartResult": "cano._nested",
    "CircuitBreaker": "cano.policies.circuit",
    "CircuitState": "cano.policies.circuit",
    "RateLimiter": "cano.policies.rate_limit",
    "WindowedRateLimiter": "cano.policies.rate_limit",
    "MultiRateLimiter": "cano.policies.multi_limit",
    "Tier": "cano.policies.multi_limit",
    "Reservation": "cano.policies.rate_limit",
    "Hedge": "cano.policies.hedge",
    "Fallback": "cano.policies.fallback",
    "guarded": "cano.policies.guarded",
    "PollTask": "cano.tasks.poll",
    "Ready": "cano.tasks.poll",
    "Pending": "cano.tasks.poll",
    "poll": "cano.tasks.poll",
    "Node": "cano.tasks.node",
    "BatchTask": "cano.tasks.batch",
    "Outcomes": "cano.tasks.batch",
    "ItemOutcome": "cano.tasks.batch",
    "StreamTask": "cano.tasks.stream",
    "Window": "cano.tasks.stream",
    "CloseReason": "cano.tasks.stream",
    "run_many": "cano.concurrent",
    "ManyRuns": "cano.concurrent",
    "CompensatableTask": "cano.tasks.compensatable",
    "Signal": "cano._progress",
    "SignalTask": "cano.tasks.signal",
    "Done": "cano.tasks.stepped",
    "More": "cano.tasks.stepped",
    "SteppedTask": "cano.tasks.stepped",
    "TimerTask": "cano.tasks.timer",
    "CheckpointStore": "cano.checkpoints",
    "MemoryCheckpoints": "cano.checkpoints",
    "SqliteCheckpoints": "cano.checkpoints",
    "Status": "cano.checkpoints",
    "RunQuery": "cano.checkpoints",
    "RunSummary": "cano.checkpoints",
    "Saved": "cano._migrations",
    "StoredRun": "cano._stored",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "Allow", "AttemptTimeoutError", "Backoff", "BatchProcessed", "BatchTask", "Branch",
    "BranchCancelled", "BranchFailed", "BranchFinished", "BranchResult", "BranchStarted",
    "Bulkhead", "BulkheadFullError", "CallDelayed", "CallRefused", "CallRefusedError", "CanoError",
    "CatchUp", "Cause", "CheckpointError", "CheckpointStore", "CircuitBreaker", "CircuitChanged",
    "CircuitOpenError", "CircuitState", "CloseReason", "CompensatableTask", "CompensationFailed",
    "CompensationFailedError", "Context", "CorruptHistoryError", "CostError", "Cron",
    "CursorSaved", "DataError", "DefinitionError", "Degraded", "DetachedContextError", "Done",
    "DuplicateResourceError", "Edge", "EffectDone", "EffectInDoubtError", "EffectIntended",
    "Event", "Every", "FailureRouted", "Fallback", "FallbackUsed", "FlowPhase", "FlowRefusedError",
    "FlowStatus", "Graph", "Health", "Healthy", "Hedge", "HedgeStarted", "ItemFailed",
    "ItemOutcome", "JoinFailedError", "Key", "KeyNotFoundError", "KeyValueStore", "Manual",
    "ManyRuns", "ManyStatus", "MemoryCheckpoints", "MemoryStore", "MissingExtraError", "More",
    "MultiRateLimiter", "Node", "NotJoinedError", "Observer", "Once", "OrphanedCompensationError",
    "Outcomes", "PartResult", "Pending", "Policy", "PollAnswered", "PollExhaustedError",
    "PollTask", "ProgressMismatchError", "RateLimitedError", "RateLimiter", "Ready",
    "RecordedError", "RemoteError", "Reservation", "Resource", "ResourceError", "ResourceFailed",
    "ResourceNotFoundError", "ResourceReady", "ResourceReleased", "ResourceTypeError", "Resources",
    "Retry", "RollbackStarted", "RollbackTimeoutError", "RouterTask", "RoutingError",
    "RunCancelled", "RunCancelledError", "RunClaimed", "RunEndedError", "RunExistsError",
    "RunFailed", "RunFailedError", "RunFinished", "RunHandle", "RunIdReusedError", "RunLostError",
    "RunMigrated", "RunNotFoundError", "RunOutcome", "RunOwnedError", "RunParked", "RunQuery",
    "RunReleased", "RunReopened", "RunResumed", "RunStarted", "RunStuckError", "RunSummary",
    "RunTimeoutError", "Saved", "Schedule", "ScheduleBackedOff", "ScheduleEnded", "ScheduleFired",
    "ScheduleSkipped", "ScheduleTripped", "Scheduler", "Signal", "SignalReceived", "SignalTask",
    "SignalTimeoutError", "Split", "SplitJoined", "SplitResult", "SplitStarted",
    "SplitTimeoutError", "SqliteCheckpoints", "StateEntered", "Status", "SteppedTask",
    "StoreError", "StoredRun", "StrayCancelledError", "StreamClosed", "StreamTask", "Subscriber",
    "Task", "TaskCancelled", "TaskCompensated", "TaskCompleted", "TaskFailed", "TaskRetried",
    "TaskStarted", "TaskSucceeded", "Tier", "Timeout", "TimerSet", "TimerTask",
    "TooFewBranchesError", "TooManyFailuresError", "Unhealthy", "ValueTypeError",
    "VersionMismatchError", "WaitStarted", "Window", "WindowFlushed", "WindowedRateLimiter",
    "WorkerCrashedError", "Workflow", "guarded", "many", "on", "poll", "process", "run_many",
    "thread",
]  # fmt: skip
