"""`Retry` and the run data: every attempt starts from what the first one found."""

from __future__ import annotations

import copy
import dataclasses
from enum import StrEnum, auto
from typing import Any

import msgspec
import pydantic
import pytest

from cano import Branch, Context, Retry, Split, Workflow
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


@dataclasses.dataclass
class Plain:
    count: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    count: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct):
    count: int = 0
    names: list[str] = []


class FrozenStruct(msgspec.Struct, frozen=True):
    count: int = 0
    names: list[str] = []


class Model(pydantic.BaseModel):
    count: int = 0
    names: list[str] = []


class FrozenModel(pydantic.BaseModel, frozen=True):
    count: int = 0
    names: list[str] = []


MUTABLE = [Plain, Struct, Model]
FROZEN = [Frozen, FrozenStruct, FrozenModel]


def counted(data: Any) -> Any:
    """*data* with one more on the count, and one more name: changed, or a changed copy."""
    if isinstance(data, FROZEN[0]):
        data = dataclasses.replace(data, count=data.count + 1)
    elif isinstance(data, FrozenStruct):
        data = msgspec.structs.replace(data, count=data.count + 1)
    elif isinstance(data, FrozenModel):
        data = data.model_copy(update={"count": data.count + 1})
    else:
        data.count += 1
    data.names.append("x")
    return data


def attempted(kind: type[Any], given: Any) -> tuple[list[Any], Any]:
    """What three attempts found in the data, which each of them changed, and the data at last."""
    found: list[Any] = []

    async def work(ctx: Context[Any]) -> Step:
        found.append(copy.deepcopy(ctx.data))
        ctx.data = counted(ctx.data)
        if ctx.attempt < 3:
            raise ValueError
        return Step.DONE

    async def main() -> Any:
        workflow = Workflow(Step, data=kind).register(Step.WORK, work, Retry(3)).exits(Step.DONE)
        handle = await workflow.start_run(Step.WORK, data=given)
        await handle.result()
        return await handle.data()

    return found, run(main())


@pytest.mark.parametrize("kind", [*MUTABLE, *FROZEN])
def test_every_attempt_finds_what_the_first_one_found(kind: type[Any]) -> None:
    """What a failed attempt did to the data, deep down too, is undone before the next one."""
    given = kind(count=5, names=["a"])
    found, last = attempted(kind, given)
    assert [kind(count=5, names=["a"])] * 3 == found
    assert kind(count=6, names=["a", "x"]) == last


@pytest.mark.parametrize("kind", MUTABLE)
def test_the_data_stays_the_object_that_was_given(kind: type[Any]) -> None:
    """Where data can be changed, whoever handed it over sees the result in it."""
    given = kind(count=5)
    _, last = attempted(kind, given)
    assert given is last
    assert 6 == given.count


def test_a_failed_run_leaves_what_the_last_attempt_left() -> None:
    """After the last attempt nothing is undone: the data shows what went wrong."""

    async def work(ctx: Context[Plain]) -> Step:
        ctx.data.count += ctx.attempt
        raise ValueError

    given = Plain()
    workflow = Workflow(Step, data=Plain).register(Step.WORK, work, Retry(3)).exits(Step.DONE)
    with pytest.raises(ValueError):
        run(workflow.run(Step.WORK, data=given))
    assert 3 == given.count


def test_attempts_without_data_have_nothing_to_restore() -> None:
    """A workflow without run data retries as well, and its data stays None."""
    found: list[object] = []

    async def work(ctx: Context[None]) -> Step:
        found.append(ctx.data)
        if ctx.attempt < 2:
            raise ValueError
        return Step.DONE

    run(Workflow(Step).register(Step.WORK, work, Retry(2)).exits(Step.DONE).run(Step.WORK))
    assert [None, None] == found


def test_a_branch_that_is_tried_again_counts_its_own_attempts() -> None:
    """In a split every branch has its own attempts, and numbers them by itself."""
    seen: list[tuple[str, int]] = []

    async def flaky(ctx: Context) -> None:
        assert ctx.branch is not None
        seen.append((ctx.branch.name, ctx.attempt))
        if ctx.attempt < int(ctx.branch.name):
            raise ValueError

    split = Split([Branch(flaky, Retry(3), name=name) for name in "123"], then=Step.DONE)
    run(Workflow(Step).register(Step.WORK, split).exits(Step.DONE).run(Step.WORK))
    expected = [("1", 1), ("2", 1), ("2", 2), ("3", 1), ("3", 2), ("3", 3)]
    assert expected == sorted(seen)
