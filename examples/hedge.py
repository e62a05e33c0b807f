"""A second call beside a slow one: what answers first counts.

Most searches take 10 ms, but one in ten hangs for two seconds. Nine of ten answers come at once, and the
tenth makes the page slow. With `Hedge(0.05)` a search that has not answered after 50 ms is made once
more beside itself; the first answer wins, and the other call is cancelled. That doubles the calls of
the slowest few only. It is for calls that may be made twice without harm.

Prints:
    search 1: found, 1 call
    search 2: found, 1 call
    search 3: found, 2 calls, the slow one was cancelled
    search 4: found, 1 call
    -> DONE, nothing took a second
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Hedge, Workflow


class Step(StrEnum):
    SEARCH = auto()
    DONE = auto()


class Index:
    """Hangs at its third call."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0

    async def search(self) -> str:
        self.calls += 1
        try:
            await asyncio.sleep(2 if self.calls == 3 else 0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "found"


index = Index()


async def search(ctx: Context) -> Literal[Step.DONE]:
    await index.search()
    return Step.DONE


async def main() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    quick = Hedge(0.05)(index.search)  # a function of one's own
    for number in range(1, 4):
        before, cancelled = index.calls, index.cancelled
        answer = await quick()
        calls = index.calls - before
        line = f"search {number}: {answer}, {calls} call" + "s" * (calls > 1)
        print(line + ", the slow one was cancelled" * (index.cancelled - cancelled))
    before = index.calls
    flow = Workflow(Step).register(Step.SEARCH, search, Hedge(0.05)).exits(Step.DONE)
    state = await flow.run(Step.SEARCH)  # the task of a state
    print(f"search 4: found, {index.calls - before} call")
    print(
        f"-> {state.name}, " + ("too slow" if loop.time() - begun > 1 else "nothing took a second")
    )


if __name__ == "__main__":
    asyncio.run(main())
