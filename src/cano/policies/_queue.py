"""Lines before limits: who is let through, and when.

Rule 1: who waits stands in the line of every limit it needs, and is let through when it is first in
        all of them and each has enough. Lines are joined all at once, so who shares limits stands
        in the same order everywhere: nobody waits in a circle.
Rule 2: who comes later never overtakes: nothing is taken past somebody who waits.
Rule 3: what is taken is handed to a waiter together with its turn. One that is gone by then gives
        it back, and the next has its turn.
Rule 4: one lock for all lines of the process, held for as long as it takes to count.
Rule 5: a waiter is told by its own event loop. Only who is first everywhere has a timer for its
        turn; another one only ends a patience that is not endless.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop as running  # returns None where there is none
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf
from threading import RLock
from time import monotonic  # noqa: TID251 -- for threads without a loop
from typing import NamedTuple, TypeAlias

from cano._clock import loop_time
from cano.policies._meters import EPSILON, Meter

LOCK = RLock()
"""Reentrant, because what the garbage collector finds leaves its line too, at any moment."""

SHORTEST = 1e-6
"""Seconds a timer is set for at least: waiting must not spin while the clock stands still."""

LEAST_WAIT = 0.001
"""Seconds that a refusal asks for at least."""

Clock: TypeAlias = Callable[[], float]


class Lane:
    """A meter, the time it goes by, and the line before it."""

    __slots__ = ("_fixed", "_source", "ahead", "line", "loop", "meter", "now")

    def __init__(self, meter: Meter, clock: Clock | None) -> None:
        self.meter: Meter = meter
        self.line: OrderedDict[Waiter, float] = OrderedDict()
        """Who waits, for how much."""
        self.ahead: float = 0.0
        """How much they wait for in all."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.now: Clock = monotonic if clock is None else _steady(clock)
        self._fixed = clock is not None
        self._source: Clock | None = clock

    def moment(self) -> float:
        """The time, which never goes back: that of the running loop, unless there is a clock."""
        loop = running()
        if loop is not self.loop or self._source is None:
            self.enter(loop)
        return self.now()

    def enter(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Go by the time of *loop*. Between one loop's time and the next, no time passes."""
        if loop is None:  # a thread without a loop goes by the latest one's time
            self._source = self._source or self.now
            return
        self.loop, source = loop, loop_time(loop)
        if self._fixed or source == self._source:
            return
        self.now = source if self._source is None else _shifted(source, self.now() - source())
        self._source = source

    def first(self) -> Waiter | None:
        """Who is next. Those that are gone leave the line."""
        while self.line:
            waiter = next(iter(self.line))
            if waiter.waits:
                return waiter
            self.remove(waiter)
        return None

    def has_behind_first(self, waiter: Waiter) -> bool:
        """Whether *waiter* is in line, and not first: then it makes no difference to others."""
        return waiter in self.line and next(iter(self.line)) is not waiter

    def remove(self, waiter: Waiter) -> None:
        """Let *waiter* leave the line, if it is in it."""
        self.ahead -= self.line.pop(waiter, 0.0)
        if not self.line:
            self.ahead = 0.0  # without what sums of fractions leave behind


class Charge(NamedTuple):
    """What a call costs at one limit; *tier* is that limit's name among several."""

    lane: Lane
    cost: float
    tier: str = ""


class Taken(NamedTuple):
    """What was taken from a limit, and what its meter wants to hear if it comes back."""

    lane: Lane
    cost: float
    when: float
    tier: str = ""


class Refusal(NamedTuple):
    """For how many seconds, at least, a call cannot be made, and which limit says so."""

    wait: float
    tier: str


class Waiter:
    """One call in line."""

    __slots__ = ("_patience", "_turn", "charges", "future", "loop", "taken")

    def __init__(self, charges: Sequence[Charge]) -> None:
        self.charges: Sequence[Charge] = charges
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[bool] = self.loop.create_future()
        """True: it is its turn. False: it is not to wait any longer."""
        self.taken: Sequence[Taken] = ()
        self._turn: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether it still does, and can be told."""
        return not (self.future.done() or self.loop.is_closed())

    @property
    def wait(self) -> float:
        """How long it takes until there is enough for it."""
        return max(lane.meter.wait(cost, lane.moment(), 0.0) for lane, cost, _ in self.charges)

    def join(self, patience: float) -> None:
        """Get in line, for *patience* seconds at most."""
        for lane, cost, _ in self.charges:
            lane.line[self] = cost
            lane.ahead += cost
        if patience < inf:  # after a turn of the same moment
            self._patience = self.loop.call_later(patience + 2 * SHORTEST, self._give_up)
        if self._first_everywhere():
            self.take_turn()

    def leave(self) -> None:
        """Get out of line, give back what was handed over too late, and let the next one through."""
        unnoticed = all(charge.lane.has_behind_first(self) for charge in self.charges)
        self._out()
        if unnoticed:
            return
        taken, self.taken = self.taken, ()
        _put_back(taken)
        serve(charge.lane for charge in self.charges)

    def next_in_line(self) -> bool:
        """Go through if nobody is before it and there is enough; whether it left the lines."""
        return self._first_everywhere() and self.take_turn()

    def take_turn(self) -> bool:
        """Go through if there is enough; if not, come back when there may be."""
        if running() is not self.loop:
            with suppress(RuntimeError):  # closed in this very moment
                self.loop.call_soon_threadsafe(self._look)
            return False
        try:
            taken = take(self.charges)
            wait = 0.0 if taken else self.wait
        except Exception as error:  # noqa: BLE001 -- of a meter that is not ours: the caller's to see
            self._out()
            self.future.set_exception(error)
            return True
        if taken is None and wait < inf:
            self._come_back(max(wait or LEAST_WAIT, SHORTEST))  # 0: of a meter that is not sure
            return False
        self._out()
        self.taken = taken or ()
        self.future.set_result(taken is not None)
        return True

    def _first_everywhere(self) -> bool:
        return all(charge.lane.first() is self for charge in self.charges)

    def _come_back(self, wait: float) -> None:
        if self._turn is not None:
            self._turn.cancel()
        self._turn = self.loop.call_later(wait, self._look)

    def _look(self) -> None:
        with LOCK:
            serve(charge.lane for charge in self.charges)

    def _give_up(self) -> None:
        with LOCK:
            self._look()
            if not self.future.done():
                self.future.set_result(False)
                self.leave()

    def _out(self) -> None:
        for charge in self.charges:
            charge.lane.remove(self)
        for timer in (self._turn, self._patience):
            if timer is not None:
                timer.cancel()


def take_now(charges: Sequence[Charge]) -> Sequence[Taken] | None:
    """Take all of *charges*, unless somebody waits for one of them; None if it cannot be."""
    for charge in charges:
        if charge.lane.line and charge.lane.first() is not None:
            return None
    return take(charges)


def take(charges: Sequence[Charge]) -> Sequence[Taken] | None:
    """Take all of *charges* in order, or nothing and return None."""
    taken: list[Taken] = []
    try:
        for lane, cost, tier in charges:
            when = lane.meter.take(cost, lane.moment())
            if when is None:
                _put_back(taken)
                return None
            taken.append(Taken(lane, cost, when, tier))
    except BaseException:
        _put_back(taken)
        raise
    return taken


def give_back(taken: Sequence[Taken]) -> None:
    """Undo *taken*; who waits for it may have its turn now."""
    _put_back(taken)
    serve(part.lane for part in taken)


def _put_back(taken: Sequence[Taken]) -> None:
    for lane, cost, when, _ in taken:
        lane.meter.give_back(cost, when, lane.moment())


def serve(lanes: Iterable[Lane]) -> None:
    """Let through whoever's turn it is, one after the other."""
    todo = list(lanes)
    while todo:
        waiter = todo.pop().first()
        if waiter is not None and waiter.next_in_line():
            todo.extend(charge.lane for charge in waiter.charges)


def forecast(charges: Sequence[Charge]) -> Refusal:
    """How long a call that comes now has to wait at least: 0 if it need not."""
    longest = Refusal(0.0, "")
    for lane, cost, tier in charges:
        wait = lane.meter.wait(cost, lane.moment(), lane.ahead)
        if (first := lane.first()) is not None:
            wait = max(wait, first.wait, SHORTEST)
        if wait > longest.wait:
            longest = Refusal(wait, tier)
    return longest


def refusal_of(charges: Sequence[Charge]) -> Refusal:
    """What to say of a call that was not let through."""
    wait, tier = forecast(charges)
    return Refusal(max(wait, LEAST_WAIT), tier or charges[0].tier)


async def stand_in_line(
    charges: Sequence[Charge], max_wait: float, remaining: float = inf
) -> Sequence[Taken] | Refusal:
    """Wait until all of *charges* are taken; or say why not.

    Whoever would have to wait for more than *max_wait*, or has no more than that *remaining*, does
    not wait at all.
    """
    with LOCK:
        if (taken := take_now(charges)) is not None:
            return taken
        if max_wait < inf or remaining < inf:
            wait, _ = forecast(charges)
            if wait > max_wait + EPSILON or wait >= remaining:
                return refusal_of(charges)
        waiter = Waiter(charges)
        waiter.join(max_wait)
    try:
        passed = await waiter.future
    except BaseException:  # cancelled, or dropped together with its loop
        with LOCK:
            waiter.leave()
        raise
    if passed:
        return waiter.taken
    with LOCK:
        return refusal_of(charges)


def _steady(clock: Clock) -> Clock:
    """*clock*, but where it goes back the time stands still."""
    latest, lag = -inf, 0.0

    def now() -> float:
        nonlocal latest, lag
        seen = clock()
        if seen < latest:
            lag += latest - seen
        latest = seen
        return seen + lag

    return now


def _shifted(clock: Clock, by: float) -> Clock:
    return lambda: clock() + by
