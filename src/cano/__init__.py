"""Cano: a typed, durable, async workflow engine.

States are an `Enum`, a task is an async function, and its return annotation is where it may lead.
"""

from cano._graph import Edge, Graph
from cano.context import Context
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
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    on,
)
from cano.handle import RunHandle
from cano.policies import Bulkhead, Policy, Retry, Timeout
from cano.resources import Resources
from cano.tasks import Branch, RouterTask, Split, Task
from cano.workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Branch",
    "BranchCancelled",
    "BranchFailed",
    "BranchFinished",
    "BranchStarted",
    "Bulkhead",
    "Context",
    "Edge",
    "Event",
    "FailureRouted",
    "Graph",
    "Observer",
    "Policy",
    "Resources",
    "Retry",
    "RouterTask",
    "RunCancelled",
    "RunFailed",
    "RunFinished",
    "RunHandle",
    "RunStarted",
    "Split",
    "SplitJoined",
    "StateEntered",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskRetried",
    "TaskStarted",
    "TaskSucceeded",
    "Timeout",
    "Workflow",
    "on",
]
