"""What observers hear of the resources of a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    MemoryCheckpoints,
    ResourceFailed,
    ResourceReady,
    ResourceReleased,
    Resources,
    Workflow,
    on,
    run_many,
)
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    END = auto()


class Db:
    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    async def setup(self) -> None:
        await asyncio.sleep(2)
        if self.fails == "setup":
            raise OSError("no route")

    async def teardown(self) -> None:
        if self.fails == "teardown":
            raise OSError("gone")


@asynccontextmanager
async def pool() -> AsyncIterator[int]:
    yield 7


async def work(ctx: Context[Any]) -> Literal[Step.END]:
    return Step.END


SEEN: list[str] = []


@on(ResourceReady, ResourceFailed, ResourceReleased)
def note(event: Event) -> None:
    more = getattr(event, "error", "") or getattr(event, "seconds", "")
    SEEN.append(f"{event.workflow} {type(event).__name__} {event.name} {more}".strip())  # type: ignore[attr-defined]
    assert event.time > 1e9


@pytest.fixture(autouse=True)
def _fresh() -> None:
    SEEN.clear()


def flow(db: Db, **settings: Any) -> Workflow[Step, None]:
    resources = Resources(db=db, pool=pool())
    made = Workflow(Step, start=Step.WORK, resources=resources, observers=[note], **settings)
    return made.register(Step.WORK, work).exits(Step.END)


ALL = [
    "Step ResourceReady db 2.0",
    "Step ResourceReady pool 0.0",
    "Step ResourceReleased pool",
    "Step ResourceReleased db",
]


@pytest.mark.parametrize("store", [None, MemoryCheckpoints()])
def test_a_run(store: Any) -> None:
    """Each is told of when it is up, with the time it took, and when it was taken down."""
    run(flow(Db(), checkpoints=store).run())
    assert ALL == SEEN


def test_a_scope_tells_once() -> None:
    """However many runs share them meanwhile."""

    async def main() -> None:
        async with flow(Db()) as made:
            await made.run()
            await made.run()

    run(main())
    assert ALL == SEEN
    SEEN.clear()
    run(run_many(flow(Db()), [None, None]))
    assert ALL == SEEN


def test_what_fails() -> None:
    """A setup that fails is told of; a teardown too, and the others follow all the same."""
    with pytest.raises(OSError, match="no route"):
        run(flow(Db("setup")).run())
    assert ["Step ResourceFailed db OSError('no route')"] == SEEN
    SEEN.clear()
    run(flow(Db("teardown")).run())
    assert [*ALL[:3], "Step ResourceFailed db OSError('gone')"] == SEEN


def test_who_raises_is_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """An observer that raises changes nothing."""

    @on(ResourceReady)
    def broken(event: Event) -> None:
        raise KeyError("broken")

    made = Workflow(
        Step, start=Step.WORK, resources=Resources(db=Db(), pool=pool()), observers=[broken]
    )
    made.register(Step.WORK, work).exits(Step.END)
    assert Step.END is run(made.run())
    assert 1 == sum("is told no more" in record.message for record in caplog.records)
