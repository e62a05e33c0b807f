"""Definition errors of what only a stored workflow has: the store, and tasks that wait or go on."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    Done,
    MemoryCheckpoints,
    More,
    Signal,
    SignalTask,
    Split,
    SteppedTask,
    Workflow,
)
from cano.errors import DefinitionError


class Step(Enum):
    A = auto()
    B = auto()


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def odd(ctx: Context[Any]) -> object:
    return object()


class StepsWrongly(SteppedTask[Step, int]):
    async def step(self, ctx: Context[Any], cursor: int | None) -> int:  # type: ignore[override]
        return 3


class StepsInPart(SteppedTask[Step, int]):
    async def step(  # type: ignore[override]
        self, ctx: Context[Any], cursor: int | None
    ) -> More[int] | Literal[Step.B]:
        return Step.B


class Deaf(SignalTask[Step]):
    """Has no verb, and waits for nothing."""


class Careless(SignalTask[Step]):
    signals = {"go": str}  # noqa: RUF012

    async def on_signal(self, ctx: Context[Any], signal: Signal[str]) -> Step:
        return Step.B


class Pay(CompensatableTask[Step, object]):
    async def run(self, ctx: Context[Any], bank: int) -> tuple[Literal[Step.B], object]:
        return Step.B, object()

    async def compensate(self, ctx: Context[Any], output: object, bank: int) -> None: ...


def problems(task: Any, checkpoints: Any = None) -> tuple[str, ...]:
    flow = Workflow(Step, checkpoints=checkpoints or MemoryCheckpoints(), start=Step.A)
    with pytest.raises(DefinitionError) as caught:
        flow.register(Step.A, task).exits(Step.B).check()
    return caught.value.problems


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ("runs.db", "checkpoints='runs.db' is no store; pass SqliteCheckpoints(path), or another"),
        (MemoryCheckpoints, "checkpoints=MemoryCheckpoints is a class; pass an instance"),
    ],
)
def test_no_store_at_all(checkpoints: Any, expected: str) -> None:
    """What cannot keep anything is refused before a run begins."""
    (problem,) = problems(to_b, checkpoints)
    assert expected in problem


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (StepsWrongly(), ["A: StepsWrongly.step is annotated to return int; write -> More"]),
        (StepsInPart(), ["A: StepsInPart.step is annotated to return Literal; write -> More"]),
        (Deaf(), ["A: Deaf has no on_signal(); write", "A: Deaf waits for nothing; say signals"]),
        (
            Pay(),
            [
                "A: Pay.run wants a resource named 'bank'",
                "A: Pay.compensate wants a resource named 'bank'",
                "A: the output of Pay holds an object, which cannot be written down",
            ],
        ),
        (Split([odd, odd], then=Step.B), ["branch 'odd[0]' holds an object", "branch 'odd[1]'"]),
    ],
)
def test_each_is_told_once(task: Any, expected: list[str]) -> None:
    """What is wrong with a task is said once, and what to write instead."""
    found = problems(task)
    assert len(expected) == len(found), found
    for words, problem in zip(expected, found, strict=True):
        assert words in problem


def test_a_state_of_a_signal_task_need_not_be_said() -> None:
    """An `on_signal` that may return any state leads to every state."""
    flow = Workflow(Step, checkpoints=MemoryCheckpoints(), start=Step.A)
    flow.register(Step.A, Careless()).exits(Step.B).check()


def test_a_task_without_annotation_is_not_blamed() -> None:
    """Who says nothing says nothing wrong."""

    class Quiet(SteppedTask[Step, int]):
        async def step(self, ctx, cursor):  # type: ignore[no-untyped-def]
            return Done(Step.B)

    flow = Workflow(Step, checkpoints=MemoryCheckpoints(), start=Step.A)
    flow.register(Step.A, Quiet()).exits(Step.B).check()
