"""A new run from where an old one was."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    RunExistsError,
    RunNotFoundError,
    Workflow,
)
from cano.events import RunStarted
from cano.testing import run


class Step(StrEnum):
    A = auto()
    BOOK = auto()
    C = auto()
    END = auto()


@dataclass
class Trail:
    steps: list[str] = field(default_factory=list)


UNDONE: list[int] = []


class Book(CompensatableTask[Step, int]):
    async def run(self, ctx: Context[Trail]) -> tuple[Literal[Step.C], int]:
        ctx.data.steps.append("book")
        return Step.C, 7

    async def compensate(self, ctx: Context[Trail], output: int) -> None:
        UNDONE.append(output)


def trip(store: MemoryCheckpoints, *, fails: bool = False, **more: Any) -> Workflow[Step, Trail]:
    flow = Workflow(Step, data=Trail, checkpoints=store, **more).exits(Step.END)

    @flow.task(Step.A)
    async def a(ctx: Context[Trail]) -> Literal[Step.BOOK]:
        ctx.data.steps.append("a")
        return Step.BOOK

    @flow.task(Step.C)
    async def c(ctx: Context[Trail]) -> Literal[Step.END]:
        ctx.data.steps.append("c")
        await ctx.effect("mail", lambda: _nothing())
        if fails:
            raise ValueError("no train")
        return Step.END

    return flow.register(Step.BOOK, Book())


async def _nothing() -> None: ...


ALL = [
    (1, "RunStarted", ["a", "book", "c"]),
    (2, "StateEntered", ["a", "book", "c"]),
    (3, "StateEntered", ["a", "book", "c"]),
    (4, "TaskCompleted", ["a", "book", "c"]),
    (5, "StateEntered", ["a", "book", "c"]),
]


@pytest.mark.parametrize(("at", "kind", "steps"), ALL)
def test_a_fork_goes_on_from_there(at: int, kind: str, steps: list[str]) -> None:
    """At every event that decided on a state: the new run begins there, with the data of then."""

    async def main() -> list[Any]:
        flow = trip(store := MemoryCheckpoints())
        await flow.run(Step.A, run_id="old")
        assert kind == type((await store.load("old"))[at - 1]).__name__
        handle = await flow.fork("old", at=at, new_id="new")
        assert Step.END is await handle.result()
        started = (await store.load("new"))[0]
        assert isinstance(started, RunStarted)
        assert ("old", at) == (started.forked_from, started.forked_at)
        return (await flow.handle("new").data()).steps

    assert steps == run(main())


@pytest.mark.parametrize("at", [0, -1, 6, 7, 8, 9, 99])
def test_a_fork_at_anything_else_says_where_one_may(at: int) -> None:
    """An event that decided on no state is refused; the error lists those that did."""

    async def main() -> str:
        flow = trip(MemoryCheckpoints())
        await flow.run(Step.A, run_id="old")
        with pytest.raises(CheckpointError) as error:
            await flow.fork("old", at=at)
        return str(error.value)

    assert (
        f"run 'old' cannot be forked at event {at}, which decided on no state; these did: "
        "1 (A), 2 (A), 3 (BOOK), 4 (BOOK), 5 (C)"
    ) == run(main())


def test_other_data_for_the_new_run() -> None:
    """*data* replaces what the old run had; the old run stays as it is."""

    async def main() -> tuple[list[str], list[str]]:
        flow = trip(MemoryCheckpoints())
        await flow.run(Step.A, run_id="old")
        handle = await flow.fork("old", at=5, data=Trail(["else"]))
        await handle.result()
        return (await handle.data()).steps, (await flow.handle("old").data()).steps

    assert (["else", "c"], ["a", "book", "c"]) == run(main())


def test_a_fork_of_a_failed_run_never_undoes_its_work() -> None:
    """What the old run completed belongs to it alone."""
    UNDONE.clear()

    async def main() -> list[int]:
        store = MemoryCheckpoints()
        with pytest.raises(ValueError, match="no train"):
            await trip(store, fails=True).run(Step.A, run_id="old")
        UNDONE.clear()
        handle = await trip(store, fails=True).fork("old", at=5)
        with pytest.raises(ValueError, match="no train"):
            await handle.result()
        return UNDONE

    assert [] == run(main())


def test_a_taken_name_is_refused() -> None:
    """A fork never becomes a run that exists."""

    async def main() -> None:
        flow = trip(MemoryCheckpoints())
        await flow.run(Step.A, run_id="old")
        handle = await flow.fork("old", at=1, new_id="old")
        with pytest.raises(RunExistsError, match="run 'old' exists already"):
            await handle.result()

    run(main())


def test_unknown_runs_and_those_of_others() -> None:
    """Only a run of this workflow can be forked by it."""

    async def main() -> None:
        flow = trip(store := MemoryCheckpoints())
        with pytest.raises(RunNotFoundError, match="nobody"):
            await flow.fork("nobody", at=1)
        await trip(store, name="other").run(Step.A, run_id="theirs")
        with pytest.raises(RunNotFoundError, match="run 'theirs' is one of other, not of Step"):
            await flow.fork("theirs", at=1)

    run(main())
