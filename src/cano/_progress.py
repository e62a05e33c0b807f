"""What a task has done within its visit, so that a resumed visit does not do it again.

Each thing is found again by family, branch and name. What has no name of its own is counted
within the attempt: the same code asks for the same things in the same order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf, isnan
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from cano._host import Parked
from cano._values import ValueType, raw, value_type
from cano.errors import EffectInDoubtError, ProgressMismatchError, SignalTimeoutError
from cano.events import (
    EffectDone,
    EffectIntended,
    SignalReceived,
    TimerSet,
    WaitStarted,
)

if TYPE_CHECKING:
    from cano._host import Resolution
    from cano.context import Context

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PARK_AFTER = 1.0
"""Seconds of waiting from which on a run that only waits lets go of its asyncio task."""


FOREVER = 1e11
"""Seconds that nobody waits for: JSON has no infinity."""


class Signal(NamedTuple, Generic[T_co]):
    """A signal that came: its name, and what was sent with it."""

    name: str
    value: T_co


async def sleep(ctx: Context[Any], seconds: float, name: str, *, park: bool) -> None:
    """Wait, with a store until a moment that a resumed run still knows."""
    host = ctx.host
    key = name or ctx.next_name()
    visit, branch = host.history.visit, ctx.branch_name
    if visit.of("signal", branch, key) or visit.of("wait", branch, key):
        raise _mismatch(ctx, key, "sleeps", "waited for a signal")
    timer: TimerSet | None = visit.of("timer", branch, key)
    if timer is None:
        timer = TimerSet(name=key, until=host.now() + finite(seconds))
        await ctx.record(timer)
    await _until(ctx, timer.until, park=park)


async def _until(ctx: Context[Any], moment: float, *, park: bool) -> None:
    while (left := moment - ctx.host.now()) > 0:
        if park and left > PARK_AFTER and ctx.host.may_park and ctx.branch is None:
            raise Parked(moment)
        await ctx.pause(left)


async def wait(
    ctx: Context[Any],
    wanted: dict[str, ValueType],
    timeout: float | None,
    name: str,
    *,
    park: bool = False,
) -> Signal[Any]:
    """The next signal of one of these names. Raises `SignalTimeoutError`."""
    host = ctx.host
    key = name or ctx.next_name()
    visit, branch = host.history.visit, ctx.branch_name
    if visit.of("timer", branch, key) is not None:
        raise _mismatch(ctx, key, f"waits for {_names(wanted)}", "slept")
    got: SignalReceived | None = visit.of("signal", branch, key)
    if got is not None:
        if got.signal not in wanted:
            raise _mismatch(ctx, key, f"waits for {_names(wanted)}", f"got {got.signal!r}")
        return Signal(got.signal, wanted[got.signal].read(got.value))
    begun: WaitStarted | None = visit.of("wait", branch, key)
    until = _deadline(begun, timeout, host.now())
    while True:
        await host.look()
        if (letter := host.mailbox.take(wanted)) is not None:
            received = SignalReceived(
                name=key, signal=letter.name, number=letter.number, value=raw(letter.value)
            )
            await ctx.keep(received)
            return Signal(letter.name, wanted[letter.name].read(letter.value))
        left = until - host.now()
        if left <= 0:
            raise SignalTimeoutError(
                f"{ctx.state.name} waited {timeout:g} s for {_names(wanted)}, and it did not come"
            )
        if begun is None:
            limit = 0.0 if until == inf else until
            begun = WaitStarted(name=key, signals=tuple(wanted), until=limit)
            await ctx.keep(begun)
            continue  # something may have come meanwhile
        if park and left > PARK_AFTER and host.may_park and ctx.branch is None:
            raise Parked(until)
        await host.mailbox.wait(None if until == inf else left)


def _deadline(begun: WaitStarted | None, timeout: float | None, now: float) -> float:
    """When a wait is over; a resumed one only has what is left."""
    if begun is not None:
        return begun.until or inf
    if timeout is None or timeout == inf:
        return inf
    return now + finite(timeout)


def finite(seconds: float) -> float:
    """*seconds*, infinity as a very long time. Raises `ValueError` for what is no number."""
    if isnan(seconds):
        raise ValueError("nan is no time to wait; pass seconds")
    return min(max(seconds, 0.0), FOREVER)


def signals(wanted: Sequence[str] | str, kind: Any) -> dict[str, ValueType]:
    """How the values of signals of these names are read."""
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    return {name: value_type(kind, f"signal {name!r}") for name in names}


async def effect(
    ctx: Context[Any],
    name: str,
    call: Callable[[], Awaitable[T]],
    kind: ValueType,
    verify: Callable[[], Awaitable[T | None]] | None,
    *,
    idempotent: bool,
) -> T:
    """Make *call* unless it is known to have happened."""
    host = ctx.host
    found: EffectDone | EffectIntended | None = host.history.visit.of(
        "effect", ctx.branch_name, name
    )
    if isinstance(found, EffectDone):
        done: T = kind.read(found.value)
        return done
    if found is not None and not idempotent:
        if verify is not None:
            if (verified := await verify()) is not None:
                await ctx.record(EffectDone(name=name, value=kind.write(verified)))
                return verified
        elif found.sequence <= host.inherited:
            told = await _decided(ctx, found)
            if told.value is not None:
                done = kind.read(told.value)
                await ctx.record(EffectDone(name=name, value=raw(told.value)))
                return done
            await ctx.record(EffectIntended(name=name, number=host.mailbox.last))
    elif not idempotent:
        await ctx.record(EffectIntended(name=name, number=host.mailbox.last))
    value = await call()
    await ctx.record(EffectDone(name=name, value=kind.write(value)))
    return value


async def _decided(ctx: Context[Any], intended: EffectIntended) -> Resolution:
    """What a person said of an effect in doubt. Raises `EffectInDoubtError` if nobody has."""
    await ctx.host.look()
    from shlex import quote  # noqa: PLC0415 -- only who is in doubt pays for it

    name = f"{ctx.branch_name}/{intended.name}" if ctx.branch_name else intended.name
    told = ctx.host.resolutions.get(name)
    if told is None or told.number <= intended.number or told.seen < intended.sequence:
        raise EffectInDoubtError(
            f"effect {name!r} of {ctx.state.name} had begun when its process died, and may have "
            f"happened; find out, and say so: cano runs resolve {ctx.run_id} {quote(name)} "
            "--done VALUE, "
            "or --again. With verify= or idempotent=True nobody need be asked"
        )
    return told


def _mismatch(ctx: Context[Any], key: str, now: str, then: str) -> ProgressMismatchError:
    return ProgressMismatchError(
        f"{ctx.state.name} {now} at {key!r}, but when it ran before it {then} there; between "
        "durable calls a task must do the same again, or give each of them a name"
    )


def _names(wanted: dict[str, ValueType]) -> str:
    return " or ".join(map(repr, wanted))
