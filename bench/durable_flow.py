"""A workflow of ten steps on `SqliteCheckpoints`, each of which leaves a row of about 200 bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from bench.durable_limits import STEPS
from cano import Context, SqliteCheckpoints, Workflow

Step = Enum("Step", [f"S{number}" for number in range(STEPS)] + ["DONE"])  # type: ignore[misc]
Flow: TypeAlias = Workflow[Any, Any]

WAVES = {1: 50, 100: 10, 1_000: 2}
"""By how many workflows are at work at once, how often so many are begun in one measurement."""


@dataclass
class Order:
    """Run data that changes at every step; with what is around it, the row has its 200 bytes."""

    number: int = 0
    text: str = ""


def flow(store: SqliteCheckpoints) -> Flow:
    """Ten states in a row, and an exit."""
    states: Any = Step
    members = list(states)
    made: Flow = Workflow(states, data=Order, start=members[0], checkpoints=store)
    for number, (here, there) in enumerate(pairwise(members)):
        made.register(here, _leading_to(there, f"{number:0140}"))
    return made.exits(states.DONE)


def _leading_to(there: Any, text: str) -> Callable[[Context[Order]], Awaitable[Any]]:
    """A task that does nothing else: the texts are made beforehand, as those of the limits are."""

    async def step(ctx: Context[Order]) -> Any:
        data = ctx.data
        data.number += 1
        data.text = text
        return there

    return step


async def steps(path: Path, at_once: int, waves: int) -> float:
    """Seconds for each step, with so many workflows *at_once*."""
    store = SqliteCheckpoints(path)
    made = flow(store)
    try:
        await made.run()
        before = perf_counter()
        for _ in range(waves):
            await asyncio.gather(*(made.run() for _ in range(at_once)))
        return (perf_counter() - before) / (waves * at_once * STEPS)
    finally:
        await store.close()
