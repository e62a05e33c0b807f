"""What the tests of schedulers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from cano import Context, Workflow
from cano.announced import (
    ScheduleSkipped,
)
from cano.events import Event
from cano.scheduler import (
    Scheduler,
)
from cano.testing import run


class Step(Enum):
    WORK = 1
    DONE = 2


@dataclass
class World:
    """A workflow whose runs take *takes* seconds and fail while *failing*; what was seen of it."""

    takes: float = 0.0
    failing: int = 0
    begun: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    flow: Workflow[Step, None] = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.flow = Workflow(Step, start=Step.WORK).register(Step.WORK, self.work).exits(Step.DONE)
        self.scheduler = Scheduler(observers=[self.events.append], grace=5)
        self.zero = 0.0

    async def work(self, ctx: Context) -> Literal[Step.DONE]:
        self.begun.append(round(asyncio.get_running_loop().time() - self.zero, 3))
        await asyncio.sleep(self.takes)
        if self.failing:
            self.failing -= 1
            raise ValueError("no")
        return Step.DONE

    def lasts(
        self, seconds: float, script: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Open the scheduler for so many virtual seconds, and do as the *script* says."""

        async def main() -> None:
            async with self.scheduler:
                self.zero = asyncio.get_running_loop().time()
                if script:
                    await script()
                await asyncio.sleep(seconds)

        run(main())

    def seen(self, *kinds: type[Event]) -> list[str]:
        return [type(event).__name__ for event in self.events if isinstance(event, kinds or Event)]

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ScheduleSkipped)]
