"""Try again, later and later."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

from cano.context import Context
from cano.errors import CallRefusedError, DefinitionError, note
from cano.events import TaskRetried
from cano.policies.policy import Call, Decorating, T
from cano.policies.timeout import late, parts

Which: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

Foresees: TypeAlias = Callable[[], CallRefusedError | None]
"""What a call would be refused with if it were made now; None where that is not certain."""

PROGRAMMING_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
)
"""What trying again cannot mend. An explicit `on` is taken at its word."""


@dataclass(frozen=True, slots=True)
class Retry(Decorating):
    """Make a failed call again, at most *attempts* times in all, the first one included.

    The pause before attempt n + 1 is `delay * factor ** (n - 1)` seconds, spread by *jitter* to
    both sides, and then cut to *max_delay*. After an error that carries `retry_after`, a number of
    seconds, it is at least that long, *max_delay* or not: who asks for patience knows why. Where
    the nearest timeout would strike before the pause is over, the last error is raised at once; so
    it is where a circuit breaker right inside would then still refuse the call.

    By default every `Exception` is tried again but programming errors and errors whose class says
    `retryable = False`. Any other *on* decides alone: types, or a predicate; `on=(Exception,)`
    tries again after every one. Run data is brought back to what it was before the attempt. After
    the last attempt its own exception is raised, with a note.
    """

    attempts: int = 4
    delay: float = 0.1
    factor: float = 2.0
    max_delay: float = 30.0
    jitter: float = 0.1
    on: Which = Exception
    pauses: tuple[float, ...] | None = field(default=None, kw_only=True)
    """The pauses themselves, instead of the formula; see `delays`."""
    random: Callable[[], float] | None = field(default=None, kw_only=True, repr=False)
    """A source of numbers in [0, 1), for the jitter; by default `random.random`."""

    def __post_init__(self) -> None:
        if bad := ", ".join(self._problems()):
            raise DefinitionError(f"Retry cannot work with {bad}")

    def _problems(self) -> Iterator[str]:
        if not 1 <= self.attempts < inf or self.attempts % 1:
            yield f"attempts={self.attempts}: a whole number, 1 for a single try"
        for name in ("delay", "factor", "max_delay"):
            if not 0 <= getattr(self, name) < inf:
                yield f"{name}={getattr(self, name)}: a finite number, 0 or more"
        if not 0 <= self.jitter <= 1:
            yield f"jitter={self.jitter}: a share of the delay, from 0 to 1"
        if self.pauses is None:
            return
        for number, pause in enumerate(self.pauses):
            if not 0 <= pause < inf:
                yield f"pauses[{number}]={pause}: a finite number, 0 or more"
        if len(self.pauses) != self.attempts - 1:
            yield f"{len(self.pauses)} pauses: attempts={self.attempts} has one less than that"

    @classmethod
    def fixed(cls, attempts: int, delay: float, *, on: Which = Exception) -> Retry:
        """The same pause every time, without jitter."""
        return cls(attempts, delay, factor=1.0, max_delay=delay, jitter=0.0, on=on)

    @classmethod
    def delays(cls, delays: Sequence[float], *, on: Which = Exception) -> Retry:
        """These pauses, one after the other: one more attempt than there are pauses."""
        return cls(len(delays) + 1, jitter=0.0, on=on, pauses=tuple(delays))

    def worth(self, error: Exception) -> bool:
        """Whether *error* is one to try again after."""
        if self.on is Exception:
            return getattr(error, "retryable", True) and not isinstance(error, PROGRAMMING_ERRORS)
        which: Any = self.on
        if isinstance(which, type | tuple):
            return isinstance(error, which)
        return bool(which(error))

    def pause(self, failed: int, chance: float, retry_after: float = 0.0) -> float | None:
        """Seconds to wait after attempt *failed*; None when it was the last one.

        *chance* in [0, 1) places the pause within the jitter: 0.5 is the middle.
        """
        if failed >= self.attempts:
            return None
        return max(self._planned(failed, chance), retry_after)

    def _planned(self, failed: int, chance: float) -> float:
        if self.pauses is not None:
            return self.pauses[failed - 1]
        if not self.delay:
            return 0.0
        try:
            planned = self.delay * float(self.factor) ** (failed - 1)
        except OverflowError:
            return self.max_delay
        return min(planned * (1 + self.jitter * (2 * chance - 1)), self.max_delay)

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Make *call* again as long as it fails and there are attempts left."""
        if (timed := parts(call)) is not None:
            return self._wrap_timed(*timed)
        foresees = foresight(call)

        async def retrying(ctx: Context[Any]) -> T:
            saved = ctx.snapshot() if ctx._kind is not None else None
            attempt = ctx.first_attempt() if ctx._durable else 1
            if ctx._attempt != attempt:
                ctx.attempt = attempt
            while True:
                try:
                    return await call(ctx)
                except Exception as error:
                    if not await self._again(attempt, error, ctx, foresees):
                        raise
                ctx.restore(saved)
                attempt = ctx.attempt = attempt + 1

        return retrying

    def _wrap_timed(self, call: Call[T], seconds: float) -> Call[T]:
        """`wrap` of what `Timeout` made of *call*: one coroutine for both saves a quarter."""

        async def retrying(ctx: Context[Any]) -> T:
            saved = ctx.snapshot() if ctx._kind is not None else None
            attempt = ctx.first_attempt() if ctx._durable else 1
            if ctx._attempt != attempt:
                ctx.attempt = attempt
            alarm = ctx._alarm or ctx.alarm
            outer = alarm.innermost
            while True:
                try:
                    when = alarm.now() + seconds
                    alarm.innermost = (when, outer)
                    if when < alarm.armed:
                        alarm.arm(when)
                    try:
                        return await call(ctx)
                    except CancelledError:
                        if alarm.expired():
                            raise late(ctx, seconds) from None
                        raise
                    finally:
                        alarm.innermost = outer
                        if alarm.sent:
                            alarm.settle()
                except Exception as error:
                    if not await self._again(attempt, error, ctx):
                        raise
                ctx.restore(saved)
                attempt = ctx.attempt = attempt + 1

        return retrying

    async def _again(
        self, attempt: int, error: Exception, ctx: Context[Any], foresees: Foresees | None = None
    ) -> bool:
        """Whether to try again, after the pause that is due before."""
        pause = self._after(attempt, error, ctx, foresees)
        if pause is None:
            return False
        await ctx.keep(TaskRetried(error=repr(error), delay=pause))
        if pause:
            await ctx.pause(pause)
        return True

    def _after(
        self, attempt: int, error: Exception, ctx: Context[Any], foresees: Foresees | None
    ) -> float | None:
        """The pause before the next attempt, or None, having noted on *error* why not."""
        if not self.worth(error):
            if attempt > 1:
                note(error, f"cano: attempt {attempt}; not an error to try again after")
            return None
        pause = self.pause(attempt, self._chance(), _patience(error))
        if pause is None:
            if attempt > 1:
                note(error, f"cano: gave up after {attempt} attempts")
            return None
        if foresees and (refusal := foresees()) and refusal.retry_after > pause:
            if not self.worth(refusal):
                plural = "s" * (attempt > 1)
                note(error, f"cano: gave up after {attempt} attempt{plural}: {refusal}")
                return None
            pause = refusal.retry_after
        if pause >= ctx.remaining:
            note(
                error,
                f"cano: gave up after {attempt} of {self.attempts} attempts: the next pause of "
                f"{pause:.3g} s would outlast the {max(ctx.remaining, 0):.3g} s left",
            )
            return None
        return pause

    def _chance(self) -> float:
        if not self.jitter:
            return 0.5
        if self.random is not None:
            return self.random()
        from random import random  # noqa: PLC0415 -- 5 ms that most runs never need

        return random()  # noqa: S311 -- jitter is no secret


def foresight(call: Call[T]) -> Foresees | None:
    """How to ask *call*, if it can tell, what it would be refused with; see `CircuitBreaker`."""
    itself, foresees = getattr(call, "foresees", (None, None))
    # What others wrap around it, with functools.wraps, has the attribute too.
    return foresees if itself is call else None


def _patience(error: Exception) -> float:
    """How long *error* asks to be left alone. Other libraries keep dates and texts there too."""
    seconds = getattr(error, "retry_after", 0.0)
    return seconds if isinstance(seconds, int | float) else 0.0
