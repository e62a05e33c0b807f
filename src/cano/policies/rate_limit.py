"""A bound on how many calls are made in a time."""

from __future__ import annotations

from asyncio import _get_running_loop as running
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Literal, TypeAlias

from msgspec.structs import replace

from cano.context import Context
from cano.errors import CostError, DefinitionError
from cano.policies._limiting import Reservation, acquire, checked, enter, reserve
from cano.policies._meters import (
    FixedWindow,
    Meter,
    SlidingWindow,
    TokenBucket,
    Usage,
    number,
    text,
)
from cano.policies._queue import LOCK, Charge, Clock, Lane, forecast, take_now
from cano.policies.policy import Call, Decorating, T

__all__ = [
    "Cost",
    "Costing",
    "Limiter",
    "Meter",
    "RateLimiter",
    "Reservation",
    "Usage",
    "WindowedRateLimiter",
]

Cost: TypeAlias = float | Callable[[Context[Any]], float]
"""What a call costs, or how to tell."""


class Limiter(Decorating):
    """A rate limiter that counts with *meter*; `RateLimiter` and `WindowedRateLimiter` are two.

    As a policy it takes 1 per call, or what `costing` says, and lets calls wait in line, first come,
    first served: who comes later never overtakes, so that an expensive call has its turn too.

    - *max_wait*: a call that would have to wait for more seconds than that, or than its timeouts
      leave it, fails at once with `RateLimitedError`; its `retry_after` says how long it would have
      been, which `Retry` heeds. A wait that is given up costs nothing.
    - *name*: what errors and events call it.
    - *clock*: a function that returns seconds; the time of the running event loop by default. Where
      it goes back, time stands still.

    The limit holds for all states, runs and workflows that share the object. `try_acquire`,
    `reserve` and what only looks may be called from any thread; waiting is for event loops, and in
    the order of one line.
    """

    __slots__ = ("_lane", "max_wait", "name")

    def __init__(
        self,
        meter: Meter,
        *,
        max_wait: float = inf,
        name: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.max_wait: float = number("max_wait", max_wait, zero=True, infinite=True)
        self.name: str = text("name", name)
        _check(meter, clock)
        self._lane = Lane(meter, clock)

    def __repr__(self) -> str:
        usage = self.snapshot()
        name = f" {self.name!r}" if self.name else ""
        waiting = f", {usage.waiting} waiting" if usage.waiting else ""
        return f"<{type(self).__name__}{name} {self._limit()}, {usage.available:.4g} left{waiting}>"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when there is 1 left."""
        return self._wrap(call, 1.0)

    def costing(self, cost: Cost, /) -> Costing:
        """A policy that shares this limiter, and takes *cost*, or what *cost(ctx)* returns."""
        if not callable(cost):
            self._checked(cost, DefinitionError)
        return Costing(self, cost)

    def try_acquire(self, cost: float = 1.0) -> bool:
        """Take *cost* if that much is left and nobody waits for it. Costing 0 is free.

        Raises `CostError` for a cost that could never be taken.
        """
        charges = self._charges(cost)
        with LOCK:
            return take_now(charges) is not None

    async def acquire(self, cost: float = 1.0, *, max_wait: float | None = None) -> Reservation:
        """Take *cost*, waiting in line for it. What is returned can give it back; it need not.

        Raises `RateLimitedError` where that would take more than *max_wait* seconds (by default the
        limiter's own), and `CostError` for a cost that could never be taken.
        """
        return await acquire(self.label, self._charges(cost), self._patience(max_wait))

    def reserve(self, cost: float = 1.0) -> Reservation:
        """Take *cost* now; in a `with` block, to be given back unless it is committed.

        Raises `RateLimitedError` if there is not that much left or somebody waits for it, and
        `CostError` for a cost that could never be taken.
        """
        return reserve(self.label, self._charges(cost))

    async def __aenter__(self) -> None:
        """Take 1, waiting in line for it."""
        await self.acquire()

    async def __aexit__(self, *error: object) -> None:
        """Nothing: what was taken stays taken."""

    @property
    def label(self) -> str:
        """What errors and events call it."""
        return self.name or type(self).__name__

    @property
    def capacity(self) -> float:
        """The most that one call can take."""
        return self._lane.meter.capacity

    @property
    def available(self) -> float:
        """How much is left. Those who wait come first."""
        return self.snapshot().available

    def time_until(self, cost: float = 1.0) -> float:
        """Seconds until *cost* could be taken, at least; 0 for now, infinity for never."""
        checked(self.label, cost, inf, CostError)
        if cost > self.capacity:
            return inf
        with LOCK:
            return forecast(self._charges(cost)).wait

    def snapshot(self) -> Usage:
        """How the limit is used, for people to look at. Looking changes nothing."""
        lane = self._lane
        with LOCK:
            usage = lane.meter.usage(lane.moment())
            waiting = sum(waiter.waits for waiter in lane.line)
        return replace(usage, waiting=waiting) if waiting else usage

    def _wrap(self, call: Call[T], cost: Cost, /) -> Call[T]:
        if callable(cost):
            return self._wrap_asking(call, cost)
        if not cost:
            return call
        self._checked(cost, DefinitionError)
        lane, price, charges = self._lane, float(cost), self._charges(cost)
        lock, unlock, line, take = LOCK.acquire, LOCK.release, lane.line, lane.meter.take

        async def limited(ctx: Context[Any]) -> T:
            lock()  # by hand, at half the price of `with`
            try:
                if running() is not lane.loop:
                    lane.enter(running())
                passed = not line and take(price, lane.now()) is not None
            finally:
                unlock()
            if not passed:
                await enter(ctx, charges, self.max_wait, self.label)
            return await call(ctx)

        return limited

    def _wrap_asking(self, call: Call[T], cost: Callable[[Context[Any]], float], /) -> Call[T]:
        async def limited(ctx: Context[Any]) -> T:
            charges = self._charges(cost(ctx))
            with LOCK:
                passed = take_now(charges) is not None
            if not passed:
                await enter(ctx, charges, self.max_wait, self.label)
            return await call(ctx)

        return limited

    def _charges(self, cost: float) -> Sequence[Charge]:
        self._checked(cost, CostError)
        return (Charge(self._lane, cost),) if cost else ()

    def _checked(self, cost: float, error: type[DefinitionError | CostError]) -> None:
        checked(self.label, cost, self.capacity, error)

    def _patience(self, max_wait: float | None) -> float:
        if max_wait is None:
            return self.max_wait
        return number("max_wait", max_wait, zero=True, infinite=True)

    def _limit(self) -> str:
        return f"{self.capacity:g} at once"


class RateLimiter(Limiter):
    """At most *limit* calls per *per* seconds on average, and at most *burst* at once.

    A token bucket: *limit* tokens drip in every *per* seconds, each call takes one, and *burst* (by
    default *limit*, but at least 1) are kept at most. It starts full. See `Limiter` for the rest.
    """

    __slots__ = ("_text",)

    def __init__(
        self,
        limit: float,
        per: float = 1.0,
        *,
        burst: float | None = None,
        max_wait: float = inf,
        name: str = "",
        clock: Clock | None = None,
    ) -> None:
        bucket = TokenBucket(limit, per, burst)
        super().__init__(bucket, max_wait=max_wait, name=name, clock=clock)
        at_once = "" if burst is None else f", {burst:g} at once"
        self._text = f"{limit:g} per {per:g} s{at_once}"

    def _limit(self) -> str:
        return self._text


class WindowedRateLimiter(Limiter):
    """At most *limit* calls in *window* seconds, counted one by one.

    `kind="sliding"`: in any *window* seconds, whichever one looks at. It remembers when each call
    was made, up to 1,000 moments; with more than that, a call counts for up to a thousandth of the
    window longer.

    `kind="fixed"`: in each of the windows that follow one another. The first begins with the first
    call; or one begins at *anchor*, on the limiter's clock. Looking never moves them. Around a
    boundary twice the limit may come together. `clock=time.time, anchor=0, window=86400` are the
    days of UTC.

    See `Limiter` for the rest.
    """

    __slots__ = ("_text",)

    def __init__(
        self,
        limit: float,
        window: float,
        *,
        kind: Literal["sliding", "fixed"] = "sliding",
        anchor: float | None = None,
        max_wait: float = inf,
        name: str = "",
        clock: Clock | None = None,
    ) -> None:
        if kind not in {"sliding", "fixed"}:
            raise DefinitionError(f'kind={kind!r} is no kind of window; pass "sliding" or "fixed"')
        if kind == "sliding" and anchor is not None:
            raise DefinitionError('a sliding window has no anchor; leave it out, or kind="fixed"')
        sliding = kind == "sliding"
        meter = SlidingWindow(limit, window) if sliding else FixedWindow(limit, window, anchor)
        super().__init__(meter, max_wait=max_wait, name=name, clock=clock)
        self._text = f"{limit:g} in {'any' if sliding else 'each'} {window:g} s"

    def _limit(self) -> str:
        return self._text


def _check(meter: Any, clock: Any) -> None:
    """Raise `DefinitionError` for what is no meter, or no clock."""
    if isinstance(meter, type) or not isinstance(meter, Meter):
        raise DefinitionError(f"{meter!r} is no meter: see cano.policies.rate_limit.Meter")
    number("capacity", meter.capacity)
    if clock is not None and not callable(clock):
        raise DefinitionError(f"clock={clock!r} is no function that returns seconds")


class Costing(Decorating):
    """A policy that takes *cost* from *limiter*; made by `Limiter.costing`."""

    __slots__ = ("_cost", "_limiter")

    def __init__(self, limiter: Limiter, cost: Cost) -> None:
        self._limiter = limiter
        self._cost = cost

    def __repr__(self) -> str:
        return f"{self._limiter!r}.costing({self._cost!r})"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when there is enough left."""
        return self._limiter._wrap(call, self._cost)
