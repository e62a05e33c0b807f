"""No data, no resources: the state is all there is, as in the weather of a Markov chain.

Tomorrow depends on today alone, so a task has nothing to look up and nothing to write down: it
only says where to go. Each function below is one row of the table of chances.

Prints:
    sun
    ...
    rain
    ...
    rainbow
"""

import asyncio
from enum import StrEnum, auto
from random import Random
from typing import Literal

from cano import Context, Workflow


class Weather(StrEnum):
    SUN = auto()
    CLOUDS = auto()
    RAIN = auto()
    RAINBOW = auto()


roll = Random(11).random  # the same weather every time
flow = Workflow(Weather).exits(Weather.RAINBOW)


@flow.task(Weather.SUN)
async def after_sun(ctx: Context[None]) -> Literal[Weather.SUN, Weather.CLOUDS]:
    print(ctx.state.value)
    return Weather.SUN if roll() < 0.5 else Weather.CLOUDS


@flow.task(Weather.CLOUDS)
async def after_clouds(
    ctx: Context[None],
) -> Literal[Weather.SUN, Weather.CLOUDS, Weather.RAIN]:
    print(ctx.state.value)
    chance = roll()
    return Weather.SUN if chance < 0.2 else Weather.CLOUDS if chance < 0.5 else Weather.RAIN


@flow.task(Weather.RAIN)
async def after_rain(ctx: Context[None]) -> Literal[Weather.RAIN, Weather.RAINBOW]:
    print(ctx.state.value)
    return Weather.RAIN if roll() < 0.4 else Weather.RAINBOW


async def main() -> None:
    last = await flow.run(Weather.SUN)
    print(last.value)


if __name__ == "__main__":
    asyncio.run(main())
