"""Holding a run from outside: start it, follow its events, change your mind, leave no mess.

`start_run` returns at once with a handle. Cancelling through it is asyncio's own cancellation, so
`finally` and `async with` clean up as they always do, and the resources are put away before
`result` says that the run was cancelled.

Prints:
    oven on
    MIX: eggs, flour, sugar
    BAKE: in an hour it is done
    nobody is hungry any more
    cake out of the oven
    oven off
    RunCancelledError: run 'cake' was cancelled in MIX → BAKE
    cancelled, after the events RunStarted, StateEntered, ... TaskCancelled, RunCancelled
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Resources, RunCancelledError, StateEntered, Workflow


class Step(StrEnum):
    MIX = auto()
    BAKE = auto()
    SERVED = auto()


class Oven:
    async def setup(self) -> None:
        print("oven on")

    async def teardown(self) -> None:
        print("oven off")


flow = Workflow(Step, resources=Resources(oven=Oven())).exits(Step.SERVED)


@flow.task(Step.MIX)
async def mix(ctx: Context[None]) -> Literal[Step.BAKE]:
    await ctx.sleep(0.05)
    return Step.BAKE


@flow.task(Step.BAKE)
async def bake(ctx: Context[None], oven: Oven) -> Literal[Step.SERVED]:
    try:
        await ctx.sleep(3600)
    finally:
        print("cake out of the oven")
    return Step.SERVED


async def main() -> None:
    handle = await flow.start_run(Step.MIX, run_id="cake")
    told: list[str] = []
    async for event in handle.events():
        told.append(type(event).__name__)
        match event:
            case StateEntered(state="BAKE"):
                print("BAKE: in an hour it is done")
                await asyncio.sleep(0.1)
                print("nobody is hungry any more")
                await handle.cancel()
            case StateEntered():
                print(f"{event.state}: eggs, flour, sugar")
            case _:
                pass
    try:
        await handle.result()
    except RunCancelledError as error:
        print(f"{type(error).__name__}: {error}")
    print(f"{handle.status}, after the events {', '.join(told)}")


if __name__ == "__main__":
    asyncio.run(main())
