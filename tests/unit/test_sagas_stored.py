"""Sagas in a store: what outlives the process, and what a run's name gives whoever says it again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Branch,
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Signal,
    SignalTask,
    Split,
    Status,
    Workflow,
)
from cano.errors import (
    CheckpointError,
    CompensationFailedError,
    EffectInDoubtError,
    JoinFailedError,
    RunCancelledError,
    RunEndedError,
    RunFailedError,
    RunIdReusedError,
    RunOwnedError,
    SignalTimeoutError,
)
from cano.events import Event
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    END = auto()


@dataclass
class Data:
    trail: list[str] = field(default_factory=list)


class World:
    """What the tasks below do, and how they shall end."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.refuses = True
        self.waits = 0.0
        self.undoing: Any = None


class Book(CompensatableTask[Step, str]):
    def __init__(self, world: World) -> None:
        self.world = world

    async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], str]:
        self.world.did.append("book")
        return Step.B, "seat"

    async def compensate(self, ctx: Context[Data], output: str) -> None:
        self.world.did.append(f"undo {output}")
        if self.world.undoing is not None:
            raise self.world.undoing


def trip(world: World, store: Any, *, first: bool = True, **settings: Any) -> Workflow[Any, Any]:
    """A booking (unless not *first*), then a task that waits, and is refused or not."""

    async def pay(ctx: Context[Data]) -> Literal[Step.END]:
        world.did.append("pay")
        ctx.data.trail.append("pay")
        await asyncio.sleep(world.waits)
        if world.refuses:
            raise ValueError("refused")
        return Step.END

    async def plain(ctx: Context[Data]) -> Literal[Step.B]:
        world.did.append("plain")
        return Step.B

    flow: Any = Workflow(Step, data=Data, checkpoints=store, **settings)
    flow.register(Step.A, Book(world) if first else plain).register(Step.B, pay)
    return flow.exits(Step.C, Step.END)  # type: ignore[no-any-return]


async def kinds(store: Any) -> list[str]:
    return [type(event).__name__ for event in await store.load("a7")]


def test_it_runs_outside_of_a_loop() -> None:
    """`run` gives something to be awaited, whether there is a loop already or not."""
    world = World()
    world.refuses = False
    assert Step.END is run(trip(world, MemoryCheckpoints()).run(Step.A))


def test_shutdown_undoes_nothing() -> None:
    """Cancelling whoever awaits the run lets go of it: nothing is undone, and anyone goes on."""
    world = World()
    world.waits = 10

    async def main() -> None:
        store = MemoryCheckpoints()
        work = asyncio.ensure_future(trip(world, store).run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        summary = await store.summary("a7")
        assert (Status.RUNNING, "") == (summary.status, summary.owner)
        assert ["RunStarted", "StateEntered", "TaskCompleted", "StateEntered"] == await kinds(store)
        assert ["book", "pay"] == world.did

        with pytest.raises(ValueError, match="refused"):
            await trip(world, store).resume("a7")
        assert ["book", "pay", "pay", "undo seat"] == world.did

    run(main())


def test_a_cancelled_run_is_over() -> None:
    """Cancelling the run itself ends it: rolled back, then cancelled, for whoever asks later."""
    world = World()
    world.waits = 10

    async def main() -> None:
        store = MemoryCheckpoints()
        flow = trip(world, store)
        handle = await flow.start_run(Step.A, run_id="a7")
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert ["book", "pay", "undo seat"] == world.did
        assert Status.CANCELLED is (await store.summary("a7")).status
        for again in (flow.run(Step.A, run_id="a7"), flow.resume("a7"), flow.handle("a7").result()):
            with pytest.raises(RunCancelledError, match="'a7' was cancelled in B"):
                await again
        assert ["book", "pay", "undo seat"] == world.did

    run(main())


def test_cancelled_by_another_process() -> None:
    """A request that any process leaves in the store does the same."""
    world = World()
    world.waits = 10

    async def main() -> None:
        store = MemoryCheckpoints()
        handle = await trip(world, store).start_run(Step.A, run_id="a7")
        await asyncio.sleep(1)
        await trip(world, store).handle("a7").cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert ["book", "pay", "undo seat"] == world.did

    run(main())


def test_cancelled_while_nobody_has_it() -> None:
    """A run that is cancelled while it is ownerless is undone by whoever takes it up next."""
    world = World()
    world.waits = 10

    async def main() -> None:
        store = MemoryCheckpoints()
        flow = trip(world, store)
        work = asyncio.ensure_future(flow.run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        work.cancel()
        await asyncio.wait((work,))
        await flow.handle("a7").cancel()
        with pytest.raises(RunCancelledError):
            await flow.resume("a7")
        assert ["book", "pay", "undo seat"] == world.did
        last = (await store.load("a7"))[-1]
        assert ("RunCancelled", "B") == (type(last).__name__, last.state)

    run(main())


def test_a_finished_run_gives_its_result() -> None:
    """The name of a finished run gives its exit; nothing runs."""
    world = World()
    world.refuses = False

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints())
        assert Step.END is await flow.run(Step.A, run_id="a7")
        assert Step.END is await flow.run(Step.A, run_id="a7")
        assert Step.END is await flow.resume("a7")
        assert Step.END is await (await flow.start_run(Step.A, run_id="a7")).result()
        assert ["book", "pay"] == world.did

    run(main())


def test_a_failed_run_fails_again() -> None:
    """The name of a failed run raises its recorded end, with what is left of the original."""
    world = World()

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints())
        with pytest.raises(ValueError, match="refused"):
            await flow.run(Step.A, run_id="a7")
        with pytest.raises(RunFailedError, match="'a7' failed in B: ValueError: refused") as failed:
            await flow.run(Step.A, run_id="a7")
        assert ("ValueError", "refused") == (failed.value.kind, failed.value.message)
        assert "in pay" in failed.value.details
        assert ["cano: run 'a7' of Step: A → B"] == failed.value.__notes__
        assert ["book", "pay", "undo seat"] == world.did

    run(main())


