"""Polls with a store: what a resumed visit goes on with, and what it costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import msgspec
import pytest

from cano import (
    CheckpointError,
    Context,
    DataError,
    MemoryCheckpoints,
    More,
    Pending,
    PollExhaustedError,
    PollTask,
    Ready,
    Retry,
    RoutingError,
    SteppedTask,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.events import CursorSaved
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    WAIT = auto()
    END = auto()


@dataclass
class Seen:
    answers: list[str] = field(default_factory=list)


NO = Pending()
YES = Ready(Step.END)
DIES = SimulatedCrash()


def time() -> float:
    return asyncio.get_running_loop().time()


class Script(PollTask[Step]):
    """Answers as it is told, over all lives of the process; notes each answer in the run data."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        for name, value in settings.items():
            setattr(self, name, value)

    async def poll(self, ctx: Context[Seen]) -> Ready[Literal[Step.END]] | Pending:
        self.asked.append(time())
        answer = self.answers.pop(0)
        ctx.data.answers.append(type(answer).__name__)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


def polling(store: CheckpointStore, task: Any, *policies: Any) -> Workflow[Step, Seen]:
    flow = Workflow(Step, data=Seen, checkpoints=store).exits(Step.END)
    return flow.register(Step.WAIT, task, *policies)


async def first_life(store: CheckpointStore, task: Any, *policies: Any, lasts: float = 1e6) -> None:
    """Run until the process dies of itself, or is shut down after so many seconds."""
    life = asyncio.ensure_future(polling(store, task, *policies).run(Step.WAIT, run_id="r"))
    await asyncio.wait((life,), timeout=lasts)
    life.cancel()
    with suppress(SimulatedCrash, asyncio.CancelledError):
        await life


async def second_life(store: CheckpointStore, task: Any, *policies: Any) -> list[str]:
    flow = polling(store, task, *policies)
    await flow.resume("r")
    return (await flow.handle("r").data()).answers


async def rows(store: CheckpointStore) -> dict[str, int]:
    return dict(Counter(type(event).__name__ for event in await store.load("r")))


def test_a_poll_costs_no_row() -> None:
    """However often it asks, a poll leaves nothing in the store unless it says so."""

    async def main() -> dict[str, int]:
        store = MemoryCheckpoints()
        await polling(store, Script(*[NO] * 50, YES)).run(Step.WAIT, run_id="r")
        return await rows(store)

    assert {"RunStarted": 1, "StateEntered": 1, "RunFinished": 1} == run(main())


def test_what_was_not_saved_begins_anew() -> None:
    """Without `save` a resumed visit asks at once, from the data it was entered with."""

    async def main() -> tuple[list[float], list[str]]:
        store, task = MemoryCheckpoints(), Script(NO, NO, NO, YES, delay=100, max_delay=100)
        await first_life(store, task, lasts=150)
        await asyncio.sleep(50)
        answers = await second_life(store, task)
        return task.asked, answers

    assert ([0, 100, 200, 300], ["Pending", "Ready"]) == run(main())


@pytest.mark.parametrize("down", [0, 30, 1000])
def test_a_saved_wait_goes_on(down: float) -> None:
    """With `save` only what is left is waited, from the data as it was saved."""

    async def main() -> tuple[list[float], list[str]]:
        store = MemoryCheckpoints()
        task = Script(NO, Pending(100, save=True), YES)
        await first_life(store, task, lasts=51)
        await asyncio.sleep(down)
        answers = await second_life(store, task)
        return task.asked, answers

    asked, answers = run(main())
    assert [0, 1, max(101, 51 + down)] == pytest.approx(asked)
    assert ["Pending", "Pending", "Ready"] == answers


def test_what_is_saved() -> None:
    """One row per saved wait: the counts, the moments, and what changed of the data."""

    async def main() -> tuple[dict[str, Any], list[str]]:
        store = MemoryCheckpoints()
        task = Script(NO, OSError(), Pending(10, save=True), YES, errors=1)
        await polling(store, task).run(Step.WAIT, run_id="r")
        (saved,) = [e for e in await store.load("r") if isinstance(e, CursorSaved)]
        value = msgspec.json.decode(saved.value)
        value["due"] -= value["begun"]
        value.pop("begun")
        return value, msgspec.json.decode((saved.patch or {})["answers"])

    value, answers = run(main())
    assert {"polls": 3, "errors": 0, "due": pytest.approx(12)} == value
    assert ["Pending", "Pending"] == answers  # the failed poll in between left the data alone


def test_counts_go_on() -> None:
    """Polls before a resume count towards the limit, and the back-off goes on."""

    async def main() -> list[float]:
        store = MemoryCheckpoints()
        saved = Pending(save=True)
        task = Script(saved, saved, DIES, saved, YES, factor=2.0, limit=3)
        await first_life(store, task)
        await asyncio.sleep(100)
        with pytest.raises(PollExhaustedError, match=r"after 3 polls in 103 s; limit=3"):
            await second_life(store, task)
        return task.asked

    assert [0, 1, 3, 103] == pytest.approx(run(main()))


