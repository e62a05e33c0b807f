"""What policies cost that let a call through, and what it costs that many share them.

R is the hand-written loop over a plain `Enum`, as in `transitions`. A pass costs what the loop of
two states costs with the policy around both, less what our engine costs without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.harness import Batch, Line, timed
from bench.transitions import flow, loop_by_hand
from cano import (
    Bulkhead,
    CircuitBreaker,
    MultiRateLimiter,
    Policy,
    RateLimiter,
    Tier,
    WindowedRateLimiter,
)

PLENTY = 1e9
"""More than is ever used here."""

CALLS = 20_000


def three_tiers() -> MultiRateLimiter:
    """What the provider of a language model asks for."""
    return MultiRateLimiter(
        [
            Tier("requests per minute", RateLimiter(PLENTY, 60)),
            Tier("tokens per minute", RateLimiter(PLENTY, 60), cost=700),
            Tier("tokens per day", WindowedRateLimiter(PLENTY, 86_400, kind="fixed"), cost=700),
        ]
    )


POLICIES: dict[str, Callable[[], Policy]] = {
    "CircuitBreaker": CircuitBreaker,
    "RateLimiter": lambda: RateLimiter(PLENTY),
    "WindowedRateLimiter, sliding": lambda: WindowedRateLimiter(PLENTY, 60),
    "WindowedRateLimiter, fixed": lambda: WindowedRateLimiter(PLENTY, 60, kind="fixed"),
    "Bulkhead": lambda: Bulkhead(1_000),
    "MultiRateLimiter, three tiers": three_tiers,
}


def extra(policy: Policy, bare: Batch) -> Batch:
    """What *policy* adds to a transition; both are measured within the same moment."""
    guarded = flow(policy)
    return lambda: guarded() - bare()


def shared(policy: Policy, tasks: int) -> Batch:
    """*CALLS* calls by *tasks* asyncio tasks that share *policy*; each suspends in every call."""

    async def turn(ctx: Any) -> None:
        await asyncio.sleep(0)

    call: Callable[[Any], Awaitable[None]] = policy.wrap(turn)

    async def several() -> None:
        for _ in range(CALLS // tasks):
            await call(None)

    async def work() -> None:
        await asyncio.gather(*(several() for _ in range(tasks)))

    return timed(work, CALLS // tasks * tasks)


def lines() -> list[Line]:
    """A pass in units of R; then the same call among 256 tasks against among 16."""
    hand, bare = loop_by_hand(), flow()
    passes = [
        Line(f"a pass: {name}", extra(make(), bare), hand, must=5, aim=2)
        for name, make in POLICIES.items()
        if "three" not in name
    ]
    return [
        *passes,
        Line("a pass: MultiRateLimiter, three tiers", extra(three_tiers(), bare), hand),
        *(
            Line(f"256 tasks over 16: {name}", shared(policy, 256), shared(policy, 16), must=1.5)
            for name, policy in ((name, make()) for name, make in POLICIES.items())
        ),
    ]
