"""`CircuitBreaker`: when it opens, for how long, what it lets through then, and when it closes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from cano import CircuitBreaker, CircuitOpenError, CircuitState
from cano.errors import DefinitionError
from cano.policies.circuit import Permit

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Clock:
    """Time that is set by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().failure()


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().success()


def half_open(clock: Clock, probes: int) -> tuple[CircuitBreaker, list[Permit]]:
    """A breaker with all its probes out."""
    breaker = CircuitBreaker(1, reset=30, probes=probes, clock=clock)
    fail(breaker)
    clock.now += 30
    return breaker, [breaker.acquire() for _ in range(probes)]


def test_starts_closed_and_opens_at_the_fifth_failure() -> None:
    """By default five failures in a row open it, for 30 s; not four."""
    breaker = CircuitBreaker(clock=Clock())
    fail(breaker, 4)
    assert (CLOSED, 4, 0.0) == (breaker.state, breaker.failures_in_a_row, breaker.retry_after)
    fail(breaker)
    assert (OPEN, 5, 30.0) == (breaker.state, breaker.failures_in_a_row, breaker.retry_after)


def test_only_failures_in_a_row_count() -> None:
    """A success forgets the failures before it."""
    breaker = CircuitBreaker(3)
    for _ in range(5):
        fail(breaker, 2)
        succeed(breaker)
    assert (CLOSED, 0) == (breaker.state, breaker.failures_in_a_row)


def test_refuses_until_the_time_has_come() -> None:
    """Open, it refuses every call, and says for how long it will."""
    clock = Clock()
    breaker = CircuitBreaker(1, reset=30, clock=clock)
    fail(breaker)
    clock.now += 10
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert 20.0 == caught.value.retry_after == breaker.retry_after
    assert None is breaker.try_acquire()
    clock.now += 19.9
    assert None is breaker.try_acquire()
    clock.now += 0.1
    assert None is not breaker.try_acquire()


def test_reading_changes_nothing() -> None:
    """When the time has come the first call makes it half-open, and not whoever looks at it."""
    clock = Clock()
    breaker = CircuitBreaker(1, reset=30, clock=clock)
    fail(breaker)
    clock.now += 99
    assert (OPEN, 0.0) == (breaker.state, breaker.retry_after)
    repr(breaker)
    assert OPEN is breaker.state
    permit = breaker.acquire()
    assert HALF_OPEN is breaker.state
    permit.success()
    assert CLOSED is breaker.state


def test_lets_so_many_probes_through_at_once() -> None:
    """Half-open, a call above the number of probes is refused, and not told how long to wait."""
    breaker, _ = half_open(Clock(), 2)
    with pytest.raises(CircuitOpenError, match="half-open") as caught:
        breaker.acquire()
    assert 0.0 == caught.value.retry_after


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_as_many_successes_close_it(probes: int) -> None:
    """It takes as many successes as probes may be out to close it, and all of them."""
    breaker, permits = half_open(Clock(), probes)
    for permit in permits[:-1]:
        permit.success()
    assert HALF_OPEN is breaker.state
    permits[-1].success()
    assert (CLOSED, 0) == (breaker.state, breaker.failures_in_a_row)


def test_probes_that_are_back_make_room() -> None:
    """A finished probe frees its place, so more of them than may be out at once may be made."""
    breaker, permits = half_open(Clock(), 3)
    permits[0].success()
    fourth = breaker.acquire()
    permits[1].success()
    permits[2].success()
    assert CLOSED is breaker.state
    fourth.failure()
    assert (CLOSED, 0) == (breaker.state, breaker.failures_in_a_row)


def test_one_failing_probe_opens_it_again() -> None:
    """One failure suffices, for the whole time again, and earlier successes are forgotten."""
    clock = Clock()
    breaker, (first, second) = half_open(clock, 2)
    first.success()
    second.failure()
    assert (OPEN, 30.0) == (breaker.state, breaker.retry_after)
    clock.now += 30
    succeed(breaker)
    assert HALF_OPEN is breaker.state
    succeed(breaker)
    assert CLOSED is breaker.state


def test_one_failing_probe_suffices_whatever_the_count() -> None:
    """A probe that fails opens it again although fewer have failed in a row than it takes closed."""
    clock = Clock()
    breaker = CircuitBreaker(5, reset=30, clock=clock)
    breaker.trip()
    clock.now += 30
    fail(breaker)
    assert (OPEN, 1) == (breaker.state, breaker.failures_in_a_row)


