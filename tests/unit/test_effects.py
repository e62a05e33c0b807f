"""`ctx.effect`: once, or a person is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from typing import Any, Literal

import pytest

from cano import (
    Context,
    DataError,
    EffectInDoubtError,
    MemoryCheckpoints,
    Retry,
    Split,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    PAY = auto()
    END = auto()


@dataclass
class Receipt:
    number: int


Body = Callable[[Context[Any]], Awaitable[Any]]


class Shop:
    """A bank outside, whose effects outlive the processes; *deaths* are calls that end in one."""

    def __init__(self, *deaths: int) -> None:
        self.store: CheckpointStore = MemoryCheckpoints()
        self.deaths = deaths
        self.charged: list[str] = []
        self.got: list[Any] = []

    async def charge(self, what: str = "hat") -> Receipt:
        self.charged.append(what)
        await asyncio.sleep(0)
        if len(self.charged) in self.deaths:
            raise SimulatedCrash
        return Receipt(len(self.charged))

    def flow(self, body: Body, *policies: Any, store: CheckpointStore | None = None) -> Any:
        flow = Workflow(Step, checkpoints=store or self.store).exits(Step.END)

        async def pay(ctx: Context[Any]) -> Literal[Step.END]:
            self.got.append(await body(ctx))
            return Step.END

        return flow.register(Step.PAY, pay, *policies)

    async def run(self, body: Body, *policies: Any, lives: int = 1) -> None:
        """Run, and resume as often as it takes to have had that many *lives*."""
        with suppress(SimulatedCrash):
            await self.flow(body, *policies).run(Step.PAY, run_id="r")
        for _ in range(lives - 1):
            await asyncio.sleep(16)
            with suppress(SimulatedCrash):
                await self.flow(body, *policies).resume("r")

    async def names(self) -> list[str]:
        return [type(event).__name__ for event in await self.store.load("r")]


def test_an_effect_leaves_an_intent_and_its_value() -> None:
    """The intent is on disk before the call, the value after it."""

    async def main() -> list[str]:
        shop = Shop()

        async def body(ctx: Context[Any]) -> Receipt:
            async def charge() -> Receipt:
                assert "EffectIntended" == (await shop.names())[-1]
                return await shop.charge()

            return await ctx.effect("charge", charge)

        await shop.run(body)
        assert [Receipt(1)] == shop.got
        return await shop.names()

    assert ["EffectIntended", "EffectDone", "RunFinished"] == run(main())[2:]


def test_a_done_effect_is_not_repeated_after_a_crash() -> None:
    """A resumed task is given the recorded value, as the type its annotation says."""

    async def main() -> Shop:
        shop = Shop()
        crash = [True]

        async def body(ctx: Context[Any]) -> Receipt:
            receipt = await ctx.effect("charge", shop.charge)
            if crash:
                raise SimulatedCrash(crash.pop())
            return receipt

        await shop.run(body, lives=2)
        return shop

    shop = run(main())
    assert (["hat"], [Receipt(1)]) == (shop.charged, shop.got)


def test_a_done_effect_is_not_repeated_in_a_later_attempt() -> None:
    """`Retry` repeats the task, not what it has done outside."""

    async def main() -> Shop:
        shop = Shop()

        async def body(ctx: Context[Any]) -> Receipt:
            receipt = await ctx.effect("charge", shop.charge)
            if ctx.attempt < 3:
                raise ConnectionError
            return receipt

        await shop.run(body, Retry())
        return shop

    shop = run(main())
    assert (["hat"], [Receipt(1)]) == (shop.charged, shop.got)


def test_a_failed_effect_is_tried_again() -> None:
    """What the call raised is the task's to handle: the next attempt makes it again."""

    async def main() -> list[Any]:
        shop = Shop()
        calls: list[int] = []

        async def charge() -> int:
            calls.append(1)
            if len(calls) < 3:
                raise ConnectionError
            return len(calls)

        await shop.run(lambda ctx: ctx.effect("charge", charge), Retry())
        return shop.got

    assert [3] == run(main())


