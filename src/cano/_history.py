"""The part of a run that decides what may follow; pure.

Rule 1: whatever can follow what is in LIFECYCLE, and nowhere else.
Rule 2: nothing in this file awaits, reads a clock or imports a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from cano.errors import CorruptHistoryError
from cano.events import Event, RunCancelled, RunFailed, RunFinished, RunStarted


class Phase(StrEnum):
    """How far a run has come."""

    NEW = "new"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIFECYCLE: Mapping[Phase, Mapping[type[Event], Phase]] = {
    Phase.NEW: {RunStarted: Phase.RUNNING},
    Phase.RUNNING: {
        RunFinished: Phase.FINISHED,
        RunFailed: Phase.FAILED,
        RunCancelled: Phase.CANCELLED,
    },
    Phase.FINISHED: {},
    Phase.FAILED: {},
    Phase.CANCELLED: {},
}


class History(msgspec.Struct, frozen=True):
    """What the events of a run add up to."""

    phase: Phase = Phase.NEW
    sequence: int = 0
    state: str = ""


NOTHING_YET = History()


def evolve(past: History, event: Event) -> History:
    """Add *event* to *past*. Raises `CorruptHistoryError` for what LIFECYCLE forbids."""
    phase = LIFECYCLE[past.phase].get(type(event))
    if phase is None:
        raise CorruptHistoryError(
            f"{type(event).__name__} cannot follow: the run is {past.phase.value} "
            f"after {past.sequence} events"
        )
    return History(phase, past.sequence + 1, event.state)