def test_what_was_not_undone_is_told_again() -> None:
    """The name of a run that was not undone completely raises both ends again."""
    world = World()
    world.undoing = OSError("no answer")

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints())
        with pytest.raises(CompensationFailedError):
            await flow.run(Step.A, run_id="a7")
        with pytest.raises(CompensationFailedError, match="1 of its completed works") as failed:
            await flow.run(Step.A, run_id="a7")
        original, undoing = failed.value.exceptions
        assert isinstance(original, RunFailedError)
        assert isinstance(undoing, OSError)
        assert ("ValueError", "no answer") == (original.kind, str(undoing))
        assert ["book", "pay", "undo seat"] == world.did

    run(main())


def test_the_name_is_taken() -> None:
    """The name of a run with other data, or from another state, is refused."""
    world = World()
    world.refuses = False

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints())
        await flow.run(Step.A, run_id="a7", data=Data(["x"]))
        assert Step.END is await flow.run(Step.A, run_id="a7")
        assert Step.END is await flow.run(Step.A, run_id="a7", data=Data(["x"]))
        with pytest.raises(RunIdReusedError, match="with other data: trail"):
            await flow.run(Step.A, run_id="a7", data=Data(["y"]))
        with pytest.raises(RunIdReusedError, match="from A, not from B"):
            await flow.run(Step.B, run_id="a7")

    run(main())


def test_somebody_has_it() -> None:
    """The name of a run that is carried out is refused, saying by whom; or waited for."""
    world = World()
    world.refuses, world.waits = False, 10

    async def main() -> None:
        store = MemoryCheckpoints()
        work = asyncio.ensure_future(trip(world, store).run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        other = trip(world, store)
        owner = (await store.summary("a7")).owner
        with pytest.raises(RunOwnedError) as owned:
            await other.run(Step.A, run_id="a7")
        assert owner == owned.value.owner
        with pytest.raises(RunOwnedError):
            await other.resume("a7")
        assert Step.END is await other.run(Step.A, run_id="a7", wait=True)
        assert Step.END is await work
        assert ["book", "pay"] == world.did

    run(main())


def test_waiting_for_one_that_dies() -> None:
    """Whoever waits goes on with the run when its owner's lease is over."""
    world = World()
    world.refuses, world.waits = False, 10

    async def main() -> None:
        inner = MemoryCheckpoints()
        dying = FaultyStore(inner, crash_before=4)
        world.waits = 0
        with pytest.raises(SimulatedCrash):
            await trip(world, dying).run(Step.A, run_id="a7")
        before = asyncio.get_running_loop().time()
        assert Step.END is await trip(world, inner).run(Step.A, run_id="a7", wait=True)
        assert 14 < asyncio.get_running_loop().time() - before < 16
        assert ["book", "pay", "pay"] == world.did

    run(main())


def test_retry_of_a_run_with_nothing_undone() -> None:
    """A failed run of which nothing was undone goes on in the state it failed in."""
    world = World()

    async def main() -> None:
        store = MemoryCheckpoints()
        flow = trip(world, store, first=False)
        with pytest.raises(ValueError, match="refused"):
            await flow.run(Step.A, run_id="a7")
        world.refuses = False
        assert Step.END is await flow.retry("a7")
        assert ["plain", "pay", "pay"] == world.did
        assert ["RunFailed", "RunReopened", "RunFinished"] == (await kinds(store))[-3:]
        assert ["pay"] == (await flow.handle("a7").data()).trail
        with pytest.raises(RunEndedError):
            await flow.retry("a7")

    run(main())


def test_retry_of_a_cancelled_run() -> None:
    """So does a cancelled one; the request of then does not count any more."""
    world = World()
    world.refuses, world.waits = False, 10

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints(), first=False)
        handle = await flow.start_run(Step.A, run_id="a7")
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert Step.END is await flow.retry("a7")

    run(main())


@pytest.mark.parametrize("undoing", [None, OSError("no answer")], ids=["undone", "not undone"])
def test_no_retry_after_a_rollback(undoing: Any) -> None:
    """A run whose work was undone, or should have been, can only be forked."""
    world = World()
    world.undoing = undoing

    async def main() -> None:
        flow = trip(world, MemoryCheckpoints())
        with pytest.raises((ValueError, CompensationFailedError)):
            await flow.run(Step.A, run_id="a7")
        with pytest.raises(CheckpointError, match="was rolled back: .* fork it"):
            await flow.retry("a7")

    run(main())


