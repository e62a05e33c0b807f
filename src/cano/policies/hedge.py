"""A second call beside a slow one.

Rule 1: each attempt runs in an asyncio task of its own, and reports in the very step it ends in.
Rule 2: nothing starts after the first success, and nothing is left running however it is left.
Rule 3: what an attempt does to the run data counts only if it wins.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from math import inf
from typing import Any, ClassVar, NoReturn

import msgspec

from cano._data import Snapshot
from cano._deadline import AGAIN
from cano.context import Context
from cano.errors import DefinitionError, note
from cano.events import Event, HedgeStarted
from cano.policies.policy import Call, Decorating, T, is_count, is_number

# An eager attempt that never suspends costs no trip through the loop.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Hedge(msgspec.Struct, Decorating, frozen=True):
    """Make a call that has not answered after *after* seconds once more, beside itself.

    The first success counts; the others are cancelled and awaited. There are at most *attempts*
    calls at a time, one more every *after* seconds; a failed one is followed by the next at once.
    When all have failed, the error of the last is raised, with a note about the others.

    For calls that may be made twice without harm. Each attempt starts from the run data as it was
    and works on data of its own, of which the winner's are kept; a call that fails changes none.
    Nothing within a hedged call is durable: effects and signals are refused there, and so is a
    hedge around work that is to be undone.
    """

    side_by_side: ClassVar[bool] = True
    """Nothing that is to be done once may be inside; see `problems_of`."""

    after: float
    attempts: int = 2

    def __post_init__(self) -> None:
        if not is_number(self.after, 0) or self.after == inf:
            raise DefinitionError(
                f"Hedge({self.after!r}) is no time to wait for an answer; pass seconds, 0 or more"
            )
        if not is_count(self.attempts, 2):
            raise DefinitionError(
                f"Hedge(attempts={self.attempts!r}) hedges nothing; pass 2 or more, or leave it out"
            )

    def problem(self, total: float | None, /) -> str | None:
        """Why this makes no sense where a run has *total* seconds."""
        if total is None or self.after < total:
            return None
        return (
            f"{self} never makes a second call within the {total:g} s a whole run has; shorten it "
            "or raise timeout="
        )

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Make *call*, and again beside itself while it does not answer."""

        async def hedged(ctx: Context[Any]) -> T:
            won: T = await _Race(self, call, ctx).run()
            return won

        return hedged


