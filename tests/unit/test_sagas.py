"""Rollback: what is undone, in which order, and what becomes of what cannot be."""

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
    OrphanedCompensationError,
    Retry,
    RollbackTimeoutError,
    Split,
    Workflow,
)
from cano.errors import CompensationFailedError, DataError, RunCancelledError, StrayCancelledError
from cano.events import (
    CompensationFailed,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    TaskCompensated,
)
from cano.join import All, Settled
from cano.join import Any as AnyOf
from cano.testing import run


class Step(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    D = auto()
    E = auto()
    F = auto()
    END = auto()


STEPS = [Step.A, Step.B, Step.C, Step.D, Step.E]
NEXT = dict(zip(STEPS, [*STEPS[1:], Step.END], strict=True))


@dataclass
class Data:
    trail: list[str] = field(default_factory=list)


class Book(CompensatableTask[Step, str]):
    """Books something in its state; undoing it may take *seconds*, and *raises*."""

    def __init__(self, did: list[str], seconds: float = 0.0, raises: Any = None) -> None:
        self.did = did
        self.seconds = seconds
        self.raises = raises

    async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
        self.did.append(ctx.state.name)
        return NEXT[Step(ctx.state)], f"booked {ctx.state.name}"

    async def compensate(self, ctx: Context[Data], output: str) -> None:
        self.did.append(f"undo {output}")
        await asyncio.sleep(self.seconds)
        if self.raises is not None:
            raise self.raises
        self.did.append("undone")


async def refuse(ctx: Context[Any]) -> Literal[Step.END]:
    raise ValueError(f"refused in {ctx.state.name}")


def saga(tasks: list[Any], **settings: Any) -> Workflow[Any, Any]:
    """*tasks* in A, B, ..."""
    flow: Any = Workflow(Step, data=Data, **settings)
    for state, task in zip(STEPS, tasks, strict=False):
        flow.register(state, task)
    return flow.exits(*set(Step).difference(flow.registered))  # type: ignore[no-any-return]


def go(flow: Workflow[Any, Any], run_id: str | None = None) -> Step:
    async def main() -> Step:
        return await flow.run(Step.A, run_id=run_id)  # type: ignore[no-any-return]

    return run(main())


STORES = [None, MemoryCheckpoints]
both = pytest.mark.parametrize("store", STORES, ids=["without a store", "with a store"])


def kept(store: Any) -> dict[str, Any]:
    return {} if store is None else {"checkpoints": store()}


@both
@pytest.mark.parametrize("k", range(1, 6))
def test_newest_first(k: int, store: Any) -> None:
    """Where step k of five fails, exactly the steps k-1 to 1 are undone, in that order."""
    did: list[str] = []
    flow = saga([*[Book(did)] * (k - 1), refuse], **kept(store))
    with pytest.raises(ValueError, match=f"refused in {STEPS[k - 1].name}"):
        go(flow)

    names = [step.name for step in STEPS[: k - 1]]
    undone = [[f"undo booked {name}", "undone"] for name in reversed(names)]
    assert [*names, *(line for one in undone for line in one)] == did


@both
def test_only_what_can_be_undone(store: Any) -> None:
    """Plain tasks in between are passed over."""
    did: list[str] = []

    async def plain(ctx: Context[Any]) -> Literal[Step.C]:
        did.append("plain")
        return Step.C

    with pytest.raises(ValueError, match="refused in D"):
        go(saga([Book(did), plain, Book(did), refuse], **kept(store)))
    assert ["A", "plain", "C", "undo booked C", "undone", "undo booked A", "undone"] == did


@both
def test_a_loop_is_undone_visit_by_visit(store: Any) -> None:
    """Work that completed in several visits of one state is undone once for each."""
    did: list[str] = []

    class Again(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.A, Step.B], int]:
            ctx.data.trail.append("")
            count = len(ctx.data.trail)
            return (Step.A if count < 60 else Step.B), count

        async def compensate(self, ctx: Context[Data], output: int) -> None:
            did.append(str(output))

    with pytest.raises(ValueError, match="refused in B"):
        go(saga([Again(), refuse], **kept(store)))
    assert [str(n) for n in range(60, 0, -1)] == did


