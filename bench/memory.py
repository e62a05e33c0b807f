"""What a waiting run weighs, against a bare asyncio task; each in a process of its own.

`python -m bench.memory a_run` is what such a process runs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from bench.harness import Batch, Line, in_fresh_process
from cano import Context, Resources, Retry, Timeout, Workflow

RUNS = 100_000


class Step(Enum):
    """One state to wait in."""

    WAIT = "wait"
    DONE = "done"


@dataclass
class Order:
    """Run data of a usual size."""

    number: int = 0
    paid: bool = False


class Gate:
    """What everybody waits for: it never opens."""

    future: asyncio.Future[None]


async def wait(ctx: Context[Any] | None) -> Literal[Step.DONE]:
    await Gate.future
    return Step.DONE


def flow(*policies: Any, **settings: Any) -> Workflow[Step, Any]:
    workflow: Workflow[Step, Any] = Workflow(Step, **settings)
    return workflow.exits(Step.DONE).register(Step.WAIT, wait, *policies)


FLOWS: dict[str, Callable[[], Workflow[Step, Any]]] = {
    "a_run": flow,
    "with_data": lambda: flow(data=Order),
    "with_policies": lambda: flow(Retry(attempts=3), Timeout(3600)),
    "with_resources": lambda: flow(resources=Resources(order=Order())),
}


async def hold(kind: str, count: int) -> list[Any]:
    """Start *count* of a *kind*, and keep them."""
    loop = asyncio.get_running_loop()
    if kind == "bare":
        return [loop.create_task(wait(None)) for _ in range(count)]
    if kind == "with_handle":
        workflow = flow()
        return [await workflow.start_run(Step.WAIT) for _ in range(count)]
    workflow = FLOWS[kind]()
    return [loop.create_task(workflow.run(Step.WAIT)) for _ in range(count)]


async def weigh(kind: str) -> float:
    """The memory that one waiting run holds."""
    Gate.future = asyncio.get_running_loop().create_future()
    held = await hold(kind, 1_000)  # what all runs share is not theirs
    await asyncio.sleep(0.01)
    gc.collect()
    before = resident()
    held += await hold(kind, RUNS)
    await asyncio.sleep(0.01)
    return (resident() - before) / RUNS


def resident() -> int:
    """The bytes of memory that this process occupies."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def lines() -> list[Line]:
    """A hundred thousand at once: bytes for each."""

    def of(kind: str) -> Batch:
        return lambda: float(in_fresh_process("-m", "bench.memory", kind))

    bare = of("bare")
    return [
        Line("a waiting run", of("a_run"), bare, must=2.5, aim=1.7, unit="B", rounds=3),
        Line("with run data", of("with_data"), bare, unit="B", rounds=1),
        Line("with Retry and Timeout", of("with_policies"), bare, unit="B", rounds=1),
        Line("with resources", of("with_resources"), bare, unit="B", rounds=1),
        Line("with a handle, by start_run", of("with_handle"), bare, unit="B", rounds=1),
    ]


async def _main(kind: str) -> None:
    print(await weigh(kind), flush=True)
    os._exit(0)  # ending them all would take longer than starting them


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
