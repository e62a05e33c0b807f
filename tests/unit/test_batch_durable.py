"""Durable batches: what an item came to is kept, and no finished item is processed again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    BatchTask,
    Context,
    DataError,
    ItemOutcome,
    MemoryCheckpoints,
    Outcomes,
    Retry,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore
from cano.errors import ProgressMismatchError, TooManyFailuresError
from cano.events import BranchFailed, BranchFinished
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    A = auto()
    END = auto()


@dataclass
class Size:
    """What comes of an item."""

    name: str
    size: int


class Measure(BatchTask[Step, str, Size]):
    """Measures names; *deaths* are those at which the process dies, once each."""

    concurrency = 2
    durable_items = True

    def __init__(self, *names: str, deaths: str = "", fails: str = "", **settings: Any) -> None:
        self.names = list(names)
        self.deaths = set(deaths)
        self.fails = fails
        self.seen: list[str] = []
        self.given: list[list[Any]] = []
        self.finish_fails = 0
        vars(self).update(settings)

    def key(self, item: str) -> str:
        return f"<{item}>"

    async def load(self, ctx: Context[Any]) -> list[str]:
        return self.names

    async def process(self, ctx: Context[Any], item: str) -> Size:
        self.seen.append(item)
        await asyncio.sleep(ord(item[0]) - ord("a"))
        if item in self.deaths:
            self.deaths.remove(item)
            raise SimulatedCrash
        if item in self.fails:
            raise ValueError(f"no {item}")
        return Size(item, len(item))

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[Size]) -> Literal[Step.END]:
        self.given.append([o.value or repr(o.error) for o in outcomes])
        if self.finish_fails:
            self.finish_fails -= 1
            raise ConnectionError
        return Step.END


def flow_of(store: CheckpointStore | None, task: Any, *policies: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, checkpoints=store, start=Step.A)
    return flow.exits(Step.END).register(Step.A, task, *policies)


async def lives(
    store: CheckpointStore,
    task: Any,
    *policies: Any,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Run until the process dies no more."""
    while True:
        try:
            await flow_of(store, task, *policies).run(run_id="r")
        except SimulatedCrash:
            pass
        else:
            return
        await asyncio.sleep(16)
        between()


def sizes(*names: str) -> list[Any]:
    return [Size(name, len(name)) for name in names]


def test_a_finished_item_is_not_processed_again() -> None:
    """A resumed batch takes what was recorded as it is, read as `process` is annotated."""
    task = Measure("a", "b", "c", "d", "e", deaths="d")
    run(lives(MemoryCheckpoints(), task))

    assert {"a": 1, "b": 1, "c": 1, "d": 2, "e": 2} == Counter(task.seen)
    assert [sizes("a", "b", "c", "d", "e")] == task.given


def test_a_failed_item_stays_failed() -> None:
    """What failed before a crash is found as its own exception, and not processed again."""
    task = Measure("a", "b", "c", "d", "e", deaths="d", fails="b")
    run(lives(MemoryCheckpoints(), task))

    assert 1 == task.seen.count("b")
    assert [[Size("a", 1), "ValueError('no b')", *sizes("c", "d", "e")]] == task.given


def test_items_may_come_in_another_order() -> None:
    """Items are known by their keys; new ones are processed too."""
    task = Measure("a", "b", "c", "d", deaths="d")

    def shuffle() -> None:
        task.names = ["d", "e", "c", "b", "a"]

    run(lives(MemoryCheckpoints(), task, between=shuffle))
    assert {"a": 1, "b": 1, "c": 1, "d": 2, "e": 1} == Counter(task.seen)
    assert [sizes("d", "e", "c", "b", "a")] == task.given


def test_items_that_are_gone_are_an_error() -> None:
    """A resumed batch whose items are others stops, and can be resumed when that is mended."""
    task = Measure("a", "b", "c", "d", deaths="d")

    def lose() -> None:
        task.names = ["b", "d"]

    async def main() -> None:
        store = MemoryCheckpoints()
        with pytest.raises(ProgressMismatchError, match=r"2 items of A were processed before, and"):
            await lives(store, task, between=lose)
        assert [] == task.given
        task.names = ["a", "b", "c", "d"]
        await flow_of(store, task).run(run_id="r", wait=True)

    run(main())
    assert [sizes("a", "b", "c", "d")] == task.given