@both
def test_one_failure_does_not_spare_the_rest(store: Any) -> None:
    """Every work is tried; what could not be undone is raised, behind the original error."""
    did: list[str] = []
    flow = saga(
        [Book(did), Book(did, raises=KeyError("b")), Book(did, raises=OSError("c")), refuse],
        **kept(store),
    )
    with pytest.raises(CompensationFailedError, match="2 of its completed works") as failed:
        go(flow, "a7")

    errors = failed.value.exceptions
    assert [ValueError, OSError, KeyError] == [type(error) for error in errors]
    assert errors[0] is failed.value.__cause__
    assert ["cano: while undoing B of run 'a7'"] == errors[2].__notes__
    assert "undo booked A" in did
    assert "undone" == did[-1]


@both
def test_retries_of_its_own(store: Any) -> None:
    """A compensation is tried as often as its own policies say, and then counts as failed."""

    class Stubborn(Book):
        compensation_policies = (Retry.fixed(3, 1.0),)

    did: list[str] = []
    with pytest.raises(CompensationFailedError) as failed:
        go(saga([Stubborn(did, raises=OSError("busy")), refuse], **kept(store)))
    assert ["A", *["undo booked A"] * 3] == did
    assert "busy" == str(failed.value.exceptions[1])


@both
def test_out_of_time(store: Any) -> None:
    """The rollback ends what runs at its deadline; the rest is kept, with its output, for a person."""
    did: list[str] = []
    flow = saga(
        [Book(did), Book(did), Book(did, seconds=20), refuse], rollback_timeout=10, **kept(store)
    )
    with pytest.raises(CompensationFailedError) as failed:
        go(flow)

    original, cut, *orphans = failed.value.exceptions
    assert "refused in D" == str(original)
    assert isinstance(cut, RollbackTimeoutError)
    assert "longer than its 10 s" in str(cut)
    found = [one for one in orphans if isinstance(one, OrphanedCompensationError)]
    assert [("B", "", b'"booked B"'), ("A", "", b'"booked A"')] == [
        (one.state, one.branch, one.value) for one in found
    ]
    assert "used up its 10 s" in str(found[0])
    assert ["A", "B", "C", "undo booked C"] == did


@both
def test_enough_time(store: Any) -> None:
    """Compensations share the deadline, and policies may wait within it."""
    did: list[str] = []
    flow = saga([Book(did, seconds=4)] * 2 + [refuse], rollback_timeout=10, **kept(store))
    with pytest.raises(ValueError, match="refused in C"):
        go(flow)
    assert 2 == did.count("undone")


@both
def test_the_way_back_is_told(store: Any) -> None:
    """Observers hear that the rollback began, what became of each work, and the end."""
    told: list[tuple[str, str]] = []

    def observe(event: Any) -> None:
        told.append((type(event).__name__, event.state))

    did: list[str] = []
    flow = saga(
        [Book(did), Book(did, raises=OSError()), refuse], observers=[observe], **kept(store)
    )
    with pytest.raises(CompensationFailedError):
        go(flow)
    kinds = (RollbackStarted, TaskCompensated, CompensationFailed, RunFailed)
    names = [kind.__name__ for kind in kinds]
    assert [
        ("RollbackStarted", "C"),
        ("CompensationFailed", "B"),
        ("TaskCompensated", "A"),
        ("RunFailed", "C"),
    ] == [one for one in told if one[0] in names]


@both
def test_a_stray_cancellation(store: Any) -> None:
    """A compensation that raises `CancelledError` out of the blue has failed; the rest goes on."""
    did: list[str] = []
    tasks = [Book(did), Book(did, raises=asyncio.CancelledError()), refuse]
    with pytest.raises(CompensationFailedError) as failed:
        go(saga(tasks, **kept(store)))
    assert isinstance(failed.value.exceptions[1], StrayCancelledError)
    assert "undone" == did[-1]


@both
def test_cancelled_by_its_handle(store: Any) -> None:
    """A cancelled run is rolled back too, and says that it was cancelled."""
    did: list[str] = []

    async def wait(ctx: Context[Any]) -> Literal[Step.C]:
        await asyncio.sleep(100)
        return Step.C

    async def main() -> None:
        told: list[Any] = []
        flow = saga([Book(did), wait], observers=[told.append], **kept(store))
        handle = await flow.start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError, match="was cancelled in A → B"):
            await handle.result()
        assert "cancelled" == handle.status
        assert isinstance(told[-1], RunCancelled)

    run(main())
    assert ["A", "undo booked A", "undone"] == did


