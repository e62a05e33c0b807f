"""Watching a run: every step is an event, an observer is a callable of one event.

`on(...)` subscribes a function to some kinds; the others are not even built for it. Here one
draws a line of progress, another complains about retries, and a third adds up from the times in
the events how long each state took.

Prints:
    [...] FETCH
    [#..] PARSE
    attempt 1 failed: ValueError('half a line'); next in 0.05 s
    attempt 2 failed: ValueError('half a line'); next in 0.05 s
    [##.] LOAD
    [###] DONE
    FETCH ... ms =========...
    PARSE ... ms =========...
    LOAD ... ms ==================...
"""

import asyncio
from collections import defaultdict
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Event, Retry, StateEntered, TaskRetried, Workflow, on


class Step(StrEnum):
    FETCH = auto()
    PARSE = auto()
    LOAD = auto()
    DONE = auto()


@on(StateEntered)
def progress(event: StateEntered) -> None:
    """A bar as long as the way behind."""
    steps = [step.name for step in Step]
    behind = steps.index(event.state)
    bar = "#" * behind + "." * (len(steps) - 1 - behind)
    print(f"[{bar}] {event.state}")


@on(TaskRetried)
def complain(event: TaskRetried) -> None:
    print(f"      attempt {event.attempt} failed: {event.error}; next in {event.delay:g} s")


class Stopwatch:
    """An observer with a memory: any object that can be called with an event will do."""

    events = (StateEntered,)  # the same as on(...), for a class

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._entered: dict[str, Event] = {}

    def __call__(self, event: Event) -> None:
        if before := self._entered.get(event.run_id):
            self.seconds[before.state] += event.time - before.time
        self._entered[event.run_id] = event


stopwatch = Stopwatch()
flow = Workflow(Step, observers=[progress, complain, stopwatch]).exits(Step.DONE)


@flow.task(Step.FETCH)
async def fetch(ctx: Context[None]) -> Literal[Step.PARSE]:
    await ctx.sleep(0.12)
    return Step.PARSE


@flow.task(Step.PARSE, Retry.fixed(3, 0.05))
async def parse(ctx: Context[None]) -> Literal[Step.LOAD]:
    if ctx.attempt < 3:
        raise ValueError("half a line")
    return Step.LOAD


@flow.task(Step.LOAD)
async def load(ctx: Context[None]) -> Literal[Step.DONE]:
    await ctx.sleep(0.2)
    return Step.DONE


async def main() -> None:
    await flow.run(Step.FETCH)
    print()
    for state, seconds in stopwatch.seconds.items():
        print(f"{state:6} {seconds * 1000:4.0f} ms {'=' * round(seconds * 100)}")


if __name__ == "__main__":
    asyncio.run(main())
