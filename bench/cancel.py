"""How long a waiting run takes to end once it is told to, against a bare asyncio task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

from bench.harness import Batch, Line
from bench.memory import Gate, Step, flow, wait
from cano import Retry, Timeout
from cano.errors import RunCancelledError

TIMES = 500

End = Callable[[], Awaitable[Any]]


def to_the_end(start: Callable[[], Awaitable[End]]) -> Batch:
    """The time from cancelling to knowing; starting does not count."""

    async def batch() -> float:
        Gate.future = asyncio.get_running_loop().create_future()
        spent = 0.0
        for _ in range(TIMES):
            end = await start()
            for _ in range(3):
                await asyncio.sleep(0)
            before = process_time()
            await end()
            spent += process_time() - before
        return spent / TIMES

    return lambda: asyncio.run(batch())


async def bare() -> End:
    task = asyncio.ensure_future(wait(None))

    async def end() -> None:
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    return end


def ours(*policies: Any) -> Callable[[], Awaitable[End]]:
    workflow = flow(*policies)

    async def start() -> End:
        handle = await workflow.start_run(Step.WAIT)

        async def end() -> None:
            await handle.cancel()
            try:
                await handle.result()
            except RunCancelledError:
                return

        return end

    return start


def lines() -> list[Line]:
    hand = to_the_end(bare)
    return [
        Line("handle.cancel() to result() raising", to_the_end(ours()), hand, unit="µs"),
        Line(
            "with Retry and Timeout",
            to_the_end(ours(Retry(attempts=3), Timeout(30))), hand, unit="µs",
        ),
    ]  # fmt: skip
