"""The part of a run that survives its process; pure.

Rule 1: nothing in this file awaits, reads a clock or imports a task.
Rule 2: a history is what its events add up to: folding the stored ones gives the live one.
Rule 3: what belongs to a visit lives in `Visit`, and ends with it; so a loop never meets a cursor
        or an effect of an earlier visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any

import msgspec

from cano._lifecycle import LIFECYCLE, OVER, Phase
from cano._patch import as_json
from cano.errors import CorruptHistoryError
from cano.events import (
    BranchFailed,
    BranchFinished,
    Cause,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    Patch,
    Progress,
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

CANCEL = "cano.cancel"
"""The name of a message that asks the run to end."""
RESOLVE = "cano.resolve"
"""The name of a message that says what became of an effect in doubt."""


class Standing(msgspec.Struct, frozen=True):
    """Completed work that a rollback has to undo."""

    state: str
    branch: str
    value: bytes
    """What undoing it needs, as JSON."""
    sequence: int
    """The event that completed it; no other work has the same."""
    error: Cause | None = None
    """Why it could not be undone, where that was tried."""


class Visit(msgspec.Struct, gc=False):
    """Being in a state once, and what was done there so far."""

    number: int = 0
    state: str = ""
    progress: dict[tuple[str, str, str], Progress] = {}
    """By family, branch and name."""
    joined: SplitJoined | None = None
    routed: FailureRouted | None = None

    def of(self, family: str, branch: str = "", name: str = "") -> Any:
        """The latest progress of that kind, or None."""
        return self.progress.get((family, branch, name))


NO_VISIT = Visit()
"""Stands for the visit before the first; nothing is ever put into it."""


class History(msgspec.Struct, gc=False):
    """What the events of a run add up to."""

    phase: Phase = Phase.NEW
    sequence: int = 0
    """How many events there are."""
    state: str = ""
    entered: bool = False
    """Whether the visit to *state* has begun; if not, *state* is where the run goes next."""
    visit: Visit = msgspec.field(default_factory=repeat(NO_VISIT).__next__)  # no call in Python
    before: Visit | None = None
    """The visit before this one, as far as this one wants to know."""
    fields: dict[str, Any] = {}
    """The run data as last recorded, each field as it travelled; see `cano._patch`."""
    standing: list[Standing] = []
    """Completed work, oldest first; while rolling back, what is still to be undone."""
    failures: list[Standing] = []
    """What could not be undone."""
    undone: int = 0
    cause: Cause | None = None
    """What the run failed of."""
    cancelled: bool = False
    """Whether the rollback, or the end, was asked for."""
    received: dict[str, int] = {}
    """By name, the number of the last signal taken."""
    version: int = 0
    fingerprint: str = ""
    begun: float = 0.0
    """When the run was started, in seconds since the epoch."""
    trace: str = ""
    """What it is called in its first trace."""

    @property
    def data(self) -> dict[str, bytes]:
        """The run data as last recorded, each field as JSON."""
        return {name: as_json(value) for name, value in self.fields.items()}

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self.phase in OVER


def evolve(history: History, event: Event) -> None:
    """Add *event* to *history*, in place: a resume may have ten thousand to add.

    Raises `CorruptHistoryError` for what LIFECYCLE forbids, and then changes nothing.
    """
    kind = type(event)
    phase = LIFECYCLE[history.phase].get(kind)
    if phase is None:
        raise _misfit(history, event)
    _FOLDS[kind](history, event)
    if history.phase is not phase:
        history.phase = phase
    history.sequence += 1


def _misfit(history: History, event: Event) -> CorruptHistoryError:
    return CorruptHistoryError(
        f"{type(event).__name__} cannot follow: the run is {history.phase.value} "
        f"after {history.sequence} events"
    )


def replay(events: Iterable[Event]) -> History:
    """What *events* add up to. Raises `CorruptHistoryError` where one cannot follow."""
    history = History()
    kind: type[Event] | None = None
    for number, event in enumerate(events, 1):
        if event.sequence != number:
            raise CorruptHistoryError(
                f"event {number} is missing: {type(event).__name__} has number {event.sequence}"
            )
        if type(event) is StateEntered and kind is StateEntered:
            _passed(history, event)
        else:
            kind = type(event)
            evolve(history, event)
    return history


def _passed(history: History, event: StateEntered) -> None:
    """As `evolve`, right after another entry: nothing happened in that visit, so it can be reused.

    Most of what there is to replay of a long run is this.
    """
    visit = history.visit
    visit.number += 1
    visit.state = history.state = event.state
    history.before = None
    history.sequence += 1
    if event.patch:
        history.fields.update(event.patch)


def _patched(history: History, patch: Patch | None) -> None:
    if patch:
        history.fields.update(patch)


def _started(history: History, event: RunStarted) -> None:
    history.state, history.entered = event.state, False
    history.version, history.fingerprint = event.version, event.fingerprint
    history.begun, history.trace = event.time, event.trace
    _patched(history, event.patch)


def _entered(history: History, event: StateEntered) -> None:
    visit, history.state = history.visit, event.state
    if not history.entered:
        history.entered = True
    if visit.joined is not None or visit.routed is not None:
        history.before = visit
    elif history.before is not None:
        history.before = None
    history.visit = Visit(visit.number + 1, event.state)
    if event.patch:
        history.fields.update(event.patch)


def _visit(history: History) -> Visit:
    """The visit to note something in. Without a store entries are not kept, and there is but one."""
    if history.visit is NO_VISIT:
        history.visit = Visit()
    return history.visit


def _progressed(history: History, event: Progress) -> None:
    _visit(history).progress[event.family, event.branch, event.name] = event


def _retried(history: History, event: TaskRetried) -> None:
    _visit(history).progress["attempt", event.branch, ""] = event


def _saved(history: History, event: CursorSaved) -> None:
    progress = _visit(history).progress
    # A step that is done never runs again: what it did, tried and waited for ends with it.
    for key in [key for key in progress if key[1] == event.branch]:
        del progress[key]
    progress["cursor", event.branch, ""] = event
    _patched(history, event.patch)


def _received(history: History, event: SignalReceived) -> None:
    _progressed(history, event)
    history.received[event.signal] = event.number


def _branched(history: History, event: BranchFinished) -> None:
    _progressed(history, event)
    if event.undoable:
        value = bytes(event.value)
        history.standing.append(Standing(event.state, event.branch, value, history.sequence + 1))


def _joined(history: History, event: SplitJoined) -> None:
    _visit(history).joined = event


def _routed(history: History, event: FailureRouted) -> None:
    _visit(history).routed = event


def _completed(history: History, event: TaskCompleted) -> None:
    value = bytes(event.value)
    history.standing.append(Standing(event.state, "", value, history.sequence + 1))
    history.state, history.entered = event.next, False
    _patched(history, event.patch)


def _claimed(history: History, event: RunClaimed) -> None:
    pass  # a fact about who, not about what


def _migrated(history: History, event: RunMigrated) -> None:
    renamed = event.renamed or {}
    history.version, history.fingerprint = event.version, event.fingerprint
    history.fields.clear()
    _patched(history, event.patch)
    history.standing = [
        msgspec.structs.replace(work, state=renamed.get(work.state, work.state))
        for work in history.standing
    ]
    moved = event.state != renamed.get(history.state, history.state)
    if moved:  # what was done in another state means nothing in this one
        history.entered, history.before = False, None
        history.visit = Visit(history.visit.number)
    else:
        history.visit = _renamed(_visit(history), renamed)
        history.before = history.before and _renamed(history.before, renamed)
    history.state = event.state


def _renamed(visit: Visit, renamed: Mapping[str, str]) -> Visit:
    routed = visit.routed
    if routed is not None:
        routed = msgspec.structs.replace(routed, next=renamed.get(routed.next, routed.next))
    state = renamed.get(visit.state, visit.state)
    return msgspec.structs.replace(visit, state=state, routed=routed)


def _rolling_back(history: History, event: RollbackStarted) -> None:
    history.cause, history.cancelled = event.cause, event.cancelled


def _compensated(history: History, event: TaskCompensated) -> None:
    if not history.standing:
        raise _misfit(history, event)
    history.standing.pop()
    history.undone += 1
    _patched(history, event.patch)


def _not_compensated(history: History, event: CompensationFailed) -> None:
    if not history.standing:
        raise _misfit(history, event)
    work = history.standing.pop()
    history.failures.append(msgspec.structs.replace(work, error=event.cause))


def _finished(history: History, event: RunFinished) -> None:
    history.state, history.entered = event.state, False
    _patched(history, event.patch)


def _failed(history: History, event: RunFailed) -> None:
    if event.cause is not None:
        history.cause = event.cause


def _cancelled(history: History, event: RunCancelled) -> None:
    history.cancelled = True


def _reopened(history: History, event: RunReopened) -> None:
    history.cause, history.cancelled = None, history.phase is Phase.FINISHED
    history.received[CANCEL] = event.seen
    # What failed, or waited too long, is to be tried again from the first attempt on.
    _visit(history).joined = _visit(history).routed = None
    progress = _visit(history).progress
    for key in [key for key, done in progress.items() if isinstance(done, _FAILED)]:
        del progress[key]


_FAILED = (BranchFailed, TaskRetried, WaitStarted)


_FOLDS: Mapping[type[Event], Callable[[History, Any], None]] = {
    RunStarted: _started,
    RunClaimed: _claimed,
    RunMigrated: _migrated,
    StateEntered: _entered,
    TaskRetried: _retried,
    TaskCompleted: _completed,
    FailureRouted: _routed,
    CursorSaved: _saved,
    EffectIntended: _progressed,
    EffectDone: _progressed,
    TimerSet: _progressed,
    WaitStarted: _progressed,
    SignalReceived: _received,
    SplitStarted: _progressed,
    BranchFinished: _branched,
    BranchFailed: _progressed,
    SplitJoined: _joined,
    RollbackStarted: _rolling_back,
    TaskCompensated: _compensated,
    CompensationFailed: _not_compensated,
    RunFinished: _finished,
    RunFailed: _failed,
    RunCancelled: _cancelled,
    RunReopened: _reopened,
}
