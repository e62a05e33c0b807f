"""`override`: a workflow with fakes in it; `Scripted`: tasks that do as they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    AttemptTimeoutError,
    Context,
    Event,
    MemoryCheckpoints,
    Resource,
    Resources,
    Retry,
    RunQuery,
    Split,
    Task,
    Timeout,
    Workflow,
)
from cano.errors import DefinitionError
from cano.testing import FailTimes, run
from cano.testing.builders import After, Hang, Scripted, override
from cano.testing.clock import advance
from cano.testing.recorder import Recorder


class Step(StrEnum):
    PAY = auto()
    SHIP = auto()
    SORRY = auto()
    DONE = auto()


@dataclass
class Order:
    total: int = 12
    receipt: str = ""


class Bank(Resource):
    """The real one, which no test may open."""

    async def setup(self) -> None:
        raise ConnectionError("no test may do that")

    async def charge(self, total: int) -> str:
        raise ConnectionError("no test may do that")


class FakeBank(Bank):
    async def setup(self) -> None: ...

    async def charge(self, total: int) -> str:
        return f"paid {total}"


def everything(event: Event) -> None:
    raise AssertionError("the observers of production are not to be told")


shop = Workflow(
    Step, data=Order, start=Step.PAY, resources=Resources(bank=Bank(), name="shop"),
    observers=[everything], version=3, timeout=3600,
).exits(Step.DONE)  # fmt: skip


@shop.task(Step.PAY, Retry.fixed(3, 60), Timeout(30), otherwise=Step.SORRY)
async def pay(ctx: Context[Order], bank: Bank) -> Literal[Step.SHIP]:
    ctx.data.receipt = await bank.charge(ctx.data.total)
    return Step.SHIP


@shop.task(Step.SHIP)
async def ship(ctx: Context[Order], name: str) -> Literal[Step.DONE]:
    return Step.DONE


@shop.task(Step.SORRY)
async def sorry(ctx: Context[Order]) -> Literal[Step.DONE]:
    return Step.DONE


def test_other_resources() -> None:
    """Resources are replaced by name, and no hook of the real ones is called."""
    recorder, order = Recorder(), Order()
    run(override(shop, bank=FakeBank(), observers=[recorder]).run(data=order))
    recorder.assert_path("PAY", "SHIP", "DONE")
    assert "paid 12" == order.receipt


def test_a_resource_that_is_not_there() -> None:
    """A name that replaces nothing is an error, with a hint; where there are none, all are added."""
    with pytest.raises(DefinitionError) as caught:
        override(shop, bnak=FakeBank())
    assert (
        "override of Step: there is no resource 'bnak' to replace; did you mean 'bank'? "
        "There are: bank, name" == str(caught.value)
    )
    with pytest.raises(DefinitionError, match="'clock' to replace. There are"):
        override(shop, clock=1)

    bare: Workflow[Step, Order] = Workflow(Step, data=Order).register(Step.PAY, pay)
    bare.register(Step.SHIP, sorry).register(Step.SORRY, sorry).exits(Step.DONE)
    assert Step.DONE is run(override(bare, bank=FakeBank(), observers=[]).run(Step.PAY))


def test_other_tasks() -> None:
    """A task that takes another's place keeps its policies and where its failures lead."""
    recorder = Recorder()
    fake: FailTimes[Step] = FailTimes(9, then=Step.SHIP)
    run(override(shop, replace={Step.PAY: fake}, observers=[recorder], bank=FakeBank()).run())
    recorder.assert_attempts(Step.PAY, 3)
    recorder.assert_path("PAY", "SORRY", "DONE")


def test_policies_of_a_class_are_kept() -> None:
    """Policies that come from the class of a task stay, though the task does not."""

    class Pay(Task[Step]):
        policies = (Retry.fixed(2, 1),)

        async def run(self, ctx: Context[Order]) -> Literal[Step.SHIP]:
            return Step.SHIP

    recorder = Recorder()
    flow = shop.copy().register(Step.PAY, Pay())
    fake: FailTimes[Step] = FailTimes(1, then=Step.SHIP)
    run(override(flow, replace={Step.PAY: fake}, observers=[recorder], bank=1).run())
    recorder.assert_attempts(Step.PAY, 2)


