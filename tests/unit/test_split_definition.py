"""Split: what is wrong with one is said, before it runs where that is possible."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Branch, Context, Split, Timeout, Workflow
from cano import join as joins
from cano.errors import DataError, DefinitionError, JoinFailedError
from cano.testing import run


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


def after(seconds: float, value: Any) -> Any:
    """A branch that returns *value* after a while."""

    async def work(ctx: Context[Any]) -> Any:
        await asyncio.sleep(seconds)
        return value

    return work


def flow(split: Split[Step], **settings: Any) -> tuple[Any, list[Any]]:
    """A workflow that splits, and what its next state finds in ctx.split."""
    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.append(ctx.split)
        return Step.DONE

    built = Workflow(Step, **settings).register(Step.SPLIT, split).exits(Step.DONE)
    return built.register(Step.NEXT, look), found


@dataclass
class Order:
    total: int = 0
    lines: list[int] = field(default_factory=list)


async def meddle(ctx: Context[Any]) -> None:
    ctx.data.lines.append(1)


def test_strict_catches_a_branch_that_changes_the_data() -> None:
    """Under `strict` a branch that changes the run data fails the state, naming the field."""
    built, _ = flow(Split([meddle], then=Step.NEXT), data=Order, strict=True)
    with pytest.raises(DataError, match=r"a branch of SPLIT changed ctx\.data\.lines; return"):
        run(built.run(Step.SPLIT))


def test_strict_lets_a_branch_read_the_data() -> None:
    """Under `strict` branches that leave the data alone are joined as ever."""

    async def work(ctx: Context[Order]) -> int:
        return ctx.data.total + 1

    built, found = flow(Split([work], then=Step.NEXT), data=Order, strict=True)
    run(built.run(Step.SPLIT))
    assert (1,) == found[0].values


class Odd:
    """A strategy that misbehaves: it raises, or waits for ever."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __repr__(self) -> str:
        return "Odd()"

    def verdict(self, tally: Any, /) -> Any:
        if tally.finished and self.error is not None:
            raise self.error
        return joins.Verdict.WAIT

    def problem(self, total: int | None, timeout: float | None, /) -> None:
        return None


def test_a_strategy_that_raises_fails_the_state_with_its_error() -> None:
    """What a strategy of the user's own raises comes out as it is, the branches cancelled."""
    error = LookupError("no idea")
    built, _ = flow(Split([after(1, 1), after(1000, 2)], then=Step.NEXT, join=Odd(error)))
    with pytest.raises(LookupError) as caught:
        run(built.run(Step.SPLIT))
    assert error is caught.value


def test_a_strategy_that_waits_although_all_have_ended_fails() -> None:
    """Waiting on when nothing can follow is a failed join, and the strategy is named."""
    built, _ = flow(Split([after(1, 1), after(2, 2)], then=Step.NEXT, join=Odd()))
    with pytest.raises(JoinFailedError) as caught:
        run(built.run(Step.SPLIT))
    (error,) = caught.value.exceptions
    assert isinstance(error, DefinitionError)
    assert "Odd() was not satisfied by Tally(total=2, succeeded=2, failed=0" in str(error)


def test_a_strategy_that_waits_although_the_time_is_up_fails() -> None:
    """At the deadline the split ends, whatever its strategy says, and starts nothing more."""
    split = Split([after(1, 1)] * 4, then=Step.NEXT, join=Odd(), timeout=1.5, bulkhead=1)
    built, _ = flow(split)
    with pytest.raises(JoinFailedError) as caught:
        run(built.run(Step.SPLIT))
    result = caught.value.result
    assert ((1,), (2, 3), "deadline") == (result.cancelled, result.not_started, result.reason)


async def no_work(ctx: Context[Any]) -> None: ...


def blocking(ctx: Context[Any]) -> int:
    return 1


WRONG = [
    (Split([], then=Step.NEXT), "a split without branches; add some, or use Split.over"),
    (Split([no_work], then=Step.NEXT, join=joins.Quorum(2)), "can never be met by 1 branches"),
    (Split([no_work], then=Step.NEXT, join=joins.Percentage(1.5)), "is no share"),
    (Split([no_work], then=Step.NEXT, join=joins.PartialTimeout()), "requires a timeout"),
    (Split([no_work], then=Step.NEXT, bulkhead=0), "bulkhead=0 lets no branch run"),
    (Split([no_work], then=Step.NEXT, timeout=0), "timeout=0 leaves no time"),
    (Split([no_work], then=Step.NEXT, timeout=float("nan")), "timeout=nan leaves no time"),
    (Split([no_work], then=Step.NEXT, timeout=61), "timeout=61 outlasts the 60 s a whole run has"),
    (Split([Branch(no_work, Timeout(61))], then=Step.NEXT), "outlasts the 60 s a whole run has"),
    (Split([no_work], then=Step.NEXT, losers="kill"), "losers='kill' is unknown"),
    (Split([no_work], then=Step.NEXT, join=joins.Any), "Any'> is no strategy; pass one of"),
    (Split([no_work], then=Step.NEXT, join="all"), "join='all' is no strategy; pass one of"),
    (Split([Branch(no_work, name="a"), Branch(no_work, name="a")], then=Step.NEXT),
     "branch names must be unique: a appear more than once"),
    (Split([blocking], then=Step.NEXT), "blocking is a plain function"),
]  # fmt: skip


@pytest.mark.parametrize(("split", "text"), WRONG, ids=[text for _, text in WRONG])
def test_a_split_that_cannot_be_right_is_found_before_it_runs(split: Any, text: str) -> None:
    """A wrong definition is a `DefinitionError` naming the state, before the first branch."""
    built, _ = flow(split, timeout=60)
    with pytest.raises(DefinitionError) as caught:
        built.check(Step.SPLIT)
    assert ["SPLIT"] == [problem.split(":")[0] for problem in caught.value.problems]
    assert text in caught.value.problems[0]


def test_an_empty_split_that_also_needs_some_says_both() -> None:
    """All that is wrong with a split is reported at once."""
    built, _ = flow(Split([], then=Step.NEXT, join=joins.Any(), bulkhead=-1))
    with pytest.raises(DefinitionError) as caught:
        built.check(Step.SPLIT)
    assert 3 == len(caught.value.problems)


def test_a_split_says_what_it_is() -> None:
    """The label in graphs counts branches and names the strategy; a branch shows its name."""
    over = Split.over(lambda data: [], run=lambda ctx, item: no_work(ctx), then=Step.NEXT)
    labels = [Split([no_work] * 3, then=Step.NEXT, join=joins.Any()).label, over.label]
    assert ["Split of 3, Any", "Split of n, All"] == labels
    branches = [Branch(no_work), Branch(no_work, name="eu")]
    assert ["<Branch no_work>", "<Branch eu>"] == [repr(branch) for branch in branches]


def test_a_split_is_an_edge_of_the_graph() -> None:
    """The edge to the state after the join is drawn as one that joins."""
    (joining, _) = flow(Split([no_work], then=Step.NEXT))[0].check(Step.SPLIT).edges
    assert (Step.SPLIT, Step.NEXT, "joins") == (joining.source, joining.target, joining.kind)
