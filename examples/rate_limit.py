"""No more calls than a service allows: who comes too early waits in line.

Two workflows search with the same limiter: 2 calls per second, and 3 at once after a quiet time. A
big search costs as much as 3 small ones; it has its turn like everybody else, and small ones that
come later do not overtake it. Who would have to wait for longer than 2.5 s is told so at once, and
when to come back. Time is virtual here: `cano.testing.run` jumps over every wait.

Prints:
    0.0 s: apples
    0.0 s: pears
    1.0 s: everything about fruit
    1.5 s: plums
    2.0 s: cherries
    quinces: refused, come back in 1.5 s; <RateLimiter 'search' 2 per 1 s, 3 at once, 0 left>
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, RateLimitedError, RateLimiter, Workflow
from cano.testing import run


class Step(StrEnum):
    SEARCH = auto()
    DONE = auto()


@dataclass
class Query:
    words: str = ""


async def search(ctx: Context[Query]) -> Literal[Step.DONE]:
    print(f"{asyncio.get_running_loop().time():.1f} s: {ctx.data.words}")
    return Step.DONE


limiter = RateLimiter(2, per=1.0, burst=3, max_wait=2.5, name="search")
small = Workflow(Step, data=Query).register(Step.SEARCH, search, limiter)
big = Workflow(Step, data=Query).register(Step.SEARCH, search, limiter.costing(3))
for flow in (small, big):
    flow.exits(Step.DONE)


async def main() -> None:
    await asyncio.gather(
        small.run(Step.SEARCH, data=Query("apples")),
        small.run(Step.SEARCH, data=Query("pears")),
        big.run(Step.SEARCH, data=Query("everything about fruit")),
        small.run(Step.SEARCH, data=Query("plums")),
        small.run(Step.SEARCH, data=Query("cherries")),
    )
    try:
        await limiter.acquire(3, max_wait=0)  # the same by hand, outside of any workflow
    except RateLimitedError as error:
        print(f"quinces: refused, come back in {error.retry_after:.1f} s; {limiter!r}")


if __name__ == "__main__":
    run(main())
