"""`cano.testing.check_task`: finds what breaks the contract of a task model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    Done,
    More,
    SteppedTask,
    Task,
)
from cano.tasks.task import Guard, Model, Runner
from cano.testing import BrokenContractError, run
from cano.testing.tasks import _RULES, check_task


class Step(StrEnum):
    WORK = auto()
    DONE = auto()
    OTHER = auto()


@dataclass
class Data:
    total: int = 0


class Plain(Task[Step]):
    """A task that adds up, to be broken in one way at a time."""

    async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        await asyncio.sleep(1)
        ctx.data.total += 1
        return Step.DONE


class Book(CompensatableTask[Step, int]):
    async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.DONE], int]:
        await asyncio.sleep(1)
        ctx.data.total = 5
        return Step.DONE, 5

    async def compensate(self, ctx: Context[Data], output: int) -> None: ...


async def branch(ctx: Context[Data]) -> int:
    await asyncio.sleep(1)
    return 1


class RaisesInProblems(Plain):
    def problems(self, total: float | None, /) -> Iterable[str]:
        yield f"{total:.1f}"


class FindsFault(Plain):
    def problems(self, total: float | None, /) -> Iterable[str]:
        yield "no good"


class NoLabel(Plain):
    label = ""  # type: ignore[assignment]


class LeadsToText(Plain):
    def targets(self) -> Any:
        return frozenset({"DONE"})


class Lies(Plain):
    def targets(self) -> Any:
        return frozenset({Step.OTHER})


class BindsOnce(Plain):
    bound = False

    def bind(self, guard: Guard, /) -> Runner[Step]:
        if self.bound:
            raise RuntimeError("bound already")
        self.bound = True
        return super().bind(guard)


class Remembers(Plain):
    seen = 0

    async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        self.seen += 1
        ctx.data.total = self.seen
        return Step.DONE


class Mixes(Plain):
    data: Any = None

    async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        self.data = ctx.data
        await asyncio.sleep(1)
        self.data.total += 1
        return Step.DONE


class NoGuard(Plain):
    def bind(self, guard: Guard, /) -> Runner[Step]:
        return self.run


class Swallows(Plain):
    def bind(self, guard: Guard, /) -> Runner[Step]:
        work = guard(self.run)

        async def bound(ctx: Context[Data]) -> Step:
            try:
                return await work(ctx)
            except ConnectionError:
                return Step.DONE

        return bound


class Wraps(Plain):
    def bind(self, guard: Guard, /) -> Runner[Step]:
        work = guard(self.run)

        async def bound(ctx: Context[Data]) -> Step:
            try:
                return await work(ctx)
            except ConnectionError as error:
                raise RuntimeError("instead") from error

        return bound


class OnlyOnce(Plain):
    """Its work cannot be made a second time, after the first failed."""

    def bind(self, guard: Guard, /) -> Runner[Step]:
        work = guard(self.run)

        async def bound(ctx: Context[Data]) -> Step:
            ctx.data.total = 0 if not hasattr(self, "broken") else 9
            try:
                return await work(ctx)
            except ConnectionError:
                self.broken = True
                raise

        return bound


class LeavesTasks(Plain):
    async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        other = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(1)
        other.cancel()
        return Step.DONE


class UndoesNothing(Book):
    undoable = False


class SaysItUndoes(Plain):
    undoable = True


class ForgetsOnResume(SteppedTask[Step, int]):
    async def step(
        self, ctx: Context[Data], cursor: int | None
    ) -> More[int] | Done[Literal[Step.DONE]]:
        if cursor is None:
            self.sum = 0
        self.sum += 1
        ctx.data.total = self.sum
        return More(self.sum) if (cursor or 0) < 3 else Done(Step.DONE)


@pytest.mark.parametrize(
    ("make", "rule", "said"),
    [
        (NoLabel, "describes_itself", "its label, '', is a text"),
        (LeadsToText, "describes_itself", "targets that are no Step: expected [], got ['DONE']"),
        (RaisesInProblems, "problems_are_texts", "TypeError: unsupported format string"),
        (FindsFault, "problems_are_texts", "problems for runs of None seconds: expected [], got ["),
        (Lies, "leads_where_it_says", "DONE"),
        (BindsOnce, "can_be_bound_again", "RuntimeError: bound already"),
        (Remembers, "serves_runs_one_after_the_other", "state and data at the end"),
        (Mixes, "serves_many_runs_at_once", "state and data at the ends"),
        (NoGuard, "puts_policies_around_its_work", "calls made through the policies"),
        (Swallows, "lets_errors_out", "the run ended in DONE, though all of its work failed"),
        (Wraps, "lets_errors_out", "RuntimeError('instead') is or holds ConnectionError"),
        (OnlyOnce, "can_be_tried_again", "at the end of a later run"),
        (LeavesTasks, "lets_go_when_cancelled", "asyncio tasks left after a cancellation in turn"),
        (SaysItUndoes, "can_be_undone", "WORK too"),
        (ForgetsOnResume, "survives_a_crash", "sum"),
    ],
)
def test_broken_ones_are_found(make: Callable[[], Model[Step]], rule: str, said: str) -> None:
    """Each way of breaking the contract is found by its rule, which is named and explained."""
    with pytest.raises(BrokenContractError) as caught:
        run(check_task(make, Step.WORK, data=Data, only=[rule]))
    assert (rule,) == caught.value.rules
    assert said in str(caught.value), str(caught.value)


def test_every_rule_is_proven() -> None:
    """No rule is without a task that breaks it."""
    mark = test_broken_ones_are_found.pytestmark[0]  # type: ignore[attr-defined]
    assert {rule.name for rule in _RULES} == {case[1] for case in mark.args[1]}


def test_all_broken_rules_are_listed() -> None:
    """One error lists every broken rule, and those that do not apply can be left out."""
    with pytest.raises(BrokenContractError, match=r"^2 broken rules of Task:") as caught:
        run(check_task(NoGuard, Step.WORK, data=Data))
    assert ("puts_policies_around_its_work", "lets_errors_out") == caught.value.rules
    skipped = ["puts_policies_around_its_work", "lets_errors_out"]
    run(check_task(NoGuard, Step.WORK, data=Data, skip=skipped))


def test_errors_may_be_replaced_on_purpose() -> None:
    """What is done on purpose is declared."""
    run(check_task(Wraps, Step.WORK, data=Data, replaces_errors=True))


def test_silence_is_broken() -> None:
    """A task that never ends breaks the rule that waited for it, and is ended."""

    class Hangs(Plain):
        async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
            await asyncio.Event().wait()
            return Step.DONE

    with pytest.raises(BrokenContractError, match="No answer within 60 seconds"):
        run(check_task(Hangs, Step.WORK, data=Data, only=["leads_where_it_says"], patience=60))


def test_what_is_no_task() -> None:
    """What is no task at all is refused at once."""
    made: Any = branch
    with pytest.raises(TypeError, match="is no task"):
        run(check_task(lambda: made, Step.WORK))