def test_retry_of_a_split_runs_what_failed() -> None:
    """Branches that failed are tried again; those that finished are not."""
    world = World()

    async def good(ctx: Context[Any]) -> int:
        world.did.append("good")
        return 1

    async def bad(ctx: Context[Any]) -> int:
        await asyncio.sleep(1)
        world.did.append("bad")
        if world.refuses:
            raise ValueError("refused")
        return 2

    async def end(ctx: Context[Data]) -> Literal[Step.END]:
        assert ctx.split is not None
        ctx.data.trail = [str(one.value) for one in ctx.split.successes]
        return Step.END

    async def main() -> None:
        flow: Any = Workflow(Step, data=Data, checkpoints=MemoryCheckpoints())
        split = Split([Branch(good), Branch(bad)], then=Step.B)
        flow.register(Step.A, split).register(Step.B, end).exits(Step.C, Step.END)
        with pytest.raises(JoinFailedError):
            await flow.run(Step.A, run_id="a7")
        world.refuses = False
        assert Step.END is await flow.retry("a7")
        assert ["good", "bad", "bad"] == world.did
        assert ["1", "2"] == (await flow.handle("a7").data()).trail

    run(main())


def test_retry_of_a_wait_waits_again() -> None:
    """A wait that was too long has all its time again."""

    class Approve(SignalTask[Step]):
        signals = {"approved": str}  # noqa: RUF012
        timeout = 100.0

        async def on_signal(self, ctx: Context[Any], signal: Signal[str]) -> Literal[Step.END]:
            return Step.END

    async def main() -> None:
        flow: Any = Workflow(Step, data=Data, checkpoints=MemoryCheckpoints())
        flow.register(Step.A, Approve()).exits(Step.B, Step.C, Step.END)
        with pytest.raises(SignalTimeoutError):
            await flow.run(Step.A, run_id="a7")
        again = asyncio.ensure_future(flow.retry("a7"))
        await asyncio.sleep(50)
        await flow.handle("a7").signal("approved", "ann")
        assert Step.END is await again

    run(main())


def test_undoing_in_doubt() -> None:
    """A rollback that meets an effect in doubt is set aside, for a person; then it goes on."""
    did: list[str] = []

    class Pay(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], int]:
            return Step.B, 10

        async def compensate(self, ctx: Context[Any], output: int) -> None:
            did.append("undo")
            await ctx.effect("refund", lambda: refund(output))

    async def refund(amount: int) -> int:
        did.append("refund")
        return amount

    async def fail(ctx: Context[Any]) -> Literal[Step.END]:
        raise ValueError("refused")

    def build(store: Any) -> Any:
        flow: Any = Workflow(Step, data=Data, checkpoints=store)
        flow.register(Step.A, Pay()).register(Step.B, fail)
        return flow.exits(Step.C, Step.END)

    async def main() -> None:
        inner = MemoryCheckpoints()
        with pytest.raises(SimulatedCrash):  # before the refund is known to be done
            await build(FaultyStore(inner, crash_before=6)).run(Step.A, run_id="a7")
        assert "EffectIntended" == (await kinds(inner))[-1]
        await asyncio.sleep(20)
        flow = build(inner)
        with pytest.raises(EffectInDoubtError, match="cano runs resolve a7 'undo 3/refund'"):
            await flow.resume("a7")
        summary = await inner.summary("a7")
        assert (Status.IN_DOUBT, "") == (summary.status, summary.owner)
        await flow.handle("a7").resolve("undo 3/refund", 10)
        with pytest.raises(RunFailedError, match="refused"):
            await flow.resume("a7")
        assert ["undo", "refund", "undo", "undo"] == did

    run(main())


def test_a_store_that_fails() -> None:
    """A run whose completion could not be kept stops; nothing is undone, and it can be resumed."""
    world = World()
    world.refuses = False

    async def main() -> None:
        inner = MemoryCheckpoints()
        with pytest.raises(CheckpointError):
            await trip(world, FaultyStore(inner, fail_at=2)).run(Step.A, run_id="a7")
        assert ["book"] == world.did
        await asyncio.sleep(20)
        assert Step.END is await trip(world, inner).resume("a7")
        assert ["book", "book", "pay"] == world.did

    run(main())


def test_the_loser_undoes_nothing() -> None:
    """Whoever lost the run to somebody else touches nothing of it any more."""
    world = World()
    world.waits = 100

    async def main() -> None:
        store = MemoryCheckpoints()
        loser = asyncio.ensure_future(trip(world, store).run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        await store.expire((await store.summary("a7")).owner)
        world.refuses, world.waits = False, 0
        assert Step.END is await trip(world, store).resume("a7")
        world.refuses = True
        with pytest.raises(CheckpointError):
            await loser
        assert ["book", "pay", "pay"] == world.did
        events: list[Event] = await store.load("a7")
        assert "RunFinished" == type(events[-1]).__name__

    run(main())
