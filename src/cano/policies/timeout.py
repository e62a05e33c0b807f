"""An end to every attempt."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any, cast

import msgspec

from cano.context import Context
from cano.errors import AttemptTimeoutError, DefinitionError
from cano.policies.policy import Call, Decorating, T, is_number


class Timeout(msgspec.Struct, Decorating, frozen=True):
    """Cancel a call that takes longer than *seconds*; it fails with `AttemptTimeoutError`.

    Inside a `Retry` every attempt has its own time. A call that heeds no cancellation is cancelled
    again every 50 ms, also while it cleans up: put what needs longer than that into a task of its
    own. A call that returns a value after all has succeeded.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not (is_number(self.seconds, 0) and self.seconds):
            raise DefinitionError(f"Timeout({self.seconds!r}) leaves no time; pass seconds > 0")

    def problem(self, total: float | None, /) -> str | None:
        """Why this makes no sense where a run has *total* seconds."""
        if total is None or self.seconds <= total:
            return None
        return f"{self} outlasts the {total:g} s a whole run has; shorten it or raise timeout="

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Give *call* a deadline, counted from when it is made."""
        seconds = self.seconds

        async def timed(ctx: Context[Any]) -> T:
            alarm = ctx._alarm or ctx.alarm
            outer = alarm.innermost
            when = alarm.now() + seconds  # `push` and `pop` by hand: two calls less an attempt
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

        vars(timed)["_timed"] = (timed, call, seconds)  # see `parts`
        return timed


def parts(timed: Call[T]) -> tuple[Call[T], float] | None:
    """The call and the seconds, if *timed* is what a `Timeout` made of them."""
    # Not getattr(): users' callables may have any attribute, and mocks have every one.
    found: Any = getattr(timed, "__dict__", {}).get("_timed")
    # What others wrap around it, with functools.wraps, has the attribute too.
    ours = isinstance(found, tuple) and cast("Any", found)[0] is timed
    return cast("tuple[Call[T], float]", found[1:]) if ours else None


def late(ctx: Context[Any], seconds: float) -> AttemptTimeoutError:
    """The error of an attempt that took too long."""
    return AttemptTimeoutError(
        f"attempt {ctx.attempt} in {ctx.state.name} took longer than {seconds:g} s"
    )