def test_an_effect_in_doubt_stops_for_a_person() -> None:
    """Nobody knows whether it happened: the run is set aside, and the error says what to do."""

    async def main() -> tuple[str, Status, bool]:
        shop = Shop(1)

        def body(ctx: Context[Any]) -> Awaitable[Any]:
            return ctx.effect("charge", shop.charge)

        await shop.run(body)
        await asyncio.sleep(16)
        with pytest.raises(EffectInDoubtError) as error:
            await shop.flow(body).resume("r")
        summary = await shop.store.summary("r")
        assert ["hat"] == shop.charged
        return str(error.value), summary.status, summary.owner == ""

    said, status, free = run(main())
    assert "cano runs resolve r charge --done VALUE, or --again" in said
    assert (Status.IN_DOUBT, True) == (status, free)


def test_it_did_happen() -> None:
    """A person gives the value it returned, and the run goes on with it."""

    async def main() -> Shop:
        shop = Shop(1)

        def body(ctx: Context[Any]) -> Awaitable[Any]:
            return ctx.effect("charge", shop.charge)

        await shop.run(body, lives=1)
        await asyncio.sleep(16)
        with pytest.raises(EffectInDoubtError):
            await shop.flow(body).resume("r")
        await shop.flow(body).handle("r").resolve("charge", Receipt(42))
        assert Step.END is await shop.flow(body).resume("r")
        return shop

    shop = run(main())
    assert (["hat"], [Receipt(42)]) == (shop.charged, shop.got)


def test_it_did_not_happen() -> None:
    """A person has it made again; if that crashes too, a person is asked again."""

    async def main() -> Shop:
        shop = Shop(1, 2)

        def body(ctx: Context[Any]) -> Awaitable[Any]:
            return ctx.effect("charge", shop.charge)

        await shop.run(body)
        for calls in (1, 2):
            await asyncio.sleep(16)
            with pytest.raises(EffectInDoubtError):
                await shop.flow(body).resume("r")
            assert calls == len(shop.charged)
            await shop.flow(body).handle("r").resolve("charge", again=True)
            with suppress(SimulatedCrash):
                await shop.flow(body).resume("r")
        return shop

    shop = run(main())
    assert (["hat"] * 3, [Receipt(3)]) == (shop.charged, shop.got)


def test_what_a_person_said_counts_for_one_doubt() -> None:
    """The same effect in doubt in a later visit asks anew."""

    class Loop(StrEnum):
        PAY = auto()
        NEXT = auto()
        END = auto()

    async def main() -> list[str]:
        shop = Shop(1, 2)

        def make() -> Workflow[Loop, None]:
            flow = Workflow(Loop, checkpoints=shop.store).exits(Loop.END)

            @flow.task(Loop.PAY)
            async def pay(ctx: Context[Any]) -> Literal[Loop.NEXT]:
                shop.got.append(await ctx.effect("charge", shop.charge))
                return Loop.NEXT

            @flow.task(Loop.NEXT)
            async def again(ctx: Context[Any]) -> Literal[Loop.PAY, Loop.END]:
                return Loop.PAY if len(shop.got) < 2 else Loop.END

            return flow

        with suppress(SimulatedCrash):
            await make().run(Loop.PAY, run_id="r")
        await asyncio.sleep(16)
        with pytest.raises(EffectInDoubtError):
            await make().resume("r")
        await make().handle("r").resolve("charge", Receipt(7))
        with suppress(SimulatedCrash):
            await make().resume("r")
        assert ([Receipt(7)], 2) == (shop.got, len(shop.charged))
        await asyncio.sleep(16)
        with pytest.raises(EffectInDoubtError):
            await make().resume("r")
        return shop.charged

    assert ["hat", "hat"] == run(main())


