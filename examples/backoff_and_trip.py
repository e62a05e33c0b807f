"""A flow that fails rests longer and longer, and at last trips, so that somebody has to look.

The sync runs every ten seconds, until its server is gone. After each failure the flow rests twice as
long as before, and the ticks that come meanwhile do not count. After four failures in a row it is
tripped: nothing is begun any more, not even by hand, until it is reset. The events say all of it, to
whoever listens.

Prints:
    0 s: finished
    10 s: finished
    20 s: failed, ConnectionError: the server is gone
    20 s: rests for 15 s
    40 s: failed, ConnectionError: the server is gone
    40 s: rests for 30 s
    80 s: failed, ConnectionError: the server is gone
    80 s: rests for 60 s
    150 s: failed, ConnectionError: the server is gone
    150 s: tripped after 4 failures in a row
    triggered: flow 'sync' is tripped after 4 failures in a row, the last: ...
    status: tripped, 6 runs
    210 s: finished
    status: idle, 7 runs
"""

import asyncio
import logging
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Workflow, on
from cano.announced import ScheduleBackedOff, ScheduleEnded, ScheduleTripped
from cano.scheduler import Backoff, Every, FlowRefusedError, Scheduler
from cano.testing import run  # asyncio.run, in virtual time


class Step(StrEnum):
    SYNC = auto()
    DONE = auto()


class Server:
    gone = False


def seconds() -> str:
    return f"{asyncio.get_running_loop().time():.0f} s"


@on(ScheduleEnded, ScheduleBackedOff, ScheduleTripped)
def tell(event: ScheduleEnded | ScheduleBackedOff | ScheduleTripped) -> None:
    if isinstance(event, ScheduleEnded):
        print(f"{seconds()}: {event.outcome}{event.error and f', {event.error}'}")
    elif isinstance(event, ScheduleBackedOff):
        print(f"{seconds()}: rests for {event.until - event.time:.0f} s")
    else:
        print(f"{seconds()}: tripped after {event.streak} failures in a row")


async def sync(ctx: Context) -> Literal[Step.DONE]:
    if Server.gone:
        raise ConnectionError("the server is gone")
    return Step.DONE


flow = Workflow(Step, start=Step.SYNC).register(Step.SYNC, sync).exits(Step.DONE)


async def main() -> None:
    logging.disable()  # failures are logged too, with their tracebacks
    scheduler = Scheduler(observers=[tell])
    backoff = Backoff(delay=15, factor=2, max_delay=300, jitter=0)
    scheduler.add("sync", flow, Every(10), backoff=backoff, trip=4)
    async with scheduler:
        await asyncio.sleep(15)
        Server.gone = True
        await asyncio.sleep(190)
        try:
            await scheduler.trigger("sync")
        except FlowRefusedError as error:
            print(f"triggered: {error}")
        print(f"status: {scheduler.status('sync').state}, {scheduler.status('sync').runs} runs")
        Server.gone = False
        await scheduler.reset("sync")
        await asyncio.sleep(10)
        print(f"status: {scheduler.status('sync').state}, {scheduler.status('sync').runs} runs")


if __name__ == "__main__":
    run(main())