def test_another_attempt_tries_what_failed() -> None:
    """A retry of the state keeps the items that are finished, and tries the failed ones again."""
    task = Measure("a", "b", "c", fails="b", finish_fails=1)
    run(flow_of(MemoryCheckpoints(), task, Retry.fixed(2, 1)).run())

    assert {"a": 1, "b": 2, "c": 1} == Counter(task.seen)
    assert 2 == len(task.given)


def test_without_a_store_nothing_is_remembered() -> None:
    """Without a store durable items are as others: another attempt processes all of them."""
    task = Measure("a", "b", "c", finish_fails=1)
    run(flow_of(None, task, Retry.fixed(2, 1)).run())

    assert {"a": 2, "b": 2, "c": 2} == Counter(task.seen)


def test_another_attempt_after_a_crash() -> None:
    """A crash in the second attempt resumes the second attempt."""

    class Dies(Measure):
        async def process(self, ctx: Context[Any], item: str) -> Size:
            if item == "b" and self.seen.count("b") == 1:
                self.deaths.add("b")
            return await super().process(ctx, item)

    task = Dies("a", "b", "c", "d", fails="b", finish_fails=1)
    run(lives(MemoryCheckpoints(), task, Retry.fixed(2, 1)))

    assert {"a": 1, "b": 3, "c": 1, "d": 1} == Counter(task.seen)
    assert 2 == len(task.given)


def test_a_reopened_run_tries_what_failed() -> None:
    """`retry` of a failed run processes the failed items again, and no others."""
    task = Measure("a", "b", "c", fails="b", max_failures=0)

    async def main() -> None:
        store = MemoryCheckpoints()
        with pytest.raises(TooManyFailuresError):
            await flow_of(store, task).run(run_id="r")
        task.fails = ""
        await flow_of(store, task).retry("r")

    run(main())
    assert {"a": 1, "b": 2, "c": 2} == Counter(task.seen)
    assert [sizes("a", "b", "c")] == task.given


def test_failures_from_before_a_crash_count() -> None:
    """The limit of failures is that of the whole visit, crashes or not."""
    task = Measure("a", "b", "c", "d", "e", deaths="d", fails="be", max_failures=1)

    async def main() -> str:
        with pytest.raises(TooManyFailuresError) as caught:
            await lives(MemoryCheckpoints(), task)
        return ", ".join(map(repr, caught.value.exceptions))

    assert "ValueError('no b'), ValueError('no e')" == run(main())


def test_too_many_failures_before_a_crash() -> None:
    """Where the last failure allowed was passed right before a crash, nothing is processed again."""
    store = MemoryCheckpoints()

    class Dies(Measure):
        async def process(self, ctx: Context[Any], item: str) -> Size:
            if item == "b":
                await asyncio.sleep(1)
                await ctx.record(BranchFailed(index=1, error="ValueError"))
                raise SimulatedCrash
            return await super().process(ctx, item)

    task = Dies("a", "b", "c", fails="a", max_failures=1)

    async def main() -> None:
        with pytest.raises(TooManyFailuresError, match="2 items of A failed") as caught:
            await lives(store, task)
        assert 2 == len(caught.value.exceptions)

    run(main())
    assert ["a", "c"] == task.seen


def test_a_retried_item_goes_on_counting() -> None:
    """An item that is resumed goes on with its attempt."""
    attempts: list[int] = []

    class Flaky(Measure):
        async def process(self, ctx: Context[Any], item: str) -> Size:
            attempts.append(ctx.attempt)
            if len(attempts) == 2:
                raise SimulatedCrash
            raise ConnectionError

    task = Flaky("a", item_policies=(Retry.fixed(3, 1),))
    run(lives(MemoryCheckpoints(), task))
    assert [1, 2, 2, 3] == attempts


def test_what_an_item_does_is_its_own() -> None:
    """Effects are kept by item: a resumed item does not do again what it has done."""
    made: list[str] = []

    class Sends(Measure):
        async def process(self, ctx: Context[Any], item: str) -> Size:
            async def send() -> int:
                made.append(item)
                return len(made)

            return Size(item, await ctx.effect("send", send) + 0 * len(await self.size(ctx, item)))

        async def size(self, ctx: Context[Any], item: str) -> str:
            return (await super().process(ctx, item)).name

    run(lives(MemoryCheckpoints(), Sends("a", "b", "c", deaths="bc")))
    assert ["a", "b", "c"] == made


