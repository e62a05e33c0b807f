"""Leave a dependency alone that keeps failing, and find out gently when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from threading import RLock
from time import monotonic  # noqa: TID251 -- for threads without a loop
from types import TracebackType
from typing import Any, Self

from cano._clock import loop_time
from cano.context import Context
from cano.errors import CircuitOpenError, DefinitionError
from cano.events import CallRefused, CircuitChanged
from cano.policies._circuit import Circuit, CircuitState, Ticket, judged, problems
from cano.policies.policy import Call, Decorating, T
from cano.policies.retry import Which

__all__ = ["CircuitBreaker", "CircuitState", "Permit"]


class CircuitBreaker(Decorating):
    """Refuse calls for *reset* seconds once *failures* of them in a row have failed.

    Then *probes* calls at a time are let through; as many successes close the circuit, one failure
    opens it again. Probes that have not come back *reset* seconds after the last of them was let
    through make room for others. An infinite *reset* keeps the circuit open until `close`. Refused
    calls raise `CircuitOpenError`, which `Retry()` does not try again.

    *on* says which errors count as failures: types, or a predicate. All others are answers, and so
    successes. A call that was cancelled, or that a policy further inside refused, is neither.

    Share one object among all calls to one dependency, in whatever states, runs, workflows, event
    loops and threads. Outside of workflows use it as a decorator, with ``async with breaker:``, or
    ``with breaker.acquire():``. *on_change* is called with the states before and after; it must
    not block. *clock* returns seconds; by default it is that of the running loop, or, in a thread
    without one, of the latest. A clock that goes back counts as no time passed.
    """

    __slots__ = ("_circuit", "_clock", "_lock", "_on_change", "_why", "name", "on")

    def __init__(
        self,
        failures: int = 5,
        *,
        reset: float = 30.0,
        probes: int = 1,
        on: Which = Exception,
        name: str = "",
        on_change: Callable[[CircuitState, CircuitState], object] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        settings = {"failures": failures, "reset": reset, "probes": probes, "on": on, "name": name}
        if bad := ", ".join(problems(settings | {"on_change": on_change, "clock": clock})):
            raise DefinitionError(f"CircuitBreaker cannot work with {bad}")
        self.on: Which = on
        self.name: str = name
        self._circuit = Circuit(failures, float(reset), probes)
        self._clock = clock or _loops()
        self._on_change = on_change
        self._why = ""
        self._lock = RLock()  # a probe that is garbage is given back in the middle of anything

    @property
    def failures(self) -> int:
        """How many failures in a row open the circuit."""
        return self._circuit.failures

    @property
    def reset(self) -> float:
        """Seconds that it stays open."""
        return self._circuit.reset

    @property
    def probes(self) -> int:
        """How many calls it lets through at once to find out, and how many must succeed."""
        return self._circuit.probes

    @property
    def state(self) -> CircuitState:
        """What it does with calls. Open becomes half-open with the first call after *reset*."""
        return self._circuit.state

    @property
    def retry_after(self) -> float:
        """Seconds for which every call will be refused; 0 where one may get through."""
        now = self._clock()
        with self._lock:
            return self._circuit.left(now)

    @property
    def failures_in_a_row(self) -> int:
        """How many calls have failed since the last that succeeded."""
        return self._circuit.in_a_row

    def __repr__(self) -> str:
        state, left = self.state, self.retry_after
        more = {
            CircuitState.CLOSED: f", {self.failures_in_a_row} of {self.failures} failures",
            CircuitState.OPEN: f" {_lasting(left)}" if left else ", a probe is due",
            CircuitState.HALF_OPEN: f", {self._circuit.passed} of {self.probes} probes succeeded",
        }
        return f"<CircuitBreaker{f' {self.name!r}' if self.name else ''} {state}{more[state]}>"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Make *call* where the circuit allows it, and learn from what comes of it."""
        circuit = self._circuit

        async def breaking(ctx: Context[Any]) -> T:
            epoch = circuit.admits
            if not epoch:
                return await self._probe(call, ctx)
            try:
                value = await call(ctx)
            except Exception as error:
                self._settle((epoch, 0), error, ctx)
                raise
            if circuit.in_a_row:  # or there is nothing to forget
                self._settle((epoch, 0), None, ctx)
            return value

        breaking.foresees = (breaking, self._foresee)  # type: ignore[attr-defined]  # see `Retry`
        return breaking

    def try_acquire(self) -> Permit | None:
        """Ask to make one call; None means no. Give the permit back, best with `with`."""
        if epoch := self._circuit.admits:
            return Permit(self, (epoch, 0))
        ticket = self._enter(None)
        return None if ticket is None else Permit(self, ticket)

    def acquire(self) -> Permit:
        """Ask to make one call. Raises `CircuitOpenError` where it is not to be made."""
        if (permit := self.try_acquire()) is None:
            raise self._refusal()
        return permit

    def trip(self) -> None:
        """Open the circuit by hand, for *reset* seconds from now. Calls under way do not count."""
        self._why = "it was opened by hand"
        self._move(CircuitState.OPEN)

    def close(self) -> None:
        """Close the circuit by hand, and forget all failures. Calls under way do not count."""
        self._move(CircuitState.CLOSED)

    async def __aenter__(self) -> Permit:
        epoch = self._circuit.admits
        permit = Permit(self, (epoch, 0)) if epoch else self.acquire()
        _entered.set((permit, *_entered.get()))
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        permits = _entered.get()
        for place, permit in enumerate(permits):
            if permit._breaker is self:
                _entered.set(permits[:place] + permits[place + 1 :])
                permit.__exit__(kind, error, None)
                return
        if kind is not GeneratorExit:  # a task that was dropped; a probe of it will expire
            raise RuntimeError(
                f"{self!r} was entered in another task; "
                "use `with breaker.acquire():` where enter and exit are not in the same one"
            )

    async def _probe(self, call: Call[T], ctx: Context[Any]) -> T:
        """Make *call* if the circuit lets it through, which is not simply closed."""
        ticket = self._enter(ctx)
        if ticket is None:
            error = self._refusal()
            if ctx.listens(CallRefused):
                by = self.name or type(self).__name__
                ctx.emit(CallRefused(by=by, retry_after=error.retry_after))
            raise error
        try:
            value = await call(ctx)
        except BaseException as error:
            self._settle(ticket, error, ctx)
            raise
        self._settle(ticket, None, ctx)
        return value

    def _enter(self, ctx: Context[Any] | None) -> Ticket | None:
        now, circuit = self._clock(), self._circuit
        with self._lock:
            before = circuit.state
            ticket = circuit.enter(now)
            after = circuit.state
        if before is not after:
            self._tell(before, after, ctx)
        return ticket

    def _settle(
        self, ticket: Ticket, error: BaseException | None, ctx: Context[Any] | None = None
    ) -> None:
        """Give *ticket* back, with what the call raised or None for a success."""
        succeeded = None
        try:
            succeeded = judged(error, self.on)
        finally:  # the predicate is the user's, and may raise
            self._leave(ticket, succeeded, error, ctx)

    def _leave(
        self,
        ticket: Ticket,
        succeeded: bool | None,
        error: BaseException | None = None,
        ctx: Context[Any] | None = None,
    ) -> None:
        now, circuit = self._clock(), self._circuit
        with self._lock:
            before, failed = circuit.state, circuit.in_a_row + 1
            circuit.leave(ticket, succeeded, now)
            after = circuit.state
        if before is after:
            return
        if after is CircuitState.OPEN:
            self._why = _reason(failed, error)
        self._tell(before, after, ctx)

    def _move(self, state: CircuitState) -> None:
        now, circuit = self._clock(), self._circuit
        with self._lock:
            before = circuit.state
            circuit.move(state, now)
        if before is not state:
            self._tell(before, state, None)

    def _tell(self, before: CircuitState, after: CircuitState, ctx: Context[Any] | None) -> None:
        if ctx is not None and ctx.listens(CircuitChanged):
            ctx.emit(CircuitChanged(circuit=self.name, before=before.value, after=after.value))
        if self._on_change is None:
            return
        try:
            self._on_change(before, after)
        except Exception:
            import logging  # noqa: PLC0415 -- nobody pays for it before something is wrong

            logging.getLogger("cano.circuit").exception("on_change of %r raised", self)

    def _foresee(self) -> CircuitOpenError | None:
        """The refusal that a call made now would meet, if that is certain."""
        return self._refusal() if self.state is CircuitState.OPEN else None

    def _refusal(self) -> CircuitOpenError:
        left = self.retry_after
        which = f"the circuit {self.name!r}" if self.name else "the circuit"
        if self.state is CircuitState.OPEN:
            text = f"is open {_lasting(left)}, because {self._why}"
            remedy = "wait that long, or close() it if you know better"
        else:
            text = f"is half-open, and as many probes are out as may be at once ({self.probes})"
            remedy = "try again when one is back"
        return CircuitOpenError(f"{which} {text}; {remedy}", left)


