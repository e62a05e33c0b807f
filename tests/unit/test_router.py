"""RouterTask: a decision and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Edge,
    MemoryCheckpoints,
    Resources,
    Retry,
    RouterTask,
    RunCancelledError,
    StateEntered,
    Workflow,
)
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(Enum):
    SIZE = 1
    SMALL = 2
    LARGE = 3
    DONE = 4


@dataclass
class Order:
    total: int = 0


class BySize(RouterTask[Step]):
    def __init__(self, limit: int = 10) -> None:
        self.limit = limit

    async def route(self, ctx: Context[Order]) -> Literal[Step.SMALL, Step.LARGE]:
        return Step.LARGE if ctx.data.total > self.limit else Step.SMALL


@pytest.mark.parametrize(
    ("limit", "total", "expected"),
    [(10, 10, Step.SMALL), (10, 11, Step.LARGE), (20, 11, Step.SMALL)],
)
def test_route(limit: int, total: int, expected: Step) -> None:
    """A router leads where its `route` says; one class may be used with several settings."""
    built = Workflow(Step, data=Order).register(Step.SIZE, BySize(limit))
    built.exits(Step.SMALL, Step.LARGE, Step.DONE)

    assert expected == run(built.run(Step.SIZE, data=Order(total)))


def test_leaves_no_trace() -> None:
    """A router is not where a run resumes: entering it is not recorded."""
    assert False is BySize().recorded
    assert True is BySize().interruptible


def test_edges() -> None:
    """The annotation of `route` is the edge set."""
    graph = (
        Workflow(Step, data=Order)
        .register(Step.SIZE, BySize())
        .exits(Step.SMALL, Step.LARGE, Step.DONE)
    )

    assert (Edge(Step.SIZE, Step.SMALL), Edge(Step.SIZE, Step.LARGE)) == graph.check().edges
    assert {"SIZE": "BySize"} == graph.check().labels


def test_is_a_visit_like_any_other() -> None:
    """A router is in the path and announces its visit."""
    told: list[Any] = []
    built = Workflow(Step, data=Order, observers=[told.append]).register(Step.SIZE, BySize())
    built.exits(Step.SMALL, Step.LARGE, Step.DONE)
    run(built.run(Step.SIZE))

    assert ["SIZE", "SMALL"] == [e.state for e in told if isinstance(e, StateEntered)]


def test_resources_and_policies() -> None:
    """`route` takes resources like any verb, and policies go around it."""
    asked = []

    class ByTable(RouterTask[Step]):
        policies = (Retry.fixed(2, 1),)

        async def route(self, ctx: Context[Any], table: dict[str, Step]) -> Step:
            asked.append(ctx.attempt)
            if ctx.attempt == 1:
                raise ConnectionError
            return table["next"]

    resources = Resources(table={"next": Step.DONE})
    built = Workflow(Step, resources=resources).register(Step.SIZE, ByTable())

    assert Step.DONE == run(built.exits(Step.SMALL, Step.LARGE, Step.DONE).run(Step.SIZE))
    assert [1, 2] == asked


def test_repr() -> None:
    """A router shows its class."""
    assert "<BySize task>" == repr(BySize())


# With a store


class Onward(RouterTask[Step]):
    """Leads from SIZE to SMALL, and counts how often it is asked; dies where it is told."""

    def __init__(self, dies: int = 0) -> None:
        self.asked = 0
        self.dies = dies

    async def route(self, ctx: Context[Any]) -> Literal[Step.SMALL]:
        self.asked += 1
        if self.asked == self.dies:
            raise SimulatedCrash
        return Step.SMALL


def stored(store: MemoryCheckpoints, router: Onward, dies: bool = False) -> Workflow[Step, None]:
    async def small(ctx: Context[Any]) -> Literal[Step.DONE]:
        if dies:
            raise SimulatedCrash
        return Step.DONE

    flow = Workflow(Step, checkpoints=store).exits(Step.DONE, Step.LARGE)
    return flow.register(Step.SIZE, router).register(Step.SMALL, small)


def test_is_not_where_a_run_resumes() -> None:
    """A crash in the state after a router resumes there: the way is not decided again."""

    async def main() -> tuple[Step, int]:
        store, router = MemoryCheckpoints(), Onward()
        with suppress(SimulatedCrash):
            await stored(store, router, dies=True).run(Step.SIZE, run_id="r")
        await asyncio.sleep(16)
        return await stored(store, router).resume("r"), router.asked

    assert (Step.DONE, 1) == run(main())


def test_a_crash_before_any_other_state() -> None:
    """A run that died in the router it began with begins with it again: its start is recorded."""

    async def main() -> tuple[Step, int, list[str]]:
        store, router = MemoryCheckpoints(), Onward(dies=1)
        with suppress(SimulatedCrash):
            await stored(store, router).run(Step.SIZE, run_id="r")
        await asyncio.sleep(16)
        state = await stored(store, router).resume("r")
        events = await store.load("r")
        return state, router.asked, [e.state for e in events if isinstance(e, StateEntered)]

    assert (Step.DONE, 2, ["SMALL"]) == run(main())


def test_a_slow_router_can_be_cancelled() -> None:
    """Cancelling a run while it decides ends it at once."""

    class Slow(RouterTask[Step]):
        async def route(self, ctx: Context[Any]) -> Literal[Step.DONE]:
            await asyncio.sleep(1000)
            return Step.DONE

    async def main() -> float:
        built = Workflow(Step).register(Step.SIZE, Slow())
        handle = await built.exits(Step.SMALL, Step.LARGE, Step.DONE).start_run(Step.SIZE)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        return asyncio.get_running_loop().time()

    assert run(main()) < 2
