"""One visit to a batch: its items taken, processed, settled, and handed on in order.

Rule 1: a fixed number of workers, each an asyncio task for as long as there is something to take.
Rule 2: everything that decides is synchronous, so that no cancellation can come between two
        halves of a change.
Rule 3: nothing returns before the last task has ended, however the visit is left.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from math import inf
from typing import Any, NamedTuple

from cano._clock import loop_time
from cano._deadline import AGAIN
from cano._host import BranchInfo
from cano.context import Context
from cano.errors import DataError, StrayCancelledError, TooManyFailuresError, note
from cano.events import ItemFailed
from cano.policies.policy import Call
from cano.tasks._outcomes import ItemOutcome, Outcomes
from cano.tasks._reading import NOTHING, Reading

WINDOW = 2
"""How many items per worker may be begun and not collected yet."""
SLICE = 0.005
"""Seconds for which workers go on without letting anything else in the loop have its turn."""
TURNS = 64
"""The same in items, for loops whose time stands still."""
PATIENCE = 5.0
"""Seconds that a source has to close before it is cancelled again."""
SHOWN = 100
"""How many exceptions a `TooManyFailuresError` holds at most."""

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Work(NamedTuple):
    """What is done with each item, and how carefully; the same in all visits."""

    label: str
    process: Call[Any]
    collect: Call[None] | None
    """Given each outcome, in order; then none of them is kept."""
    key: Callable[[Any], str] | None
    """None names an item by its index."""
    workers: int
    max_failures: int | None


class Working:
    """Who works, what is taken, and what it came to."""

    __slots__ = (
        "again", "begun", "clock", "ctx", "deadline", "due", "errors", "failures", "fatal", "feeder",
        "head", "known", "loop", "main", "news", "outcomes", "outside", "patience", "reading",
        "settled", "taken", "tasks", "turns", "uncancelled", "unique", "window", "work", "working",
    )  # fmt: skip

    def __init__(
        self, ctx: Context[Any], work: Work, source: Any, known: dict[str, Any | Exception]
    ) -> None:
        self.ctx = ctx
        self.work = work
        self.known = known
        """What items of these names are known to have come to, taken out as they turn up."""
        self.reading = Reading(source, work.label, work.workers, self.fill)
        self.outcomes: Outcomes[Any] = Outcomes.none(
            counted=work.collect is not None, named=work.key is not None
        )
        self.loop = asyncio.get_running_loop()
        self.clock = loop_time(self.loop)
        self.deadline = ctx.deadline
        self.outside = copy_context()
        main = asyncio.current_task()
        assert main is not None  # noqa: S101 -- a coroutine that runs has one
        self.main: asyncio.Task[Any] = main
        self.uncancelled = main.cancelling()
        self.tasks: set[asyncio.Task[None]] = set()
        self.working = 0
        self.feeder: asyncio.Task[None] | None = None
        self.begun = 0
        self.head = 0
        """The first item that is not handed on yet."""
        self.window = inf if work.collect is None else WINDOW * work.workers
        self.settled: dict[int, ItemOutcome[Any]] = {}
        """What waits to be handed on, because an earlier item is not settled."""
        self.news: asyncio.Future[None] | None = None
        self.turns = 0
        self.due = self.clock() + SLICE
        self.patience = 0.0
        self.again: asyncio.TimerHandle | None = None
        self.fatal: BaseException | None = None
        self.failures = sum(isinstance(end, Exception) for end in known.values())
        self.errors: list[tuple[int, Exception]] = []
        self.taken: set[str] = set()
        self.unique = ctx.host.durable or work.collect is None
        """Whether a key must differ from all others, or only from those under way."""

    async def run(self) -> Outcomes[Any]:
        """Process all there is. Raises what ended it early, when everything else has ended."""
        try:
            if self.reading.is_async:
                self.launch(self.feed())
            else:
                self.fill()
            await self.see_through()
        except GeneratorExit:
            raise  # the loop is gone: nobody can be awaited
        except BaseException as error:
            self.break_off(error)
            cancelled = await self.abandon()
            if cancelled is not None and not isinstance(error, asyncio.CancelledError):
                raise cancelled from error
            raise
        finally:
            if self.again is not None:
                self.again.cancel()
        return self.outcomes

    async def see_through(self) -> None:
        """Hand on what is settled, as long as anything is under way."""
        collect, ctx = self.work.collect, self.ctx
        while self.fatal is None and (self.tasks or self.settled):
            if collect is None or self.head not in self.settled:
                self.news = self.loop.create_future()
                await self.news
                continue
            ctx.item = outcome = self.settled.pop(self.head)
            try:
                await collect(ctx)
            finally:
                ctx.item = None
            self.head += 1
            if not self.unique:
                self.taken.discard(outcome.name)
            if not self.head % TURNS:  # of items that are known already none may suspend
                await asyncio.sleep(0)
            self.fill()
        if self.fatal is not None:
            raise self.fatal

    async def abandon(self) -> asyncio.CancelledError | None:
        """Await everything that was cancelled; the cancellation that came meanwhile, if any."""
        cancelled = None
        while self.tasks:
            try:
                await asyncio.wait(self.tasks)
            except asyncio.CancelledError as error:
                cancelled = error
        try:
            await self.close()
        except asyncio.CancelledError as error:
            cancelled = error
        return cancelled

    # What there is to do

    async def feed(self) -> None:
        """Read an async source, and close it."""
        self.feeder = asyncio.current_task()
        try:
            await self.reading.feed()
        except GeneratorExit:
            raise
        except asyncio.CancelledError:
            await self.close()
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the batch is awaited
            self.break_off(error)
        await self.close()
        self.fill()

    async def close(self) -> None:
        """Close the source, once. What that raises does not hide what was wrong before."""
        self.patience = self.clock() + PATIENCE
        try:
            await self.reading.close()
        except Exception as error:  # noqa: BLE001 -- raised where the batch is awaited
            if self.fatal is None:
                self.break_off(error)
            else:
                note(self.fatal, f"cano: closing what load() returned raised {error!r}")

    def take(self) -> BranchInfo | None:
        """The next item to process; None where there is none, or no room for it."""
        try:
            while self.fatal is None and self.begun - self.head < self.window:
                item = self.reading.next()
                if item is NOTHING:
                    break
                index = self.begun
                name = str(index) if self.work.key is None else self.named(index, item)
                self.begun = index + 1
                self.outcomes._begin(name)
                if not self.known or name not in self.known:
                    return BranchInfo(index, name, item)
                self.recalled(index, name, self.known.pop(name))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the batch is awaited
            self.break_off(error)
        return None

    def named(self, index: int, item: Any) -> str:
        """The key of an item. Raises `DataError` for one that is none, or was given before."""
        assert self.work.key is not None  # noqa: S101 -- who calls this has looked
        where = f"{self.work.label}.key"
        try:
            name: Any = self.work.key(item)
        except Exception as error:
            note(error, f"cano: in {where} of item {index}")
            raise
        if not isinstance(name, str) or not name:
            raise DataError(f"{where} returned {name!r} for item {index}; return a text, not empty")
        if name in self.taken:
            raise DataError(
                f"{where} returned {name!r} for item {index}, and for one before it; give every item "
                "a key of its own"
            )
        self.taken.add(name)
        return name

    # The workers

    def fill(self) -> None:
        """Start workers while there is room for them, and something to take."""
        while self.working < self.work.workers and (info := self.take()) is not None:
            self.working += 1
            self.launch(self.carry_on(info))

    def launch(self, coroutine: Coroutine[Any, Any, None]) -> None:
        context = self.outside.copy()  # not that of whoever made room
        task = asyncio.Task(coroutine, loop=self.loop, context=context, **_EAGER)
        if task.done():
            self.left(task)
        else:
            self.tasks.add(task)
            task.add_done_callback(self.left)

    async def carry_on(self, info: BranchInfo | None) -> None:
        """Process one item after the other, as long as there is something to take."""
        process, branch, alarm = self.work.process, self.ctx.for_branch, None
        ctx = self.ctx
        try:
            while info is not None:
                ctx = branch(info, self.deadline)
                ctx._alarm = alarm  # one timer for all items of a worker
                try:
                    value = await process(ctx)
                except asyncio.CancelledError as error:
                    if self.leaving():
                        raise
                    self.failed(info, ctx, self.stray(info, error))
                except Exception as error:  # noqa: BLE001 -- what it means, `finish` decides
                    self.failed(info, ctx, error)
                else:
                    self.succeeded(info.index, info.name, value)
                alarm = ctx._alarm
                self.turns += 1
                if not self.turns % TURNS or self.clock() >= self.due:
                    await asyncio.sleep(0)
                    self.due = self.clock() + SLICE
                info = self.take()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the batch is awaited
            self.break_off(error)
        finally:
            self.working -= 1
            if ctx is not self.ctx:
                ctx.close()

    def leaving(self) -> bool:
        """Whether a cancellation is ours, or that of all there is, as at the end of `asyncio.run`."""
        return self.fatal is not None or self.main.cancelling() > self.uncancelled

    def stray(self, info: BranchInfo, error: asyncio.CancelledError) -> Exception:
        """What to say of a cancellation out of the blue."""
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()  # an item may have cancelled itself; the next one did not
        stray = StrayCancelledError(
            f"item {info.index} of {self.ctx.state.name} raised CancelledError, but nobody had "
            "cancelled it"
        )
        stray.__cause__ = error
        return stray

    def left(self, task: asyncio.Task[None]) -> None:
        """A task has ended; one that somebody else cancelled cannot be done without."""
        self.tasks.discard(task)
        if task.cancelled():
            self.break_off(
                StrayCancelledError(
                    f"what load() of {self.ctx.state.name} returned raised CancelledError, or one of "
                    "its workers was cancelled, but nobody had cancelled the run"
                )
            )
        elif (error := task.exception()) is not None:
            self.break_off(error)
        self.wake()

    def wake(self) -> None:
        if self.news is not None and not self.news.done():
            self.news.set_result(None)

    # The ends

    def succeeded(self, index: int, name: str, value: Any) -> None:
        if self.work.collect is None:
            self.outcomes._slots[index] = value
        else:
            self.hand_on(ItemOutcome(index, name, value))

    def failed(self, info: BranchInfo, ctx: Context[Any], error: Exception) -> None:
        """An item failed for good; unless the run itself has to stop, that is one of its ends."""
        if ctx.host.stops(error):
            self.break_off(error)
            return
        if ctx.listens(ItemFailed):
            ctx.emit(ItemFailed(item=info.name, index=info.index, error=repr(error)))
        self.failures += 1
        self.settle(info.index, info.name, error)

    def recalled(self, index: int, name: str, end: Any) -> None:
        """An item came to its end before."""
        if isinstance(end, Exception):
            self.settle(index, name, end)
        else:
            self.succeeded(index, name, end)

    def settle(self, index: int, name: str, error: Exception) -> None:
        """Put a failure into its place; one too many ends the batch."""
        if len(getattr(error, "__notes__", ())) < SHOWN:  # it may be the same one every time
            note(error, f"cano: in item {index}" + (f" {name!r}" if self.work.key else ""))
        self.outcomes._fail(index, error)
        most = self.work.max_failures
        if most is not None and len(self.errors) < SHOWN:
            self.errors.append((index, error))
        if most is not None and self.failures > most:
            self.break_off(too_many(self.ctx, most, self.errors))
        elif self.work.collect is not None:
            self.hand_on(ItemOutcome(index, name, None, error))

    def hand_on(self, outcome: ItemOutcome[Any]) -> None:
        self.settled[outcome.index] = outcome
        if outcome.index == self.head:
            self.wake()

    def break_off(self, error: BaseException) -> None:
        """End everything, for *error*."""
        if self.fatal is None:
            self.fatal = error
            self.end_all()
        self.wake()

    def end_all(self) -> None:
        """Cancel whoever works, and again who does not heed it; a source may close in peace."""
        here, now = asyncio.current_task(), self.clock()
        for task in self.tasks:
            if task is self.feeder:
                if now < self.patience:
                    continue
                self.patience = now + PATIENCE
            if task is not here:
                task.cancel()
        self.again = self.loop.call_later(AGAIN, self.end_all)


def too_many(
    ctx: Context[Any], most: int, errors: list[tuple[int, Exception]]
) -> TooManyFailuresError:
    """The error of a batch of which more than *most* items failed, with their *errors* by index."""
    held = f"; the exceptions of {SHOWN} of them are here" if most >= SHOWN else ""
    return TooManyFailuresError(
        f"{most + 1} items of {ctx.state.name} failed, and max_failures is {most}{held}",
        [error for _, error in sorted(errors, key=lambda pair: pair[0])],
    )