def test_branches_are_in_doubt_apart() -> None:
    """The same effect of two branches is two doubts: what is said of one counts for it alone."""

    class Fan(StrEnum):
        FAN = auto()
        LOOK = auto()
        END = auto()

    async def main() -> tuple[list[str], Any]:
        store, got = MemoryCheckpoints(), list[Any]()
        hang = [True]

        async def pay(ctx: Context[Any], item: str) -> str:
            async def charge() -> str:
                if hang:
                    await asyncio.sleep(1)
                    raise SimulatedCrash
                return "again " + item

            return await ctx.effect("charge", charge)

        def make() -> Workflow[Fan, None]:
            flow = Workflow(Fan, checkpoints=store).exits(Fan.END)
            flow.register(
                Fan.FAN, Split.over(lambda _: ["x", "y"], run=pay, name=str, then=Fan.LOOK)
            )

            @flow.task(Fan.LOOK)
            async def look(ctx: Context[Any]) -> Literal[Fan.END]:
                got.append(ctx.joined(str).values)
                return Fan.END

            return flow

        with suppress(SimulatedCrash):
            await make().run(Fan.FAN, run_id="r")
        hang.clear()
        await asyncio.sleep(16)
        said: list[str] = []
        for name, value in (("x/charge", "paid"), ("y/charge", None)):
            with pytest.raises(EffectInDoubtError, match=f"resolve r {name} ") as error:
                await make().resume("r")
            said.append(str(error.value).split("'")[1])
            await make().handle("r").resolve(name, value, again=value is None)
        await make().resume("r")
        return said, got[-1]

    assert (["x/charge", "y/charge"], ("paid", "again y")) == run(main())


@pytest.mark.parametrize(("found", "calls", "got"), [(Receipt(9), 1, 9), (None, 2, 2)])
def test_verify_is_asked_instead_of_a_person(found: Any, calls: int, got: int) -> None:
    """`verify` returns what happened, or None to have the call made again."""

    async def main() -> Shop:
        shop = Shop(1)

        async def verify() -> Receipt | None:
            return found  # type: ignore[no-any-return]

        await shop.run(lambda ctx: ctx.effect("charge", shop.charge, verify=verify), lives=2)
        return shop

    shop = run(main())
    assert (calls, [Receipt(got)]) == (len(shop.charged), shop.got)


def test_an_idempotent_effect_is_made_again() -> None:
    """Declared idempotent, it leaves no intent, and is simply repeated after a crash."""

    async def main() -> tuple[Shop, list[str]]:
        shop = Shop(1)
        await shop.run(lambda ctx: ctx.effect("charge", shop.charge, idempotent=True), lives=2)
        return shop, await shop.names()

    shop, names = run(main())
    assert (2, [Receipt(2)]) == (len(shop.charged), shop.got)
    assert "EffectIntended" not in names


def test_effects_of_one_visit_are_told_apart_by_name() -> None:
    """Several effects in one task are each made once."""

    async def main() -> Shop:
        shop = Shop(2)

        async def body(ctx: Context[Any]) -> list[Receipt]:
            return [
                await ctx.effect(f"charge {what}", partial(shop.charge, what), idempotent=True)
                for what in ("hat", "coat")
            ]

        await shop.run(body, lives=2)
        return shop

    shop = run(main())
    assert ["hat", "coat", "coat"] == shop.charged
    assert [[Receipt(1), Receipt(3)]] == shop.got


def crashing_after(body: Body) -> tuple[Body, list[bool]]:
    crash = [True]

    async def both(ctx: Context[Any]) -> Any:
        value = await body(ctx)
        if crash:
            raise SimulatedCrash(crash.pop())
        return value

    return both, crash


@pytest.mark.parametrize("how", ["function", "partial", "lambda with kind", "plain lambda"])
def test_values_come_back_as_their_producer_says(how: str) -> None:
    """Annotations of functions and partials are read; a lambda needs *kind*, or plain JSON."""

    async def main() -> list[Any]:
        shop = Shop()

        def body(ctx: Context[Any]) -> Awaitable[Any]:
            match how:
                case "function":
                    return ctx.effect("c", shop.charge)
                case "partial":
                    return ctx.effect("c", partial(shop.charge, "coat"))
                case "lambda with kind":
                    return ctx.effect("c", lambda: shop.charge(), kind=Receipt)
            return ctx.effect("c", lambda: asyncio.sleep(0, {"number": 1}))

        both, _ = crashing_after(body)
        await shop.run(both, lives=2)
        return shop.got

    plain = how == "plain lambda"
    assert [{"number": 1} if plain else Receipt(1)] == run(main())


