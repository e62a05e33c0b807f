"""`TracingObserver`: runs beside and within one another, and what goes wrong around it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from cano import (
    BatchTask,
    Bulkhead,
    CircuitBreaker,
    CompensatableTask,
    Context,
    DefinitionError,
    Done,
    Event,
    Hedge,
    MemoryCheckpoints,
    More,
    Pending,
    PollTask,
    Ready,
    Retry,
    RunCancelledError,
    SteppedTask,
    Timeout,
    Workflow,
)
from cano.observers import TracingObserver
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _traced import Exported, Step, current, outcome, work


@pytest.fixture
def exported() -> Exported:
    return Exported()


def test_a_run_is_part_of_what_starts_it(exported: Exported) -> None:
    """A run is a child of the span current where it is started, which is current again after it."""

    async def main() -> None:
        with exported.tracer.start_as_current_span("request") as request:
            await exported.flow().run(Step.WORK)
            assert request is trace.get_current_span()
            handle = await exported.flow().start_run(Step.WORK)
            await handle.result()
            assert request is trace.get_current_span()

    run(main())
    (request,) = exported.named("request")
    parents = {span.parent and span.parent.span_id for span in exported.named("run Order")}

    assert {request.context.span_id} == parents
    assert "shop" == (exported.named("run Order")[0].attributes or {})["team"]


def test_runs_side_by_side(exported: Exported) -> None:
    """Runs that take turns in one event loop keep their spans apart."""
    seen: dict[str, tuple[int, int]] = {}

    async def task(ctx: Context[Any]) -> Literal[Step.DONE]:
        before = current()
        await asyncio.sleep(1)
        seen[ctx.run_id] = (before, current())
        return Step.DONE

    async def main() -> None:
        flow = exported.flow(task)
        await asyncio.gather(*(flow.run(Step.WORK, run_id=str(n)) for n in range(5)))

    run(main())
    states = {(s.attributes or {})["cano.run_id"]: s for s in exported.named("state WORK")}
    runs = {(s.attributes or {})["cano.run_id"]: s for s in exported.named("run Order")}

    assert {name: (s.context.span_id,) * 2 for name, s in states.items()} == seen
    assert [runs[name].context for name in sorted(runs)] == [
        states[name].parent for name in sorted(states)
    ]
    assert 5 == len({span.context.trace_id for span in runs.values()})


def test_a_workflow_within_a_workflow(exported: Exported) -> None:
    """The run of a nested workflow is a child of the state it is the work of."""
    inner = exported.flow()
    outer = exported.flow(inner.as_task(Step.DONE, start=Step.WORK))
    run(outer.run(Step.WORK))
    first, second = exported.named("state WORK")  # ended in this order
    below, above = exported.named("run Order")

    assert (below.context, second.context, above.context, None) == (
        first.parent, below.parent, second.parent, above.parent
    )  # fmt: skip


def models(traced: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Work of every kind, which traces *traced* once or more."""

    async def plain(ctx: Context[Any]) -> Literal[Step.DONE]:
        await traced()
        return Step.DONE

    class Prices(BatchTask[Step, int, None]):
        concurrency = 3

        async def load(self, ctx: Context[Any]) -> range:
            return range(6)

        async def process(self, ctx: Context[Any], item: int) -> None:
            await traced()

        async def finish(self, ctx: Context[Any], outcomes: Any) -> Literal[Step.DONE]:
            return Step.DONE

    class Book(CompensatableTask[Step, None]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.DONE], None]:
            await traced()
            return Step.DONE, None

        async def compensate(self, ctx: Context[Any], output: None) -> None: ...

    class Steps(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Any], cursor: int | None
        ) -> More[int] | Done[Literal[Step.DONE]]:
            await traced()
            return Done(Step.DONE) if cursor else More(1)

    class Ask(PollTask[Step]):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.DONE]] | Pending:
            await traced()
            return Ready(Step.DONE)

    return {
        "a function": (plain,), "a batch": (Prices(),), "a compensatable task": (Book(),),
        "a stepped task": (Steps(),), "a poll": (Ask(),), "a hedged call": (plain, Hedge(0.5)),
        "policies": (plain, Retry(), CircuitBreaker(), Bulkhead(1), Timeout(9)),
    }  # fmt: skip


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("model", models(lambda: asyncio.sleep(0)))
def test_whatever_the_work_is(exported: Exported, model: str, stored: bool) -> None:
    """What work of any kind traces is a child of its state, and nothing stays current after it."""

    async def traced() -> None:
        with exported.tracer.start_as_current_span("users"):
            await asyncio.sleep(1)

    async def main() -> None:
        task, *policies = models(traced)[model]
        flow = Workflow(
            Step, observers=[exported.observer], checkpoints=MemoryCheckpoints() if stored else None
        )
        await flow.register(Step.WORK, task, *policies).exits(Step.DONE).run(Step.WORK)
        assert 0 == current()

    run(main())
    (state,) = exported.named("state WORK")

    parents = {span.parent.span_id if span.parent else 0 for span in exported.named("users")}

    assert {state.context.span_id} == parents