@both
def test_cancelled_and_not_undone(store: Any) -> None:
    """What a cancelled run could not undo is raised behind the cancellation."""
    did: list[str] = []

    async def wait(ctx: Context[Any]) -> Literal[Step.C]:
        await asyncio.sleep(100)
        return Step.C

    async def main() -> None:
        flow = saga([Book(did, raises=OSError("no")), wait], **kept(store))
        handle = await flow.start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(CompensationFailedError) as failed:
            await handle.result()
        assert [RunCancelledError, OSError] == [type(one) for one in failed.value.exceptions]

    run(main())


@both
def test_cancelled_while_undoing(store: Any) -> None:
    """A cancellation through the handle, while the run is rolled back, changes nothing."""
    did: list[str] = []

    async def main() -> None:
        flow = saga([Book(did, seconds=5), Book(did, seconds=5), refuse], **kept(store))
        handle = await flow.start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(ValueError, match="refused in C"):
            await handle.result()
        assert "failed" == handle.status

    run(main())
    assert 2 == did.count("undone")


@both
def test_cancelled_from_outside_while_undoing(store: Any) -> None:
    """Whoever awaits the run and is cancelled gets the cancellation, once all is undone."""
    did: list[str] = []

    async def main() -> None:
        flow = saga([Book(did, seconds=5), Book(did, seconds=5), refuse], **kept(store))
        work = asyncio.ensure_future(flow.run(Step.A, run_id="a7"))
        await asyncio.sleep(1)
        work.cancel()
        await asyncio.sleep(2)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        if store:
            assert "failed" == (await flow.handle("a7").summary()).status

    run(main())
    assert 2 == did.count("undone")


@both
def test_a_timeout_of_the_run(store: Any) -> None:
    """A run that is out of time is rolled back like any other; undoing has time of its own."""
    did: list[str] = []

    async def wait(ctx: Context[Any]) -> Literal[Step.C]:
        await asyncio.sleep(100)
        return Step.C

    with pytest.raises(TimeoutError, match="longer than its 3 s"):
        go(saga([Book(did, seconds=20), wait], timeout=3, **kept(store)))
    assert ["A", "undo booked A", "undone"] == did