def test_a_deadline_goes_on() -> None:
    """Time counts from the beginning of the visit, that of the outage included."""

    async def main() -> float:
        store = MemoryCheckpoints()
        task = Script(Pending(10, save=True), DIES, NO, NO, NO, deadline=100, delay=20)
        await first_life(store, task)
        await asyncio.sleep(30)
        with pytest.raises(PollExhaustedError, match=r"after 4 polls in 80 s; .* the 20 s left"):
            await second_life(store, task)
        return time()

    assert 80 == pytest.approx(run(main()))


@pytest.mark.parametrize("ready", [False, True])
def test_a_deadline_that_passed_meanwhile(ready: bool) -> None:
    """Who was down at the deadline asks once more: it may have come."""

    async def main() -> list[float]:
        store = MemoryCheckpoints()
        task = Script(Pending(10, save=True), DIES, YES if ready else NO, deadline=100)
        await first_life(store, task)
        await asyncio.sleep(1000)
        if ready:
            await second_life(store, task)
        else:
            said = r"after 2 polls in 1.01e\+03 s; deadline=100 s is over; raise it"
            with pytest.raises(PollExhaustedError, match=said):
                await second_life(store, task)
        return task.asked

    assert [0, 10, 1010] == pytest.approx(run(main()))


def test_a_deadline_of_what_was_not_saved_begins_anew() -> None:
    """Nothing in the store says when polls that saved nothing began."""

    async def main() -> float:
        store = MemoryCheckpoints()
        task = Script(*[NO] * 99, deadline=100, delay=30)
        await first_life(store, task, lasts=80)
        await asyncio.sleep(1000)
        with pytest.raises(PollExhaustedError, match="after 4 polls in 90 s"):
            await second_life(store, task)
        return time()

    assert 1170 == pytest.approx(run(main()))


@pytest.mark.parametrize(
    ("settings", "last"),
    [({"limit": 2}, NO), ({"deadline": 12}, NO), ({"errors": 0}, OSError()), ({}, None)],
)
def test_a_failed_run_that_is_opened_again(settings: dict[str, Any], last: Any) -> None:
    """Limit, deadline and back-off begin anew then; the data goes on from what was saved."""

    async def main() -> tuple[list[float], list[str]]:
        store = MemoryCheckpoints()
        task = Script(Pending(10, save=True), last, NO, YES, factor=3.0, **settings)
        flow = polling(store, task)
        with pytest.raises((PollExhaustedError, OSError, RoutingError)):
            await flow.run(Step.WAIT, run_id="r")
        await asyncio.sleep(1000)
        await flow.retry("r")
        return task.asked, (await flow.handle("r").data()).answers

    asked, answers = run(main())
    assert [0, 10, 1010, 1011] == pytest.approx(asked)
    assert ["Pending", "Pending", "Ready"] == answers


@pytest.mark.parametrize("answers", [(YES,), (NO,) * 9])
def test_a_clock_that_jumps_back(answers: tuple[Any, ...]) -> None:
    """A process with an earlier clock goes on as if no time had passed since the last row."""

    async def main() -> tuple[list[float], float]:
        store = MemoryCheckpoints()
        task = Script(Pending(100, save=True), *answers, deadline=200, delay=40)
        await first_life(store, task, lasts=50)
        loop: Any = asyncio.get_running_loop()
        loop.wall_offset -= 5000
        if answers == (YES,):
            await second_life(store, task)
        else:
            with pytest.raises(PollExhaustedError, match=r"after 4 polls in 180 s"):
                await second_life(store, task)
        return task.asked, time()

    asked, when = run(main())
    assert [0, 150] == pytest.approx(asked[:2])
    assert pytest.approx(150 if answers == (YES,) else 230) == when


def test_attempts_are_those_of_one_poll() -> None:
    """A poll that was retried ends with a row: the next one has all its attempts."""
    attempts: list[int] = []

    class Flaky(Script):
        async def poll(self, ctx: Context[Seen]) -> Ready[Literal[Step.END]] | Pending:
            attempts.append(ctx.attempt)
            return await super().poll(ctx)

    async def main() -> dict[str, int]:
        store = MemoryCheckpoints()
        bad = OSError("busy")
        task = Flaky(bad, bad, NO, bad, bad, NO, NO, bad, bad, YES)
        await polling(store, task, Retry.fixed(3, 1)).run(Step.WAIT, run_id="r")
        return await rows(store)

    expected = {"RunStarted": 1, "StateEntered": 1, "RunFinished": 1}
    assert {**expected, "TaskRetried": 6, "CursorSaved": 2} == run(main())
    assert [1, 2, 3, 1, 2, 3, 1, 1, 2, 3] == attempts


