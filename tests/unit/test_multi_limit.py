"""`MultiRateLimiter`: several limits at once, all or nothing."""

from __future__ import annotations

import asyncio
from math import inf, nan
from typing import Any

import pytest

from cano import (
    CostError,
    DefinitionError,
    MultiRateLimiter,
    RateLimitedError,
    RateLimiter,
    Tier,
    WindowedRateLimiter,
)
from cano.policies.rate_limit import Limiter, Usage
from cano.testing import run


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def now() -> float:
    return asyncio.get_running_loop().time()


def provider(clock: Clock | None = None, **settings: Any) -> MultiRateLimiter:
    """Two requests per second, ten tokens per five, a hundred per hour."""
    return MultiRateLimiter(
        [
            Tier("requests", RateLimiter(2, clock=clock)),
            Tier("tokens", RateLimiter(10, 5, clock=clock), cost=4),
            Tier("hourly", WindowedRateLimiter(100, 3600, clock=clock), cost=4),
        ],
        **settings,
    )


class Watched:
    """A meter that is never full, and writes down what it is asked to do."""

    capacity = 100.0

    def __init__(self, log: list[str], name: str, room: float = inf) -> None:
        self.log, self.name, self.room = log, name, room

    def take(self, cost: float, now: float, /) -> float | None:
        self.log.append(f"{self.name}{'+' if self.room else '-'}{cost:g}")
        return now if self.room else None

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        self.log.append(f"{self.name} back {cost:g}")

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        return 0.0 if self.room else 7.0

    def usage(self, now: float, /) -> Usage:
        return Usage(100, 0, 100, 0)


def test_takes_in_order_and_gives_back_what_was_in_vain() -> None:
    """Tiers are asked as listed, those after the first refusal not at all, and nothing leaks."""
    log: list[str] = []
    meters = [Watched(log, "a"), Watched(log, "b"), Watched(log, "c", 0), Watched(log, "d")]
    multi = MultiRateLimiter(
        [Tier(meter.name, Limiter(meter), cost) for cost, meter in enumerate(meters, 1)]
    )

    assert not multi.try_acquire()
    assert ["a+1", "b+2", "c-3", "a back 1", "b back 2"] == log


def test_a_refusal_leaks_nothing() -> None:
    """However often one tier refuses, the others lose nothing."""
    multi = provider(Clock())
    assert multi.try_acquire({"tokens": 10})

    assert [False] * 10 == [multi.try_acquire() for _ in range(10)]
    assert {"requests": 1, "tokens": 0, "hourly": 96} == multi.available


def test_names_the_tier_that_takes_longest() -> None:
    """A refusal has the longest wait of all tiers that block, so that coming back then helps."""
    clock = Clock()
    multi = provider(clock, name="provider")
    assert multi.try_acquire({"requests": 2, "tokens": 10})
    with pytest.raises(RateLimitedError) as caught:
        multi.reserve()

    assert ("tokens", 2.0) == (caught.value.tier, caught.value.retry_after)
    assert "provider/tokens: too many calls; try again in 2 s" == str(caught.value)
    clock.seconds = caught.value.retry_after
    assert multi.try_acquire()


def test_waits_for_all_tiers() -> None:
    """A call is let through when the last of its tiers has enough."""

    async def main() -> None:
        multi = provider()
        passed = []
        for _ in range(5):
            await multi.acquire()
            passed.append(now())
        assert [0, 0, 1, 3, 5] == [pytest.approx(when) for when in passed]

    run(main())


def test_waits_in_line() -> None:
    """First come, first served, and nobody takes from any tier past those who wait."""

    async def main() -> None:
        multi = provider()
        await multi.acquire({"tokens": 10})
        order: list[str] = []

        async def call(name: str, tokens: float) -> None:
            await multi.acquire({"tokens": tokens})
            order.append(name)

        calls = [asyncio.ensure_future(call("H", 10))]
        await asyncio.sleep(2)
        calls += [asyncio.ensure_future(call(name, 1)) for name in "ab"]
        await asyncio.sleep(0)
        assert not multi.try_acquire({"tokens": 1})
        assert not multi.tiers["requests"].limiter.try_acquire()
        assert not multi.try_acquire(only=["requests"])
        assert pytest.approx(4.5) == multi.time_until({"tokens": 1})
        assert pytest.approx(3) == multi.tiers["requests"].limiter.time_until()  # behind H
        await asyncio.gather(*calls)
        assert list("Hab") == order
        assert pytest.approx(6) == now()

    run(main())


