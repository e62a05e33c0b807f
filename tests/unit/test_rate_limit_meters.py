"""Meters of one's own in a `Limiter`: also those that fail, or contradict themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

import pytest

from cano import DefinitionError, RateLimitedError
from cano.policies.rate_limit import Limiter, Meter, Usage
from cano.testing import run


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_anything_with_the_right_methods_is_a_meter() -> None:
    """No base class is needed."""
    assert isinstance(Stubborn(1), Meter)
    assert not isinstance(object(), Meter)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limiter(5), "5 is no meter"),  # type: ignore[arg-type]
        (lambda: Limiter(Stubborn), "is no meter"),  # type: ignore[arg-type]
        (lambda: Limiter(Empty(1)), "capacity=0.0"),
        (lambda: Limiter(Stubborn(1), clock=5), "clock=5"),  # type: ignore[arg-type]
        (lambda: Limiter(Stubborn(1), name=None), "name=None is no text"),  # type: ignore[arg-type]
        (lambda: Limiter(Stubborn(1), max_wait=-1), "max_wait=-1"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], Limiter], message: str) -> None:
    """What is no meter, no clock or no name is found when the limiter is made."""
    with pytest.raises(DefinitionError, match=message):
        make()


class Stubborn:
    """A meter of one's own: *rounds* calls, and then never again."""

    capacity = 1.0

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def take(self, cost: float, now: float, /) -> float | None:
        if not self.left:
            return None
        self.left -= 1
        return now

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        self.left += 1

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        return 0.0 if self.left else inf

    def usage(self, now: float, /) -> Usage:
        return Usage(1, 1 - self.left, self.left, self.wait(1, now, 0))


def test_never_sleeps_for_ever() -> None:
    """Where a meter says never, the call fails, however patient."""

    async def main() -> None:
        limiter = Limiter(Stubborn(2), name="quota")
        await limiter.acquire()
        with limiter.reserve() as reservation:
            with pytest.raises(RateLimitedError, match="quota: .* never will") as caught:
                await limiter.acquire()
            assert inf == caught.value.retry_after
            assert not reservation.committed
        await limiter.acquire()
        assert "<Limiter 'quota' 1 at once, 0 left>" == repr(limiter)

    run(main())


class Empty(Stubborn):
    """A meter that never had anything."""

    capacity = 0.0


class Unsure(Stubborn):
    """A meter that says there is enough, and then has nothing after all."""

    asked = 0

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        self.asked += 1
        return 0.0


def test_a_meter_that_is_not_sure_is_asked_again_later() -> None:
    """Where a meter contradicts itself, waiting does not spin."""

    async def main() -> None:
        meter = Unsure(0)
        waiting = asyncio.ensure_future(Limiter(meter).acquire())
        await asyncio.sleep(0.1)
        meter.left = 1
        await waiting
        assert 0.1 <= now() <= 0.102
        assert meter.asked <= 102

    run(main())


class Broken(Stubborn):
    """A meter that fails, after a while."""

    failing = False

    def take(self, cost: float, now: float, /) -> float | None:
        if self.failing:
            raise OSError("the meter is on fire")
        return super().take(cost, now)

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        return 0.0 if self.left else 1.0


def test_a_meter_that_fails_fails_its_call() -> None:
    """An exception of a meter of one's own reaches the call that waits, and not the loop."""

    async def main() -> None:
        meter = Broken(0)
        limiter = Limiter(meter)
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(2)]
        await settle()
        meter.failing = True
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert ["the meter is on fire"] * 2 == [str(end) for end in ends]
        with pytest.raises(OSError, match="on fire"):
            limiter.try_acquire()

    run(main())
