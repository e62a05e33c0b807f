"""Time that is a number: a day of timeouts tests in a millisecond."""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any, ClassVar, TypeVar, TypeVarTuple, Unpack

import cano
from cano.errors import DefinitionError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Jump(selectors.SelectSelector):
    """A selector that never sleeps: waiting moves the loop's clock forward instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        if loop.busy_threads:  # what they do takes real time, which must not be jumped over
            return super().select(timeout)
        ready = super().select(0)
        if not ready and timeout != 0 and not loop.tell_idle():
            if timeout is None:
                raise RuntimeError(_waiting("deadlock: every task waits and no timer is set", loop))
            if loop.limit is not None and loop.now + timeout > loop.limit:
                what = f"not over after its limit of {loop.limit:g} virtual seconds"
                loop.limit = None  # who is cancelled now may still need time to clean up
                raise RuntimeError(_waiting(what, loop))
            loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever every task waits.

    The wall clock, as runs see it, moves along: from *at*, an aware datetime, or from what it is
    really. After *limit* virtual seconds the loop gives up with a `RuntimeError` that says who
    waits, as it does when there is nothing left to wait for.

    While a thread of `run_in_executor` (and so `asyncio.to_thread`), or that of a store, is at
    work, time stands still, and the loop waits for it in earnest.
    """

    _latest: ClassVar[float] = 0.0

    def __init__(self, at: datetime | None = None, limit: float | None = None) -> None:
        self._closed: bool = True  # or asyncio complains of one that is not even made
        if at is not None and at.tzinfo is None:
            raise DefinitionError(f"at={at!r} has no time zone; pass an aware datetime")
        if limit is not None and not limit > 0:
            raise DefinitionError(f"limit={limit} leaves no time; pass seconds > 0, or None")
        self.now: float = 0.0
        self.limit: float | None = limit
        self.busy_threads: int = 0
        self._real = at is None
        self._idle: list[asyncio.Future[None]] = []
        if at is None:
            # A later loop may stand for a restarted process: for it, time has not gone back.
            self.wall_offset: float = max(time.time(), VirtualLoop._latest)  # noqa: TID251
        else:
            self.wall_offset = at.timestamp()
        super().__init__(_Jump(self))

    def close(self) -> None:
        """End the loop; the wall clock of the next one goes on from here."""
        if self._real:
            VirtualLoop._latest = max(VirtualLoop._latest, self.wall_offset + self.now)
        super().close()

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now

    def idle(self) -> asyncio.Future[None]:
        """Done as soon as nothing can go on any more before time does."""
        future: asyncio.Future[None] = self.create_future()
        self._idle.append(future)
        return future

    def tell_idle(self) -> bool:
        """Tell those who wait for it that everything else waits; whether there were any."""
        told, self._idle = [future for future in self._idle if not future.done()], []
        for future in told:
            future.set_result(None)
        return bool(told)

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


def run(
    main: Coroutine[Any, Any, T], *, at: datetime | None = None, limit: float | None = None
) -> T:
    """`asyncio.run`, in virtual time; see `VirtualLoop` for *at* and *limit*."""
    with asyncio.Runner(loop_factory=partial(VirtualLoop, at, limit)) as runner:
        return runner.run(main)


def now() -> datetime:
    """What time it is by the wall clock of the virtual loop: an aware datetime, in UTC."""
    loop = _virtual()
    return datetime.fromtimestamp(loop.wall_offset + loop.now, UTC)


async def advance(seconds: float = 0.0) -> None:
    """Let so many seconds pass, and everything happen that is due by then, its end included.

    When this returns, every other task waits: for a later moment, or for the one that advances.
    """
    loop = _virtual()
    if seconds:
        await asyncio.sleep(seconds)
    await loop.idle()


def jump(seconds: float) -> None:
    """Set the wall clock forward or, below zero, back, as people and time servers do.

    Timers, which go by the loop's own time, are not moved, and neither are runs that have begun.
    """
    _virtual().wall_offset += seconds


def _virtual() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise DefinitionError(
            "time can be moved in virtual time only; use cano.testing.run(main()) or "
            "@pytest.mark.cano"
        )
    return loop


def _waiting(what: str, loop: asyncio.AbstractEventLoop) -> str:
    """*what* is the matter, and who waits where."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    shown = [f"  {task.get_name()} waits {waits_at(task)}" for task in tasks[:20]]
    if len(tasks) > 20:
        shown.append(f"  and {len(tasks) - 20} more")
    return "\n".join([what, *shown])


def waits_at(task: asyncio.Task[Any]) -> str:
    """Where *task* waits: the innermost line of the user's own, if there is one."""
    frames = list(_frames(task.get_coro()))
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(_THEIRS)]
    if not (own or frames):
        return "to begin"
    frame = (own or frames)[-1]
    code = frame.f_code
    return f"in {code.co_qualname}, {code.co_filename}:{frame.f_lineno}"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, outermost first."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                inner = "yieldfrom" if kind == "gi" else "await"
                awaited = getattr(awaited, f"{kind}_{inner}", None)
                break
        else:
            return


_THEIRS = tuple(str(os.path.dirname(module.__file__ or "")) + os.sep for module in (asyncio, cano))  # noqa: PTH120