def test_without_a_store_a_cancellation_undoes() -> None:
    """Without a store nobody could go on with the run, so cancelling it from outside undoes it."""
    did: list[str] = []

    async def wait(ctx: Context[Any]) -> Literal[Step.C]:
        await asyncio.sleep(100)
        return Step.C

    async def main() -> None:
        work = asyncio.ensure_future(saga([Book(did), wait]).run(Step.A))
        await asyncio.sleep(1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    run(main())
    assert ["A", "undo booked A", "undone"] == did


def branch(did: list[str], name: str, seconds: float, raises: Any = None) -> Branch[str]:
    async def book(ctx: Context[Any]) -> str:
        await asyncio.sleep(seconds)
        did.append(name)
        return name

    async def undo(ctx: Context[Any], value: str) -> None:
        did.append(f"undo {value}")
        if raises is not None:
            raise raises

    return Branch(book, name=name, compensate=undo)


@both
def test_branches_in_reverse_order_of_completion(store: Any) -> None:
    """Branches are undone in the reverse order in which they finished, between other work."""
    did: list[str] = []
    branches = [branch(did, "ann", 0.3), branch(did, "ben", 0.1), branch(did, "cyd", 0.2)]
    tasks = [Book(did), Split(branches, then=Step.C), Book(did), refuse]
    with pytest.raises(ValueError, match="refused in D"):
        go(saga(tasks, **kept(store)))
    assert ["undo booked C", "undo ann", "undo cyd", "undo ben", "undo booked A"] == [
        line for line in did if line.startswith("undo ")
    ]


@both
def test_losers_are_undone_too(store: Any) -> None:
    """An undoable branch is finished even if the join no longer needs it, and then undone."""
    did: list[str] = []
    branches = [branch(did, "ann", 0.3), branch(did, "ben", 0.1)]
    tasks = [Split(branches, join=AnyOf(), then=Step.B), refuse]
    with pytest.raises(ValueError, match="refused in B"):
        go(saga(tasks, **kept(store)))
    assert ["ben", "ann", "undo ann", "undo ben"] == did


@both
def test_branches_of_a_failed_split(store: Any) -> None:
    """A split that fails has its own finished branches undone."""
    did: list[str] = []

    async def fail(ctx: Context[Any]) -> int:
        await asyncio.sleep(0.2)
        raise ValueError("no")

    branches: list[Any] = [branch(did, "ann", 0.3), branch(did, "ben", 0.1), fail]
    with pytest.raises(ExceptionGroup, match="the join of A failed"):
        go(saga([Split(branches, then=Step.B), refuse], **kept(store)))
    assert ["ben", "ann", "undo ann", "undo ben"] == did


@both
def test_branches_of_items(store: Any) -> None:
    """Branches made at run time are undone each with its own value."""
    did: list[str] = []

    async def items(ctx: Context[Data]) -> Literal[Step.B]:
        ctx.data.trail = ["x", "y"]
        return Step.B

    async def book(ctx: Context[Any], item: str) -> str:
        return item * 2

    async def undo(ctx: Context[Any], value: str) -> None:
        did.append(value)

    over = Split.over(lambda data: data.trail, run=Branch(book, compensate=undo), then=Step.C)
    with pytest.raises(ValueError, match="refused in C"):
        go(saga([items, over, refuse], **kept(store)))
    assert ["yy", "xx"] == did


@both
def test_a_branch_that_cannot_be_undone(store: Any) -> None:
    """A failure names the branch, and the others are undone all the same."""
    did: list[str] = []
    branches = [branch(did, "ann", 0.1), branch(did, "ben", 0.2, OSError("no"))]
    with pytest.raises(CompensationFailedError) as failed:
        go(saga([Split(branches, then=Step.B), refuse], **kept(store)), "a7")
    assert "cano: while undoing A, branch 'ben' of run 'a7'" in failed.value.exceptions[1].__notes__
    assert "undo ann" == did[-1]


@both
@pytest.mark.parametrize("join", [Settled(), All()], ids=repr)
def test_a_branch_that_cannot_be_kept(join: Any, store: Any) -> None:
    """A branch whose value could not be brought back is undone at once, and has failed."""
    did: list[str] = []

    async def book(ctx: Context[Any]) -> str:
        return 7  # type: ignore[return-value]

    async def undo(ctx: Context[Any], value: str) -> None:
        did.append(f"undo {value}")

    async def end(ctx: Context[Any]) -> Literal[Step.END]:
        assert ctx.split is not None
        assert isinstance(ctx.split.errors[0].error, DataError)
        return Step.END

    split = Split([Branch(book, compensate=undo)], join=join, then=Step.B)
    flow = saga([split, end], **kept(store))
    if isinstance(join, Settled):
        assert Step.END is go(flow)
    else:
        with pytest.raises(ExceptionGroup, match="the join of A failed"):
            go(flow)
    assert ["undo 7"] == did


@both
def test_many_at_once(store: Any) -> None:
    """Forty runs side by side undo what is theirs, whichever step fails."""
    accounts = [0] * 40

    class Charge(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Data]) -> tuple[Step, int]:
            account = int(ctx.run_id)
            await asyncio.sleep(account % 7 / 10)
            if account % 6 == STEPS.index(Step(ctx.state)):
                raise ValueError("refused")
            accounts[account] += 1
            return NEXT[Step(ctx.state)], account

        async def compensate(self, ctx: Context[Data], output: int) -> None:
            await asyncio.sleep(0.1)
            accounts[output] -= 1

    async def main() -> list[Any]:
        flow = saga([Charge()] * 5, **kept(store))
        runs = [flow.run(Step.A, run_id=str(n)) for n in range(40)]
        return await asyncio.gather(*runs, return_exceptions=True)

    ends = run(main())
    assert [5 if n % 6 == 5 else 0 for n in range(40)] == accounts
    assert [n % 6 == 5 for n in range(40)] == [end is Step.END for end in ends]
