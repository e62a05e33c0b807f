"""One visit to a poll: asked, waited, saved, given up.

Rule 1: after every poll that is not the last there is a wait, if only a turn of the loop.
Rule 2: what a poll left in the store ends with it: a cursor closes it, as it closes a step.
"""

from __future__ import annotations

from asyncio import CancelledError
from math import inf
from typing import Any, Generic

from cano._host import Parked
from cano._progress import PARK_AFTER
from cano._values import ValueType
from cano.context import Context
from cano.errors import PollExhaustedError, RoutingError
from cano.events import CursorSaved, PollAnswered, TaskRetried
from cano.policies.policy import Call
from cano.tasks._polling import Course, Decider, Pending, Ready
from cano.tasks.task import S


class Poller(Generic[S]):
    """Asks until it is answered, once per visit."""

    def __init__(self, ask: Call[Any], decider: Decider, value: ValueType, remedy: str) -> None:
        self.ask = ask
        self.decider = decider
        self.value = value
        self.remedy = remedy
        self.tolerant = decider.settings.errors > 0
        self.deadline = decider.settings.deadline

    async def run(self, ctx: Context[Any]) -> S:
        """One visit."""
        course = await self._begin(ctx)
        try:
            return await self._in_time(ctx, course)
        except Exception as error:
            if not ctx.host.stops(error) and self._saved(ctx) is not None:
                # Who opens the failed run again means to begin anew, with the data as they are.
                ctx.defer(CursorSaved(value=self.value.write(Course())))
            raise

    async def _in_time(self, ctx: Context[Any], course: Course) -> S:
        """Poll within what is left until the deadline."""
        left = inf if self.deadline is None else self.deadline - (ctx.now() - course.begun)
        if left <= 0 or left == inf:
            return await self._poll(ctx, course, left)
        alarm = ctx.alarm
        alarm.push(left)
        try:
            return await self._poll(ctx, course, inf)
        except CancelledError:
            if alarm.expired():
                raise self._exhausted(ctx, course, self.decider.overdue) from None
            raise
        finally:
            alarm.pop()

    async def _begin(self, ctx: Context[Any]) -> Course:
        """What was saved of this visit before a resume, or a fresh beginning."""
        saved = self._saved(ctx)
        course: Course = Course() if saved is None else self.value.read(saved.value)
        if saved is None or not course.polls:
            return Course(begun=ctx.now())
        if (behind := saved.time - ctx.now()) > 0:  # a clock that was set back must not hold it up
            course.begun -= behind
            course.due -= behind
            if not _left_something(ctx):  # else that would end with it, and be done again
                await self._save(ctx, course)
        return course

    def _saved(self, ctx: Context[Any]) -> CursorSaved | None:
        if not ctx.host.durable:
            return None
        saved: CursorSaved | None = ctx.host.history.visit.of("cursor", ctx.branch_name)
        return saved

    async def _poll(self, ctx: Context[Any], course: Course, left: float) -> S:
        """Ask and wait, until it is ready or given up; with nothing *left*, ask once."""
        durable = ctx.host.durable
        if course.polls:
            await _until(ctx, course.due)
        while True:
            course.polls += 1
            before = ctx.snapshot() if self.tolerant else None
            failure: Exception | None = None
            answer: Any = _FAILED
            try:
                answer = await self.ask(ctx)
            except Exception as error:
                if ctx.host.stops(error) or not self.decider.tolerates(error, course):
                    raise
                failure = error
                ctx.restore(before)
            else:
                course.errors = 0
            if not isinstance(answer, Pending):
                return self._ready(ctx, answer)
            pause = self.decider.pause(course, answer.seconds, failure)
            if why := self.decider.too_late(course, pause, min(ctx.remaining, left)):
                raise self._exhausted(ctx, course, why) from failure
            _tell(ctx, pause, failure)
            if durable and (answer.save or _left_something(ctx)):
                course.due = ctx.now() + pause
                await self._save(ctx, course)
                await _until(ctx, course.due)
            else:
                await ctx.pause(pause)

    def _ready(self, ctx: Context[Any], answer: Any) -> S:
        """Where a final answer leads."""
        ready: Ready[S] = answer
        if not isinstance(answer, Ready):
            raise RoutingError(f"{self.decider.label} returned {answer!r}; {self.remedy}")
        if ctx.listens(PollAnswered):
            ctx.emit(PollAnswered(ready=True))
        return ready.state

    async def _save(self, ctx: Context[Any], course: Course) -> None:
        """Have on disk how far it came: what the poll did ends with it."""
        await ctx.record(CursorSaved(value=self.value.write(course), patch=ctx.changes()))
        ctx.begin()

    def _exhausted(self, ctx: Context[Any], course: Course, why: str) -> PollExhaustedError:
        return self.decider.exhausted(ctx.state._name_, course, ctx.now(), why)


_FAILED = Pending()
"""Stands for the answer of a poll that failed, and was tolerated."""


def _tell(ctx: Context[Any], pause: float, failure: Exception | None) -> None:
    """Announce that there will be another poll."""
    if failure is not None:
        if ctx.listens(TaskRetried):
            ctx.emit(TaskRetried(error=repr(failure), delay=pause))
    elif ctx.listens(PollAnswered):
        ctx.emit(PollAnswered(delay=pause))


def _left_something(ctx: Context[Any]) -> bool:
    """Whether the poll is in the store with more than its beginning: attempts, effects, sleeps."""
    branch = ctx.branch_name
    return any(
        of == branch and family != "cursor" for family, of, _ in ctx.host.history.visit.progress
    )


async def _until(ctx: Context[Any], moment: float) -> None:
    """Wait as long as the store knows, without an asyncio task where somebody will wake the run."""
    left = moment - ctx.now()
    if left > PARK_AFTER and ctx.host.may_park and ctx.branch is None:
        raise Parked(moment)
    await ctx.pause(max(left, 0.0))
