"""Carries out what is decided about flows, and sees what becomes of it. Nothing of it is kept."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from msgspec.structs import replace

from cano._audience import Audience
from cano._causes import said
from cano._subscribe import Observer
from cano.announced import (
    ScheduleBackedOff,
    ScheduleEnded,
    ScheduleFired,
    ScheduleSkipped,
    ScheduleTripped,
)
from cano.errors import (
    CheckpointError,
    CorruptHistoryError,
    EffectInDoubtError,
    FlowRefusedError,
    ProgressMismatchError,
    RunCancelledError,
    RunStuckError,
    VersionMismatchError,
)
from cano.events import Event
from cano.handle import RunHandle
from cano.scheduler._clockwork import Clockwork
from cano.scheduler._entries import Asked, Entry
from cano.scheduler._flows import Action, Begin, FlowState, Rest, Skip, Stop, Trip
from cano.schedules import Every

Decide: TypeAlias = Callable[[FlowState, float], "Sequence[Action] | None"]
"""Changes what is known of a flow, and says what follows; None if there was nothing to change."""

log = logging.getLogger("cano.scheduler")

AGAIN = 1.0
"""Seconds after which what the store failed is tried again."""
LONGEST = 500
"""How many characters of an error are kept."""

_FOR_GOOD = (
    CorruptHistoryError, EffectInDoubtError, ProgressMismatchError, RunStuckError,
    VersionMismatchError,
)  # fmt: skip
"""Trouble with a history that waiting for others does not mend."""


class Fires:
    """Begins the runs of flows, and takes note of their ends."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.audience: Audience = Audience(observers)
        self.clock: Clockwork[Entry] = Clockwork(self.look, self.jumped)
        self.entries: dict[str, Entry] = {}
        self.leaving: list[Entry] = []
        """Flows that were removed, and may have runs under way."""
        self.stopping: asyncio.Event = asyncio.Event()
        self.closing: bool = False
        """Whether nothing is begun any more."""

    def close(self) -> None:
        """Begin nothing any more."""
        self.closing = True
        self.clock.stop()
        self.stopping.set()
        for entry in self.entries.values():
            self.clear(entry)

    def clear(self, entry: Entry) -> None:
        """Forget the ticks that wait for room: nobody will begin them."""
        entry.state.queued = []

    def leave(self, entry: Entry) -> None:
        """Remember a flow that was removed, as long as it has runs under way."""
        known = [*self.leaving, entry]
        self.leaving = [entry for entry in known if entry.tasks or entry.carried]

    async def prepared(self, entry: Entry) -> bool:
        """`prepare`, or say in the log why that was not to be had."""
        try:
            await self.prepare(entry)
        except CheckpointError as error:
            log.warning("flow %r could not be looked up: %s", entry.flow.name, error)
            return False
        return True

    async def prepare(self, entry: Entry) -> None:
        """Find out how a flow was left, before anybody carries on its runs."""

    async def open(self, entry: Entry) -> None:
        """Begin with a flow."""
        now = self.clock.now()
        entry.state.start = entry.state.start or now
        entry.open = True
        self.look(entry, now)

    def look(self, entry: Entry, now: float) -> None:
        """Do what is to be done about a flow now."""
        if entry.open and not self.closing:
            self.apply(entry, entry.flow.look(entry.state, now))

    async def refresh(self, entry: Entry) -> None:
        """Find out what other processes made of a flow: nothing, for they do not know of it."""

    async def change(self, entry: Entry, decide: Decide) -> bool:
        """Do what is decided about a flow; whether there was anything to change."""
        actions = decide(entry.state, self.clock.now())
        if actions is not None:
            self.apply(entry, actions)
        return actions is not None

    def jumped(self, by: float, now: float) -> None:
        """The clock on the wall was put forward; intervals go on as if it had not been."""
        log.warning("the clock was put %s by %.0f s", "forward" if by > 0 else "back", abs(by))
        for entry in list(self.entries.values()):
            state = entry.state
            if isinstance(entry.flow.schedule, Every):
                state.start += by
                state.last = None if state.last is None else state.last + by
                state.ended = None if state.ended is None else state.ended + by
            if state.rests:
                state.rests += by
            self.look(entry, now)

    def apply(self, entry: Entry, actions: Sequence[Action]) -> None:
        """Carry out what was decided."""
        for action in actions:
            match action:
                case Begin():
                    self.begin(entry, action)
                case Skip(due, reason):
                    self.tell(entry, ScheduleSkipped(due=due, reason=reason))
                case Stop(run_id):
                    entry.spawn(self.cancel(entry, run_id))
                case Rest(streak, until):
                    self.tell(entry, ScheduleBackedOff(streak=streak, until=until))
                case Trip(streak, error):
                    log.error("flow %r is tripped after %d failures", entry.flow.name, streak)
                    self.tell(entry, ScheduleTripped(streak=streak, error=error))
        if entry.open and not self.closing:
            self.clock.set(entry, entry.flow.wake(entry.state))

    def begin(self, entry: Entry, begin: Begin) -> None:
        """Begin a run, in the background."""
        asked = entry.asked.pop(begin.run_id, None)
        if self.closing:
            _refuse(asked, FlowRefusedError("the scheduler is being stopped"))
            return
        if entry.flow.workflow.checkpoints is None:
            self._begin_here(entry, begin, asked)
        else:
            task = entry.task_of(self.carry(entry, begin, asked))
            entry.carried[begin.run_id] = task
            task.add_done_callback(lambda task: entry.carried.pop(begin.run_id, None))

    def _begin_here(self, entry: Entry, begin: Begin, asked: Asked | None) -> None:
        """Begin a run that no store keeps: at once, and without a task besides its own."""
        flow, now, run_id = entry.flow, self.clock.now(), begin.run_id
        try:
            data = asked.data if asked else flow.fresh_data and flow.fresh_data(begin.due)
            run, context, living = flow.workflow._new_run(flow.start, data, run_id)
        except Exception as error:  # noqa: BLE001 -- it counts as a run that failed
            _refuse(asked, error)
            self.end(entry, run_id, now, "failed", error)
            return
        task = flow.workflow._in_background(living, run)
        handle = entry.held[run_id] = RunHandle(run, context, task)
        entry.carried[run_id] = task
        if asked and not asked.handle.done():
            asked.handle.set_result(handle)
        if self.audience.observers:
            self.tell(entry, ScheduleFired(run_id=run_id, due=begin.due))
        task.add_done_callback(partial(self._over, entry, run_id, now))

    def _over(self, entry: Entry, run_id: str, began: float, task: asyncio.Task[Any]) -> None:
        entry.carried.pop(run_id, None)
        entry.held.pop(run_id, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, RunCancelledError):
            outcome = "cancelled"
        else:
            outcome = "finished" if error is None else "failed"
        self.told_end(entry, run_id, began, outcome, error)
        self.end(entry, run_id, began, outcome, error)

    def told_end(
        self, entry: Entry, run_id: str, began: float, outcome: str, error: BaseException | None
    ) -> None:
        """Tell the observers of the end of a run that was carried out here."""
        if outcome == "failed":
            log.warning("flow %r: run %r failed", entry.flow.name, run_id, exc_info=error)
        if self.audience.listens(ScheduleEnded):
            seconds, text = self.clock.now() - began, "" if error is None else text_of(error)
            self.tell(
                entry, ScheduleEnded(run_id=run_id, outcome=outcome, seconds=seconds, error=text)
            )

    def end(
        self, entry: Entry, run_id: str, began: float, outcome: str, error: BaseException | None
    ) -> None:
        """Take note of the end of a run, and do what follows."""
        text = "" if error is None else text_of(error)
        rested = entry.state.rests
        actions = entry.flow.end(entry.state, run_id, outcome, text, self.clock.now())
        if actions or entry.wakes is None or rested != entry.state.rests:
            self.apply(entry, actions or ())

    async def carry(self, entry: Entry, begin: Begin, asked: Asked | None) -> None:
        """Start a run whose workflow has a store, and wait for its end."""
        flow, run_id, now = entry.flow, begin.run_id, self.clock.now()
        try:
            data = asked.data if asked else flow.fresh_data and flow.fresh_data(begin.due)
            handle = await flow.workflow.start_run(
                flow.start, data=data, run_id=run_id, tags=(f"flow:{flow.name}", *flow.tags)
            )
        except Exception as error:  # noqa: BLE001 -- it counts as a run that failed
            _refuse(asked, error)
            entry.unwanted.discard(run_id)
            await self.record_end(entry, run_id, now, "failed", error)
            return
        entry.held[run_id] = handle
        if asked and not asked.handle.done():
            asked.handle.set_result(handle)
        if run_id in entry.unwanted:
            entry.spawn(handle.cancel())
        try:
            await self._see_through(entry, begin, handle, now)
        finally:
            entry.held.pop(run_id, None)
            entry.unwanted.discard(run_id)

    async def _see_through(
        self, entry: Entry, begin: Begin, handle: RunHandle[Any, Any], began: float
    ) -> None:
        """Wait for the end of a run that was started here, unless somebody else has it."""
        run_id, outcome = begin.run_id, "finished"
        error: Exception | None = None
        if taken(handle):
            await self.elsewhere(entry, begin)
            return
        self.tell(entry, ScheduleFired(run_id=run_id, due=begin.due))
        try:
            await handle.result()
        except CancelledError:  # let go of
            self.told_end(entry, run_id, began, "released", None)
            raise
        except RunCancelledError as cancelled:
            outcome, error = "cancelled", cancelled
        except Exception as failed:  # noqa: BLE001 -- it is the run's
            outcome, error = "failed", failed
            if is_taken(failed):
                self.told_end(entry, run_id, began, "released", None)
                await self.elsewhere(entry, begin)
                return
        self.told_end(entry, run_id, began, outcome, error)
        await self.record_end(entry, run_id, began, outcome, error)

    async def record_end(
        self, entry: Entry, run_id: str, began: float, outcome: str, error: BaseException | None
    ) -> None:
        """`end`, where that may take a while."""
        self.end(entry, run_id, began, outcome, error)

    async def elsewhere(self, entry: Entry, begin: Begin) -> None:
        """Somebody else carries the run out; what becomes of it is theirs to know."""
        self.tell(entry, ScheduleSkipped(due=begin.due, reason="begun elsewhere"))
        entry.state.running.pop(begin.run_id, None)
        self.apply(entry, ())

    async def cancel(self, entry: Entry, run_id: str) -> None:
        """Ask a run to end."""
        if (handle := entry.held.get(run_id)) is not None:
            await handle.cancel()
        elif run_id in entry.carried:  # it is only being begun
            entry.unwanted.add(run_id)

    def tell(self, entry: Entry, event: Event) -> None:
        """Say whose *event* is, and when it happened, and tell the observers."""
        if not self.audience.listens(type(event)):
            return
        flow = entry.flow
        told = replace(event, flow=flow.name, workflow=flow.workflow.name, time=self.clock.now())
        for observer in self.audience[type(event)]:
            try:
                observer(told)
            except Exception as error:  # noqa: BLE001 -- an observer never changes anything
                self.audience.dismiss(observer, told, error)


def _refuse(asked: Asked | None, error: Exception) -> None:
    """Tell whoever triggered a run that it was not begun."""
    if asked and not asked.handle.done():
        asked.handle.set_exception(error)


def is_taken(error: BaseException) -> bool:
    """Whether *error* says that somebody else has the run, or will."""
    return isinstance(error, CheckpointError) and not isinstance(error, _FOR_GOOD)


def taken(handle: RunHandle[Any, Any]) -> bool:
    """Whether the run turned out to be somebody else's when it was started."""
    task = handle._task
    if not task.done() or task.cancelled() or (error := task.exception()) is None:
        return False
    return is_taken(error)


def text_of(error: BaseException) -> str:
    """An error in a line."""
    message = said(error)
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
