"""Random batches: order, bounds and counts hold whatever the items, their times and their failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum, auto
from typing import Any, Literal, NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cano import BatchTask, Context, ItemOutcome, Outcomes, Workflow
from cano.errors import TooManyFailuresError
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


class Piece(NamedTuple):
    """An item: how long the source takes to bring it, how long it takes, and whether it fails."""

    after: int
    takes: int
    fails: bool
    collecting: int


class Case(NamedTuple):
    pieces: list[Piece]
    concurrency: int
    source: str
    collects: bool
    max_failures: int | None


PIECES = st.builds(
    Piece,
    after=st.sampled_from([0, 0, 0, 1, 3]),
    takes=st.integers(-1, 5),  # -1 does not even suspend
    fails=st.sampled_from([False, False, False, True]),
    collecting=st.sampled_from([0, 0, 0, 2]),
)
CASES = st.builds(
    Case,
    pieces=st.lists(PIECES, max_size=14),
    concurrency=st.integers(1, 5),
    source=st.sampled_from(["list", "generator", "async"]),
    collects=st.booleans(),
    max_failures=st.sampled_from([None, None, None, 0, 1, 3]),
)


class Played(BatchTask[Step, Piece, int]):
    """Plays a case, and watches."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.concurrency = case.concurrency
        self.max_failures = case.max_failures
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.collected: list[ItemOutcome[int]] = []
        self.taken = 0
        self.closed = case.source == "list"
        self.given: Outcomes[int] | None = None

    def load(self, ctx: Context[Any]) -> Any:
        raise NotImplementedError

    async def process(self, ctx: Context[Any], item: Piece) -> int:
        assert ctx.branch is not None
        index = ctx.branch.index
        self.begun.append(index)
        assert len(self.begun) - len(self.ended) <= self.case.concurrency
        if self.case.collects:
            assert index - len(self.collected) < 2 * self.case.concurrency
        try:
            if item.takes >= 0:
                await asyncio.sleep(item.takes)
            if item.fails:
                raise ValueError(index)
            return 10 * index
        finally:
            self.ended.append(index)

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[int]) -> Literal[Step.END]:
        assert self.closed
        self.given = outcomes
        return Step.END

    def read(self) -> Iterator[Piece]:
        for piece in self.case.pieces:
            self.taken += 1
            read_ahead = self.case.concurrency + 1 if self.case.source == "async" else 0
            most = self.case.concurrency + read_ahead
            if not self.case.collects:  # else those settled but not collected count too
                assert self.taken - len(self.ended) <= most
            yield piece


class FromList(Played):
    async def load(self, ctx: Context[Any]) -> list[Piece]:
        return self.case.pieces


class FromGenerator(Played):
    def load(self, ctx: Context[Any]) -> Iterator[Piece]:
        try:
            yield from self.read()
        finally:
            self.closed = True


class FromAsync(Played):
    async def load(self, ctx: Context[Any]) -> AsyncIterator[Piece]:
        try:
            for piece in self.read():
                if piece.after:
                    await asyncio.sleep(piece.after)
                yield piece
        finally:
            self.closed = True


async def collect(self: Played, ctx: Context[Any], outcome: ItemOutcome[int]) -> None:
    """Takes the outcomes, some slowly."""
    assert len(self.collected) == outcome.index
    await asyncio.sleep(self.case.pieces[outcome.index].collecting)
    self.collected.append(outcome)


KINDS: dict[str, type[Played]] = {
    "list": FromList,
    "generator": FromGenerator,
    "async": FromAsync,
}


def made(case: Case) -> Played:
    kind = KINDS[case.source]
    collecting: type[Played] = type("Collects", (kind,), {"collect": collect})
    return collecting(case) if case.collects else kind(case)


@settings(max_examples=150, deadline=None, database=None)
@given(CASES)
def test_every_item_has_one_outcome_in_its_place(case: Case) -> None:
    """All items are processed once, within the limits, and told in input order; or it ends early."""
    task = made(case)
    failing = [index for index, piece in enumerate(case.pieces) if piece.fails]
    flow = Workflow(Step).exits(Step.END).register(Step.A, task)

    async def main() -> TooManyFailuresError | None:
        try:
            await flow.run(Step.A)
        except TooManyFailuresError as error:
            return error
        finally:
            assert 1 == len(asyncio.all_tasks())
        return None

    error = run(main())
    too_many = case.max_failures is not None and len(failing) > case.max_failures
    event("too many" if too_many else "through")
    assert too_many == (error is not None)
    assert sorted(task.begun) == sorted(task.ended) == list(range(len(task.begun)))
    if error is not None:
        assert task.given is None
        assert (case.max_failures or 0) + 1 == len(error.exceptions)
        assert task.closed or case.source == "list" or not task.taken
        return
    assert task.given is not None
    total = len(case.pieces)
    assert (total, len(failing)) == (task.given.total, task.given.failed)
    assert total == len(task.begun)
    told = task.collected if case.collects else list(task.given)
    assert list(range(total)) == [one.index for one in told]
    assert failing == [one.index for one in told if one.error is not None]
    good = [10 * index for index in range(total) if index not in failing]
    assert good == [one.value for one in told if one.error is None]
    if not case.collects:
        assert (good, failing) == (task.given.values, list(task.given.errors))


@settings(max_examples=100, deadline=None, database=None)
@given(CASES, st.integers(0, 12).map(lambda whole: whole + 0.5))
def test_a_cancelled_batch_leaves_nothing_behind(case: Case, cancel_at: float) -> None:
    """Cancelled at any moment, every item that began has ended, and the source is closed."""
    task = made(case)
    flow = Workflow(Step).exits(Step.END).register(Step.A, task)

    async def main() -> bool:
        running = asyncio.ensure_future(flow.run(Step.A))
        await asyncio.wait([running], timeout=cancel_at)
        over = running.done()
        running.cancel()
        await asyncio.wait([running])
        assert 1 == len(asyncio.all_tasks())
        return over or not running.cancelled()

    ended_before = run(main())
    event("ended before" if ended_before else "cancelled")
    assert sorted(task.begun) == sorted(task.ended)
    assert task.closed or not task.taken
    if not ended_before:
        assert task.given is None
