"""`CircuitBreaker` around calls: what counts, what is neutral, and who shares it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any

import pytest

from cano import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Context,
    Split,
    Timeout,
    Workflow,
)
from cano.errors import CostError, RateLimitedError, RunCancelledError, RunLostError
from cano.join import Settled
from cano.testing import run
from cano.testing.policies import check_policy


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


def test_a_call_that_succeeds_forgets_the_failures() -> None:
    """Failures of calls count in a row, too."""
    breaker = CircuitBreaker(2)
    workflow = flow(Service(ConnectionError(), None, ConnectionError()), breaker)
    failure(workflow)
    run(workflow.run(Step.WORK))
    assert 0 == breaker.failures_in_a_row
    failure(workflow)
    assert CircuitState.CLOSED is breaker.state


@pytest.mark.parametrize("probing", [False, True])
def test_a_cancellation_is_neutral(probing: bool) -> None:
    """Who is cancelled, by a timeout outside or by hand, has learnt nothing: its place is free."""

    async def slow(ctx: Context) -> Step:
        await asyncio.sleep(60)
        return Step.DONE

    async def main() -> None:
        breaker = CircuitBreaker(1, reset=30)
        if probing:
            breaker.trip()
            await asyncio.sleep(30)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await flow(slow, Timeout(1), breaker).run(Step.WORK)
        handle = await flow(slow, breaker).start_run(Step.WORK)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert 0 == breaker.failures_in_a_row or probing
        assert (CircuitState.HALF_OPEN if probing else CircuitState.CLOSED) is breaker.state
        assert Step.DONE is await flow(down(0), breaker).run(Step.WORK)
        assert CircuitState.CLOSED is breaker.state

    run(main())


@pytest.mark.parametrize(
    "error",
    [
        RateLimitedError("not now", 1.0),
        CircuitOpenError("another one", 1.0),
        CostError("too dear"),
        RunLostError("taken over"),
        ExceptionGroup("", [RateLimitedError("a"), RateLimitedError("b")]),
    ],
)
@pytest.mark.parametrize("which", [Exception, lambda error: True])
def test_calls_that_were_not_made_are_neutral(error: Exception, which: Any) -> None:
    """What a policy further inside refused tells nothing, good or bad, of the dependency."""

    async def main() -> None:
        breaker = CircuitBreaker(2, reset=30, on=which)
        service = Service(ConnectionError(), error, error)
        workflow = flow(service, breaker)
        for expected in (ConnectionError, type(error)):
            with pytest.raises(expected):
                await workflow.run(Step.WORK)
        assert (CircuitState.CLOSED, 1) == (breaker.state, breaker.failures_in_a_row)
        breaker.trip()
        await asyncio.sleep(30)
        with pytest.raises(type(error)):
            await workflow.run(Step.WORK)
        assert "half-open" == breaker.state
        await workflow.run(Step.WORK)
        assert "closed" == breaker.state

    run(main())


@pytest.mark.parametrize(
    "which",
    [ConnectionError, (ConnectionError, TimeoutError), lambda e: not isinstance(e, KeyError)],
)
def test_errors_that_do_not_count_are_answers(which: Any) -> None:
    """Where `on` says no, the dependency has answered: failures before it are forgotten."""
    breaker = CircuitBreaker(2, on=which)
    workflow = flow(Service(ConnectionError(), KeyError(), ConnectionError()), breaker)
    for expected in (1, 0, 1):
        failure(workflow)
        assert (CircuitState.CLOSED, expected) == (breaker.state, breaker.failures_in_a_row)


def test_one_failure_in_a_group_counts() -> None:
    """A group of errors, as of a `TaskGroup`, is a failure if one of them is."""
    breaker = CircuitBreaker(9, on=ConnectionError)
    mixed = ExceptionGroup("", [ExceptionGroup("", [ConnectionError()]), RateLimitedError("")])
    for error, expected in ((mixed, 1), (ExceptionGroup("", [KeyError()]), 0)):
        failure(flow(Service(error), breaker))
        assert expected == breaker.failures_in_a_row


def test_a_predicate_that_raises() -> None:
    """Its error is raised, with the original in its context, and no probe is lost."""

    def judge(error: Exception) -> bool:
        raise ZeroDivisionError

    async def main() -> None:
        breaker = CircuitBreaker(1, reset=1, on=judge)
        breaker.trip()
        await asyncio.sleep(1)
        with pytest.raises(ZeroDivisionError) as caught:
            await flow(down(1), breaker).run(Step.WORK)
        assert "ConnectionError('down 0')" == repr(caught.value.__context__)
        assert Step.DONE is await flow(down(0), breaker).run(Step.WORK)

    run(main())


def test_one_success_after_the_time_closes_it() -> None:
    """Open, then one probe that succeeds: everything is let through again."""

    async def main() -> None:
        breaker, service = CircuitBreaker(1, reset=30), down(1)
        workflow = flow(service, breaker)
        with pytest.raises(ConnectionError):
            await workflow.run(Step.WORK)
        with pytest.raises(CircuitOpenError):
            await workflow.run(Step.WORK)
        await asyncio.sleep(30)
        await workflow.run(Step.WORK)
        assert (CircuitState.CLOSED, 2) == (breaker.state, len(service.calls))

    run(main())


def test_protects_other_workflows() -> None:
    """Failures of one workflow keep another from calling what both depend on."""
    breaker, service = CircuitBreaker(2), down(0)
    for _ in range(2):
        failure(flow(down(1), breaker))
    assert CircuitOpenError is type(failure(flow(service, breaker)))
    assert [] == service.calls


def crowd(
    count: int, bulkhead: int | None, breaker: CircuitBreaker, branch: Callable[[], None]
) -> Counter[str]:
    """Run *count* branches that share *breaker*, and count what came of them."""

    class Many(StrEnum):
        FAN = auto()
        LOOK = auto()
        DONE = auto()

    found: Counter[str] = Counter()

    async def work(ctx: Context, item: int) -> int:
        branch()
        await asyncio.sleep(1)
        raise ConnectionError

    async def look(ctx: Context) -> Many:
        assert ctx.split is not None
        found.update(type(branch.error).__name__ for branch in ctx.split.errors)
        return Many.DONE

    split = Split.over(
        lambda data: range(count), run=work, join=Settled(), then=Many.LOOK, bulkhead=bulkhead
    )
    many = Workflow(Many).register(Many.FAN, split, breaker).register(Many.LOOK, look)
    run(many.exits(Many.DONE).run(Many.FAN))
    return found


def test_a_thousand_branches_while_it_opens() -> None:
    """Those under way when it opens end as they end, no more begin, and all are accounted for."""
    started: list[None] = []
    breaker = CircuitBreaker(5)
    found = crowd(1000, 10, breaker, lambda: started.append(None))
    assert {"ConnectionError": len(started), "CircuitOpenError": 1000 - len(started)} == found
    assert 10 <= len(started) <= 14  # four have made room when the fifth opens it
    assert (CircuitState.OPEN, 5) == (breaker.state, breaker.failures_in_a_row)


def test_a_thousand_branches_at_once() -> None:
    """A thousand failures at the same moment open it once."""
    changes: list[Any] = []
    breaker = CircuitBreaker(5, on_change=lambda *change: changes.append(change))
    assert {"ConnectionError": 1000} == crowd(1000, None, breaker, lambda: None)
    assert ([("closed", "open")], 5) == (changes, breaker.failures_in_a_row)


def test_losers_of_a_split_do_not_open_it() -> None:
    """Branches that are cancelled because another was faster say nothing against the dependency."""
    from cano.join import Any as First

    class Race(StrEnum):
        RUN = auto()
        DONE = auto()

    async def branch(ctx: Context) -> int:
        await asyncio.sleep(ctx.branch.index if ctx.branch else 0)
        return 1

    breaker = CircuitBreaker(1)
    split = Split([branch] * 5, join=First(), then=Race.DONE)
    workflow = Workflow(Race).register(Race.RUN, split, breaker).exits(Race.DONE)
    run(workflow.run(Race.RUN))
    assert (CircuitState.CLOSED, 0) == (breaker.state, breaker.failures_in_a_row)


def test_keeps_the_contract_of_policies() -> None:
    """It is a policy like any other."""
    run(check_policy(lambda: CircuitBreaker(1000)))
