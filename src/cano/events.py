"""Everything that can happen to a run.

An event is a fact: named in the past tense, frozen, never edited. The fields of `Event` itself
are the envelope, filled in when the event happens, so that an observer never has to ask whose
event it is holding.

With a store, the events of `KEPT` are the run's history: a run is resumed by folding them again.
The others are announced and forgotten. What users' code produced travels in two fields alone,
*patch* and *value*, already written down as JSON, so that a store can treat large values apart.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """A fact about a run."""

    run_id: str = ""
    workflow: str = ""
    sequence: int = 0
    """Counts the events of the run, from 1. With a store those that are kept are counted, and one
    that is only announced has the number of the last one kept."""
    time: float = 0.0
    """Seconds since the epoch, by the run's own clock: it never jumps."""
    state: str = ""
    """The name of the state the run was in."""
    attempt: int = 0
    """Which attempt of the state's work, counted from 1; 0 outside any."""
    branch: str = ""
    """The branch of a split this happened in; empty outside one."""


class Cause(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An exception, written down: what is left of it in another process."""

    kind: str
    """Its class, as ``module:qualname``."""
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""


class Progress(Event, frozen=True):
    """Something done within a visit, and not to be done again when the visit is resumed."""

    family: ClassVar[str] = ""
    """Together with *branch* and *name* what it is found again by."""
    name: str = ""


NOTHING = msgspec.Raw(b"null")
"""No value, as JSON."""

Patch: TypeAlias = dict[str, msgspec.Raw]
"""The fields of the run data that changed, as JSON."""


class RunStarted(Event, frozen=True):
    """The first event of a run; *state* is where it starts, *patch* the data it starts with."""

    version: int = 0
    fingerprint: str = ""
    """Which states, edges and data fields the workflow had; see `cano._shape`."""
    patch: Patch | None = None
    forked_from: str = ""
    """The run this one branched off from, at event *forked_at*."""
    forked_at: int = 0
    trace: str = ""
    """For tracing: what the run is called in its first trace, as a W3C `traceparent`."""


class RunClaimed(Event, frozen=True):
    """Another *owner* took the run over, and will resume it."""

    owner: str = ""
    epoch: int = 0


class RunMigrated(Event, frozen=True):
    """The run was brought from an older *version* of its workflow to the present one."""

    before: int = 0
    version: int = 0
    fingerprint: str = ""
    patch: Patch | None = None
    """All of the run data: what it had before is gone."""
    renamed: dict[str, str] | None = None
    """The new names of states whose completed work can be undone."""


class StateEntered(Event, frozen=True):
    """A visit to *state* begins; for an exit it is the last thing before `RunFinished`."""

    patch: Patch | None = None


class TaskStarted(Event, frozen=True):
    """The work of *state* begins. Exactly one of the next three ends it."""


class TaskSucceeded(Event, frozen=True):
    """The work of *state* is done and leads to *next*."""

    next: str = ""


class TaskFailed(Event, frozen=True):
    """The work of *state* failed for good: its policies had no more to offer."""

    error: str = ""


class TaskCancelled(Event, frozen=True):
    """The work of *state* was ended from outside: cancelled, or out of time."""


class TaskRetried(Progress, frozen=True):
    """*attempt* failed with *error*; the next one follows after *delay* seconds."""

    family = "attempt"
    error: str = ""
    delay: float = 0.0


class TaskCompleted(Event, frozen=True):
    """The work of *state* is done, leads to *next*, and can be undone with *value*."""

    next: str = ""
    value: msgspec.Raw = NOTHING
    patch: Patch | None = None


class FailureRouted(Event, frozen=True):
    """The failure of *state* led to the state *next* instead of ending the run."""

    next: str = ""
    error: str = ""
    cause: Cause | None = None


class CursorSaved(Progress, frozen=True):
    """A stepped task got as far as *value*."""

    family = "cursor"
    value: msgspec.Raw = NOTHING
    patch: Patch | None = None


class EffectIntended(Progress, frozen=True):
    """The effect *name* is about to happen. Without `EffectDone` nobody knows whether it did."""

    family = "effect"
    number: int = 0
    """That of the last message that had come by then: what a person says of it comes later."""


class EffectDone(Progress, frozen=True):
    """The effect *name* happened and returned *value*."""

    family = "effect"
    value: msgspec.Raw = NOTHING


class TimerSet(Progress, frozen=True):
    """A wait that ends at *until*, in seconds since the epoch, was begun."""

    family = "timer"
    until: float = 0.0


class WaitStarted(Progress, frozen=True):
    """A wait for one of *signals* was begun; it ends at *until*, or never where that is 0."""

    family = "wait"
    signals: tuple[str, ...] = ()
    until: float = 0.0


class SignalReceived(Progress, frozen=True):
    """The wait *name* ended with message *number* of those sent to the run, called *signal*."""

    family = "signal"
    signal: str = ""
    number: int = 0
    value: msgspec.Raw = NOTHING


class SplitStarted(Progress, frozen=True):
    """The branches of a split made at run time are these."""

    family = "split"
    names: tuple[str, ...] = ()


class BranchStarted(Event, frozen=True):
    """Branch *index* of the split in *state* begins. Exactly one of the next three ends it."""

    index: int = 0


class BranchFinished(Progress, frozen=True):
    """Branch *index* returned *value*; if it is *undoable*, a rollback takes it back."""

    family = "branch"
    index: int = 0
    value: msgspec.Raw = NOTHING
    undoable: bool = False


class BranchFailed(Progress, frozen=True):
    """Branch *index* raised *error*."""

    family = "branch"
    index: int = 0
    error: str = ""
    cause: Cause | None = None


class BranchCancelled(Event, frozen=True):
    """Branch *index* was ended because the join no longer needed it."""

    index: int = 0


class SplitJoined(Event, frozen=True):
    """The join of the split in *state* has decided, for *reason*; a failed one fails the task."""

    satisfied: bool = True
    reason: str = ""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_started: int = 0
    lost: tuple[int, ...] = ()
    """Which branches were cancelled, by index."""


class PollAnswered(Event, frozen=True):
    """A poll was answered: *ready*, or to be asked again after *delay* seconds."""

    ready: bool = False
    delay: float = 0.0


class ItemFailed(Event, frozen=True):
    """Item *item* of a batch or a stream failed for good with *error*; *index* counts from 0."""

    item: str = ""
    index: int = 0
    error: str = ""


class BatchProcessed(Event, frozen=True):
    """All items of a batch were tried; what comes of it, its task decides now."""

    succeeded: int = 0
    failed: int = 0


class WindowFlushed(Event, frozen=True):
    """A window of a stream was flushed: *items* went in, *failed* were left out."""

    items: int = 0
    failed: int = 0


class StreamClosed(Event, frozen=True):
    """A stream was closed, for *reason*, after *items* in *windows*."""

    reason: str = ""
    items: int = 0
    windows: int = 0


class CircuitChanged(Event, frozen=True):
    """The circuit breaker called *circuit* went from one state to another."""

    circuit: str = ""
    before: str = ""
    after: str = ""


class CallRefused(Event, frozen=True):
    """Policy *by* did not let a call through, and will not for *retry_after* seconds."""

    by: str = ""
    retry_after: float = 0.0


class CallDelayed(Event, frozen=True):
    """Policy *by* made a call wait for *seconds* before it let it through."""

    by: str = ""
    seconds: float = 0.0


class HedgeStarted(Event, frozen=True):
    """A call was slow, and is made once more beside itself: this is attempt *number* of it."""

    number: int = 0


class FallbackUsed(Event, frozen=True):
    """A call failed with *error*, and something else was returned in its place."""

    error: str = ""


class RunParked(Event, frozen=True):
    """The run waits, until *until* or for a signal, and nobody holds it meanwhile."""

    until: float = 0.0


class RunReleased(Event, frozen=True):
    """This process no longer carries the run out, which is not over: somebody else may go on.

    *reason* is ``shutdown``; ``lost`` to another owner; ``store``, which did not answer; or
    ``in doubt``, where a person has to decide first.
    """

    reason: str = ""


class RunResumed(Event, frozen=True):
    """The run goes on in *state*, after a crash, a shutdown or a wait."""

    entered: bool = False
    """Whether in the middle of a visit to *state*; if not, the visit is about to begin."""
    begun: float = 0.0
    """When the run was started, in seconds since the epoch."""
    trace: str = ""
    """See `RunStarted`."""


class RollbackStarted(Event, frozen=True):
    """The run failed, or was cancelled, with completed work standing, which is now undone."""

    cause: Cause | None = None
    cancelled: bool = False


class TaskCompensated(Event, frozen=True):
    """The newest work that stood, that of *state* (or of its *branch*), was undone."""

    patch: Patch | None = None


class CompensationFailed(Event, frozen=True):
    """The newest work that stood could not be undone, and is left standing for a person."""

    cause: Cause | None = None


class RunFinished(Event, frozen=True):
    """The run reached the exit *state*. Nothing follows."""

    patch: Patch | None = None


class RunFailed(Event, frozen=True):
    """The run ended with an error."""

    kind: str = ""
    error: str = ""
    cause: Cause | None = None


class RunCancelled(Event, frozen=True):
    """The run was cancelled, by its handle or by asyncio."""


class RunReopened(Event, frozen=True):
    """A failed or cancelled run goes on in the state it ended in, carried out by *owner*.

    One that finished is undone, together with the run that it was part of.
    """

    owner: str = ""
    epoch: int = 0
    seen: int = 0
    """The number of the last message; earlier requests to cancel no longer count."""


KEPT: TypeAlias = (
    RunStarted | RunClaimed | RunMigrated | StateEntered | TaskRetried | TaskCompleted
    | FailureRouted | CursorSaved | EffectIntended | EffectDone | TimerSet | WaitStarted
    | SignalReceived | SplitStarted | BranchFinished | BranchFailed | SplitJoined | RollbackStarted
    | TaskCompensated | CompensationFailed | RunFinished | RunFailed | RunCancelled | RunReopened
)  # fmt: skip
"""The events a store keeps."""
