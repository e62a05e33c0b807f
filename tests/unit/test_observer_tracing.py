"""`TracingObserver`: which spans a run comes to, and whose children they are."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Literal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cano import (
    Branch,
    CircuitBreaker,
    CompensatableTask,
    Context,
    Retry,
    Split,
    Timeout,
    Workflow,
    thread,
)
from cano.join import Quorum, Settled
from cano.observers import TracingObserver
from cano.testing import run

SECOND = 1_000_000_000


class Step(Enum):
    A = 1
    B = 2
    DONE = 3
    LATE = 4


class Spans:
    """A provider of its own, an observer of it, and what was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = TracingObserver(self.provider)
        self.tracer = self.provider.get_tracer("users")

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> dict[str, list[str]]:
        """The names of children, by that of their parent; sorted."""
        names = {span.context.span_id: span.name for span in self.all}
        found: dict[str, list[str]] = {}
        for span in self.all:
            parent = names[span.parent.span_id] if span.parent else ""
            found.setdefault(parent, []).append(span.name)
        return {name: sorted(children) for name, children in found.items()}


@pytest.fixture
def spans() -> Spans:
    return Spans()


def told(span: ReadableSpan, *names: str) -> list[object]:
    return [(span.attributes or {}).get(f"cano.{name}") for name in names]


def seconds(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return round((span.end_time - span.start_time) / SECOND, 3)


def flow_of(spans: Spans, a: Any, *policies: Any, b: Any = None, **settings: Any) -> Any:
    otherwise = settings.pop("otherwise", None)
    flow: Any = Workflow(Step, name="Order", observers=[spans.observer], **settings)
    flow.register(Step.A, a, *policies, otherwise=otherwise)
    return flow.register(Step.B, b or done).exits(Step.DONE, Step.LATE)


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    await asyncio.sleep(2)
    return Step.B


async def done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def play(main: Any) -> None:
    """Await *main*, and see that it leaves no span current behind."""

    async def whole() -> None:
        await main
        assert not trace.get_current_span().get_span_context().is_valid

    run(whole())


def test_a_run(spans: Spans) -> None:
    """A run is a span, each state a child of it; exits have none; times are the run's."""
    play(flow_of(spans, to_b).run(Step.A, run_id="a7"))
    whole = spans.one("run Order")

    assert {"": ["run Order"], "run Order": ["state A", "state B"]} == spans.tree()
    assert ["a7", "Order", "finished", False] == told(
        whole, "run_id", "workflow", "outcome", "resumed"
    )
    assert (2.0, 2.0, 0.0) == (
        seconds(whole), seconds(spans.one("state A")), seconds(spans.one("state B"))
    )  # fmt: skip
    state = spans.one("state A")
    assert ["a7", "A", "succeeded", "B"] == told(state, "run_id", "state", "outcome", "next")


def test_a_users_span_is_a_child_of_its_state(spans: Spans) -> None:
    """What a task traces itself is part of its state, in whatever task, group or thread."""

    def traced(name: str) -> None:
        with spans.tracer.start_as_current_span(name):
            pass

    async def later(name: str) -> None:
        await asyncio.sleep(1)
        traced(name)

    async def work(ctx: Context[Any]) -> Literal[Step.B]:
        traced("plain")
        async with asyncio.TaskGroup() as group:
            group.create_task(later("in a group"))
        await asyncio.to_thread(traced, "in a thread")
        return Step.B

    @thread
    def threaded(ctx: Context[Any]) -> Literal[Step.DONE]:
        traced("all in a thread")
        return Step.DONE

    play(flow_of(spans, work, Timeout(60), b=threaded).run(Step.A))

    assert ["in a group", "in a thread", "plain"] == spans.tree()["state A"]
    assert ["all in a thread"] == spans.tree()["state B"]


def test_branches(spans: Spans) -> None:
    """Branches side by side are children of the state of their split, and parents of their own."""

    async def branch(ctx: Context[Any]) -> None:
        await asyncio.sleep(3)
        with spans.tracer.start_as_current_span(f"inside {ctx.branch_name}"):
            await asyncio.sleep(1)

    branches = [Branch(branch, name=name) for name in ("eu", "us")]
    play(flow_of(spans, Split(branches, then=Step.B, bulkhead=1)).run(Step.A))

    assert ["branch of A", "branch of A"] == spans.tree()["state A"]
    assert ["inside eu", "inside us"] == spans.tree()["branch of A"]
    inside = {span.parent and span.parent.span_id: span.name for span in spans.all}
    for span in spans.named("branch of A"):
        (name,) = told(span, "branch")
        assert f"inside {name}" == inside[span.context.span_id]
        assert (["succeeded"], 4.0) == (told(span, "outcome"), seconds(span))
    (joined,) = spans.one("state A").events
    assert "SplitJoined" == joined.name
    assert 2 == (joined.attributes or {})["cano.succeeded"]


def test_losers_and_failures_of_a_split(spans: Spans) -> None:
    """A branch that failed is an error, one that was no longer needed is only cancelled."""

    def branch(name: str, delay: float, *, fails: bool = False) -> Branch[None]:
        async def work(ctx: Context[Any]) -> None:
            await asyncio.sleep(delay)
            if fails:
                raise ValueError("no")

        return Branch(work, name=name)

    branches = [branch("bad", 1, fails=True), branch("good", 2), branch("slow", 9)]
    play(flow_of(spans, Split(branches, then=Step.B, join=Quorum(1))).run(Step.A))

    assert {("bad", "failed", False, 1.0), ("good", "succeeded", True, 2.0)} | {
        ("slow", "cancelled", True, 2.0)
    } == {(*told(s, "branch", "outcome"), s.status.is_ok, seconds(s)) for s in spans.all if "branch" in s.name}  # fmt: skip


def test_attempts(spans: Spans) -> None:
    """Repeated attempts are children of their state, with a pause between; a single one is not."""

    async def work(ctx: Context[Any]) -> Literal[Step.B]:
        await asyncio.sleep(1)
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        return Step.B

    play(flow_of(spans, work, Retry.fixed(3, 5)).run(Step.A))
    tree = spans.tree()

    assert ["attempt 1", "attempt 2", "attempt 3"] == tree["state A"]
    assert "state B" not in tree
    first, second, third = (spans.one(f"attempt {n}") for n in (1, 2, 3))
    assert [1.0, 1.0, 1.0, 13.0] == [*map(seconds, (first, second, third)), seconds(spans.one("state A"))]  # fmt: skip
    assert "ValueError('attempt 1')" == first.status.description
    assert ["succeeded", 3] == told(third, "outcome", "attempt")
    assert first.end_time is not None
    assert second.start_time is not None
    assert 5.0 == round((second.start_time - first.end_time) / SECOND, 3)


def test_attempts_of_branches(spans: Spans) -> None:
    """The attempts of a branch are children of the branch."""

    async def work(ctx: Context[Any]) -> None:
        await asyncio.sleep(1)
        raise ValueError

    branches = [Branch(work, Retry.fixed(2, 1), name="a"), Branch(work, name="b")]
    play(flow_of(spans, Split(branches, then=Step.B, join=Settled())).run(Step.A))

    assert ["attempt 1", "attempt 2"] == spans.tree()["branch of A"]
    assert ["failed"] == told(spans.one("attempt 2"), "outcome")


def test_a_failure(spans: Spans) -> None:
    """A failed task and its run are errors, the task with the traceback."""

    async def work(ctx: Context[Any]) -> Literal[Step.B]:
        raise ValueError("no such order")

    async def main() -> None:
        with pytest.raises(ValueError):
            await flow_of(spans, work).run(Step.A)

    play(main())
    state, whole = spans.one("state A"), spans.one("run Order")
    (exception,) = state.events
    attributes = exception.attributes or {}

    assert (False, "ValueError('no such order')") == (state.status.is_ok, state.status.description)
    assert "in work" in str(attributes["exception.stacktrace"])
    assert ["failed"] == told(whole, "outcome")
    assert "ValueError: no such order" == whole.status.description
    assert "ValueError" == (whole.attributes or {})["error.type"]


def test_cancelled_and_out_of_time(spans: Spans) -> None:
    """A cancelled run is none that failed; one out of time is; their states tell, too."""

    async def main() -> None:
        flow = flow_of(spans, to_b, timeout=1.0)
        with pytest.raises(TimeoutError):
            await flow.run(Step.A, run_id="late")
        handle = await flow.start_run(Step.A, run_id="unwanted")
        await asyncio.sleep(0.5)
        await handle.cancel()
        await asyncio.wait([asyncio.ensure_future(handle.result())])

    play(main())

    assert [("late", "timed_out", False, 1.0), ("unwanted", "cancelled", True, 0.5)] == [
        (*told(s, "run_id", "outcome"), s.status.is_ok, seconds(s)) for s in spans.named("state A")
    ]
    assert [("timed_out", False), ("cancelled", True)] == [
        (*told(s, "outcome"), s.status.is_ok) for s in spans.named("run Order")
    ]


def test_rollback(spans: Spans) -> None:
    """Undoing is a span, of which what compensations trace is part; failures to undo are errors."""

    class Book(CompensatableTask[Step, str]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], str]:
            return Step.B, "ticket"

        async def compensate(self, ctx: Context[Any], output: str) -> None:
            with spans.tracer.start_as_current_span("refund"):
                await asyncio.sleep(4)
            raise ConnectionError

    async def fail(ctx: Context[Any]) -> Literal[Step.DONE]:
        raise ValueError

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            await flow_of(spans, Book(), b=fail).run(Step.A)

    play(main())
    rollback = spans.one("rollback")

    assert ["rollback", "state A", "state B"] == spans.tree()["run Order"]
    assert (["refund"], 4.0) == (spans.tree()["rollback"], seconds(rollback))
    assert "A could not be undone" == rollback.status.description
    assert ["CompensationFailed"] == [event.name for event in rollback.events]


