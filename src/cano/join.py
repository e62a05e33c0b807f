"""When has a split seen enough? Pure: counts in, a verdict out.

Rule 1: a verdict is final. `WAIT` may become anything; `PROCEED` and `FAIL` never change,
        whatever the remaining branches do.
Rule 2: every strategy stops early both ways: as soon as it is satisfied, and as soon as it
        cannot be any more.
Rule 3: nothing in this file awaits, reads a clock or knows what a branch is.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import Generic, Protocol, TypeVar

import msgspec

T = TypeVar("T")


class Verdict(Enum):
    """What the counts so far mean for the split."""

    WAIT = auto()
    PROCEED = auto()
    FAIL = auto()


WAIT, PROCEED, FAIL = Verdict.WAIT, Verdict.PROCEED, Verdict.FAIL


class Tally(msgspec.Struct):
    """How the branches of a split stand; *expired* once the split's deadline has passed."""

    total: int
    succeeded: int = 0
    failed: int = 0
    expired: bool = False

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed


class Join(Protocol):
    """When a split may go on. Implement both methods to bring a strategy of your own."""

    def verdict(self, tally: Tally, /) -> Verdict:
        """Judge the counts. Once every branch has finished or the time is up, never `WAIT`."""
        ...

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        """Say why this can never be met by *total* branches (None: not known yet), if so."""
        ...


def _needing(needed: int, tally: Tally) -> Verdict:
    """Proceed at *needed* successes; fail when they are out of reach."""
    if tally.succeeded >= needed:
        return PROCEED
    if tally.expired or tally.total - tally.failed < needed:
        return FAIL
    return WAIT


