"""What rate limiters of all kinds say and do alike."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from types import TracebackType
from typing import Any

from cano.context import Context
from cano.errors import CostError, DefinitionError, RateLimitedError
from cano.events import CallDelayed, CallRefused
from cano.policies._meters import MOST
from cano.policies._queue import (
    LOCK,
    Charge,
    Refusal,
    Taken,
    forecast,
    give_back,
    refusal_of,
    stand_in_line,
    take_now,
)


class Reservation:
    """What was taken. It stays taken, but `give_back` and `with` can undo that.

    Leaving a `with` block gives it back, unless it was committed.
    """

    __slots__ = ("_label", "_taken", "committed")

    def __init__(self, label: str, taken: Sequence[Taken]) -> None:
        self._label = label
        self._taken = taken
        self.committed: bool = False

    def __repr__(self) -> str:
        state = "committed" if self.committed else "open" if self._taken else "given back"
        return f"<Reservation of {self._label}, {state}>"

    def commit(self, used: float | Mapping[str, float] | None = None) -> None:
        """Keep it, for good; or only as much as was *used*, in all or by the name of the tier.

        Raises `CostError` where that is more than was taken.
        """
        if used is not None:
            self._keep(used)
        self.committed = True

    def give_back(self) -> None:
        """Give it back, unless it is committed or was given back before.

        A window that is over takes nothing back, and a bucket only what would still be in it.
        """
        with LOCK:
            taken, self._taken = self._taken, ()
            if not self.committed:
                give_back(taken)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def _keep(self, used: float | Mapping[str, float]) -> None:
        by_tier = used if isinstance(used, Mapping) else dict.fromkeys(self._tiers, used)
        if unknown := [name for name in by_tier if name not in self._tiers]:
            raise CostError(
                f"nothing was taken of {', '.join(map(repr, unknown))} in {self!r}; "
                f"there is {', '.join(map(repr, self._tiers)) or 'nothing'}"
            )
        rest: list[Taken] = []
        for part in self._taken:
            kept = by_tier.get(part.tier, part.cost)
            checked(place(self._label, part.tier), kept, inf, CostError)
            if kept > part.cost:
                raise CostError(
                    f"{kept:g} cannot be kept of {self!r}: {part.cost:g} were taken; acquire the "
                    "rest, or reserve more"
                )
            rest.append(part._replace(cost=part.cost - kept))
        with LOCK:
            if self._taken and not self.committed:
                give_back([part for part in rest if part.cost])

    @property
    def _tiers(self) -> Sequence[str]:
        return [part.tier for part in self._taken]


def checked(
    label: str, cost: Any, capacity: float, kind: type[DefinitionError | CostError]
) -> None:
    """Raise *kind* for a *cost* that is none, or can never be paid."""
    if not isinstance(cost, int | float) or not 0 <= cost <= MOST:
        raise kind(f"{cost!r} is no cost of a call to {label}; pass a number, 0 or more")
    if cost > capacity:
        raise kind(
            f"{label} can never let a call through that costs {cost:g}: it has {capacity:g} at "
            "most; split the call up, or raise the limit"
        )


def refused(label: str, refusal: Refusal, max_wait: float = 0.0) -> RateLimitedError:
    """The error of a call that was not let through."""
    wait, tier = refusal
    when = f"try again in {_short(wait)} s" if wait < inf else "it never will be let through"
    why = (
        f", which is longer than the {_short(max_wait)} s it may wait" if 0 < max_wait < inf else ""
    )
    error = RateLimitedError(f"{place(label, tier)}: too many calls; {when}{why}", wait)
    error.tier = tier
    return error


def reserve(label: str, charges: Sequence[Charge]) -> Reservation:
    """Take all of *charges* now, or raise `RateLimitedError`."""
    with LOCK:
        taken = take_now(charges)
        if taken is None:
            raise refused(label, refusal_of(charges))
    return Reservation(label, taken)


async def acquire(label: str, charges: Sequence[Charge], max_wait: float) -> Reservation:
    """Take all of *charges*, waiting in line for it, or raise `RateLimitedError`."""
    taken = await stand_in_line(charges, max_wait)
    if isinstance(taken, Refusal):
        raise refused(label, taken, max_wait)
    return Reservation(label, taken)


async def enter(ctx: Context[Any], charges: Sequence[Charge], max_wait: float, label: str) -> None:
    """The way of a call that was not let through at once: wait in line, or be refused."""
    loop, tier = asyncio.get_running_loop(), ""
    if ctx.listens(CallDelayed):
        with LOCK:
            tier = forecast(charges).tier
    start, patience = loop.time(), min(max_wait, ctx.remaining)
    refusal = await stand_in_line(charges, max_wait, ctx.remaining)
    if not isinstance(refusal, Refusal):
        if ctx.listens(CallDelayed) and (seconds := loop.time() - start) > 0:
            ctx.emit(CallDelayed(by=place(label, tier), seconds=seconds))
        return
    if ctx.listens(CallRefused):
        ctx.emit(CallRefused(by=place(label, refusal.tier), retry_after=refusal.wait))
    raise refused(label, refusal, patience)


def place(label: str, tier: str) -> str:
    """What errors and events call one limit among several."""
    return f"{label}/{tier}" if tier else label


def _short(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 1000 else f"{seconds:,.0f}"
