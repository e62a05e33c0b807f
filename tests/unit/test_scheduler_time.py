"""What a scheduler makes of ticks it missed, and of a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from enum import Enum
from math import inf
from typing import Any, Literal

import pytest

from cano import Context, Workflow
from cano.announced import ScheduleFired, ScheduleSkipped
from cano.errors import DefinitionError
from cano.events import Event
from cano.scheduler import (
    Allow,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Manual,
    Once,
    Schedule,
    Scheduler,
)
from cano.scheduler._flows import LATE
from cano.testing import run
from cano.testing.clock import VirtualLoop

HOUR = 3600.0


class Step(Enum):
    WORK = 1
    DONE = 2


async def work(ctx: Context) -> Literal[Step.DONE]:
    await asyncio.sleep(1)
    return Step.DONE


async def at_once(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


flow = Workflow(Step, start=Step.WORK).register(Step.WORK, work).exits(Step.DONE)
quick = Workflow(Step, start=Step.WORK).register(Step.WORK, at_once).exits(Step.DONE)


class Seen:
    """The ticks that were fired, in seconds after the first, and why others were not."""

    def __init__(self) -> None:
        self.dues: list[float] = []
        self.reasons: list[str] = []
        self.scheduler = Scheduler(observers=[self])

    def __call__(self, event: Event) -> None:
        if isinstance(event, ScheduleFired):
            self.dues.append(event.due)
        elif isinstance(event, ScheduleSkipped):
            self.reasons.append(event.reason)

    @property
    def minutes(self) -> list[float]:
        """When the fired ticks were, in minutes after the first."""
        return [round((due - self.dues[0]) / 60, 2) for due in self.dues]

    def lasts(self, script: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            async with self.scheduler:
                await script(loop)

        run(main())


@pytest.mark.parametrize(
    ("misfire", "expected", "skipped"),
    [
        ("skip", [0, 1, 2, 9, 10], ["missed"]),
        ("once", [0, 1, 2, 8, 9, 10], ["missed"]),
        (CatchUp(3), [0, 1, 2, 6, 7, 8, 9, 10], ["missed"]),
        (CatchUp(100), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], []),
    ],
)
@pytest.mark.parametrize("schedule", [Every(300), Cron("*/5 * * * *")])
def test_ticks_while_nobody_was_there(
    schedule: Schedule, misfire: Any, expected: list[float], skipped: list[str]
) -> None:
    """Ticks that came while the scheduler was closed are left out, run once, or made up for."""
    seen = Seen()
    seen.scheduler.add("x", quick, schedule, misfire=misfire)

    async def before(loop: VirtualLoop) -> None:
        while len(seen.dues) < 3:
            await asyncio.sleep(1)

    async def after(loop: VirtualLoop) -> None:
        while seen.dues[-1] < seen.dues[0] + 10 * 300:
            await asyncio.sleep(1)

    seen.lasts(before)
    run(asyncio.sleep(6 * 300 + LATE + 1))
    seen.lasts(after)
    assert [5 * n for n in expected] == seen.minutes
    assert skipped == seen.reasons


async def _alone(script: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    await script(asyncio.get_running_loop())


def test_a_tick_that_is_noticed_a_bit_late_is_run() -> None:
    """Less than a minute late is not missed, even where missed ticks are skipped."""
    seen = Seen()
    seen.scheduler.add("x", flow, Cron("0 * * * *"))

    async def until(loop: VirtualLoop, past: float) -> None:
        now = loop.wall_offset + loop.time()
        await asyncio.sleep(HOUR - now % HOUR + past)

    seen.lasts(lambda loop: until(loop, -30))
    run(_alone(lambda loop: until(loop, 29)))
    seen.lasts(lambda loop: asyncio.sleep(1))
    assert 1 == len(seen.dues)


@pytest.mark.parametrize(("misfire", "count"), [("skip", 0), ("once", 1)])
def test_a_single_time_that_was_missed(misfire: Any, count: int) -> None:
    """A moment that is long over when the flow is added is missed: not run, unless asked to."""
    seen = Seen()
    seen.scheduler.add("x", flow, Once(datetime(2020, 1, 1, tzinfo=UTC)), misfire=misfire)
    seen.lasts(lambda loop: asyncio.sleep(10))
    assert count == len(seen.dues)
    assert "done" == seen.scheduler.status("x").state


def test_the_clock_is_put_back() -> None:
    """When the clock is put back an hour, no tick of a cron flow comes twice."""
    seen = Seen()
    seen.scheduler.add("x", flow, Cron("0,30 * * * *"))

    async def script(loop: VirtualLoop) -> None:
        await asyncio.sleep(2 * HOUR)
        loop.wall_offset -= HOUR
        await asyncio.sleep(3 * HOUR)

    seen.lasts(script)
    assert [30 * n for n in range(8)] == seen.minutes


def test_intervals_do_not_care_for_the_clock() -> None:
    """An interval goes on as if nothing had happened when the clock is put back or forward."""
    begun: list[float] = []

    async def note(ctx: Context) -> Literal[Step.DONE]:
        begun.append(round(asyncio.get_running_loop().time()))
        return Step.DONE

    noting = Workflow(Step, start=Step.WORK).register(Step.WORK, note).exits(Step.DONE)
    seen = Seen()
    seen.scheduler.add("rate", noting, Every(100))
    seen.scheduler.add("delay", noting, Every(100, fixed="delay", delay=50))

    async def script(loop: VirtualLoop) -> None:
        for by in (-HOUR, 3 * HOUR, -HOUR):
            await asyncio.sleep(310)
            loop.wall_offset += by

    seen.lasts(script)
    assert list(range(0, 930, 50)) == begun


def test_the_clock_is_put_forward() -> None:
    """What is jumped over is missed, and noticed within a minute; nothing else is late."""
    seen = Seen()
    seen.scheduler.add("x", flow, Cron("0 * * * *"), misfire="once")

    async def script(loop: VirtualLoop) -> None:
        now = loop.wall_offset + loop.time()
        await asyncio.sleep(HOUR - now % HOUR + 600)  # ten past
        loop.wall_offset += 5 * HOUR
        await asyncio.sleep(61)
        assert 2 == len(seen.dues)
        await asyncio.sleep(HOUR)

    seen.lasts(script)
    assert [0, 300, 360] == seen.minutes
    assert ["missed"] == seen.reasons


def test_a_rest_is_as_long_as_it_was_to_be() -> None:
    """A clock that is put back does not make a flow rest for hours."""
    begun: list[float] = []

    async def fail(ctx: Context) -> Literal[Step.DONE]:
        begun.append(round(asyncio.get_running_loop().time()))
        raise ValueError("no")

    failing = Workflow(Step, start=Step.WORK).register(Step.WORK, fail).exits(Step.DONE)
    seen = Seen()
    seen.scheduler.add("x", failing, Every(10), backoff=Backoff(delay=25, factor=1, jitter=0))

    async def script(loop: VirtualLoop) -> None:
        await asyncio.sleep(5)
        loop.wall_offset -= HOUR
        await asyncio.sleep(100)

    seen.lasts(script)
    assert [0, 30, 60, 90] == begun


def test_a_small_correction_is_no_jump() -> None:
    """A clock that is kept right by fractions of a second changes nothing."""
    seen = Seen()
    seen.scheduler.add("x", flow, Every(10))

    async def script(loop: VirtualLoop) -> None:
        for _ in range(5):
            await asyncio.sleep(10)
            loop.wall_offset -= 0.3

    seen.lasts(script)
    assert [10.0] * (len(seen.dues) - 1) == [
        round(b - a, 3) for a, b in zip(seen.dues, seen.dues[1:], strict=False)
    ]


def test_the_loop_was_blocked() -> None:
    """Where ticks were passed while the loop was blocked, the latest is run, and the others not."""
    seen = Seen()
    seen.scheduler.add("x", quick, Every(2))

    async def script(loop: VirtualLoop) -> None:
        await asyncio.sleep(3)
        loop.now += 20  # as a task that does not give way would
        await asyncio.sleep(2.5)

    seen.lasts(script)
    assert [0, 2, 22, 24] == [round(due - seen.dues[0]) for due in seen.dues]
    assert ["missed"] == seen.reasons


def test_nobody_is_asked_who_is_not_due() -> None:
    """There is no polling: a flow is asked for its next time when that is due, whatever others do."""
    asked: list[float] = []

    class Rare:
        def next(self, after: float, start: float = 0.0, ended: float | None = None) -> float:
            asked.append(after)
            return max(after, start) + 50_000

    seen = Seen()
    seen.scheduler.add("rare", flow, Rare())
    seen.scheduler.add("often", quick, Every(1))
    seen.lasts(lambda loop: asyncio.sleep(2000.5))
    assert 2001 == len(seen.dues)
    assert len(asked) < 5


def test_many_at_once() -> None:
    """A thousand flows that are due at the same moment all run, and others get their turn."""
    seen = Seen()
    for number in range(1000):
        seen.scheduler.add(str(number), flow, Every(60))
    seen.lasts(lambda loop: asyncio.sleep(61))
    assert 2000 == len(seen.dues)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"overlap": "wait"}, 'pass "skip", "queue", "cancel" or Allow'),
        ({"misfire": 3}, 'pass "skip", "once" or CatchUp'),
        ({"backoff": 3}, "pass Backoff"),
        ({"trip": 0}, "pass a number of failures, 1 or more, or None"),
        ({"until": datetime(2030, 1, 1)}, "with a time zone"),  # noqa: DTZ001
        ({"until": "2030"}, "with a time zone"),
        ({"jitter": -1}, "pass seconds, 0 or more"),
        ({"jitter": inf}, "pass seconds, 0 or more"),
        ({"tags": "one"}, "pass a list of texts"),
        ({"unfinished": "drop"}, 'pass "resume" or "supersede"'),
        ({"data": 5}, "would be shared by all runs; pass what makes it"),
        ({"data": asyncio.sleep}, "is async; make it a plain function"),
        ({"start": 5}, "start 5 is no member of Step"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    """What is wrong with a flow is said when it is added: which flow, what, and what to do."""
    with pytest.raises(DefinitionError, match=complaint):
        Scheduler().add("x", flow, Every(1), **settings)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Allow(0), "Allow.0.: pass a whole number, 1 or more"),
        (lambda: CatchUp(2000), "from 1 to 1000|1 to 1000"),
        (lambda: CatchUp(True), "pass a whole number"),
        (lambda: Backoff(delay=-1), "delay=-1; pass a number, 0 or more"),
        (lambda: Backoff(factor=0.5), "factor=0.5; pass a number, 1 or more"),
        (lambda: Backoff(max_delay=inf), "max_delay=inf"),
        (lambda: Backoff(jitter=2), "a share of the delay, from 0 to 1"),
        (lambda: Scheduler(grace=-1), "grace=-1; pass seconds"),
        (lambda: Scheduler(store=5), "is no store"),  # type: ignore[arg-type]
        (lambda: Scheduler(observers=[5]), "cannot be called"),  # type: ignore[list-item]
        (lambda: Scheduler().add("", flow, Every(1)), "no name"),
        (lambda: Scheduler().add("x", 5, Every(1)), "5 is no workflow"),  # type: ignore[arg-type]
        (lambda: Scheduler().add("x", flow, Every), "is no schedule"),  # type: ignore[arg-type]
        (lambda: Scheduler().add("x", flow, "@daily"), "is no schedule"),  # type: ignore[arg-type]
        (
            lambda: Scheduler().add("x", flow, Every(1)).add("x", flow, Manual()),
            "flow 'x' is there already",
        ),
    ],
)
def test_values_that_make_no_sense(make: Callable[[], object], complaint: str) -> None:
    """Every setting is checked when it is made."""
    with pytest.raises(DefinitionError, match=complaint):
        make()