def test_a_routed_failure(spans: Spans) -> None:
    """A failure that leads to a state is an error of its state, and none of the run."""

    async def fail(ctx: Context[Any]) -> Literal[Step.B]:
        raise ValueError

    play(flow_of(spans, fail, otherwise=Step.LATE).run(Step.A))

    assert not spans.one("state A").status.is_ok
    assert spans.one("run Order").status.is_ok
    assert ["FailureRouted"] == [event.name for event in spans.one("run Order").events]


def test_a_result_that_is_no_state(spans: Spans) -> None:
    """A task that led nowhere has an end, and is an error."""

    async def odd(ctx: Context[Any]) -> Any:
        return 3

    async def main() -> None:
        with pytest.raises(Exception, match="returned 3"):
            await flow_of(spans, odd).run(Step.A)

    play(main())

    assert "led to no state" == spans.one("state A").status.description


def test_what_policies_did(spans: Spans) -> None:
    """What happens within a state is an event of its span, with its fields."""
    breaker = CircuitBreaker(1, name="bank")

    async def work(ctx: Context[Any]) -> Literal[Step.B]:
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):
            await flow_of(spans, work, breaker).run(Step.A)

    play(main())
    changed = spans.one("state A").events[0]

    assert "CircuitChanged" == changed.name
    assert {
        "cano.state": "A", "cano.circuit": "bank", "cano.before": "closed", "cano.after": "open"
    } == dict(changed.attributes or {})  # fmt: skip
