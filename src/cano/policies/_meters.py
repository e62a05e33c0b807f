"""How much of a limit is left: counting, with the time as an argument.

Rule 1: nothing here waits, asks for the time, or knows who is calling.
Rule 2: *now*, in seconds, never goes back; who has a clock that does, holds it still meanwhile.
Rule 3: `wait` is 0 exactly where `take` succeeds.
Rule 4: a refund never lets through more than if the call had not been made.
"""

from __future__ import annotations

import sys
from collections import deque
from math import ceil, inf
from typing import Any, Protocol, runtime_checkable

import msgspec

from cano.errors import DefinitionError

EPSILON = 1e-9
"""Seconds that are none: the resolution of clocks and timers, and of sums of floats."""


class Usage(msgspec.Struct, frozen=True):
    """How a limit is used at one moment, for people to look at."""

    limit: float
    """The most that can be taken at once."""
    used: float
    available: float
    available_in: float
    """Seconds until one more (or all there ever is, if that is less) can be taken."""
    resets_in: float | None = None
    """Seconds until everything is there again at once; None where there is no such moment."""
    waiting: int = 0
    """How many calls wait in line."""


MOST = sys.float_info.max
"""The largest number there is to count with; Python's integers go further."""


@runtime_checkable
class Meter(Protocol):
    """What a limiter asks how much is left: write your own, and pass it to `Limiter`.

    Its methods are called under a lock, so they must not block, and *now* never goes back. A *cost*
    is more than 0 and at most `capacity`.
    """

    @property
    def capacity(self) -> float:
        """The most that one call can take."""
        ...

    def take(self, cost: float, now: float, /) -> float | None:
        """Take *cost*, or nothing and return None. The number returned is for `give_back`."""
        ...

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        """Undo *cost* of a `take`, which returned *taken*, as far as that still means anything."""
        ...

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        """Seconds until `take` may succeed, at least, once *ahead* was taken by others.

        0 where it succeeds at once, infinity where it never will.
        """
        ...

    def usage(self, now: float, /) -> Usage:
        """How much is used and left."""
        ...


