"""Batches: load, process each item, finish with what they came to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    BatchTask,
    Bulkhead,
    Context,
    ItemOutcome,
    Outcomes,
    Resources,
    Retry,
    Timeout,
    Workflow,
)
from cano.events import BatchProcessed, Event, ItemFailed
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


Process = Callable[[Context[Any], Any], Awaitable[Any]]


class Numbers(BatchTask[Step, Any, Any]):
    """Processes *items*, and keeps what `finish` was given."""

    def __init__(self, items: Any, process: Process, **settings: Any) -> None:
        self.items = items
        self.how = process
        self.loaded = 0
        self.given: Outcomes[Any] | None = None
        vars(self).update(settings)

    async def load(self, ctx: Context[Any]) -> Iterable[Any]:
        self.loaded += 1
        items: Iterable[Any] = self.items
        return items

    async def process(self, ctx: Context[Any], item: Any) -> Any:
        return await self.how(ctx, item)

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
        self.given = outcomes
        return Step.END


def outcomes_of(task: Numbers, *policies: Any, **settings: Any) -> Outcomes[Any]:
    flow = Workflow(Step, **settings).exits(Step.END).register(Step.A, task, *policies)
    assert Step.END == run(flow.run(Step.A))
    assert task.given is not None
    return task.given


async def double(ctx: Context[Any], item: int) -> int:
    return 2 * item


async def later_first(ctx: Context[Any], item: int) -> int:
    """The later an item, the sooner it is done."""
    await asyncio.sleep(100 - item)
    return 2 * item


def fails(*items: int) -> Process:
    async def process(ctx: Context[Any], item: int) -> int:
        await asyncio.sleep(1)
        if item in items:
            raise ValueError(f"no {item}")
        return item

    return process


@pytest.mark.parametrize("concurrency", [1, 4, 100])
def test_outcomes_are_in_input_order(concurrency: int) -> None:
    """Whatever is done first, `finish` finds one outcome per item, in the order of the input."""
    outcomes = outcomes_of(Numbers(range(10), later_first, concurrency=concurrency))

    assert [2 * item for item in range(10)] == outcomes.values
    assert list(range(10)) == [outcome.index for outcome in outcomes]
    assert (10, 10, 0) == (outcomes.total, outcomes.succeeded, outcomes.failed)


@pytest.mark.parametrize("concurrency", [1, 2, 3, 12, 50])
def test_no_more_at_once_than_allowed(concurrency: int) -> None:
    """As many items as allowed are processed at the same time, and never more."""
    running, most = 0, 0

    async def process(ctx: Context[Any], item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(item % 3 + 1)
        running -= 1

    outcomes_of(Numbers(range(12), process, concurrency=concurrency))
    assert min(concurrency, 12) == most


def test_one_task_per_worker() -> None:
    """Items that do suspend share as many asyncio tasks as may run at once."""
    tasks: set[Any] = set()

    async def process(ctx: Context[Any], item: int) -> None:
        tasks.add(asyncio.current_task())
        await asyncio.sleep(1)

    outcomes_of(Numbers(range(100), process, concurrency=5))
    assert 5 == len(tasks)


def test_a_failed_item_fills_its_place() -> None:
    """An item that raises leaves the others alone, and its exception is in its place, noted."""
    outcomes = outcomes_of(Numbers([5, 6, 7], fails(6), concurrency=2))

    assert [5, 7] == outcomes.values
    assert [1] == list(outcomes.errors)
    assert isinstance(outcomes.errors[1], ValueError)
    assert ["cano: in item 1"] == outcomes.errors[1].__notes__
    assert [ItemOutcome(0, "0", 5), ItemOutcome(2, "2", 7)] == [outcomes[0], outcomes[-1]]
    assert (3, 2, 1) == (len(outcomes), outcomes.succeeded, outcomes.failed)
    assert "<Outcomes: 2 of 3 succeeded>" == repr(outcomes)


def test_errors_are_in_input_order() -> None:
    """The errors are listed by index, whichever came first."""

    async def process(ctx: Context[Any], item: int) -> int:
        await later_first(ctx, item)
        raise KeyError(item)

    assert [0, 1, 2] == list(outcomes_of(Numbers(range(3), process, concurrency=3)).errors)


def test_nothing_to_do() -> None:
    """Without items nothing is processed, and `finish` decides."""
    outcomes = outcomes_of(Numbers([], fails()))

    assert (0, [], {}, []) == (outcomes.total, outcomes.values, outcomes.errors, list(outcomes))


def test_items_have_policies_of_their_own() -> None:
    """Each item has its own attempts; the others, and the error itself, are left as they are."""
    calls: list[tuple[int, int]] = []

    async def process(ctx: Context[Any], item: int) -> int:
        calls.append((item, ctx.attempt))
        if item == 2 or (item == 1 and ctx.attempt < 3):
            raise ConnectionError(item)
        return item

    outcomes = outcomes_of(Numbers([0, 1, 2], process, item_policies=[Retry.fixed(3, 1)]))

    assert [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)] == calls
    assert [0, 1] == outcomes.values
    assert type(outcomes.errors[2]) is ConnectionError


def test_the_same_item_is_tried_again() -> None:
    """A second attempt is given the very object of the first."""
    seen: list[object] = []

    async def process(ctx: Context[Any], item: object) -> None:
        seen.append(item)
        assert item is ctx.item
        if len(seen) == 1:
            raise ConnectionError

    outcomes_of(Numbers([object()], process, item_policies=[Retry.fixed(2, 0)]))
    assert seen[0] is seen[1]


def test_policies_of_the_state_go_around_all_of_it() -> None:
    """A retry of the state loads, processes and finishes again, with nothing remembered."""
    seen: list[int] = []

    async def process(ctx: Context[Any], item: int) -> None:
        seen.append(item)

    class Fussy(Numbers):
        async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
            if self.loaded < 2:
                raise ConnectionError("not yet")
            return await super().finish(ctx, outcomes)

    task = Fussy(range(3), process)
    outcomes_of(task, Retry.fixed(2, 1))
    assert (2, [0, 1, 2, 0, 1, 2]) == (task.loaded, seen)

    task = Fussy(range(3), process)
    with pytest.raises(ConnectionError, match="not yet"):
        outcomes_of(task)


def test_policies_of_an_item_may_be_shared_with_others() -> None:
    """A bulkhead around each item holds them to its own limit."""
    bulkhead = Bulkhead(2)
    running, most = 0, 0

    async def process(ctx: Context[Any], item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    outcomes_of(Numbers(range(9), process, concurrency=5, item_policies=[bulkhead]))
    assert 2 == most


def test_an_item_that_hangs_runs_out_of_time() -> None:
    """A `Timeout` ends the item it is around, and no other; one worker's timer serves them all."""

    async def process(ctx: Context[Any], item: int) -> int:
        await asyncio.sleep(3600 if item == 1 else 4)
        return item

    outcomes = outcomes_of(Numbers(range(4), process, item_policies=[Timeout(5)]))
    assert [0, 2, 3] == outcomes.values
    assert isinstance(outcomes.errors[1], TimeoutError)