def test_a_hiccup_loses_nothing() -> None:
    """A retry brings back the data of its own poll, not what earlier ones gathered."""

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        task = Script(*[NO] * 5, OSError(), OSError(), YES, errors=1)
        flow = polling(store, task, Retry.fixed(2, 1))
        await flow.run(Step.WAIT, run_id="r")
        return (await flow.handle("r").data()).answers

    assert [*["Pending"] * 5, "Ready"] == run(main())


def test_what_a_poll_does_is_its_own() -> None:
    """An effect, a sleep or a signal of one poll is not taken for that of the next."""
    made: list[float] = []

    class Busy(PollTask[Step]):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
            async def ask() -> float:
                made.append(time())
                return len(made)

            await ctx.sleep(10)
            return YES if await ctx.effect("ask", ask) == 3 else NO

    for store in (None, MemoryCheckpoints()):
        made.clear()
        flow = Workflow(Step, checkpoints=store).exits(Step.END).register(Step.WAIT, Busy())
        run(flow.run(Step.WAIT))
        assert [10, 21, 32] == pytest.approx(made)


def test_a_sleep_within_a_poll_goes_on() -> None:
    """Sleeps are counted anew in every poll, as a resumed process counts them."""

    class Sleeps(Script):
        async def poll(self, ctx: Context[Seen]) -> Ready[Literal[Step.END]] | Pending:
            await ctx.sleep(100)
            return await super().poll(ctx)

    async def main() -> list[float]:
        store, task = MemoryCheckpoints(), Sleeps(NO, YES)
        await first_life(store, task, lasts=150)
        await second_life(store, task)
        return task.asked

    assert [100, 201] == pytest.approx(run(main()))


def test_a_long_visit_stays_small() -> None:
    """Saved waits forget each other: a poll of a thousand does not grow in memory."""
    held: list[int] = []

    class Long(PollTask[Step]):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
            held.append(len(ctx.host.history.visit.progress))
            return YES if len(held) == 1000 else Pending(1, save=True)

    run(polling(MemoryCheckpoints(), Long()).run(Step.WAIT))
    assert (1000, 1) == (len(held), max(held))


def test_a_cursor_that_is_none() -> None:
    """What another task left in this state is refused, and not taken for a beginning."""

    class Copy(SteppedTask[Step, str]):
        async def step(self, ctx: Context[Seen], cursor: str | None) -> More[str]:
            if cursor:
                raise SimulatedCrash
            return More("page 1")

    async def main() -> None:
        store = MemoryCheckpoints()
        await first_life(store, Copy())
        await asyncio.sleep(16)
        flow = Workflow(Step, data=Seen, checkpoints=store, strict=False).exits(Step.END)
        flow.register(Step.WAIT, Script(YES))
        with pytest.raises((DataError, CheckpointError)):
            await flow.resume("r")

    run(main())


def test_trouble_with_the_store_is_no_failure_of_a_poll() -> None:
    """A run that must stop where it is stops, however many errors are tolerated."""

    async def main() -> tuple[int, Status]:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, fail_at=2)
        task = Script(*[Pending(1, save=True)] * 9, errors=9, on=(Exception,))
        with pytest.raises(CheckpointError):
            await polling(store, task).run(Step.WAIT, run_id="r")
        return len(task.asked), (await inner.summary("r")).status

    polls, status = run(main())
    assert 1 == polls
    assert status not in (Status.FAILED, Status.FINISHED)


def test_trouble_met_in_a_poll_is_passed_on() -> None:
    """So does one that meets the trouble in the middle of a poll, through an effect."""

    class Effects(Script):
        async def poll(self, ctx: Context[Seen]) -> Ready[Literal[Step.END]] | Pending:
            answer = await super().poll(ctx)
            await ctx.effect("ask", lambda: asyncio.sleep(0, 1))
            return answer

    async def main() -> int:
        store = FaultyStore(MemoryCheckpoints(), fail_at=2)
        task = Effects(*[NO] * 20, errors=9, on=(Exception,))
        with pytest.raises(CheckpointError):
            await polling(store, task).run(Step.WAIT, run_id="r")
        return len(task.asked)

    assert 1 == run(main())


def test_a_long_saved_wait_holds_no_task() -> None:
    """Inside ``async with workflow:`` a run that only waits for its next poll is parked."""

    async def main() -> tuple[Status, int, float]:
        store = MemoryCheckpoints()
        task = Script(Pending(5000, save=True), YES, deadline=6000)
        async with (
            Workflow(Step, data=Seen, checkpoints=store, lease=3600)
            .exits(Step.END)
            .register(Step.WAIT, task) as flow
        ):
            handle = await flow.start_run(Step.WAIT, run_id="r")
            await asyncio.sleep(100)
            status = (await store.summary("r")).status
            running = sum(one.get_name() == "Step" for one in asyncio.all_tasks())
            await handle.result()
            return status, running, task.asked[1]

    assert (Status.WAITING, 0, pytest.approx(5000, abs=0.1)) == run(main())
