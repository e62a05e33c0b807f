"""What a batch reads: sources that raise, hang or will not close; items without proper keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    BatchTask,
    Context,
    ItemOutcome,
    MemoryCheckpoints,
    Outcomes,
    Retry,
    Timeout,
    Workflow,
)
from cano.errors import AttemptTimeoutError, DataError, TooManyFailuresError
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


Process = Callable[[Context[Any], Any], Awaitable[Any]]


class Watched(BatchTask[Step, Any, Any]):
    """Tells what begins, what ends, what is cancelled, and whether it was finished."""

    concurrency = 3

    def __init__(self, items: Any, process: Process, **settings: Any) -> None:
        self.items = items
        self.how = process
        self.told: list[str] = []
        self.given: Outcomes[Any] | None = None
        vars(self).update(settings)

    async def load(self, ctx: Context[Any]) -> Any:
        return self.items

    async def process(self, ctx: Context[Any], item: Any) -> Any:
        try:
            return await self.how(ctx, item)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # cleaning up takes its time
            self.told.append(f"{item} cancelled")
            raise

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
        self.given = outcomes
        return Step.END


def flow_of(task: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).exits(Step.END).register(Step.A, task, *policies)


def ended_by(kind: type[BaseException], task: Watched, *policies: Any, **settings: Any) -> Any:
    """What the run raised; nothing of it is left."""

    async def main() -> BaseException:
        with pytest.raises(kind) as caught:
            await flow_of(task, *policies, **settings).run(Step.A)
        assert 1 == len(asyncio.all_tasks()), "something was left behind"
        return caught.value

    error = run(main())
    assert task.given is None
    return error


async def hang(ctx: Context[Any], item: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def ok(ctx: Context[Any], item: Any) -> Any:
    await asyncio.sleep(1)
    return item


def fails_or_hangs(*bad: int) -> Process:
    async def process(ctx: Context[Any], item: int) -> None:
        await asyncio.sleep(item)
        if item in bad:
            raise ValueError(item)
        await hang(ctx, item)

    return process


class Source(Watched):
    """Yields three items, and does what it is told."""

    raises: Exception | None = None
    at_close: Exception | None = None
    slow_close: float = 0.0

    async def load(self, ctx: Context[Any]) -> AsyncIterator[int]:  # type: ignore[override]
        opener = asyncio.current_task()
        try:
            for item in range(3):
                yield item
            await asyncio.sleep(1)
            if self.raises is not None:
                raise self.raises
        finally:
            await asyncio.sleep(self.slow_close)
            assert opener is asyncio.current_task()
            self.told.append("closed")
            if self.at_close is not None:
                raise self.at_close


def test_an_async_source_is_closed_when_it_is_through() -> None:
    """After the last item the source is closed, before `finish` is called."""
    task = Source([], ok)
    run(flow_of(task).run(Step.A))
    assert ["closed"] == task.told


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"raises": OSError("gone")}, OSError),
        ({"max_failures": 0}, TooManyFailuresError),
    ],
)
def test_an_async_source_is_closed_on_every_way_out(how: Any, kind: type[Exception]) -> None:
    """A source that raises, or that is left in the middle, is closed by the task that opened it."""
    task = Source([], fails_or_hangs(*([2] if "max_failures" in how else [])), **how)
    ended_by(kind, task)
    assert "closed" in task.told
    assert "0 cancelled" in task.told


def test_an_async_source_is_closed_when_the_run_is_cancelled() -> None:
    """A cancellation reaches the source, which has five seconds to close in peace."""
    task = Source([], hang, slow_close=4)
    ended_by(AttemptTimeoutError, task, Timeout(0.5))
    assert "closed" in task.told


def test_a_source_that_does_not_close_is_given_up() -> None:
    """After five seconds the close itself is cancelled, again and again."""
    task = Source([], hang, slow_close=3600)

    async def main() -> float:
        with pytest.raises(AttemptTimeoutError):
            await flow_of(task, Timeout(0.5)).run(Step.A)
        return asyncio.get_running_loop().time()

    assert pytest.approx(5.5, abs=0.1) == run(main())
    assert "closed" not in task.told


def test_a_source_that_raises_in_the_middle() -> None:
    """Its error passes through as it is; what was under way is cancelled and awaited."""
    error = OSError("gone")
    task = Source([], hang, raises=error)
    assert error is ended_by(OSError, task)
    assert ["0 cancelled", "1 cancelled", "2 cancelled", "closed"] == sorted(task.told)


def test_a_source_that_fails_to_close() -> None:
    """That alone fails the batch; after another error it is only noted there."""
    wrong = ValueError("no such cursor")
    assert wrong is ended_by(ValueError, Source([], ok, at_close=wrong))

    class Odd:
        """Its `aclose` raises, whatever was before."""

        def __aiter__(self) -> Odd:
            return self

        async def __anext__(self) -> int:
            raise OSError("gone")

        async def aclose(self) -> None:
            raise wrong

    error = ended_by(OSError, Watched(Odd(), ok))
    said = "cano: closing what load() returned raised ValueError('no such cursor')"
    assert said in error.__notes__


def test_a_plain_generator_is_closed_too() -> None:
    """A generator that is left in the middle runs its `finally` before the run ends."""
    told: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(99)
        finally:
            told.append("closed")

    ended_by(TooManyFailuresError, Watched(numbers(), fails_or_hangs(0), max_failures=0))
    assert ["closed"] == told


def test_a_plain_source_that_raises_in_the_middle() -> None:
    """The error of a plain iterator ends the batch like that of an async one."""
    error = OSError("gone")

    def numbers() -> Iterator[int]:
        yield 0
        raise error

    task = Watched(numbers(), hang)
    assert error is ended_by(OSError, task)
    assert task.told in ([], ["0 cancelled"])  # it may not have begun


def test_a_load_that_raises() -> None:
    """Nothing is processed and nothing finished; a retry of the state loads again."""

    class Flaky(Watched):
        async def load(self, ctx: Context[Any]) -> Any:
            if ctx.attempt == 1:
                raise ConnectionError
            return await super().load(ctx)

    ended_by(ConnectionError, Flaky([1], ok))
    task = Flaky([1], ok)
    run(flow_of(task, Retry.fixed(2, 1)).run(Step.A))
    assert task.given is not None


@pytest.mark.parametrize("wrong", [None, 7, "letters", b"bytes"])
def test_a_load_that_brings_no_collection(wrong: Any) -> None:
    """Something that cannot be gone through, and a text, are refused with the remedy."""
    error = ended_by(DataError, Watched(wrong, ok))
    assert f"Watched.load returned {wrong!r}, which is no collection of items" in str(error)


def test_a_collect_that_raises() -> None:
    """Its error ends the batch: what runs is cancelled and awaited."""

    class Full(Watched):
        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
            raise OSError("disk full")

    async def process(ctx: Context[Any], item: int) -> None:
        await (asyncio.sleep(1) if item == 0 else hang(ctx, item))

    task = Full(range(9), process)
    error = ended_by(OSError, task)
    assert "disk full" == str(error)
    assert {"1 cancelled", "2 cancelled"} <= set(task.told)


def test_an_iterator_that_has_ended_is_not_asked_again() -> None:
    """Some iterators would go on after their end."""

    class Odd:
        count = 0

        def __iter__(self) -> Odd:
            return self

        def __next__(self) -> int:
            self.count += 1
            if self.count == 3:
                raise StopIteration
            return self.count

    task = Watched(Odd(), ok)
    run(flow_of(task).run(Step.A))
    assert task.given is not None
    assert [1, 2] == task.given.values


# Keys


@pytest.mark.parametrize("wrong", ["", None, 7])
def test_a_key_that_is_none(wrong: Any) -> None:
    """A key is a text with something in it."""

    class Odd(Watched):
        def key(self, item: Any) -> str:
            return wrong  # type: ignore[no-any-return]

    error = ended_by(DataError, Odd([1], ok))
    assert f"Odd.key returned {wrong!r} for item 0; return a text, not empty" == str(error)


def test_a_key_that_is_given_twice() -> None:
    """Two items of one key would be taken for each other."""

    class Same(Watched):
        def key(self, item: Any) -> str:
            return "me" if item % 7 == 0 else str(item)

    error = ended_by(DataError, Same(range(100), ok))
    assert "Same.key returned 'me' for item 7, and for one before it" in str(error)


def test_a_key_that_raises() -> None:
    """The error passes through, with a note saying where; a `StopIteration` ends nothing quietly."""

    class Broken(Watched):
        def key(self, item: Any) -> str:
            raise self.items[0]

    error = ended_by(KeyError, Broken([KeyError("id")], ok))
    assert "cano: in Broken.key of item 0" in error.__notes__
    ended_by(RuntimeError, Broken([StopIteration()], ok))


def test_collected_keys_are_compared_while_under_way() -> None:
    """Without a store nothing is remembered of items that are collected, not even their keys."""

    class Collects(Watched):
        def key(self, item: Any) -> str:
            return str(item % 50)

        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
            pass

    task = Collects(range(200), ok)
    run(flow_of(task).run(Step.A))
    assert task.given is not None
    assert 200 == task.given.total


def test_with_a_store_all_keys_are_compared() -> None:
    """What a store keeps of an item is found again by its key; so no other may have it."""

    class Collects(Watched):
        def key(self, item: Any) -> str:
            return str(item % 50)

        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
            pass

    task = Collects(range(200), ok)
    error = ended_by(DataError, task, checkpoints=MemoryCheckpoints())
    assert "'0' for item 50, and for one before it" in str(error)
