"""The decisions of a circuit breaker, which has the clock and the lock.

Rule 1: an epoch lies between two changes of state, and what comes back in a later one than it was
let through in is ignored.
Rule 2: nothing but `move` changes the state.
Rule 3: how long anything takes depends neither on how many calls there are nor were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, TypeAlias, cast

from cano.errors import CallRefusedError, CheckpointError, CostError
from cano.policies.retry import Which

Ticket: TypeAlias = tuple[int, int]
"""The epoch in which a call was let through, and its number among the probes; 0 if it is none."""

SLACK = 1e-6
"""Seconds that a timer may be early: who slept for `retry_after` is not to be refused again."""

NOT_MADE = (CallRefusedError, CostError, CheckpointError)
"""Errors that tell nothing of the dependency: it was not called, or the run is in trouble."""


class CircuitState(StrEnum):
    """What a circuit breaker does with calls."""

    CLOSED = "closed"
    """It lets all of them through, and counts failures."""
    OPEN = "open"
    """It refuses them."""
    HALF_OPEN = "half-open"
    """It lets a few through, as probes."""


class Circuit:
    """What a circuit breaker decides. It has no clock and no lock; *now* is whatever it is told."""

    __slots__ = (
        "_numbers",
        "_out",
        "_since",
        "_until",
        "admits",
        "epoch",
        "failures",
        "in_a_row",
        "passed",
        "probes",
        "reset",
        "state",
    )

    def __init__(self, failures: int, reset: float, probes: int) -> None:
        self.failures: int = failures
        self.reset: float = reset
        self.probes: int = probes
        self.in_a_row: int = 0
        self.epoch: int = 0
        self._numbers = 0
        self.move(CircuitState.CLOSED, 0.0)

    def move(self, state: CircuitState, now: float) -> None:
        """Begin a new epoch."""
        self.state: CircuitState = state
        self.epoch += 1
        self.admits: int = self.epoch if state is CircuitState.CLOSED else 0
        """The epoch while everything is let through, else 0: both in one look, without the lock."""
        self.passed: int = 0
        self._out: set[int] = set()  # the numbers of the probes
        self._wait(now)
        if state is CircuitState.CLOSED:
            self.in_a_row = 0

    def left(self, now: float) -> float:
        """Seconds for which everything is refused."""
        return self._waiting(now) if self.state is CircuitState.OPEN else 0.0

    def enter(self, now: float) -> Ticket | None:
        """Let a call through, or not."""
        if self.state is CircuitState.CLOSED:
            return self.epoch, 0
        if self.left(now):
            return None
        if self.state is CircuitState.OPEN:
            self.move(CircuitState.HALF_OPEN, now)
        if len(self._out) >= self.probes:
            if self._waiting(now):
                return None
            self._out.clear()  # they are lost, or too slow to wait for
        self._wait(now)
        self._numbers += 1
        self._out.add(self._numbers)
        return self.epoch, self._numbers

    def leave(self, ticket: Ticket, succeeded: bool | None, now: float) -> None:
        """Take *ticket* back; None means that nothing is known of the dependency."""
        epoch, number = ticket
        self._out.discard(number)
        if epoch != self.epoch or succeeded is None:
            return
        probing = self.state is CircuitState.HALF_OPEN
        if not succeeded:
            self.in_a_row += 1
            if probing or self.in_a_row >= self.failures:
                self.move(CircuitState.OPEN, now)
            return
        self.in_a_row = 0
        self.passed += probing
        if self.passed >= self.probes:
            self.move(CircuitState.CLOSED, now)

    def _wait(self, now: float) -> None:
        """From *now* wait for *reset* seconds: to pass while open, for probes while half-open."""
        self._since, self._until = now, now + self.reset

    def _waiting(self, now: float) -> float:
        """Seconds that are left of it."""
        if now < self._since:  # the clock has gone back
            self._wait(now)
        left = min(self._until - now, self.reset)
        return left if left > SLACK else 0.0


def judged(error: BaseException | None, on: Which) -> bool | None:
    """Whether the dependency is well, judging by *error*; None if that cannot be told."""
    if error is None:
        return True
    if not isinstance(error, Exception) or _all(error, NOT_MADE):
        return None
    which: Any = on
    return not (_any(error, which) if isinstance(which, type | tuple) else which(error))


def _any(error: Exception, kinds: Any) -> bool:
    """Whether *error*, or one of the errors in the group that it is, is of *kinds*."""
    if isinstance(error, kinds):
        return True
    group: Any = error
    return isinstance(error, ExceptionGroup) and group.subgroup(kinds) is not None


def _all(error: Exception, kinds: Any) -> bool:
    """Whether *error*, or every error in the group that it is, is of *kinds*."""
    if isinstance(error, kinds):
        return True
    group: Any = error
    return isinstance(error, ExceptionGroup) and group.split(kinds)[1] is None


def problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """Say which settings of a circuit breaker make no sense."""
    for what in ("failures", "probes"):
        number = settings[what]
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            yield f"{what}={number!r}: a whole number, 1 or more"
    if not _is_duration(settings["reset"]):
        yield f"reset={settings['reset']!r}: seconds, more than 0"
    if not _tells_errors(on := settings["on"]):
        yield f"on={on!r}: types of Exception, or a function of the error"
    if not isinstance(name := settings["name"], str):
        yield f"name={name!r}: a text"
    for what in ("on_change", "clock"):
        if (function := settings[what]) is not None and not callable(function):
            yield f"{what}={function!r}: a function"


def _is_duration(seconds: Any) -> bool:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return False
    try:
        return float(seconds) > 0  # which NaN is not
    except OverflowError:
        return False


def _tells_errors(on: Any) -> bool:
    if isinstance(on, type):
        return issubclass(on, Exception)
    if not isinstance(on, tuple):
        return callable(on)
    kinds = cast("tuple[object, ...]", on)
    return bool(kinds) and all(isinstance(k, type) and issubclass(k, Exception) for k in kinds)
