"""One execution of a plan: the loop, and the door. The only file that drives.

Rule 1: `forward` knows no model, no policy and no observer; they are compiled into the steps.
Rule 2: whatever changes a run goes through `record`.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Generic, NoReturn

from msgspec.structs import replace

from cano._audience import Audience
from cano._clock import loop_time, wall_offset
from cano._data import DataType
from cano._history import NOTHING_YET, History, Phase, evolve
from cano._plan import Plan, Step
from cano.context import Context
from cano.errors import (
    RoutingError,
    RunCancelledError,
    RunTimeoutError,
    StrayCancelledError,
    note,
)
from cano.events import (
    Event,
    Observer,
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


class Run(Generic[S]):
    """A plan being carried out.

    It holds no context: a context holds its run, and a circle would be left to the collector.
    """

    __slots__ = (
        "_elapsed", "_offset", "_run_id", "_sequence", "audience", "cancelled", "history", "path",
        "plan", "steps",
    )  # fmt: skip

    def __init__(self, plan: Plan[S], run_id: str | None) -> None:
        self.plan: Plan[S] = plan
        self.steps: Mapping[str, Step[S]] = plan.steps
        self.audience: Audience = plan.audience
        self.history: History = NOTHING_YET
        self.path: list[Enum] = []
        self.cancelled: bool = False
        self._run_id = run_id
        self._elapsed: Callable[[], float] | None = None
        self._offset = 0.0
        self._sequence = 0

    def __repr__(self) -> str:
        at = f" in {self.path[-1].name}" if self.path else ""
        return f"<Run {self.run_id!r} of {self.plan.name}: {self.history.phase.value}{at}>"

    @property
    def run_id(self) -> str:
        if self._run_id is None:
            from uuid import uuid4  # noqa: PLC0415 -- a run nobody asks about needs no name

            self._run_id = uuid4().hex
        return self._run_id

    @property
    def resources(self) -> Resources:
        return self.plan.resources

    @property
    def data_type(self) -> DataType[Any] | None:
        return self.plan.data_type

    async def live_with_resources(self, context: Context[Any], start: S) -> S:
        """`live`, with the workflow's resources up meanwhile."""
        async with self.plan.resources:
            return await self.live(context, start)

    async def live(self, context: Context[Any], start: S) -> S:
        """From the first event of the run to its last."""
        try:
            await self.record(RunStarted(state=start._name_, version=self.plan.version))
            if self.cancelled:  # while the resources were set up, and they did not heed it
                raise CancelledError  # noqa: TRY301 -- handled as any other, below
            if self.plan.timeout is None:
                state = await self.forward(context, start)
            else:
                state = await self.forward_within(context, start, self.plan.timeout)
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

    async def forward(self, context: Context[Any], state: S) -> S:
        """Visit states until one has no runner."""
        path = self.path
        expected, entered, runner = self.steps[state._name_]
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
            del path[:-PATH]

    async def forward_within(self, context: Context[Any], start: S, limit: float) -> S:
        """`forward`, ended after *limit* seconds. Raises `RunTimeoutError`."""
        alarm = context.alarm
        alarm.push(limit)
        try:
            return await self.forward(context, start)
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
        self.history = evolve(self.history, event)
        if self.audience.listens(type(event)):
            self.announce(event)

    async def end_failed(self, context: Context[Any], error: Exception) -> None:
        """Close a run that *error* ended."""
        self.note(error, context)
        where, kind = self.path[-1]._name_, type(error).__qualname__
        await self.record(RunFailed(state=where, kind=kind, error=str(error)))

    async def end_cancelled(self, context: Context[Any]) -> None:
        """Close a run that was cancelled: by its handle, from outside, or by nobody at all."""
        task = asyncio.current_task()
        where = self.path[-1]._name_ if self.path else ""
        if not self.cancelled and not (task and task.cancelling()):
            stray = StrayCancelledError(
                f"{where} raised CancelledError, but nobody had cancelled the run; it probably "
                "awaited something that was cancelled elsewhere"
            )
            await self.end_failed(context, stray)
            raise stray
        await self.record(RunCancelled(state=where))
        if self.cancelled:
            raise self.cancellation(context)

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
        if elapsed is None:
            elapsed = self._elapsed = loop_time(asyncio.get_running_loop())
            self._offset = wall_offset(elapsed)
        self._sequence = sequence = self._sequence + 1
        told = replace(
            event,
            run_id=self._run_id or self.run_id,
            workflow=self.plan.name,
            sequence=sequence,
            time=self._offset + elapsed(),
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
        if self.history.phase is Phase.CANCELLED and not task.cancelled():
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
        here = self.path[-1]._name_
        label = self.plan.registrations[here].task.label
        states = self.plan.states
        if isinstance(returned, states):
            why = f"{returned._name_} has no task and is not an exit; register a task for it"
        else:
            why = f"that is no member of {states.__name__}; {_meant(returned, states)}"
        shown = _short(returned)
        raise RoutingError(f"{label}, the task of {here}, returned {shown}; {why}") from None


def _meant(returned: object, states: type[Enum]) -> str:
    """Which member may have been meant by something that is none."""
    names = list(states.__members__)
    asked = getattr(returned, "_name_", returned)
    if isinstance(asked, str):
        from difflib import get_close_matches  # noqa: PLC0415 -- only a mistake pays for it

        folded = {name.casefold(): name for name in names[:200]}
        if close := get_close_matches(asked[:100].casefold(), folded, 1):
            return f"did you mean {states.__name__}.{folded[close[0]]}?"
    with suppress(Exception):
        return f"did you mean {states.__name__}.{states(returned)._name_}?"
    known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    forgot = ". A task without a return statement returns None" if returned is None else ""
    return f"return one of its members: {known}{forgot}"


def _short(value: object) -> str:
    """The repr of *value*, even if that is long, or raises."""
    from reprlib import Repr  # noqa: PLC0415 -- only a mistake pays for it

    shown = Repr()
    shown.maxstring = shown.maxother = 200
    return shown.repr(value)


def finished(phase: Phase) -> bool:
    """Whether nothing can follow any more."""
    return phase in (Phase.FINISHED, Phase.FAILED, Phase.CANCELLED)
