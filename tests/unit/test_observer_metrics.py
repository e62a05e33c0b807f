"""`MetricsObserver`: what a run comes to in numbers."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from prometheus_client import CollectorRegistry

from cano import (
    Branch,
    Bulkhead,
    CircuitBreaker,
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Pending,
    PollTask,
    Ready,
    Retry,
    Signal,
    SignalTask,
    Split,
    Workflow,
)
from cano.join import Quorum
from cano.observers import MetricsObserver
from cano.testing import run


class Step(Enum):
    A = 1
    B = 2
    DONE = 3
    LATE = 4


class Numbers:
    """A registry of its own, an observer of it, and what it says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.observer = MetricsObserver(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"cano_{name}", {"workflow": "Order", **labels})

    def present(self, name: str) -> list[dict[str, str]]:
        """The labels under which a series is there at all."""
        return [
            sample.labels
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"cano_{name}"
        ]

    def flow(self, a: Any, *policies: Any, b: Any = None, **settings: Any) -> Any:
        otherwise = settings.pop("otherwise", None)
        flow: Any = Workflow(Step, name="Order", observers=[self.observer], **settings)
        flow.register(Step.A, a, *policies, otherwise=otherwise)
        return flow.register(Step.B, b or done).exits(Step.DONE, Step.LATE)


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    await asyncio.sleep(2)
    return Step.B


async def done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


async def fail(ctx: Context[Any]) -> Literal[Step.B, Step.DONE]:
    await asyncio.sleep(3)
    raise ValueError("no")


def failing(main: Any, kind: type[BaseException] = ValueError) -> None:
    with pytest.raises(kind):
        run(main)


def test_a_run(numbers: Numbers) -> None:
    """A run is counted, timed, and no longer active; so is each of its states."""
    run(numbers.flow(to_b).run(Step.A))

    assert 1 == numbers("runs_started_total")
    assert 1 == numbers("runs_total", outcome="finished")
    assert 2 == numbers("run_seconds_sum", outcome="finished")
    assert 1 == numbers("run_seconds_count", outcome="finished")
    assert 0 == numbers("runs_active")
    assert [1, 1, 1] == [numbers("state_visits_total", state=s) for s in ("A", "B", "DONE")]
    assert 2 == numbers("state_seconds_sum", state="A", outcome="succeeded")
    assert 1 == numbers("state_seconds_count", state="B", outcome="succeeded")
    assert 0 == numbers("state_seconds_bucket", state="A", outcome="succeeded", le="1.0")
    assert 1 == numbers("state_seconds_bucket", state="A", outcome="succeeded", le="5.0")
    assert 1 == numbers("state_seconds_bucket", state="A", outcome="succeeded", le="+Inf")


def test_what_did_not_happen_is_not_there(numbers: Numbers) -> None:
    """A series appears with its first number; exits are visited, but take no time."""
    assert [] == list(numbers.registry.collect())

    run(numbers.flow(to_b).run(Step.A))

    assert [{"workflow": "Order", "outcome": "finished"}] == numbers.present("runs_total")
    assert ["A", "B"] == [labels["state"] for labels in numbers.present("state_seconds_count")]
    assert [] == numbers.present("retries_total")
    assert [] == numbers.present("events_kept_total")


def test_active_runs(numbers: Numbers) -> None:
    """A run is active from its start to its end, however it ends."""
    seen: list[float | None] = []

    async def look(ctx: Context[Any]) -> Literal[Step.B]:
        await asyncio.sleep(1)
        seen.append(numbers("runs_active"))
        raise ValueError

    async def main() -> None:
        flow = numbers.flow(look)
        await asyncio.gather(flow.run(Step.A), flow.run(Step.A), return_exceptions=True)

    run(main())

    assert [2, 1] == seen or [2, 2] == seen
    assert 0 == numbers("runs_active")


def test_failed_attempts(numbers: Numbers) -> None:
    """Retries are counted; the visit failed once, and its time includes the pauses."""
    failing(numbers.flow(fail, Retry.fixed(3, 1)).run(Step.A))

    assert 2 == numbers("retries_total", state="A")
    assert 1 == numbers("state_seconds_count", state="A", outcome="failed")
    assert 11 == numbers("state_seconds_sum", state="A", outcome="failed")
    assert None is numbers("state_seconds_count", state="A", outcome="succeeded")
    assert 1 == numbers("runs_total", outcome="failed")


def test_cancelled_and_timed_out(numbers: Numbers) -> None:
    """A run that was cancelled, and one that ran out of time, are none that just failed."""

    async def main() -> None:
        flow = numbers.flow(fail, timeout=1.0)
        with pytest.raises(TimeoutError):
            await flow.run(Step.A)
        handle = await flow.start_run(Step.A)
        await asyncio.sleep(0.25)
        await handle.cancel()
        await asyncio.wait([asyncio.ensure_future(handle.result())])

    run(main())

    assert [1, 1, None] == [
        numbers("runs_total", outcome=o) for o in ("timed_out", "cancelled", "failed")
    ]
    assert [1, 0.25, None] == [
        numbers("state_seconds_sum", state="A", outcome=o)
        for o in ("timed_out", "cancelled", "failed")
    ]


def test_a_routed_failure(numbers: Numbers) -> None:
    """A failure that led to a state counts for its state, and as a route."""
    run(numbers.flow(fail, otherwise=Step.LATE).run(Step.A))

    assert 1 == numbers("failures_routed_total", state="A", next="LATE")
    assert 1 == numbers("state_seconds_count", state="A", outcome="failed")
    assert 1 == numbers("runs_total", outcome="finished")
    assert 1 == numbers("state_visits_total", state="LATE")