@pytest.mark.parametrize("late", [Permit.success, Permit.failure, Permit.release])
def test_what_comes_back_too_late_is_ignored(late: Callable[[Permit], None]) -> None:
    """A result counts only while the circuit is in the state in which the call was let through."""
    clock = Clock()
    breaker = CircuitBreaker(1, reset=30, clock=clock)
    from_closed, another = breaker.acquire(), breaker.acquire()
    fail(breaker)
    late(from_closed)
    assert (OPEN, 30.0, 1) == (breaker.state, breaker.retry_after, breaker.failures_in_a_row)
    clock.now += 30
    probe = breaker.acquire()
    late(another)
    assert (HALF_OPEN, None) == (breaker.state, breaker.try_acquire())
    probe.failure()
    clock.now += 10
    late(probe)
    assert (OPEN, 20.0) == (breaker.state, breaker.retry_after)


def test_a_probe_that_never_comes_back_makes_room() -> None:
    """A lost permit blocks the others for as long as the circuit was open, and not for ever."""
    clock = Clock()
    breaker, _ = half_open(clock, 2)
    clock.now += 29
    assert None is breaker.try_acquire()
    clock.now += 1
    permits = [breaker.try_acquire() for _ in range(3)]
    assert [True, True, False] == [permit is not None for permit in permits]


@pytest.mark.parametrize(("give", "state"), [(Permit.success, CLOSED), (Permit.failure, OPEN)])
def test_a_slow_probe_counts_all_the_same(
    give: Callable[[Permit], None], state: CircuitState
) -> None:
    """A probe that took longer has still found something out, or slow calls would never close it."""
    clock = Clock()
    breaker, (slow,) = half_open(clock, 1)
    clock.now += 45
    breaker.acquire()
    give(slow)
    assert state is breaker.state


def test_opened_by_hand() -> None:
    """`trip` opens it from any state, and open, for the whole time again."""
    clock = Clock()
    breaker = CircuitBreaker(reset=30, clock=clock)
    under_way = breaker.acquire()
    breaker.trip()
    clock.now += 20
    with pytest.raises(CircuitOpenError, match="because it was opened by hand"):
        breaker.acquire()
    breaker.trip()
    under_way.success()
    assert (OPEN, 30.0) == (breaker.state, breaker.retry_after)
    clock.now += 30
    assert None is not breaker.try_acquire()
    breaker.trip()
    assert (OPEN, 30.0) == (breaker.state, breaker.retry_after)


def test_closed_by_hand() -> None:
    """`close` closes it from any state, and forgets all failures, those under way too."""
    breaker = CircuitBreaker(2)
    under_way = breaker.acquire()
    fail(breaker, 2)
    breaker.close()
    under_way.failure()
    assert (CLOSED, 0) == (breaker.state, breaker.failures_in_a_row)
    fail(breaker)
    breaker.close()
    fail(breaker)
    assert (CLOSED, 1) == (breaker.state, breaker.failures_in_a_row)


@pytest.mark.parametrize("reset", [inf, 1e300, 10**300])
def test_huge_times(reset: float) -> None:
    """However long it is to stay open, it does, can say so, and can be closed by hand."""
    clock = Clock()
    breaker = CircuitBreaker(1, reset=reset, clock=clock)
    fail(breaker)
    clock.now += 1e12
    assert OPEN is breaker.state
    assert float(reset) == breaker.retry_after
    with pytest.raises(CircuitOpenError, match="by hand" if reset == inf else r"1e\+300 s"):
        breaker.acquire()
    breaker.close()
    succeed(breaker)
    assert CLOSED is breaker.state


def test_a_clock_that_goes_back() -> None:
    """No time has passed on it: it stays open for the whole time at most, and a probe is out so."""
    clock = Clock()
    breaker = CircuitBreaker(1, reset=30, clock=clock)
    fail(breaker)
    clock.now -= 900
    assert 30.0 == breaker.retry_after
    clock.now += 30
    breaker.acquire()
    clock.now -= 100
    assert None is breaker.try_acquire()
    clock.now += 30
    assert None is not breaker.try_acquire()


def test_tells_of_every_change_once() -> None:
    """`on_change` hears of each change of state, in order; and of no call that changes nothing."""
    changes: list[tuple[CircuitState, CircuitState]] = []
    clock = Clock()
    breaker = CircuitBreaker(
        2, probes=2, clock=clock, on_change=lambda before, after: changes.append((before, after))
    )
    fail(breaker, 2)
    breaker.trip()
    clock.now += 30
    fail(breaker)
    clock.now += 30
    succeed(breaker, 4)
    breaker.close()
    there_and_back = [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (OPEN, HALF_OPEN)]
    assert [*there_and_back, (HALF_OPEN, CLOSED)] == changes


