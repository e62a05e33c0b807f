"""What the tests of schedulers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from cano import Context, MemoryCheckpoints, RunQuery, Workflow
from cano.checkpoints.store import CheckpointStore
from cano.events import Event
from cano.scheduler import Every, Scheduler
from cano.testing import run


class Step(Enum):
    WORK = 1
    DONE = 2


@dataclass
class Data:
    due: str = ""


class Process:
    """One of several processes: a workflow, and a scheduler, over the same store."""

    def __init__(self, store: CheckpointStore, did: list[str], **settings: Any) -> None:
        self.did = did
        self.takes = 1.0
        self.failing = False
        self.events: list[Event] = []
        self.flow = Workflow(Step, start=Step.WORK, data=Data, name="job", checkpoints=store)
        self.flow.register(Step.WORK, self.work).exits(Step.DONE)
        self.scheduler = Scheduler(store=store, observers=[self.events.append], grace=3)
        self.settings = {"schedule": Every(10)} | settings
        self.scheduler.add("x", self.flow, **self.settings)

    async def work(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        self.did.append(ctx.run_id)
        await asyncio.sleep(self.takes)
        if self.failing:
            raise ValueError("no")
        return Step.DONE

    @property
    def status(self) -> Any:
        return self.scheduler.status("x")


class World:
    """A store, and the processes over it."""

    def __init__(self, **settings: Any) -> None:
        self.store = MemoryCheckpoints()
        self.did: list[str] = []
        self.settings = settings

    def process(self, **settings: Any) -> Process:
        return Process(self.store, self.did, **self.settings, **settings)

    async def ends(self) -> list[str]:
        runs = await self.store.runs(RunQuery(limit=1000))
        return [str(summary.status) for summary in reversed(runs)]


def lasts(script: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(script())
