"""A run that is under way, held from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from cano._history import Phase
from cano._run import Run, finished
from cano.errors import RunCancelledError
from cano.events import Event, RunCancelled, RunFailed, RunFinished
from cano.tasks.task import S

D = TypeVar("D")


class RunHandle(Generic[S, D]):
    """One run, started by `Workflow.start_run`."""

    __slots__ = ("_run", "_task")

    def __init__(self, run: Run[S], task: asyncio.Task[S]) -> None:
        self._run = run
        self._task = task

    def __repr__(self) -> str:
        return repr(self._run).replace("<Run", "<RunHandle", 1)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self._run.run_id

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `failed` or `cancelled`."""
        return str(Phase.CANCELLED if self._task.cancelled() else self._run.history.phase)

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
            raise RunCancelledError(f"run {self.run_id!r} was cancelled before it began")
        return self._task.result()

    async def data(self) -> D:
        """The run's data as it is now; after `result`, as the run left it."""
        data: D = self._run.context.data
        return data

    async def cancel(self) -> None:
        """Ask the run to end. Returns at once; `result` then raises `RunCancelledError`.

        A task that does not heed the cancellation is cancelled again every 50 ms. Cancelling a
        run that has ended changes nothing.
        """
        if self._task.done() or finished(self._run.history.phase):
            return
        self._run.cancelled = True
        if self._run.history.phase is Phase.NEW:
            self._task.cancel()
        else:
            self._run.context.stop(self._task)

    async def events(self) -> AsyncIterator[Event]:
        """Everything that happens to the run from now on, as it happens, to its end.

        Asked for before the run's first step, it is everything there is.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        if finished(self._run.history.phase) or self._task.done():
            return
        self._run.watch(queue.put_nowait)
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

    async def _task_end(self, queue: asyncio.Queue[Event]) -> None:
        """A run cancelled before its first step announces nothing: end the wait for it."""
        await asyncio.wait((self._task,))
        queue.put_nowait(RunCancelled())


_LAST = (RunFinished, RunFailed, RunCancelled)
