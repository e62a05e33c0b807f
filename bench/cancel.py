"""How long a waiting run takes to end once it is told to, against a bare asyncio task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

from bench.harness import Batch, Line
from bench.split import Step, for_ever
from cano import Context, Retry, Timeout, Workflow
from cano.errors import RunCancelledError

TIMES = 500

End = Callable[[], Awaitable[Any]]


def to_the_end(start: Callable[[], Awaitable[End]]) -> Batch:
    """The time from cancelling to knowing; starting does not count."""

    async def batch() -> float:
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
    task = asyncio.ensure_future(for_ever(None))

    async def end() -> None:
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    return end


def ours(*policies: Any) -> Callable[[], Awaitable[End]]:
    async def wait(ctx: Context[Any]) -> Step:
        await for_ever(ctx)
        return Step.DONE

    workflow = Workflow(Step).exits(Step.DONE).register(Step.SPLIT, wait, *policies)

    async def start() -> End:
        handle = await workflow.start_run(Step.SPLIT)

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
