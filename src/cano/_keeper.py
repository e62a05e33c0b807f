"""Holds the lease of one workflow scope, and hears of what others do to its runs.

One lease holds all runs of the scope: a heartbeat renews one row, on a timer of its own, however
many runs there are and however long their tasks take. (A task that blocks the event loop for longer
than the lease blocks the heartbeat too; its runs may then be taken over, and it is refused at its
next append.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from cano._clock import wall_offset
from cano._durable import DurableRun
from cano._process import dead, here, new_owner
from cano.checkpoints.store import CheckpointStore, Owner, Status
from cano.errors import CheckpointError, RunLostError

_log = logging.getLogger("cano.ownership")


class Keeper:
    """One owner: a workflow, in one event loop, from its first run to its last."""

    def __init__(self, store: CheckpointStore, lease: float) -> None:
        self.store = store
        self.lease = lease
        self.owner: Owner = new_owner()
        self.held: dict[str, DurableRun[Any]] = {}
        """The runs that are carried out here, by name."""
        self.dropped: dict[str, int] = {}
        """Runs that stopped because the store failed: still ours, carried out by nobody."""
        self.open: bool = False
        """Whether a scope keeps the lease up even while there are no runs."""
        self._loop = asyncio.get_running_loop()
        self._offset = wall_offset(self._loop)
        self._until = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unlisten: Callable[[], None] | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._errands: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Keeper {self.owner.id} of {len(self.held)} runs>"

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._loop.time()

    @property
    def fresh(self) -> bool:
        """Whether there is a lease with a good part of its time left, and all it needs."""
        fresh = self._until - self.now() >= self.lease / 2
        return fresh and self._timer is not None and self._unlisten is not None

    async def ready(self) -> None:
        """Hold a lease with a good part of its time left. Raises `CheckpointError`."""
        if self._until - self.now() < self.lease / 2:
            if self._renewal is None or self._renewal.done():
                self._renewal = self._loop.create_task(self._renew())
            await asyncio.shield(self._renewal)
        if self._timer is None:
            self._timer = self._loop.call_later(self.lease / 3, self._ring)
        if self._unlisten is None:
            self._unlisten = self.store.listen(self._told)

    def hold(self, run: DurableRun[Any]) -> None:
        """Mind *run* until it is let go."""
        self.held[run.run_id] = run

    def let_go(self, run: DurableRun[Any]) -> None:
        """Mind *run* no more."""
        if self.held.get(run.run_id) is run:
            del self.held[run.run_id]
        if run.journal.broken is not None and not isinstance(run.journal.broken, RunLostError):
            self.dropped[run.run_id] = run.fence

    async def pick_up(self) -> None:
        """Let go, in the store too, of the runs it failed. Not at once: it may fail them again."""
        for run_id, epoch in list(self.dropped.items()):
            wake = self.now() + self.lease
            await self.store.release(run_id, epoch, Status.RUNNING, wake)
            self.dropped.pop(run_id, None)

    @contextmanager
    def word_of(self, run_id: str) -> Generator[asyncio.Future[None]]:
        """A future that is done when something may have happened to the run from here on.

        An empty name is any run.
        """
        if self._unlisten is None:
            self._unlisten = self.store.listen(self._told)
        bell: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(run_id, set()).add(bell)
        try:
            yield bell
        finally:
            waiting = self._waiting[run_id]
            waiting.discard(bell)
            if not waiting:
                del self._waiting[run_id]

    async def bury(self) -> None:
        """End the leases of processes of this machine that are gone: nobody need wait for them."""
        for owner in await self.store.owners(here(), self.now()):
            if dead(owner):
                await self.store.expire(owner.id)

    async def close(self) -> None:
        """Give up the lease, if no run needs it."""
        self.open = False
        if self.held:
            return
        self._stop()
        if self._until:
            self._until = 0.0
            await self.store.expire(self.owner.id)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unlisten is not None and not self._waiting:
            self._unlisten()
            self._unlisten = None

    def _ring(self) -> None:
        if not self.held and not self.open:
            self._stop()
            return
        self._timer = self._loop.call_later(self.lease / 3, self._ring)
        if self._renewal is None or self._renewal.done():
            self._renewal = self._loop.create_task(self._renew())
            self._renewal.add_done_callback(_complain)

    async def _renew(self) -> None:
        # Leases are compared with other processes' clocks: ours stood still if the machine slept.
        self._offset = wall_offset(self._loop)
        now = self.now()
        first = not self._until
        alive = await self.store.renew(self.owner, now, now + self.lease)
        self._until = now + self.lease
        if not alive and not first:
            await self._look_for_losses()

    async def _look_for_losses(self) -> None:
        """The lease was over for a while, and others may have taken runs over."""
        for run_id, run in list(self.held.items()):
            summary = await self.store.summary(run_id)
            if summary.epoch != run.fence:
                _log.warning("run %r was taken over while its lease was over", run_id)
                run.lose(RunLostError(f"run {run_id!r} was taken over by owner {summary.owner}"))

    def _told(self, run_id: str) -> None:
        run = self.held.get(run_id)
        if run is not None and not run.ending:
            self._run_errand(run.look())
        for name in (run_id, "") if run_id else tuple(self._waiting):
            for bell in self._waiting.get(name, ()):
                if not bell.done():
                    bell.set_result(None)

    def _run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        task.add_done_callback(_complain)


def _complain(task: asyncio.Task[Any]) -> None:
    """What goes wrong here is tried again; whoever has to know meets it in an append of his own."""
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.WARNING if isinstance(error, CheckpointError) else logging.ERROR
        _log.log(level, "the store could not be asked: %s", error)
