"""A run that only waits holds no task, and is woken when its moment, or its signal, comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum, auto
from math import inf
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    MemoryCheckpoints,
    RunCancelledError,
    RunHandle,
    Signal,
    SignalTask,
    SignalTimeoutError,
    TimerTask,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.testing import run
from cano.testing.faults import FaultyStore


class Step(StrEnum):
    WAIT = auto()
    NEXT = auto()
    END = auto()


DAY = 24 * 3600.0


class Go(SignalTask[Step]):
    signals = {"go": str}  # noqa: RUF012
    timeout = DAY

    async def on_signal(self, ctx: Context[Any], signal: Signal[str]) -> Literal[Step.NEXT]:
        return Step.NEXT


async def leave(ctx: Context[Any]) -> Literal[Step.END]:
    return Step.END


def waiting(store: CheckpointStore, task: Any = None, **more: Any) -> Workflow[Step, None]:
    # A day has few heartbeats then.
    flow = Workflow(Step, checkpoints=store, lease=3600, **more).exits(Step.END)
    return flow.register(Step.WAIT, task or Go()).register(Step.NEXT, leave)


def time() -> float:
    return asyncio.get_running_loop().time()


def tasks_of(name: str = "Step") -> int:
    return sum(task.get_name() == name for task in asyncio.all_tasks())


@asynccontextmanager
async def parked(
    store: CheckpointStore, task: Any = None, **more: Any
) -> AsyncIterator[tuple[Workflow[Step, None], RunHandle[Step, None]]]:
    async with waiting(store, task, **more) as flow:
        handle = await flow.start_run(Step.WAIT, run_id="r")
        await asyncio.sleep(1)
        yield flow, handle


def test_a_parked_run_holds_no_task() -> None:
    """While it waits there is no asyncio task of its own, and nobody owns it."""

    async def main() -> tuple[Any, ...]:
        store = MemoryCheckpoints()
        async with parked(store):
            summary = await store.summary("r")
            return tasks_of(), summary.status, summary.owner, summary.wake < inf

    assert (0, Status.WAITING, "", True) == run(main())


def test_a_signal_wakes_it() -> None:
    """The sweeper carries it on as soon as the signal is there, and the handle has its result."""

    async def main() -> tuple[Step, float]:
        async with parked(MemoryCheckpoints()) as (flow, handle):
            await asyncio.sleep(1000)
            await flow.handle("r").signal("go", "now")
            return await handle.result(), time()

    state, when = run(main())
    assert Step.END is state
    assert 1001 == pytest.approx(when, abs=0.1)


@pytest.mark.parametrize("seconds", [1.5, 2, 20, DAY])
def test_its_moment_wakes_it(seconds: float) -> None:
    """A parked timer goes on when its time has come, not a lease later."""

    async def main() -> float:
        async with waiting(MemoryCheckpoints(), TimerTask(seconds, then=Step.NEXT)) as flow:
            handle = await flow.start_run(Step.WAIT)
            await handle.result()
            return time()

    assert seconds == pytest.approx(run(main()), abs=0.1)


@pytest.mark.parametrize("after", [0, 0.001, 0.005, 0.009, 0.011, 0.02])
def test_a_signal_is_never_slept_through(after: float) -> None:
    """Whenever it comes, the sweeper hears it: also just after it has looked."""

    async def main() -> float:
        async with waiting(MemoryCheckpoints()) as flow:
            handle = await flow.start_run(Step.WAIT, run_id="r")
            await asyncio.sleep(after)
            await flow.handle("r").signal("go", "now")
            await handle.result()
            return time()

    assert after == pytest.approx(run(main()), abs=0.1)


@pytest.mark.parametrize("after", range(0, 100, 5))
@pytest.mark.parametrize("message", ["go", "cano.cancel"])
def test_a_message_races_the_parking(after: int, message: str) -> None:
    """A slow store, and a message at any moment of the parking: it is heeded all the same."""

    async def main() -> str:
        store = MemoryCheckpoints()
        async with waiting(FaultyStore(store, latency=0.01)) as flow:
            await flow.start_run(Step.WAIT, run_id="r")
            await asyncio.sleep(after / 1000)
            await store.send("r", message, b'"x"', 0)
            await asyncio.sleep(5)
            return (await store.summary("r")).status

    assert ("finished" if message == "go" else "cancelled") == run(main())


def test_a_timeout_wakes_it() -> None:
    """A wait that is over fails as it would have without parking."""

    async def main() -> float:
        async with parked(MemoryCheckpoints()) as (_, handle):
            with pytest.raises(Exception, match="waited 86400 s for 'go'"):
                await handle.result()
            return time()

    assert DAY == pytest.approx(run(main()), abs=0.1)


def test_a_timeout_leads_elsewhere() -> None:
    """`otherwise` works for a parked wait too."""

    async def main() -> Step:
        flow = Workflow(Step, checkpoints=MemoryCheckpoints(), lease=3600)
        flow.exits(Step.END, Step.NEXT)
        flow.register(Step.WAIT, Go(), otherwise={SignalTimeoutError: Step.END})
        async with flow:
            return await (await flow.start_run(Step.WAIT)).result()

    assert Step.END is run(main())


def test_another_process_may_carry_it_on() -> None:
    """A parked run survives the scope it was started in; the next scope wakes it."""

    async def main() -> tuple[Status, Step]:
        store = MemoryCheckpoints()
        async with parked(store):
            pass
        left = (await store.summary("r")).status
        await asyncio.sleep(1000)
        await waiting(store).handle("r").signal("go", "now")
        async with waiting(store) as flow:
            return left, await flow.handle("r").result()

    assert (Status.WAITING, Step.END) == run(main())


def test_a_scope_does_not_wait_for_parked_runs() -> None:
    """Leaving the scope leaves what waits."""

    async def main() -> float:
        async with parked(MemoryCheckpoints()):
            pass
        return time()

    assert 1 == pytest.approx(run(main()), abs=0.1)


@pytest.mark.parametrize("by", ["handle", "stored"])
def test_a_parked_run_can_be_cancelled(by: str) -> None:
    """A request to cancel ends it at once, and the error says where it was."""

    async def main() -> tuple[str, float, list[str]]:
        store = MemoryCheckpoints()
        async with parked(store) as (flow, handle):
            await (handle if by == "handle" else flow.handle("r")).cancel()
            with pytest.raises(RunCancelledError) as error:
                await handle.result()
            end = (await store.load("r"))[-1]
            return str(error.value), time(), [type(end).__name__, end.state]

    said, when, end = run(main())
    assert "run 'r' was cancelled in WAIT" == said
    assert 1 == pytest.approx(when, abs=0.1)
    assert ["RunCancelled", "WAIT"] == end


def test_the_handle_of_a_parked_run_says_so() -> None:
    """It is waiting, and not done; once it goes on, the handle follows it to its end."""

    async def main() -> list[Any]:
        async with parked(MemoryCheckpoints()) as (_, handle):
            before = [handle.status, handle.done]
            await handle.signal("go", "now")
            await handle.result()
            await asyncio.sleep(0)
            return [*before, handle.status, handle.done]

    assert ["waiting", False, "finished", True] == run(main())


def test_observers_hear_of_parking_and_going_on() -> None:
    """RunParked and RunResumed frame the wait; being let go is no failure of the task."""

    async def main() -> list[str]:
        heard: list[Event] = []
        async with parked(MemoryCheckpoints(), observers=[heard.append]) as (flow, handle):
            await flow.handle("r").signal("go", "now")
            await handle.result()
        return [type(event).__name__ for event in heard]

    assert [
        "RunStarted", "StateEntered", "TaskStarted", "WaitStarted", "RunParked",
        "RunResumed", "TaskStarted", "SignalReceived", "TaskSucceeded",
        "StateEntered", "TaskStarted", "TaskSucceeded", "StateEntered", "RunFinished",
    ] == run(main())  # fmt: skip


def test_a_run_in_the_foreground_holds_its_task() -> None:
    """`run` waits itself: whoever awaits it is there anyway."""

    async def main() -> tuple[Status, bool]:
        store = MemoryCheckpoints()
        async with waiting(store) as flow:
            task = asyncio.ensure_future(flow.run(Step.WAIT, run_id="r"))
            await asyncio.sleep(1)
            summary = await store.summary("r")
            await flow.handle("r").signal("go", "now")
            await task
            return summary.status, bool(summary.owner)

    assert (Status.RUNNING, True) == run(main())


def test_without_a_scope_nobody_would_wake_it() -> None:
    """Outside of `async with workflow` a run in the background keeps its task."""

    async def main() -> int:
        flow = waiting(MemoryCheckpoints())
        handle = await flow.start_run(Step.WAIT)
        await asyncio.sleep(1)
        held = tasks_of()
        await handle.signal("go", "now")
        await handle.result()
        return held

    assert 1 == run(main())


def test_many_parked_runs_wake_in_time() -> None:
    """A thousand timers of a day and more end each at its moment."""

    async def main() -> list[bool]:
        class Until(TimerTask[Step]):
            async def moment(self, ctx: Context[Any]) -> float:
                return DAY + int(ctx.run_id)

        async with waiting(MemoryCheckpoints(), Until(then=Step.NEXT)) as flow:
            handles = [await flow.start_run(Step.WAIT, run_id=str(n)) for n in range(300)]
            ends: list[bool] = []
            for n, handle in enumerate(handles):
                await handle.result()
                ends.append(abs(time() - DAY - n) < 0.2)
            return ends

    assert [True] * 300 == run(main())


def test_waiting_inside_a_function_keeps_the_task() -> None:
    """`ctx.sleep` and `ctx.wait_signal` hold the task: the code around them is in the middle."""

    async def main() -> tuple[int, Step]:
        async def body(ctx: Context[Any]) -> Literal[Step.NEXT]:
            await ctx.sleep(DAY)
            return Step.NEXT

        async with waiting(MemoryCheckpoints(), body) as flow:
            handle = await flow.start_run(Step.WAIT)
            await asyncio.sleep(1)
            return tasks_of(), await handle.result()

    assert (1, Step.END) == run(main())


@pytest.mark.parametrize("asked", ["before", "while waiting"])
def test_a_handle_follows_through_the_waiting(asked: str) -> None:
    """`events()` goes on where the run goes on: what follows comes from the store."""

    async def main() -> list[str]:
        async with waiting(MemoryCheckpoints()) as flow:
            handle = await flow.start_run(Step.WAIT, run_id="r")
            if asked == "while waiting":
                await asyncio.sleep(10)
            told: list[str] = []

            async def follow() -> None:
                async for event in handle.events():
                    told.append(type(event).__name__)

            following = asyncio.ensure_future(follow())
            await asyncio.sleep(10)
            await handle.signal("go", "now")
            await following
            return told

    assert ["SignalReceived", "StateEntered", "RunFinished"] == run(main())[-3:]


def test_a_handle_is_carried_on_before_its_waiters_are_woken() -> None:
    """Whoever waits saw the run being let go, although the handle follows another task by now."""

    async def main() -> tuple[Step, list[str]]:
        async def nap(ctx: Context[Any]) -> Literal[Step.WAIT]:
            await asyncio.sleep(1)
            return Step.WAIT

        class Last(SignalTask[Step]):
            signals = {"go": str}  # noqa: RUF012

            async def on_signal(self, ctx: Context[Any], signal: Any) -> Literal[Step.END]:
                return Step.END

        async with (
            Workflow(Step, checkpoints=MemoryCheckpoints())
            .exits(Step.END)
            .register(Step.NEXT, nap)
            .register(Step.WAIT, Last())
        ) as flow:
            handle = await flow.start_run(Step.NEXT, run_id="r")
            task = next(task for task in asyncio.all_tasks() if task.get_name() == "Step")
            other = asyncio.ensure_future(asyncio.sleep(DAY, Step.END))
            result = asyncio.ensure_future(handle.result())
            events = handle.events()
            told = [type(await anext(events)).__name__]
            assert not task.done()
            task.add_done_callback(lambda _: handle.follow(handle._run, handle._context, other))
            await asyncio.sleep(10)
            assert handle.parked is False, "it follows the other task"
            await flow.handle("r").signal("go", "now")
            told += [type(event).__name__ async for event in events]
            other.cancel()
            return await result, told

    end, told = run(main())
    assert (Step.END, "RunFinished") == (end, told[-1])
