"""A run that goes round a million times: its memory must not grow, whatever is attached.

`python -m bench.cycle bare` is what each process runs: it prints the bytes that were added.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bench.harness import Batch, Line, in_fresh_process
from bench.memory import resident
from bench.transitions import COUNTER, TABLE, Loop, by_hand, everything, ping, pong
from cano import Retry, Timeout, Workflow

MANY, FEW = 1_000_000, 10_000


def flow(*policies: Any, **settings: Any) -> Callable[[Any], Awaitable[Any]]:
    workflow: Workflow[Loop, Any] = Workflow(Loop, **settings).exits(Loop.DONE)
    workflow.register(Loop.PING, ping, *policies).register(Loop.PONG, pong, *policies)
    return lambda _: workflow.run(Loop.PING)


KINDS: dict[str, Callable[[], Callable[[Any], Awaitable[Any]]]] = {
    "by_hand": lambda: by_hand(TABLE, {Loop.DONE}, Loop.PING),
    "bare": flow,
    "all_on": lambda: flow(Retry(attempts=3), Timeout(30), observers=[everything], timeout=3600.0),
}


async def growth(kind: str) -> int:
    """How many bytes a million transitions add to what ten thousand needed."""
    run = KINDS[kind]()
    sizes: list[int] = []
    for transitions in (FEW, MANY):
        COUNTER.left = transitions // 2
        await run(None)
        gc.collect()
        sizes.append(resident())
    return sizes[1] - sizes[0]


def grown(kind: str) -> Batch:
    return lambda: float(in_fresh_process("-m", "bench.cycle", kind))


def lines() -> list[Line]:
    """A page here and there is the allocator's; a leak of one byte a transition is 977 KiB."""
    hand = grown("by_hand")
    names = {"bare": "nothing attached", "all_on": "Retry, Timeout, timeout=, an observer of all"}
    return [
        Line(name, grown(kind), hand, must=256, unit="KiB", by="difference", rounds=3)
        for kind, name in names.items()
    ]


if __name__ == "__main__":
    print(asyncio.run(growth(sys.argv[1])))
