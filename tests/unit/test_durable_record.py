"""What a run with a store leaves behind: which events, in which order, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    RouterTask,
    Split,
    SqliteCheckpoints,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.events import Event, FailureRouted, RunFinished, RunStarted, StateEntered, TaskCompleted
from cano.testing import run
from cano.testing.faults import FaultyStore


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()
    LATE = auto()


@dataclass
class Order:
    total: int = 0
    items: list[str] = field(default_factory=list)


async def a(ctx: Context[Order]) -> Literal[Step.B]:
    ctx.data.total = 5
    return Step.B


async def b(ctx: Context[Order]) -> Literal[Step.END]:
    ctx.data.items.append("hat")
    return Step.END


def plain(store: CheckpointStore, **more: Any) -> Workflow[Step, Order]:
    flow = Workflow(Step, data=Order, checkpoints=store, **more)
    return flow.exits(Step.END, Step.LATE).register(Step.A, a).register(Step.B, b)


def events_of(main: Coroutine[Any, Any, Any], store: CheckpointStore) -> list[Event]:
    """Run *main* to its end, whatever that is, and load what is kept of run ``r``."""

    async def both() -> list[Event]:
        with suppress(Exception):  # what is recorded is the question
            await main
        return await store.load("r")

    return run(both())


def told(events: list[Event]) -> list[str]:
    return [f"{type(event).__name__} {event.state}" for event in events]


def test_a_plain_run_leaves_its_way() -> None:
    """Every visit leaves one event, the end one more, and their numbers have no gap."""
    store = MemoryCheckpoints()
    events = events_of(plain(store).run(Step.A, run_id="r"), store)
    assert ["RunStarted A", "StateEntered A", "StateEntered B", "RunFinished END"] == told(events)
    assert [1, 2, 3, 4] == [event.sequence for event in events]


def test_the_first_two_events_are_one_write() -> None:
    """A run begins, and enters its first state, in one transaction."""
    store = FaultyStore(MemoryCheckpoints())
    events_of(plain(store).run(Step.A, run_id="r"), store)
    assert (3, 4) == (store.writes, len(store.written))


def test_an_unchanged_field_is_not_written_again() -> None:
    """The first event has all of the data, each later one what changed since."""
    store = MemoryCheckpoints()
    events = events_of(plain(store).run(Step.A, run_id="r"), store)
    patches = [
        {name: bytes(raw) for name, raw in (getattr(event, "patch", None) or {}).items()}
        for event in events
    ]
    assert [{"total": b"0", "items": b"[]"}, {}, {"total": b"5"}, {"items": b'["hat"]'}] == patches


def test_the_end_carries_the_last_change() -> None:
    """What the last task changed travels with the end of the run."""
    store = MemoryCheckpoints()
    last = events_of(plain(store).run(Step.A, run_id="r"), store)[-1]
    assert isinstance(last, RunFinished)
    assert ["items"] == list(last.patch or {})


def test_the_first_event_says_what_ran() -> None:
    """RunStarted names version and shape, so that a resume can compare them."""
    store = MemoryCheckpoints()
    first = events_of(plain(store, version=3).run(Step.A, run_id="r"), store)[0]
    assert isinstance(first, RunStarted)
    assert (3, True) == (first.version, bool(first.fingerprint))


def test_a_router_leaves_no_trace() -> None:
    """Entering a router is not recorded, and takes no number."""

    class Way(RouterTask[Step]):
        async def route(self, ctx: Context[Any]) -> Literal[Step.B]:
            return Step.B

    store = MemoryCheckpoints()
    flow = plain(store).register(Step.A, Way())
    events = events_of(flow.run(Step.A, run_id="r"), store)
    assert ["RunStarted A", "StateEntered B", "RunFinished END"] == told(events)
    assert [1, 2, 3] == [event.sequence for event in events]


def test_a_split_records_its_branches_and_its_verdict() -> None:
    """Each branch leaves its end; the verdict is written together with the next state."""

    async def one(ctx: Context[Any]) -> int:
        return 1

    async def two(ctx: Context[Any]) -> int:
        return 2

    store = FaultyStore(MemoryCheckpoints())
    flow = plain(store).register(Step.A, Split([one, two], then=Step.B))
    events = events_of(flow.run(Step.A, run_id="r"), store)
    assert [
        "RunStarted A", "StateEntered A", "BranchFinished A", "BranchFinished A",
        "SplitJoined A", "StateEntered B", "RunFinished END",
    ] == told(events)  # fmt: skip
    assert 5 == store.writes


def test_a_split_over_items_records_them_first() -> None:
    """The branches made for run-time items are named before the first begins."""

    async def one(ctx: Context[Any], item: str) -> str:
        return item

    def items(data: Order) -> list[str]:
        return ["x", "y"]

    store = MemoryCheckpoints()
    split = Split.over(items, run=one, name=str, then=Step.B)
    events = events_of(plain(store).register(Step.A, split).run(Step.A, run_id="r"), store)
    assert ["RunStarted A", "StateEntered A", "SplitStarted A"] == told(events)[:3]
    assert ["x", "y"] == [e.branch for e in events if type(e).__name__ == "BranchFinished"]


def test_a_routed_failure_is_recorded_with_where_it_led() -> None:
    """`otherwise` leaves its cause and its target, in one write with the next state."""

    async def broken(ctx: Context[Any]) -> Literal[Step.B]:
        raise ValueError("no stock")

    store = FaultyStore(MemoryCheckpoints())
    flow = plain(store).register(Step.A, broken, otherwise=Step.LATE)
    events = events_of(flow.run(Step.A, run_id="r"), store)
    assert ["RunStarted A", "StateEntered A", "FailureRouted A", "RunFinished LATE"] == told(events)
    routed = events[2]
    assert isinstance(routed, FailureRouted)
    assert ("LATE", "builtins:ValueError", "no stock") == (
        routed.next,
        routed.cause and routed.cause.kind,
        routed.cause and routed.cause.message,
    )
    assert 2 == store.writes


def test_completed_work_names_its_successor() -> None:
    """A compensatable task leaves its output, and where it led, before the next state."""

    class Book(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.B], int]:
            return Step.B, 7

        async def compensate(self, ctx: Context[Any], output: int) -> None: ...

    store = MemoryCheckpoints()
    events = events_of(plain(store).register(Step.A, Book()).run(Step.A, run_id="r"), store)
    done = events[2]
    assert isinstance(done, TaskCompleted)
    assert ("B", b"7") == (done.next, bytes(done.value))
    assert "StateEntered B" == told(events)[3]


def test_an_exit_to_start_with_is_the_end() -> None:
    """A run may begin in an exit: it starts and finishes."""
    store = MemoryCheckpoints()
    events = events_of(plain(store).run(Step.END, run_id="r"), store)
    assert ["RunStarted END", "RunFinished END"] == told(events)


def test_a_failure_is_recorded_with_its_cause() -> None:
    """RunFailed has the state, class, text and traceback of what ended the run."""

    async def broken(ctx: Context[Any]) -> Literal[Step.END]:
        raise ValueError("no stock")

    store = MemoryCheckpoints()
    events = events_of(plain(store).register(Step.B, broken).run(Step.A, run_id="r"), store)
    last: Any = events[-1]
    assert ("RunFailed", "B") == (type(last).__name__, last.state)
    assert ("ValueError", "no stock") == (last.kind, last.error)
    assert "raise ValueError" in last.cause.traceback
    assert ["cano: run 'r' of Step: A → B"] == list(last.cause.notes)


def test_what_a_failed_task_changed_is_not_kept() -> None:
    """The data of a failed visit is that of its beginning."""

    async def broken(ctx: Context[Order]) -> Literal[Step.END]:
        ctx.data.total = 99
        raise ValueError("nothing left")

    async def main() -> Order:
        flow = plain(MemoryCheckpoints()).register(Step.B, broken)
        with pytest.raises(ValueError, match="nothing left"):
            await flow.run(Step.A, run_id="r")
        return await flow.handle("r").data()

    assert Order(total=5) == run(main())


def test_tags_and_name_are_in_the_summary() -> None:
    """What a run was started with is found again in lists."""

    async def main() -> tuple[Any, ...]:
        flow = plain(MemoryCheckpoints(), name="orders", version=2)
        await flow.run(Step.A, run_id="r", tags=["vip", "eu"])
        summary = await flow.handle("r").summary()
        return (summary.workflow, summary.version, summary.status, summary.tags, summary.state)

    assert ("orders", 2, Status.FINISHED, ("vip", "eu"), "END") == run(main())


def test_one_text_is_no_list_of_tags() -> None:
    """A single text as tags is refused, with what to pass instead."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r"tags='vip' is one text; pass a list"):
            await plain(MemoryCheckpoints()).run(Step.A, tags="vip")

    run(main())


