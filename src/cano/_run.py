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
from cano._clock import clock
from cano._data import DataType
from cano._history import NOTHING_YET, Phase, evolve
from cano._kinds import did_you_mean
from cano._plan import Plan, Step
from cano.context import Context
from cano.errors import (
    RoutingError,
    RunCancelledError,
    RunTimeoutError,
    StrayCancelledError,
)
from cano.events import (
    Event,
    Observer,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StateEntered,
)
from cano.resources import Resources
from cano.tasks.task import S

PATH = 64
"""How many of the latest states a run remembers, at least: runs may go round for ever."""

_A_WINDOW = (None,) * PATH


class Run(Generic[S]):
    """A plan being carried out."""

    __slots__ = (
        "_now", "_run_id", "_sequence", "audience", "cancelled", "context", "history", "path",
        "plan", "steps",
    )  # fmt: skip

    def __init__(self, plan: Plan[S], data: Any, run_id: str | None) -> None:
        self.plan = plan
        self.steps: Mapping[str, Step[S]] = plan.steps
        self.audience = plan.audience
        self.history = NOTHING_YET
        self.path: list[Enum] = []
        self.context: Context[Any] = Context(self, self.path, data)
        self.cancelled = False
        self._run_id = run_id
        self._now: Callable[[], float] | None = None
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

    async def live_with_resources(self, start: S) -> S:
        """`live`, with the workflow's resources up meanwhile."""
        async with self.plan.resources:
            return await self.live(start)

    async def live(self, start: S) -> S:
        """From the first event of the run to its last."""
        try:
            await self.record(RunStarted(state=start._name_, version=self.plan.version))
            if self.plan.timeout is None:
                state = await self.forward(start)
            else:
                state = await self.forward_within(start, self.plan.timeout)
        except CancelledError:
            await self.end_cancelled()
            raise
        except Exception as error:
            self.note(error)
            await self.record(
                RunFailed(
                    state=self.path[-1]._name_, kind=type(error).__qualname__, error=str(error)
                )
            )
            raise
        else:
            if self.audience.listens(StateEntered):
                self.announce(StateEntered(state=state._name_))
            await self.record(RunFinished(state=state._name_))
            return state
        finally:
            self.context.close()

    async def forward(self, state: S) -> S:
        """Visit states until one has no runner."""
        path, context, step = self.path, self.context, self.steps[state._name_]
        while True:
            for _ in _A_WINDOW:  # counts the visits without counting them
                path.append(state)
                runner = step.runner
                if runner is None:
                    return state
                returned = await runner(context)
                try:
                    step = self.steps[returned._name_]
                except (AttributeError, KeyError, TypeError):
                    self.lost(returned)
                if step.state is not returned:
                    self.lost(returned)
                state = returned
            del path[:-PATH]

    async def forward_within(self, start: S, limit: float) -> S:
        """`forward`, ended after *limit* seconds. Raises `RunTimeoutError`."""
        alarm = self.context.alarm
        alarm.push(limit)
        try:
            return await self.forward(start)
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

    async def end_cancelled(self) -> None:
        """Close a run that was cancelled: by its handle, from outside, or by nobody at all."""
        task = asyncio.current_task()
        if not self.cancelled and not (task and task.cancelling()):
            stray = StrayCancelledError(
                f"{self.path[-1].name} raised CancelledError, but nobody had cancelled the run; "
                "it probably awaited something that was cancelled elsewhere"
            )
            self.note(stray)
            await self.record(
                RunFailed(
                    state=self.path[-1]._name_, kind=type(stray).__qualname__, error=str(stray)
                )
            )
            raise stray
        await self.record(RunCancelled(state=self.path[-1].name if self.path else ""))
        if self.cancelled:
            raise RunCancelledError(f"run {self.run_id!r} was cancelled {self.whereabouts()}")

    def listens(self, kind: type[Event], /) -> bool:
        return self.audience.listens(kind)

    def announce(self, event: Event, /) -> None:
        """Say whose *event* is, and when it happened, and tell the observers."""
        if self._now is None:
            self._now = clock()
        self._sequence = sequence = self._sequence + 1
        told = replace(
            event,
            run_id=self._run_id or self.run_id,
            workflow=self.plan.name,
            sequence=sequence,
            time=self._now(),
        )
        audience = self.audience
        for observer in audience.of(type(event)):
            try:
                observer(told)
            except Exception as error:  # noqa: BLE001 -- an observer never changes a run
                audience.dismiss(observer, told, error)

    def watch(self, observer: Observer) -> None:
        """Tell *observer* everything from now on; a visit that has begun goes on untold."""
        self.audience = Audience((*self.audience.observers, observer))
        self.steps = self.plan.watched

    def whereabouts(self) -> str:
        """The end of the way that was gone, such as ``FETCH → PARSE → SHIP, attempt 2``."""
        latest = [state.name for state in self.path[-8:]]
        gone = " → ".join(["…", *latest] if len(self.path) > len(latest) else latest)
        attempt = self.context.attempt if self.path else 1
        return gone + (f", attempt {attempt}" if attempt > 1 else "")

    def note(self, error: BaseException) -> None:
        """Say on *error* where it happened, once."""
        note = f"cano: run {self.run_id!r} of {self.plan.name}: {self.whereabouts()}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)

    def lost(self, returned: object) -> NoReturn:
        """The task returned something that is no state to go to. Raises `RoutingError`."""
        here = self.path[-1].name
        label = self.plan.registrations[here].task.label
        states = self.plan.states
        if isinstance(returned, states):
            why = f"{returned.name} has no task and is not an exit; register a task for it"
        else:
            names = [member.name for member in states]
            hint = did_you_mean(str(getattr(returned, "name", returned)).upper(), names)
            why = f"that is no member of {states.__name__}" + (
                hint or f"; return one of its members: {', '.join(names)}"
            )
            if returned is None:
                why += ". A task without a return statement returns None"
        raise RoutingError(f"{label}, the task of {here}, returned {returned!r}; {why}")


def finished(phase: Phase) -> bool:
    """Whether nothing can follow any more."""
    return phase in (Phase.FINISHED, Phase.FAILED, Phase.CANCELLED)
