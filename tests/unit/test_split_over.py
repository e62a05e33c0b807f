"""Split.over: one branch per item, known only when the state is entered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Branch, Context, Resources, Retry, Split, Workflow
from cano import join as joins
from cano.errors import DataError, DefinitionError, JoinFailedError, TooFewBranchesError
from cano.testing import run


class Step(Enum):
    FILL = "fill"
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


@dataclass
class Order:
    lines: list[int] = field(default_factory=list)


async def double(ctx: Context[Any], item: int) -> int:
    await asyncio.sleep(1 / (item + 1))
    return item * 2


def flow(split: Split[Step], *policies: Any, **settings: Any) -> tuple[Any, list[Any]]:
    """A workflow over an `Order` that splits, and what its next state finds in ctx.split."""
    found: list[Any] = []

    async def look(ctx: Context[Order]) -> Literal[Step.DONE]:
        found.append(ctx.split)
        return Step.DONE

    built = Workflow(Step, data=Order, **settings).register(Step.SPLIT, split, *policies)
    return built.register(Step.NEXT, look).exits(Step.DONE, Step.FILL), found


def result_of(split: Split[Step], lines: Any = (), *policies: Any, **settings: Any) -> Any:
    """Run *split* over *lines* and return its result."""
    built, found = flow(split, *policies, **settings)
    run(built.run(Step.SPLIT, data=Order(list(lines))))
    return found[0]


def over(run: Any = double, **settings: Any) -> Split[Step]:
    """A split over the lines of the order."""
    return Split.over(lambda order: order.lines, run=run, then=Step.NEXT, **settings)


def test_there_is_one_branch_per_item() -> None:
    """Every item has its branch, and the results come in the order of the items."""
    result = result_of(over(), [3, 1, 2])
    assert ((6, 2, 4), "all") == (result.values, result.reason)


def test_items_are_asked_for_when_the_state_is_entered() -> None:
    """*items* sees the data as the states before left it, each time the state is visited."""

    async def fill(ctx: Context[Order]) -> Literal[Step.SPLIT, Step.DONE]:
        found.append(ctx.split and ctx.split.values)
        ctx.data.lines.append(len(ctx.data.lines))
        return Step.SPLIT if len(ctx.data.lines) < 3 else Step.DONE

    found: list[Any] = []
    split = Split.over(lambda order: order.lines, run=double, then=Step.FILL)
    built = Workflow(Step, data=Order).register(Step.FILL, fill).register(Step.SPLIT, split)
    run(built.exits(Step.DONE, Step.NEXT).run(Step.FILL))
    assert [None, (0,), (0, 2)] == found


def test_items_may_be_generated() -> None:
    """Any iterable will do, a generator too."""

    def items(order: Order) -> Iterator[int]:
        yield from (line * 10 for line in order.lines)

    result = result_of(Split.over(items, run=double, then=Step.NEXT), [1, 2])
    assert (20, 40) == result.values


def test_items_need_no_data() -> None:
    """In a workflow without data *items* is called with None."""
    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.append(ctx.split)
        return Step.DONE

    split = Split.over(lambda data: [data, data], run=same, then=Step.NEXT)
    built = Workflow(Step).register(Step.SPLIT, split).register(Step.NEXT, look)
    run(built.exits(Step.DONE, Step.FILL).run(Step.SPLIT))
    assert (None, None) == found[0].values


async def same(ctx: Context[Any], item: Any) -> Any:
    return item


def test_a_branch_knows_its_item_and_its_place() -> None:
    """`ctx.item`, `ctx.branch.index` and `ctx.branch.name` say which branch this is."""

    async def who(ctx: Context[Order], item: int) -> Any:
        assert ctx.branch is not None
        return item is ctx.item, ctx.item, ctx.branch.index, ctx.branch.name

    result = result_of(over(who, name=lambda line: f"line {line}"), [7, 5])
    assert ((True, 7, 0, "line 7"), (True, 5, 1, "line 5")) == result.values


def test_branches_are_named_by_the_function_and_index() -> None:
    """Without *name* a branch is called after what it runs, or after the Branch around it."""
    assert ["double[0]", "double[1]"] == [b.name for b in result_of(over(), [1, 2])]
    named = over(Branch(double, name="twice"))
    assert ["twice[0]", "twice[1]"] == [b.name for b in result_of(named, [1, 2])]


def test_branches_may_be_named_by_their_items() -> None:
    """*name* makes the name of a branch from its item, by which its result is found."""
    result = result_of(over(name=lambda line: f"line {line}"), [7, 5])
    assert (14, 10) == (result["line 7"].value, result["line 5"].value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (lambda line: "same", "two branches are named 'same'; give every item its own name"),
        (lambda line: line, "the branch of item 0 is named 7; return a text"),
    ],
)
def test_names_are_texts_and_unique(name: Any, text: str) -> None:
    """A name that cannot tell branches apart fails the state before any of them starts."""
    begun: list[int] = []

    async def begin(ctx: Context[Order], item: int) -> None:
        begun.append(item)

    with pytest.raises(DataError, match=text):
        result_of(over(begin, name=name), [7, 5])
    assert [] == begun


@pytest.mark.parametrize(
    "join",
    [joins.All(), joins.All(fail_fast=False), joins.Percentage(0.5), joins.Tolerate(failures=0),
     joins.Tolerate(share=0.5), joins.Settled()],
    ids=str,
)  # fmt: skip
def test_nothing_to_do_is_fine_for_all(join: Any) -> None:
    """Without items a strategy that asks for no success joins an empty result."""
    result = result_of(over(join=join))
    assert (0, (), "all") == (result.total, result.values, result.reason)


@pytest.mark.parametrize(
    "join",
    [joins.Any(), joins.Quorum(1), joins.PartialResults(1), joins.PartialTimeout(),
     joins.PartialTimeout(minimum=0), joins.Tolerate(failures=1, minimum=1)],
    ids=str,
)  # fmt: skip
def test_nothing_to_do_is_not_enough_for_a_success(join: Any) -> None:
    """Without items a strategy that needs one fails, and says that there were none."""
    with pytest.raises(JoinFailedError) as caught:
        result_of(over(join=join, timeout=5))
    (error,) = caught.value.exceptions
    assert isinstance(error, TooFewBranchesError)
    assert f"{join} in SPLIT needs a branch; there were none" == str(error)


@pytest.mark.parametrize(
    "join",
    [joins.Quorum(3), joins.PartialResults(3), joins.PartialTimeout(minimum=3),
     joins.Tolerate(failures=1, minimum=3)],
    ids=str,
)  # fmt: skip
def test_too_few_items_fail_before_the_first_branch(join: Any) -> None:
    """A join that so many branches can never meet fails at once, with the reason."""
    with pytest.raises(JoinFailedError) as caught:
        result_of(over(join=join, timeout=5), [1, 2])
    (error,) = caught.value.exceptions
    assert isinstance(error, TooFewBranchesError)
    assert f"{join} can never be met by 2 branches; lower it or add branches" == str(error)
    result = caught.value.result
    assert ((0, 1), "impossible") == (result.not_started, result.reason)


def test_a_number_of_branches_that_is_unknown_is_no_problem() -> None:
    """A join is checked as far as it can be: its settings are, the number of items is not."""
    flow(over(join=joins.Quorum(10**6)))[0].check()
    with pytest.raises(DefinitionError, match="requires a timeout"):
        flow(over(join=joins.PartialTimeout()))[0].check()


def test_a_function_that_takes_no_item_is_found_before_it_runs() -> None:
    """What *run* must take is said by the check."""

    async def itemless(ctx: Context[Order]) -> None: ...

    with pytest.raises(DefinitionError, match="itemless does not take the context and the item"):
        flow(over(itemless))[0].check()


def test_what_items_raises_fails_the_state() -> None:
    """An error in *items* or *name* comes out as it is."""
    error = LookupError("no lines")

    def items(order: Order) -> list[int]:
        raise error

    with pytest.raises(LookupError) as caught:
        result_of(Split.over(items, run=double, then=Step.NEXT))
    assert error is caught.value


def test_resources_follow_the_item() -> None:
    """Parameters after the context and the item are resources."""

    async def price(ctx: Context[Order], item: int, rate: float) -> float:
        return item * rate

    assert (1.5, 3.0) == result_of(over(price), [1, 2], resources=Resources(rate=1.5)).values


def test_policies_go_around_every_item() -> None:
    """The state's policies wrap each branch, those of the Branch inside."""
    calls: list[tuple[int, int]] = []

    async def flaky(ctx: Context[Order], item: int) -> int:
        calls.append((item, ctx.attempt))
        if ctx.attempt <= item:
            raise OSError
        return item

    result = result_of(over(Branch(flaky, Retry.fixed(3, 1))), [0, 2])
    assert ((0, 2), [(0, 1), (2, 1), (2, 2), (2, 3)]) == (result.values, calls)


def test_ten_thousand_items_one_at_a_time() -> None:
    """A long list of items keeps to the bulkhead and ends."""
    result = result_of(over(same, bulkhead=1), range(10_000))
    assert tuple(range(10_000)) == result.values


def test_two_runs_split_each_over_its_own_data() -> None:
    """Overlapping runs of one workflow share the split and nothing else."""
    built, found = flow(over())

    async def main() -> None:
        await asyncio.gather(
            *(built.run(Step.SPLIT, data=Order(lines)) for lines in ([1], [2, 3], []))
        )

    run(main())
    assert [(), (2,), (4, 6)] == sorted(result.values for result in found)
