"""Several limits at once, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from cano.context import Context
from cano.errors import CostError, DefinitionError
from cano.policies._limiting import Reservation, acquire, checked, enter, place, reserve
from cano.policies._meters import Usage, number, text
from cano.policies._queue import LOCK, Charge, Lane, forecast, take, take_now
from cano.policies.policy import Call, Decorating, T
from cano.policies.rate_limit import Limiter

Costs: TypeAlias = Mapping[str, float]
"""What a call costs, by the name of the tier."""

AnyCosts: TypeAlias = Costs | Callable[[Context[Any]], Costs]
Wrong: TypeAlias = type[DefinitionError | CostError]


@dataclass(frozen=True, slots=True)
class Tier:
    """One of several limits: what a call takes from *limiter*, unless it says otherwise.

    A *cost* of 0 leaves the tier out, but for calls that name a cost.
    """

    name: str
    limiter: Limiter
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not text("name", self.name):
            raise DefinitionError(f"a tier needs a name, and {self.name!r} is none")
        if not isinstance(self.limiter, Limiter):
            raise DefinitionError(
                f"tier {self.name!r} needs a limiter, such as RateLimiter(100, per=60), and "
                f"{self.limiter!r} is none"
            )
        checked(f"tier {self.name!r}", self.cost, self.limiter.capacity, DefinitionError)


class MultiRateLimiter(Decorating):
    """Lets a call through when every tier does, and takes from all of them or from none.

    A call waits in the lines of all its tiers at once, and is let through when it is first in each
    and each has enough. The limiters may be shared, with other composites too. *max_wait* and *name*
    are as in `Limiter`; the *max_wait* of the tiers' own limiters does not count here. A refusal
    names the tier with the longest wait, in `tier`, and that wait, in `retry_after`.

    *costs* set what a call takes from the tiers they name, the others take their own; *only* names
    the tiers that count for a call. Without tiers, everything is let through.
    """

    __slots__ = ("_default", "max_wait", "name", "tiers")

    def __init__(self, tiers: Iterable[Tier], *, max_wait: float = inf, name: str = "") -> None:
        self.tiers: Mapping[str, Tier] = _by_name(tiers)
        self.max_wait: float = number("max_wait", max_wait, zero=True, infinite=True)
        self.name: str = text("name", name)
        self._default: Sequence[Charge] = ()
        self._default = self._charges(wrong=DefinitionError)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        tiers = ", ".join(f"{tier.name}: {tier.limiter!r}" for tier in self.tiers.values())
        return f"<MultiRateLimiter{name} {tiers or 'without tiers'}>"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when every tier does."""
        return self._wrap(call, self._default)

    def costing(
        self, costs: AnyCosts | None = None, /, *, only: Collection[str] | None = None
    ) -> MultiCosting:
        """A policy that shares this limiter, and takes *costs*, or what *costs(ctx)* returns."""
        fixed = None if callable(costs) else costs
        self._charges(fixed, only, wrong=DefinitionError)
        return MultiCosting(self, costs, only)

    def try_acquire(
        self, costs: Costs | None = None, /, *, only: Collection[str] | None = None
    ) -> bool:
        """Take from every tier, if all have enough and nobody waits for them.

        Raises `CostError` for tiers there are not, and costs that could never be taken.
        """
        charges = self._charges(costs, only)
        with LOCK:
            return take_now(charges) is not None

    async def acquire(
        self,
        costs: Costs | None = None,
        /,
        *,
        only: Collection[str] | None = None,
        max_wait: float | None = None,
    ) -> Reservation:
        """Take from every tier, waiting in line. What is returned can give it back; it need not.

        Raises `RateLimitedError` where that would take more than *max_wait* seconds (by default the
        limiter's own), and `CostError` as `try_acquire` does.
        """
        charges, patience = self._charges(costs, only), self.max_wait
        if max_wait is not None:
            patience = number("max_wait", max_wait, zero=True, infinite=True)
        return await acquire(self.label, charges, patience)

    def reserve(
        self, costs: Costs | None = None, /, *, only: Collection[str] | None = None
    ) -> Reservation:
        """Take from every tier now; in a `with` block, to be given back unless it is committed.

        Raises `RateLimitedError` if a tier has not enough or somebody waits for it, and `CostError`
        as `try_acquire` does.
        """
        return reserve(self.label, self._charges(costs, only))

    async def __aenter__(self) -> None:
        """Take from every tier, waiting in line for it."""
        await self.acquire()

    async def __aexit__(self, *error: object) -> None:
        """Nothing: what was taken stays taken."""

    @property
    def label(self) -> str:
        """What errors and events call it."""
        return self.name or "MultiRateLimiter"

    @property
    def available(self) -> Mapping[str, float]:
        """How much each tier has left. Those who wait come first."""
        return {name: usage.available for name, usage in self.snapshot().items()}

    def time_until(
        self, costs: Costs | None = None, /, *, only: Collection[str] | None = None
    ) -> float:
        """Seconds until a call could be let through, at least; 0 for now.

        Raises `CostError` as `try_acquire` does.
        """
        charges = self._charges(costs, only)
        with LOCK:
            return forecast(charges).wait

    def snapshot(self) -> Mapping[str, Usage]:
        """How each tier is used, for people to look at. Looking changes nothing."""
        return {name: tier.limiter.snapshot() for name, tier in self.tiers.items()}

    def _wrap(self, call: Call[T], charges: Sequence[Charge]) -> Call[T]:
        if not charges:
            return call
        lock, unlock = LOCK.acquire, LOCK.release
        lines = [charge.lane.line for charge in charges]

        async def limited(ctx: Context[Any]) -> T:
            lock()  # by hand, at half the price of `with`
            try:
                passed = not any(lines) and take(charges) is not None
            finally:
                unlock()
            if not passed:
                await enter(ctx, charges, self.max_wait, self.label)
            return await call(ctx)

        return limited

    def _wrap_asking(
        self,
        call: Call[T],
        costs: Callable[[Context[Any]], Costs],
        only: Collection[str] | None,
    ) -> Call[T]:
        async def limited(ctx: Context[Any]) -> T:
            charges = self._charges(costs(ctx), only)
            with LOCK:
                passed = take_now(charges) is not None
            if not passed:
                await enter(ctx, charges, self.max_wait, self.label)
            return await call(ctx)

        return limited

    def _charges(
        self,
        costs: Costs | None = None,
        only: Collection[str] | None = None,
        wrong: Wrong = CostError,
    ) -> Sequence[Charge]:
        """What a call takes from where: once per limiter, also where tiers share one."""
        if costs is None and only is None and self._default:
            return self._default
        self._know([*(costs or ()), *self._named(only, wrong)], wrong)
        found: dict[Lane, Charge] = {}
        for name, tier in self.tiers.items():
            cost = tier.cost if costs is None else costs.get(name, tier.cost)
            where, capacity = place(self.label, name), tier.limiter.capacity
            checked(where, cost, capacity, wrong)
            if not cost or (only is not None and name not in only):
                continue
            lane = tier.limiter._lane
            before = found.get(lane, Charge(lane, 0.0, name))
            checked(where, before.cost + cost, capacity, wrong)
            found[lane] = before._replace(cost=before.cost + cost)
        return tuple(found.values())

    def _named(self, only: Collection[str] | None, wrong: Wrong) -> Collection[str]:
        if only is None:
            return ()
        if isinstance(only, str) or not only:
            raise wrong(f"only={only!r} of {self.label} is no list of tiers; name at least one")
        return only

    def _know(self, names: Iterable[str], wrong: Wrong) -> None:
        if unknown := [name for name in names if name not in self.tiers]:
            raise wrong(
                f"{self.label} has no tier {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(self.tiers) or 'none'}"
            )


class MultiCosting(Decorating):
    """A policy that takes other costs from a limiter; made by `MultiRateLimiter.costing`."""

    __slots__ = ("_costs", "_limiter", "_only")

    def __init__(
        self, limiter: MultiRateLimiter, costs: AnyCosts | None, only: Collection[str] | None
    ) -> None:
        self._limiter = limiter
        self._costs = costs
        self._only = only

    def __repr__(self) -> str:
        only = "" if self._only is None else f", only={self._only!r}"
        return f"{self._limiter!r}.costing({self._costs!r}{only})"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when every tier does."""
        limiter, costs, only = self._limiter, self._costs, self._only
        if callable(costs):
            return limiter._wrap_asking(call, costs, only)
        return limiter._wrap(call, limiter._charges(costs, only, DefinitionError))


def _by_name(tiers: Iterable[Tier]) -> dict[str, Tier]:
    named: dict[str, Tier] = {}
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise DefinitionError(f"{tier!r} is no tier; pass Tier(name, limiter)")
        if tier.name in named:
            raise DefinitionError(f"two tiers are called {tier.name!r}; give each its own name")
        named[tier.name] = tier
    return named
