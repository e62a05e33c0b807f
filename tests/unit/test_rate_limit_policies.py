"""Rate limiters around tasks and functions: what they take, and what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CallDelayed,
    CallRefused,
    Context,
    CostError,
    DefinitionError,
    Event,
    MultiRateLimiter,
    Policy,
    RateLimitedError,
    RateLimiter,
    Resources,
    Retry,
    Split,
    Tier,
    Timeout,
    WindowedRateLimiter,
    Workflow,
)
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


@dataclass
class Job:
    tokens: float = 3.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def flow(*policies: Policy, observers: Any = (), **settings: Any) -> Workflow[Step, Job]:
    made = Workflow(Step, data=Job, observers=observers, **settings).exits(Step.DONE)
    return made.register(Step.WORK, work, *policies)


LIMITERS: list[Callable[..., Any]] = [
    lambda **settings: RateLimiter(2, **settings),
    lambda **settings: WindowedRateLimiter(2, 1, **settings),
    lambda **settings: MultiRateLimiter([Tier("a", RateLimiter(2))], **settings),
]
limiters = pytest.mark.parametrize("make", LIMITERS, ids=["bucket", "window", "multi"])


@limiters
def test_limits_all_who_share_it(make: Any) -> None:
    """Runs, states and workflows with one limiter have one limit."""

    async def main() -> None:
        limiter = make()
        flows = [flow(limiter), flow(Retry(), limiter), flow(limiter, Timeout(1))]
        await asyncio.gather(*(each.run(Step.WORK) for each in flows * 2))
        assert 1 <= now() <= 2
        assert not limiter.try_acquire()

    run(main())


@limiters
def test_says_that_a_call_was_delayed(make: Any) -> None:
    """A wait is announced once per call that waited, with its length; a pass is not."""

    async def main() -> None:
        heard: list[Event] = []
        limited = flow(make(name="search"), observers=[heard.append])
        await asyncio.gather(*(limited.run(Step.WORK) for _ in range(3)))
        delayed = [event for event in heard if isinstance(event, CallDelayed)]
        assert [now()] == [event.seconds for event in delayed]
        assert {"search", "search/a"} > {event.by for event in delayed}
        assert "WORK" == delayed[0].state

    run(main())


@limiters
def test_says_that_a_call_was_refused(make: Any) -> None:
    """A refusal is announced with what it asks for, and fails the run."""

    async def main() -> None:
        heard: list[Event] = []
        limited = flow(make(name="search", max_wait=0), observers=[heard.append])
        runs = (limited.run(Step.WORK) for _ in range(3))
        *_, error = await asyncio.gather(*runs, return_exceptions=True)
        assert isinstance(error, RateLimitedError)
        (refused,) = (event for event in heard if isinstance(event, CallRefused))
        assert error.retry_after == refused.retry_after > 0
        assert refused.by == ("search/a" if error.tier else "search")
        assert not any(isinstance(event, CallDelayed) for event in heard)

    run(main())


def test_a_retry_comes_back_when_it_makes_sense() -> None:
    """A refusal is tried again, after the wait it asks for at least."""

    async def main() -> None:
        limiter = RateLimiter(1, per=20, max_wait=5)
        assert limiter.try_acquire()
        await flow(Retry(2, delay=0.1), limiter).run(Step.WORK)
        assert 20.0 == now()

    run(main())


@pytest.mark.parametrize("outside", ["policy", "run"])
def test_a_wait_longer_than_the_time_left_is_refused_at_once(outside: str) -> None:
    """Who has 5 s does not stand in line for 20 of them."""

    async def main() -> None:
        limiter = RateLimiter(1, per=20)
        assert limiter.try_acquire()
        limited = flow(Timeout(5), limiter) if outside == "policy" else flow(limiter, timeout=5)
        with pytest.raises(RateLimitedError, match="longer than the 5 s it may wait") as caught:
            await limited.run(Step.WORK)
        assert 20.0 == caught.value.retry_after
        assert 0.0 == now()
        assert 0 == limiter.snapshot().waiting

    run(main())


def test_a_timeout_inside_does_not_count_the_wait() -> None:
    """`RateLimiter, Timeout`: the time of a call begins when it is made."""

    async def main() -> None:
        limiter = RateLimiter(1, per=20)
        assert limiter.try_acquire()
        await flow(limiter, Timeout(5)).run(Step.WORK)
        assert 20.0 == now()

    run(main())


def test_other_costs_from_the_same_limit() -> None:
    """`costing` takes a number, or asks a function of the context before each call."""

    async def main() -> None:
        limiter = RateLimiter(10)
        await flow(limiter.costing(4)).run(Step.WORK)
        assert 6.0 == limiter.available
        await flow(limiter.costing(lambda ctx: ctx.data.tokens)).run(Step.WORK)
        assert 3.0 == limiter.available
        await flow(limiter.costing(0)).run(Step.WORK)
        await flow(limiter.costing(lambda ctx: 0)).run(Step.WORK)
        assert 3.0 == limiter.available
        await flow(limiter.costing(lambda ctx: ctx.data.tokens + 1)).run(Step.WORK)
        assert pytest.approx(0.1) == now()
        assert "<RateLimiter 10 per 1 s, 0 left>.costing(4)" == repr(limiter.costing(4))

    run(main())


def test_other_costs_from_the_same_tiers() -> None:
    """The same for several tiers, by name; and calls may count for some tiers only."""

    async def main() -> None:
        multi = MultiRateLimiter(
            [Tier("requests", RateLimiter(9)), Tier("tokens", RateLimiter(10), cost=2)]
        )
        await flow(multi.costing({"tokens": 4})).run(Step.WORK)
        assert {"requests": 8, "tokens": 6} == multi.available
        await flow(multi.costing(lambda ctx: {"tokens": ctx.data.tokens})).run(Step.WORK)
        assert {"requests": 7, "tokens": 3} == multi.available
        await flow(multi.costing(only=["tokens"])).run(Step.WORK)
        assert {"requests": 7, "tokens": 1} == multi.available
        await flow(multi.costing({"requests": 0, "tokens": 0})).run(Step.WORK)
        await flow(multi.costing(lambda ctx: {"tokens": 2}, only=["tokens"])).run(Step.WORK)
        assert pytest.approx(0.1) == now()

    run(main())


@pytest.mark.parametrize("cost", [11, -1, float("nan"), "4", None])
def test_impossible_costs(cost: Any) -> None:
    """A fixed one is found when the policy is made, a computed one fails the call at once."""
    limiter = RateLimiter(10)
    with pytest.raises(DefinitionError):
        limiter.costing(cost)
    with pytest.raises(CostError):
        run(flow(Retry(), limiter.costing(lambda ctx: cost)).run(Step.WORK))
    multi = MultiRateLimiter([Tier("a", limiter)])
    with pytest.raises(CostError):
        run(flow(Retry(), multi.costing(lambda ctx: {"a": cost})).run(Step.WORK))

    assert 10.0 == pytest.approx(limiter.available)


def test_plain_one_of_a_small_limit() -> None:
    """A limiter that never has 1 cannot be a policy of calls that cost 1: found when compiled."""
    small = RateLimiter(0.5, burst=0.5)
    with pytest.raises(DefinitionError, match="costs 1: it has 0.5 at most"):
        flow(small).check(Step.WORK)
    run(flow(small.costing(0.5)).run(Step.WORK))


def test_cancelled_runs_take_nothing() -> None:
    """A run that is cancelled in line leaves the limit, and the line, to the others."""

    async def main() -> None:
        limiter = RateLimiter(1, per=10)
        limited = flow(limiter)
        assert limiter.try_acquire()
        runs = [asyncio.ensure_future(limited.run(Step.WORK)) for _ in range(3)]
        await asyncio.sleep(1)
        runs[0].cancel()
        runs[1].cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        assert 10.0 == now()
        assert 0 == limiter.snapshot().waiting

    run(main())


def test_each_branch_of_a_split_is_a_call() -> None:
    """Branches that lose while they wait take nothing."""

    async def branch(ctx: Context[Any]) -> int:
        return 1

    async def main() -> None:
        limiter = RateLimiter(2, per=10)
        split = Split([branch] * 6, then=Step.DONE, timeout=12, losers="cancel")
        limited = Workflow(Step).exits(Step.DONE).register(Step.WORK, split, limiter)
        with pytest.raises(ExceptionGroup) as caught:
            await limited.run(Step.WORK)
        assert {RateLimitedError} == {type(error) for error in caught.value.exceptions}
        assert 0 == limiter.snapshot().waiting
        await limiter.acquire()

    run(main())


@limiters
def test_decorates_any_async_function(make: Any) -> None:
    """Outside of workflows a limiter goes around a function, whatever its parameters."""

    async def main() -> None:
        limiter: RateLimiter = make()  # or another one of them

        @limiter
        async def double(number: int, *, times: int = 2) -> int:
            return number * times

        answers = await asyncio.gather(double(1), double(2, times=5), double(3))
        assert [2, 10, 6] == [*answers]
        assert 0 < now() <= 1

    run(main())


def test_costing_decorates_too() -> None:
    """So does a policy that takes another cost."""

    async def main() -> None:
        limiter = RateLimiter(10)
        multi = MultiRateLimiter([Tier("a", limiter)])

        @limiter.costing(4)
        async def one() -> int:
            return 1

        @multi.costing({"a": 5})
        async def two() -> int:
            return 2

        assert 3 == await one() + await two()
        assert 1.0 == limiter.available

    run(main())


def test_a_resource_that_tasks_use_by_hand() -> None:
    """Among the resources it is handed out as it is, and takes nothing by being there."""
    limiter = RateLimiter(3, per=3600)
    multi = MultiRateLimiter([Tier("a", limiter)])

    async def search(
        ctx: Context[Any], search: RateLimiter, ai: MultiRateLimiter
    ) -> Literal[Step.DONE]:
        async with search:
            assert ai.try_acquire()
        return Step.DONE

    resources = Resources(search=limiter, ai=multi)
    limited = Workflow(Step, resources=resources).exits(Step.DONE).register(Step.WORK, search)
    run(limited.run(Step.WORK))

    assert 1.0 == limiter.available
