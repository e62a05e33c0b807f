"""Traced runs for the tests of `TracingObserver`."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, ClassVar, Literal

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cano import Context, Signal, SignalTask, Workflow
from cano.observers import TracingObserver


class Step(Enum):
    WORK = 1
    DONE = 2


async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
    await asyncio.sleep(1)
    return Step.DONE


class Wait(SignalTask[Step]):
    signals: ClassVar[dict[str, type]] = {"go": str}

    async def on_signal(self, ctx: Context[Any], signal: Signal[str]) -> Literal[Step.DONE]:
        return Step.DONE


class Exported:
    """A provider of its own, an observer of it, and what was exported."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = TracingObserver(self.provider, attributes={"team": "shop"})
        self.tracer = self.provider.get_tracer("users")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def flow(self, task: Any = work, **settings: Any) -> Workflow[Step, Any]:
        flow = Workflow(Step, name="Order", observers=[self.observer], **settings)
        return flow.register(Step.WORK, task).exits(Step.DONE)


def current() -> int:
    return trace.get_current_span().get_span_context().span_id


def outcome(span: ReadableSpan) -> object:
    return (span.attributes or {})["cano.outcome"]
