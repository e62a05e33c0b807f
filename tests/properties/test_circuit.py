"""`CircuitBreaker` against a model that remembers everything that was ever said to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cano import CircuitBreaker, CircuitState
from cano.errors import CallRefusedError, RateLimitedError
from cano.policies.circuit import Permit
from cano.testing import run

RESET = 10.0

steps = st.one_of(
    st.tuples(st.just("ask"), st.just(0)),
    st.tuples(st.sampled_from(["success", "failure", "release"]), st.integers(0, 5)),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 4, 5, 9, 10, 11, 30])),
    st.tuples(st.just("back"), st.sampled_from([1, 7, 1000])),
    st.tuples(st.sampled_from(["trip", "close"]), st.just(0)),
)


@dataclass
class Call:
    """A call that was let through, and where it belongs."""

    session: int
    since: float = 0.0
    probe: bool = False
    holds: bool = True
    """Whether it still takes a probe's place."""


class Model:
    """The rules word by word, over lists of all that happened; slow, and without cleverness."""

    def __init__(self, failures: int, probes: int) -> None:
        self.failures, self.probes = failures, probes
        self.now = self.opened = 0.0
        self.state = "closed"
        self.sessions = 0
        self.said: list[bool] = []  # by the calls of this session
        self.calls: list[Call] = []

    def enter(self, state: str) -> None:
        self.state, self.opened, self.said = state, self.now, []
        self.sessions += 1

    @property
    def left(self) -> float:
        return max(0.0, self.opened + RESET - self.now) if self.state == "open" else 0.0

    def ask(self) -> Call | None:
        if self.left:
            return None
        if self.state == "open":
            self.enter("half-open")
        call = Call(self.sessions, self.now, probe=self.state == "half-open")
        if call.probe:
            out = [c for c in self.calls if c.session == self.sessions and c.probe and c.holds]
            if len(out) >= self.probes:
                if any(self.now - other.since < RESET for other in out):
                    return None
                for other in out:
                    other.holds = False
        self.calls.append(call)
        return call

    def back(self, call: Call, said: bool | None) -> None:
        call.holds = False
        if call.session != self.sessions or said is None:
            return
        self.said.append(said)
        if self.state == "half-open":
            if not said:
                self.enter("open")
            elif self.said.count(True) >= self.probes:
                self.enter("closed")
        elif self.said[-self.failures :] == [False] * self.failures:
            self.enter("open")

    def go_back(self, seconds: float) -> None:
        """The clock shows less: what began later than that has only just begun."""
        self.now -= seconds
        self.opened = min(self.opened, self.now)
        for call in self.calls:
            call.since = min(call.since, self.now)


@given(st.integers(1, 4), st.integers(1, 3), st.lists(steps, max_size=60))
def test_does_what_the_model_does(
    failures: int, probes: int, script: list[tuple[str, int]]
) -> None:
    """After any story of calls, losses, waits and clocks that go back, both say the same."""
    model = Model(failures, probes)
    breaker = CircuitBreaker(failures, reset=RESET, probes=probes, clock=lambda: model.now)
    out: list[tuple[Call, Permit]] = []
    for action, number in script:
        if action == "ask":
            call, permit = model.ask(), breaker.try_acquire()
            assert (call is None) == (permit is None)
            if call is not None and permit is not None:
                out.append((call, permit))
        elif action == "wait":
            model.now += number
        elif action == "back":
            model.go_back(number)
            if model.state == "half-open":  # which is seen by whoever asks meanwhile
                assert (model.ask() is None) == (breaker.try_acquire() is None)
        elif action == "trip":
            model.enter("open")
            breaker.trip()
        elif action == "close":
            model.enter("closed")
            breaker.close()
        elif out:
            call, permit = out.pop(number % len(out))
            if action != "lose":
                model.back(call, {"success": True, "failure": False, "release": None}[action])
                getattr(permit, action)()
        assert (model.state, model.left) == (breaker.state, breaker.retry_after)


@given(st.floats(0, 1e8), st.floats(0.001, 1e5), st.floats(0, 1))
def test_who_waits_as_long_as_told_is_let_through(
    opened: float, reset: float, share: float
) -> None:
    """A timer set to `retry_after` is never too short, nor longer than the circuit is to be open."""
    now = opened
    breaker = CircuitBreaker(reset=reset, clock=lambda: now)
    breaker.trip()
    assert breaker.retry_after <= reset
    now += reset * share
    now += breaker.retry_after - 1e-9  # timers may be early by the clock's resolution
    assert breaker.try_acquire() is not None


Visit = tuple[float, str, float | None]
"""When a call begins, what comes of it, and after how many seconds it is cancelled, if it is."""

visits = st.tuples(
    st.sampled_from([0, 0, 1, 2, 9, 10, 11, 12, 20, 25, 31]),
    st.sampled_from(["ok", "slow", "fails", "refused"]),
    st.none() | st.sampled_from([0, 0.5, 1, 2]),
)


@given(st.integers(1, 3), st.lists(visits, max_size=30))
def test_a_storm_leaves_it_usable(probes: int, storm: list[Visit]) -> None:
    """Whatever fails or is cancelled and when: never too many probes, and no place is lost."""

    async def main() -> None:
        out: Counter[int] = Counter()
        sessions = 0

        def change(_: CircuitState, after: CircuitState) -> None:
            nonlocal sessions
            sessions += after is CircuitState.HALF_OPEN

        breaker = CircuitBreaker(2, reset=RESET, probes=probes, on_change=change)

        @breaker
        async def call(comes: str) -> None:
            mine = sessions if breaker.state is CircuitState.HALF_OPEN else 0
            out[mine] += 1
            assert mine == 0 or out[mine] <= probes
            try:
                await asyncio.sleep(5 if comes == "slow" else 1)
                if comes == "fails":
                    raise ConnectionError
                if comes == "refused":
                    raise RateLimitedError("not now")
            finally:
                out[mine] -= 1

        async def visit(begins: float, comes: str, cancelled: float | None) -> None:
            await asyncio.sleep(begins)
            made = asyncio.create_task(call(comes))
            await asyncio.wait({made}, timeout=cancelled)
            made.cancel()
            with suppress(ConnectionError, CallRefusedError, asyncio.CancelledError):
                await made

        await asyncio.gather(*(visit(*each) for each in storm))
        assert +out == Counter()
        await asyncio.sleep(breaker.retry_after)
        await asyncio.gather(*(call("ok") for _ in range(probes)))
        assert CircuitState.CLOSED is breaker.state

    run(main())
