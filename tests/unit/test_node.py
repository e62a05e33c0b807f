"""Node: prepare, do, decide; one retry loop, around the middle phase or around all three."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, ClassVar, Literal

import pytest

from cano import (
    AttemptTimeoutError,
    Context,
    DefinitionError,
    MemoryCheckpoints,
    Node,
    Resources,
    Retry,
    RoutingError,
    TaskRetried,
    Timeout,
    Workflow,
)
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    WORK = auto()
    OTHER = auto()
    END = auto()


@dataclass
class Notes:
    lines: list[str] = field(default_factory=list)


class Work(Node[Step, int, str]):
    """Notes what runs; each phase fails as often as it is told."""

    def __init__(self, **fails: int) -> None:
        self.fails = fails
        self.ran: list[str] = []

    def note(self, ctx: Context[Notes], phase: str) -> None:
        self.ran.append(phase)
        ctx.data.lines.append(phase)
        if self.fails.get(phase, 0):
            self.fails[phase] -= 1
            raise ConnectionError(f"{phase} failed")

    async def prep(self, ctx: Context[Notes]) -> int:
        self.note(ctx, "prep")
        return 3

    async def exec(self, ctx: Context[Notes], prepared: int) -> str:
        self.note(ctx, "exec")
        return "x" * prepared

    async def post(self, ctx: Context[Notes], result: str) -> Literal[Step.END, Step.OTHER]:
        self.note(ctx, "post")
        return Step.END if result == "xxx" else Step.OTHER


class Whole(Work):
    repeat: ClassVar[Literal["exec", "all"]] = "all"


def working(task: Any, *policies: Any, **more: Any) -> Workflow[Step, Notes]:
    flow = Workflow(Step, data=Notes, **more).exits(Step.END, Step.OTHER)
    return flow.register(Step.WORK, task, *policies)


def ran(task: Work, *policies: Any) -> list[str]:
    """The phases of a run, and what they left in its data, which must be the last of each."""
    data = Notes()
    run(working(task, *policies).run(Step.WORK, data=data))
    assert ["prep", "exec", "post"] == data.lines
    return task.ran


@pytest.mark.parametrize("kind", [Work, Whole])
def test_three_phases(kind: type[Work]) -> None:
    """`exec` works on what `prep` returned, and `post` decides on what `exec` returned."""
    assert ["prep", "exec", "post"] == ran(kind())


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_only_exec_is_tried_again(failures: int) -> None:
    """A `Retry` goes around `exec`: what is prepared is prepared once."""
    task = Work(exec=failures)
    assert ["prep", *["exec"] * (failures + 1), "post"] == ran(task, Retry(delay=1))


@pytest.mark.parametrize("phase", ["prep", "post"])
def test_other_phases_are_not_tried_again(phase: str) -> None:
    """What fails before and after is raised as it is, at once."""
    task = Work(**{phase: 1})
    with pytest.raises(ConnectionError, match=f"{phase} failed"):
        run(working(task, Retry(delay=1)).run(Step.WORK))
    assert 1 == task.ran.count(phase)


@pytest.mark.parametrize("phase", ["prep", "exec", "post"])
def test_the_whole_may_be_tried_again(phase: str) -> None:
    """With `repeat = "all"` every failure begins again with `prep`, from the data before it."""
    task = Whole(**{phase: 2})
    once = ["prep", "exec", "post"]
    assert [*once[: once.index(phase) + 1] * 2, *once] == ran(task, Retry(delay=1))


@pytest.mark.parametrize("fails", [{}, {"exec": 1}])
def test_what_is_between_the_phases_stays_there(fails: dict[str, int]) -> None:
    """The state after a node finds nothing of it in its context, however it ended."""
    found: list[Any] = []

    async def after(ctx: Context[Notes]) -> Literal[Step.OTHER]:
        found.append(ctx.item)
        return Step.OTHER

    flow = Workflow(Step, data=Notes).exits(Step.OTHER).register(Step.END, after)
    run(flow.register(Step.WORK, Work(**fails), otherwise=Step.END).run(Step.WORK))
    assert [None] == found


@pytest.mark.parametrize("kind", [Work, Whole])
@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_there_is_one_retry_loop(kind: type[Work], attempts: int) -> None:
    """So many attempts are so many calls, and not their square."""
    told: list[Any] = []
    task = kind(exec=99)
    flow = working(task, Retry.fixed(attempts, 1), observers=[told.append])
    with pytest.raises(ConnectionError):
        run(flow.run(Step.WORK))
    assert attempts == task.ran.count("exec")
    assert attempts - 1 == sum(isinstance(event, TaskRetried) for event in told)


def test_policies_of_the_class() -> None:
    """Policies may be part of a node, and those of the registration replace them."""

    class Patient(Work):
        policies = (Retry.fixed(3, 1),)

    assert 3 == ran(Patient(exec=2)).count("exec")
    with pytest.raises(ConnectionError):
        ran(Patient(exec=2), Retry.fixed(2, 1))


@pytest.mark.parametrize("kind", [Work, Whole])
def test_a_timeout_bounds_what_is_repeated(kind: type[Work]) -> None:
    """A `Timeout` bounds `exec` alone, or the whole."""

    class Slow(kind):  # type: ignore[misc, valid-type]
        async def prep(self, ctx: Context[Notes]) -> int:
            await asyncio.sleep(10)
            return 3

    flow = working(Slow(), Timeout(5))
    if kind is Work:
        assert Step.END is run(flow.run(Step.WORK))
    else:
        with pytest.raises(AttemptTimeoutError):
            run(flow.run(Step.WORK))


def test_every_phase_takes_resources() -> None:
    """Each of the three names what it wants."""

    class Wanting(Node[Step, int, int]):
        async def prep(self, ctx: Context[Any], one: int) -> int:
            return one

        async def exec(self, ctx: Context[Any], prepared: int, two: int) -> int:
            return prepared + two

        async def post(self, ctx: Context[Any], result: int, three: int) -> Literal[Step.END]:
            assert 6 == result + three
            return Step.END

    resources = Resources(one=1, two=2, three=3)
    assert Step.END is run(working(Wanting(), resources=resources).run(Step.WORK))
    with pytest.raises(DefinitionError) as caught:
        working(Wanting()).check(Step.WORK)
    found = "\n".join(caught.value.problems)
    for phase, name in (("prep", "one"), ("exec", "two"), ("post", "three")):
        assert f"Wanting.{phase} wants a resource named '{name}'" in found


def test_only_exec_need_be_written() -> None:
    """Without `prep` nothing is prepared; without `post` the result is the next state."""

    class Short(Node[Step, None, Step]):
        async def exec(self, ctx: Context[Any], prepared: None) -> Literal[Step.OTHER]:
            assert prepared is None
            return Step.OTHER

    flow = working(Short())
    assert Step.OTHER is run(flow.run(Step.WORK))
    assert [Step.OTHER] == [edge.target for edge in flow.check().edges]


def test_the_graph_knows_where_it_leads() -> None:
    """The annotation of `post` is the edge set."""
    edges = working(Work()).check(Step.WORK).edges
    assert [Step.END, Step.OTHER] == sorted(edge.target for edge in edges)


def test_what_is_wrong_is_told_at_once() -> None:
    """Missing phases, edges that are none and wrong settings, each with its remedy."""

    class Nothing(Node[Step, int, int]):
        repeat: ClassVar[Any] = "twice"

    class Lost(Node[Step, int, int]):
        async def exec(self, ctx: Context[Any], prepared: int) -> int:
            return 1

    class Astray(Lost):
        async def post(self, ctx: Context[Any], result: int) -> int:  # type: ignore[override]
            return 1

    flow = Workflow(Step).register(Step.WORK, Nothing()).register(Step.OTHER, Lost())
    with pytest.raises(DefinitionError) as caught:
        flow.register(Step.END, Astray()).check()
    assert (
        "no state ends a run; pass the ones that do to exits()",
        "WORK: Nothing has no exec(); write `async def exec(self, ctx, prepared)`",
        """WORK: Nothing has repeat='twice'; say "exec" or "all\"""",
        "OTHER: Lost has no post(), and what its exec() returns, int, is no state; write "
        "`async def post(self, ctx, result) -> Literal[Step.A]`",
    ) == caught.value.problems[:4]
    assert "Astray.post is annotated to return int, which is no state" in caught.value.problems[4]


