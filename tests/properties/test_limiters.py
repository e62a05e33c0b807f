"""Rate limiters against a model that only looks back: what was let through, and when.

All numbers are halves, quarters and eighths, which floats add up without an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from cano.errors import RateLimitedError
from cano.policies.multi_limit import MultiRateLimiter, Tier
from cano.policies.rate_limit import Limiter, RateLimiter, Reservation, WindowedRateLimiter
from cano.testing import run

eighths = st.integers(0, 40).map(lambda number: number / 8)
costs = st.integers(1, 12).map(lambda number: number / 2)
quick = settings(max_examples=80, deadline=None, database=None)

Call: TypeAlias = tuple[float, float]
"""When, and what it cost."""


@dataclass(eq=False)
class Rule:
    """A limit as a condition on the calls that were made, however it is kept."""

    allows: Callable[[list[Call]], bool]
    make: Callable[[Callable[[], float] | None], Limiter]
    capacity: float
    text: str
    calls: list[Call] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.text


@st.composite
def buckets(draw: st.DrawFn) -> Rule:
    """At most burst + rate × T within any T seconds: the arrival curve of a token bucket."""
    limit, per = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([0.5, 1, 2, 4]))
    burst = draw(st.integers(6, 12))

    def allows(calls: list[Call]) -> bool:
        return all(
            sum(cost for when, cost in calls if start <= when <= end)
            <= burst + limit / per * (end - start)
            for start, _ in calls
            for end, _ in calls
            if start <= end
        )

    return Rule(
        allows,
        lambda clock: RateLimiter(limit, per, burst=burst, clock=clock),
        burst,
        f"bucket({limit}, {per}, burst={burst})",
    )


@st.composite
def sliding(draw: st.DrawFn) -> Rule:
    """At most *limit* within any window, which does not count its end."""
    limit, window = draw(st.integers(6, 12)), draw(st.sampled_from([0.5, 1, 2, 5]))

    def allows(calls: list[Call]) -> bool:
        return all(
            sum(cost for when, cost in calls if start <= when < start + window) <= limit
            for start, _ in calls
        )

    return Rule(
        allows,
        lambda clock: WindowedRateLimiter(limit, window, clock=clock),
        limit,
        f"sliding({limit}, {window})",
    )


@st.composite
def fixed(draw: st.DrawFn) -> Rule:
    """At most *limit* in each window of a grid that was laid once and for all."""
    limit, window = draw(st.integers(6, 12)), draw(st.sampled_from([0.5, 1, 2, 5]))

    def allows(calls: list[Call]) -> bool:
        numbers = {floor(when / window) for when, _ in calls}
        return all(
            sum(cost for when, cost in calls if floor(when / window) == number) <= limit
            for number in numbers
        )

    return Rule(
        allows,
        lambda clock: WindowedRateLimiter(limit, window, kind="fixed", anchor=0, clock=clock),
        limit,
        f"fixed({limit}, {window})",
    )


rules = st.one_of(buckets(), sliding(), fixed())


class Clock:
    """A clock that is moved by hand, and may jump back."""

    def __init__(self) -> None:
        self.shown = 1000.0
        self.passed = 1000.0

    def __call__(self) -> float:
        return self.shown

    def go(self, seconds: float) -> None:
        self.shown += seconds
        self.passed += max(seconds, 0.0)


steps = st.tuples(st.one_of(st.just(0.0), eighths, eighths.map(lambda jump: -jump)), costs)


@quick
@given(rules, st.lists(steps, max_size=40))
def test_lets_through_exactly_what_the_limit_allows(rule: Rule, script: list[Call]) -> None:
    """No call too many, none too few, whatever the costs, and when the clock jumps back."""
    clock = Clock()
    limiter = rule.make(clock)
    limiter.snapshot()  # sees the clock; what it showed before is nobody's business
    for seconds, cost in script:
        clock.go(seconds)
        wanted = [*rule.calls, (clock.passed, cost)]
        expected = rule.allows(wanted)

        assert expected == (limiter.time_until(cost) == 0)
        assert expected == limiter.try_acquire(cost)
        if expected:
            rule.calls = wanted


@quick
@given(rules, st.lists(steps, max_size=30))
def test_tells_the_very_moment(rule: Rule, script: list[Call]) -> None:
    """After `time_until` a call passes, and right before it does not."""
    clock = Clock()
    limiter = rule.make(clock)
    limiter.snapshot()  # sees the clock; what it showed before is nobody's business
    for seconds, cost in script:
        clock.go(seconds)
        if not limiter.try_acquire(cost):
            wait = limiter.time_until(cost)
            clock.go(wait - 1 / 64)
            assert not limiter.try_acquire(cost)
            clock.go(1 / 64)
            assert limiter.try_acquire(cost)


returns = st.tuples(
    eighths, costs, st.sampled_from(["keep", "reserve", "return", "commit", "half"])
)


@quick
@given(rules, st.lists(returns, max_size=40))
def test_what_comes_back_is_not_lent_twice(
    rule: Rule, script: list[tuple[float, float, str]]
) -> None:
    """However late reservations come back, calls that were made stay within the limit."""
    clock = Clock()
    limiter = rule.make(clock)
    limiter.snapshot()  # sees the clock; what it showed before is nobody's business
    open_ones: list[tuple[Reservation, Call]] = []
    for seconds, cost, what in script:
        clock.go(seconds)
        if what == "keep" and limiter.try_acquire(cost):
            rule.calls.append((clock.passed, cost))
        elif what == "reserve":
            try:
                open_ones.append((limiter.reserve(cost), (clock.passed, cost)))
            except RateLimitedError:
                continue
        elif open_ones:
            reservation, call = open_ones.pop(int(cost) % len(open_ones))
            when, taken = call
            if what == "commit":
                reservation.commit()
                rule.calls.append(call)
            elif what == "half":
                reservation.commit(taken / 2)
                rule.calls.append((when, taken / 2))
            reservation.give_back()

    assert rule.allows(rule.calls)


actions = st.tuples(
    st.sampled_from(["come", "come", "come", "cancel", "cancel", "pass", "pause", "tick"]),
    costs,
    eighths,
)


class Crowd:
    """Calls that come, wait and give up, and what became of them."""

    def __init__(self, limiters: list[Limiter | MultiRateLimiter]) -> None:
        self.limiters = limiters
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.kinds: dict[int, int] = {}
        self.let_through: list[tuple[int, float, float]] = []

    def come(self, which: int, cost: float) -> None:
        number = len(self.tasks)
        self.kinds[number] = which % len(self.limiters)
        self.tasks[number] = asyncio.ensure_future(self._call(number, cost))

    async def _call(self, number: int, cost: float) -> None:
        limiter = self.limiters[self.kinds[number]]
        if isinstance(limiter, MultiRateLimiter):
            await limiter.acquire(dict.fromkeys(limiter.tiers, cost))
        else:
            await limiter.acquire(cost)
        now = asyncio.get_running_loop().time()
        self.let_through.append((number, now, cost))

    def cancel(self, which: int) -> None:
        waiting = [task for task in self.tasks.values() if not task.done()]
        if waiting:
            waiting[which % len(waiting)].cancel()

    async def play(self, script: list[tuple[str, float, float]]) -> None:
        for action, cost, seconds in script:
            which = int(seconds * 8)
            if action == "come":
                self.come(which, cost)
            elif action == "cancel":
                self.cancel(which)
            elif action == "pause":
                await asyncio.sleep(seconds)
            elif action == "tick":
                await asyncio.sleep(0)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    @property
    def survivors(self) -> list[int]:
        return [number for number, task in self.tasks.items() if not task.cancelled()]


@quick
@given(rules, st.lists(actions, max_size=50))
def test_waiting_calls_pass_in_order_and_within_the_limit(
    rule: Rule, script: list[tuple[str, float, float]]
) -> None:
    """In any storm of arrivals and cancellations: in order, nobody forgotten, never too many."""

    async def main() -> None:
        limiter = rule.make(None)
        crowd = Crowd([limiter])
        await crowd.play(script)

        assert crowd.survivors == [number for number, _, _ in crowd.let_through]
        assert rule.allows([(when, cost) for _, when, cost in crowd.let_through])
        assert limiter.snapshot().waiting == 0
        alone = asyncio.get_running_loop().time()
        await limiter.acquire(rule.capacity)  # nothing was lost: all of it comes back
        assert asyncio.get_running_loop().time() - alone <= 48

    run(main())


@quick
@given(rules, rules, rules, st.lists(actions, max_size=50))
def test_shared_limits_hold_for_all_who_share_them(
    one: Rule, two: Rule, three: Rule, script: list[tuple[str, float, float]]
) -> None:
    """Composites that share meters, and plain users of those: no circle, no call too many."""

    async def main() -> None:
        first, second, third = (rule.make(None) for rule in (one, two, three))
        a, b, c = Tier("a", first), Tier("b", second), Tier("c", third)
        users = [MultiRateLimiter([a, b]), MultiRateLimiter([c, b, a]), MultiRateLimiter([c, a])]
        crowd = Crowd([*users, first, third])
        await crowd.play(script)

        assert crowd.survivors == sorted(number for number, _, _ in crowd.let_through)
        shares = {one: [0, 1, 2, 3], two: [0, 1], three: [1, 2, 4]}
        for rule, kinds in shares.items():
            mine = [entry for entry in crowd.let_through if crowd.kinds[entry[0]] in kinds]
            assert [number for number, _, _ in mine] == sorted(number for number, _, _ in mine)
            assert rule.allows([(when, cost) for _, when, cost in mine])
        assert [0, 0, 0] == [limiter.snapshot().waiting for limiter in (first, second, third)]

    run(main())
