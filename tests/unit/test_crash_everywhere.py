"""`crash_everywhere` finds what a crash breaks, and says how to see it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal
from uuid import uuid4

import pytest

from cano import Branch, Context, Split, Workflow
from cano.testing.crash import Crash, CrashFoundError, World, crash_everywhere


class Step(StrEnum):
    PAY = auto()
    SHIP = auto()
    DONE = auto()


@dataclass
class Order:
    total: int = 12
    receipts: list[str] = field(default_factory=list)


class Bank:
    """Outlives every process."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}


Make = Callable[[World], Workflow[Step, Order]]


def orders(pay: Callable[[World, Context[Order]], Any]) -> Make:
    """A workflow that pays in that way, and then ships."""

    def make(world: World) -> Workflow[Step, Order]:
        async def paying(ctx: Context[Order]) -> Literal[Step.SHIP]:
            world.ran(ctx)
            await pay(world, ctx)
            return Step.SHIP

        async def ship(ctx: Context[Order]) -> Literal[Step.DONE]:
            world.ran(ctx)
            ctx.data.receipts.append("shipped")
            return Step.DONE

        flow = Workflow(Step, data=Order, checkpoints=world.store).exits(Step.DONE)
        return flow.register(Step.PAY, paying).register(Step.SHIP, ship)

    return make


async def pay_once(world: World, ctx: Context[Order]) -> None:
    """Pay as an effect that the bank can be asked about."""
    key, bank = ctx.idempotency_key, world.keep(Bank)

    async def charge() -> int:
        world.did("charge", key)
        bank.charged[key] = ctx.data.total
        return ctx.data.total

    async def look() -> int | None:
        return bank.charged.get(key)

    ctx.data.receipts.append(f"paid {await ctx.effect('charge', charge, verify=look)}")


async def pay_carelessly(world: World, ctx: Context[Order]) -> None:
    world.did("charge", ctx.idempotency_key)


async def pay_nothing(world: World, ctx: Context[Order]) -> None:
    pass


def found(make: Make, **settings: Any) -> str:
    """What is said of the first thing that is found."""
    with pytest.raises(CrashFoundError) as error:
        crash_everywhere(make, start=Step.PAY, **settings)
    return str(error.value)


def test_finds_nothing_where_nothing_is_wrong() -> None:
    """Every fault is tried at every write, and a sound workflow stands all of them."""
    report = crash_everywhere(orders(pay_once), start=Step.PAY)

    assert (5, 45) == (report.writes, report.points)
    assert dict.fromkeys(
        ["before", "after", "duplicate", "frozen", "unavailable", "unanswered", "shutdown",
         "forward", "backward"], 5,
    ) == report.faults  # fmt: skip
    assert f"45 points in {report.seconds:.1f} s: {report.lives} processes, 5 writes" in str(report)


def test_finds_what_is_done_twice() -> None:
    """What a task does outside without an effect is done again when it is resumed."""
    assert """\
after Crash("before", 2): 'charge r/1/PAY' was done 2 times, and 1 without a crash
run 'r' on record:
       1 RunStarted PAY
       2 StateEntered PAY
     --- process 1 died: Crash("before", 2) ---
       3 RunClaimed PAY
       4 StateEntered SHIP
       5 RunFinished DONE
done outside more or less often than without it:
    ran r/1/PAY (process 1)
    charge r/1/PAY (process 1)
    ran r/1/PAY (process 2)
    charge r/1/PAY (process 2)
again:
    crash_everywhere(make, start=Step.PAY, only=[Crash("before", 2)])""" == found(
        orders(pay_carelessly)
    )


def test_the_reproducer_finds_it_again() -> None:
    """`only=` with the story of an error finds the same, and nothing else is tried."""
    make = orders(pay_carelessly)
    with pytest.raises(CrashFoundError) as first:
        crash_everywhere(make, start=Step.PAY)
    with pytest.raises(CrashFoundError) as second:
        crash_everywhere(make, start=Step.PAY, only=[first.value.story])

    assert (str(first.value), first.value.story) == (str(second.value), second.value.story)


def test_pairs_are_reproduced_too() -> None:
    """A pair of crashes is written as one entry of `only=`, and happens to two processes."""
    seen: list[int] = []
    report = crash_everywhere(
        orders(pay_once), start=Step.PAY, only=[(Crash("after", 2), Crash("before", 2))],
        check=lambda world: seen.append(world.life),
    )  # fmt: skip

    assert ([1, 1, 3], {"before": 1, "after": 1}) == (seen, report.faults)


def test_data_is_compared() -> None:
    """A task whose data depends on how often it ran is found, field by field."""

    async def count(world: World, ctx: Context[Order]) -> None:
        ctx.data.total = len(world.keep(list[int]))
        world.keep(list[int]).append(1)

    assert found(orders(count), faults=["before"]).startswith(
        'after Crash("before", 2): data.total should be 0\ndata.total is        1\n'
    )


