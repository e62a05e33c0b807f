"""Every beginning that observers are told of has exactly one end: of runs, of tasks, of branches."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cano import (
    Branch,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    CompensatableTask,
    Context,
    Event,
    MemoryCheckpoints,
    Retry,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunParked,
    RunReleased,
    RunResumed,
    RunStarted,
    Split,
    StateEntered,
    TaskCancelled,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    Timeout,
    TimerTask,
    Workflow,
    on,
)
from cano.join import All, PartialTimeout, Quorum, Settled
from cano.join import Any as AnyOf
from cano.testing import FaultyStore, run

RUN_ENDS = (RunFinished, RunFailed, RunCancelled, RunParked, RunReleased)
TASK_ENDS = (TaskSucceeded, TaskFailed, TaskCancelled)
BRANCH_ENDS = (BranchFinished, BranchFailed, BranchCancelled)


class Pairs:
    """An observer that complains of whatever does not fit what it was told before."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.problems: list[str] = []
        self.alive: set[str] = set()
        self.task: dict[str, str] = {}
        self.branches: dict[str, set[str]] = {}
        self.rollbacks: set[str] = set()
        self.kinds: set[type[Event]] = set()

    def __call__(self, event: Event) -> None:
        kind, run_id = type(event), event.run_id
        self.kinds.add(kind)
        self.told.append(f"{kind.__name__} {event.state} {event.branch}".strip())
        if kind is RunMigrated:
            return
        if kind in (RunStarted, RunResumed):
            self.expect(run_id not in self.alive, event, "begins twice")
            self.alive.add(run_id)
        self.expect(run_id in self.alive, event, "of a run that is not under way")
        branches = self.branches.setdefault(run_id, set())
        if kind is StateEntered:
            self.expect(run_id not in self.task, event, "while a task is under way")
        elif kind is TaskStarted:
            self.expect(run_id not in self.task, event, "while another task is")
            self.task[run_id] = event.state
        elif kind in TASK_ENDS:
            began = self.task.pop(run_id, None)
            self.expect(began == event.state, event, f"but {began} had begun")
            self.expect(not branches, event, f"while {branches} are under way")
        elif kind is BranchStarted:
            self.expect(event.branch not in branches, event, "begins twice")
            self.expect(run_id in self.task, event, "outside of any task")
            branches.add(event.branch)
        elif kind in BRANCH_ENDS:
            self.expect(event.branch in branches, event, "had not begun, or had ended")
            branches.discard(event.branch)
        elif kind is RollbackStarted:
            self.expect(run_id not in self.task, event, "while a task is under way")
        if kind in RUN_ENDS:
            began = self.task.pop(run_id, None)
            self.expect(began is None or kind is RunParked, event, f"but {began} has not ended")
            self.alive.discard(run_id)

    def expect(self, right: bool, event: Event, what: str) -> None:
        if not right:
            self.problems.append(f"{self.told[-1]}: {what}")

    def check(self) -> None:
        """Nothing is open."""
        assert ([], set()) == (self.problems, self.alive), "\n".join(self.told)


class Step(Enum):
    A = 1
    B = 2
    C = 3
    D = 4
    END = 5
    LATE = 6


STATES = [Step.A, Step.B, Step.C, Step.D]


