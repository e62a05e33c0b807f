"""Run data in a store: every kind of it comes back, and goes on from where it was."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, StrEnum, auto
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from cano import Context, DataError, MemoryCheckpoints, RunIdReusedError, Workflow
from cano.events import RunFinished
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    FILL = auto()
    CHECK = auto()
    END = auto()


class Item(msgspec.Struct):
    name: str
    price: float


@dataclass
class Plain:
    count: int = 0
    items: list[Item] = field(default_factory=list)
    day: date | None = None
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Frozen:
    count: int = 0
    items: tuple[Item, ...] = ()
    day: date | None = None
    tags: frozenset[str] = frozenset()


class Struct(msgspec.Struct):
    count: int = 0
    items: list[Item] = []
    day: date | None = None
    tags: set[str] = set()


class FrozenStruct(msgspec.Struct, frozen=True):
    count: int = 0
    items: tuple[Item, ...] = ()
    day: date | None = None
    tags: frozenset[str] = frozenset()


class Line(pydantic.BaseModel):
    name: str
    price: float


class Model(pydantic.BaseModel):
    count: int = 0
    items: list[Line] = []
    day: date | None = None
    tags: set[str] = set()


VALUES: dict[type[Any], dict[str, Any]] = {
    Plain: {"items": [Item("hat", 1.5)], "tags": {"x", "y"}},
    Frozen: {"items": (Item("hat", 1.5),), "tags": frozenset(("x", "y"))},
    Struct: {"items": [Item("hat", 1.5)], "tags": {"x", "y"}},
    FrozenStruct: {"items": (Item("hat", 1.5),), "tags": frozenset(("x", "y"))},
    Model: {"items": [Line(name="hat", price=1.5)], "tags": {"x", "y"}},
}


def shop(store: MemoryCheckpoints, kind: type[Any], seen: list[Any], crashes: int) -> Any:
    """FILL makes new data, CHECK looks at it, and its process dies there *crashes* times."""
    flow = Workflow(Step, data=kind, checkpoints=store).exits(Step.END)

    @flow.task(Step.FILL)
    async def fill(ctx: Context[Any]) -> Literal[Step.CHECK]:
        ctx.data = kind(count=3, day=date(2024, 2, 29), **VALUES[kind])
        return Step.CHECK

    @flow.task(Step.CHECK)
    async def check(ctx: Context[Any]) -> Literal[Step.END]:
        seen.append(ctx.data)
        if len(seen) <= crashes:
            raise SimulatedCrash
        return Step.END

    return flow


@pytest.mark.parametrize("kind", VALUES)
def test_data_comes_back_after_a_crash(kind: type[Any]) -> None:
    """A resumed task finds equal data of the same type, whatever kind of class that is."""

    async def main() -> list[Any]:
        store, seen = MemoryCheckpoints(), list[Any]()
        with suppress(SimulatedCrash):
            await shop(store, kind, seen, 1).run(Step.FILL, run_id="r")
        await asyncio.sleep(16)
        assert Step.END is await shop(store, kind, seen, 1).resume("r")
        return [*seen, await shop(store, kind, seen, 0).handle("r").data()]

    before, resumed, at_the_end = run(main())
    assert before == resumed == at_the_end
    assert kind is type(resumed)


@pytest.mark.parametrize("kind", VALUES)
def test_the_same_input_is_the_same_run(kind: type[Any]) -> None:
    """A run_id given twice with equal data is one run; with other data it is refused by field."""

    async def main() -> int:
        store, seen = MemoryCheckpoints(), list[Any]()
        flow = shop(store, kind, seen, 0)
        for _ in range(2):
            await flow.run(Step.FILL, run_id="r", data=kind(count=1, **VALUES[kind]))
        with pytest.raises(RunIdReusedError, match=r"with other data: count; pass what it was"):
            await flow.run(Step.FILL, run_id="r", data=kind(count=2, **VALUES[kind]))
        return len(seen)

    assert 1 == run(main())


def test_another_start_is_another_run() -> None:
    """A run_id given again with another start is refused, naming both."""

    async def main() -> None:
        flow = shop(MemoryCheckpoints(), Plain, [], 0)
        await flow.run(Step.FILL, run_id="r")
        with pytest.raises(RunIdReusedError, match=r"started from FILL, not from CHECK"):
            await flow.run(Step.CHECK, run_id="r")

    run(main())


def test_changes_of_an_unfinished_visit_are_not_doubled() -> None:
    """A resumed task begins with the data its visit was entered with."""

    async def main() -> list[str]:
        store, crashes = MemoryCheckpoints(), [True]

        def make() -> Workflow[Step, Plain]:
            flow = Workflow(Step, data=Plain, checkpoints=store).exits(Step.END, Step.CHECK)

            @flow.task(Step.FILL)
            async def fill(ctx: Context[Plain]) -> Literal[Step.END]:
                async def price() -> float:
                    return 2.5

                ctx.data.items.append(Item("hat", await ctx.effect("price", price)))
                if crashes:
                    raise SimulatedCrash(crashes.pop())
                return Step.END

            return flow

        with suppress(SimulatedCrash):
            await make().run(Step.FILL, run_id="r")
        await asyncio.sleep(16)
        await make().resume("r")
        return [item.name for item in (await make().handle("r").data()).items]

    assert ["hat"] == run(main())


def test_stored_data_that_does_not_fit_stops_for_a_person() -> None:
    """Data of another shape is refused before anything runs, by field."""

    @dataclass
    class Other:
        count: list[int] = field(default_factory=list)

    async def main() -> str:
        store, seen = MemoryCheckpoints(), list[Any]()
        with suppress(SimulatedCrash):
            await shop(store, Plain, seen, 1).run(Step.FILL, run_id="r")
        await asyncio.sleep(16)
        changed = Workflow(Step, data=Other, checkpoints=store).exits(Step.END)

        async def never(ctx: Context[Any]) -> Literal[Step.CHECK, Step.END]:
            raise AssertionError

        changed.register(Step.FILL, never).register(Step.CHECK, never)
        with pytest.raises(Exception, match=r"run 'r' cannot be continued by Step.*count") as error:
            await changed.resume("r")
        return str(error.value)

    assert "migration" in run(main())


def test_a_field_over_the_limit_is_refused() -> None:
    """One field may come to 64 MiB of JSON; the error names the field and the limit."""

    async def main() -> None:
        flow = Workflow(Step, data=Big, checkpoints=MemoryCheckpoints()).exits(Step.END, Step.CHECK)

        @flow.task(Step.FILL)
        async def fill(ctx: Context[Big]) -> Literal[Step.END]:
            ctx.data.text = "x" * (64 * 1024 * 1024)
            return Step.END

        with pytest.raises(
            DataError, match=r"Big.text holds .* is the limit; keep it in a file"
        ) as error:
            await flow.run(Step.FILL, run_id="r")
        assert "failed" == (await flow.handle("r").summary()).status, error

    run(main())


@dataclass
class Big:
    text: str = ""


def test_the_data_of_an_unknown_run_is_an_error() -> None:
    """Nobody is given fresh data for a run that is not there."""

    async def main() -> None:
        with pytest.raises(LookupError, match="nobody"):
            await shop(MemoryCheckpoints(), Plain, [], 0).handle("nobody").data()

    run(main())


def test_a_handle_of_a_run_that_was_over_has_its_data() -> None:
    """`start_run` of a finished run gives a handle that says how it ended, and its data."""

    async def main() -> tuple[Any, ...]:
        store, seen = MemoryCheckpoints(), list[Any]()
        flow = shop(store, Plain, seen, 0)
        await flow.run(Step.FILL, run_id="r")
        handle = await flow.start_run(Step.FILL, run_id="r")
        return await handle.result(), (await handle.data()).count, handle.status

    assert (Step.END, 3, "finished") == run(main())


@dataclass
class Simple:
    text: str = ""
    number: int = 0
    flag: bool = False


def recorded(*changes: Simple) -> tuple[list[dict[str, bytes]], list[Any]]:
    """What is on record of a run whose visits leave its data like that, and what was heard of it."""
    heard: list[Any] = []
    states: Any = Enum("States", [f"S{n}" for n in range(len(changes))] + ["END"])
    members = list(states)

    def leaving(left: Simple, to: Any) -> Any:
        async def task(ctx: Context[Simple]) -> Any:
            for name in ("text", "number", "flag"):
                setattr(ctx.data, name, getattr(left, name))
            return to

        return task

    async def main() -> list[dict[str, bytes]]:
        store = MemoryCheckpoints()
        flow: Workflow[Any, Simple] = Workflow(
            states, data=Simple, start=members[0], checkpoints=store, observers=[heard.append]
        )
        for here, left, there in zip(members, changes, members[1:], strict=False):
            flow.register(here, leaving(left, there))
        await flow.exits(members[-1]).run(run_id="r")
        events = await store.load("r")
        return [{n: bytes(raw) for n, raw in (e.patch or {}).items()} for e in events[2:]]  # type: ignore[attr-defined]

    return run(main()), heard


def test_of_plain_fields_those_that_changed_are_kept() -> None:
    """What is equal, and of the same type, has not changed; however it came about."""
    same = "".join(["a", "b"])
    kept, _ = recorded(
        Simple("ab", 1), Simple(same, 1), Simple("ab", 1, flag=True), Simple("ä", 2**70, flag=True)
    )
    text, number = '"ä"'.encode(), str(2**70).encode()
    assert [
        {"text": b'"ab"', "number": b"1"},
        {},
        {"flag": b"true"},
        {"text": text, "number": number},
    ] == kept


def test_a_number_is_no_truth_value() -> None:
    """True is equal to 1, but it is written down as something else."""
    odd: Any = Simple("", True)
    with pytest.raises(DataError, match=r"Simple\.number"):
        recorded(odd)


def test_a_text_that_cannot_be_written_names_its_field() -> None:
    """Half a surrogate pair is found before anything is recorded."""
    with pytest.raises(DataError, match=r"Simple\.text holds"):
        recorded(Simple("half \ud800"))


def test_observers_see_json() -> None:
    """How fields travel is nobody's business: whoever looks at an event sees JSON."""
    _, heard = recorded(Simple("ab", 3, flag=True))
    (ended,) = [event for event in heard if isinstance(event, RunFinished)]
    raw = msgspec.Raw
    assert {"text": raw(b'"ab"'), "number": raw(b"3"), "flag": raw(b"true")} == ended.patch


def test_a_resumed_run_does_not_write_again_what_is_there() -> None:
    """What was read from the store counts as known, in whatever form it came."""

    async def main() -> list[Any]:
        store = MemoryCheckpoints()

        def flow(task: Any) -> Workflow[Step, Simple]:
            made = Workflow(Step, data=Simple, start=Step.FILL, checkpoints=store)

            async def fill(ctx: Context[Simple]) -> Literal[Step.CHECK]:
                ctx.data.text, ctx.data.number = "ä" * 3, 7
                return Step.CHECK

            return made.register(Step.FILL, fill).register(Step.CHECK, task).exits(Step.END)

        async def die(ctx: Context[Simple]) -> Literal[Step.END]:
            raise SimulatedCrash

        async def go_on(ctx: Context[Simple]) -> Literal[Step.END]:
            ctx.data.flag = True
            return Step.END

        with suppress(SimulatedCrash):
            await flow(die).run(run_id="r")
        await asyncio.sleep(60)
        await flow(go_on).resume("r")
        last: Any = (await store.load("r"))[-1]
        return list(last.patch)

    assert ["flag"] == run(main())