def test_a_run_without_a_name_gets_one() -> None:
    """Runs nobody named are kept under names of their own."""

    async def main() -> int:
        flow = plain(store := MemoryCheckpoints())
        await asyncio.gather(*(flow.run(Step.A) for _ in range(3)))
        from cano.checkpoints.store import RunQuery

        return len({summary.run_id for summary in await store.runs(RunQuery())})

    assert 3 == run(main())


def test_data_that_cannot_be_written_fails_the_visit() -> None:
    """What cannot be kept fails the run, and nothing of it is recorded."""

    async def odd(ctx: Context[Order]) -> Literal[Step.B]:
        ctx.data.items = [object()]  # type: ignore[list-item]
        return Step.B

    async def main() -> tuple[str, str]:
        flow = plain(store := MemoryCheckpoints()).register(Step.A, odd)
        with pytest.raises(Exception, match=r"Order.items holds a list that cannot be written"):
            await flow.run(Step.A, run_id="r")
        return told(await store.load("r"))[-1], (await store.summary("r")).status

    assert ("RunFailed B", Status.FAILED) == run(main())


def test_a_run_may_be_made_before_there_is_a_loop() -> None:
    """`asyncio.run(flow.run(...))` works with a store as it does without one."""
    assert Step.END is asyncio.run(plain(MemoryCheckpoints()).run(Step.A))


