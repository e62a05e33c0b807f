"""A run that was begun by an older version of its workflow, from its crash to its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Saved,
    VersionMismatchError,
    Workflow,
)
from cano.checkpoints.store import Status
from cano.events import RunMigrated
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class V1(StrEnum):
    BOOK = auto()
    CHARGE = auto()
    END = auto()


class V3(StrEnum):
    RESERVE = auto()
    PAY = auto()
    END = auto()


@dataclass
class Order1:
    total: float = 12.5


@dataclass
class Order3:
    cents: int = 0
    currency: str = "?"


UNDONE: list[str] = []
SEEN: list[Any] = []


class Old(CompensatableTask[V1, str]):
    async def run(self, ctx: Context[Any]) -> tuple[Literal[V1.CHARGE], str]:
        return V1.CHARGE, "seat 7"

    async def compensate(self, ctx: Context[Any], output: str) -> None:
        UNDONE.append(output)


class New(CompensatableTask[V3, str]):
    async def run(self, ctx: Context[Any]) -> tuple[Literal[V3.PAY], str]:
        return V3.PAY, "never"

    async def compensate(self, ctx: Context[Any], output: str) -> None:
        UNDONE.append(f"new {output}")


def first(store: MemoryCheckpoints, **more: Any) -> Workflow[V1, Order1]:
    flow = Workflow(V1, data=Order1, checkpoints=store, name="trips", version=1, **more)

    @flow.task(V1.CHARGE)
    async def charge(ctx: Context[Order1]) -> Literal[V1.END]:
        async def mail() -> int:
            return 1

        await ctx.effect("mail", mail)
        raise SimulatedCrash

    return flow.exits(V1.END).register(V1.BOOK, Old())


def third(store: MemoryCheckpoints, *, fails: bool = False, chain: bool = True) -> Any:
    flow: Any = Workflow(V3, data=Order3, checkpoints=store, name="trips", version=3)

    @flow.task(V3.PAY)  # type: ignore[untyped-decorator, unused-ignore]
    async def pay(ctx: Context[Order3]) -> Literal[V3.END]:
        async def mail() -> int:
            return 2

        SEEN.append((ctx.data, await ctx.effect("mail", mail)))
        if fails:
            raise ValueError("no money")
        return V3.END

    flow.exits(V3.END).register(V3.RESERVE, New())

    @flow.migrate(from_=1)
    def names(saved: Saved) -> Saved:
        return saved.rename("BOOK", "RESERVE").rename("CHARGE", "PAY")

    if chain:

        @flow.migrate(from_=2)
        def cents(saved: Saved) -> Saved:
            saved.data["cents"] = int(saved.data.pop("total") * 100)
            saved.data["currency"] = "EUR"
            return saved

    return flow


async def abandoned() -> MemoryCheckpoints:
    UNDONE.clear()
    SEEN.clear()
    store = MemoryCheckpoints()
    with suppress(SimulatedCrash):
        await first(store).run(V1.BOOK, run_id="r")
    await asyncio.sleep(16)
    return store


def test_a_chain_of_two_migrations() -> None:
    """The run goes on under its new names, with its new data, and what it did still counts."""

    async def main() -> tuple[Enum, list[str]]:
        store = await abandoned()
        state = await third(store).resume("r")
        summary = await store.summary("r")
        assert (3, Status.FINISHED) == (summary.version, summary.status)
        return state, [type(event).__name__ for event in await store.load("r")]

    state, names = run(main())
    assert V3.END is state
    assert [(Order3(1250, "EUR"), 1)] == SEEN
    assert ["RunClaimed", "RunMigrated", "RunFinished"] == names[-3:]


def test_work_of_the_old_version_is_undone_by_the_new() -> None:
    """Completed work keeps its output, and is compensated under its new name."""

    async def main() -> None:
        store = await abandoned()
        with pytest.raises(ValueError, match="no money"):
            await third(store, fails=True).resume("r")

    run(main())
    assert ["new seat 7"] == UNDONE


def test_a_run_without_a_way_is_left_alone() -> None:
    """A missing link is named; the run is neither claimed nor written to."""

    async def main() -> tuple[str, Any]:
        store = await abandoned()
        before = await store.load("r")
        flow = Workflow(V1, data=Order1, checkpoints=store, name="trips", version=2).exits(V1.END)
        flow.register(V1.BOOK, Old())

        async def charge(ctx: Context[Order1]) -> Literal[V1.END]:
            return V1.END

        flow.register(V1.CHARGE, charge)
        with pytest.raises(VersionMismatchError) as error:
            await flow.resume("r")
        assert before == await store.load("r")
        return str(error.value), error.value.changes

    said, changes = run(main())
    assert "run 'r' cannot be continued by trips as it is now (needs a migration)" in said
    assert "write a migration from version 1" in said
    assert ("version 1 became 2",) == changes


def test_an_incomplete_chain_is_a_definition_error() -> None:
    """A migration that leads nowhere is found before anything runs."""

    async def main() -> None:
        store = await abandoned()
        with pytest.raises(ValueError, match=r"leads to version 2, and none leads on to version 3"):
            await third(store, chain=False).resume("r")

    run(main())


def test_a_newer_run_is_refused() -> None:
    """What a later version has carried out is not for an older one."""

    async def main() -> str:
        store = await abandoned()
        flow = Workflow(V1, data=Order1, checkpoints=store, name="trips", version=0).exits(V1.END)
        flow.register(V1.BOOK, Old())

        async def charge(ctx: Context[Order1]) -> Literal[V1.END]:
            return V1.END

        with pytest.raises(VersionMismatchError) as error:
            await flow.register(V1.CHARGE, charge).resume("r")
        return str(error.value)

    assert "version 1, which is newer than 0; deploy version 1 or a later one" in run(main())


def test_the_same_version_with_another_graph_goes_on_where_it_fits() -> None:
    """Nothing is replayed: a graph that changed elsewhere does not strand a run."""

    class More(StrEnum):
        BOOK = auto()
        CHARGE = auto()
        THANK = auto()
        END = auto()

    async def main() -> Enum:
        store = await abandoned()
        flow = Workflow(More, data=Order1, checkpoints=store, name="trips", version=1)

        class Book(CompensatableTask[More, str]):
            async def run(self, ctx: Context[Any]) -> tuple[Literal[More.CHARGE], str]:
                return More.CHARGE, ""

            async def compensate(self, ctx: Context[Any], output: str) -> None: ...

        async def charge(ctx: Context[Any]) -> Literal[More.THANK]:
            return More.THANK

        async def thank(ctx: Context[Any]) -> Literal[More.END]:
            return More.END

        flow.exits(More.END).register(More.BOOK, Book())
        return await flow.register(More.CHARGE, charge).register(More.THANK, thank).resume("r")

    assert "END" == run(main()).name


def test_a_state_that_is_gone_is_named() -> None:
    """The same version without the state the run is in asks for a new version."""

    class Less(StrEnum):
        BOOK = auto()
        END = auto()

    async def main() -> VersionMismatchError:
        store = await abandoned()
        flow = Workflow(Less, data=Order1, checkpoints=store, name="trips", version=1)

        class Book(CompensatableTask[Less, str]):
            async def run(self, ctx: Context[Any]) -> tuple[Literal[Less.END], str]:
                return Less.END, ""

            async def compensate(self, ctx: Context[Any], output: str) -> None: ...

        with pytest.raises(VersionMismatchError) as error:
            await flow.exits(Less.END).register(Less.BOOK, Book()).resume("r")
        return error.value

    error = run(main())
    assert "CHARGE" in str(error)
    assert "raise the version to 2 and write a migration from 1" in str(error)
    assert "state CHARGE was removed" in error.changes


def test_a_migration_that_raises_leaves_the_run_alone() -> None:
    """The error names the migration; the run waits as it was."""

    async def main() -> str:
        store = await abandoned()
        flow = Workflow(V1, data=Order1, checkpoints=store, name="trips", version=2).exits(V1.END)
        flow.register(V1.BOOK, Old())

        async def charge(ctx: Context[Order1]) -> Literal[V1.END]:
            return V1.END

        flow.register(V1.CHARGE, charge)

        @flow.migrate(from_=1)
        def broken(saved: Saved) -> Saved:
            raise KeyError("total")

        count = len(await store.load("r"))
        with pytest.raises(VersionMismatchError) as error:
            await flow.resume("r")
        assert count == len(await store.load("r"))
        return str(error.value)

    said = run(main())
    assert "broken from version 1 raised KeyError: 'total'" in said
    assert "cano upgrade-check" in said


def test_a_crash_after_a_migration_does_not_migrate_twice() -> None:
    """The migration is an event: the next life begins behind it."""

    async def main() -> int:
        store = await abandoned()
        flow = third(store)

        async def crash(ctx: Context[Any]) -> Literal[V3.END]:
            raise SimulatedCrash

        with suppress(SimulatedCrash):
            await flow.register(V3.PAY, crash).resume("r")
        await asyncio.sleep(16)
        await third(store).resume("r")
        return sum(isinstance(event, RunMigrated) for event in await store.load("r"))

    assert 1 == run(main())
    assert [(Order3(1250, "EUR"), 1)] == SEEN
