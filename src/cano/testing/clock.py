"""Time that is a number: a day of timeouts tests in a millisecond."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ClassVar, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Jump(selectors.SelectSelector):
    """A selector that never sleeps: waiting moves the loop's clock forward instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._loop.busy_threads:  # what they do takes real time, which must not be jumped over
            return super().select(timeout)
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        if not ready and timeout:
            self._loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever every task waits.

    The wall clock, as runs see it, moves along.

    While a thread of `run_in_executor` (and so `asyncio.to_thread`), or that of a store, is at
    work, time stands still, and the loop waits for it in earnest.
    """

    _latest: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.now: float = 0.0
        self.busy_threads: int = 0
        # A later loop may stand for a restarted process: for it, time has not gone back.
        self.wall_offset: float = max(time.time(), VirtualLoop._latest)  # noqa: TID251
        super().__init__(_Jump(self))

    def close(self) -> None:
        """End the loop; the wall clock of the next one goes on from here."""
        VirtualLoop._latest = max(VirtualLoop._latest, self.wall_offset + self.now)
        super().close()

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run *func* in a thread, and hold the time until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.busy_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Wait for the threads, which takes real time."""
        self.busy_threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.busy_threads -= 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self.busy_threads -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