def test_definition_errors_come_before_the_run_is_awaited() -> None:
    """A wrong definition raises where `run` is called, store or not."""
    flow = Workflow(Step, checkpoints=MemoryCheckpoints())
    with pytest.raises(ValueError, match="no state of Step has a task"):
        flow.run(Step.A).close()


def test_a_workflow_without_a_store_says_so() -> None:
    """What needs a store names it, and how to have one."""

    async def main() -> None:
        flow = Workflow(Step, data=Order).exits(Step.END, Step.LATE)
        flow.register(Step.A, a).register(Step.B, b)
        with pytest.raises(ValueError, match=r"Step has no store.*checkpoints=SqliteCheckpoints"):
            await flow.resume("r")

    run(main())


def test_the_same_is_kept_in_a_file(tmp_path: Any) -> None:
    """A file holds, event by event, what memory holds."""

    async def main() -> tuple[list[Event], list[Event]]:
        async with SqliteCheckpoints(tmp_path / "runs.db") as file:
            memory = MemoryCheckpoints()
            for store in (file, memory):
                await plain(store).run(Step.A, run_id="r")
            return await file.load("r"), await memory.load("r")

    kept, remembered = run(main())
    assert told(remembered) == told(kept)
    assert [getattr(e, "patch", None) for e in remembered] == [
        getattr(e, "patch", None) for e in kept
    ]


def test_a_task_that_errs_about_another_run_just_fails() -> None:
    """Store errors about other runs are errors of the task: they are routed as any other."""

    async def tell(ctx: Context[Any]) -> Literal[Step.B]:
        await plain(MemoryCheckpoints()).handle("nobody").signal("hello")
        return Step.B

    async def main() -> tuple[Step, Status]:
        flow = plain(store := MemoryCheckpoints()).register(Step.A, tell, otherwise=Step.LATE)
        state = await flow.run(Step.A, run_id="r")
        unrouted = plain(store).register(Step.A, tell)
        with pytest.raises(CheckpointError, match="nobody"):
            await unrouted.run(Step.A, run_id="s")
        return state, (await store.summary("s")).status

    assert (Step.LATE, Status.FAILED) == run(main())


def test_state_entered_twice_is_two_visits() -> None:
    """A loop leaves an event per visit."""

    async def again(ctx: Context[Order]) -> Literal[Step.A, Step.B]:
        ctx.data.total += 1
        return Step.A if ctx.data.total < 3 else Step.B

    store = MemoryCheckpoints()
    events = events_of(plain(store).register(Step.A, again).run(Step.A, run_id="r"), store)
    assert ["A", "A", "A", "B"] == [e.state for e in events if isinstance(e, StateEntered)]
