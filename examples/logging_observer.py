"""Logs: what a run does, and which run a line belongs to that a task logs itself.

`LoggingObserver` tells each kind of event at a level of its own. `RunContext` puts the run, state
and attempt on every record, also on those of libraries that know nothing of runs. The same records
are then shown once more as lines of JSON, for machines.

Prints:
    INFO    Order a7 COOK: run started, version 0
    INFO      (COOK, attempt 1) the oven is cold
    WARNING Order a7 COOK: attempt failed: OvenError('cold'); the next follows in 0.05 s
    INFO      (COOK, attempt 2) baked
    INFO    Order a7 COOK attempt 2: task succeeded, next is SERVED
    INFO    Order a7 SERVED: run finished
    {"level": "INFO", "message": "the oven is cold", "state": "COOK", "attempt": 1}
    {"level": "INFO", "message": "baked", "state": "COOK", "attempt": 2}
"""

import asyncio
import json
import logging
import sys
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Observer, Retry, Workflow
from cano.observers import JsonFormatter, LoggingObserver, RunContext

oven = logging.getLogger("kitchen.oven")  # of a library, say


class OvenError(Exception):
    """It is cold."""


class Step(StrEnum):
    COOK = auto()
    SERVED = auto()


class Plain(logging.Formatter):
    """Runs speak for themselves; what tasks say is shown with where they are."""

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "event"):
            return f"{record.levelname:7} {record.getMessage()}"
        place = vars(record)
        where = f"({place['state']}, attempt {place['attempt']})"
        return f"{record.levelname:7}   {where} {record.getMessage()}"


class Kept(logging.Handler):
    """Keeps the lines of JSON for the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


context = RunContext()
shown, kept = logging.StreamHandler(sys.stdout), Kept()
shown.setFormatter(Plain())
kept.setFormatter(JsonFormatter())
for handler in (shown, kept):
    handler.addFilter(context)
    logging.getLogger("kitchen").addHandler(handler)
logging.getLogger("kitchen").setLevel(logging.INFO)

observers: list[Observer] = [LoggingObserver("kitchen.runs"), context]
flow = Workflow(Step, name="Order", observers=observers).exits(Step.SERVED)


@flow.task(Step.COOK, Retry.fixed(2, 0.05))
async def cook(ctx: Context[None]) -> Literal[Step.SERVED]:
    if ctx.attempt == 1:
        oven.info("the oven is cold")
        raise OvenError("cold")
    oven.info("baked")
    return Step.SERVED


async def main() -> None:
    await flow.run(Step.COOK, run_id="a7")
    for line in kept.lines:
        record = json.loads(line)
        if record["logger"] == oven.name:
            print(json.dumps({k: record[k] for k in ("level", "message", "state", "attempt")}))


if __name__ == "__main__":
    asyncio.run(main())
