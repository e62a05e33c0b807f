"""A run that is under way, held from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cano._cancel import Canceller
from cano._data import encode
from cano._host import Parked
from cano._lifecycle import OVER, Phase
from cano._run import Run
from cano._subscribe import Observer
from cano.context import Context
from cano.errors import RunEndedError, RunNotFoundError
from cano.events import Event, RunCancelled, RunFailed, RunFinished
from cano.tasks.task import S

if TYPE_CHECKING:
    from cano._stored import Stored

D = TypeVar("D")


class RunHandle(Generic[S, D]):
    """One run, started or carried on by this process."""

    __slots__ = ("__weakref__", "_canceller", "_context", "_run", "_stored", "_task")

    def __init__(
        self,
        run: Run[S],
        context: Context[D],
        task: asyncio.Task[S],
        stored: Stored[S, D] | None = None,
    ) -> None:
        self._run = run
        self._context = context
        self._task = task
        self._stored = stored
        self._canceller = Canceller(run, task)

    def follow(self, run: Run[S], context: Context[D], task: asyncio.Task[S]) -> None:
        """For the sweeper: it was parked, and is carried on here."""
        self._run, self._context, self._task = run, context, task
        self._canceller = Canceller(run, task)

    def __repr__(self) -> str:
        return repr(self._run).replace("<Run", "<RunHandle", 1)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self._run.run_id

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `failed` or `cancelled`."""
        phase = self._run.phase
        if self.parked:
            return "waiting"
        if self._task.done() and self._run.phase not in OVER:  # it ended outside of its states
            phase = Phase.CANCELLED if self._task.cancelled() else Phase.FAILED
        return str(phase)

    @property
    def parked(self) -> bool:
        """Whether the run was let go to wait; who carries it on then does so by its name."""
        return _parked(self._task)

    @property
    def state(self) -> S | None:
        """The state the run is in, or ended in; None before the first."""
        path: list[Any] = self._run.path
        return path[-1] if path else None

    @property
    def done(self) -> bool:
        """Whether the run has ended and let go of its resources."""
        return self._task.done() and not self.parked

    async def result(self) -> S:
        """Wait for the end and return the exit, or raise what ended the run.

        Raises `RunCancelledError` if `cancel` did. Cancelling whoever waits here leaves the run
        alone. With a store, a run that waits elsewhere or was let go is waited for all the same.
        """
        task = self._task  # which the sweeper may replace before we are woken
        await asyncio.wait((task,))
        if not task.cancelled():
            if self._stored is None or not _parked(task):
                return task.result()
        elif self._stored is None or (self._run.cancelled and self._run.phase not in OVER):
            raise self._run.cancellation(self._context)
        return await self._stored.lives.outcome(self.run_id)

    async def data(self) -> D:
        """The run's data as it is now; after `result`, as the run left it."""
        if self._stored is not None and self.parked:
            return await self._stored.handle(self.run_id).data()
        return self._context.data

    async def cancel(self) -> None:
        """Ask the run to end. Returns at once; `result` then raises `RunCancelledError`.

        A task that does not heed the cancellation is cancelled again every 50 ms. Cancelling a
        run that has ended changes nothing.
        """
        if self._stored is not None and self.parked:
            await self._stored.handle(self.run_id).cancel()
            return
        if self._run.cancelled or self._canceller.over:
            return
        if self._stored is not None:
            with suppress(RunNotFoundError):  # not kept yet: it is then ended before it begins
                await self._stored.handle(self.run_id).cancel()
        self._run.cancelled = True
        self._canceller.begin()

    async def signal(self, name: str, value: object = None, *, key: str = "") -> None:
        """Send a signal to the run. A second one with the same *key* counts for nothing.

        Signals are kept until the run waits for them, first in, first out per name. Raises
        `RunEndedError`.
        """
        if self._stored is not None:
            await self._stored.handle(self.run_id).signal(name, value, key=key)
            return
        if self.done:
            raise RunEndedError(f"run {self.run_id!r} is over, and takes no more signals")
        self._run.mailbox.send(name, encode(value), key)

    def watch(self, observer: Observer) -> None:
        """Tell *observer* of everything that happens to the run from now on, as it happens."""
        self._run.watch(observer)

    def events(self) -> AsyncIterator[Event]:
        """Everything that happens to the run from now on, as it happens, to its end.

        Asked for before the run's first step, it is everything there is. Once a run has been let
        go to wait, what follows comes from its store: only what that keeps.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        if self._canceller.over:
            queue.put_nowait(RunCancelled())  # nothing follows here: see `_end_of`
        tell = queue.put_nowait
        self.watch(tell)
        return self._follow(queue, tell)

    async def _follow(self, queue: asyncio.Queue[Event], tell: Observer) -> AsyncIterator[Event]:
        run, task = self._run, self._task  # the sweeper may replace them
        waiting = asyncio.ensure_future(_end_of(task, queue))
        try:
            while True:
                event = await queue.get()
                if event.workflow:
                    yield event
                if isinstance(event, _LAST):
                    break
            if self._stored is not None and not event.workflow and _parked(task):
                rest = self._stored.handle(self.run_id).events_after(run.history.sequence)
                async for event in rest:
                    yield event
        finally:
            waiting.cancel()
            run.unwatch(tell)


_LAST = (RunFinished, RunFailed, RunCancelled)


async def _end_of(task: asyncio.Task[Any], queue: asyncio.Queue[Event]) -> None:
    """A run cancelled before its first step announces nothing: end the wait for it."""
    await asyncio.wait((task,))
    queue.put_nowait(RunCancelled())


def _parked(task: asyncio.Task[Any]) -> bool:
    """Whether a run was let go to wait when its task ended."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return False
    return isinstance(task.result(), Parked)