def test_a_state_without_a_task() -> None:
    """What has no task has none to be replaced, and members of another enum are none of ours."""

    class Other(StrEnum):
        PAY = auto()

    for state in (Step.DONE, Other.PAY, "PAY"):
        wrong: Any = {state: sorry}
        with pytest.raises(DefinitionError, match="has no task to replace; .*: PAY, SHIP, SORRY"):
            override(shop, replace=wrong)


def test_another_store() -> None:
    """A store is put in or taken out, and its lease may be as long as the test is."""
    store = MemoryCheckpoints()
    kept = override(shop, checkpoints=store, lease=86_400, observers=[], bank=FakeBank())
    assert 86_400 == kept.lease

    async def main() -> int:
        await kept.run(run_id="a7")
        return len(await store.runs(RunQuery()))

    assert 1 == run(main())
    assert override(kept, checkpoints=None).checkpoints is None
    assert override(kept).checkpoints is store


def test_the_original_is_left_alone() -> None:
    """The workflow that is overridden may have run, may run again, and is as it was."""
    original = override(shop, bank=FakeBank(), observers=[])
    run(original.run())
    other = override(original, replace={Step.PAY: sorry}, observers=[], bank=2)
    run(other.run())
    assert (3, 3600, Step.PAY, "Step") == (other.version, other.timeout, other.start, other.name)
    assert isinstance(original.resources["bank"], FakeBank)
    run(original.run())


def test_scripted() -> None:
    """Each call does the next act: raises, hangs, is slow, returns; the last is done for ever."""
    error = ConnectionError("an object")
    task: Scripted[Step] = Scripted(
        error, ValueError, After(5, TimeoutError), After(1, After(1, Step.SHIP)), Step.DONE
    )

    async def main() -> None:
        with pytest.raises(ConnectionError) as caught:
            await task()
        assert error is caught.value
        with pytest.raises(ValueError, match="^call 2, because a test says so$"):
            await task(1, item=2)
        with pytest.raises(TimeoutError):
            await task()
        assert 5.0 == asyncio.get_running_loop().time()
        assert [Step.SHIP, Step.DONE, Step.DONE] == [await task() for _ in range(3)]
        assert (7.0, 6) == (asyncio.get_running_loop().time(), task.calls)

    run(main())
    assert "Scripted(Hang(), After(2, 1))" == repr(Scripted(Hang(), After(2, 1)))


def test_a_task_that_hangs() -> None:
    """What hangs is ended by a timeout or a cancellation, like anything that waits."""
    recorder = Recorder()
    hanging: Scripted[Step] = Scripted(Hang(), Hang(), Step.SHIP)

    async def main() -> None:
        flow = override(shop, replace={Step.PAY: hanging}, observers=[recorder], bank=1)
        handle = await flow.start_run()
        await advance(29)
        assert 1 == hanging.calls
        await handle.result()
        assert 2 * (30 + 60) == asyncio.get_running_loop().time()

    run(main())
    recorder.assert_attempts(Step.PAY, 3)
    for event in recorder.events:
        if getattr(event, "delay", 0):
            assert AttemptTimeoutError.__name__ in event.error  # type: ignore[attr-defined]


def test_scripted_branches() -> None:
    """It can be a branch too."""
    split = Split([Scripted(1), Scripted(After(60, 2))], then=Step.DONE)
    flow = Workflow(Step).register(Step.PAY, split).exits(Step.DONE, Step.SHIP, Step.SORRY)
    assert Step.DONE is run(flow.run(Step.PAY))


def test_a_bug_is_not_tried_again() -> None:
    """What a bug raises fails at its first attempt, whatever `Retry` there is."""
    recorder = Recorder()
    broken: FailTimes[Step] = FailTimes(1, TypeError, then=Step.SHIP)
    flow = Workflow(Step, observers=[recorder]).register(Step.PAY, broken, Retry(6))
    with pytest.raises(TypeError):
        run(flow.exits(Step.DONE, Step.SHIP, Step.SORRY).run(Step.PAY))
    recorder.assert_attempts(Step.PAY, 1)
    assert 1 == broken.calls


@pytest.mark.parametrize("make", [Scripted, lambda: After(-1, 1), lambda: After(float("nan"), 1)])
def test_settings_are_checked(make: Any) -> None:
    """A script of nothing and a time before now are refused at once."""
    with pytest.raises(DefinitionError, match="pass "):
        make()