class Maker:
    """Makes workflows and fates whose every choice follows from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)  # noqa: S311 -- seeded on purpose

    def seconds(self) -> float:
        return self.chance.randint(0, 30) / 10

    def work(self, to: Any) -> Any:
        seconds, fails = self.seconds(), self.chance.choice([0, 0, 0, 1, 2, 99])
        failed = 0

        async def work(ctx: Context[Any]) -> Any:
            nonlocal failed
            if seconds:
                await asyncio.sleep(seconds)
            if failed < fails:
                failed += 1
                raise ValueError("no")
            return to

        return work

    def plain(self, to: Step) -> Any:
        return self.work(to)

    def book(self, to: Step) -> Any:
        work, stuck = self.work((to, 1)), self.chance.random() < 0.3

        class Book(CompensatableTask[Step, int]):
            async def run(self, ctx: Context[Any]) -> tuple[Step, int]:
                return await work(ctx)  # type: ignore[no-any-return]

            async def compensate(self, ctx: Context[Any], output: int) -> None:
                await asyncio.sleep(1)
                if stuck:
                    raise ConnectionError

        return Book()

    def split(self, to: Step) -> Any:
        count = self.chance.randint(1, 4)

        async def undo(ctx: Context[Any], value: int) -> None: ...

        def branch(number: int) -> Branch[Any]:
            undoable = self.chance.random() < 0.2
            policies = [Retry.fixed(2, 0.3)] if self.chance.random() < 0.3 else []
            return Branch(
                self.work(number), *policies, name=f"b{number}",
                compensate=undo if undoable else None,
            )  # fmt: skip

        return Split(
            [branch(number) for number in range(count)],
            then=to,
            join=self.chance.choice(
                [All(), AnyOf(), Quorum(count), Settled(), PartialTimeout()]
            ),
            timeout=self.chance.choice([0.5, 2.0]),
            bulkhead=self.chance.choice([None, 1, 2]),
            losers=self.chance.choice(["cancel", "wait"]),
        )  # fmt: skip

    def timer(self, to: Step) -> Any:
        return TimerTask(5, then=to)

    def workflow(self, observer: Pairs, store: Any) -> Any:
        chance = self.chance
        flow: Any = Workflow(
            Step, observers=[observer], checkpoints=store,
            timeout=chance.choice([None, None, None, 4.0]),
        )  # fmt: skip
        flow.exits(Step.END, Step.LATE)
        for state, to in zip(STATES, [*STATES[1:], Step.END], strict=True):
            kind = chance.choice(["plain", "plain", "book", "split", "split", "timer"])
            policies: list[Any] = []
            if kind in ("plain", "split"):
                policies += [Retry.fixed(3, 0.5)] * (chance.random() < 0.3)
                policies += [Timeout(1)] * (chance.random() < 0.3)
            otherwise = Step.LATE if chance.random() < 0.2 else None
            flow.register(state, getattr(self, kind)(to), *policies, otherwise=otherwise)
        return flow


async def fate(maker: Maker, pairs: Pairs, store: Any) -> None:
    """One workflow, and three runs of it: one is left alone, one cancelled, one cut off."""
    flow = maker.workflow(pairs, store)

    async def left_alone() -> None:
        await flow.run(Step.A, run_id="alone")

    async def cancelled() -> None:
        handle = await flow.start_run(Step.A, run_id="cancelled")
        await asyncio.sleep(maker.seconds())
        await handle.cancel()
        await handle.result()

    async def cut_off() -> None:
        task = asyncio.ensure_future(flow.run(Step.A, run_id="cut off"))
        await asyncio.sleep(maker.seconds())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    for life in (left_alone(), cancelled(), cut_off()):
        with suppress(Exception):
            await life
    if store is not None:
        pairs.check()
        with suppress(Exception):
            await maker.workflow(pairs, store).resume("cut off")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1_000_000), st.sampled_from([None, 0.0, 0.7]), st.integers(0, 30))
def test_random_workflows(seed: int, latency: float | None, fail_at: int) -> None:
    """Whatever a run consists of, and however it ends, what began has one end and no more.

    That goes for stores too that are slow, or fail once.
    """
    pairs, store = Pairs(), None
    if latency is not None:
        store = FaultyStore(MemoryCheckpoints(), latency=latency, fail_at=fail_at or None)
    run(fate(Maker(seed), pairs, store))

    pairs.check()


@pytest.mark.parametrize("stored", [False, True])
def test_the_random_workflows_are_not_all_alike(stored: bool) -> None:
    """Between them they come to everything that pairing speaks of."""
    kinds: set[type[Event]] = set()
    for seed in range(60):
        pairs = Pairs()
        run(fate(Maker(seed), pairs, MemoryCheckpoints() if stored else None))
        pairs.check()
        kinds |= pairs.kinds
    expected = {
        RunStarted, RunFinished, RunFailed, RunCancelled, RollbackStarted, *TASK_ENDS, *BRANCH_ENDS,
        *([RunResumed, RunReleased] if stored else []),
    }  # fmt: skip

    assert set() == expected - kinds


def whose(store: Any, pairs: Pairs) -> Any:
    async def work(ctx: Context[Any]) -> Any:
        await asyncio.sleep(10)
        return Step.END

    flow: Any = Workflow(Step, observers=[pairs], checkpoints=store)
    return flow.register(Step.A, work).exits(*[step for step in Step if step is not Step.A])


def test_a_shutdown_is_an_end() -> None:
    """A run that is let go has ended for observers; who resumes it is told how far it was."""
    pairs, heard = Pairs(), list[Any]()

    async def main() -> None:
        store = MemoryCheckpoints()
        task = asyncio.ensure_future(whose(store, pairs).run(Step.A, run_id="a7"))
        await asyncio.sleep(4)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        flow = whose(store, pairs)
        flow._observers.append(on(RunStarted, RunReleased, RunResumed)(heard.append))
        await flow.resume("a7")

    run(main())
    pairs.check()

    assert ["TaskStarted A", "TaskCancelled A", "RunReleased A", "RunResumed A"] == pairs.told[2:6]
    (resumed,) = heard
    assert (True, 4.0) == (resumed.entered, round(resumed.time - resumed.begun, 3))


@pytest.mark.parametrize("what", ["store", "lost"])
def test_losing_the_store_is_an_end(what: str) -> None:
    """So has a run that could not be written down any more, or that somebody else has."""
    pairs, reasons = Pairs(), list[str]()

    async def main() -> None:
        store = MemoryCheckpoints()
        flow = whose(FaultyStore(store, fail_at=2 if what == "store" else None), pairs)
        flow._observers.append(on(RunReleased)(lambda event: reasons.append(event.reason)))
        task = asyncio.ensure_future(flow.run(Step.A, run_id="a7"))
        await asyncio.sleep(5)
        if what == "lost":
            await store.expire((await store.summary("a7")).owner)
            await store.claim("a7", "somebody else", 1e12)
        with suppress(Exception):
            await task

    run(main())
    pairs.check()

    assert [what] == reasons


def test_waiting_is_an_end() -> None:
    """A run that is let go to wait has ended for observers, with its task; then it begins anew."""
    pairs = Pairs()

    async def main() -> None:
        flow: Any = Workflow(Step, observers=[pairs], checkpoints=MemoryCheckpoints())
        flow.register(Step.A, TimerTask(3600, then=Step.END))
        flow.exits(*[step for step in Step if step is not Step.A])
        async with flow:
            await (await flow.start_run(Step.A, run_id="a7")).result()

    run(main())
    pairs.check()

    assert [
        "RunStarted A", "StateEntered A", "TaskStarted A", "TimerSet A", "RunParked A",
        "RunResumed A", "TaskStarted A", "TaskSucceeded A", "StateEntered END", "RunFinished END",
    ] == pairs.told  # fmt: skip


def test_the_observer_notices() -> None:
    """What has two ends, none, or an end before its beginning, is complained of."""
    wrong: list[tuple[list[Event], str]] = [
        ([RunFinished(run_id="a")], "not under way"),
        ([RunStarted(run_id="a"), RunStarted(run_id="a")], "begins twice"),
        ([RunStarted(run_id="a"), TaskFailed(run_id="a", state="A")], "None had begun"),
        ([RunStarted(run_id="a"), TaskStarted(run_id="a"), RunFailed(run_id="a")], "not ended"),
        ([RunStarted(run_id="a"), BranchFailed(run_id="a", branch="b")], "had not begun"),
    ]
    for events, complaint in wrong:
        pairs = Pairs()
        for event in events:
            pairs(event)
        assert complaint in pairs.problems[0]
    pairs = Pairs()
    pairs(RunStarted(run_id="a"))
    with pytest.raises(AssertionError):
        pairs.check()
