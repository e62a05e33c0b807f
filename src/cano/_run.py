"""One execution of a plan: the loop, and the door. The only file that drives.

Rule 1: `forward` knows no model, no policy and no observer; they are compiled into the steps.
Rule 2: whatever changes a run goes through `record`.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, NoReturn

from msgspec.structs import replace

from cano._audience import Audience
from cano._causes import cause_of, said
from cano._clock import loop_time, time_ordered_id, wall_offset
from cano._data import DataType
from cano._ends import stray_error
from cano._history import History, evolve
from cano._host import Resolution
from cano._lifecycle import Phase
from cano._mailbox import Mailbox
from cano._plan import Plan, Step
from cano._subscribe import Observer
from cano.context import Context
from cano.errors import (
    CheckpointError,
    CompensationFailedError,
    RunCancelledError,
    RunTimeoutError,
    note,
)
from cano.events import (
    Cause,
    Event,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskFailed,
)
from cano.resources import Resources
from cano.tasks.task import S

PATH = 64
"""How many of the latest states a run remembers, at least: runs may go round for ever."""

_A_WINDOW = (None,) * PATH

_PLAIN: Mapping[type[Event], Phase] = {
    RunStarted: Phase.RUNNING,
    RunFinished: Phase.FINISHED,
    RunFailed: Phase.FAILED,
    RunCancelled: Phase.CANCELLED,
}
"""What says only how far a run has come, as long as there is nothing else in its history."""


class Run(Generic[S]):
    """A plan being carried out.

    It holds no context: a context holds its run, and a circle would be left to the collector.
    """

    __slots__ = (
        "__weakref__",
        "_elapsed",
        "_history",
        "_mailbox",
        "_offset",
        "_phase",
        "_run_id",
        "_sequence",
        "audience",
        "cancelled",
        "forgotten",
        "interrupted",
        "path",
        "plan",
        "steps",
    )  # fmt: skip

    durable = False
    """Whether a store keeps the history; see `cano._durable`."""

    def __init__(self, plan: Plan[S], run_id: str | None) -> None:
        self.plan: Plan[S] = plan
        self.steps: Mapping[str, Step[S]] = plan.steps
        self.audience: Audience = plan.audience
        self._history: History | None = None
        self._phase = Phase.NEW
        self.path: list[Enum] = []
        self.forgotten: int = 0
        """How many visits are no longer in the path."""
        self.cancelled: bool = False
        """Whether somebody asked for the end."""
        self.interrupted: bool = False
        """Whether a cancellation from outside came while the run was rolled back."""
        self._run_id = run_id
        self._elapsed: Callable[[], float] | None = None
        self._offset = 0.0
        self._sequence = 0
        self._mailbox: Mailbox | None = None

    def __repr__(self) -> str:
        at = f" in {self.path[-1].name}" if self.path else ""
        return f"<Run {self.run_id!r} of {self.plan.name}: {self.phase.value}{at}>"

    @property
    def run_id(self) -> str:
        if self._run_id is None:
            self._run_id = time_ordered_id()  # a run nobody asks about needs no name
        return self._run_id

    @property
    def history(self) -> History:
        """What happened to the run. Without a store most runs never have anything in it."""
        if self._history is None:
            self._history = History(phase=self._phase)
        return self._history

    @property
    def phase(self) -> Phase:
        """How far the run has come."""
        return self._phase if self._history is None else self._history.phase

    @property
    def resources(self) -> Resources:
        return self.plan.resources

    @property
    def data_type(self) -> DataType[Any] | None:
        return self.plan.data_type

    @property
    def may_park(self) -> bool:
        """Whether somebody is there to wake the run, so that it need not hold a task to wait."""
        return False

    @property
    def leaving(self) -> bool:
        """Whether it is being cancelled only to be let go: somebody will resume it."""
        return False

    @property
    def fence(self) -> int:
        """The owner's epoch; 0 without a store."""
        return 0

    @property
    def inherited(self) -> int:
        """How many events were there when this process took the run over."""
        return 0

    @property
    def resolutions(self) -> Mapping[str, Resolution]:
        """What a person said of effects in doubt."""
        return {}

    @property
    def visits(self) -> int:
        """How many visits there were, this one included."""
        return self.forgotten + len(self.path)

    @property
    def mailbox(self) -> Mailbox:
        """The signals that came and were not taken yet."""
        if self._mailbox is None:
            self._mailbox = Mailbox()
        return self._mailbox

    async def look(self) -> None:
        """Fetch what was sent to the run: without a store, it is there already."""

    def stops(self, error: Exception, /) -> bool:
        """Whether *error* is this run's own trouble with its history: without a store, never."""
        return False

    def stop_for(self, error: CheckpointError, /) -> None:
        """With a store: stop where we are, for *error* of a part; see `stops`."""

    def recall_data(self, context: Context[Any], /) -> None:
        """With a store: bring the data back to what was last recorded."""

    def defer(self, event: Event, /) -> None:
        """With a store: record *event* together with the next."""

    def not_begun(self) -> None:
        """With a store: the entry could not be recorded, so that nothing need be said to end."""

    def now(self) -> float:
        """Seconds since the epoch: wall time when first asked, and the loop's time since."""
        elapsed = self._elapsed
        if elapsed is None:
            loop = asyncio.get_running_loop()
            elapsed = self._elapsed = loop_time(loop)
            self._offset = wall_offset(loop)
        return self._offset + elapsed()

    async def live_with_resources(self, context: Context[Any], start: S) -> S:
        """`live`, with the workflow's resources up meanwhile."""
        async with self.plan.using:
            return await self.live(context, start)

    async def live(self, context: Context[Any], start: S) -> S:
        """From the first event of the run to its last."""
        try:
            await self.record(RunStarted(state=start._name_, version=self.plan.version))
            if self.cancelled:  # while the resources were set up, and they did not heed it
                raise CancelledError  # noqa: TRY301 -- handled as any other, below
            first = self.steps[start._name_]
            if self.plan.timeout is None:
                state = await self.forward(context, first)
            else:
                state = await self.forward_within(context, first, self.plan.timeout)
        except CancelledError:
            await self.end_cancelled(context)
            raise
        except Exception as error:
            await self.end_failed(context, error)
            raise
        else:
            await self.record(RunFinished(state=state._name_))
            return state
        finally:
            context.close()

    async def forward(self, context: Context[Any], first: Step[S]) -> S:
        """Visit states, *first* to begin with, until one has no runner."""
        path = self.path
        state, entered, runner = first
        expected = state
        while True:
            for _ in _A_WINDOW:  # counts the visits without counting them
                path.append(state)
                if entered is not None:
                    self.announce(entered)
                if runner is None:
                    return state
                try:
                    returned = await runner(context)
                except BaseException as error:
                    self.failed(context, error)
                    raise
                try:
                    expected, entered, runner = self.steps[returned._name_]
                except (AttributeError, KeyError, TypeError):
                    self.lost(returned)
                if expected is not returned:
                    self.lost(returned)
                state = returned
            self.forgotten += len(path) - PATH
            del path[:-PATH]

    async def forward_within(self, context: Context[Any], first: Step[S], limit: float) -> S:
        """`forward`, ended after *limit* seconds. Raises `RunTimeoutError`."""
        alarm = context.alarm
        alarm.push(limit)
        try:
            return await self.forward(context, first)
        except CancelledError:
            if alarm.expired():
                raise RunTimeoutError(
                    f"the run took longer than its {limit:g} s; it was in {self.path[-1].name}"
                ) from None
            raise
        finally:
            alarm.pop()

    async def record(self, event: Event, /) -> None:
        """The one door through which a run changes: evolve, announce."""
        if self._history is None and (phase := _PLAIN.get(type(event))) is not None:
            self._phase = phase
        else:
            evolve(self.history, event)
        if self.audience.listens(type(event)):
            self.announce(event)

    async def end_failed(self, context: Context[Any], error: Exception) -> None:
        """Close a run that *error* ended, its completed work undone. Raises what it comes to."""
        self.note(error, context)
        standing = self._history is not None and self._history.standing
        cause = cause_of(error) if self.durable or standing else None
        failures = await self.undo_standing(context, cause)
        await self.record(_failure(self.path[-1]._name_ if self.path else "", error, cause))
        if failures:
            raise self.not_undone([error, *failures]) from error
        if self.interrupted:
            raise CancelledError

    async def end_cancelled(self, context: Context[Any]) -> None:
        """Close a run that was cancelled: by its handle, from outside, or by nobody at all."""
        where = self.path[-1]._name_ if self.path else ""
        if self.stray():
            error = stray_error(where)
            await self.end_failed(context, error)
            raise error
        failures = await self.undo_standing(context, None)
        await self.record(RunCancelled(state=where))
        if failures:
            asked = [self.cancellation(context)] if self.cancelled else []
            raise self.not_undone([*asked, *failures])
        if self.cancelled:
            raise self.cancellation(context)

    async def undo_standing(self, context: Context[Any], cause: Cause | None) -> list[Exception]:
        """Roll back, if there is anything to undo."""
        if self._history is None or not self._history.standing:
            return []
        from cano._rollback import roll_back  # noqa: PLC0415 -- only who has to undo pays for it

        where = self.path[-1]._name_ if self.path else self.history.state
        started = RollbackStarted(state=where, cause=cause, cancelled=cause is None)
        return await roll_back(self, context, started)

    def stray(self) -> bool:
        """Whether the cancellation at hand came from nobody who has a right to it."""
        task = asyncio.current_task()
        return not self.cancelled and not (task and task.cancelling())

    def not_undone(self, errors: list[Exception]) -> CompensationFailedError:
        """What a run comes to whose completed work still stands in part."""
        count = len(self.history.failures)
        return CompensationFailedError(
            f"run {self.run_id!r} of {self.plan.name} ended, and {count} of its completed works "
            "could not be undone",
            errors,
        )

    def cancellation(self, context: Context[Any]) -> RunCancelledError:
        """What a cancelled run comes to, for whoever holds its handle."""
        where = f"in {self.whereabouts(context)}" if self.path else "before it began"
        return RunCancelledError(f"run {self.run_id!r} was cancelled {where}")

    def failed(self, context: Context[Any], error: BaseException) -> None:
        """Say that the work of this state ended without a next one."""
        if isinstance(error, CancelledError):
            if self.listens(TaskCancelled):
                context.emit(TaskCancelled())
        elif self.listens(TaskFailed):
            context.emit(TaskFailed(error=repr(error)))

    def listens(self, kind: type[Event], /) -> bool:
        return self.audience.listens(kind)

    def announce(self, event: Event, /) -> None:
        """Say whose *event* is, and when it happened, and tell the observers."""
        elapsed = self._elapsed
        self._sequence = sequence = self._sequence + 1
        told = replace(
            event,
            run_id=self._run_id or self.run_id,
            workflow=self.plan.name,
            sequence=sequence,
            time=self.now() if elapsed is None else self._offset + elapsed(),
        )
        for observer in self.audience[type(event)]:
            try:
                observer(told)
            except Exception as error:  # noqa: BLE001 -- an observer never changes a run
                self.audience.dismiss(observer, told, error)

    def watch(self, observer: Observer) -> None:
        """Tell *observer* everything from now on; a visit that has begun goes on untold."""
        self.audience = Audience((*self.audience.observers, observer))
        self.steps = self.plan.watched

    def looked_at(self, task: asyncio.Task[S]) -> None:
        """Whoever cancels a run need not wait for it: asyncio is not to complain that nobody did."""
        if self.phase is Phase.CANCELLED and not task.cancelled():
            task.exception()

    def unwatch(self, observer: Observer) -> None:
        """Tell *observer* no more."""
        self.audience = Audience([o for o in self.audience.observers if o is not observer])

    def whereabouts(self, context: Context[Any]) -> str:
        """The end of the way that was gone, such as ``FETCH → PARSE → SHIP, attempt 2``."""
        latest = [state.name for state in self.path[-8:]]
        gone = " → ".join(["…", *latest] if len(self.path) > len(latest) else latest)
        return gone + (f", attempt {context.attempt}" if context.attempt > 1 else "")

    def note(self, error: BaseException, context: Context[Any]) -> None:
        """Say on *error* where it happened, once."""
        note(error, f"cano: run {self.run_id!r} of {self.plan.name}: {self.whereabouts(context)}")

    def lost(self, returned: object) -> NoReturn:
        """The task returned something that is no state to go to. Raises `RoutingError`."""
        from cano._astray import astray  # noqa: PLC0415 -- only a mistake pays for it

        raise astray(self.plan, self.path[-1]._name_, returned) from None


def _failure(where: str, error: Exception, cause: Cause | None) -> RunFailed:
    return RunFailed(state=where, kind=type(error).__qualname__, error=said(error), cause=cause)
