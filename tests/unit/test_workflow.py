"""Workflow: registering, compiling, copying, and many runs of one definition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, Resources, Retry, Split, Workflow
from cano.errors import DefinitionError
from cano.testing import run


class Step(Enum):
    A = "a"
    B = "b"
    DONE = "done"


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def to_done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def sound(**settings: Any) -> Workflow[Step, Any]:
    return (
        Workflow(Step, **settings).register(Step.A, to_b).register(Step.B, to_done).exits(Step.DONE)
    )


def test_registered() -> None:
    """What has a task is told, in the order of registration."""
    flow = Workflow(Step).register(Step.B, to_done).register(Step.A, to_b).exits(Step.DONE)

    assert (Step.B, Step.A) == flow.registered


def test_every_call_returns_the_workflow() -> None:
    """`register` and `exits` change the workflow and return it."""
    flow = Workflow(Step)

    assert flow.register(Step.A, to_b) is flow
    assert flow.exits(Step.DONE) is flow


def test_a_later_registration_replaces_an_earlier() -> None:
    """The first task of a state registered twice never runs, and leaves no edges behind."""
    ran = []

    async def first(ctx: Context[Any]) -> Literal[Step.B]:
        ran.append("first")
        return Step.B

    flow = Workflow(Step, start=Step.A).register(Step.A, first, otherwise=Step.B)
    flow.register(Step.A, to_done).exits(Step.DONE, Step.B)
    with pytest.raises(DefinitionError, match="^B cannot be reached from A"):
        flow.check()

    assert Step.DONE == run(sound().register(Step.A, first).register(Step.A, to_done).run(Step.A))
    assert [] == ran


def test_exits_add_up() -> None:
    """Exits may be named one by one and twice."""
    flow = Workflow(Step).register(Step.A, to_b).exits(Step.DONE).exits(Step.B, Step.DONE)

    assert (Step.DONE, Step.B) == flow.check().exits


def test_decorator() -> None:
    """`@flow.task(state)` registers like `register`, and leaves the function as it is."""
    attempts = []

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        raise ConnectionError

    flow = Workflow(Step).exits(Step.B, Step.DONE)

    assert work is flow.task(Step.A, Retry.fixed(2, 1), otherwise=Step.B)(work)
    assert Step.B == run(flow.run(Step.A))
    assert [1, 2] == attempts


@pytest.mark.parametrize(
    "change",
    [
        lambda flow: flow.register(Step.A, to_done),
        lambda flow: flow.exits(Step.DONE),
        lambda flow: flow.task(Step.A)(to_done),
    ],
)
@pytest.mark.parametrize(
    "compiling", [lambda flow: run(flow.run(Step.A)), lambda flow: flow.check()]
)
def test_compiled_is_final(compiling: Any, change: Any) -> None:
    """After the first run or check, changes are refused, with the way out."""
    flow = sound()
    compiling(flow)
    with pytest.raises(DefinitionError, match=r"has been compiled .*, or change a copy\(\)"):
        change(flow)


def test_a_copy_may_be_changed() -> None:
    """A copy has the same definition and settings, and may go its own way."""
    resources = Resources(db=1)
    flow = sound(name="n", version=3, start=Step.A, timeout=5, strict=True, resources=resources)
    flow.check()
    copied = flow.copy().register(Step.B, to_done, Retry())

    for name in ("name", "version", "start", "timeout", "strict", "resources", "states"):
        assert getattr(flow, name) is getattr(copied, name)
    assert flow.registered == copied.registered
    assert Step.DONE == run(copied.run())


def test_a_change_of_a_copy_leaves_the_original_alone() -> None:
    """Neither tasks nor exits are shared between a workflow and its copy."""
    flow = sound()
    flow.copy().register(Step.A, to_done).exits(Step.A)

    assert () == flow.check().anywhere
    assert (Step.DONE,) == flow.check().exits


def test_copy_of_observers() -> None:
    """A copy tells the same observers."""
    told: list[Any] = []
    copied = sound(observers=[told.append]).copy()
    run(copied.run(Step.A))

    assert told


def test_repr() -> None:
    """A workflow shows its name, how many tasks it has, its exits and its limit."""
    assert "<Workflow Step: 0 states with tasks, exits: none>" == repr(Workflow(Step))
    expected = "<Workflow Orders: 2 states with tasks, exits: DONE, timeout 1.5 s>"
    assert expected == repr(sound(name="Orders", timeout=1.5))


def test_start() -> None:
    """A run starts where it is told, else where the workflow says, and must know one of them."""
    seen = []

    async def look(ctx: Context[Any]) -> Literal[Step.B]:
        seen.append(ctx.path)
        return Step.B

    async def main() -> None:
        flow = sound(start=Step.A).register(Step.A, look)
        await flow.run()
        await flow.run(Step.B)
        await flow.run(Step.A)

    run(main())

    assert [(Step.A,), (Step.A,)] == seen
    with pytest.raises(DefinitionError, match="Step does not know where to start; pass a state to"):
        sound().run()


def test_another_start_is_not_held_to_reachability() -> None:
    """A run that begins in the middle may leave what comes before unreached."""
    assert Step.DONE == run(sound(start=Step.A).run(Step.B))


def test_mistakes_show_where_run_is_called() -> None:
    """`run` checks when it is called, not when it is awaited."""
    with pytest.raises(DefinitionError):
        Workflow(Step).run(Step.A)


def test_run_id() -> None:
    """A run has the name it was given, or makes one up that stays."""
    seen = []

    async def look(ctx: Context[Any]) -> Literal[Step.B]:
        seen.extend([ctx.run_id, ctx.run_id])
        return Step.B

    flow = sound().register(Step.A, look)

    async def main() -> None:
        await flow.run(Step.A, run_id="mine")
        await flow.run(Step.A)
        await flow.run(Step.A)

    run(main())

    assert ["mine", "mine"] == seen[:2]
    assert (seen[2], seen[4]) == (seen[3], seen[5])
    assert 3 == len(set(seen))


@dataclass
class Tally:
    seen: list[int] = field(default_factory=list)


def test_two_runs_at_once_share_nothing() -> None:
    """Data, path, attempt, split and error of runs of one workflow stay apart."""

    class Many(Enum):
        SPLIT = 1
        LOOK = 2
        ODD = 3
        LATE = 4
        DONE = 5

    flow = Workflow(Many, data=Tally).exits(Many.DONE)

    async def branch(ctx: Context[Tally]) -> int:
        await asyncio.sleep(ctx.data.seen[0])
        return ctx.data.seen[0]

    @flow.task(Many.LOOK, Retry.fixed(10, 1))
    async def look(ctx: Context[Tally]) -> Literal[Many.ODD, Many.LATE]:
        number = ctx.data.seen[0]
        await asyncio.sleep(0.1)
        assert ctx.split is not None
        assert (number, number) == ctx.split.values
        if ctx.attempt <= number:
            raise ConnectionError
        ctx.data.seen.append(ctx.attempt)
        return Many.ODD if number % 2 else Many.LATE

    @flow.task(Many.ODD, otherwise=Many.LATE)
    async def odd(ctx: Context[Tally]) -> Literal[Many.LATE]:
        raise ValueError(ctx.data.seen[0])

    @flow.task(Many.LATE)
    async def late(ctx: Context[Tally]) -> Literal[Many.DONE]:
        number = ctx.data.seen[0]
        await asyncio.sleep(0.5)
        assert (str(number) if number % 2 else "None") == str(ctx.error)
        assert (Many.SPLIT, Many.LOOK) == ctx.path[:2]
        assert (4 if number % 2 else 3) == len(ctx.path)
        return Many.DONE

    flow.register(Many.SPLIT, Split([branch, branch], then=Many.LOOK))

    async def main() -> list[Tally]:
        data = [Tally([number]) for number in range(6)]
        await asyncio.gather(*(flow.run(Many.SPLIT, data=each) for each in data))
        return data

    assert [[n, n + 1] for n in range(6)] == [tally.seen for tally in run(main())]


def test_data_is_fresh_for_every_run() -> None:
    """Without data of their own two runs do not see each other's."""
    lengths = []

    async def grow(ctx: Context[Tally]) -> Literal[Step.B]:
        ctx.data.seen.append(1)
        lengths.append(len(ctx.data.seen))
        return Step.B

    flow = sound(data=Tally).register(Step.A, grow)

    async def main() -> None:
        await flow.run(Step.A)
        await flow.run(Step.A)

    run(main())

    assert [1, 1] == lengths


def test_a_workflow_outlives_its_loop() -> None:
    """One workflow may be run by one event loop after another."""
    flow = sound(timeout=10, resources=Resources(db=1))

    assert [Step.DONE, Step.DONE] == [run(flow.run(Step.A)), asyncio.run(flow.run(Step.A))]


def test_checking_again_costs_nothing_new() -> None:
    """A second check returns an equal graph."""
    flow = sound()

    assert flow.check() == flow.check()
