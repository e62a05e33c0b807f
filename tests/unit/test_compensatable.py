"""`CompensatableTask`: what it is, what is wrong with one, and what its work finds in its context."""

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
    Resources,
    Retry,
    Split,
    Timeout,
    Workflow,
)
from cano.errors import (
    CompensationFailedError,
    DataError,
    DefinitionError,
    RoutingError,
    RunFailedError,
)
from cano.testing import run


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()


@dataclass
class Data:
    trail: list[Any] = field(default_factory=list)


@dataclass
class Seat:
    row: int
    name: str


class Book(CompensatableTask[Step, Seat]):
    """Books a seat, and keeps a note of everything it is asked to do."""

    def __init__(self) -> None:
        self.did: list[Any] = []

    async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
        self.did.append("run")
        return Step.B, Seat(4, "window")

    async def compensate(self, ctx: Context[Data], output: Seat) -> None:
        self.did.append(output)


def go(flow: Workflow[Any, Any], run_id: str | None = None) -> Step:
    """One run from A to its end."""

    async def main() -> Step:
        return await flow.run(Step.A, run_id=run_id)  # type: ignore[no-any-return]

    return run(main())


async def refuse(ctx: Context[Any]) -> Literal[Step.END]:
    raise ValueError("refused")


def flow_of(task: Any, *policies: Any, then: Any = refuse, **settings: Any) -> Workflow[Any, Any]:
    """*task* in A, *then* in B."""
    flow: Any = Workflow(Step, data=Data, **settings)
    flow.register(Step.A, task, *policies).register(Step.B, then)
    return flow.exits(Step.END)  # type: ignore[no-any-return]


STORES = [None, MemoryCheckpoints]
both = pytest.mark.parametrize("store", STORES, ids=["without a store", "with a store"])


def with_store(store: Any) -> dict[str, Any]:
    return {} if store is None else {"checkpoints": store()}


@both
def test_the_output_comes_back(store: Any) -> None:
    """`compensate` gets what `run` returned, as it is annotated."""
    task = Book()
    with pytest.raises(ValueError, match="refused"):
        go(flow_of(task, **with_store(store)))

    assert ["run", Seat(4, "window")] == task.did


@both
def test_success_undoes_nothing(store: Any) -> None:
    """A run that finishes leaves its completed work alone."""

    async def end(ctx: Context[Any]) -> Literal[Step.END]:
        return Step.END

    task = Book()
    assert Step.END is go(flow_of(task, then=end, **with_store(store)))
    assert ["run"] == task.did


