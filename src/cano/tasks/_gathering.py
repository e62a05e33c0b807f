"""One visit to a split: its branches started, counted, ended and awaited.

Rule 1: branches start in order, at most a window of them at a time, and each reports in the very
        step it ends in. There the counts are judged; from a verdict on nothing more starts.
Rule 2: everything that decides is synchronous, so that no cancellation can come between two
        halves of a change.
Rule 3: nothing returns before the last branch has ended, however it is left.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from math import inf
from typing import Any, Literal, TypeAlias

from cano._deadline import AGAIN
from cano._host import BranchInfo
from cano.context import Context
from cano.errors import (
    DefinitionError,
    JoinFailedError,
    SplitTimeoutError,
    StrayCancelledError,
    TooFewBranchesError,
    note,
)
from cano.events import (
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Event,
    SplitJoined,
)
from cano.join import FAIL, PROCEED, WAIT, BranchResult, Join, SplitResult, Tally
from cano.policies.policy import Call

Losers: TypeAlias = Literal["cancel", "wait"]

# An eager branch that never suspends costs no trip through the loop.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_TOLD: tuple[type[Event], ...] = (BranchStarted, BranchFinished, BranchFailed, BranchCancelled)


class Gathering:
    """Who runs, who is done, and what it adds up to."""

    __slots__ = (
        "again", "begun", "branches", "calls", "ctx", "deadline", "done", "due", "fatal", "filling",
        "join", "kept", "known", "loop", "losers", "next", "outside", "results", "started", "tally", "tasks",
        "timeout", "total", "undoable", "verdict", "watched", "window",
    )  # fmt: skip

    def __init__(
        self,
        ctx: Context[Any],
        branches: Sequence[BranchInfo],
        calls: Sequence[Call[Any]],
        join: Join,
        *,
        timeout: float | None,
        bulkhead: int | None,
        losers: Losers,
        known: Mapping[int, BranchResult[Any]] = {},
        kept: bool = False,
        undoable: Sequence[bool] = (),
    ) -> None:
        self.ctx = ctx
        self.known = known
        """What branches came to before the run was resumed, the first to end first."""
        self.begun = 0
        """How many branches had begun by then; they too begin in order."""
        self.undoable = undoable or [False] * len(branches)
        """Which branches are not left half done: see `must_finish`."""
        self.kept = kept
        """Whether the branches record their ends themselves."""
        self.branches = branches
        self.calls = calls
        self.join = join
        self.timeout = timeout
        self.losers = losers
        self.total = len(branches)
        self.window = bulkhead or self.total
        self.tally = Tally(self.total)
        self.verdict = join.verdict(self.tally)
        self.results: list[BranchResult[Any] | None] = [None] * self.total
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.next = 0
        self.started = 0  # they start in order: a number says which
        self.filling = False
        self.fatal: BaseException | None = None
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.again: asyncio.TimerHandle | None = None
        self.deadline = ctx.deadline
        self.due = inf
        self.outside = copy_context()
        self.watched = any(map(ctx.listens, _TOLD))

    async def run(self) -> SplitResult[Any]:
        """Start, wait, join. Raises `JoinFailedError`; cancelled, it takes its branches along."""
        timer = None
        if self.timeout is not None:
            timer = self.loop.call_later(self.timeout, self.expire)
            self.due = timer.when()
            self.deadline = min(self.deadline, self.due)
        try:
            self.recount()
            self.fill()
            while self.tasks:
                await self.done
        except asyncio.CancelledError:
            await self.abandon()
            if self.fatal is None:
                raise
        finally:
            for handle in (timer, self.again):
                if handle is not None:
                    handle.cancel()
        if self.fatal is not None:
            raise self.fatal
        return self.judge()

    def recount(self) -> None:
        """Judge what is known from before the resume as it was judged then: before anything starts."""
        for result in self.known.values():
            if self.verdict is WAIT:
                ended = self.tally.succeeded + self.tally.failed
                self.begun = min(ended + self.window, self.total)
            self.count(result)

    def must_finish(self, index: int) -> bool:
        """Whether a branch that a crash broke off is finished whatever the verdict.

        It would have been without the crash; and what an undoable one did could not be undone.
        """
        waits = self.verdict is PROCEED and self.losers == "wait"
        return index < self.begun and index not in self.known and (waits or self.undoable[index])

    def fill(self) -> None:
        """Start branches while there is room and the join still waits."""
        self.filling = True  # an eager branch may end, and report, within this loop
        while self.next < self.total and len(self.tasks) < self.window:
            index = self.next
            if self.verdict is not WAIT and index >= self.begun:
                break
            self.next = index + 1
            if index in self.known or not (self.verdict is WAIT or self.must_finish(index)):
                continue
            task = asyncio.Task(
                self.carry(index),
                loop=self.loop,
                name=self.branches[index].name,
                context=self.outside.copy(),  # not that of the branch which made room
                **_EAGER,
            )
            if not task.done():
                self.tasks[index] = task
        self.filling = False

    async def carry(self, index: int) -> None:
        """Carry out one branch, and report its end."""
        if self.due < inf and self.loop.time() >= self.due:
            self.expire()  # branches that never suspend leave the timer no chance
        if self.verdict is not WAIT and not self.must_finish(index):
            self.leave(index)
            return
        self.started = index + 1
        info = self.branches[index]
        ctx = self.ctx.for_branch(info, self.deadline)
        if self.watched:
            ctx.emit(BranchStarted(index=index))
        try:
            value = await self.calls[index](ctx)
        except asyncio.CancelledError:
            self.cancelled(info, ctx)
        except Exception as error:  # noqa: BLE001 -- the join decides what it means
            self.failed(info, ctx, error)
        except GeneratorExit:
            self.filling = True  # the loop is gone: nothing can start, and nobody waits
            raise
        except BaseException as error:  # noqa: BLE001 -- raised where the split is awaited
            self.break_off(error, index)
            if self.watched:
                ctx.emit(BranchFailed(index=index, error=repr(error)))
        else:
            self.settle(ctx, BranchResult(index, info.name, value))
        finally:
            if ctx._alarm is not None:
                ctx.close()
            self.leave(index)

    def failed(self, info: BranchInfo, ctx: Context[Any], error: Exception) -> None:
        """A branch raised; unless the run itself has to stop, that is an affair of the join."""
        note(error, f"cano: in branch {info.index} {info.name!r}")
        if ctx.host.stops(error):
            self.break_off(error, info.index)
            if self.watched and not self.ended(info, ctx):
                ctx.emit(BranchFailed(index=info.index, error=repr(error)))
        else:
            self.settle(ctx, BranchResult(info.index, info.name, None, error))

    def cancelled(self, info: BranchInfo, ctx: Context[Any]) -> None:
        """A branch ended by cancellation: ours, or one out of the blue, which is a failure."""
        if self.again is None:
            stray = StrayCancelledError(
                f"branch {info.index} {info.name!r} of {ctx.state.name} raised "
                "CancelledError, but nobody had cancelled it"
            )
            self.settle(ctx, BranchResult(info.index, info.name, None, stray), told=False)
        elif self.watched and not self.ended(info, ctx):
            ctx.emit(BranchCancelled(index=info.index))

    def ended(self, info: BranchInfo, ctx: Context[Any]) -> bool:
        """Whether a branch that is ended had an end already, that was just being written down."""
        return self.kept and ctx.host.history.visit.of("branch", info.name) is not None

    def settle(
        self, ctx: Context[Any], result: BranchResult[Any], *, told: bool | None = None
    ) -> None:
        """Count a result and, if it decides, end the others.

        Who keeps the end of a branch tells it, unless it is said that nobody did.
        """
        index, error = result.index, result.error
        self.count(result)
        if told is None:
            told = self.kept or self.undoable[index]
        if self.watched and not told:
            ctx.emit(
                BranchFinished(index=index)
                if error is None
                else BranchFailed(index=index, error=repr(error))
            )

    def count(self, result: BranchResult[Any]) -> None:
        """Add a result to the tally, and judge."""
        self.results[result.index] = result
        if result.error is None:
            self.tally.succeeded += 1
        else:
            self.tally.failed += 1
        if self.verdict is WAIT:
            self.consider(result.index)

    def consider(self, by: int = -1) -> None:
        """Judge the counts; from a verdict on, end the branches that it does not need."""
        try:
            self.verdict = verdict = self.join.verdict(self.tally)
        except Exception as error:  # noqa: BLE001 -- raised where the split is awaited
            self.break_off(error, by)
        else:
            if verdict is FAIL or (verdict is PROCEED and self.losers == "cancel"):
                self.end_all(by)

    def break_off(self, error: BaseException, by: int) -> None:
        """End everything, for *error*, which is no affair of the join."""
        if self.fatal is None:
            self.fatal = error
        self.verdict = FAIL
        if self.again is None:
            self.end_all(by)

    def end_all(self, but: int = -1) -> None:
        """Cancel what runs, and again what does not heed it; what has not begun never will.

        Who is being cancelled already, as at the end of `asyncio.run`, is not disturbed at once
        in its cleanup.
        """
        insist = self.again is not None
        for index, task in self.tasks.items():
            if index < self.started and index != but and (insist or not task.cancelling()):
                task.cancel()
        self.again = self.loop.call_later(AGAIN, self.end_all)

    def expire(self) -> None:
        """The split's deadline, where it is not being ended already."""
        if self.again is not None:
            return
        self.tally.expired = True
        if self.verdict is WAIT:
            self.consider()
        if self.verdict is WAIT:
            self.verdict = FAIL
        if self.again is None:
            self.end_all()

    def leave(self, index: int) -> None:
        """A branch is over: make room, or wake whoever waits for the last."""
        self.tasks.pop(index, None)
        if self.filling:
            return
        if self.next < self.total:
            self.fill()
        if not self.tasks and not self.done.done():
            self.done.set_result(None)

    async def abandon(self) -> None:
        """Cancelled from outside: take every branch along, however often we are told."""
        if self.verdict is WAIT:
            self.verdict = FAIL
        if self.again is None:
            self.end_all()
        while self.tasks:
            try:
                await asyncio.wait(self.tasks.values())
            except asyncio.CancelledError:
                continue
            self.tasks.clear()  # who was cancelled before its first step could not report

    def judge(self) -> SplitResult[Any]:
        """What it came to. Raises `JoinFailedError`."""
        result = self.result()
        if self.ctx.host.durable or self.ctx.listens(SplitJoined):
            self.ctx.defer(
                SplitJoined(
                    satisfied=self.verdict is PROCEED,
                    reason=result.reason,
                    succeeded=len(result.successes),
                    failed=len(result.errors),
                    cancelled=len(result.cancelled),
                    not_started=len(result.not_started),
                    lost=result.cancelled,
                )
            )
        if self.verdict is PROCEED:
            return result
        raise self.failure(result)

    def result(self) -> SplitResult[Any]:
        finished = [result for result in self.results if result is not None]
        without = [i for i, result in enumerate(self.results) if result is None]
        started = max(self.started, self.begun)
        if self.tally.expired:
            reason = "deadline"
        elif not without:
            reason = "all"
        else:
            reason = "enough" if self.verdict is PROCEED else "impossible"
        return SplitResult(
            successes=tuple(result for result in finished if result.error is None),
            errors=tuple(result for result in finished if result.error is not None),
            cancelled=tuple(i for i in without if i < started),
            not_started=tuple(i for i in without if i >= started),
            reason=reason,
            names=tuple(branch.name for branch in self.branches),
        )

    def failure(self, result: SplitResult[Any]) -> JoinFailedError:
        where = self.ctx.state.name
        causes: list[Exception] = [e.error for e in result.errors if e.error is not None]
        if self.tally.expired:
            causes.append(
                SplitTimeoutError(f"the split of {where} ran out of its {self.timeout:g} s")
            )
        elif not self.total:
            causes.append(
                TooFewBranchesError(f"{self.join} in {where} needs a branch; there were none")
            )
        elif not causes:
            causes.append(self.why_unmet())
        group = JoinFailedError(
            f"the join of {where} failed: {len(result.successes)} of {result.total} branches "
            f"succeeded, {len(result.errors)} failed; {self.join}, reason: {result.reason}",
            causes,
        )
        group.result = result
        return group

    def why_unmet(self) -> Exception:
        """What to say of a join that failed although no branch did."""
        if problem := self.join.problem(self.total, self.timeout):
            return TooFewBranchesError(problem)
        return DefinitionError(f"{self.join} was not satisfied by {self.tally}; mend its verdict()")
