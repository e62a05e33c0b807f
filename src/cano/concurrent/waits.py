"""When have enough runs ended? Pure: counts and seconds in, a verdict out.

Rule 1: once it is enough it stays so, whatever the remaining runs do.
Rule 2: nothing in this file awaits, reads a clock or knows what a run is.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal, Protocol

import msgspec

from cano.errors import DefinitionError

Counted = Literal["finished", "succeeded"]


class ManyStatus(msgspec.Struct, frozen=True):
    """How many runs stand where. Every input known of is in exactly one of the five counts."""

    total: int = 0
    """How many inputs there are; as far as they were asked for, where they have no `len`."""
    not_started: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    seconds: float = 0.0
    """Since the resources were up and the first run could start."""
    complete: bool = False
    """Whether nothing runs any more, and nothing will be started."""

    @property
    def finished(self) -> int:
        """How many ended by themselves, well or not."""
        return self.succeeded + self.failed


class Wait(Protocol):
    """When to stop waiting for runs. Implement both to bring a strategy of your own."""

    @property
    def seconds(self) -> float:
        """How long to wait at most; `math.inf` for as long as it takes."""
        ...

    def enough(self, status: ManyStatus, /) -> bool:
        """Judge the counts: pure, asked before the first start and after each end."""
        ...


class Forever(msgspec.Struct, frozen=True):
    """Every run, to its end."""

    @property
    def seconds(self) -> float:
        """No limit."""
        return inf

    def enough(self, status: ManyStatus, /) -> bool:
        """Never: the call ends when there is nothing left to wait for."""
        return False


class Quota(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Until *n* runs have ended; the others are cancelled. With 0 nothing is started.

    *of* says what counts: "finished" is every end but a cancellation, "succeeded" the good ones.
    A quota that is out of reach waits for every run, as `Forever` does.
    """

    n: int
    of: Counted = "finished"

    def __post_init__(self) -> None:
        _quota(self, self.n, self.of)

    @property
    def seconds(self) -> float:
        """No limit."""
        return inf

    def enough(self, status: ManyStatus, /) -> bool:
        """Whether the quota is reached."""
        return _counted(status, self.of) >= self.n


class Duration(msgspec.Struct, frozen=True):
    """For at most *seconds*; what has ended by then keeps its result, the others are cancelled."""

    seconds: float

    def __post_init__(self) -> None:
        _duration(self, self.seconds)

    def enough(self, status: ManyStatus, /) -> bool:
        """Whether the time is up."""
        return status.seconds >= self.seconds


class QuotaOrDuration(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Until *n* runs have ended, for at most *seconds*; see `Quota` for *of*."""

    n: int
    seconds: float
    of: Counted = "finished"

    def __post_init__(self) -> None:
        _quota(self, self.n, self.of)
        _duration(self, self.seconds)

    def enough(self, status: ManyStatus, /) -> bool:
        """Whether either is reached."""
        return _counted(status, self.of) >= self.n or status.seconds >= self.seconds


def _counted(status: ManyStatus, of: Counted) -> int:
    return status.succeeded if of == "succeeded" else status.finished


def _quota(wait: object, n: int, of: str) -> None:
    if type(n) is not int or n < 0:
        raise DefinitionError(f"{wait}: n is no number of runs; pass a whole number, 0 or more")
    if of not in {"finished", "succeeded"}:
        raise DefinitionError(f'{wait}: of says what counts; pass "finished" or "succeeded"')


def _duration(wait: object, seconds: float) -> None:
    number: object = seconds
    if not isinstance(number, int | float) or not (isfinite(number) and number > 0):
        raise DefinitionError(
            f"{wait}: seconds must be a number above 0; without a limit say Forever() or Quota(n)"
        )
