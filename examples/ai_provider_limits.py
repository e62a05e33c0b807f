"""The limits of an AI provider: requests per minute, tokens per minute, tokens per day.

One limiter with three tiers guards every call: a call takes one request and its tokens from all of
them, or from none. How many tokens, the prompt says. Calls wait in line for the minute; where only
the next day would help, they fail at once, and the error names the tier that said no. Time is
virtual here: `cano.testing.run` jumps over every wait.

Prints:
    00:00 prompt 1, 400 tokens
    00:00 prompt 2, 400 tokens
    00:12 prompt 3, 400 tokens
    00:36 prompt 4, 400 tokens
    01:00 prompt 5, 400 tokens
    prompt 6: daily limit, come back in 24 h
    left: requests 5, tokens 0, daily 0
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import (
    Context,
    MultiRateLimiter,
    RateLimitedError,
    RateLimiter,
    Tier,
    WindowedRateLimiter,
    Workflow,
)
from cano.testing import run


class Step(StrEnum):
    ASK = auto()
    DONE = auto()


@dataclass
class Prompt:
    number: int = 0
    text: str = ""


provider = MultiRateLimiter(
    [
        Tier("requests", RateLimiter(6, per=60)),
        Tier("tokens", RateLimiter(1_000, per=60)),
        Tier("daily", WindowedRateLimiter(2_000, 86_400)),
    ],
    max_wait=300,
    name="provider",
)


def costs(ctx: Context[Prompt]) -> Mapping[str, float]:
    """What a call takes; from the tier it does not name, it takes 1."""
    tokens = len(ctx.data.text) // 4
    return {"tokens": tokens, "daily": tokens}


async def ask(ctx: Context[Prompt]) -> Literal[Step.DONE]:
    minutes, seconds = divmod(round(asyncio.get_running_loop().time()), 60)
    print(f"{minutes:02}:{seconds:02} prompt {ctx.data.number}, {len(ctx.data.text) // 4} tokens")
    return Step.DONE


flow = Workflow(Step, data=Prompt).exits(Step.DONE)
flow.register(Step.ASK, ask, provider.costing(costs))


async def main() -> None:
    prompts = [Prompt(number, "word" * 400) for number in range(1, 6)]
    await asyncio.gather(*(flow.run(Step.ASK, data=prompt) for prompt in prompts))
    try:
        await flow.run(Step.ASK, data=Prompt(6, "word" * 400))
    except RateLimitedError as error:
        hours = round(error.retry_after / 3600)
        print(f"prompt 6: {error.tier} limit, come back in {hours} h")
    print("left:", ", ".join(f"{tier} {left:.0f}" for tier, left in provider.available.items()))


if __name__ == "__main__":
    run(main())
