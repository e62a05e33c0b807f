"""A report on every working day, at six in the morning, by the clocks of Berlin.

`Cron` takes the five fields that everybody knows, and a time zone. The weekend in between is the one on
which clocks are put forward: six in the morning is an hour earlier for the rest of the world, and still
six. Each run gets the time it was due, and makes its data of it; the name of a run is made of it too.
Five days take a blink, because time is virtual here: `asyncio.run(main())` would wait for them.

Prints:
    At 06:00 on Monday through Friday
    Thu 25 Mar 06:00 CET: report of 2027-03-24, run report@2027-03-25T05:00:00Z
    Fri 26 Mar 06:00 CET: report of 2027-03-25, run report@2027-03-26T05:00:00Z
    Mon 29 Mar 06:00 CEST: report of 2027-03-28, run report@2027-03-29T04:00:00Z
    by hand: report of 2027-03-01
    next: Tue 30 Mar 06:00 CEST
"""

import asyncio
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum, auto
from typing import Literal
from zoneinfo import ZoneInfo

from cano import Context, Workflow
from cano.scheduler import Cron, Scheduler
from cano.testing import run
from cano.testing.clock import VirtualLoop

BERLIN = ZoneInfo("Europe/Berlin")
MORNING = "%a %d %b %H:%M %Z"


class Step(StrEnum):
    WRITE = auto()
    DONE = auto()


@dataclass
class Report:
    day: date
    due: str = "by hand"


def of_yesterday(due: datetime) -> Report:
    """The data of the run that is due then."""
    here = due.astimezone(BERLIN)
    return Report(here.date() - timedelta(days=1), here.strftime(MORNING))


async def write(ctx: Context[Report]) -> Literal[Step.DONE]:
    named = "" if ctx.data.due == "by hand" else f", run {ctx.run_id}"
    print(f"{ctx.data.due}: report of {ctx.data.day}{named}")
    return Step.DONE


report = Workflow(Step, data=Report, start=Step.WRITE).register(Step.WRITE, write).exits(Step.DONE)


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)  # noqa: S101 -- it is what cano.testing.run uses
    loop.wall_offset = datetime(2027, 3, 24, 12, tzinfo=BERLIN).timestamp()  # a Wednesday

    mornings = Cron("0 6 * * MON-FRI", "Europe/Berlin")
    print(mornings.explain())
    scheduler = Scheduler().add("report", report, mornings, data=of_yesterday)
    async with scheduler:
        await asyncio.sleep(5 * 24 * 3600)
        handle = await scheduler.trigger("report", data=Report(date(2027, 3, 1)))
        await handle.result()
        following = scheduler.status("report").next_run
        assert following is not None  # noqa: S101 -- there is always another morning
        print(f"next: {following.astimezone(BERLIN).strftime(MORNING)}")


if __name__ == "__main__":
    run(main())
