"""Signals: kept from the start of the run, first in first out, taken once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    DataError,
    MemoryCheckpoints,
    ProgressMismatchError,
    RunEndedError,
    Signal,
    SignalTask,
    SignalTimeoutError,
    Split,
    SqliteCheckpoints,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore
from cano.events import SignalReceived
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    ASK = auto()
    LATE = auto()
    END = auto()


@dataclass
class Vote:
    by: str
    yes: bool = True


class Desk:
    """One store, and a workflow per process whose task is *body*."""

    def __init__(self, body: Any, store: CheckpointStore | None = None) -> None:
        self.store: CheckpointStore = store or MemoryCheckpoints()
        self.body = body
        self.got: list[Any] = []

    def flow(self) -> Workflow[Step, None]:
        flow = Workflow(Step, checkpoints=self.store).exits(Step.END)

        async def ask(ctx: Context[Any]) -> Literal[Step.END]:
            self.got.append(await self.body(ctx))
            return Step.END

        async def late(ctx: Context[Any]) -> Literal[Step.END]:
            self.got.append(f"late: {ctx.error}")
            return Step.END

        flow.register(Step.ASK, ask, otherwise={SignalTimeoutError: Step.LATE})
        return flow.register(Step.LATE, late)

    async def signal(self, *values: Any, name: str = "vote", key: str = "") -> None:
        for value in values:
            await self.flow().handle("r").signal(name, value, key=key)


async def twice(ctx: Context[Any]) -> list[str]:
    return [await ctx.wait_signal("vote", str), await ctx.wait_signal("vote", str)]


def test_signals_are_taken_in_order() -> None:
    """Two waits take the two oldest signals, whether those came before or while waiting."""

    async def main() -> list[Any]:
        desk = Desk(twice)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("a")
        await asyncio.sleep(10)
        await desk.signal("b", "c")
        await handle.result()
        return desk.got

    assert [["a", "b"]] == run(main())


def test_a_signal_that_comes_before_it_is_waited_for_is_kept() -> None:
    """The inbox opens with the run, not with the wait."""

    async def patient(ctx: Context[Any]) -> str:
        await asyncio.sleep(100)
        return await ctx.wait_signal("vote", str)

    async def main() -> list[Any]:
        desk = Desk(patient)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("early")
        await handle.result()
        return desk.got

    assert ["early"] == run(main())


def test_a_resumed_run_neither_loses_nor_repeats_a_signal() -> None:
    """What was taken is found again; what was not is still there."""
    crash = [True]

    async def body(ctx: Context[Any]) -> list[str]:
        first = await ctx.wait_signal("vote", str)
        if crash:
            raise SimulatedCrash(crash.pop())
        return [first, await ctx.wait_signal("vote", str)]

    async def main() -> list[Any]:
        desk = Desk(body)
        task = asyncio.ensure_future(desk.flow().run(Step.ASK, run_id="r"))
        await asyncio.sleep(1)
        await desk.signal("a", "b")
        with suppress(SimulatedCrash):
            await task
        await asyncio.sleep(16)
        await desk.flow().resume("r")
        return desk.got

    assert [["a", "b"]] == run(main())


def test_a_signal_with_a_known_key_counts_once() -> None:
    """A sender that tries again with the same key has sent one signal."""

    async def main() -> list[Any]:
        desk = Desk(twice)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("a", key="k1")
        await desk.signal("a", key="k1")
        await desk.signal("b", key="k2")
        await handle.result()
        return desk.got

    assert [["a", "b"]] == run(main())


def test_names_do_not_mix() -> None:
    """A wait takes only signals of its names."""

    async def body(ctx: Context[Any]) -> str:
        return await ctx.wait_signal("vote", str)

    async def main() -> list[Any]:
        desk = Desk(body)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("no", name="other")
        await asyncio.sleep(1)
        await desk.signal("yes")
        await handle.result()
        return desk.got

    assert ["yes"] == run(main())


def test_whichever_of_several_comes_first() -> None:
    """`wait_signals` says which one came; of those that are there, the oldest."""

    async def body(ctx: Context[Any]) -> Signal[Vote]:
        await asyncio.sleep(1)
        return await ctx.wait_signals(["yes", "no"], Vote)

    async def main() -> list[Any]:
        desk = Desk(body)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal(Vote("ada", False), name="no")
        await desk.signal(Vote("bob"), name="yes")
        await handle.result()
        return desk.got

    assert [Signal("no", Vote("ada", False))] == run(main())


def test_a_value_of_the_wrong_type_fails_the_task() -> None:
    """A signal that is not what the wait says is an error that names it and shows the value."""

    async def main() -> str:
        desk = Desk(lambda ctx: ctx.wait_signal("vote", Vote))
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("ada")
        with pytest.raises(DataError) as error:
            await handle.result()
        return str(error.value)

    said = run(main())
    assert "signal 'vote'" in said
    assert '"ada"' in said


def test_a_value_that_cannot_be_written_is_the_senders_error() -> None:
    """What cannot travel never reaches the run."""

    async def main() -> None:
        desk = Desk(twice)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        with pytest.raises(Exception, match="object"):
            await desk.signal(object())
        await desk.signal("a", "b")
        assert Step.END is await handle.result()

    run(main())


def test_a_timeout_is_durable() -> None:
    """A resumed wait has only what is left of its time."""

    async def main() -> tuple[float, list[Any]]:
        desk = Desk(lambda ctx: ctx.wait_signal("vote", str, timeout=100))
        task = asyncio.ensure_future(desk.flow().run(Step.ASK, run_id="r"))
        await asyncio.sleep(60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await desk.flow().resume("r")
        return asyncio.get_running_loop().time(), desk.got

    time, got = run(main())
    assert 100 == pytest.approx(time)
    assert ["late: ASK waited 100 s for 'vote', and it did not come"] == got


def test_what_came_in_time_counts_although_nobody_looked() -> None:
    """A signal sent before the deadline is taken by a process that starts after it."""

    async def main() -> list[Any]:
        desk = Desk(lambda ctx: ctx.wait_signal("vote", str, timeout=100))
        task = asyncio.ensure_future(desk.flow().run(Step.ASK, run_id="r"))
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await desk.signal("in time")
        await asyncio.sleep(1000)
        await desk.flow().resume("r")
        return desk.got

    assert ["in time"] == run(main())


def test_ended_and_unknown_runs_take_no_signal() -> None:
    """The sender is told that nobody will read it."""

    async def main() -> None:
        desk = Desk(lambda ctx: asyncio.sleep(0))
        await desk.flow().run(Step.ASK, run_id="r")
        with pytest.raises(RunEndedError, match="run 'r' is over"):
            await desk.signal("a")
        with pytest.raises(LookupError, match="nobody"):
            await desk.flow().handle("nobody").signal("vote", "a")

    run(main())


def test_branches_take_one_signal_each() -> None:
    """Two branches that wait for the same name share out what comes, also after a crash."""
    crash = [True]

    class Fan(StrEnum):
        FAN = auto()
        LOOK = auto()
        END = auto()

    async def main() -> list[Any]:
        store, got = MemoryCheckpoints(), list[Any]()

        async def clerk(ctx: Context[Any], item: str) -> str:
            value = await ctx.wait_signal("vote", str)
            if crash:
                raise SimulatedCrash(crash.pop())
            return value

        def make() -> Workflow[Fan, None]:
            flow = Workflow(Fan, checkpoints=store).exits(Fan.END)
            flow.register(
                Fan.FAN, Split.over(lambda _: ["x", "y"], run=clerk, name=str, then=Fan.LOOK)
            )

            @flow.task(Fan.LOOK)
            async def look(ctx: Context[Any]) -> Literal[Fan.END]:
                got.extend(ctx.joined(str).values)
                return Fan.END

            return flow

        task = asyncio.ensure_future(make().run(Fan.FAN, run_id="r"))
        await asyncio.sleep(1)
        await make().handle("r").signal("vote", "1")
        with suppress(SimulatedCrash):
            await task
        await asyncio.sleep(16)
        task = asyncio.ensure_future(make().resume("r"))
        await asyncio.sleep(1)
        await make().handle("r").signal("vote", "2")
        await task
        return got

    assert ["1", "2"] == run(main())


def test_the_receipt_is_the_taking() -> None:
    """A signal is taken by the event that records it: message number, name and value."""

    async def main() -> list[Any]:
        desk = Desk(twice)
        handle = await desk.flow().start_run(Step.ASK, run_id="r")
        await desk.signal("a", "b")
        await handle.result()
        found = [e for e in await desk.store.load("r") if isinstance(e, SignalReceived)]
        return [(e.number, e.signal, bytes(e.value)) for e in found]

    assert [(1, "vote", b'"a"'), (2, "vote", b'"b"')] == run(main())


def test_code_that_waits_for_another_name_is_found_out() -> None:
    """Where a resumed task waits for something else than it got, it is told so."""

    async def main() -> None:
        asked = ["vote", "veto"]
        crash = [True]

        async def body(ctx: Context[Any]) -> None:
            await ctx.wait_signal(asked.pop(0), str)
            if crash:
                raise SimulatedCrash(crash.pop())

        desk = Desk(body)
        task = asyncio.ensure_future(desk.flow().run(Step.ASK, run_id="r"))
        await asyncio.sleep(1)
        await desk.signal("a")
        with suppress(SimulatedCrash):
            await task
        await asyncio.sleep(16)
        with pytest.raises(ProgressMismatchError, match=r"waits for 'veto' .* it got 'vote' there"):
            await desk.flow().resume("r")

    run(main())


def test_a_file_carries_signals_between_workflows(tmp_path: Any) -> None:
    """A signal written by one store object reaches a run that another one carries out."""

    async def main() -> list[Any]:
        async with (
            SqliteCheckpoints(tmp_path / "a.db") as mine,
            SqliteCheckpoints(tmp_path / "a.db") as theirs,
        ):
            desk = Desk(twice, mine)
            handle = await desk.flow().start_run(Step.ASK, run_id="r")
            other = Desk(twice, theirs)
            await other.signal("a", "b")
            await handle.result()
            return desk.got

    assert [["a", "b"]] == asyncio.run(main())


# Without a store


def in_memory(body: Any, got: list[Any]) -> Workflow[Step, None]:
    flow = Workflow(Step).exits(Step.END, Step.LATE)

    @flow.task(Step.ASK)
    async def ask(ctx: Context[Any]) -> Literal[Step.END]:
        got.append(await body(ctx))
        return Step.END

    return flow


def test_a_handle_signals_a_run_in_memory() -> None:
    """Without a store the handle is the only way in; order and keys are the same."""

    async def main() -> list[Any]:
        got: list[Any] = []
        handle = await in_memory(twice, got).start_run(Step.ASK)
        await handle.signal("vote", "a", key="k")
        await handle.signal("vote", "a", key="k")
        await asyncio.sleep(5)
        await handle.signal("vote", "b")
        await handle.result()
        with pytest.raises(RunEndedError, match="is over, and takes no more signals"):
            await handle.signal("vote", "c")
        return got

    assert [["a", "b"]] == run(main())


def test_a_timeout_in_memory() -> None:
    """Without a store a wait ends as well, and the error says for what."""

    async def main() -> float:
        flow = in_memory(lambda ctx: ctx.wait_signal("vote", str, timeout=30), [])
        with pytest.raises(SignalTimeoutError, match="ASK waited 30 s for 'vote'"):
            await flow.run(Step.ASK)
        return asyncio.get_running_loop().time()

    assert 30 == run(main())


# SignalTask


class Approval(SignalTask[Step]):
    signals = {"approved": str, "rejected": Vote}  # noqa: RUF012
    timeout = 100

    def __init__(self, got: list[Any]) -> None:
        self.got = got

    async def on_signal(self, ctx: Context[Any], signal: Signal[Any]) -> Literal[Step.END]:
        self.got.append(signal)
        return Step.END


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("name", "value"), [("approved", "ada"), ("rejected", Vote("bob", False))])
def test_a_signal_task_decides(name: str, value: Any, durable: bool) -> None:
    """Each signal comes as its own type, and its name says which it was."""

    async def main() -> list[Any]:
        got: list[Any] = []
        store = MemoryCheckpoints() if durable else None
        flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.LATE)
        handle = await flow.register(Step.ASK, Approval(got)).start_run(Step.ASK)
        await handle.signal(name, value)
        await handle.result()
        return got

    assert [Signal(name, value)] == run(main())


@pytest.mark.parametrize("durable", [False, True])
def test_a_signal_task_that_waited_too_long_leads_elsewhere(durable: bool) -> None:
    """`otherwise` takes the timeout to a state of its own."""

    async def main() -> tuple[Step, float]:
        store = MemoryCheckpoints() if durable else None
        flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.LATE)
        flow.register(Step.ASK, Approval([]), otherwise={SignalTimeoutError: Step.LATE})
        return await flow.run(Step.ASK), asyncio.get_running_loop().time()

    assert (Step.LATE, 100) == run(main())


def test_the_signal_is_for_its_own_task() -> None:
    """The state after a SignalTask has no item in its context."""

    async def main() -> Any:
        flow = Workflow(Step, checkpoints=MemoryCheckpoints()).exits(Step.END)
        seen: list[Any] = []

        class Ask(SignalTask[Step]):
            signals = {"go": int}  # noqa: RUF012

            async def on_signal(self, ctx: Context[Any], signal: Signal[Any]) -> Literal[Step.LATE]:
                return Step.LATE

        @flow.task(Step.LATE)
        async def look(ctx: Context[Any]) -> Literal[Step.END]:
            seen.append(ctx.item)
            return Step.END

        handle = await flow.register(Step.ASK, Ask()).start_run(Step.ASK)
        await handle.signal("go", 1)
        await handle.result()
        return seen

    assert [None] == run(main())


def test_wrong_signal_tasks_are_definition_errors() -> None:
    """A task that waits for nothing, or for no time, is found before the first run."""

    class Nothing(SignalTask[Step]):
        timeout = 0

        async def on_signal(self, ctx: Context[Any], signal: Signal[Any]) -> Literal[Step.END]:
            return Step.END

    flow = Workflow(Step).exits(Step.END, Step.LATE).register(Step.ASK, Nothing())
    with pytest.raises(ValueError, match="waits for nothing; say signals") as error:
        flow.check()
    assert "timeout=0 leaves no time" in str(error.value)


def test_retrying_a_run_that_waited_too_long_waits_anew() -> None:
    """`retry` gives the wait its full time again, and the signal that comes is taken."""

    async def main() -> tuple[Step, float]:
        flow = Workflow(Step, checkpoints=MemoryCheckpoints()).exits(Step.END, Step.LATE)
        flow.register(Step.ASK, Approval([]))
        with pytest.raises(SignalTimeoutError):
            await flow.run(Step.ASK, run_id="r")
        again = asyncio.ensure_future(flow.retry("r"))
        await asyncio.sleep(90)
        await flow.handle("r").signal("approved", "ada")
        return await again, asyncio.get_running_loop().time()

    assert (Step.END, 190) == run(main())