def test_timers_do_not_pile_up() -> None:
    """A thousand items that may take an hour each leave no timer behind."""

    async def main() -> list[Any]:
        task = Numbers(range(1000), double, concurrency=3, item_policies=[Timeout(3600)])
        await Workflow(Step).exits(Step.END).register(Step.A, task).run(Step.A)
        loop: Any = asyncio.get_running_loop()
        return [timer for timer in loop._scheduled if not timer.cancelled()]

    assert [] == run(main())


def test_context_variables_stay_with_their_worker() -> None:
    """What an item sets is not seen by items of other workers, nor by `finish`."""
    variable = ContextVar("variable", default="outside")
    seen: list[str] = []

    async def process(ctx: Context[Any], item: int) -> None:
        seen.append(variable.get())
        variable.set(f"item {item}")
        await asyncio.sleep(1)
        seen.append(variable.get())

    class Looks(Numbers):
        async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
            seen.append(variable.get())
            return await super().finish(ctx, outcomes)

    outcomes_of(Looks(range(2), process, concurrency=2))
    assert ["outside", "outside", "item 0", "item 1", "outside"] == seen


def test_every_verb_takes_resources() -> None:
    """Further parameters are resources, for each verb."""
    seen: list[str] = []

    class Wanting(BatchTask[Step, int, int]):
        async def load(self, ctx: Context[Any], db: str) -> list[int]:
            seen.append(f"load {db}")
            return [1]

        async def process(self, ctx: Context[Any], item: int, db: str) -> int:
            seen.append(f"process {item} {db}")
            return item

        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[int], db: str) -> None:
            seen.append(f"collect {outcome.value} {db}")

        async def finish(
            self, ctx: Context[Any], outcomes: Outcomes[int], db: str
        ) -> Literal[Step.END]:
            seen.append(f"finish {outcomes.total} {db}")
            return Step.END

    flow = Workflow(Step, resources=Resources(db="pg")).exits(Step.END)
    run(flow.register(Step.A, Wanting()).run(Step.A))
    assert ["load pg", "process 1 pg", "collect 1 pg", "finish 1 pg"] == seen