def test_costs_by_the_name_of_the_tier() -> None:
    """A call may say what it takes from some tiers; the others take their own."""
    multi = provider(Clock())
    assert multi.try_acquire({"tokens": 7.5})
    assert {"requests": 1, "tokens": 2.5, "hourly": 96} == multi.available
    assert multi.try_acquire({"tokens": 0, "hourly": 90})
    assert {"requests": 0, "tokens": 2.5, "hourly": 6} == multi.available


def test_a_tier_of_cost_0_is_left_out() -> None:
    """It lets everything through, but calls that name a cost."""
    empty = RateLimiter(1, per=60, clock=Clock())
    multi = MultiRateLimiter([Tier("a", RateLimiter(9)), Tier("b", empty, cost=0)])

    assert [True] * 9 == [multi.try_acquire() for _ in range(9)]
    assert 1.0 == empty.available
    assert multi.try_acquire({"a": 0, "b": 1})
    assert not multi.try_acquire({"a": 0, "b": 1})
    assert multi.try_acquire({"a": 0})


def test_a_call_may_name_the_tiers_that_count() -> None:
    """The others are neither asked nor charged."""
    multi = provider(Clock())
    assert multi.try_acquire({"tokens": 10})
    assert multi.try_acquire(only=["requests"])

    assert {"requests": 0, "tokens": 0, "hourly": 96} == multi.available
    assert 2.0 == multi.time_until(only=("tokens", "hourly"))
    assert 0.5 == multi.time_until(only={"requests"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["tokens", "token"]}, "provider has no tier 'token'; it has requests, tokens"),
        ({"only": []}, "name at least one"),
        ({"only": "tokens"}, "no list of tiers"),
        ({"costs": {"tokns": 1, "x": 2}}, "provider has no tier 'tokns', 'x'"),
        ({"costs": {"tokens": 11}}, "provider/tokens can never .* costs 11: it has 10 at most"),
        ({"costs": {"tokens": -1}}, "-1 is no cost"),
        ({"costs": {"tokens": nan}}, "nan is no cost"),
        ({"costs": {"hourly": "4"}}, "'4' is no cost"),
    ],
)
def test_mistakes_in_a_call(arguments: dict[str, Any], message: str) -> None:
    """Unknown names never let a call through unlimited, nor do impossible costs wait for ever."""
    multi = provider(Clock(), name="provider")
    costs = arguments.pop("costs", None)
    for attempt in (multi.try_acquire, multi.reserve, multi.time_until):
        with pytest.raises(CostError, match=message):
            attempt(costs, **arguments)
    with pytest.raises(CostError, match=message):
        run(multi.acquire(costs, **arguments))
    with pytest.raises(DefinitionError, match=message):
        multi.costing(costs, **arguments)

    assert {"requests": 2, "tokens": 10, "hourly": 100} == multi.available


def test_without_tiers_everything_passes() -> None:
    """No limit is no limit."""

    async def main() -> None:
        multi = MultiRateLimiter([])
        await multi.acquire()
        assert multi.try_acquire()
        assert 0.0 == multi.time_until()
        with multi.reserve() as reservation:
            reservation.commit()
        assert {} == multi.snapshot()
        assert "<MultiRateLimiter without tiers>" == repr(multi)
        with pytest.raises(CostError, match="it has none"):
            multi.try_acquire(only=["a"])

    run(main())


def test_one_limiter_in_two_tiers_is_charged_for_both() -> None:
    """Both costs together are what a call takes, and what must be possible."""
    shared = RateLimiter(10, clock=Clock())
    multi = MultiRateLimiter([Tier("in", shared, 3), Tier("out", shared, 4)])
    assert multi.try_acquire()
    assert 3.0 == shared.available
    assert 0.4 == pytest.approx(multi.time_until())
    with pytest.raises(CostError, match="costs 11"):
        multi.try_acquire({"in": 7})
    with pytest.raises(DefinitionError, match="costs 12"):
        MultiRateLimiter([Tier("in", shared, 6), Tier("out", shared, 6)])


def test_composites_that_share_tiers_in_any_order() -> None:
    """Neither deadlock nor overdraft, and the order of arrival holds among all who share."""

    async def main() -> None:
        a, b = RateLimiter(1, burst=2), WindowedRateLimiter(2, 3)
        one = MultiRateLimiter([Tier("a", a), Tier("b", b)])
        other = MultiRateLimiter([Tier("b", b, 2), Tier("a", a)])
        order: list[tuple[int, float]] = []

        async def call(number: int, acquire: Any) -> None:
            await acquire()
            order.append((number, round(now(), 6)))

        users = [one.acquire, other.acquire, a.acquire, b.acquire] * 3
        await asyncio.gather(*(call(number, acquire) for number, acquire in enumerate(users)))
        for kinds in ({0, 1, 2}, {0, 1, 3}):
            mine = [number for number, _ in order if number % 4 in kinds]
            assert sorted(mine) == mine
        assert 12 == len(order)
        taken_of_b = [(when, (1, 2, 0, 1)[number % 4]) for number, when in order]
        for start in {when for _, when in order}:
            assert 2 >= sum(cost for when, cost in taken_of_b if start <= when < start + 3)

    run(main())