class Permit:
    """Leave to make one call. As a context manager it is given back in any case.

    An exception that leaves the block is judged as one of a guarded call; what is not an
    `Exception`, such as a cancellation, is neither success nor failure. The first word counts.
    """

    __slots__ = ("_breaker", "_ticket")

    def __init__(self, breaker: CircuitBreaker, ticket: Ticket) -> None:
        self._breaker = breaker
        self._ticket: Ticket | None = ticket

    def __repr__(self) -> str:
        given = "given back to" if self._ticket is None else "of"
        return f"<Permit {given} {self._breaker!r}>"

    def success(self) -> None:
        """Say that the dependency is well."""
        if (ticket := self._take()) is not None:
            self._breaker._leave(ticket, succeeded=True)

    def failure(self, error: Exception | None = None) -> None:
        """Say that it is not. *error* is for the message of refusals, and counts in any case."""
        if (ticket := self._take()) is not None:
            self._breaker._leave(ticket, succeeded=False, error=error)

    def release(self) -> None:
        """Say nothing."""
        if (ticket := self._take()) is not None:
            self._breaker._leave(ticket, succeeded=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        if error is not None or ticket[1] or self._breaker._circuit.in_a_row:
            self._breaker._settle(ticket, error)  # or there is nothing to learn

    def _take(self) -> Ticket | None:
        ticket, self._ticket = self._ticket, None
        return ticket


_entered: ContextVar[tuple[Permit, ...]] = ContextVar("cano_circuit", default=())
"""The permits of ``async with``, latest first: tasks share a breaker, but not these."""


def _loops() -> Callable[[], float]:
    """A clock with the running loop's time; in a thread without one, with the latest loop's."""
    source = monotonic

    def now() -> float:
        nonlocal source
        with suppress(RuntimeError):
            source = loop_time(asyncio.get_running_loop())
        return source()

    return now


def _lasting(seconds: float) -> str:
    return "until it is closed by hand" if seconds == inf else f"for another {seconds:.3g} s"


def _reason(failed: int, error: BaseException | None) -> str:
    calls = "1 call" if failed == 1 else f"{failed} calls in a row"
    if error is None:
        return f"{calls} failed"
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001 -- whatever the user's class does, its name is good enough
        text = type(error).__name__
    return f"{calls} failed, the last with {text if len(text) <= 200 else text[:199] + '…'}"