def test_items_have_keys() -> None:
    """A key names an item in errors, outcomes, events and the idempotency key."""
    keys: list[str] = []

    async def process(ctx: Context[Any], item: str) -> None:
        keys.append(ctx.idempotency_key.rpartition("/")[2])
        raise ValueError

    class Named(Numbers):
        def key(self, item: str) -> str:
            return f"<{item}>"

    told: list[Event] = []
    outcomes = outcomes_of(Named(["a", "b"], process), observers=[told.append])

    assert ["<a>", "<b>"] == keys == [outcome.name for outcome in outcomes]
    assert ["cano: in item 1 '<b>'"] == outcomes.errors[1].__notes__
    failed = [event for event in told if isinstance(event, ItemFailed)]
    assert [("<a>", 0, "<a>"), ("<b>", 1, "<b>")] == [(e.item, e.index, e.branch) for e in failed]
    (processed,) = [event for event in told if isinstance(event, BatchProcessed)]
    assert (0, 2, "") == (processed.succeeded, processed.failed, processed.branch)


def test_an_exception_raised_again_and_again() -> None:
    """One exception object for all items does not gather a note of every one of them."""
    error = ValueError("the same")

    async def process(ctx: Context[Any], item: int) -> None:
        raise error

    outcomes = outcomes_of(Numbers(range(1000), process))
    assert 1000 == outcomes.failed
    assert 100 == len(error.__notes__)


@pytest.mark.parametrize("is_async", [False, True])
def test_load_may_be_a_generator(is_async: bool) -> None:
    """Items may be yielded, and are then read as they are needed."""
    read, most, done = 0, 0, 0

    async def process(ctx: Context[Any], item: int) -> int:
        nonlocal most, done
        await asyncio.sleep(1)
        most = max(most, read - done)
        done += 1
        return item

    class Yields(Numbers):
        def load(self, ctx: Context[Any]) -> Iterator[int]:  # type: ignore[override]
            nonlocal read
            for item in range(100):
                read += 1
                yield item

    class AsyncYields(Numbers):
        async def load(self, ctx: Context[Any]) -> AsyncIterator[int]:  # type: ignore[override]
            nonlocal read
            for item in range(100):
                read += 1
                yield item

    task = (AsyncYields if is_async else Yields)([], process, concurrency=5)
    assert list(range(100)) == outcomes_of(task).values
    assert 5 == most if not is_async else 5 < most <= 11


def test_a_slow_source_keeps_nobody_waiting() -> None:
    """What an async source yields is processed at once, while the next item is being waited for."""
    begun: list[float] = []

    async def process(ctx: Context[Any], item: int) -> None:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(15)

    class Slow(Numbers):
        async def load(self, ctx: Context[Any]) -> AsyncIterator[int]:  # type: ignore[override]
            for item in range(4):
                await asyncio.sleep(10)
                yield item

    outcomes_of(Slow([], process, concurrency=2))
    assert [10, 20, 30, 40] == begun


def test_outcomes_can_be_made_for_tests() -> None:
    """`Outcomes([...])` takes exceptions for failures, so that `finish` can be tried alone."""
    error = ValueError()
    outcomes = Outcomes([1, error, 3], names=["a", "b", "c"])

    assert ([1, 3], {1: error}, 1) == (outcomes.values, outcomes.errors, outcomes.failed)
    assert ItemOutcome(1, "b", None, error) == outcomes[1]


def test_others_have_their_turn() -> None:
    """A batch of items that never suspend lets the rest of the program go on."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main() -> None:
        counting = asyncio.ensure_future(count())
        flow = Workflow(Step).exits(Step.END).register(Step.A, Numbers(range(10_000), double))
        await flow.run(Step.A)
        counting.cancel()

    run(main())
    assert turns >= 100
