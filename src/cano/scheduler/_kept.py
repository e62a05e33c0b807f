"""Flows that are kept in a store: any number of processes fire a tick once.

Rule 1: what is decided about a flow is kept before it is done, if nobody else decided meanwhile.
Rule 2: a run that was decided upon and is not there is begun, by whoever finds that out. Its name
        is made of the flow and the tick, so that it is begun once, however many find out.
Rule 3: whoever sees the end of a run takes note of it, once; every process that knows of a run
        under way waits for its end, in case that whoever carries it out cannot say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from cano._subscribe import Observer
from cano.checkpoints.store import CheckpointStore, RunSummary, Status
from cano.errors import CheckpointError, RunFailedError, RunNotFoundError
from cano.scheduler._entries import Entry
from cano.scheduler._fires import AGAIN, Decide, Fires, log, text_of
from cano.scheduler._flows import Action, Begin, FlowState

AGAIN_AT_MOST = 30.0
"""Seconds between two tries, where each waits twice as long as the one before."""
IDLE = 60.0
"""Seconds after which a flow that is paused or tripped is looked at: others may have changed that."""
PATIENCE = 20.0
"""Seconds after which somebody who waits for a run asks how it is."""
LOST = 4
"""How often in a row nobody is found to carry a run out, before it counts as failed."""

_read = msgspec.json.Decoder(FlowState)


class KeptFires(Fires):
    """`Fires`, of flows that are kept."""

    def __init__(self, observers: Sequence[Observer], store: CheckpointStore) -> None:
        super().__init__(observers)
        self.store: CheckpointStore = store

    def clear(self, entry: Entry) -> None:
        """The ticks that wait for room are kept, for others or the next start."""

    async def prepare(self, entry: Entry) -> None:
        """Find out how a flow was left, before anybody carries on its runs."""
        flow = entry.flow

        def begin(state: FlowState, now: float) -> list[Action]:
            state.start = state.start or now
            if state.schedule != str(flow.schedule):  # a new one: its past ticks never were
                state.schedule, state.start, state.last, state.queued = (
                    str(flow.schedule), now, now, [],
                )  # fmt: skip
            return []

        await self.refresh(entry)
        await self._keep(entry, begin)
        if flow.unfinished == "supersede":
            await self._supersede(entry)

    async def open(self, entry: Entry) -> None:
        """Begin with a flow, or go on where it was left."""
        entry.open = True
        self.clock.set(entry, self.clock.now())  # to look at it

    def look(self, entry: Entry, now: float) -> None:
        """Do what is to be done about a flow now, in the background."""
        if entry.open and not self.closing:
            entry.spawn(self._look(entry))

    async def _look(self, entry: Entry) -> None:
        if entry.state.paused or entry.state.tripped:
            with suppress(CheckpointError):
                await self.refresh(entry)
        if not await self._tried(entry, entry.flow.look):
            self.clock.set(entry, self.clock.now() + AGAIN)

    async def refresh(self, entry: Entry) -> None:
        """Find out what other processes made of a flow."""
        entry.kept = await self.store.noted(key(entry.flow.name))

    async def change(self, entry: Entry, decide: Decide) -> bool:
        """Do what is decided about a flow, once that is kept."""
        async with entry.lock:
            actions = await self._keep(entry, decide)
            self.apply(entry, actions or ())  # there may be news of others
        return actions is not None

    async def _keep(self, entry: Entry, decide: Decide) -> Sequence[Action] | None:
        """Decide, until nobody else has decided meanwhile."""
        name = key(entry.flow.name)
        while True:
            was = entry.kept
            state = entry.flow.fresh(0.0) if was is None else _read.decode(was)
            actions = decide(state, self.clock.now())
            value = msgspec.json.encode(state)
            if actions is None or value == was or await self.store.note(name, value, was):
                break
            entry.kept = await self.store.noted(name)
        entry.kept, entry.state = (was if actions is None else value), state
        return actions

    def jumped(self, by: float, now: float) -> None:
        """The clock was put forward or back: ticks are what they are, for all processes."""
        log.warning("the clock was put %s by %.0f s", "forward" if by > 0 else "back", abs(by))
        for entry in list(self.entries.values()):
            self.look(entry, now)

    def apply(self, entry: Entry, actions: Sequence[Action]) -> None:
        """Carry out what was decided, and wait for what others do."""
        super().apply(entry, actions)
        mine = {action.run_id for action in actions if isinstance(action, Begin)}
        for run_id in entry.state.running:
            if run_id not in entry.followed and not self.closing:
                entry.followed.add(run_id)
                if run_id not in mine:
                    entry.spawn(self._follow(entry, run_id))
        entry.followed.intersection_update(entry.state.running)
        if entry.wakes is None and (entry.state.paused or entry.state.tripped):
            self.clock.set(entry, self.clock.now() + IDLE)

    async def record_end(
        self, entry: Entry, run_id: str, began: float, outcome: str, error: BaseException | None
    ) -> None:
        """Keep note of the end of a run, however long the store takes to be there again."""
        text = "" if error is None else text_of(error)
        await self._note_end(entry, run_id, outcome, text)

    async def _note_end(self, entry: Entry, run_id: str, outcome: str, text: str) -> None:
        pause, flow = AGAIN, entry.flow
        while not await self._tried(
            entry, lambda state, now: flow.end(state, run_id, outcome, text, now)
        ):
            if self.closing:  # whoever opens the flow next finds the run over
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, AGAIN_AT_MOST)

    async def _tried(self, entry: Entry, decide: Decide) -> bool:
        try:
            await self.change(entry, decide)
        except CheckpointError as error:
            log.warning("flow %r could not be kept: %s", entry.flow.name, error)
            return False
        return True

    async def elsewhere(self, entry: Entry, begin: Begin) -> None:
        """Somebody else carries the run out: wait for its end."""
        entry.spawn(self._follow(entry, begin.run_id))

    async def cancel(self, entry: Entry, run_id: str) -> None:
        """Ask a run to end, whoever carries it out."""
        if run_id in entry.carried:
            await super().cancel(entry, run_id)
            return
        with suppress(RunNotFoundError):
            await entry.flow.workflow.handle(run_id).cancel()

    async def _follow(self, entry: Entry, run_id: str) -> None:
        """Wait for the end of a run that is carried out elsewhere; or begin it, if it is not there."""
        handle, lost = entry.flow.workflow.handle(run_id), 0
        while run_id in entry.state.running and (lost := await self._ask(entry, run_id, lost)) >= 0:
            result = entry.task_of(handle.result())
            result.add_done_callback(_looked_at)
            try:
                await asyncio.wait((result,), timeout=PATIENCE)
            finally:
                result.cancel()

    async def _ask(self, entry: Entry, run_id: str, lost: int) -> int:
        """How often in a row nobody was found to carry the run out; less than 0 when it is done."""
        flow = entry.flow
        try:
            run = await self.store.summary(run_id)
        except RunNotFoundError:
            return await self._begin_or_drop(entry, run_id, lost)
        except CheckpointError:
            await asyncio.sleep(AGAIN)
            return lost
        if run.over:
            error = "" if run.status is not Status.FAILED else await self._why(entry, run_id)
            await self._note_end(entry, run_id, str(run.status), error)
            return -1
        lost = lost + 1 if self._abandoned(run) else 0
        stuck = bool(lost) and run.crashes >= flow.workflow.max_crashes
        if run.status is Status.IN_DOUBT or stuck or lost >= LOST:
            why = "in doubt" if run.status is Status.IN_DOUBT else "stuck" if stuck else "abandoned"
            await self._note_end(entry, run_id, "failed", f"run {run_id!r} is {why}")
            return -1
        if lost and flow.unfinished == "supersede":
            with suppress(CheckpointError):
                await flow.workflow.handle(run_id).cancel()
        return lost

    async def _begin_or_drop(self, entry: Entry, run_id: str, lost: int) -> int:
        """The run was decided upon and is not there: it was not begun, or not yet."""
        if not lost:  # give it a moment
            await asyncio.sleep(AGAIN)
            return 1
        due = due_of(entry.flow.name, run_id)
        if due:
            self.begin(entry, Begin(run_id, due))
        elif lost < LOST:  # triggered with data that only its process has
            await asyncio.sleep(AGAIN)
            return lost + 1
        else:
            await self._note_end(entry, run_id, "failed", f"run {run_id!r} was never begun")
        return -1

    def _abandoned(self, run: RunSummary) -> bool:
        """Whether nobody carries out a run that somebody should."""
        if run.status is not Status.RUNNING:
            return False
        return not run.owner or run.lease < self.clock.now()

    async def _why(self, entry: Entry, run_id: str) -> str:
        try:
            await entry.flow.workflow.handle(run_id).result()
        except CheckpointError:
            return ""
        except RunFailedError as error:
            return f"{error.kind}: {error.message}"
        except Exception as error:  # noqa: BLE001 -- it is the run's
            return text_of(error)
        return ""

    async def _supersede(self, entry: Entry) -> None:
        """Ask those runs to end that were left by a process that is gone."""
        if not entry.state.running:
            return
        workflow = entry.flow.workflow
        await workflow._durably(entry.flow.start).lives.keeper.bury()
        for run_id in entry.state.running:
            with suppress(RunNotFoundError):
                if self._abandoned(await self.store.summary(run_id)):
                    await workflow.handle(run_id).cancel()


def key(flow: str) -> str:
    """Under which name a store keeps what is known of a flow."""
    return f"schedule/{flow}"


def due_of(flow: str, run_id: str) -> float:
    """The tick that a run was named after; 0 for one that was not."""
    with suppress(ValueError):
        return datetime.fromisoformat(run_id.removeprefix(f"{flow}@")).timestamp()
    return 0.0


def _looked_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
