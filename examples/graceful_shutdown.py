"""Stopping a scheduler from a signal handler: what runs may finish, in a time that is known.

SIGTERM is what a container gets before it is killed, mostly ten to thirty seconds later. The handler asks
the scheduler to stop: it begins nothing more, waits for the run under way, at most *grace* seconds, and
takes the resources down. A run that takes longer is cancelled, and undoes what it has done. (With a store
it is let go instead, and carried on after the next start.) The program sends the signal to itself.

Prints:
    the database is up
    begins a backup
    begins a long journey
    got SIGTERM
    the backup is done
    the journey is broken off
    the database is down
    left running: none
"""

import asyncio
import os
import signal
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Resources, Workflow
from cano.scheduler import Every, Scheduler


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


class Database:
    async def setup(self) -> None:
        print("the database is up")

    async def teardown(self) -> None:
        print("the database is down")


async def back_up(ctx: Context, database: Database) -> Literal[Step.DONE]:
    print("begins a backup")
    await asyncio.sleep(0.2)
    print("the backup is done")
    return Step.DONE


async def travel(ctx: Context) -> Literal[Step.DONE]:
    print("begins a long journey")
    try:
        await asyncio.sleep(3600)
    finally:
        print("the journey is broken off")
    return Step.DONE


async def main() -> None:
    resources = Resources(database=Database())
    backup = Workflow(Step, start=Step.WORK, name="backup", resources=resources)
    backup.register(Step.WORK, back_up).exits(Step.DONE)
    journey = Workflow(Step, start=Step.WORK, name="journey").register(Step.WORK, travel)

    scheduler = Scheduler(grace=0.5)
    scheduler.add("backup", backup, Every(600))
    scheduler.add("journey", journey.exits(Step.DONE), Every(600))

    def stop() -> None:
        print("got SIGTERM")
        stopping.append(asyncio.ensure_future(scheduler.stop()))

    stopping: list[asyncio.Future[tuple[str, ...]]] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)

    await scheduler.run()
    print(f"left running: {', '.join(await stopping[0]) or 'none'}")


if __name__ == "__main__":
    asyncio.run(main())