def test_what_on_change_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A listener in trouble does not get into the way of calls, and may use the breaker."""

    def listen(before: CircuitState, after: CircuitState) -> None:
        assert breaker.state is after
        raise ValueError("too loud")

    breaker = CircuitBreaker(1, on_change=listen, name="loud")
    fail(breaker)
    assert OPEN is breaker.state
    assert "on_change of <CircuitBreaker 'loud' open" in caplog.text
    assert "too loud" in caplog.text


def test_says_why_it_refuses() -> None:
    """A refusal names the circuit, how long, what the last failure was, and what to do."""
    breaker = CircuitBreaker(2, name="payments", clock=Clock())
    fail(breaker)
    breaker.acquire().failure(ConnectionError("down"))
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert (
        "the circuit 'payments' is open for another 30 s, because 2 calls in a row failed, "
        "the last with ConnectionError('down'); wait that long, or close() it if you know better"
    ) == str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(caught.value), 30.0) == (str(again), again.retry_after)


def test_an_error_that_cannot_be_shown() -> None:
    """An error with a broken or an endless text does not get into the way."""

    class MuteError(Exception):
        def __repr__(self) -> str:
            raise ValueError

    for error, said in ((MuteError(), "with MuteError;"), (ValueError("x" * 999), "xxx…;")):
        breaker = CircuitBreaker(1)
        breaker.acquire().failure(error)
        with pytest.raises(CircuitOpenError, match=said):
            breaker.acquire()


def test_repr() -> None:
    """The state can be read off it, in every state."""
    clock = Clock()
    breaker = CircuitBreaker(2, probes=2, name="payments", clock=clock)
    fail(breaker)
    assert "<CircuitBreaker 'payments' closed, 1 of 2 failures>" == repr(breaker)
    permit = breaker.acquire()
    assert f"<Permit of {breaker!r}>" == repr(permit)
    permit.failure()
    assert f"<Permit given back to {breaker!r}>" == repr(permit)
    assert "<CircuitBreaker 'payments' open for another 30 s>" == repr(breaker)
    clock.now += 30
    assert "<CircuitBreaker 'payments' open, a probe is due>" == repr(breaker)
    succeed(breaker)
    assert "<CircuitBreaker 'payments' half-open, 1 of 2 probes succeeded>" == repr(breaker)
    assert "<CircuitBreaker closed, 0 of 5 failures>" == repr(CircuitBreaker())


def test_settings_can_be_read() -> None:
    """What it was made with is there to be looked at."""
    breaker = CircuitBreaker(3, reset=7, probes=2, on=OSError, name="x")
    settings = (breaker.failures, breaker.reset, breaker.probes, breaker.on, breaker.name)
    assert (3, 7.0, 2, OSError, "x") == settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"failures": 0}, "failures=0: a whole number, 1 or more"),
        ({"failures": -1}, "failures=-1: a whole number, 1 or more"),
        ({"failures": 2.5}, "failures=2.5: a whole number, 1 or more"),
        ({"failures": inf}, "failures=inf: a whole number, 1 or more"),
        ({"failures": True}, "failures=True: a whole number, 1 or more"),
        ({"probes": 0}, "probes=0: a whole number, 1 or more"),
        ({"probes": nan}, "probes=nan: a whole number, 1 or more"),
        ({"probes": "1"}, "probes='1': a whole number, 1 or more"),
        ({"reset": 0}, "reset=0: seconds, more than 0"),
        ({"reset": -1.0}, "reset=-1.0: seconds, more than 0"),
        ({"reset": nan}, "reset=nan: seconds, more than 0"),
        ({"reset": None}, "reset=None: seconds, more than 0"),
        ({"reset": True}, "reset=True: seconds, more than 0"),
        ({"reset": 10**400}, "000: seconds, more than 0"),
        ({"on": ()}, "on=(): types of Exception, or a function of the error"),
        ({"on": BaseException}, "types of Exception, or a function of the error"),
        ({"on": (OSError, "x")}, "types of Exception, or a function of the error"),
        ({"on": [OSError]}, "types of Exception, or a function of the error"),
        ({"name": None}, "name=None: a text"),
        ({"on_change": 1}, "on_change=1: a function"),
        ({"clock": 5.0}, "clock=5.0: a function"),
        ({"failures": 0, "probes": 0}, "1 or more, probes=0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    """A breaker that cannot work is not made, and the error says everything that is wrong."""
    with pytest.raises(DefinitionError) as caught:
        CircuitBreaker(**settings)
    assert str(caught.value).startswith("CircuitBreaker cannot work with ")
    assert problem in str(caught.value)
