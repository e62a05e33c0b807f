"""Traces: a run as a tree of OpenTelemetry spans, drawn to scale.

A quote is fetched from three markets side by side, one of which is slow and no longer needed, and
one of which has to be asked twice; then a price is made. The spans that tasks make themselves, such
as `http`, hang under their state or branch. A real program would set up an exporter that sends them
to a collector; here they are kept, and drawn at the end.

Prints:
    run Quote          finished  |...=======...|
      state ASK        succeeded |...=====...|
        branch of ASK  succeeded |...===...| paris
          http                   |...===...|
        branch of ASK  succeeded |...===...| london
          attempt 1    failed    |...==...|
          attempt 2    succeeded |...==...|
        branch of ASK  cancelled |...===...| tokyo
      state PRICE      succeeded |...==...|
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cano import Branch, Context, Retry, Split, Workflow
from cano.join import Quorum
from cano.observers import TracingObserver

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("markets")


class Step(StrEnum):
    ASK = auto()
    PRICE = auto()
    DONE = auto()


def market(name: str, seconds: float, failures: int = 0) -> Branch[float]:
    async def ask(ctx: Context[None]) -> float:
        with tracer.start_as_current_span("http"):
            await asyncio.sleep(seconds)
        if ctx.attempt <= failures:
            raise ConnectionError("busy")
        return seconds

    return Branch(ask, Retry.fixed(3, 0.03), name=name)


flow = Workflow(Step, name="Quote", observers=[TracingObserver(provider)]).exits(Step.DONE)
markets = [market("paris", 0.06), market("london", 0.05, failures=1), market("tokyo", 9)]
flow.register(Step.ASK, Split(markets, join=Quorum(2), then=Step.PRICE))


@flow.task(Step.PRICE)
async def price(ctx: Context[None]) -> Literal[Step.DONE]:
    await asyncio.sleep(0.04)
    return Step.DONE


def draw(spans: list[ReadableSpan]) -> None:
    """Each span below its parent, as a bar as long as it took."""
    (root,) = [span for span in spans if span.parent is None]
    begun, ended = root.start_time or 0, root.end_time or 0

    def below(parent: ReadableSpan, depth: int) -> None:
        start, end = parent.start_time or 0, parent.end_time or 0
        left = round(40 * (start - begun) / (ended - begun))
        bar = " " * left + "=" * max(round(40 * (end - start) / (ended - begun)), 1)
        told = parent.attributes or {}
        outcome = told.get("cano.outcome", "")
        branch = told.get("cano.branch", "")
        name = "  " * depth + parent.name
        print(f"{name:18} {outcome!s:9} |{bar:40}| {branch}".rstrip())
        children = [span for span in spans if span.parent == parent.context]
        for child in sorted(children, key=lambda span: span.start_time or 0):
            below(child, depth + 1)

    below(root, 0)


async def main() -> None:
    await flow.run(Step.ASK)
    draw(list(exporter.get_finished_spans()))


if __name__ == "__main__":
    asyncio.run(main())
