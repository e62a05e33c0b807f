"""Runs workflows when their schedules say so.

Rule 1: one timer, for whoever is due next; see `cano.scheduler._clockwork`.
Rule 2: what is to be done about a flow is decided in `cano.scheduler._flows`, which is pure.
Rule 3: stopping takes as long as it was told to, whatever the runs do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cano._audience import problems
from cano._clock import time_ordered_id
from cano._kinds import did_you_mean
from cano._subscribe import Observer
from cano.errors import DefinitionError, FlowRefusedError
from cano.handle import RunHandle
from cano.scheduler._entries import Asked, Entry, FlowStatus
from cano.scheduler._fires import AGAIN, Fires, log
from cano.scheduler._flows import Action, Flow, FlowState
from cano.scheduler._shutdown import Mode, Scopes, Shutdown
from cano.scheduler.settings import (
    Backoff,
    Misfire,
    Overlap,
    Unfinished,
)
from cano.schedules import Schedule

if TYPE_CHECKING:
    from cano.checkpoints.store import CheckpointStore
    from cano.workflow import Workflow

S = TypeVar("S", bound=Enum)
D = TypeVar("D")

_BACKOFF = Backoff()


class Scheduler:
    """Runs workflows when it is time, as long as it is open.

    Example::

        scheduler = Scheduler()
        scheduler.add("report", report, Cron("0 6 * * MON-FRI", "Europe/Berlin"))
        scheduler.add("sync", sync, Every(300), trip=5)
        await scheduler.run()  # until it is stopped, or cancelled

    Resources of the workflows stay up as long as it is open. With a *store*, any number of
    processes may have the same flows: each tick is run once, and what is known of a flow survives
    a restart. The workflows then need a store too, usually the same.

    Args:
        store: keeps what is known of the flows; None forgets it.
        observers: callables of one event, told of `ScheduleFired` and the like.
        grace: how many seconds the runs under way are given to end when the scheduler stops; and
            as many again to be cancelled.
    """

    def __init__(
        self,
        *,
        store: CheckpointStore | None = None,
        observers: Sequence[Observer] = (),
        grace: float = 30.0,
    ) -> None:
        if found := [f"Scheduler: {problem}" for problem in problems(observers)]:
            raise DefinitionError(found)
        if store is not None and not hasattr(store, "note"):
            raise DefinitionError(
                f"Scheduler: store={store!r} is no store; pass SqliteCheckpoints(path), or another "
                "CheckpointStore"
            )
        if not 0 <= grace < inf:
            raise DefinitionError(f"Scheduler: grace={grace!r}; pass seconds, 0 or more")
        self.store: CheckpointStore | None = store
        self.grace: float = grace
        self._observers = tuple(observers)
        self._entries: dict[str, Entry] = {}
        self._fires: Fires | None = None
        self._scopes: Scopes = Scopes()
        self._shutdown: Shutdown | None = None

    def __repr__(self) -> str:
        how = "open" if self.open else "not open"
        return f"<Scheduler of {len(self._entries)} flows, {how}>"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, flow: object) -> bool:
        return flow in self._entries

    @property
    def open(self) -> bool:
        """Whether flows are run."""
        return self._fires is not None and self._shutdown is None

    def add(
        self,
        flow: str,
        workflow: Workflow[S, D],
        schedule: Schedule,
        *,
        start: S | None = None,
        data: Callable[[], D] | Callable[[datetime], D] | None = None,
        overlap: Overlap = "skip",
        misfire: Misfire = "skip",
        backoff: Backoff = _BACKOFF,
        trip: int | None = None,
        until: datetime | None = None,
        jitter: float = 0.0,
        tags: Sequence[str] = (),
        unfinished: Unfinished = "resume",
    ) -> Self:
        """Run *workflow* when *schedule* says so. Before the scheduler is opened, or while it is.

        Raises `DefinitionError`, for what is wrong with the workflow too.

        Args:
            flow: its name; with a store it is known by it.
            workflow: what to run.
            schedule: `Every`, `Cron`, `Once`, `Manual`, or anything with their `next`.
            start: the state to start from, if it is not the workflow's own.
            data: makes the data of each run; it is given the time it is due, if it asks for it.
            overlap: what to do with a tick while a run is under way: `"skip"` it; `"queue"` one;
                `"cancel"` the run, and begin when it has ended; `Allow(n)` at once.
            misfire: what to do about ticks that nobody was there for, or that were noticed more
                than a minute late: `"skip"` them; run `"once"` for all; `CatchUp(n)` with the
                latest n, one after the other.
            backoff: how long to rest after a failure.
            trip: after how many failures in a row to stop until `reset`; None never does.
            until: no tick after this moment is run.
            jitter: each tick is run up to so many seconds late, so that not all come at once.
            tags: for finding the runs in lists of a store; `flow:` and its name is always one.
            unfinished: what to do with a run that its process left behind: `"resume"` it, or
                `"supersede"` it, which is to cancel it.
        """
        if flow in self._entries:
            raise DefinitionError(f"flow {flow!r} is there already; remove it first, or rename one")
        if self.store is not None and getattr(workflow, "checkpoints", self) is None:
            raise DefinitionError(
                f"flow {flow!r}: {workflow.name} has no store, so nobody can tell whether a tick was "
                "run; say Workflow(..., checkpoints=store)"
            )
        entry = self._entries[flow] = Entry(
            Flow(
                flow, workflow, schedule, start, data, overlap, misfire, backoff, trip, until,
                jitter, tags, unfinished,
            )
        )  # fmt: skip
        if self._fires is not None and self._shutdown is None:
            entry.spawn(self._begin_late(entry, self._fires))
        return self

    def remove(self, flow: str) -> None:
        """Run the flow no more. What is under way goes on; a store keeps what it knows."""
        entry = self._entry(flow)
        del self._entries[flow]
        entry.open = False
        if self._fires is not None:
            self._fires.clock.set(entry, None)
            self._fires.leave(entry)

    async def pause(self, flow: str) -> None:
        """Run the flow no more by itself, until `resume`. What is under way goes on."""
        await self._change(flow, self._entry(flow).flow.pause)

    async def resume(self, flow: str) -> None:
        """Run a paused flow again. Ticks that came meanwhile do not count."""
        await self._change(flow, self._entry(flow).flow.resume)

    async def reset(self, flow: str) -> None:
        """Forget the failures of a flow: it is neither tripped any more nor backs off."""
        await self._change(flow, self._entry(flow).flow.reset)

    async def cancel(self, flow: str) -> None:
        """Ask the runs of a flow that are under way to end; they do not count as failures."""
        fires, entry = await self._change(flow, self._entry(flow).flow.clear)
        for run_id in list(entry.state.running):
            await fires.cancel(entry, run_id)

    async def trigger(
        self,
        flow: str,
        *,
        data: Any = None,
        run_id: str | None = None,
    ) -> RunHandle[Any, Any]:
        """Run a flow now, whatever its schedule, and return the run's handle.

        With *data* of its own, if given, and a *run_id*. A pause or a rest after a failure does not
        keep it from running. Raises `FlowRefusedError` if the flow is tripped, or runs as often as
        it may, or the scheduler is not open; and what making the data raises.
        """
        fires, entry = self._running(), self._entry(flow)
        name = f"{flow}#{time_ordered_id()}" if run_id is None else run_id
        if data is None and entry.flow.fresh_data is not None:
            data = entry.flow.fresh_data(fires.clock.now())
        entry.flow.workflow._begin(entry.flow.start)
        waits: asyncio.Future[RunHandle[Any, Any]] = asyncio.get_running_loop().create_future()
        entry.asked[name] = Asked(data, waits)
        try:
            await fires.refresh(entry)
            await fires.change(entry, lambda state, now: entry.flow.by_hand(state, name, now))
            return await waits
        finally:
            entry.asked.pop(name, None)

    def status(self, flow: str) -> FlowStatus:
        """A flow at a glance."""
        return self._entry(flow).status(self._now())

    def list(self) -> Sequence[FlowStatus]:
        """All flows at a glance, in the order they were added."""
        now = self._now()
        return [entry.status(now) for entry in self._entries.values()]

    async def stop(self, mode: Mode = "finish", *, grace: float | None = None) -> tuple[str, ...]:
        """Begin nothing more, see the runs end, and take the resources down.

        What runs is given *grace* seconds to `"finish"`; then, or at once, it is cancelled, or let
        go of: `"cancel"` ends the runs, those in a store for good; `"release"` lets go of those in
        a store, for other processes or the next start to carry on, and so does `"finish"` with what
        is left. That too is given *grace* seconds. Returns the names of the runs that had still not
        ended then; they are left alone.

        Called again it waits for the same; with another mode than `"finish"`, it hurries.
        """
        if mode not in ("finish", "cancel", "release"):
            raise DefinitionError(f'stop({mode!r}): pass "finish", "cancel" or "release"')
        if self._fires is None:
            return ()
        if self._shutdown is None:
            entries = [*self._entries.values(), *self._fires.leaving]
            limit = self.grace if grace is None else grace
            self._shutdown = Shutdown(self._fires, entries, self._scopes, mode, limit)
        elif mode != "finish":
            self._shutdown.hurry(mode)
        return await self._shutdown.wait()

    async def wait(self) -> tuple[str, ...]:
        """Wait until somebody has stopped the scheduler; what `stop` returns."""
        if self._fires is None:
            return ()
        await self._fires.stopping.wait()
        return await self.stop()

    async def run(self) -> None:
        """Open the scheduler, and run flows until somebody stops it, or cancels this.

        Cancelled, it lets go of the runs in a store, and cancels the others, within *grace* seconds.
        """
        async with self:
            await self.wait()

    async def __aenter__(self) -> Self:
        """Set up the resources of all workflows, and begin."""
        if self._fires is not None and not (self._shutdown and self._shutdown.over):
            raise DefinitionError("the scheduler is open already; it is opened once at a time")
        fires = self._fires = _fires(self._observers, self.store)
        self._scopes, self._shutdown = Scopes(), None
        fires.entries = self._entries
        entries = list(self._entries.values())  # others may be added meanwhile
        try:
            for entry in entries:
                entry.forget()
                await fires.prepare(entry)
            for entry in entries:
                await self._scopes.enter(entry.flow.workflow)
            for entry in entries:
                await fires.open(entry)
        except BaseException:
            self._shutdown = Shutdown(fires, [*self._entries.values()], self._scopes, "release", 0)
            await self._shutdown.wait()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """`stop`; when the block failed or was cancelled, without waiting for runs to finish."""
        await self.stop("finish" if kind is None else "release")

    async def _begin_late(self, entry: Entry, fires: Fires) -> None:
        while not await fires.prepared(entry):  # noqa: ASYNC110 -- nobody tells of it
            await asyncio.sleep(AGAIN)  # the store does not say when it is back
        try:
            await self._scopes.enter(entry.flow.workflow)
        except Exception:  # noqa: BLE001 -- each run then tries, and says so again
            log.exception("flow %r could not be begun as it should", entry.flow.name)
        await fires.open(entry)

    async def _change(
        self, flow: str, decide: Callable[[FlowState, float], Sequence[Action]]
    ) -> tuple[Fires, Entry]:
        fires, entry = self._running(), self._entry(flow)
        await fires.refresh(entry)
        await fires.change(entry, decide)
        return fires, entry

    def _running(self) -> Fires:
        if self._fires is None or self._shutdown is not None:
            raise FlowRefusedError(
                "the scheduler is not open; say `async with scheduler:`, or await scheduler.run()"
            )
        return self._fires

    def _entry(self, flow: str) -> Entry:
        try:
            return self._entries[flow]
        except (KeyError, TypeError):
            hint = did_you_mean(flow, self._entries)
            raise DefinitionError(f"there is no flow {flow!r}{hint}") from None

    def _now(self) -> float:
        return 0.0 if self._fires is None else self._fires.clock.now()


def _fires(observers: Sequence[Observer], store: CheckpointStore | None) -> Fires:
    if store is None:
        return Fires(observers)
    from cano.scheduler._kept import KeptFires  # noqa: PLC0415 -- only who has a store pays for it

    return KeptFires(observers, store)
