"""A split against a model of it: random branches, strategies, windows, deadlines and losers.

The model below knows no tasks and no cancellation. It walks through the moments at which something
ends, and says who is then where. No two moments are the same: the fractions of the delays are
powers of two, each branch its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cano import (
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Context,
    Event,
    Split,
    SplitJoined,
    Workflow,
)
from cano import join as joins
from cano.errors import JoinFailedError, SplitTimeoutError
from cano.join import Tally, Verdict
from cano.testing import run

AGAIN = 0.05
BRANCHES = 6
STRATEGIES = st.one_of(
    st.builds(joins.All, st.booleans()),
    st.just(joins.Any()),
    st.builds(joins.Quorum, st.integers(1, 4)),
    st.builds(joins.Percentage, st.sampled_from([0.2, 0.5, 0.75, 1.0])),
    st.builds(joins.PartialResults, st.integers(1, 4)),
    st.builds(joins.PartialTimeout, st.integers(0, 4)),
    st.builds(joins.Tolerate, st.integers(0, 3), minimum=st.integers(0, 3)),
    st.builds(joins.Tolerate, share=st.sampled_from([0.0, 0.2, 0.5]), minimum=st.integers(0, 3)),
    st.just(joins.Settled()),
)


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


@dataclass(frozen=True)
class Plan:
    """What one branch does: it ends after *delay* (0: at once), swallowing some cancellations."""

    delay: float
    succeeds: bool
    stubborn: int


@dataclass(frozen=True)
class Case:
    """A split, and when its run is cancelled, if ever."""

    plans: tuple[Plan, ...]
    join: Any
    bulkhead: int | None
    timeout: float | None
    losers: Any


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, BRANCHES))
    plans = []
    for index in range(count):
        whole = draw(st.integers(0, 5))
        delay = whole + 2.0 ** -(index + 1) if whole else 0.0
        plans.append(Plan(delay, draw(st.booleans()), draw(st.sampled_from([0, 0, 0, 1, 3]))))
    timeout = draw(st.none() | st.integers(0, 12).map(lambda whole: whole + 2.0**-10))
    join = draw(STRATEGIES)
    if join.problem(count, timeout) is not None:
        join, timeout = joins.Settled(), timeout
    bulkhead = draw(st.none() | st.integers(1, 4))
    return Case(tuple(plans), join, bulkhead, timeout, draw(st.sampled_from(["cancel", "wait"])))


@dataclass
class Model:
    """The reference: what a case must come to."""

    case: Case
    now: float = 0.0
    running: dict[int, float] = field(default_factory=dict)
    outcomes: dict[int, bool] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    begun: int = 0
    expired: bool = False
    ending: float = inf
    verdict: Verdict = Verdict.WAIT

    def play(self) -> Model:
        case = self.case
        deadline = inf if case.timeout is None else case.timeout
        self.judge()
        self.start()
        while self.running:
            ends = {i: min(at, self.given_up(i)) for i, at in self.running.items()}
            index = min(ends, key=lambda i: ends[i])
            if deadline < ends[index] and self.ending == inf:
                self.now, self.expired = deadline, True
                self.judge()
                self.ending = self.now
                continue
            self.now = ends[index]
            self.leave(index, heeded=self.given_up(index) < self.running[index])
            self.start()
        return self

    def given_up(self, index: int) -> float:
        """When a branch stops resisting: at the cancellation, or that many repeats later."""
        return self.ending + AGAIN * self.case.plans[index].stubborn

    def start(self) -> None:
        window = self.case.bulkhead or len(self.case.plans)
        while (
            self.verdict is Verdict.WAIT
            and self.begun < len(self.case.plans)
            and len(self.running) < window
        ):
            index, self.begun = self.begun, self.begun + 1
            self.running[index] = self.now + self.case.plans[index].delay
            if not self.case.plans[index].delay:
                self.leave(index, heeded=False)

    def leave(self, index: int, *, heeded: bool) -> None:
        del self.running[index]
        if heeded:
            self.cancelled.add(index)
            return
        self.outcomes[index] = self.case.plans[index].succeeds
        self.judge()

    def judge(self) -> None:
        if self.verdict is not Verdict.WAIT:
            return
        good = sum(self.outcomes.values())
        tally = Tally(len(self.case.plans), good, len(self.outcomes) - good, self.expired)
        self.verdict = self.case.join.verdict(tally)
        ends = self.verdict is Verdict.FAIL or self.case.losers == "cancel"
        if self.verdict is not Verdict.WAIT and ends:
            self.ending = self.now

    @property
    def reason(self) -> str:
        if self.expired:
            return "deadline"
        if len(self.outcomes) == len(self.case.plans):
            return "all"
        return "enough" if self.verdict is Verdict.PROCEED else "impossible"

    def parts(self) -> tuple[Any, ...]:
        return (
            [i for i in sorted(self.outcomes) if self.outcomes[i]],
            [i for i in sorted(self.outcomes) if not self.outcomes[i]],
            sorted(self.cancelled),
            list(range(self.begun, len(self.case.plans))),
            self.reason,
        )


class Played:
    """The same case, run."""

    def __init__(self, case: Case, cancel_at: float | None = None) -> None:
        self.case = case
        self.events: list[Event] = []
        self.working: set[int] = set()
        self.result: Any = None
        self.error: Any = None
        self.errors = {i: OSError(i) for i in range(len(case.plans))}
        self.ended = 0.0
        run(self.main(cancel_at))

    async def branch(self, ctx: Context[Any]) -> int:
        assert ctx.branch is not None
        index = ctx.branch.index
        self.working.add(index)
        try:
            await self.pause(self.case.plans[index])
        finally:
            self.working.discard(index)
        if not self.case.plans[index].succeeds:
            raise self.errors[index]
        return index

    async def pause(self, plan: Plan) -> None:
        clock = asyncio.get_running_loop().time
        end, patience = clock() + plan.delay, plan.stubborn
        while (left := end - clock()) > 1e-9:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                if not patience:
                    raise
                patience -= 1

    async def look(self, ctx: Context[Any]) -> Step:
        assert not self.working
        self.result = ctx.split
        return Step.DONE

    async def main(self, cancel_at: float | None) -> None:
        case = self.case
        split = Split([self.branch] * len(case.plans), then=Step.NEXT, join=case.join,
                      timeout=case.timeout, bulkhead=case.bulkhead, losers=case.losers)  # fmt: skip
        flow = Workflow(Step, observers=[self.events.append]).register(Step.SPLIT, split)
        task = asyncio.ensure_future(
            flow.register(Step.NEXT, self.look).exits(Step.DONE).run(Step.SPLIT)
        )
        await asyncio.wait((task,), timeout=cancel_at)
        task.cancel()
        await asyncio.wait((task,))
        self.ended = asyncio.get_running_loop().time()
        assert {asyncio.current_task()} == asyncio.all_tasks()
        self.was_cancelled = task.cancelled()
        self.error = None if self.was_cancelled else task.exception()
        assert not self.working

    def parts(self) -> tuple[Any, ...]:
        result = self.result if self.error is None else self.error.result
        return (
            [branch.index for branch in result.successes],
            [branch.index for branch in result.errors],
            list(result.cancelled),
            list(result.not_started),
            result.reason,
        )

    def told(self, kind: type[Any]) -> list[int]:
        return sorted(event.index for event in self.events if isinstance(event, kind))


@settings(max_examples=200, deadline=None, database=None)
@given(cases())
def test_a_split_comes_to_what_the_model_says(case: Case) -> None:
    """Outcome, reason, lists, time and events of a split are those of the model."""
    model, played = Model(case).play(), Played(case)
    event(f"{type(case.join).__name__}, {model.reason}")

    assert model.parts() == played.parts()
    assert (model.verdict is Verdict.PROCEED) == (played.error is None)
    assert abs(model.now - played.ended) < 1e-6

    good, bad, cancelled, _, reason = model.parts()
    assert list(range(model.begun)) == played.told(BranchStarted)
    assert good == played.told(BranchFinished)
    assert bad == played.told(BranchFailed)
    assert cancelled == played.told(BranchCancelled)
    (joined,) = (told for told in played.events if isinstance(told, SplitJoined))
    assert (played.error is None, reason) == (joined.satisfied, joined.reason)

    if played.error is not None:
        assert isinstance(played.error, JoinFailedError)
        causes = list(played.error.exceptions)
        if reason == "deadline":
            assert isinstance(causes.pop(), SplitTimeoutError)
        assert all(causes[place] is played.errors[i] for place, i in enumerate(bad))
        assert len(bad) == len(causes)


@settings(max_examples=120, deadline=None, database=None)
@given(cases(), st.integers(0, 12).map(lambda whole: whole + 2.0**-11))
def test_a_cancelled_split_leaves_nothing_behind(case: Case, cancel_at: float) -> None:
    """Cancelled at any moment, every branch that began has ended, once, and no task is left."""
    played = Played(case, cancel_at)
    kinds = Counter(type(told) for told in played.events)
    event("cancelled" if played.was_cancelled else "ended before")

    closed = [
        i for kind in (BranchFinished, BranchFailed, BranchCancelled) for i in played.told(kind)
    ]
    assert played.told(BranchStarted) == sorted(closed)
    assert played.was_cancelled == (kinds[SplitJoined] == 0)
    assert played.was_cancelled == (Model(case).play().now > cancel_at)
