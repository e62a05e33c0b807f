"""When is the next time?

Rule 1: a schedule is a value, and says when; nothing here waits, reads a clock or draws lots.
Rule 2: times are seconds since the epoch, and `next` is always later than what it is asked after.
        So a clock that is put back never makes a tick come twice.
Rule 3: the same questions have the same answers everywhere: any number of processes see the same
        ticks, and the name of a run can be made of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from math import floor, inf
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from cano.errors import DefinitionError

if TYPE_CHECKING:
    from cronsim.cronsim import CronSim

    from cano._cron import Clock, Day

__all__ = ["Cron", "Every", "Manual", "Once", "Schedule", "upcoming"]

SHORTEST = 0.001
"""Seconds between two ticks, at least."""


@runtime_checkable
class Schedule(Protocol):
    """Anything that can say when the next time is."""

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        """The first tick later than *after*, which is minus infinity before the first one.

        *start* is when the flow was first begun, *ended* when its latest run ended, if any did;
        None if there is no other tick.
        """
        ...


@dataclass(frozen=True)
class Every:
    """Again and again, *seconds* apart; at once to begin with, or after *delay* seconds.

    With the fixed *rate* that is by default, ticks are *seconds* apart whatever the runs do. With
    a fixed *delay* a tick comes *seconds* after the end of the run before.
    """

    seconds: float | timedelta
    fixed: Literal["rate", "delay"] = field(default="rate", kw_only=True)
    delay: float | timedelta = field(default=0.0, kw_only=True)
    _period: float = field(init=False, repr=False, compare=False)
    _delay: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("seconds", SHORTEST), ("delay", 0.0)):
            given: Any = getattr(self, name)
            seconds = given.total_seconds() if isinstance(given, timedelta) else given
            if not isinstance(seconds, int | float) or not least <= seconds < inf:
                raise DefinitionError(
                    f"Every: {name}={given!r} is no time to wait; pass seconds, {least:g} or more, "
                    "or a timedelta"
                )
            object.__setattr__(self, name, float(seconds))
            object.__setattr__(self, "_period" if name == "seconds" else "_delay", float(seconds))
        if self.fixed not in ("rate", "delay"):
            raise DefinitionError(f'Every: fixed={self.fixed!r}; pass "rate" or "delay"')

    def __str__(self) -> str:
        apart = " after the end of the last run" if self.fixed == "delay" else ""
        return f"every {self._period:g} s{apart}"

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        """The first tick later than *after*."""
        period, first = self._period, start + self._delay
        if after < first:
            return first
        if self.fixed == "delay":
            due = (after if ended is None else ended) + period
            return due if due > after else after + period
        # Counted from the first, so that rounding does not add up.
        count = floor((after - first) / period)
        while (tick := first + count * period) <= after:
            count += 1
        return tick


@dataclass(frozen=True)
class Cron:
    """At the times of a cron *text*, by the clocks of *zone*, such as ``"Europe/Berlin"``.

    Five fields are minute, hour, day of the month, month, day of the week; with six the first is
    the second. A field is ``*``, a number, a range ``1-5``, a list ``1,15``, a step ``*/10``; days
    and months have names, Sunday is 0 and 7. ``L`` is the last day of a month, ``LW`` its last
    working day, ``5L`` its last Friday, ``MON#2`` its second Monday. If neither of the two days
    begins with ``*``, either will do. ``@yearly``, ``@annually``, ``@monthly``, ``@weekly``,
    ``@daily``, ``@midnight`` and ``@hourly`` are short for what they say.

    Where clocks are put forward, a time that is skipped comes right after the gap. Where they are
    put back, a time that comes twice counts the first time. That is for named times: what goes by
    the clock, with a ``*`` for minute or hour, goes by the clock.
    """

    text: str
    zone: str = "UTC"
    _sim: CronSim = field(init=False, repr=False, compare=False)
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _clock: Clock = field(init=False, repr=False, compare=False)
    _known: tuple[float, float | None, Day | None] = field(init=False, repr=False, compare=False)
    """What it was asked last, the answer, and its day: what comes next is mostly on that day."""

    def __post_init__(self) -> None:
        from cano._cron import Clock, at_fixed_times, read  # noqa: PLC0415 -- only who uses it pays for it

        if not isinstance(self.text, str):
            raise DefinitionError(f"Cron({self.text!r}): pass a text such as '0 2 * * *'")
        sim, zone = read(self.text), _zone(self.zone)
        if zone is not UTC and at_fixed_times(sim):
            sim.fixup_tz = zone  # cronsim itself does so for five fields
        object.__setattr__(self, "_sim", sim)
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_clock", Clock(sim))
        object.__setattr__(self, "_known", (-inf, None, None))

    def __str__(self) -> str:
        return f"cron {self.text} {self.zone}"

    def explain(self) -> str:
        """The text in English.

        Example::

            print(Cron("30 2 * * MON#1").explain())  # At 02:30 on the first Monday of the month
        """
        return self._sim.explain()

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        """The first tick later than *after*; None if there is none within 50 years."""
        after = max(after, start)
        asked, answer, day = self._known
        if asked == after:
            return answer
        tick = None if day is None else day.following(floor(after) + 1)
        if tick is None:
            tick, day = self._find(after)
        # In one piece, whatever threads there are.
        object.__setattr__(self, "_known", (after, tick, day))
        return tick

    def _find(self, after: float) -> tuple[float | None, Day | None]:
        """The next tick, and the day that it is on."""
        from cano._cron import Day  # noqa: PLC0415 -- it was imported when this was made

        sim = copy(self._sim)
        try:
            moment = datetime.fromtimestamp(floor(after), self._zone)
            sim.dt = moment if sim.fixup_tz is None else moment.replace(tzinfo=None)
            for found in sim:
                # In an hour that comes twice, it answers with the first of them.
                if (tick := found.timestamp()) > after:
                    return tick, Day.of(found, self._clock)
        except (OverflowError, ValueError, OSError):  # beyond the calendar
            pass
        return None, None


@dataclass(frozen=True)
class Once:
    """One time only, at *at*: a `datetime` that knows its time zone."""

    at: datetime

    def __post_init__(self) -> None:
        if getattr(self.at, "tzinfo", None) is None:
            raise DefinitionError(
                f"Once({self.at!r}): pass a datetime with a time zone, such as "
                "datetime(2027, 1, 1, 12, tzinfo=UTC)"
            )

    def __str__(self) -> str:
        return f"once at {self.at.isoformat()}"

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        """The time, if it is later than *after*."""
        tick = self.at.timestamp()
        return tick if tick > after else None


@dataclass(frozen=True)
class Manual:
    """Never by itself; only when triggered by hand."""

    def __str__(self) -> str:
        return "by hand"

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        """None: there is no next time."""
        return None


def upcoming(schedule: Schedule, after: datetime, count: int = 5) -> list[datetime]:
    """The next *count* times of a schedule after *after*, in its time zone; fewer if it ends."""
    if after.tzinfo is None:
        raise DefinitionError(f"upcoming after {after!r}: pass a datetime with a time zone")
    moment = start = after.timestamp()
    found: list[datetime] = []
    while len(found) < count and (tick := schedule.next(moment, start)) is not None:
        found.append(datetime.fromtimestamp(tick, after.tzinfo))
        moment = tick
    return found


def latest(schedule: Schedule, first: float, now: float, start: float, count: int) -> list[float]:
    """The last *count* ticks from *first*, which is one, to *now*.

    Asks only for those of the last minute, then of the last four, and so on: a year may have
    passed.
    """
    window = 60.0
    while True:
        whole = now - window <= first
        ticks: Iterable[float] = _between(schedule, first if whole else now - window, now, start)
        found = deque([first] if whole else [], maxlen=count)
        found.extend(ticks)
        if whole or len(found) == count:
            return list(found)
        window *= 4


def _between(schedule: Schedule, after: float, until: float, start: float) -> Iterable[float]:
    while (tick := schedule.next(after, start)) is not None and tick <= until:
        yield tick
        after = tick


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 -- reads files

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise DefinitionError(_no_zone(name)) from None


def _no_zone(name: object) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 -- only a mistake pays for it
    from zoneinfo import available_timezones  # noqa: PLC0415

    close = get_close_matches(str(name), sorted(available_timezones()), 1) or ["Europe/Berlin"]
    return f"Cron: zone={name!r} is no time zone; pass a name such as {close[0]!r}"