def test_a_task_that_leaves_its_span_current(exported: Exported) -> None:
    """What a task forgets to take back goes no further than its state."""
    seen: list[int] = []

    async def careless(ctx: Context[Any]) -> Literal[Step.DONE]:
        contexts.attach(trace.set_span_in_context(exported.tracer.start_span("lost")))
        return Step.DONE

    async def main() -> None:
        await exported.flow(careless).run(Step.WORK)
        seen.append(current())

    run(main())

    assert [0] == seen


def test_without_an_sdk() -> None:
    """Where nobody collects spans nothing is made, kept or made current."""
    observer = TracingObserver(trace.NoOpTracerProvider())
    seen: list[int] = []

    async def task(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.extend((current(), len(observer._lives)))
        return Step.DONE

    flow = Workflow(Step, observers=[observer]).register(Step.WORK, task).exits(Step.DONE)
    run(flow.run(Step.WORK))

    assert [0, 0] == seen


def test_what_is_not_sampled() -> None:
    """A run that is not sampled is current all the same, so that nothing in it is sampled."""
    exported = Exported(sampler=ALWAYS_OFF)
    seen: list[bool] = []

    async def task(ctx: Context[Any]) -> Literal[Step.DONE]:
        span = trace.get_current_span()
        seen.extend((span.is_recording(), span.get_span_context().is_valid))
        return Step.DONE

    async def main() -> None:
        await exported.flow(task).run(Step.WORK)
        assert 0 == current()

    run(main())

    assert [False, True] == seen
    assert {} == exported.observer._lives


class Down(SpanExporter):
    """An exporter nobody answers."""

    def export(self, spans: Any) -> Any:
        raise ConnectionError("down")


def test_an_exporter_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """Trouble with exporting is the SDK's: neither run nor observer notices."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Down()))
    flow = Workflow(Step, observers=[TracingObserver(provider)])
    flow.register(Step.WORK, work).exits(Step.DONE)

    for _ in range(2):
        assert Step.DONE is run(flow.run(Step.WORK))
    assert 4 == [record.getMessage() for record in caplog.records].count(
        "Exception while exporting Span."
    )
    assert "told no more" not in caplog.text


def test_a_cancelled_scope(exported: Exported) -> None:
    """However a run is ended, nothing stays current in the task that awaited it."""

    async def main() -> None:
        task = asyncio.ensure_future(exported.flow().run(Step.WORK))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        handle = await exported.flow().start_run(Step.WORK)
        await handle.cancel()  # before its first step
        with pytest.raises(RunCancelledError):
            await handle.result()

    run(main())

    assert ["cancelled"] == [outcome(span) for span in exported.named("run Order")]
    assert {} == exported.observer._lives


def test_bad_settings() -> None:
    """What is no provider is refused when the observer is made."""
    provider: Any = "jaeger"
    with pytest.raises(DefinitionError, match="tracer_provider='jaeger'; pass a TracerProvider"):
        TracingObserver(provider)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("TracingObserver", "opentelemetry", "otel"), ("MetricsObserver", "prometheus_client", "prometheus")],
)  # fmt: skip
def test_a_missing_extra(name: str, library: str, extra: str) -> None:
    """Without its library the error says what to install, and the other observers still work."""
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from cano.observers import LoggingObserver, WorkflowObserver\n"
        f"from cano.observers import {name}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert 1 == done.returncode
    assert f"MissingExtraError: {name} needs" in done.stderr
    assert f"pip install 'cano[{extra}]'" in done.stderr


def test_events_are_those_it_needs() -> None:
    """Nothing is subscribed to that costs every state and tells the trace nothing."""
    names = {kind.__name__ for kind in TracingObserver.events}

    assert "TaskSucceeded" not in names
    assert Event.__name__ not in names
