"""A run that is under way, held from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from cano._deadline import AGAIN
from cano._history import Phase
from cano._run import Run, finished
from cano.context import Context
from cano.events import Event, Observer, RunCancelled, RunFailed, RunFinished
from cano.tasks.task import S

D = TypeVar("D")


class RunHandle(Generic[S, D]):
    """One run, started by `Workflow.start_run`."""

    __slots__ = ("_again", "_context", "_run", "_task")

    def __init__(self, run: Run[S], context: Context[D], task: asyncio.Task[S]) -> None:
        self._run = run
        self._context = context
        self._task = task
        self._again: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return repr(self._run).replace("<Run", "<RunHandle", 1)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self._run.run_id

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `failed` or `cancelled`."""
        phase = self._run.history.phase
        if self._task.done() and not finished(phase):  # it ended outside of its states
            phase = Phase.CANCELLED if self._task.cancelled() else Phase.FAILED
        return str(phase)

    @property
    def state(self) -> S | None:
        """The state the run is in, or ended in; None before the first."""
        path: list[Any] = self._run.path
        return path[-1] if path else None

    @property
    def done(self) -> bool:
        """Whether the run has ended and let go of its resources."""
        return self._task.done()

    async def result(self) -> S:
        """Wait for the end and return the exit, or raise what ended the run.

        Raises `RunCancelledError` if `cancel` did. Cancelling whoever waits here leaves the run
        alone.
        """
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            raise self._run.cancellation(self._context)
        return self._task.result()

    async def data(self) -> D:
        """The run's data as it is now; after `result`, as the run left it."""
        return self._context.data

    async def cancel(self) -> None:
        """Ask the run to end. Returns at once; `result` then raises `RunCancelledError`.

        A task that does not heed the cancellation is cancelled again every 50 ms. Cancelling a
        run that has ended changes nothing.
        """
        if self._run.cancelled or self._over:
            return
        self._run.cancelled = True
        self._task.add_done_callback(self._let_go)
        if self._run.history.phase is Phase.NEW:
            # Not begun, or setting resources up: told once, and then left alone to take them down.
            self._task.cancel()
            self._again = self._task.get_loop().call_later(AGAIN, self._cancel)
        else:
            # Not at once: a task that is just returning would be cancelled with its result in hand.
            self._again = self._task.get_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._over:
            return
        if self._run.history.phase is Phase.RUNNING:
            self._task.cancel()
        self._again = self._task.get_loop().call_later(AGAIN, self._cancel)

    def _let_go(self, task: asyncio.Task[S]) -> None:
        if self._again is not None:
            self._again.cancel()

    @property
    def _over(self) -> bool:
        """Whether there is nothing to cancel any more; resources then go down undisturbed."""
        return self._task.done() or finished(self._run.history.phase)

    def watch(self, observer: Observer) -> None:
        """Tell *observer* of everything that happens to the run from now on, as it happens."""
        self._run.watch(observer)

    def events(self) -> AsyncIterator[Event]:
        """Everything that happens to the run from now on, as it happens, to its end.

        Asked for before the run's first step, it is everything there is.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        if self._over:
            queue.put_nowait(RunCancelled())  # nothing follows: see `_task_end`
        tell = queue.put_nowait
        self.watch(tell)
        return self._follow(queue, tell)

    async def _follow(self, queue: asyncio.Queue[Event], tell: Observer) -> AsyncIterator[Event]:
        waiting = asyncio.ensure_future(self._task_end(queue))
        try:
            while True:
                event = await queue.get()
                if event.workflow:
                    yield event
                if isinstance(event, _LAST):
                    return
        finally:
            waiting.cancel()
            self._run.unwatch(tell)

    async def _task_end(self, queue: asyncio.Queue[Event]) -> None:
        """A run cancelled before its first step announces nothing: end the wait for it."""
        await asyncio.wait((self._task,))
        queue.put_nowait(RunCancelled())


_LAST = (RunFinished, RunFailed, RunCancelled)
