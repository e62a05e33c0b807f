"""Batches that cannot be right are found before they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import StrEnum, auto
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import (
    BatchTask,
    Context,
    DefinitionError,
    ItemOutcome,
    Outcomes,
    Retry,
    Timeout,
    Workflow,
)


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()


class Sound(BatchTask[Step, int, int]):
    async def load(self, ctx: Context[Any]) -> list[int]:
        return [1]

    async def process(self, ctx: Context[Any], item: int) -> int:
        return item

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[int]) -> Literal[Step.B, Step.END]:
        return Step.END


async def b(ctx: Context[Any]) -> Literal[Step.END]:
    return Step.END


def flow_of(task: Any, **settings: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, start=Step.A, **settings).exits(Step.END)
    return flow.register(Step.A, task).register(Step.B, b)


def problems(task: Any, **settings: Any) -> tuple[str, ...]:
    try:
        flow_of(task, **settings).check()
    except DefinitionError as error:
        return error.problems
    return ()


def changed(**settings: Any) -> Sound:
    task = Sound()
    vars(task).update(settings)
    return task


def test_the_graph_knows_where_it_leads() -> None:
    """The return annotation of `finish` draws the edges."""
    text = flow_of(Sound()).check().mermaid()
    assert "A --> B" in text
    assert 2 == text.count(" A --> ")


def test_missing_verbs() -> None:
    """Each verb that is not written is named, with what to write."""

    class Empty(BatchTask[Step, int, int]):
        pass

    found = problems(Empty())
    assert "A: Empty has no load(); write `async def load(self, ctx)`" in found
    assert "A: Empty has no process(); write `async def process(self, ctx, item)`" in found
    assert "A: Empty has no finish(); write `async def finish(self, ctx, outcomes)`" in found
    assert "plain function" not in str(found), "what is ours is not blamed on the user"


@pytest.mark.parametrize("wrong", [0, -1, 1.5, 2.0, nan, inf, None, "4", True])
def test_a_concurrency_is_a_whole_number(wrong: Any) -> None:
    """At least one item at once, and no part of one."""
    (found,) = problems(changed(concurrency=wrong))
    assert f"A: Sound.concurrency={wrong!r} is no number of items at once" in found
    assert "1 or more" in found


@pytest.mark.parametrize("wrong", [-1, 1.5, nan, inf, "4", True])
def test_a_limit_of_failures_is_a_whole_number(wrong: Any) -> None:
    """So many items, or None."""
    (found,) = problems(changed(max_failures=wrong))
    assert f"A: Sound.max_failures={wrong!r} is no number of items; say a whole number, 0" in found


def test_policies_of_items_are_looked_at() -> None:
    """What is no policy, or makes no sense in a run of that length, is found."""
    assert problems(changed(item_policies=[Retry])) == (
        "A: Retry is a class; pass an instance, Retry(...)",
    )
    (found,) = problems(changed(item_policies=[Timeout(60)]), timeout=5)
    assert "outlasts the 5 s a whole run has" in found


def test_values_that_cannot_be_written() -> None:
    """Durable items return what a store can keep; others may return anything."""

    class Locks(BatchTask[Step, int, threading.Event]):
        async def load(self, ctx: Context[Any]) -> list[int]:
            return [1]

        async def process(self, ctx: Context[Any], item: int) -> threading.Event:
            return threading.Event()

        async def finish(
            self, ctx: Context[Any], outcomes: Outcomes[threading.Event]
        ) -> Literal[Step.B]:
            return Step.B

    class Durable(Locks):
        durable_items = True

    assert () == problems(Locks())
    (found,) = problems(Durable())
    assert "an item of Durable" in found


def test_everything_at_once() -> None:
    """Every problem is reported, each with its remedy."""

    class Odd(Sound):
        def load(self, ctx: Context[Any]) -> list[int]:  # type: ignore[override]
            return [1]

        async def process(self, ctx: Context[Any]) -> int:  # type: ignore[override]
            return 1

        async def finish(self, ctx: Context[Any], outcomes: Outcomes[int]) -> int:  # type: ignore[override]
            return 1

        def collect(self, ctx: Context[Any], outcome: ItemOutcome[int]) -> None:  # type: ignore[override]
            pass

        async def key(self, item: int) -> str:  # type: ignore[override]
            return str(item)

    vars(odd := Odd()).update(concurrency=0, max_failures=-1, item_policies=[1])
    found = "\n".join(problems(odd))
    for said in (
        "Odd.load is a plain function",
        "Odd.process does not take the context and the item; write `async def process(self, ctx, it",
        "Odd.finish is annotated to return int, which is no state",
        "Odd.collect is a plain function",
        "Odd.key is async; make it a plain `def`, which returns a text",
        "Odd.concurrency=0",
        "Odd.max_failures=-1",
        "1 is no policy",
    ):
        assert said in found


def test_a_generator_may_want_resources() -> None:
    """The parameters of a generator are resources, and missed like any others."""

    class Reads(Sound):
        def load(self, ctx: Context[Any], db: str) -> Iterator[int]:  # type: ignore[override]
            yield 1

    (found,) = problems(Reads())
    assert "Reads.load wants a resource named 'db'" in found