def test_plain_functions_and_too_few_parameters() -> None:
    """Each phase is looked at like any verb."""

    class Wrong(Node[Step, int, Step]):
        def prep(self, ctx: Context[Any]) -> int:  # type: ignore[override]
            return 1

        async def exec(self, ctx: Context[Any]) -> Step:  # type: ignore[override]
            return Step.END

    with pytest.raises(DefinitionError) as caught:
        working(Wrong()).check()
    block, few = caught.value.problems
    assert "Wrong.prep is a plain function" in block
    assert "Wrong.exec does not take the context and the item" in few


def test_a_result_that_is_no_state() -> None:
    """What `post` lets through is looked at like what any task returns."""

    class Vague(Node[Step, None, Any]):
        async def exec(self, ctx: Context[Any], prepared: None) -> Any:
            return "somewhere"

    with pytest.raises(RoutingError, match="somewhere"):
        run(working(Vague()).run(Step.WORK))


@pytest.mark.parametrize("phase", ["prep", "exec", "post"])
def test_a_resumed_visit_runs_all_three_again(phase: str) -> None:
    """A crash in any phase begins the visit anew, from the data it was entered with."""

    class Dies(Work):
        def note(self, ctx: Context[Notes], phase: str) -> None:
            super().note(ctx, phase)
            if phase == dies and self.ran.count(phase) == 1:
                raise SimulatedCrash

    dies = phase

    async def main() -> tuple[list[str], list[str]]:
        store, task = MemoryCheckpoints(), Dies()
        with suppress(SimulatedCrash):
            await working(task, checkpoints=store).run(Step.WORK, run_id="r")
        await asyncio.sleep(16)
        flow = working(task, checkpoints=store)
        await flow.resume("r")
        return task.ran, (await flow.handle("r").data()).lines

    once = ["prep", "exec", "post"]
    assert ([*once[: once.index(phase) + 1], *once], once) == run(main())


