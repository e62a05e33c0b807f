"""One name, one run: begun, attached to, resumed, tried again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    CompensatableTask,
    Context,
    DefinitionError,
    MemoryCheckpoints,
    Retry,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunOwnedError,
    RunStuckError,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()


@dataclass
class Box:
    count: int = 0


class World:
    """What survives the processes: the store, what was done, and how many deaths are to come."""

    def __init__(self, deaths: int = 0, error: Exception | None = None) -> None:
        self.store: CheckpointStore = MemoryCheckpoints()
        self.done: list[str] = []
        self.deaths = deaths
        self.error = error
        self.pause = 0.0

    def flow(self, store: CheckpointStore | None = None, **more: Any) -> Workflow[Step, Box]:
        flow = Workflow(Step, data=Box, checkpoints=store or self.store, **more).exits(Step.END)

        @flow.task(Step.A)
        async def a(ctx: Context[Box]) -> Literal[Step.B]:
            self.done.append("a")
            ctx.data.count += 1
            return Step.B

        @flow.task(Step.B)
        async def b(ctx: Context[Box]) -> Literal[Step.END]:
            self.done.append("b")
            await asyncio.sleep(self.pause)
            if self.deaths:
                self.deaths -= 1
                raise SimulatedCrash
            if self.error is not None:
                raise self.error
            ctx.data.count += 1
            return Step.END

        return flow

    async def die(self, times: int = 1) -> None:
        self.deaths = times
        with suppress(SimulatedCrash):
            await self.flow().run(Step.A, run_id="r")
        for _ in range(times - 1):
            await asyncio.sleep(16)
            with suppress(SimulatedCrash):
                await self.flow().resume("r")
        await asyncio.sleep(16)


def test_completed_work_is_not_repeated() -> None:
    """A resumed run begins with the task it was in; what came before is left alone."""

    async def main() -> tuple[Step, int]:
        world = World()
        await world.die()
        state = await world.flow().resume("r")
        assert ["a", "b", "b"] == world.done
        return state, (await world.flow().handle("r").data()).count

    assert (Step.END, 2) == run(main())


@pytest.mark.parametrize("how", ["run", "start_run", "resume"])
def test_a_finished_run_gives_its_exit_again(how: str) -> None:
    """Whoever asks for a finished run is told how it ended; nothing runs."""

    async def main() -> tuple[Step, list[str]]:
        world = World()
        flow = world.flow()
        await flow.run(Step.A, run_id="r")
        match how:
            case "run":
                state = await flow.run(Step.A, run_id="r")
            case "start_run":
                state = await (await flow.start_run(Step.A, run_id="r")).result()
            case _:
                state = await flow.resume("r")
        return state, world.done

    assert (Step.END, ["a", "b"]) == run(main())


def test_a_failed_run_gives_its_recorded_end_again() -> None:
    """The error of an earlier process comes as RunFailedError, with all that is left of it."""

    async def main() -> RunFailedError:
        world = World(error=ValueError("no stock"))
        with pytest.raises(ValueError, match="no stock"):
            await world.flow().run(Step.A, run_id="r")
        with pytest.raises(RunFailedError) as error:
            await world.flow().run(Step.A, run_id="r")
        assert ["a", "b"] == world.done
        return error.value

    error = run(main())
    assert "run 'r' failed in B: ValueError: no stock" == str(error)
    assert ("ValueError", "no stock") == (error.kind, error.message)
    assert "raise self.error" in error.details
    assert any("A → B" in note for note in error.__notes__)


def test_a_cancelled_run_gives_its_recorded_end_again() -> None:
    """A run that was cancelled stays cancelled, and says where."""

    async def main() -> None:
        world = World()
        world.pause = 100
        handle = await world.flow().start_run(Step.A, run_id="r")
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        with pytest.raises(RunCancelledError, match="run 'r' was cancelled in B"):
            await world.flow().run(Step.A, run_id="r")

    run(main())


def test_a_run_somebody_has_is_refused() -> None:
    """A run that is carried out is not begun twice; the error says by whom, and until when."""

    async def main() -> RunOwnedError:
        world = World()
        world.pause = 100
        handle = await world.flow().start_run(Step.A, run_id="r")
        with pytest.raises(RunOwnedError, match="run 'r' belongs to") as error:
            await world.flow().run(Step.A, run_id="r")
        with pytest.raises(RunOwnedError):
            await world.flow().resume("r")
        await handle.result()
        assert ["a", "b"] == world.done
        return error.value

    error = run(main())
    assert error.owner
    assert error.until > 0


def test_waiting_for_a_run_somebody_has() -> None:
    """With wait=True the result comes when the other one is done."""

    async def main() -> tuple[Step, list[str]]:
        world = World()
        world.pause = 100
        await world.flow().start_run(Step.A, run_id="r")
        return await world.flow().run(Step.A, run_id="r", wait=True), world.done

    assert (Step.END, ["a", "b"]) == run(main())


def test_waiting_for_a_run_whose_owner_dies() -> None:
    """With wait=True the run is taken over once the lease of a dead owner is over."""

    async def main() -> tuple[Step, list[str], float]:
        world = World(deaths=1)
        world.pause = 1
        with suppress(SimulatedCrash):
            await world.flow().run(Step.A, run_id="r")
        state = await world.flow().run(Step.A, run_id="r", wait=True)
        return state, world.done, asyncio.get_running_loop().time()

    state, done, time = run(main())
    assert (Step.END, ["a", "b", "b"]) == (state, done)
    assert 32 > time


def test_two_resumers_and_one_run() -> None:
    """However many ask at once, one carries it on and the others are refused."""

    async def main() -> tuple[int, list[str]]:
        world = World()
        await world.die()
        found = await asyncio.gather(
            *(world.flow().resume("r") for _ in range(5)), return_exceptions=True
        )
        return [type(each) for each in found].count(RunOwnedError), world.done

    assert (4, ["a", "b", "b"]) == run(main())


def test_two_resumers_in_one_workflow() -> None:
    """The same scope asked twice does not take its own run away from itself."""

    async def main() -> tuple[list[str], list[str]]:
        world = World()
        await world.die()
        world.pause = 10
        flow = world.flow(FaultyStore(world.store, latency=0.1))
        found = await asyncio.gather(flow.resume("r"), flow.resume("r"), return_exceptions=True)
        return sorted(type(each).__name__ for each in found), world.done

    assert (["RunOwnedError", "Step"], ["a", "b", "b"]) == run(main())


def test_unknown_runs_and_those_of_others() -> None:
    """A run that is not there, or is another workflow's, is said to be so."""

    async def main() -> None:
        world = World()
        await world.flow(name="other").run(Step.A, run_id="r")
        with pytest.raises(RunNotFoundError, match="nobody"):
            await world.flow().resume("nobody")
        with pytest.raises(RunNotFoundError, match="run 'r' is one of other, not of Step"):
            await world.flow().resume("r")

    run(main())


