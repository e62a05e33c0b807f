"""`cano.testing.check_policy`: finds what breaks the contract, and our own policies keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from cano import (
    Bulkhead,
    CircuitBreaker,
    Context,
    Fallback,
    Hedge,
    MultiRateLimiter,
    Policy,
    RateLimiter,
    Retry,
    Tier,
    Timeout,
    WindowedRateLimiter,
)
from cano.policies.guarded import Nobody
from cano.testing import BrokenContractError, run
from cano.testing.policies import _RULES, check_policy  # pyright: ignore[reportPrivateUsage]

T = TypeVar("T")
Call = Callable[[Context], Awaitable[T]]

_HOST: Any = Nobody()
OURS: dict[str, Callable[[], Policy]] = {
    "Retry": lambda: Retry(),
    "Retry.fixed": lambda: Retry.fixed(2, 1, on=(Exception,)),
    "Timeout": lambda: Timeout(30),
    "Bulkhead": lambda: Bulkhead(1),
    "Bulkhead, wide": lambda: Bulkhead(100, max_wait=0),
    "CircuitBreaker": lambda: CircuitBreaker(1000),
    "RateLimiter": lambda: RateLimiter(10),
    "WindowedRateLimiter": lambda: WindowedRateLimiter(10, 1),
    "WindowedRateLimiter, fixed": lambda: WindowedRateLimiter(10, 1, kind="fixed"),
    "MultiRateLimiter": lambda: MultiRateLimiter([Tier("calls", RateLimiter(10))]),
    "Hedge": lambda: Hedge(1),
    "Hedge, all at once": lambda: Hedge(0.0),
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_keep_the_contract(name: str) -> None:
    """Each policy of ours passes the test that those of others must pass."""
    run(check_policy(OURS[name]))


def test_a_fallback_says_that_it_replaces_errors() -> None:
    """What is done on purpose is declared; the rest of the contract holds."""
    run(check_policy(lambda: Fallback("instead"), replaces_errors=True))
    with pytest.raises(BrokenContractError, match="passes_errors_through"):
        run(check_policy(lambda: Fallback("instead")))


class Plain:
    """A policy that does nothing, to be broken in one way at a time."""

    def wrap(self, call: Call[Any], /) -> Any:
        async def plain(ctx: Context) -> Any:
            return await self.make(call, ctx)

        return plain

    async def make(self, call: Call[Any], ctx: Context) -> Any:
        return await call(ctx)


def test_a_policy_that_does_nothing_keeps_it() -> None:
    """The least a policy can do is enough."""
    run(check_policy(Plain))


class CallsWhenWrapping(Plain):
    def wrap(self, call: Call[Any], /) -> Any:
        early: Any = call(Context(_HOST, [], None))
        early.close()
        return super().wrap(call)


class WrapsNothing(Plain):
    def wrap(self, call: Call[Any], /) -> Any:
        return 3


class CopiesTheResult(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        return str(await call(ctx))


class CallsTwice(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        await call(ctx)
        return await call(ctx)


class GivesAContextOfItsOwn(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        return await call(Context(ctx.host, [ctx.state], ctx.data))


class BringsBackTheData(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        saved = ctx.snapshot()
        try:
            return await call(ctx)
        finally:
            ctx.restore(saved)


class WrapsErrors(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        try:
            return await call(ctx)
        except Exception as error:
            raise RuntimeError("failed") from error


class SwallowsStops(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        try:
            return await call(ctx)
        except ConnectionError:
            raise
        except Exception:
            return None


class SwallowsEverything(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        try:
            return await call(ctx)
        except Exception:
            raise
        except BaseException:
            return None


class TurnsCancellationsIntoErrors(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        try:
            return await call(ctx)
        except asyncio.CancelledError:
            raise TimeoutError from None


class TriesAgainAfterCancellations(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        try:
            return await call(ctx)
        except asyncio.CancelledError:
            return await call(ctx)


class LeavesTheCallRunning(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        return await asyncio.shield(asyncio.ensure_future(call(ctx)))


class LeavesATaskRunning(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        self.timer = asyncio.create_task(asyncio.sleep(3600))
        return await call(ctx)


class LeavesItsDeadlineOpen(Plain):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        ctx.alarm.push(3600)
        return await call(ctx)


class KeepsPlaces(Plain):
    """A bulkhead that gives a place back after a success only."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(3)

    async def make(self, call: Call[Any], ctx: Context) -> Any:
        await self.places.acquire()
        result = await call(ctx)
        self.places.release()
        return result


class KeepsPlacesOfTheCancelled(KeepsPlaces):
    async def make(self, call: Call[Any], ctx: Context) -> Any:
        await self.places.acquire()
        try:
            result = await call(ctx)
        except Exception:
            self.places.release()
            raise
        self.places.release()
        return result


