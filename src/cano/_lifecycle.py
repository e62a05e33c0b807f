"""How far a run can come, and what can happen to it there; a table.

Rule: whatever can follow what is in `LIFECYCLE`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from cano.events import (
    BranchFailed,
    BranchFinished,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunReopened,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    TaskCompensated,
    TaskCompleted,
    TaskRetried,
    TimerSet,
    WaitStarted,
)


class Phase(StrEnum):
    """How far a run has come."""

    NEW = "new"
    RUNNING = "running"
    ROLLING_BACK = "rolling back"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


_WITHIN_A_VISIT: tuple[type[Event], ...] = (
    TaskRetried, CursorSaved, EffectIntended, EffectDone, TimerSet, WaitStarted, SignalReceived,
    SplitStarted, BranchFinished, BranchFailed, SplitJoined, FailureRouted,
)  # fmt: skip

LIFECYCLE: Final[Mapping[Phase, Mapping[type[Event], Phase]]] = {
    Phase.NEW: {RunStarted: Phase.RUNNING},
    Phase.RUNNING: {
        **dict.fromkeys(_WITHIN_A_VISIT, Phase.RUNNING),
        RunClaimed: Phase.RUNNING,
        RunMigrated: Phase.RUNNING,
        StateEntered: Phase.RUNNING,
        TaskCompleted: Phase.RUNNING,
        RollbackStarted: Phase.ROLLING_BACK,
        RunFinished: Phase.FINISHED,
        RunFailed: Phase.FAILED,
        RunCancelled: Phase.CANCELLED,
    },
    Phase.ROLLING_BACK: {
        RunClaimed: Phase.ROLLING_BACK,
        RunMigrated: Phase.ROLLING_BACK,
        TaskRetried: Phase.ROLLING_BACK,
        EffectIntended: Phase.ROLLING_BACK,
        EffectDone: Phase.ROLLING_BACK,
        TimerSet: Phase.ROLLING_BACK,
        WaitStarted: Phase.ROLLING_BACK,
        SignalReceived: Phase.ROLLING_BACK,
        TaskCompensated: Phase.ROLLING_BACK,
        CompensationFailed: Phase.ROLLING_BACK,
        RunFailed: Phase.FAILED,
        RunCancelled: Phase.CANCELLED,
    },
    Phase.FINISHED: {RunReopened: Phase.ROLLING_BACK},
    Phase.FAILED: {RunReopened: Phase.RUNNING},
    Phase.CANCELLED: {RunReopened: Phase.RUNNING},
}

OVER: Final = frozenset((Phase.FINISHED, Phase.FAILED, Phase.CANCELLED))
