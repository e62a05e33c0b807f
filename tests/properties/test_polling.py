"""A poll against an independent account of when it asks, and how it ends."""

from __future__ import annotations

import asyncio
from enum import StrEnum, auto
from math import inf
from typing import Any, Literal, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from cano import Context, MemoryCheckpoints, Pending, PollExhaustedError, PollTask, Ready, Workflow
from cano.testing import run


class Step(StrEnum):
    WAIT = auto()
    DONE = auto()


class Settings(NamedTuple):
    delay: int
    factor: int
    max_delay: int
    limit: int | None
    deadline: float | None
    errors: int


settings = st.builds(
    Settings,
    delay=st.integers(0, 20),
    factor=st.integers(0, 3),
    max_delay=st.integers(0, 100),
    limit=st.none() | st.integers(1, 12),
    # What would fall on the deadline itself may fall to either side of it.
    deadline=st.none() | st.integers(0, 200).map(lambda whole: whole + 0.5),
    errors=st.integers(0, 3),
)
pending = st.builds(Pending, st.none() | st.integers(-5, 50), save=st.booleans())
answers = st.lists(
    st.tuples(st.integers(0, 10), pending | st.just("busy") | st.just("bug")), max_size=12
)
"""What each poll comes to, and how long it takes; the one after them is ready."""


class Scripted(PollTask[Step]):
    def __init__(self, settings: Settings, script: list[Any]) -> None:
        self.script = iter(script)
        self.asked: list[float] = []
        for name, value in settings._asdict().items():
            setattr(self, name, value)

    async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.DONE]] | Pending:
        self.asked.append(time())
        takes, answer = next(self.script, (0, Ready(Step.DONE)))
        await asyncio.sleep(takes)
        if answer == "busy":
            raise ConnectionError
        if answer == "bug":
            raise TypeError
        return answer  # type: ignore[no-any-return]


def time() -> float:
    return asyncio.get_running_loop().time()


def foretold(settings: Settings, script: list[Any]) -> tuple[list[float], float, str]:
    """When it asks, when it ends, and how."""
    now, asked, in_a_row = 0.0, list[float](), 0
    limit = inf if settings.limit is None else settings.limit
    deadline = inf if settings.deadline is None else settings.deadline
    for takes, answer in script:
        asked.append(now)
        if now + takes > deadline:
            return asked, deadline, "exhausted"
        now += takes
        in_a_row = in_a_row + 1 if isinstance(answer, str) else 0
        if answer == "bug" or in_a_row > settings.errors:
            return asked, now, "failed"
        pause = settings.delay * settings.factor ** (len(asked) - 1)
        pause = min(pause, settings.max_delay)
        if not isinstance(answer, str) and answer.seconds is not None:
            pause = max(answer.seconds, 0)
        if len(asked) >= limit or now + pause >= deadline:
            return asked, now, "exhausted"
        now += pause
    return [*asked, now], now, "done"


@given(settings, answers, st.booleans())
def test_it_asks_and_ends_as_foretold(settings: Settings, script: list[Any], durable: bool) -> None:
    """Waits, limits, deadline and tolerated failures add up, with a store and without."""
    task = Scripted(settings, script)

    async def main() -> tuple[float, str]:
        store = MemoryCheckpoints() if durable else None
        flow = Workflow(Step, checkpoints=store).register(Step.WAIT, task).exits(Step.DONE)
        try:
            await flow.run(Step.WAIT)
        except PollExhaustedError:
            return time(), "exhausted"
        except (ConnectionError, TypeError):
            return time(), "failed"
        return time(), "done"

    ended, how = run(main())
    asked, when, outcome = foretold(settings, script)
    # Moments that are kept are seconds since 1970: exact to a microsecond.
    assert ([round(at, 3) for at in asked], round(when, 3), outcome) == (
        [round(at, 3) for at in task.asked],
        round(ended, 3),
        how,
    )
