"""One visit to a stream: its source read, its windows filled, flushed and kept, and its end.

Rule 1: the stream runs in an asyncio task of its own, which a cancellation of the run never meets.
        It is told to end, and looks after each item; it is cancelled itself while it only waits
        for its source, and where it has not come to an end within `drain_timeout`.
Rule 2: one thing at a time. Nothing is read while a window is flushed and kept; a window that is
        due while the source has nothing is flushed beside the reading, which goes on waiting: to
        cancel it would end a generator. An item that comes meanwhile waits.
Rule 3: once the source is open, it and then the stream are closed, whatever happens. Only what is
        no `Exception` and no cancellation, such as `KeyboardInterrupt`, passes straight through.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterator
from typing import Any

from cano._clock import loop_time
from cano._deadline import AGAIN
from cano._shield import outlast
from cano.context import Context
from cano.errors import (
    DataError,
    StrayCancelledError,
    TooManyFailuresError,
    note,
)
from cano.events import CursorSaved, ItemFailed, StreamClosed, WindowFlushed
from cano.tasks._stream_end import Ending, Verbs, being_cancelled, done_of, shown, tell_of_cut
from cano.tasks._windows import CloseReason, Filling
from cano.tasks.stepped import Done

TURN = 128
"""Items after which the clock is looked at, at the latest: where nothing suspends, others wait."""
TOO_LONG = 0.01
"""Seconds after which others have their turn."""
_EARLY = 1e-3  # a loop's timer may be early
_NOTHING: Any = object()


class Session:
    """What is read, held and known of a stream while it runs."""

    __slots__ = (
        "again", "beside", "breathed", "broken", "ctx", "done", "dropped", "due", "ending",
        "failed", "filling", "finishing", "items", "last", "limit", "loop", "now", "opened",
        "outs", "place", "reading", "row", "timer", "turn", "verbs", "windows", "work",
    )  # fmt: skip

    def __init__(self, ctx: Context[Any], verbs: Verbs) -> None:
        self.ctx = ctx
        self.verbs = verbs
        self.loop = asyncio.get_running_loop()
        self.now = loop_time(self.loop)
        self.work: asyncio.Task[Any] | None = None
        self.reading = True
        """Whether it only waits for the source, so that a cancellation does no harm."""
        self.place = "open"
        """The verb at work; empty for `process`."""
        self.outs: list[Any] = []
        self.last: Any = _NOTHING
        """The last item of what is not kept yet."""
        self.failed = 0
        """Items of this window that were dropped."""
        self.turn = 1
        """Items until the clock is looked at again."""
        self.limit = 1
        """So many items held, or more, and there is something to look after."""
        self.row: list[Exception] = []
        """The failures since the last success."""
        self.breathed = self.now()
        self.items = self.dropped = self.windows = 0
        self.filling = Filling(verbs.window)
        self.timer: asyncio.TimerHandle | None = None
        self.opened = False
        """Whether the first item of the window was read, where its time counts."""
        self.due = False
        """Whether the window has no time left."""
        self.beside: asyncio.Task[None] | None = None
        """A flush while the source has nothing."""
        self.broken: BaseException | None = None
        """What that flush raised."""
        self.done: Done[Any] | None = None
        self.ending: CloseReason | None = None
        """Why the stream is to come to an end, where that is asked for from outside."""
        self.finishing = False
        self.again: asyncio.TimerHandle | None = None

    async def run(self) -> Any:
        """Carry the stream out. Cancelled, it drains first."""
        deadline = self.ctx.deadline
        self.work = work = self.loop.create_task(self.apart(), name=f"stream {self.verbs.label}")
        try:
            await asyncio.wait((work,))
        except CancelledError:
            late = self.now() >= deadline - _EARLY
            self.end(CloseReason.TIMED_OUT if late else CloseReason.CANCELLED)
            await outlast(work)
            # What went wrong meanwhile is told rather than the cancellation, unless the loop tells.
            if not (
                work.cancelled() or isinstance(work.exception(), KeyboardInterrupt | SystemExit)
            ):
                work.result()
            raise
        finally:
            self.calm()
        return work.result()

    def end(self, reason: CloseReason) -> None:
        """From outside: come to an end."""
        self.ending = reason
        self.limit = 0
        self.hurry()

    def hurry(self) -> None:
        """End what only waits now, and what is at work when it has had its time."""
        if self.work is None or self.finishing:
            return
        if self.reading:  # once: a source may need its time too, to clean up
            self.work.cancel()
        self.calm()
        self.again = self.loop.call_later(self.verbs.drain_timeout, self.give_up)

    def give_up(self) -> None:
        """Wait no longer."""
        tell_of_cut(self.ctx, self.verbs, "the source" if self.reading else "what was in progress")
        self.insist()

    def insist(self) -> None:
        """Cancel what has had its time, until it ends."""
        if self.work is None or self.finishing:
            return
        for task in (self.work, self.beside):
            if task is not None:
                task.cancel()
        self.again = self.loop.call_later(AGAIN, self.insist)

    def calm(self) -> None:
        """Insist no more."""
        if self.again is not None:
            self.again.cancel()

    async def apart(self) -> Any:
        """`live`, in an asyncio task of its own."""
        ctx = self.ctx
        item, durable = ctx.item, ctx._durable
        # The attempts of one item are none of the next; what comes again comes with its first.
        ctx._durable, ctx._part = False, self.part
        with ctx.apart():
            try:
                return await self.live()
            finally:
                ctx.item, ctx._durable, ctx._part = item, durable, None
                if self.timer is not None:
                    self.timer.cancel()

    def part(self) -> str:
        """What is at work: sleeps and waits without a name are counted within it."""
        return self.place or f"item {len(self.outs) + self.failed + 1}"

    async def live(self) -> Any:
        """Open, read to the end, close."""
        self.ctx.item = self.cursor()
        opened = await self.verbs.open(self.ctx)
        source: Any = None
        try:
            source = self.readable(opened)
            if self.ending is None:
                await self.read(source)
        except CancelledError as error:
            await self.settle()
            failure = self.outcome(error)
            return await self.finish(source, self.why(failure), failure)
        except Exception as error:  # noqa: BLE001 -- raised when everything is closed
            await self.settle()
            return await self.finish(source, CloseReason.FAILED, error)
        if self.ending is not None:
            return await self.finish(source, self.ending, CancelledError())
        reason = CloseReason.EXHAUSTED if self.done is None else CloseReason.STOPPED
        return await self.finish(source, reason)

    async def settle(self) -> None:
        """Let a flush beside the reading end, which has ended itself."""
        self.reading = False
        if self.beside is not None:
            await outlast(self.beside)
        if not isinstance(self.broken, Exception | CancelledError | None):
            raise self.broken

    def outcome(self, error: CancelledError) -> BaseException | None:
        """What ended the reading: a flush beside it, which is why it was cancelled, or *error*."""
        if self.broken is not None:
            return self.broken
        return None if self.done is not None and self.ending is None else error

    def why(self, failure: BaseException | None) -> CloseReason:
        """Who cancelled the reading: the run, the end of the loop, a flush beside it, or nobody."""
        if self.ending is not None:
            return self.ending
        if failure is None:
            return CloseReason.STOPPED
        ours = isinstance(failure, CancelledError) and being_cancelled()
        return CloseReason.CANCELLED if ours else CloseReason.FAILED

    def cursor(self) -> Any:
        """Where the visit had come to when it was broken off; None at its beginning."""
        ctx, verbs = self.ctx, self.verbs
        if verbs.position is None or not ctx.host.durable:
            return None
        saved: CursorSaved | None = ctx.host.history.visit.of("cursor", ctx.branch_name)
        if saved is None:
            return None
        try:
            return verbs.cursor.read(saved.value)
        except DataError as error:
            raise DataError(f"{ctx.state.name} cannot go on: {error}") from error

    def readable(self, opened: Any) -> AsyncIterator[Any]:
        """The iterator of what `open` returned."""
        if not hasattr(opened, "__aiter__"):
            raise TypeError(
                f"{self.verbs.label}.open returned {type(opened).__name__}, which `async for` "
                "cannot read; return an async iterator, or make open one with `yield`"
            )
        return aiter(opened)

    async def read(self, source: AsyncIterator[Any]) -> None:
        """Items, as long as there are any. No task, no timer and no clock for each."""
        ctx, process, row, outs = self.ctx, self.verbs.process, self.row, self.outs
        timed, idle = self.verbs.window.timed, self.verbs.window.idle is not None
        self.reading, self.place = True, ""
        async for item in source:
            self.reading = False
            if self.beside is not None and await self.is_over():
                return
            if timed and not self.opened:
                self.begin_window()
            ctx.item = item
            try:
                out = await process(ctx, item)
            except Exception as error:
                if not await self.drop(item, error):
                    raise
            else:
                outs.append(out)
                self.last = item
                if row:
                    row.clear()
            if idle:
                self.filling.worked(self.now())
            if len(outs) >= self.limit:
                await self.look()
                if self.ending is not None or self.done is not None:
                    return
            self.reading = True
        self.reading = False
        if self.beside is None or not await self.is_over():
            await self.flush()

    async def is_over(self) -> bool:
        """Let a flush beside the reading end. Raises what it raised."""
        if self.beside is not None:
            await asyncio.wait((self.beside,))
        if self.broken is not None:
            raise self.broken
        return self.done is not None or self.ending is not None

    def begin_window(self) -> None:
        """Its first item is there, and so its time begins."""
        self.opened = True
        self.filling.begin(self.now())
        if self.timer is None:
            self.timer = self.loop.call_later(self.filling.pause(self.now()), self.ring)

    def ring(self) -> None:
        """The window of when the timer was set is due, unless it has been flushed long since."""
        self.timer = None
        if self.finishing or self.beside is not None or not self.opened:
            return
        now = self.now()
        if self.filling.left(now, working=not self.reading):
            self.timer = self.loop.call_later(self.filling.pause(now), self.ring)
        elif self.reading:
            self.beside = self.loop.create_task(self.flush_beside())
        else:
            self.due, self.limit = True, 0

    async def flush_beside(self) -> None:
        """Flush while the source has nothing; end the reading if that is the end."""
        try:
            with self.ctx.apart():
                await self.flush()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the source is read
            self.broken = error
        self.beside = None
        if self.ending is None and (self.broken is not None or self.done is not None):
            self.hurry()

    async def drop(self, item: Any, error: Exception) -> bool:
        """Leave *item* out, if that is tolerated."""
        ctx, verbs, row = self.ctx, self.verbs, self.row
        if ctx.host.stops(error):
            return False
        index = self.items + self.dropped + len(self.outs)
        note(error, f"cano: item {index} of the stream {verbs.label}")
        if ctx.listens(ItemFailed):
            ctx.emit(ItemFailed(item=shown(item), index=index, error=repr(error)))
        if verbs.errors is not None:
            row.append(error)
            if len(row) > verbs.errors:
                if not verbs.errors:
                    return False
                raise TooManyFailuresError(
                    f"{len(row)} items in a row failed in {ctx.state.name}; "
                    f"{verbs.label} tolerates errors={verbs.errors}",
                    list(row),
                )
        await verbs.rejected(ctx, item, error)
        self.failed += 1
        self.dropped += 1
        self.limit -= 1
        self.last = item
        return True

    async def look(self) -> None:
        """Flush what is full or due, and let others have their turn now and then."""
        most = self.verbs.window.most
        if self.due or len(self.outs) + self.failed >= most:
            await self.flush()
        spent = self.now() - self.breathed
        if spent > TOO_LONG:
            await asyncio.sleep(0)
            self.breathed = self.now()
        self.turn = max(self.turn // 2, 1) if spent > 2 * TOO_LONG else min(self.turn * 2, TURN)
        if self.ending is None and not self.due:
            self.limit = min(len(self.outs) + self.turn, most - self.failed)

    async def flush(self) -> None:
        """Hand the window out, then keep how far it went."""
        if self.last is _NOTHING:
            return
        ctx, verbs = self.ctx, self.verbs
        window, failed, last = tuple(self.outs), self.failed, self.last
        self.outs.clear()
        self.failed, self.last = 0, _NOTHING
        self.opened = self.due = False
        ctx.attempt, self.place = 1, "flush"
        said = None
        if window and verbs.flush is not None:
            ctx.item = window
            said = await verbs.flush(ctx)
        if said is not None:
            # The window is kept with the step to the next state, and comes again where that is not
            # reached: a stream that went on behind it would never hear again that it is done.
            self.done = done_of(said, verbs.label)
        elif verbs.position is not None and ctx.host.durable:
            value = verbs.cursor.write(verbs.position(last))
            await ctx.record(CursorSaved(value=value, patch=ctx.changes()))
            ctx.begin()
        self.place = ""
        self.items += len(window)
        self.windows += 1
        if ctx.listens(WindowFlushed):
            ctx.emit(WindowFlushed(items=len(window), failed=failed))

    async def finish(
        self, source: Any, reason: CloseReason, error: BaseException | None = None
    ) -> Any:
        """Flush what may still be flushed, close the source and then the stream."""
        self.finishing, self.reading = True, False
        self.calm()
        ending = Ending(self.ctx, self.verbs, reason, error)
        # A run that somebody else has taken over is his to flush.
        if ending.drains and not self.ctx.host.stops(StrayCancelledError()):
            await ending.step("flush", self.flush)
        if hasattr(source, "aclose"):
            await ending.step("the source's aclose", source.aclose)
        self.ctx.item, self.place = ending.reason, "close"
        # What decides where to go on has all the time the run has; a mere clean-up has not.
        self.finishing = not ending.ordinary
        if ending.ordinary and self.ending is not None:
            self.hurry()
        state = await ending.step("close", self.close, bounded=not ending.ordinary)
        if self.ctx.listens(StreamClosed):
            told = StreamClosed(reason=str(self.ctx.item), items=self.items, windows=self.windows)
            self.ctx.emit(told)
        ending.raise_what_happened()
        return state if self.done is None else self.done.state

    async def close(self) -> Any:
        return await self.verbs.close(self.ctx)