def test_an_effect_is_made_once() -> None:
    """What must not happen twice is an effect: not in a later attempt, nor after a crash."""
    paid: list[int] = []

    class Pays(Work):
        async def exec(self, ctx: Context[Notes], prepared: int) -> str:
            async def pay() -> int:
                paid.append(prepared)
                return prepared

            amount = await ctx.effect("pay", pay)
            return await super().exec(ctx, amount)

    async def main() -> None:
        flow = working(Pays(exec=2), Retry.fixed(3, 1), checkpoints=MemoryCheckpoints())
        await flow.run(Step.WORK)

    run(main())
    assert [3] == paid


def test_runs_do_not_share() -> None:
    """One node serves all runs at once: what one has prepared is not worked on by another."""

    class Own(Node[Step, int, int]):
        async def prep(self, ctx: Context[Any]) -> int:
            return int(ctx.run_id)

        async def exec(self, ctx: Context[Any], prepared: int) -> int:
            await asyncio.sleep(10 - prepared)
            return prepared

        async def post(self, ctx: Context[Any], result: int) -> Literal[Step.END]:
            assert int(ctx.run_id) == result
            return Step.END

    async def main() -> list[Step]:
        flow = working(Own())
        return await asyncio.gather(*(flow.run(Step.WORK, run_id=str(n)) for n in range(10)))

    assert [Step.END] * 10 == run(main())