def test_a_result_that_is_no_state(numbers: Numbers) -> None:
    """A visit whose task led nowhere failed."""

    async def odd(ctx: Context[Any]) -> Any:
        return 3

    failing(numbers.flow(odd).run(Step.A), Exception)

    assert 1 == numbers("state_seconds_count", state="A", outcome="failed")


def test_a_split(numbers: Numbers) -> None:
    """Every branch counts once, by its end, and the join by its reason."""

    async def branch(ctx: Context[Any]) -> None:
        await asyncio.sleep(ctx.branch.index if ctx.branch else 0)
        if ctx.branch_name == "bad":
            raise ValueError

    branches = [Branch(branch, name=name) for name in ("bad", "a", "b", "slow")]
    run(numbers.flow(Split(branches, then=Step.B, join=Quorum(2))).run(Step.A))

    assert [2, 1, 1] == [
        numbers("branches_total", state="A", outcome=o)
        for o in ("succeeded", "failed", "cancelled")
    ]
    assert 1 == numbers("splits_total", state="A", satisfied="true", reason="enough")


def test_a_rollback(numbers: Numbers) -> None:
    """Undone works are counted, and rollbacks: clean, or partial."""

    class Book(CompensatableTask[Step, str]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], str]:
            return Step.B, ctx.run_id

        async def compensate(self, ctx: Context[Any], output: str) -> None:
            if output == "stuck":
                raise ConnectionError

    flow = numbers.flow(Book(), b=fail)
    failing(flow.run(Step.A, run_id="fine"))
    failing(flow.run(Step.A, run_id="stuck"), ExceptionGroup)

    assert [1, 1] == [
        numbers("compensations_total", state="A", outcome=o) for o in ("undone", "failed")
    ]
    assert [1, 1] == [numbers("rollbacks_total", outcome=o) for o in ("clean", "partial")]


def test_a_poll(numbers: Numbers) -> None:
    """Answers are counted by whether they were the last."""

    class Poll(PollTask[Step]):
        interval = 5.0

        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.B]] | Pending:
            self.asked = getattr(self, "asked", 0) + 1
            return Ready(Step.B) if self.asked == 3 else Pending()

    run(numbers.flow(Poll()).run(Step.A))

    assert [2, 1] == [numbers("polls_total", state="A", ready=r) for r in ("false", "true")]


def test_policies(numbers: Numbers) -> None:
    """Circuits, refusals and delays are counted, by the names of what did it."""
    breaker, bulkhead = CircuitBreaker(1, name="bank"), Bulkhead(1, name="desk")

    async def main() -> None:
        flow = numbers.flow(fail, breaker, bulkhead)
        for _ in range(2):
            with pytest.raises(Exception):  # noqa: B017 -- the second time it is refused
                await flow.run(Step.A)
        flow = numbers.flow(to_b, bulkhead)
        await asyncio.gather(flow.run(Step.A), flow.run(Step.A))

    run(main())
    transitions = numbers.registry.get_sample_value(
        "cano_circuit_transitions_total", {"circuit": "bank", "before": "closed", "after": "open"}
    )

    assert 1 == transitions
    assert 1 == numbers("calls_refused_total", state="A", by="bank")
    assert 2 == numbers("call_delay_seconds_sum", state="A", by="desk")


class Wait(SignalTask[Step]):
    signals: ClassVar[dict[str, type]] = {"go": str}

    async def on_signal(self, ctx: Context[Any], signal: Signal[str]) -> Literal[Step.B]:
        return Step.B


def test_a_wait(numbers: Numbers) -> None:
    """A run let go to wait is not active meanwhile; what its store keeps is counted once."""

    async def main() -> None:
        async with numbers.flow(Wait(), checkpoints=MemoryCheckpoints()) as flow:
            handle = await flow.start_run(Step.A, run_id="a7")
            await asyncio.sleep(60)
            assert (0, 1, 3) == (
                numbers("runs_active"), numbers("runs_parked_total"), numbers("events_kept_total")
            )  # fmt: skip
            await handle.signal("go", "now")
            await handle.result()
            kept = [event async for event in flow.handle("a7").events()]
            assert len(kept) == numbers("events_kept_total")

    run(main())

    assert 1 == numbers("runs_resumed_total")
    assert 60 == numbers("run_seconds_sum", outcome="finished")
    assert (0, 1) == (numbers("runs_active"), numbers("runs_total", outcome="finished"))
    assert (1, 1) == (numbers("waits_total", state="A"), numbers("signals_total", state="A"))
    assert {} == numbers.observer._runs


def test_a_shutdown(numbers: Numbers) -> None:
    """A run that is let go is no longer active, and did not end; resumed, its visit is timed."""

    async def main() -> None:
        store = MemoryCheckpoints()
        task = asyncio.ensure_future(numbers.flow(to_b, checkpoints=store).run(Step.A, run_id="a"))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert (0, 1, None) == (
            numbers("runs_active"),
            numbers("runs_released_total", reason="shutdown"),
            numbers("runs_total", outcome="cancelled"),
        )
        await numbers.flow(to_b, checkpoints=store).resume("a")

    run(main())

    assert 2 == numbers("state_seconds_sum", state="A", outcome="succeeded")
    assert 3 == numbers("run_seconds_sum", outcome="finished")
    assert (0, {}) == (numbers("runs_active"), numbers.observer._runs)