@both
def test_a_failed_run_left_nothing_to_undo(store: Any) -> None:
    """Work that fails is not undone itself, however often it was tried."""

    class Fails(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            self.did.append("run")
            raise ConnectionError("busy")

    task = Fails()
    with pytest.raises(ConnectionError, match="busy"):
        go(flow_of(task, Retry.fixed(3, 1), **with_store(store)))

    assert ["run"] * 3 == task.did


@both
def test_policies_of_the_state_go_around_run_alone(store: Any) -> None:
    """`compensate` has policies of its own, and none of the state's."""

    class Slow(Book):
        compensation_policies = (Retry.fixed(3, 1),)

        async def compensate(self, ctx: Context[Data], output: Seat) -> None:
            self.did.append(f"undo {ctx.attempt}")
            await asyncio.sleep(6)  # longer than the state's timeout
            if ctx.attempt < 3:
                raise ConnectionError("busy")

    task = Slow()
    with pytest.raises(ValueError, match="refused"):
        go(flow_of(task, Timeout(5), **with_store(store)))

    assert ["run", "undo 1", "undo 2", "undo 3"] == task.did


@both
def test_a_timeout_of_its_own(store: Any) -> None:
    """A `Timeout` among the compensation policies ends `compensate`, which then has failed."""

    class Slow(Book):
        compensation_policies = (Timeout(2),)

        async def compensate(self, ctx: Context[Data], output: Seat) -> None:
            self.did.append("begun")
            await asyncio.sleep(3)
            self.did.append("done")

    task = Slow()
    with pytest.raises(CompensationFailedError) as failed:
        go(flow_of(task, **with_store(store)))

    assert ["run", "begun"] == task.did
    assert ["ValueError", "AttemptTimeoutError"] == [
        type(error).__name__ for error in failed.value.exceptions
    ]


@both
def test_resources_are_injected(store: Any) -> None:
    """Parameters after the output are resources, as in any task."""

    class Bank:
        def __init__(self) -> None:
            self.refunded: list[Seat] = []

    class Book2(Book):
        async def run(self, ctx: Context[Data], bank: Bank) -> tuple[Literal[Step.B], Seat]:  # type: ignore[override]
            assert not bank.refunded
            return Step.B, Seat(1, "aisle")

        async def compensate(self, ctx: Context[Data], output: Seat, bank: Bank) -> None:  # type: ignore[override]
            bank.refunded.append(output)

    bank = Bank()
    flow = flow_of(Book2(), resources=Resources(bank=bank), **with_store(store))
    with pytest.raises(ValueError, match="refused"):
        go(flow)

    assert [Seat(1, "aisle")] == bank.refunded


@both
def test_where_undoing_happens(store: Any) -> None:
    """While undoing, the context says whose work is undone."""
    seen: list[Any] = []

    class Looks(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            seen.append((ctx.run_id, ctx.state, ctx.fence, ctx.idempotency_key))
            return Step.B, Seat(1, "aisle")

        async def compensate(self, ctx: Context[Data], output: Seat) -> None:
            seen.append((ctx.run_id, ctx.state, ctx.fence, ctx.idempotency_key))

    with pytest.raises(ValueError, match="refused"):
        go(flow_of(Looks(), **with_store(store)), run_id="a7")

    fence = 1 if store else 0
    (_, _, _, done), (_, _, _, undone) = seen
    assert [("a7", Step.A, fence)] * 2 == [one[:3] for one in seen]
    assert "a7/1/A" == done
    assert undone != done
    assert undone.startswith("a7/")


def test_the_fence_rises_with_the_owner() -> None:
    """`run` and `compensate` see how often the run was taken over; their keys stay what they were."""
    seen: list[tuple[str, int, str]] = []

    class Looks(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            seen.append(("run", ctx.fence, ctx.idempotency_key))
            if ctx.fence == 1:
                await asyncio.sleep(100)
            return Step.B, Seat(1, "aisle")

        async def compensate(self, ctx: Context[Data], output: Seat) -> None:
            seen.append(("undo", ctx.fence, ctx.idempotency_key))

    async def main() -> None:
        flow = flow_of(Looks(), checkpoints=MemoryCheckpoints())
        first = asyncio.ensure_future(flow.run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        first.cancel()
        # The work is not interrupted; the run is let go of when it is done.
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(ValueError, match="refused"):
            await flow.resume("a7")

    run(main())
    assert [("run", 1, "a7/1/A"), ("undo", 2)] == [seen[0], seen[1][:2]]


@both
def test_a_cancellation_waits_for_it(store: Any) -> None:
    """Undoable work is not interrupted: it is finished, kept, and undone."""

    class Slow(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            await asyncio.sleep(5)
            return await super().run(ctx)

    task = Slow()

    async def main() -> None:
        handle = await flow_of(task, **with_store(store)).start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(Exception, match="was cancelled in A"):
            await handle.result()

    run(main())
    assert ["run", Seat(4, "window")] == task.did


@pytest.mark.parametrize("returned", [Step.B, (Step.B,), (Step.B, 1, 2), None], ids=repr)
@both
def test_no_pair(returned: Any, store: Any) -> None:
    """What is no pair of state and output fails the run; nothing can be undone with it."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            return returned  # type: ignore[no-any-return]

    task = Odd()
    with pytest.raises(
        RoutingError, match=r"Odd returned .*; return the next state and the output"
    ):
        go(flow_of(task, **with_store(store)))
    assert [] == task.did


@pytest.mark.parametrize("state", ["B", None, Context], ids=repr)
@both
def test_no_state(state: Any, store: Any) -> None:
    """A next state that is none fails the run, and the work is undone at once."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            return state, Seat(1, "aisle")

    task = Odd()
    with pytest.raises(RoutingError, match="no member of Step"):
        go(flow_of(task, **with_store(store)))
    assert [Seat(1, "aisle")] == task.did


@both
def test_a_state_without_a_task(store: Any) -> None:
    """Work that leads to another enum's state is undone at once."""

    class Other(StrEnum):
        B = auto()

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Any, Seat]:  # type: ignore[override]
            return Other.B, Seat(1, "aisle")

    task = Odd()
    with pytest.raises(RoutingError, match="no member of Step"):
        go(flow_of(task, **with_store(store)))
    assert [Seat(1, "aisle")] == task.did


@both
def test_an_output_that_cannot_be_kept(store: Any) -> None:
    """Then the work is undone at once, with the output itself, and not tried again."""
    made = object()

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Any]:  # type: ignore[override]
            self.did.append("run")
            return Step.B, made

    task = Odd()
    with pytest.raises(DataError, match="output of Odd"):
        go(flow_of(task, Retry.fixed(3, 1), **with_store(store)))
    assert ["run", made] == task.did


@both
def test_an_output_that_is_something_else(store: Any) -> None:
    """An output that is not what it is annotated with could not be brought back: undone at once."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            return Step.B, 7  # type: ignore[return-value]

    task = Odd()
    with pytest.raises(DataError, match="output of Odd"):
        go(flow_of(task, **with_store(store)))
    assert [7] == task.did


@both
def test_undoing_at_once_may_fail(store: Any) -> None:
    """Then both errors are raised, the first one first."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Any]:  # type: ignore[override]
            return Step.B, object()

        async def compensate(self, ctx: Context[Data], output: Any) -> None:
            raise ConnectionError("busy")

    with pytest.raises(CompensationFailedError, match="could not be kept") as failed:
        go(flow_of(Odd(), **with_store(store)))
    assert [DataError, ConnectionError] == [type(error) for error in failed.value.exceptions]


def test_data_that_cannot_be_kept() -> None:
    """With a store, so is work undone whose changes to the data cannot be written down."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], Seat]:
            ctx.data.trail.append(object())
            return Step.B, Seat(1, "aisle")

    task = Odd()
    with pytest.raises(DataError, match=r"Data\.trail holds"):
        go(flow_of(task, checkpoints=MemoryCheckpoints()))
    assert [Seat(1, "aisle")] == task.did


@both
def test_undoing_may_change_the_data(store: Any) -> None:
    """What `compensate` changes, the next one finds; with a store it is kept."""

    class Notes(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Any, Seat]:
            ctx.data.trail.append(ctx.state.name)
            if len(ctx.data.trail) == 3:
                raise ValueError("refused")
            return Step.B, Seat(1, ctx.state.name)

        async def compensate(self, ctx: Context[Data], output: Seat) -> None:
            ctx.data.trail.append(f"not {output.name}")

    async def main() -> None:
        flow = flow_of(Notes(), then=Notes(), **with_store(store))
        handle = await flow.start_run(Step.A, run_id="a7")
        with pytest.raises(ValueError, match="refused"):
            await handle.result()
        assert ["not B", "not A"] == (await handle.data()).trail[-2:]
        if store:
            assert ["A", "B", "not B", "not A"] == (await flow.handle("a7").data()).trail

    run(main())


def wrong(problem: str, flow: Any) -> None:
    with pytest.raises(DefinitionError) as found:
        flow.check()
    assert [line for line in found.value.problems if problem in line], found.value


def test_without_run() -> None:
    """A compensatable task without a `run` of its own is a definition error."""

    class Half(CompensatableTask[Step, int]):
        async def compensate(self, ctx: Context[Any], output: int) -> None: ...

    wrong("Half has no run(); write `async def run(self, ctx, ...)`", flow_of(Half()))


def test_without_compensate() -> None:
    """So is one that does not say how it is undone."""

    class Half(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], int]:
            return Step.B, 1

    wrong("Half has no compensate()", flow_of(Half()))


def test_an_annotation_that_is_no_pair() -> None:
    """So is an annotation that leaves out the output."""

    class Odd(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Any]) -> Literal[Step.B]:  # type: ignore[override]
            return Step.B

        async def compensate(self, ctx: Context[Any], output: int) -> None: ...

    wrong("write -> tuple[Literal[Step.A], Output]", flow_of(Odd()))


def test_an_output_that_never_can_be_kept() -> None:
    """So is an output that cannot be written down, even without a store."""

    class Odd(CompensatableTask[Step, Any]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], asyncio.Lock]:
            return Step.B, asyncio.Lock()

        async def compensate(self, ctx: Context[Any], output: Any) -> None: ...

    wrong("the output of Odd", flow_of(Odd()))


def test_a_resource_that_is_missing() -> None:
    """So is a resource that `compensate` wants and nobody has."""

    class Odd(Book):
        async def compensate(self, ctx: Context[Data], output: Seat, bank: Any) -> None: ...  # type: ignore[override]

    wrong("compensate wants a resource named 'bank'", flow_of(Odd()))


def test_a_compensation_that_is_not_async() -> None:
    """So is a `compensate` that cannot be awaited."""

    class Odd(Book):
        def compensate(self, ctx: Context[Data], output: Seat) -> None: ...  # type: ignore[override]

    wrong("compensate", flow_of(Odd()))


def test_policies_that_are_none() -> None:
    """So is something among the compensation policies that is no policy."""

    class Odd(Book):
        compensation_policies = (3,)  # type: ignore[assignment]

    wrong("3", flow_of(Odd()))


def test_branches_without_a_value_to_undo_with() -> None:
    """So is an undoable branch whose value cannot be written down."""

    async def book(ctx: Context[Any]) -> asyncio.Lock:
        return asyncio.Lock()

    async def undo(ctx: Context[Any], value: Any) -> None: ...

    wrong("book[0]", flow_of(Split([Branch(book, compensate=undo)], then=Step.B)))


def test_where_it_leads() -> None:
    """The first half of the pair says where the task leads."""
    graph = flow_of(Book()).check(Step.A)

    assert {(Step.A, Step.B), (Step.B, Step.END)} == {(e.source, e.target) for e in graph.edges}


def test_recorded_failures_are_told_again() -> None:
    """A run that was rolled back tells its recorded end to whoever asks again, and runs nothing."""
    task = Book()

    async def main() -> None:
        flow = flow_of(task, checkpoints=MemoryCheckpoints())
        with pytest.raises(ValueError, match="refused"):
            await flow.run(Step.A, run_id="a7")
        with pytest.raises(RunFailedError, match="failed in B: ValueError: refused"):
            await flow.run(Step.A, run_id="a7")

    run(main())
    assert ["run", Seat(4, "window")] == task.did