def random_total(world: World, ctx: Context[Order]) -> Any:
    ctx.data.receipts.append(uuid4().hex)
    return asyncio.sleep(0)


def test_what_differs_without_a_crash_is_said() -> None:
    """A workflow that never does the same twice cannot be compared, and is told so."""
    text = found(orders(random_total))

    assert "without any crash: two runs without a crash differ already" in text
    assert "say observe=...: data.receipts should be" in text


def test_observe_chooses_what_is_compared() -> None:
    """With `observe` only what it returns of the final data has to be the same."""
    seen = crash_everywhere(
        orders(random_total), start=Step.PAY, observe=lambda data: (data.total, len(data.receipts))
    )

    assert (3, 27) == (seen.writes, seen.points)


def test_own_checks_are_made() -> None:
    """An assertion of `check` that fails is reported like anything else that is found."""

    def check(world: World) -> None:
        assert world.times("ran", "r/1/PAY") == 1, "paid once more"

    text = found(orders(pay_nothing), check=check)

    assert text.startswith('after Crash("before", 2): check() says: paid once more')
    assert "start=Step.PAY, check=check, only=[" in text


def test_errors_of_the_test_itself_come_out() -> None:
    """What `outside` or `check` raise by mistake comes out as it is, with how to see it again."""

    async def outside(world: World) -> None:
        if world.life == 2:
            raise LookupError("a mistake")

    with pytest.raises(LookupError, match="a mistake") as error:
        crash_everywhere(orders(pay_once), start=Step.PAY, outside=outside)

    assert [
        "cano: again: crash_everywhere(make, start=Step.PAY, outside=outside, "
        'only=[Crash("after", 1)])'
    ] == error.value.__notes__


def test_leaked_tasks_are_found() -> None:
    """An asyncio task that outlives its run is named."""
    kept: list[Any] = []

    async def leak(world: World, ctx: Context[Order]) -> None:
        kept.append(asyncio.create_task(asyncio.sleep(1000), name="the leak"))

    assert "without any crash: tasks are left behind when the run is over: the leak (sleep)" in (
        found(orders(leak))
    )


def test_hanging_is_found() -> None:
    """A run that never ends is found in virtual time, and the state it hangs in named."""

    async def hang(world: World, ctx: Context[Order]) -> None:
        await asyncio.Event().wait()

    text = found(orders(hang), timeout=50)

    assert "the run hangs: it did not end within 50 s: <RunHandle 'r' of Step: running in PAY>" in (
        text
    )


def test_a_person_is_needed() -> None:
    """An effect that nobody can ask about is a finding, unless `resolve` plays the person."""

    async def pay(world: World, ctx: Context[Order]) -> None:
        async def charge() -> int:
            world.did("charge")
            return 12

        ctx.data.total += await ctx.effect("charge", charge)

    text = found(orders(pay), faults=["before"])
    report = crash_everywhere(
        orders(pay), start=Step.PAY, resolve=lambda world, name: 12 if world.times(name) else None
    )

    assert "after Crash(\"before\", 3): the run waits for a person: effect 'charge' of PAY" in text
    assert report.points == 45


def test_points_are_sampled_the_same_way() -> None:
    """The same seed tries the same points and pairs, another one others."""

    def tried(seed: int) -> Any:
        report = crash_everywhere(orders(pay_once), start=Step.PAY, points=6, pairs=4, seed=seed)
        return report.points, report.faults, report.lives

    assert (10, True) == (tried(1)[0], tried(1) == tried(1))
    assert tried(1) != tried(2)


def test_progress_is_told() -> None:
    """`progress` is called after every point."""
    told: list[tuple[int, int]] = []
    crash_everywhere(orders(pay_once), start=Step.PAY, points=3, progress=lambda *n: told.append(n))

    assert [(1, 3), (2, 3), (3, 3)] == told


def test_torn_records_of_branches() -> None:
    """Where branches end together, a crash keeps the records of the first ones alone."""

    def make(world: World) -> Workflow[Step, Order]:
        def branch(name: str) -> Branch[None]:
            async def work(ctx: Context[Order]) -> None:
                world.ran(ctx)
                await asyncio.sleep(1)

            return Branch(work, name=name)

        async def ship(ctx: Context[Order]) -> Literal[Step.DONE]:
            return Step.DONE

        flow = Workflow(Step, data=Order, checkpoints=world.store).exits(Step.DONE)
        split = Split([branch(name) for name in "abcd"], then=Step.SHIP)
        return flow.register(Step.PAY, split).register(Step.SHIP, ship)

    begun: list[int] = []

    def check(world: World) -> None:
        begun[:] = [deed.life for deed in world.ledger]

    report = crash_everywhere(make, start=Step.PAY, faults=["torn"])
    crash_everywhere(make, start=Step.PAY, only=[Crash("torn", 3)], check=check)

    assert ({"torn": 3}, [1, 1, 1, 1, 2, 2]) == (report.faults, begun)
