"""Reservations: taken at once, given back unless committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cano import (
    CostError,
    MultiRateLimiter,
    RateLimitedError,
    RateLimiter,
    Reservation,
    Tier,
    WindowedRateLimiter,
)
from cano.testing import run


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


MAKES: list[Callable[[Clock], Any]] = [
    lambda clock: RateLimiter(10, clock=clock),
    lambda clock: WindowedRateLimiter(10, 1, clock=clock),
    lambda clock: WindowedRateLimiter(10, 1, kind="fixed", clock=clock),
]
limiters = pytest.mark.parametrize("make", MAKES, ids=["bucket", "sliding", "fixed"])


@limiters
def test_comes_back_unless_committed(make: Any) -> None:
    """Leaving the block gives back what was taken, whatever happened in it."""
    limiter = make(Clock())
    with limiter.reserve(4):
        assert 6.0 == limiter.available
    assert 10.0 == limiter.available
    with pytest.raises(OSError, match="down"), limiter.reserve(4):
        raise OSError("down")
    assert 10.0 == limiter.available
    with limiter.reserve(4) as reservation:
        reservation.commit()
    assert 6.0 == limiter.available


@limiters
def test_comes_back_once(make: Any) -> None:
    """Giving back twice gives back once, and what is committed stays."""
    limiter = make(Clock())
    reservation = limiter.reserve(4)
    limiter.try_acquire(6)
    for _ in range(3):
        reservation.give_back()
    assert 4.0 == limiter.available
    kept = limiter.reserve(1)
    kept.commit()
    kept.give_back()
    assert 3.0 == limiter.available
    states = [repr(reservation), repr(kept), repr(limiter.reserve(1))]
    assert [
        f"<Reservation of {limiter.label}, {state}>"
        for state in ("given back", "committed", "open")
    ] == states


@limiters
def test_never_fills_beyond_the_limit(make: Any) -> None:
    """What comes back late does not come back twice: time has brought it back already."""
    clock = Clock()
    limiter = make(clock)
    reservation = limiter.reserve(10)
    clock.seconds = 1.0
    assert limiter.try_acquire(10)
    reservation.give_back()
    assert 0.0 == limiter.available


def test_a_bucket_takes_back_what_would_still_be_in_it() -> None:
    """As much as dripped in since might have run over, and is not put back again."""
    clock = Clock()
    limiter = RateLimiter(10, clock=clock)
    reservation = limiter.reserve(4)
    limiter.try_acquire(6)
    clock.seconds = 0.25
    reservation.give_back()
    assert 2.5 + 1.5 == limiter.available


@limiters
def test_refuses_what_is_not_there(make: Any) -> None:
    """A reservation never waits."""
    limiter = make(Clock())
    limiter.reserve(7)
    with pytest.raises(RateLimitedError) as caught:
        limiter.reserve(4)
    assert 0 < caught.value.retry_after <= 1
    limiter.reserve(3)


def test_what_comes_back_goes_to_who_waits() -> None:
    """The first in line has its turn as soon as there is enough, not when its time was due."""

    async def main() -> None:
        limiter = WindowedRateLimiter(2, 3600)
        reservations = [limiter.reserve(), limiter.reserve()]
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(2)]
        await asyncio.sleep(1)
        for reservation, call in zip(reservations, calls, strict=True):
            reservation.give_back()
            await call
        assert 1.0 == asyncio.get_running_loop().time()
        assert 3600.0 == limiter.time_until()

    run(main())


def test_of_several_tiers() -> None:
    """All tiers are taken, and all come back."""
    clock = Clock()
    multi = MultiRateLimiter(
        [Tier("requests", RateLimiter(5, clock=clock)), Tier("tokens", MAKES[1](clock), cost=8)]
    )
    with multi.reserve() as reservation:
        assert isinstance(reservation, Reservation)
        assert {"requests": 4, "tokens": 2} == multi.available
        with pytest.raises(RateLimitedError) as caught:
            multi.reserve()
        assert "tokens" == caught.value.tier
    assert {"requests": 5, "tokens": 10} == multi.available


def test_passes_for_a_context_manager_without_effect_on_errors() -> None:
    """The exception of the block goes on, and costs of 0 can be reserved too."""
    with pytest.raises(KeyError), RateLimiter(1).reserve(0):
        raise KeyError


@limiters
def test_keeps_what_was_used(make: Any) -> None:
    """Who takes an estimate gives back what was too much, once it is known."""

    async def main() -> None:
        limiter = make(Clock())
        with await limiter.acquire(8) as reservation:
            reservation.commit(5)
        assert 5.0 == limiter.available
        reservation.commit(1)
        reservation.give_back()
        assert 5.0 == limiter.available  # committed is committed

    run(main())


def test_keeps_what_was_used_of_each_tier() -> None:
    """By the name of the tier; what is not named is kept as it was taken."""
    clock = Clock()
    multi = MultiRateLimiter(
        [Tier("requests", RateLimiter(5, clock=clock)), Tier("tokens", MAKES[1](clock), cost=8)]
    )
    multi.reserve().commit({"tokens": 3})
    assert {"requests": 4, "tokens": 7} == multi.available
    multi.reserve({"tokens": 7}).commit({"tokens": 0, "requests": 0})
    assert {"requests": 4, "tokens": 7} == multi.available


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (9, "9 cannot be kept of <Reservation of MultiRateLimiter, open>: 8 were taken"),
        ({"tokens": 8.5}, "acquire the rest"),
        ({"tokens": -1}, "MultiRateLimiter/tokens"),
        ({"tokns": 1}, "nothing was taken of 'tokns' .* there is 'tokens'"),
        (float("nan"), "nan is no cost"),
        ("5", "'5' is no cost"),
    ],
)
def test_cannot_keep_more_than_was_taken(used: Any, message: str) -> None:
    """A mistake is told, and changes nothing."""
    multi = MultiRateLimiter([Tier("tokens", MAKES[1](Clock()), cost=8)])
    with multi.reserve() as reservation, pytest.raises(CostError, match=message):
        reservation.commit(used)

    assert not reservation.committed
    assert {"tokens": 10} == multi.available


def test_what_was_acquired_stays_taken() -> None:
    """Without a `with` block, an acquired reservation is simply dropped."""
    limiter = RateLimiter(3, clock=Clock())
    run(limiter.acquire(2))

    assert 1.0 == limiter.available
