"""Cron texts: read, and, where they cannot be read, what is wrong with which field."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import NamedTuple

from cronsim.cronsim import SYMBOLIC_DAYS, SYMBOLIC_MONTHS, CronSim, CronSimError, Field

from cano._kinds import did_you_mean
from cano.errors import DefinitionError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

DAY = 86_400
_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_FROM_TO = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES: dict[int, Sequence[str]] = {4: SYMBOLIC_MONTHS, 5: SYMBOLIC_DAYS}
_LONG = {
    *("SUNDAY", "MONDAY", "TUES", "TUESDAY", "WEDNESDAY", "THURS", "THURSDAY", "FRIDAY"),
    *("SATURDAY", "JANUARY", "FEBRUARY", "MARCH", "APRIL", "JUNE", "JULY", "AUGUST", "SEPT"),
    *("SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(text: str) -> CronSim:
    """What goes along the times of *text*. Raises `DefinitionError`, which says what is wrong."""
    plain = ALIASES.get(text.strip().lower(), text)
    if plain.strip().startswith("@"):
        hint = did_you_mean(text.strip().lower(), ALIASES)
        raise DefinitionError(f"Cron({text!r}): no such shorthand{hint}; there are {_listed()}")
    short = re.sub(r"[A-Z]{4,}", _shortened, plain.upper())
    fields = short.split()
    if len(fields) not in (5, 6):
        raise DefinitionError(f"Cron({text!r}) {_miscounted(len(fields))}")
    try:
        found = CronSim(" ".join(fields), _EPOCH)
        next(copy(found))
    except (CronSimError, StopIteration):
        raise DefinitionError([f"Cron({text!r}): {why}" for why in _problems(fields)]) from None
    return found


class Clock:
    """The times of day at which something comes, on the days on which it does."""

    def __init__(self, sim: CronSim) -> None:
        self._hours: list[int] = sorted(sim.hours)
        self._minutes: list[int] = sorted(sim.minutes)
        self._seconds: list[int] = sorted(sim.seconds)

    def following(self, moment: int) -> int | None:
        """The first second of a day that is *moment* or later; None if there is none that day."""
        hour, rest = divmod(moment, 3600)
        minute, second = divmod(rest, 60)
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        at = bisect_left(hours, hour)
        if at < len(hours) and hours[at] == hour:
            of = bisect_left(minutes, minute)
            if of < len(minutes) and minutes[of] == minute and second <= seconds[-1]:
                return moment - second + seconds[bisect_left(seconds, second)]
            of += of < len(minutes) and minutes[of] == minute
            if of < len(minutes):
                return hour * 3600 + minutes[of] * 60 + seconds[0]
            at += 1
        return hours[at] * 3600 + minutes[0] * 60 + seconds[0] if at < len(hours) else None


class Day(NamedTuple):
    """A day of the calendar on which something comes, and no clock is changed."""

    begins: int
    """Its midnight, in seconds since the epoch."""
    clock: Clock

    @classmethod
    def of(cls, found: datetime, clock: Clock) -> Day | None:
        """The day of *found*, if it is one of 24 hours."""
        midnight = found.replace(hour=0, minute=0, second=0, fold=0)
        begins, zone = int(midnight.timestamp()), found.tzinfo
        ends = datetime.fromtimestamp(begins + DAY - 1, zone)
        usual = midnight.utcoffset() == found.utcoffset() == ends.utcoffset()
        return cls(begins, clock) if usual and ends.date() == found.date() else None

    def following(self, second: int) -> float | None:
        """The first time that is *second* or later; None if that is not on this day."""
        moment = second - self.begins
        if not 0 <= moment < DAY or (found := self.clock.following(moment)) is None:
            return None
        return float(self.begins + found)


def at_fixed_times(sim: CronSim) -> bool:
    """Whether *sim* names minutes and hours, rather than going by the clock like ``*/5``."""
    return not sim.parts[1].startswith("*") and not sim.parts[2].startswith("*")


def _shortened(name: re.Match[str]) -> str:
    return name[0][:3] if name[0] in _LONG else name[0]


def _listed() -> str:
    return ", ".join(ALIASES)


def _miscounted(count: int) -> str:
    if count == 7:
        return "has 7 fields, and years are none of them; leave the last one out, and pass until="
    return (
        f"has {count} fields; 5 are minute, hour, day of the month, month, day of the week, and "
        "with 6 the first is the second"
    )


def _problems(fields: list[str]) -> Iterator[str]:
    """What is wrong with which field."""
    whole = ["0"] * (6 - len(fields)) + fields
    sound = True
    for number, text in enumerate(whole):
        for term in text.split(","):
            try:
                Field(number).parse(term)
            except (CronSimError, ValueError):
                sound = False
                yield f"the {_FIELDS[number]} {text!r}: {_why(number, term)}"
    if sound:
        yield f"day {whole[3]} of month {whole[4]} never comes"


def _why(number: int, term: str) -> str:
    """What is wrong with one *term* of a field."""
    base, slash, step = term.partition("/")
    if not term:
        return "there is nothing between two commas"
    if term == "?":
        return "say * instead of ?"
    if slash and not (step.isdigit() and int(step)):
        return f"{step!r} is no step; say a whole number, 1 or more"
    day, _, which = base.partition("#")
    return _wrong_range(number, day) or (
        f"{which!r} is no week of a month; say 1 to 5" if which else f"{term!r} makes no sense"
    )


def _wrong_range(number: int, base: str) -> str:
    """What is wrong with a number, a name, or two with a dash between them; nothing if so."""
    (low, high), names = _FROM_TO[number], _NAMES.get(number, ())
    ends = base.split("-")
    for end in ends:
        if end.isdigit() and not low <= int(end) <= high:
            return f"{int(end)} is not from {low} to {high}"
        if end not in names and not end.isdigit():
            named = f", or a name, {names[0]} to {names[-1]}" if names else ""
            return f"{end!r} is no number from {low} to {high}{named}"
    if len(ends) != 2:
        return ""
    first, last = ends
    bottom, top = (names[0], names[-1]) if names else (low, high)
    return f"{base} goes down; say {first}-{top},{bottom}-{last}"