def test_each_visit_is_its_own() -> None:
    """A later visit of the state processes all items again."""

    class Twice(Measure):
        async def finish(self, ctx: Context[Any], outcomes: Outcomes[Size]) -> Step:  # type: ignore[override]
            await super().finish(ctx, outcomes)
            return Step.A if len(self.given) < 2 else Step.END

    task = Twice("a", "b")
    run(flow_of(MemoryCheckpoints(), task).run())
    assert ["a", "b", "a", "b"] == task.seen


def test_what_is_recorded() -> None:
    """The end of every item is one event, under its key."""

    async def main() -> list[Any]:
        store = MemoryCheckpoints()
        await flow_of(store, Measure("a", "b", fails="b")).run(run_id="r")
        return [
            (type(event).__name__, event.branch, event.index)
            for event in await store.load("r")
            if isinstance(event, BranchFinished | BranchFailed)
        ]

    assert [("BranchFinished", "<a>", 0), ("BranchFailed", "<b>", 1)] == run(main())


def test_collected_again_from_the_beginning() -> None:
    """A resumed batch collects every outcome again, the recorded ones too, in input order."""
    collected: list[str] = []

    class Collects(Measure):
        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Size]) -> None:
            collected.append(outcome.name)

        async def finish(self, ctx: Context[Any], outcomes: Outcomes[Size]) -> Literal[Step.END]:
            return Step.END

    task = Collects("a", "b", "c", "d", deaths="d")
    run(lives(MemoryCheckpoints(), task, between=lambda: collected.append("crash")))
    assert ["<a>", "<b>", "<c>", "crash", "<a>", "<b>", "<c>", "<d>"] == collected
    assert {"a": 1, "b": 1, "c": 1, "d": 2} == Counter(task.seen)


def test_a_value_that_cannot_be_written_is_a_failure_of_its_item() -> None:
    """An item whose value cannot be kept has failed; the others have not."""

    class Odd(BatchTask[Step, int, Any]):
        durable_items = True
        errors: Any = None

        async def load(self, ctx: Context[Any]) -> range:
            return range(3)

        async def process(self, ctx: Context[Any], item: int) -> Any:
            return object() if item == 1 else item

        async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
            Odd.errors = outcomes.errors
            return Step.END

    run(flow_of(MemoryCheckpoints(), Odd()).run())
    assert [1] == list(Odd.errors)
    assert isinstance(Odd.errors[1], DataError)
    assert "an item of Odd returned an object that cannot be written" in str(Odd.errors[1])


def test_without_durable_items_a_resume_begins_anew() -> None:
    """A batch that was not asked to keep its items processes all of them again."""
    task = Measure("a", "b", "c", deaths="c", durable_items=False)
    run(lives(MemoryCheckpoints(), task))
    assert {"a": 2, "b": 2, "c": 2} == Counter(task.seen)


def test_another_attempt_of_the_whole_has_all_attempts_again() -> None:
    """What an item tried and waited for in an earlier attempt of the whole batch is behind it."""
    attempts: list[tuple[float, int]] = []

    class Flaky(Measure):
        async def process(self, ctx: Context[Any], item: str) -> Size:
            attempts.append((asyncio.get_running_loop().time(), ctx.attempt))
            await ctx.sleep(10)
            raise ConnectionError

    task = Flaky("a", item_policies=(Retry.fixed(2, 0),), finish_fails=1)
    run(flow_of(MemoryCheckpoints(), task, Retry.fixed(2, 0)).run())
    assert [(0, 1), (10, 2), (20, 1), (30, 2)] == [(round(at), n) for at, n in attempts]


def test_known_items_let_others_have_their_turn() -> None:
    """Collecting again what is known of many items does not hold up the rest of the program."""
    turns = 0

    class Many(BatchTask[Step, int, int]):
        durable_items = True
        concurrency = 10
        ready = False

        async def load(self, ctx: Context[Any]) -> range:
            return range(2000)

        async def process(self, ctx: Context[Any], item: int) -> int:
            return item

        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[int]) -> None:
            pass

        async def finish(self, ctx: Context[Any], outcomes: Outcomes[int]) -> Literal[Step.END]:
            if not self.ready:
                raise SimulatedCrash
            return Step.END

    async def main() -> None:
        nonlocal turns
        store, task = MemoryCheckpoints(), Many()
        with suppress(SimulatedCrash):
            await flow_of(store, task).run(run_id="r")
        await asyncio.sleep(16)
        task.ready = True
        running = asyncio.ensure_future(flow_of(store, task).run(run_id="r"))
        while not running.done():
            await asyncio.sleep(0)
            turns += 1

    run(main())
    assert 2000 // 64 <= turns