class All(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Every branch succeeds. Fails at the first failure, or with `fail_fast=False` at the end."""

    fail_fast: bool = True

    def verdict(self, tally: Tally, /) -> Verdict:
        if tally.succeeded == tally.total:
            return PROCEED
        if tally.expired or (tally.failed and self.fail_fast):
            return FAIL
        return FAIL if tally.finished == tally.total else WAIT

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        return None


class Any(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The first success wins; fails when every branch has failed."""

    def verdict(self, tally: Tally, /) -> Verdict:
        return _needing(1, tally)

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        return "Any needs at least one branch; add one" if total == 0 else None


class Quorum(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """*needed* branches succeed."""

    needed: int

    def verdict(self, tally: Tally, /) -> Verdict:
        return _needing(self.needed, tally)

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        if self.needed < 1:
            return f"{self} needs at least 1 success; pass 1 or more, or join with Settled()"
        if total is not None and self.needed > total:
            return f"{self} can never be met by {total} branches; lower it or add branches"
        return None


class PartialResults(Quorum, frozen=True, repr_omit_defaults=True):
    """The first *needed* successes are enough: `Quorum` by the name it has in latency budgets."""


@lru_cache(maxsize=256)
def _exact(share: float | None) -> tuple[int, int]:
    """The decimal that was written, not the binary float nearest to it: 7 % of 100 is 7."""
    if share is None or not 0 <= share <= 1:
        return 0, 1  # `problem` says so; a verdict is never asked for
    from fractions import Fraction  # noqa: PLC0415 -- 5 ms that few programs need

    return Fraction(str(share)).as_integer_ratio()


class Percentage(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """A *share* of the branches, in (0, 1], succeeds; counted exactly, rounded up."""

    share: float

    def needed(self, total: int) -> int:
        """How many of *total* must succeed."""
        numerator, denominator = _exact(self.share)
        return -(-total * numerator // denominator)

    def verdict(self, tally: Tally, /) -> Verdict:
        return _needing(self.needed(tally.total), tally)

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        if 0 < self.share <= 1:
            return None
        return f"{self} is no share; pass a number above 0 and up to 1, such as 0.75"


class PartialTimeout(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Whatever succeeded by the deadline, at least *minimum*; needs the split's `timeout`."""

    minimum: int = 1

    def verdict(self, tally: Tally, /) -> Verdict:
        if tally.finished < tally.total and not tally.expired:
            return FAIL if tally.total - tally.failed < self.minimum else WAIT
        return PROCEED if tally.succeeded >= self.minimum and tally.total else FAIL

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        if self.minimum < 0:
            return f"{self} cannot have a negative minimum; pass 0 or more"
        if total is not None and self.minimum > total:
            return f"{self} can never be met by {total} branches; lower it or add branches"
        if timeout is None:
            return f"{self} requires a timeout; pass timeout= to the Split"
        return None


class Tolerate(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """All run; at most *failures* of them, or a *share* in [0, 1), may fail.

    At least *minimum* must succeed whatever the share allows. What has not finished by a deadline
    counts as failed.
    """

    failures: int | None = None
    share: float | None = None
    minimum: int = 0

    def allowed(self, total: int) -> int:
        """How many of *total* may fail; a share is rounded down."""
        if self.failures is not None:
            return self.failures
        numerator, denominator = _exact(self.share)
        return total * numerator // denominator

    def verdict(self, tally: Tally, /) -> Verdict:
        allowed, possible = self.allowed(tally.total), tally.total - tally.failed
        if tally.failed > allowed or possible < self.minimum:
            return FAIL
        if tally.finished < tally.total and not tally.expired:
            return WAIT
        missing = tally.total - tally.succeeded
        return PROCEED if missing <= allowed and tally.succeeded >= self.minimum else FAIL

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        if (self.failures is None) == (self.share is None):
            return f"{self} needs either failures= or share=; pass exactly one"
        if self.failures is not None and self.failures < 0:
            return f"{self} cannot tolerate a negative number; pass 0 or more"
        if self.share is not None and not 0 <= self.share < 1:
            return f"{self} is no share; pass a number from 0 to below 1, such as 0.2"
        if total is not None and self.minimum > total:
            return f"{self} can never be met by {total} branches; lower it or add branches"
        return None


class Settled(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """All run to their end, whatever it is, or to the deadline; the next state looks."""

    def verdict(self, tally: Tally, /) -> Verdict:
        return PROCEED if tally.expired or tally.finished == tally.total else WAIT

    def problem(self, total: int | None, timeout: float | None, /) -> str | None:
        return None


class BranchResult(msgspec.Struct, Generic[T], frozen=True):
    """What one branch came to: a *value*, or an *error*."""

    index: int
    name: str
    value: T | None = None
    error: Exception | None = None


class SplitResult(msgspec.Struct, Generic[T], frozen=True, dict=True):
    """What a split came to. Every branch is in exactly one of the four lists, by index."""

    successes: tuple[BranchResult[T], ...] = ()
    errors: tuple[BranchResult[T], ...] = ()
    cancelled: tuple[int, ...] = ()
    """Started, and ended because the join had seen enough, or the time was up."""
    not_started: tuple[int, ...] = ()
    reason: str = "all"
    """Why it ended: `all` finished, `enough`, `impossible`, or `deadline`."""
    names: tuple[str, ...] = ()
    """What every branch is called, by index."""

    @property
    def total(self) -> int:
        return self.completed + len(self.cancelled) + len(self.not_started)

    @property
    def completed(self) -> int:
        return len(self.successes) + len(self.errors)

    @property
    def values(self) -> tuple[T, ...]:
        """The values of the branches that succeeded, by index."""
        return tuple(result.value for result in self.successes)  # type: ignore[misc]

    def __iter__(self) -> Iterator[BranchResult[T]]:
        """The branches that finished, by index."""
        return iter(sorted((*self.successes, *self.errors), key=lambda result: result.index))

    def __getitem__(self, key: int | str) -> BranchResult[T]:
        """The finished branch of that index or name. Raises `KeyError` for any other."""
        try:
            return self._by_key[key]
        except KeyError:
            named = [f"{result.index} {result.name!r}" for result in self]
            finished = ", ".join([*named[:10], "…"] if len(named) > 10 else named) or "none"
            raise KeyError(f"branch {key!r} has no result; finished are: {finished}") from None

    def __contains__(self, key: object) -> bool:
        """Whether the branch of that index or name finished."""
        return key in self._by_key

    @cached_property
    def _by_key(self) -> dict[int | str, BranchResult[T]]:
        results = (*self.successes, *self.errors)
        return {key: result for result in results for key in (result.index, result.name)}


__all__ = [  # noqa: RUF022 -- in the order a reader needs them
    "All",
    "Any",
    "Quorum",
    "Percentage",
    "PartialResults",
    "PartialTimeout",
    "Tolerate",
    "Settled",
    "Join",
    "Tally",
    "Verdict",
    "BranchResult",
    "SplitResult",
]