class MixesCalls(Plain):
    """Keeps the context of a call in itself."""

    async def make(self, call: Call[Any], ctx: Context) -> Any:
        self.ctx = ctx
        await asyncio.sleep(0)
        return await call(self.ctx)


class MixesPlaces(Plain):
    """Keeps the call in itself."""

    def wrap(self, call: Call[Any], /) -> Any:
        self.call = call
        return super().wrap(call)

    async def make(self, call: Call[Any], ctx: Context) -> Any:
        return await self.call(ctx)


class SharesAttempts(Plain):
    """Counts the attempts of all calls together."""

    attempt = 1

    async def make(self, call: Call[Any], ctx: Context) -> Any:
        ctx.attempt = self.attempt
        try:
            return await call(ctx)
        except Exception:
            self.attempt += 1
            raise


BROKEN: list[tuple[Callable[[], Any], set[str]]] = [
    (CallsWhenWrapping, {"makes_no_call_of_its_own"}),
    (WrapsNothing, {"makes_no_call_of_its_own", "passes_the_result_through"}),
    (CopiesTheResult, {"passes_the_result_through"}),
    (CallsTwice, {"passes_the_result_through"}),
    (GivesAContextOfItsOwn, {"gives_the_call_its_context"}),
    (BringsBackTheData, {"gives_the_call_its_context"}),
    (WrapsErrors, {"passes_errors_through", "lets_errors_out_that_stop_the_run"}),
    (SwallowsStops, {"lets_errors_out_that_stop_the_run"}),
    (SwallowsEverything, {"lets_base_exceptions_out", "lets_cancellations_out"}),
    (TurnsCancellationsIntoErrors, {"lets_cancellations_out"}),
    (TriesAgainAfterCancellations, {"lets_cancellations_out"}),
    (LeavesTheCallRunning, {"lets_cancellations_out", "leaves_nothing_running"}),
    (LeavesATaskRunning, {"leaves_nothing_running"}),
    (LeavesItsDeadlineOpen, {"closes_its_deadlines"}),
    (KeepsPlaces, {"admits_calls_after_failed_ones", "admits_calls_after_cancelled_ones"}),
    (KeepsPlacesOfTheCancelled, {"admits_calls_after_cancelled_ones"}),
    (MixesCalls, {"serves_many_calls_at_a_time"}),
    (MixesPlaces, {"serves_many_places"}),
    (SharesAttempts, {"leaves_attempts_of_others_alone"}),
    (lambda: Bulkhead(1, max_wait=0), {"serves_many_calls_at_a_time"}),
    (lambda: CircuitBreaker(5), {"admits_calls_after_failed_ones"}),
]


@pytest.mark.parametrize(
    ("make", "rules"), BROKEN, ids=[getattr(make, "__name__", "?") for make, _ in BROKEN]
)
def test_finds_what_is_broken(make: Callable[[], Any], rules: set[str]) -> None:
    """A policy that breaks a rule is caught by it."""
    with pytest.raises(BrokenContractError) as caught:
        run(check_policy(make, patience=5))
    assert rules <= set(caught.value.rules)


def test_every_rule_is_broken_by_somebody() -> None:
    """A rule that nothing breaks would prove nothing."""
    broken = {rule for _, rules in BROKEN for rule in rules}
    assert {rule.name for rule in _RULES} == broken


def test_lists_all_broken_rules_with_their_sentences() -> None:
    """The error reads as a list: rule, what it says, and what was found instead."""
    with pytest.raises(BrokenContractError) as caught:
        run(check_policy(WrapsErrors))
    assert (
        "2 broken rules of Policy:\n"
        "- passes_errors_through: The error of the call comes out as it is, not another one in its "
        "place. But RuntimeError('failed') came out for ConnectionError('no answer'), the very "
        "same: expected True, got False\n"
        "- lets_errors_out_that_stop_the_run: After an error for which `ctx.host.stops` says so, "
        "that error comes out at once. But RuntimeError('failed') came out for _Stop('lost the "
        "run'), the very same: expected True, got False\n"
    ) == caught.value.message


def test_some_rules_alone() -> None:
    """With *only*, no other rule is tried."""
    run(check_policy(CopiesTheResult, only=["lets_cancellations_out"]))


@pytest.mark.parametrize("make", [lambda: Retry, lambda: 3, lambda: None])
def test_says_what_is_no_policy(make: Any) -> None:
    """What has no wrap(), or is a class, is said to be no policy."""
    with pytest.raises(TypeError, match="is no policy: make\\(\\) is to give an object with wrap"):
        run(check_policy(make))


def test_gives_up_on_a_policy_that_hangs() -> None:
    """A rule that never comes to an end is broken after *patience* seconds."""

    class Hangs(Plain):
        async def make(self, call: Call[Any], ctx: Context) -> Any:
            await asyncio.sleep(1e6)

    with pytest.raises(BrokenContractError, match="No answer within 5 seconds"):
        run(check_policy(Hangs, patience=5))
