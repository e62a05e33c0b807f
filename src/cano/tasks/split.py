"""Several branches at once, joined by a strategy.

How it works: branches are started by `_Gathering.fill`, in order, at most *bulkhead* at a time.
Each reports to `settle` in the very step it ends in; there the counts are judged, and from a
verdict on nothing more starts. Everything that decides is synchronous, so no cancellation can
come between two halves of a change. Losers are cancelled and awaited before the next state.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from enum import Enum
from typing import Any, ClassVar, Concatenate, Generic, Literal, TypeAlias, TypeVar, cast

from cano._deadline import AGAIN
from cano.context import BranchInfo, Context, Handover
from cano.errors import (
    DataError,
    EmptySplitError,
    JoinFailedError,
    SplitTimeoutError,
    StrayCancelledError,
)
from cano.events import (
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    SplitJoined,
)
from cano.join import FAIL, PROCEED, WAIT, All, BranchResult, Join, SplitResult, Tally
from cano.policies.policy import Call, Policy
from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 -- an item
D = TypeVar("D")
R = TypeVar("R", bound=Enum)

Losers: TypeAlias = Literal["cancel", "wait"]

if sys.version_info >= (3, 12):

    def _start(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Begin at once: a branch that never suspends costs no trip through the loop."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:

    def _start(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        return loop.create_task(work)


class Branch(Generic[T]):
    """One branch of a split, with policies or a name of its own.

    *policies* go inside those of the split's state: `register(s, Split([Branch(f, B)]), A)` makes
    the call as `A(B(f))`.
    """

    __slots__ = ("call", "name", "policies")

    def __init__(
        self,
        call: Callable[Concatenate[Context[Any], ...], Awaitable[T]],
        /,
        *policies: Policy,
        name: str | None = None,
    ) -> None:
        self.call = call
        self.policies = policies
        self.name = name

    def __repr__(self) -> str:
        return f"<Branch {self.name or describe(self.call).name}>"


BranchLike: TypeAlias = Branch[Any] | Callable[Concatenate[Context[Any], ...], Awaitable[Any]]


class Split(Task[S]):
    """Run *branches* side by side, join them by *join*, go on to *then*.

    Branches return values, which the next state finds in `ctx.split`; they leave `ctx.data`
    alone. A join that fails raises `JoinFailedError`, holding the branches' own exceptions.

    Args:
        branches: async functions of the context, or `Branch(f, *policies, name=...)`.
        join: when to go on: `All()` unless said otherwise, or another of `cano.join`.
        then: the state after the join.
        timeout: seconds for the whole split; at the deadline a satisfied join still joins.
        bulkhead: how many branches may run at once; None is no bound.
        losers: what becomes of branches still running when the join is satisfied: "cancel" them,
            or "wait" for them and keep what they return. A failed join always cancels.
    """

    hands_over: ClassVar[bool] = True
    changes_data: ClassVar[bool] = False
    edge: ClassVar[str] = "joins"

    def __init__(
        self,
        branches: Iterable[BranchLike] = (),
        *,
        then: S,
        join: Join | None = None,
        timeout: float | None = None,
        bulkhead: int | None = None,
        losers: Losers = "cancel",
    ) -> None:
        self.branches: list[Branch[Any]] = [
            branch if isinstance(branch, Branch) else Branch(branch) for branch in branches
        ]
        self.then = then
        self.join: Join = join or All()
        self.timeout = timeout
        self.bulkhead = bulkhead
        self.losers: Losers = losers
        self._items: Callable[[Any], Iterable[Any]] | None = None
        self._name: Callable[[Any], str] | None = None

    @staticmethod
    def over(
        items: Callable[[D], Iterable[I]],
        *,
        run: Callable[Concatenate[Context[D], I, ...], Awaitable[Any]] | Branch[Any],
        then: R,
        name: Callable[[I], str] | None = None,
        join: Join | None = None,
        timeout: float | None = None,
        bulkhead: int | None = None,
        losers: Losers = "cancel",
    ) -> Split[R]:
        """One branch per item, known only at run time.

        *items* is asked with the run's data when the state is entered; *run* is called with the
        context and the item; *name* names the branch of an item, by its index otherwise. The rest
        is as in `Split`. No items: `All`, `Percentage`, `Tolerate` and `Settled` join an empty
        result, the others fail with `EmptySplitError`.
        """
        split: Split[R] = Split((), then=then, join=join, timeout=timeout, bulkhead=bulkhead, losers=losers)
        split.branches = [run if isinstance(run, Branch) else Branch(cast("Any", run))]
        split._items, split._name = items, name
        return split

    @property
    def label(self) -> str:
        count = "n" if self._items else str(len(self.branches))
        return f"Split of {count}, {type(self.join).__name__}"

    def targets(self) -> frozenset[S]:
        return frozenset((self.then,))

    def problems(self, limit: float | None, /) -> Iterable[str]:
        dynamic = self._items is not None
        total = None if dynamic else len(self.branches)
        if (found := self.join.problem(total, self.timeout)) is not None:
            yield found
        if total == 0:
            yield "a split without branches; add some, or use Split.over for items known later"
        if self.bulkhead is not None and self.bulkhead < 1:
            yield f"bulkhead={self.bulkhead} lets no branch run; pass 1 or more, or None"
        if self.timeout is not None and not self.timeout > 0:
            yield f"timeout={self.timeout} leaves no time; pass seconds > 0, or None"
        elif self.timeout is not None and limit is not None and self.timeout > limit:
            yield f"timeout={self.timeout:g} outlasts the {limit:g} s a whole run has; shorten it"
        if self.losers not in ("cancel", "wait"):
            yield f'losers={self.losers!r} is unknown; pass "cancel" or "wait"'
        names = [branch.name for branch in self.branches if branch.name is not None]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            yield f"branch names must be unique: {', '.join(doubled)} appear more than once"

    def bind(self, guard: Guard, /) -> Runner[S]:
        item = self._items is not None
        calls = [guard(branch.call, *branch.policies, item=item) for branch in self.branches]
        names = [
            branch.name or f"{describe(branch.call).name}[{index}]"
            for index, branch in enumerate(self.branches)
        ]
        static = [BranchInfo(index, name) for index, name in enumerate(names)]

        async def run(ctx: Context[Any]) -> S:
            if self._items is None:
                made, plan = static, calls
            else:
                made = self._make(ctx.data, names[0])
                plan = calls * len(made)
            gathering = _Gathering(self, ctx, made, plan)
            result = await gathering.run()
            ctx.handover = Handover(split=result)
            return self.then

        return run

    def _make(self, data: Any, default: str) -> list[BranchInfo]:
        """The branches for the items there are now. Raises `DataError` for a name used twice."""
        assert self._items is not None  # noqa: S101 -- `bind` asks first
        stem = default.removesuffix("[0]")
        made: list[BranchInfo] = []
        taken: set[str] = set()
        for index, item in enumerate(self._items(data)):
            name = self._name(item) if self._name else f"{stem}[{index}]"
            if name in taken:
                raise DataError(f"two branches are named {name!r}; give every item its own name")
            taken.add(name)
            made.append(BranchInfo(index, name, item))
        return made


class _Gathering:
    """One visit's branches: who runs, who is done, and what it adds up to."""

    __slots__ = (
        "again", "branches", "calls", "ctx", "deadline", "done", "filling", "loop", "next",
        "results", "split", "started", "tally", "tasks", "verdict", "watched", "window",
    )  # fmt: skip

    def __init__(
        self,
        split: Split[Any],
        ctx: Context[Any],
        branches: Sequence[BranchInfo],
        calls: Sequence[Call[Any]],
    ) -> None:
        self.split = split
        self.ctx = ctx
        self.branches = branches
        self.calls = calls
        self.tally = Tally(len(branches))
        self.verdict = split.join.verdict(self.tally)
        self.window = split.bulkhead or len(branches)
        self.results: list[BranchResult[Any] | None] = [None] * len(branches)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.started: set[int] = set()
        self.next = 0
        self.filling = False
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.again: asyncio.TimerHandle | None = None
        self.deadline = ctx.deadline
        self.watched = ctx.listens(BranchStarted)

    async def run(self) -> SplitResult[Any]:
        """Start, wait, join. Raises `JoinFailedError`; cancelled, it takes its branches along."""
        timer = None
        if self.split.timeout is not None:
            timer = self.loop.call_later(self.split.timeout, self.expire)
            self.deadline = min(self.deadline, timer.when())
        try:
            self.fill()
            while self.tasks:
                await self.done
        except asyncio.CancelledError:
            await self.abandon()
            raise
        finally:
            for handle in (timer, self.again):
                if handle is not None:
                    handle.cancel()
        return self.judge()

    def fill(self) -> None:
        """Start branches while there is room and the join still waits."""
        self.filling = True  # an eager branch may end, and report, within this loop
        while self.next < len(self.branches) and self.verdict is WAIT:
            if len(self.tasks) >= self.window:
                break
            index = self.next
            self.next += 1
            carried = self.carry(index)
            task = _start(carried, self.loop)
            if not task.done():
                self.tasks[index] = task
        self.filling = False

    async def carry(self, index: int) -> None:
        """Carry out one branch, and report its end."""
        if self.verdict is not WAIT:
            self.leave(index)
            return
        self.started.add(index)
        info = self.branches[index]
        ctx = self.ctx.for_branch(info, self.deadline)
        if self.watched:
            ctx.emit(BranchStarted(index=index))
        try:
            value = await self.calls[index](ctx)
        except asyncio.CancelledError:
            self.cancelled(index, ctx)
        except Exception as error:  # noqa: BLE001 -- the join decides what it means
            error.add_note(f"cano: in branch {index} {info.name!r}")
            self.settle(ctx, BranchResult(index, info.name, None, error))
        else:
            self.settle(ctx, BranchResult(index, info.name, value))
        finally:
            ctx.close()
            self.leave(index)

    def cancelled(self, index: int, ctx: Context[Any]) -> None:
        """A branch ended by cancellation: ours, or one out of the blue, which is a failure."""
        if self.verdict is WAIT:
            info = self.branches[index]
            stray = StrayCancelledError(
                f"branch {index} {info.name!r} of {ctx.state.name} raised "
                "CancelledError, but nobody had cancelled it"
            )
            self.settle(ctx, BranchResult(index, info.name, None, stray))
        elif self.watched:
            ctx.emit(BranchCancelled(index=index))

    def settle(self, ctx: Context[Any], result: BranchResult[Any]) -> None:
        """Count a result and, if it decides, end the others."""
        self.results[result.index] = result
        if result.error is None:
            self.tally.succeeded += 1
            if self.watched:
                ctx.emit(BranchFinished(index=result.index))
        else:
            self.tally.failed += 1
            if self.watched:
                ctx.emit(BranchFailed(index=result.index, error=repr(result.error)))
        if self.verdict is WAIT:
            self.verdict = self.split.join.verdict(self.tally)
            if self.verdict is not WAIT:
                self.decided(result.index)

    def decided(self, by: int = -1) -> None:
        """The verdict is in: end the branches that it does not need."""
        if self.verdict is FAIL or self.split.losers == "cancel" or self.tally.expired:
            self.end_all(by)

    def end_all(self, but: int = -1) -> None:
        """Cancel what runs, and again what does not heed it; what has not begun never will."""
        for index in self.started & self.tasks.keys():
            if index != but:
                self.tasks[index].cancel()
        if self.again is not None:
            self.again.cancel()
        self.again = self.loop.call_later(AGAIN, self.end_all)

    def expire(self) -> None:
        """The split's deadline: a satisfied join has joined already, so only FAIL or partial."""
        self.tally.expired = True
        if self.verdict is WAIT:
            self.verdict = self.split.join.verdict(self.tally)
        self.decided()

    def leave(self, index: int) -> None:
        """A branch is over: make room, or wake whoever waits for the last."""
        self.tasks.pop(index, None)
        if self.filling:
            return
        self.fill()
        if not self.tasks and not self.done.done():
            self.done.set_result(None)

    async def abandon(self) -> None:
        """Cancelled from outside: take every branch along, however often we are told."""
        if self.verdict is WAIT:
            self.verdict = FAIL
        self.end_all()
        while self.tasks:
            self.done = self.loop.create_future()
            try:
                await self.done
            except asyncio.CancelledError:
                continue

    def judge(self) -> SplitResult[Any]:
        """What it came to. Raises `JoinFailedError`."""
        result = self.result()
        if self.ctx.listens(SplitJoined):
            self.ctx.emit(
                SplitJoined(
                    satisfied=self.verdict is PROCEED,
                    reason=result.reason,
                    succeeded=len(result.successes),
                    failed=len(result.errors),
                    cancelled=len(result.cancelled),
                    not_started=len(result.not_started),
                )
            )
        if self.verdict is PROCEED:
            return result
        raise self.failure(result)

    def result(self) -> SplitResult[Any]:
        finished = [result for result in self.results if result is not None]
        without = [i for i, result in enumerate(self.results) if result is None]
        if self.tally.expired:
            reason = "deadline"
        elif len(finished) == len(self.results):
            reason = "all"
        else:
            reason = "enough" if self.verdict is PROCEED else "impossible"
        return SplitResult(
            successes=tuple(result for result in finished if result.error is None),
            errors=tuple(result for result in finished if result.error is not None),
            cancelled=tuple(i for i in without if i in self.started),
            not_started=tuple(i for i in without if i not in self.started),
            reason=reason,
        )

    def failure(self, result: SplitResult[Any]) -> JoinFailedError:
        split, where = self.split, self.ctx.state.name
        causes: list[Exception] = [e.error for e in result.errors if e.error is not None]
        if self.tally.expired:
            causes.append(SplitTimeoutError(f"the split of {where} had {split.timeout:g} s"))
        if not self.branches:
            causes.append(
                EmptySplitError(f"{split.join} in {where} needs a branch; there were none")
            )
        group = JoinFailedError(
            f"the join of {where} failed: {len(result.successes)} of {result.total} branches "
            f"succeeded, {len(result.errors)} failed; {split.join}, reason: {result.reason}",
            causes,
        )
        group.result = result
        return group