class _Race:
    """One hedged call: who runs, who won, what failed."""

    __slots__ = (
        "again", "begun", "call", "ctx", "deadline", "done", "errors", "fatal", "hedge", "loop",
        "outside", "over", "saved", "started", "tasks", "timer", "winner",
    )  # fmt: skip

    def __init__(self, hedge: Hedge, call: Call[Any], ctx: Context[Any]) -> None:
        self.hedge = hedge
        self.call = call
        self.ctx = ctx
        self.deadline = ctx.deadline
        self.saved: Snapshot | None = ctx.snapshot()
        self.loop = asyncio.get_running_loop()
        self.outside = copy_context()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.started = 0
        self.begun = 0  # they begin in order, each in the round after it was started
        self.errors: list[tuple[int, Exception]] = []
        self.winner: tuple[int, _Attempt, Any] | None = None
        self.fatal: BaseException | None = None
        self.over = False
        self.timer: asyncio.TimerHandle | None = None
        self.again: asyncio.TimerHandle | None = None

    async def run(self) -> Any:
        """Start, wait, and give what the winner returned."""
        try:
            self.start()
            while self.tasks:
                await self.done
        except asyncio.CancelledError:
            await self.abandon()
            if self.fatal is None or isinstance(self.fatal, asyncio.CancelledError):
                raise
        finally:
            for handle in (self.timer, self.again):
                if handle is not None:
                    handle.cancel()
        return self.judge()

    def start(self) -> None:
        """Make the call once more, unless it is over or was made often enough."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.over or self.started >= self.hedge.attempts:
            return
        self.started = number = self.started + 1
        if number > 1 and self.ctx.listens(HedgeStarted):
            self.ctx.emit(HedgeStarted(number=number))
        task = asyncio.Task(
            self.carry(number),
            loop=self.loop,
            name=f"{self.ctx.state._name_} hedged {number}",
            context=self.outside.copy(),  # not that of the attempt which failed before
            **_EAGER,
        )
        if not task.done():
            self.tasks[number] = task
        if self.started == number < self.hedge.attempts and not self.over:
            self.timer = self.loop.call_later(self.hedge.after, self.start)

    async def carry(self, number: int) -> None:
        """Make one attempt, and report its end."""
        if self.over:
            self.leave(number)
            return
        self.begun = number
        own: _Attempt | None = None
        try:
            own = self.attempt(number)
            value = await self.call(own)
        except asyncio.CancelledError as error:
            if not self.over:  # nobody had cancelled it: as it would be without a hedge
                self.end(error, number)
        except Exception as error:  # noqa: BLE001 -- raised where the call is awaited
            self.failed(number, error)
        except GeneratorExit:
            self.over = True  # the loop is gone: nothing can start, and nobody waits
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the call is awaited
            self.end(error, number)
        else:
            if not self.over:
                self.winner = number, own, value
                self.end(None, number)
        finally:
            if own is not None:
                own.close()
            self.leave(number)

    def attempt(self, number: int) -> _Attempt:
        """A context for an attempt, with data of its own."""
        ctx = self.ctx
        own = _Attempt(ctx, self.deadline)
        if number > 1 and self.saved is not None and ctx._kind is not None:
            own.data = ctx._kind.rebuild(self.saved)
        return own

    def failed(self, number: int, error: Exception) -> None:
        """Start the next at once, unless the run itself has to stop."""
        if self.ctx.host.stops(error):
            self.end(error, number)
        elif not self.over:
            self.errors.append((number, error))
            self.start()

    def end(self, fatal: BaseException | None, by: int) -> None:
        """It is decided: end the others."""
        if self.fatal is None:
            self.fatal = fatal
        if not self.over:
            self.over = True
            self.cancel(but=by)

    def cancel(self, but: int = 0) -> None:
        """Cancel what runs, and again what does not heed it."""
        insist, left = self.again is not None, False
        for number, task in self.tasks.items():
            if number != but:
                left = True
                if number <= self.begun and (insist or not task.cancelling()):
                    task.cancel()
        if left:
            self.again = self.loop.call_later(AGAIN, self.cancel)

    def leave(self, number: int) -> None:
        """An attempt is over: wake whoever waits for the last."""
        self.tasks.pop(number, None)
        if not self.tasks and not self.done.done():
            self.done.set_result(None)

    async def abandon(self) -> None:
        """Cancelled from outside: take every attempt along, however often we are told."""
        if not self.over:
            self.over = True
            self.cancel()
        while self.tasks:
            try:
                await asyncio.wait(self.tasks.values())
            except asyncio.CancelledError:
                continue
            self.tasks.clear()  # who was cancelled before its first step could not report
        self.ctx.restore(self.saved)

    def judge(self) -> Any:
        """What it came to."""
        ctx = self.ctx
        if self.fatal is not None:
            raise self.fatal
        if self.winner is None:
            ctx.restore(self.saved)
            raise self.failure()
        number, own, value = self.winner
        if number > 1 and self.saved is not None:
            ctx.restore(own.snapshot())
        else:
            ctx.data = own.data
        ctx.handover = own.handover
        if own._attempt != ctx._attempt:  # of a Retry inside
            ctx.attempt = own.attempt
        return value

    def failure(self) -> Exception:
        number, error = self.errors.pop()
        others = ", ".join(f"{i} with {other!r}" for i, other in self.errors)
        note(error, f"cano: hedged attempt {number} of {self.started}; failed before: {others}")
        return error


class _Attempt(Context[Any]):
    """The context of one attempt: a timer of its own, and nothing is kept of what is done in it."""

    __slots__ = ()

    def __init__(self, ctx: Context[Any], deadline: float) -> None:
        host: Any = _Unkept(ctx.host) if ctx._durable else ctx.host
        super().__init__(host, ctx._path, ctx.data)
        self._outer_deadline = deadline
        self._attempt, self._attempted = ctx._attempt, ctx._attempted
        self._undoing = ctx._undoing
        self.branch = ctx.branch
        self.item = ctx.item
        self.split = ctx.split
        self.error = ctx.error

    async def effect(self, name: str, /, *_: Any, **__: Any) -> NoReturn:
        raise _twice(self, f"effect {name!r}")

    async def wait_signal(self, name: str, /, *_: Any, **__: Any) -> NoReturn:
        raise _twice(self, f"waiting for signal {name!r}")

    async def wait_signals(self, names: Any, /, *_: Any, **__: Any) -> NoReturn:
        raise _twice(self, f"waiting for signals {', '.join(map(repr, names))}")

    async def record(self, event: Event, /) -> None:
        raise _twice(self, f"recording {type(event).__name__}")


class _Unkept:
    """The host as an attempt sees it: its store is out of reach."""

    durable = may_park = False

    def __init__(self, host: Any) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def _twice(ctx: Context[Any], what: str) -> DefinitionError:
    return DefinitionError(
        f"{what} in {ctx.state._name_} is inside a Hedge, where it would happen in each of the "
        "calls made side by side; do it in a state of its own, or leave the Hedge out"
    )
