"""States are an enum, tasks are async functions, their return annotations are the edges.

Prints:
    DONE: of 9 words the longest is 'quick'
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from cano import Context, Workflow


class Step(Enum):
    FETCH, READ, DONE = "fetch", "read", "done"


@dataclass
class Page:
    text: str = ""
    longest: str = ""


async def fetch(ctx: Context[Page]) -> Literal[Step.READ]:
    ctx.data.text = "The quick brown fox jumps over the lazy dog"
    return Step.READ


async def read(ctx: Context[Page]) -> Literal[Step.DONE]:
    ctx.data.longest = max(ctx.data.text.split(), key=len)
    return Step.DONE


flow = Workflow(Step, data=Page).exits(Step.DONE)
flow.register(Step.FETCH, fetch).register(Step.READ, read)

page = Page()
end = asyncio.run(flow.run(Step.FETCH, data=page))  # in async code: await flow.run(...)
print(f"{end.name}: of {len(page.text.split())} words the longest is {page.longest!r}")