def test_first_in_one_line_is_not_yet_first_everywhere() -> None:
    """Who moves up in one line still does not overtake in another."""

    async def main() -> None:
        x, y, z = RateLimiter(1), RateLimiter(10), RateLimiter(1, per=10)
        assert x.try_acquire()
        assert z.try_acquire()
        order: list[tuple[str, float]] = []

        async def call(name: str, acquire: Any) -> None:
            await acquire()
            order.append((name, round(now(), 6)))

        before = MultiRateLimiter([Tier("y", y), Tier("z", z)])
        behind = MultiRateLimiter([Tier("x", x), Tier("y", y)])
        users = {"u": x.acquire, "v": before.acquire, "w": behind.acquire}
        await asyncio.gather(*(call(name, acquire) for name, acquire in users.items()))
        assert [("u", 1), ("v", 10), ("w", 10)] == order

    run(main())


def test_a_cancelled_call_leaves_all_lines() -> None:
    """Who waits behind it, for one tier or another, moves up."""

    async def main() -> None:
        multi = provider()
        await multi.acquire({"tokens": 10})
        heavy = asyncio.ensure_future(multi.acquire({"tokens": 10}))
        await asyncio.sleep(1)
        light = asyncio.ensure_future(multi.acquire({"tokens": 2}))
        plain = asyncio.ensure_future(multi.tiers["hourly"].limiter.acquire())
        await asyncio.sleep(0)
        heavy.cancel()
        await asyncio.gather(light, plain)
        assert 1.0 == now()
        assert [0, 0, 0] == [usage.waiting for usage in multi.snapshot().values()]

    run(main())


def test_ends_of_patience() -> None:
    """Its own limit counts, not that of its tiers; a call may have another."""

    async def main() -> None:
        tier = Tier("a", RateLimiter(1, max_wait=0))
        multi = MultiRateLimiter([tier], max_wait=1)
        await asyncio.gather(multi.acquire(), multi.acquire())
        assert 1.0 == now()
        with pytest.raises(RateLimitedError):
            await multi.acquire(max_wait=0.5)
        await asyncio.gather(*(multi.acquire(max_wait=inf) for _ in range(3)))
        assert 4.0 == now()
        async with multi:
            assert 5.0 == now()

    run(main())


def test_five_of_twenty_four_racers_pass() -> None:
    """Exactly as many as the scarcest tier allows, and no other tier loses more."""

    async def main() -> None:
        tiers = [Tier(str(n), WindowedRateLimiter(n, 60)) for n in (10, 5, 20)]
        multi = MultiRateLimiter(tiers)
        ends = await asyncio.gather(
            *(multi.acquire(max_wait=0) for _ in range(24)), return_exceptions=True
        )
        assert 19 == sum(isinstance(end, RateLimitedError) for end in ends)
        assert {"10": 5, "5": 0, "20": 15} == multi.available

    run(main())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tier("", RateLimiter(1)), "needs a name"),
        (lambda: Tier("a", 5), "tier 'a' needs a limiter"),  # type: ignore[arg-type]
        (lambda: Tier("a", RateLimiter(1), 2), "tier 'a' can never .* costs 2: it has 1"),
        (lambda: Tier("a", RateLimiter(1), -1), "-1 is no cost of a call to tier 'a'"),
        (lambda: Tier("a", RateLimiter(1), nan), "nan is no cost"),
        (lambda: MultiRateLimiter([Tier("a", RateLimiter(1))] * 2), "two tiers are called 'a'"),
        (lambda: MultiRateLimiter([RateLimiter(1)]), "is no tier; pass Tier"),  # type: ignore[list-item]
        (lambda: MultiRateLimiter([], max_wait=nan), "max_wait"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    """A composite that cannot work is refused when it is made."""
    with pytest.raises(DefinitionError, match=message):
        make()


def test_shows_its_tiers() -> None:
    """Whoever prints one sees all of it."""
    multi = MultiRateLimiter([Tier("a", RateLimiter(2))], name="x")

    assert "<MultiRateLimiter 'x' a: <RateLimiter 2 per 1 s, 2 left>>" == repr(multi)
    assert {"a": Usage(2, 0, 2, 0)} == multi.snapshot()
    assert f"{multi!r}.costing({{'a': 2}}, only=['a'])" == repr(multi.costing({"a": 2}, only=["a"]))
