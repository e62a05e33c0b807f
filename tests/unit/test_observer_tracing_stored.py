"""`TracingObserver`: runs that wait, are let go and resumed, or of which only a part is seen."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from cano import (
    BatchProcessed,
    MemoryCheckpoints,
    StateEntered,
    TaskRetried,
    TaskStarted,
    Workflow,
)
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _traced import Exported, Step, Wait, current, outcome, work


@pytest.fixture
def exported() -> Exported:
    return Exported()


def test_a_wait(exported: Exported) -> None:
    """A run let go to wait ends its spans; resumed, it begins a trace linked to the one before."""

    async def main() -> None:
        async with exported.flow(Wait(), checkpoints=MemoryCheckpoints()) as flow:
            handle = await flow.start_run(Step.WORK, run_id="a7")
            await asyncio.sleep(60)
            assert [("run Order", "parked"), ("state WORK", "parked")] == sorted(
                (span.name, outcome(span)) for span in exported.exporter.get_finished_spans()
            )
            await handle.signal("go", "now")
            await handle.result()

    run(main())
    before, after = exported.named("run Order")

    assert ("parked", "finished") == (outcome(before), outcome(after))
    assert None is after.parent
    assert before.context.trace_id != after.context.trace_id
    (link,) = after.links
    assert (before.context.trace_id, before.context.span_id) == (
        link.context.trace_id, link.context.span_id
    )  # fmt: skip
    assert after.context == exported.named("state WORK")[1].parent
    assert {} == exported.observer._lives


def test_a_workflow_within_one_that_is_resumed(exported: Exported) -> None:
    """A nested run that is resumed with its whole is part of its trace, and begins none of its own."""
    store = MemoryCheckpoints()

    def outer() -> Workflow[Step, Any]:
        inner = exported.flow(checkpoints=store)
        return exported.flow(inner.as_task(Step.DONE, start=Step.WORK), checkpoints=store)

    async def main() -> None:
        task = asyncio.ensure_future(outer().run(Step.WORK, run_id="a7"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        exported.exporter.clear()
        await outer().resume("a7")
        assert 0 == current()

    run(main())
    first, second = exported.named("state WORK")
    below, above = exported.named("run Order")

    assert (below.context, second.context, above.context, None) == (
        first.parent, below.parent, second.parent, above.parent
    )  # fmt: skip


def test_another_process(exported: Exported) -> None:
    """A run from elsewhere begins a trace linked to its first, and to who had it resumed."""
    store = MemoryCheckpoints()

    async def main() -> None:
        async with exported.flow(Wait(), checkpoints=store) as flow:
            await flow.start_run(Step.WORK, run_id="a7")
            await asyncio.sleep(1)
        await flow.handle("a7").signal("go", "now")
        with other.tracer.start_as_current_span("by hand") as span:
            assert Step.DONE is await other.flow(Wait(), checkpoints=store).resume("a7")
            assert span is trace.get_current_span()

    other = Exported()
    run(main())
    (span,), (first,) = other.named("run Order"), exported.named("run Order")
    linked = [(link.context.trace_id, link.context.span_id) for link in span.links]
    expected = [first.context, other.named("by hand")[0].context]

    assert [(context.trace_id, context.span_id) for context in expected] == linked
    assert None is span.parent
    assert ("finished", True) == (outcome(span), (span.attributes or {})["cano.resumed"])


def test_a_rollback_of_another_process() -> None:
    """What a resumed run undoes without having begun to is told on its own span."""
    exported = Exported()
    from cano import RunFailed, RunResumed, TaskCompensated

    run_id, workflow = "a", "Order"
    observer = exported.observer
    observer(RunResumed(run_id=run_id, workflow=workflow, state="B", time=1.0))
    observer(TaskCompensated(run_id=run_id, state="A", time=2.0))
    observer(RunFailed(run_id=run_id, state="B", time=3.0, kind="E", error="no"))
    (span,) = exported.named("run Order")

    assert ["TaskCompensated"] == [event.name for event in span.events]
    assert "failed" == outcome(span)
    assert 0 == current()


def test_unknown_runs_are_left_alone(exported: Exported) -> None:
    """What is told of a run whose beginning was missed makes no span, and harms nothing."""
    observer = exported.observer
    for event in (TaskStarted(run_id="x"), StateEntered(run_id="x"), TaskRetried(run_id="x")):
        observer(event)

    assert () == exported.exporter.get_finished_spans()


def test_a_handle_that_watches_late(exported: Exported) -> None:
    """Watching a run from its middle on makes no span of it."""

    async def main() -> None:
        flow = Workflow(Step).register(Step.WORK, work).exits(Step.DONE)
        handle = await flow.start_run(Step.WORK)
        await asyncio.sleep(0.5)
        handle.watch(exported.observer)
        await handle.result()

    run(main())

    assert () == exported.exporter.get_finished_spans()


def test_retries_of_items(exported: Exported) -> None:
    """What is retried without a span of its own is an event of its state."""
    from cano import RunFinished, RunStarted

    observer = exported.observer
    observer(RunStarted(run_id="a", time=1.0))
    observer(TaskStarted(run_id="a", state="WORK", time=1.0))
    observer(TaskRetried(run_id="a", branch="item 3", time=2.0, error="E()"))
    observer(BatchProcessed(run_id="a", succeeded=3, time=3.0))
    observer(StateEntered(run_id="a", state="DONE", time=3.0))
    observer(RunFinished(run_id="a", time=3.0))
    (state,) = exported.named("state WORK")

    assert ["TaskRetried", "BatchProcessed"] == [event.name for event in state.events]


def test_runs_that_were_there_already(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of spans for runs that turn out to be in the store only so many are kept, and none is told."""
    monkeypatch.setattr("cano.observers.tracing.EARLY", 3)

    async def main() -> None:
        flow = exported.flow(checkpoints=MemoryCheckpoints())
        for _ in range(2):
            for number in range(5):
                await flow.run(Step.WORK, run_id=str(number))

    run(main())

    assert ["2", "3", "4"] == list(exported.observer._early)
    assert 5 == len(exported.named("run Order"))


def test_a_shutdown(exported: Exported) -> None:
    """A run that is let go has spans that say so, and leaves none current."""

    async def main() -> None:
        flow = exported.flow(checkpoints=MemoryCheckpoints())

        async def serve() -> None:
            try:
                await flow.run(Step.WORK)
            finally:
                assert 0 == current()

        task = asyncio.ensure_future(serve())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])

    run(main())

    assert ["released"] == [outcome(span) for span in exported.named("run Order")]
    assert ["released"] == [outcome(span) for span in exported.named("state WORK")]
    assert {} == exported.observer._lives


def test_a_trace_that_is_no_trace(exported: Exported) -> None:
    """What was kept with a run and cannot be read is left out."""
    from cano import RunFinished, RunResumed

    exported.observer(RunResumed(run_id="a", trace="00-xyz", time=1.0))
    exported.observer(RunFinished(run_id="a", time=2.0))

    assert () == tuple(exported.named("run ")[0].links)