def test_a_cancelled_caller_lets_go_of_the_run() -> None:
    """Shutdown is not the end: nothing is undone, and anybody may resume at once."""

    async def main() -> tuple[Any, ...]:
        world = World()
        world.pause = 100
        task = asyncio.ensure_future(world.flow().run(Step.A, run_id="r"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        summary = await world.store.summary("r")
        world.pause = 0
        state = await world.flow().resume("r")
        return summary.status, summary.owner, state, asyncio.get_running_loop().time()

    assert (Status.RUNNING, "", Step.END, 1) == run(main())


@pytest.mark.parametrize("milliseconds", range(0, 200, 10))
def test_a_resume_that_is_cancelled_lets_go(milliseconds: int) -> None:
    """Whenever a cancellation strikes while a run is taken up, it is free again afterwards."""

    async def main() -> str:
        world = World()
        await world.die()
        world.pause = 100
        async with world.flow(FaultyStore(world.store, latency=0.02)) as flow:
            task = asyncio.ensure_future(flow.resume("r"))
            await asyncio.sleep(milliseconds / 1000)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            world.pause = 0
            return (await world.flow().run(Step.A, run_id="r", wait=True)).name

    assert "END" == run(main())


def test_a_run_that_kills_its_process_is_set_aside() -> None:
    """After max_crashes claims without progress a person has to say so."""

    async def main() -> tuple[str, Step]:
        world = World()
        await world.die(6)
        with pytest.raises(RunStuckError) as error:
            await world.flow().resume("r")
        assert 6 == world.done.count("b")
        return str(error.value), await world.flow().resume("r", even_if_stuck=True)

    said, state = run(main())
    assert "run 'r' was claimed 5 times in a row without getting anywhere in B" in said
    assert "cano runs resume r" in said
    assert Step.END is state


def test_max_crashes_is_a_setting() -> None:
    """One crash is enough where the workflow says so."""

    async def main() -> None:
        world = World()
        await world.die(2)
        with pytest.raises(RunStuckError, match="claimed 1 times"):
            await world.flow(max_crashes=1).resume("r")

    run(main())


def test_a_shutdown_is_no_crash() -> None:
    """A run that was let go again and again is never stuck."""

    async def main() -> Step:
        world = World()
        world.pause = 100
        for _ in range(8):
            task = asyncio.ensure_future(world.flow().run(Step.A, run_id="r"))
            await asyncio.sleep(1)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return await world.flow().resume("r")

    assert Step.END is run(main())


@pytest.mark.parametrize("wrong", ["", 5, b"r"])
def test_a_name_is_a_text(wrong: Any) -> None:
    """A run_id that cannot be found again is refused."""

    async def main() -> None:
        with pytest.raises(DefinitionError, match="run_id"):
            await World().flow().run(Step.A, run_id=wrong)

    run(main())


# Attempts


def test_attempts_are_counted_across_a_crash() -> None:
    """A process that dies in attempt 3 is followed by one that makes attempt 3."""
    attempts: list[int] = []

    async def main() -> None:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

            @flow.task(Step.A, Retry.fixed(4, 1))
            async def a(ctx: Context[Any]) -> Literal[Step.END]:
                attempts.append(ctx.attempt)
                if attempts == [1, 2, 3]:
                    raise SimulatedCrash
                raise ConnectionError

            return flow

        with suppress(SimulatedCrash):
            await make().run(Step.A, run_id="r")
        await asyncio.sleep(16)
        with pytest.raises(ConnectionError) as error:
            await make().resume("r")
        assert "cano: gave up after 4 attempts" in error.value.__notes__
        with pytest.raises(ConnectionError):
            await make().retry("r")

    run(main())
    assert [1, 2, 3, 3, 4, 1, 2, 3, 4] == attempts


def test_a_first_attempt_that_succeeds_leaves_no_row() -> None:
    """`Retry` costs a row per failure, and none on success."""

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

        @flow.task(Step.A, Retry())
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            return Step.END

        await flow.run(Step.A, run_id="r")
        return [type(event).__name__ for event in await store.load("r")]

    assert ["RunStarted", "StateEntered", "RunFinished"] == run(main())


# retry()


def test_a_failed_run_goes_on_where_it_failed() -> None:
    """`retry` reopens the run in the state it ended in, with its data."""

    async def main() -> tuple[Step, int, list[str]]:
        world = World(error=ValueError("no stock"))
        with pytest.raises(ValueError, match="no stock"):
            await world.flow().run(Step.A, run_id="r")
        world.error = None
        state = await world.flow().retry("r")
        return state, (await world.flow().handle("r").data()).count, world.done

    assert (Step.END, 2, ["a", "b", "b"]) == run(main())


def test_a_cancelled_run_goes_on_too() -> None:
    """A request to cancel that was heeded is not heeded again."""

    async def main() -> Step:
        world = World()
        world.pause = 100
        handle = await world.flow().start_run(Step.A, run_id="r")
        await asyncio.sleep(1)
        await handle.cancel()
        with suppress(RunCancelledError):
            await handle.result()
        return await world.flow().retry("r")

    assert Step.END is run(main())


def test_only_what_is_over_is_tried_again() -> None:
    """A finished run never moves again; one that is open is resumed instead."""

    async def main() -> None:
        world = World()
        await world.die()
        with pytest.raises(RunOwnedError):
            await world.flow().retry("r")
        await world.flow().resume("r")
        with pytest.raises(CheckpointError, match="has finished; it never moves again"):
            await world.flow().retry("r")

    run(main())


def test_what_was_rolled_back_is_forked_instead() -> None:
    """A run some of whose work was undone cannot go on; the error says what can be done."""

    class Book(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], int]:
            return Step.B, 1

        async def compensate(self, ctx: Context[Any], output: int) -> None: ...

    async def main() -> None:
        world = World(error=ValueError("no stock"))
        flow = world.flow().register(Step.A, Book())
        with pytest.raises(ValueError, match="no stock"):
            await flow.run(Step.A, run_id="r")
        with pytest.raises(CheckpointError, match="1 of its works were undone.*fork it"):
            await flow.retry("r")

    run(main())
