"""`CircuitBreaker` inside a `Retry`: no attempt is wasted, no error lost, and observers are told."""

from __future__ import annotations

import asyncio
from enum import StrEnum, auto
from functools import wraps
from typing import Any

import pytest

from cano import (
    CallRefused,
    CircuitBreaker,
    CircuitChanged,
    CircuitOpenError,
    CircuitState,
    Context,
    Event,
    Retry,
    TaskRetried,
    Timeout,
    Workflow,
    on,
)
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


class Service:
    """Raises what it is told to, attempt after attempt; then answers."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.calls: list[float] = []

    async def __call__(self, ctx: Context) -> Step:
        self.calls.append(asyncio.get_running_loop().time())
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return Step.DONE


def down(times: int) -> Service:
    return Service(*[ConnectionError(f"down {number}") for number in range(times)])


def flow(task: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).register(Step.WORK, task, *policies).exits(Step.DONE)


def failure(workflow: Workflow[Step, Any]) -> Exception:
    with pytest.raises(Exception) as caught:
        run(workflow.run(Step.WORK))
    return caught.value


def notes(error: Exception) -> list[str]:
    """What was noted on *error*, without the engine's own note on the whereabouts."""
    return [note for note in error.__notes__ if not note.startswith("cano: run ")]


def test_an_open_circuit_ends_the_retries_with_the_bare_error() -> None:
    """`Retry()` takes a refusal for an answer: no attempt of the body, no pause, no wrapper."""
    breaker, service = CircuitBreaker(1, name="x"), down(0)
    breaker.trip()
    error = failure(flow(service, Retry(5), breaker))
    assert (CircuitOpenError, []) == (type(error), service.calls)
    assert [] == notes(error)
    assert None is error.__cause__ is error.__context__


def test_every_attempt_counts() -> None:
    """Inside a `Retry` the breaker counts attempts, of all runs that share it."""
    breaker, service = CircuitBreaker(3), down(9)
    failure(flow(service, Retry(2, 0), breaker))
    assert (CircuitState.CLOSED, 2) == (breaker.state, breaker.failures_in_a_row)
    failure(flow(service, Retry(2, 0), breaker))
    assert (CircuitState.OPEN, 3) == (breaker.state, len(service.calls))


def test_no_pause_before_a_refusal() -> None:
    """The attempt that opens the circuit is the last: its own error is raised at once, and noted."""
    retries: list[Event] = []
    breaker, service = CircuitBreaker(2, name="pay"), down(9)
    workflow = flow(
        service, Retry.fixed(6, 10), breaker, observers=[on(TaskRetried)(retries.append)]
    )
    error = failure(workflow)
    assert "ConnectionError('down 1')" == repr(error)
    assert [
        "cano: gave up after 2 attempts: the circuit 'pay' is open for another 30 s, because "
        "2 calls in a row failed, the last with ConnectionError('down 1'); "
        "wait that long, or close() it if you know better"
    ] == notes(error)
    assert ([0, 10], 1) == (service.calls, len(retries))


def test_a_pause_that_outlasts_the_circuit_is_made() -> None:
    """Where the next attempt comes late enough to be a probe, the retries go on."""
    service = down(1)
    assert Step.DONE == run(
        flow(service, Retry.fixed(2, 31), CircuitBreaker(1, reset=30)).run(Step.WORK)
    )
    assert [0, 31] == service.calls


def test_a_retry_of_refusals_waits_for_the_probe() -> None:
    """A `Retry` that was told to try again after refusals pauses until the circuit lets it in."""
    service = down(2)
    retry = Retry.fixed(3, 1, on=(ConnectionError, CircuitOpenError))
    run(flow(service, retry, CircuitBreaker(1, reset=30)).run(Step.WORK))
    assert [0, 30, 60] == service.calls


def test_a_retry_of_refusals_heeds_the_deadline() -> None:
    """Waiting for the probe is a pause like any other: where no time is left, the error is raised."""
    retry = Retry.fixed(3, 1, on=(ConnectionError, CircuitOpenError))
    error = failure(flow(down(9), retry, CircuitBreaker(1, reset=30), timeout=20))
    assert "next pause of 30 s would outlast the 20 s left" in notes(error)[0]


def test_foresight_is_not_handed_on() -> None:
    """What stands between `Retry` and breaker may know better, even if it looks like the call."""
    answers = iter([ConnectionError("down"), None])

    class Cached:
        def wrap(self, call: Any, /) -> Any:
            @wraps(call)
            async def cached(ctx: Context) -> Step:
                try:
                    state: Step = await call(ctx)
                except Exception:
                    if (error := next(answers)) is None:
                        return Step.DONE
                    raise error from None
                return state

            return cached

    workflow = flow(down(9), Retry(3), Cached(), CircuitBreaker(1))
    assert Step.DONE == run(workflow.run(Step.WORK))


def test_timeouts_inside_count() -> None:
    """An attempt that took too long is a failure of the dependency; two open a circuit of two."""

    async def slow(ctx: Context) -> Step:
        await asyncio.sleep(60)
        return Step.DONE

    breaker = CircuitBreaker(2)
    error = failure(flow(slow, Retry(5), breaker, Timeout(1)))
    assert (CircuitState.OPEN, TimeoutError) == (breaker.state, type(error).__mro__[2])
    assert "gave up after 2 attempts" in notes(error)[0]


def test_events() -> None:
    """Observers hear of every change and refusal, where and in which attempt it was."""
    events: list[tuple[Any, ...]] = []

    @on(CircuitChanged, CallRefused)
    def note(event: CircuitChanged | CallRefused) -> None:
        if isinstance(event, CircuitChanged):
            events.append((event.state, event.attempt, event.circuit, event.before, event.after))
        else:
            events.append((event.state, event.attempt, event.by, event.retry_after))

    async def main() -> None:
        breaker = CircuitBreaker(2, name="pay")
        workflow = flow(down(2), Retry(2, 0), breaker, observers=[note])
        for error in (ConnectionError, CircuitOpenError):
            with pytest.raises(error):
                await workflow.run(Step.WORK)
        await asyncio.sleep(30)
        await workflow.run(Step.WORK)

    run(main())
    assert [
        ("WORK", 2, "pay", "closed", "open"),
        ("WORK", 1, "pay", 30.0),
        ("WORK", 1, "pay", "open", "half-open"),
        ("WORK", 1, "pay", "half-open", "closed"),
    ] == events