def test_a_value_nobody_described_is_refused_when_written() -> None:
    """What would come back as something else is an error at once, with the remedy."""

    async def main() -> None:
        shop = Shop()
        with pytest.raises(DataError, match=r"effect 'c' returned a Receipt .*annotate what it is"):
            await shop.flow(lambda ctx: ctx.effect("c", lambda: shop.charge())).run(Step.PAY)

    run(main())


def test_a_value_that_changed_its_type_is_refused_when_read() -> None:
    """A recorded value that its annotation no longer fits is an error that shows it."""

    async def main() -> None:
        shop = Shop()
        kinds: list[Any] = [Receipt, list[int]]
        crash = [True]

        async def body(ctx: Context[Any]) -> Any:
            value = await ctx.effect("c", lambda: shop.charge(), kind=kinds.pop(0))
            if crash:
                raise SimulatedCrash(crash.pop())
            return value

        await shop.run(body)
        await asyncio.sleep(16)
        with pytest.raises(DataError, match=r"effect 'c' was recorded as \{\"number\":1\}, which"):
            await shop.flow(body).resume("r")

    run(main())


def test_without_a_store_the_call_is_made() -> None:
    """In memory an effect is its call, and nothing is asked of its value."""

    async def main() -> object:
        flow = Workflow(Step).exits(Step.END)
        thing = object()

        @flow.task(Step.PAY)
        async def pay(ctx: Context[Any]) -> Literal[Step.END]:
            assert thing is await ctx.effect("c", lambda: asyncio.sleep(0, thing))
            return Step.END

        return await flow.run(Step.PAY)

    assert Step.END is run(main())


def test_an_effect_whose_intent_is_not_kept_is_not_made() -> None:
    """The call waits for the intent to be on disk: if it cannot be, nothing happens outside."""

    async def main() -> list[str]:
        shop = Shop()
        store = FaultyStore(shop.store, fail_at=2)
        with pytest.raises(Exception, match="write 2 failed"):
            await shop.flow(lambda ctx: ctx.effect("c", shop.charge), store=store).run(Step.PAY)
        return shop.charged

    assert [] == run(main())


def test_the_key_is_the_same_in_every_life() -> None:
    """`idempotency_key` is stable across attempts and resumes; `fence` grows with every owner."""

    async def main() -> list[Any]:
        shop = Shop()
        seen: list[Any] = []

        async def body(ctx: Context[Any]) -> None:
            seen.append((ctx.idempotency_key, ctx.fence, ctx.attempt))
            if len(seen) == 1:
                raise ConnectionError
            if len(seen) == 2:
                raise SimulatedCrash

        await shop.run(body, Retry.fixed(3, 1), lives=2)
        return seen

    assert [("r/1/PAY", 1, 1), ("r/1/PAY", 1, 2), ("r/1/PAY", 2, 2)] == run(main())


def test_doubt_in_a_group_of_tasks_stops_the_run() -> None:
    """An effect in doubt is no failure of the task, even where the task's own group raises it."""

    async def main() -> Status:
        store = MemoryCheckpoints()

        def make(store: Any) -> Workflow[Step, None]:
            async def grouped(ctx: Context[Any]) -> Literal[Step.END]:
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.effect("pay", paid))
                return Step.END

            return Workflow(Step, checkpoints=store).register(Step.PAY, grouped).exits(Step.END)

        async def paid() -> str:
            return "paid"

        with pytest.raises(BaseException):  # noqa: B017 -- the crash, in whatever group
            await make(FaultyStore(store, crash_before=3)).run(Step.PAY, run_id="r")
        await asyncio.sleep(100)
        with pytest.raises(ExceptionGroup):
            await make(store).resume("r")
        return (await store.summary("r")).status

    assert Status.IN_DOUBT == run(main())