def number(what: str, value: Any, *, zero: bool = False, infinite: bool = False) -> float:
    """*value*, if it is a usable number; *what* names the setting. Raises `DefinitionError`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits = value <= MOST or (infinite and value == inf)
        if fits and (value > 0 or (zero and value == 0)):
            return float(value)
    least = "0 or more" if zero else "more than 0"
    raise DefinitionError(f"{what}={value!r} is no usable number; pass one that is {least}")


def text(what: str, value: Any) -> str:
    """*value*, if it is a text; *what* names the setting. Raises `DefinitionError`."""
    if isinstance(value, str):
        return value
    raise DefinitionError(f"{what}={value!r} is no text")


class TokenBucket:
    """*limit* tokens drip in every *per* seconds; at most *burst* are kept. It starts full.

    So at most `burst + limit / per * t` are taken in any *t* seconds. The algorithm is the token
    bucket of RFC 2697, counted when asked instead of by a timer. It remembers two numbers.
    """

    __slots__ = ("_at", "_slack", "_tokens", "capacity", "rate")

    def __init__(self, limit: float, per: float = 1.0, burst: float | None = None) -> None:
        self.rate: float = number("limit", limit) / number("per", per)
        number("limit / per", self.rate)
        self.capacity: float = max(float(limit), 1.0) if burst is None else number("burst", burst)
        self._tokens = self.capacity
        self._at = -inf
        self._slack = self.rate * EPSILON + self.capacity * 1e-12

    def take(self, cost: float, now: float, /) -> float | None:
        """Take *cost* tokens, if there are that many."""
        tokens = self._tokens
        if now > self._at:
            tokens += (now - self._at) * self.rate
            if tokens > self.capacity:  # noqa: PLR1730 -- min() would be half of what it costs
                tokens = self.capacity
            self._tokens, self._at = tokens, now
        if tokens + self._slack < cost:
            return None
        self._tokens = tokens - cost  # below 0 by the slack at most, which is owed then
        return now + cost / self.rate

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        """Put back what would still be here: what has dripped in since might have run over.

        *taken* is when as much has dripped in as was taken: then there was room for all of it.
        """
        still = (taken - now) * self.rate
        if still > self._slack:
            back = cost if still + self._slack >= cost else still
            self._tokens = min(self._left(now) + back, self.capacity)
            self._at = max(self._at, now)

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        """Seconds until the missing tokens have dripped in."""
        left = self._left(now)
        return 0.0 if left + self._slack >= ahead + cost else (ahead + cost - left) / self.rate

    def usage(self, now: float, /) -> Usage:
        """Tokens taken and left."""
        left = max(self._left(now), 0.0)
        one = self.wait(min(1.0, self.capacity), now, 0.0)
        return Usage(self.capacity, self.capacity - left, left, one)

    def _left(self, now: float) -> float:
        if now <= self._at:
            return self._tokens
        return min(self._tokens + (now - self._at) * self.rate, self.capacity)


class FixedWindow:
    """At most *limit* in each of the windows of *window* seconds that follow one another.

    The first begins with the first call that takes something, or one of them at *anchor*; from then
    on they follow each other without a gap, however quiet it is and whoever looks. Around a
    boundary, twice the limit may come together: see `SlidingWindow`. It remembers three numbers.
    """

    __slots__ = ("_anchor", "_index", "_used", "capacity", "window")

    def __init__(self, limit: float, window: float, anchor: float | None = None) -> None:
        self.capacity: float = number("limit", limit)
        self.window: float = number("window", window)
        self._anchor = None if anchor is None else _moment(anchor)
        self._index = -inf  # the number of the present window; that of the anchor's is 0
        self._used = 0.0

    def take(self, cost: float, now: float, /) -> float | None:
        """Take *cost* of the present window, if it has that much left."""
        if self._anchor is None:
            self._anchor = now
        self._roll(now)
        if self._used + cost > self.capacity * (1 + 1e-12):
            return None
        self._used += cost
        return self._index

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        """Put back what was taken of the present window."""
        self._roll(now)
        if taken == self._index:
            self._used = max(self._used - cost, 0.0)

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        """Seconds until a window has room."""
        self._roll(now)
        missing = self._used + ahead + cost - self.capacity * (1 + 1e-12)
        if missing <= 0:
            return 0.0
        return max(self._start(ceil(missing / self.capacity)) - now, EPSILON)

    def usage(self, now: float, /) -> Usage:
        """What the present window has left, and when the next one begins."""
        left = max(self.capacity - self._used, 0.0) if self._roll(now) else self.capacity
        ends = None if self._anchor is None else self._start(1) - now
        one = self.wait(min(1.0, self.capacity), now, 0.0)
        return Usage(self.capacity, self.capacity - left, left, one, ends)

    def _roll(self, now: float) -> bool:
        """Go on to the window that *now* is in; whether there are windows yet."""
        if self._anchor is None:
            return False
        passed = (now - self._anchor + EPSILON) // self.window
        if passed > self._index:
            self._index, self._used = passed, 0.0
        return True

    def _start(self, ahead: int) -> float:
        return (self._anchor or 0.0) + (self._index + ahead) * self.window


def _moment(anchor: Any) -> float:
    if isinstance(anchor, int | float) and -MOST <= anchor <= MOST:
        return float(anchor)
    raise DefinitionError(f"anchor={anchor!r} is no moment; pass a time of the limiter's clock")


class SlidingWindow:
    """At most *limit* in any *window* seconds, whichever one looks at.

    It remembers what was taken when: up to `EXACT` moments as they were; with more of them, what is
    taken within a thousandth of the window of each other counts as taken at the latest of these
    moments, which errs on the safe side. So it never remembers more than twice `EXACT` moments.
    """

    EXACT = 1000

    __slots__ = ("_first", "_log", "_used", "capacity", "window")

    def __init__(self, limit: float, window: float) -> None:
        self.capacity: float = number("limit", limit)
        self.window: float = number("window", window)
        self._log: deque[list[float]] = deque()  # when it began, when it ended, how much
        self._first = 0  # the number of the oldest entry, counted from the very first one
        self._used = 0.0

    def take(self, cost: float, now: float, /) -> float | None:
        """Take *cost*, if the last *window* seconds have that much left."""
        log = self._log
        if log and log[0][1] + self.window <= now + EPSILON:
            self._forget(now)
        if self._used + cost > self.capacity * (1 + 1e-12):
            return None
        self._used += cost
        grain = self.window / self.EXACT if len(log) >= self.EXACT else 0.0
        if log and now - log[-1][0] <= grain:
            log[-1][1] = now
            log[-1][2] += cost
        else:
            log.append([now, now, cost])
        return self._first + len(log) - 1

    def give_back(self, cost: float, taken: float, now: float, /) -> None:
        """Put back what would still count."""
        self._forget(now)
        index = int(taken) - self._first
        if index >= 0:
            self._log[index][2] -= cost
            self._used -= cost

    def wait(self, cost: float, now: float, ahead: float, /) -> float:
        """Seconds until enough of what was taken is a window ago."""
        self._forget(now)
        missing = self._used + ahead + cost - self.capacity * (1 + 1e-12)
        if missing <= 0:
            return 0.0
        # What those ahead take comes back one window after they took it, and so on.
        rounds = ceil(missing / self.capacity) - 1
        missing -= rounds * self.capacity
        for _, ended, amount in self._log:
            missing -= amount
            if missing <= 0:
                return (rounds + 1) * self.window + ended - now
        return (rounds + 1) * self.window

    def usage(self, now: float, /) -> Usage:
        """What was taken in the last *window* seconds, and what is left."""
        self._forget(now)
        left = max(self.capacity - self._used, 0.0)
        one = self.wait(min(1.0, self.capacity), now, 0.0)
        return Usage(self.capacity, self.capacity - left, left, one)

    def _forget(self, now: float) -> None:
        log = self._log
        while log and log[0][1] + self.window <= now + EPSILON:
            self._used -= log.popleft()[2]
            self._first += 1
        if not log:
            self._used = 0.0  # without what sums of fractions leave behind
