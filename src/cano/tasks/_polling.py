"""How a poll is answered, counted, waited for and given up. Pure.

Rule 1: a failure that is tolerated is waited after like a poll that was not ready.
Rule 2: a poll is given up as soon as it is certain that the next one would come too late.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from math import inf, isfinite
from types import MethodType
from typing import Generic, NamedTuple, TypeVar, cast

import msgspec

from cano.errors import DefinitionError, PollExhaustedError, note
from cano.policies.retry import Retry, Which, _patience

S_co = TypeVar("S_co", bound=Enum, covariant=True)


@dataclass(frozen=True, slots=True)
class Ready(Generic[S_co]):  # no tuple, as `Done` is none
    """What was asked for is there, and leads to *state*."""

    state: S_co


@dataclass(frozen=True, slots=True)
class Pending:
    """It is not there yet: ask again in *seconds*, or when the task's back-off says.

    Less than 0 counts as 0: ask again at once, after everybody else had a turn. With *save* and a
    store, the run data and the moment of the next poll are on disk before the wait begins. Raises
    `DefinitionError` for what is no number of seconds.
    """

    seconds: float | None = None
    _: KW_ONLY
    save: bool = False

    def __post_init__(self) -> None:
        seconds: object = self.seconds
        if seconds is not None and not (isinstance(seconds, int | float) and isfinite(seconds)):
            raise DefinitionError(
                f"Pending({seconds!r}) is no time to wait; pass finite seconds, or none for the "
                "task's own delay"
            )


class Course(msgspec.Struct):
    """How far a visit has come: what a resumed one goes on with. Moments are of the run's clock."""

    polls: int = 0
    errors: int = 0
    """How many failures in a row there were."""
    begun: float = 0.0
    due: float = 0.0
    """When to ask next."""


class Settings(NamedTuple):
    """How a `PollTask` asks; see there."""

    delay: float
    factor: float
    max_delay: float
    jitter: float
    limit: int | None
    deadline: float | None
    errors: int
    on: Which
    random: Callable[[], float] | None

    def problems(self, label: str, total: float | None) -> Iterator[str]:
        """What of it makes no sense where a run has *total* seconds."""
        if bad := ", ".join(self._wrong()):
            yield f"{label} cannot poll with {bad}"
        elif self.deadline is not None and total is not None and self.deadline > total:
            yield (
                f"{label} polls for deadline={self.deadline:g} s, which outlasts the {total:g} s a "
                "whole run has; shorten it or raise timeout="
            )

    def _wrong(self) -> Iterator[str]:
        for name in ("delay", "factor", "max_delay"):
            if not _within(getattr(self, name), 0, LONGEST):
                yield f"{name}={getattr(self, name)!r}: a finite number, 0 or more"
        if not _within(self.jitter, 0, 1):
            yield f"jitter={self.jitter!r}: a share of the delay, from 0 to 1"
        if self.limit is not None and not _counts(self.limit, 1):
            yield f"limit={self.limit!r}: a whole number of polls, 1 or more, or None"
        if self.deadline is not None and not _within(self.deadline, SHORTEST, LONGEST):
            yield f"deadline={self.deadline!r}: finite seconds > 0, or None"
        if not _counts(self.errors, 0):
            yield f"errors={self.errors!r}: a whole number, 0 to tolerate none"
        if not _chooses(self.on):
            yield f"on={self.on!r}: types of exceptions, or a function of one"
        chance: object = self.random
        if chance is not None and not callable(chance):
            yield f"random={chance!r}: a function that returns a number in [0, 1)"
        for name, takes in (("on", 1), ("random", 0)):
            if function := _taken_for_a_method(getattr(self, name), takes):
                yield f"{name}={function}, which takes no self: staticmethod({function})"


LONGEST = sys.float_info.max
SHORTEST = sys.float_info.min


class Decider:
    """What to do after a poll, for tasks with these settings."""

    __slots__ = ("backoff", "label", "limit", "settings")

    def __init__(self, label: str, settings: Settings) -> None:
        self.label = label
        self.settings = settings
        self.limit: float = inf if settings.limit is None else settings.limit
        delay, factor, most, jitter, *_ = settings
        self.backoff = Retry(
            sys.maxsize, delay, factor, most, jitter, settings.on, random=settings.random
        )

    def tolerates(self, error: Exception, course: Course) -> bool:
        """Count the failure of a poll, and say whether to go on after it; if not, note why."""
        course.errors += 1
        tolerated = self.settings.errors
        if tolerated and not self.backoff.worth(error):
            note(error, f"cano: poll {course.polls} failed; not an error to poll again after")
            return False
        if course.errors <= tolerated:
            return True
        if tolerated:
            why = f", like the {tolerated} before it; errors={tolerated} tolerates no more"
            note(error, f"cano: poll {course.polls} failed{why}")
        elif course.polls > 1:
            note(error, f"cano: poll {course.polls} failed")
        return False

    def pause(self, course: Course, seconds: float | None, failure: Exception | None) -> float:
        """How long to wait before the next poll; *seconds*, if they were asked for.

        Who fails with `retry_after` is left alone for that long.
        """
        if seconds is not None:
            return max(seconds, 0.0)
        backoff = self.backoff
        pause = backoff.pause(
            course.polls, backoff._chance(), _patience(failure) if failure else 0.0
        )
        return pause or 0.0

    def too_late(self, course: Course, pause: float, remaining: float) -> str:
        """Why there is no next poll after *pause*, with *remaining* seconds left; empty if there is."""
        if course.polls >= self.limit:
            return f"limit={self.settings.limit} allows no more; raise it"
        if pause < remaining:
            return ""
        deadline = self.settings.deadline
        if remaining <= 0 and deadline is not None:
            return self.overdue
        longer = "give the run more time"
        if deadline is not None:
            longer = f"raise deadline={deadline:g} s, or {longer}"
        left = max(remaining, 0.0)
        return f"the next pause of {pause:.3g} s would outlast the {left:.3g} s left; {longer}"

    @property
    def overdue(self) -> str:
        """Why there is no next poll when the deadline has come."""
        return f"deadline={self.settings.deadline:g} s is over; raise it"

    def exhausted(self, where: str, course: Course, now: float, why: str) -> PollExhaustedError:
        """The error of a poll that was given up at *now*."""
        polls = "1 poll" if course.polls == 1 else f"{course.polls} polls"
        return PollExhaustedError(
            f"{where}: {self.label} was not ready after {polls} in {now - course.begun:.3g} s; "
            f"{why}, or lead PollExhaustedError to a state with otherwise="
        )


def _within(number: object, least: float, most: float) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return least <= number <= most


def _counts(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _chooses(which: object) -> bool:
    """Whether *which* chooses among errors."""
    if isinstance(which, tuple):
        kinds = cast("tuple[object, ...]", which)
        return all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
    if isinstance(which, type):
        return issubclass(which, Exception)
    return callable(which)


def _taken_for_a_method(function: object, takes: int) -> str:
    """The name of a function of *takes* parameters that was put into a class as it is."""
    if not isinstance(function, MethodType):
        return ""
    plain = getattr(function.__func__, "__code__", None)
    return function.__name__ if plain is not None and plain.co_argcount == takes else ""
