"""What a resumed run finds around it: its path, the notes on its errors, its resources."""

from contextlib import suppress
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    CheckpointStore,
    Context,
    MemoryCheckpoints,
    Resources,
    RouterTask,
    RunFailedError,
    RunNotFoundError,
    Workflow,
)
from cano.testing import FaultyStore, SimulatedCrash, run


class Step(Enum):
    A = 1
    ROUTE = 2
    B = 3
    END = 4


class Lamp:
    """A resource that tells when it is up."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def setup(self) -> None:
        self.log.append("up")

    async def teardown(self) -> None:
        self.log.append("down")


class Onward(RouterTask[Step]):
    async def route(self, ctx: Context[Any]) -> Literal[Step.B]:
        return Step.B


def workflow(store: CheckpointStore, paths: list[list[str]], lamp: Lamp) -> Workflow[Step, None]:
    flow = Workflow(Step, start=Step.A, checkpoints=store, resources=Resources(lamp=lamp))

    @flow.task(Step.A)
    async def a(ctx: Context[Any]) -> Literal[Step.ROUTE]:
        return Step.ROUTE

    @flow.task(Step.B)
    async def b(ctx: Context[Any]) -> Literal[Step.END]:
        paths.append([state.name for state in ctx.path])
        raise ValueError("no")

    return flow.register(Step.ROUTE, Onward()).exits(Step.END)


def test_the_path_goes_on_across_a_crash() -> None:
    """A resumed run knows where it has been, each visit once; routers leave no trace in it."""
    store, paths = MemoryCheckpoints(), list[list[str]]()
    with suppress(SimulatedCrash):  # in B: its failure is the third write
        run(workflow(FaultyStore(store, crash_before=3), paths, Lamp()).run(run_id="r"))
    with pytest.raises(ValueError, match="no") as error:
        run(workflow(store, paths, Lamp()).run(run_id="r", wait=True))

    assert [["A", "ROUTE", "B"], ["A", "B"]] == paths
    assert ["cano: run 'r' of Step: A → B"] == error.value.__notes__


def test_resources_are_up_and_down_again_around_a_resume() -> None:
    """Whatever becomes of a resume, resources that were set up for it are torn down."""
    store = MemoryCheckpoints()
    with pytest.raises(ValueError, match="no"):
        run(workflow(store, [], Lamp()).run(run_id="r"))
    lamp, gone = Lamp(), Lamp()
    with pytest.raises(RunFailedError):
        run(workflow(store, [], lamp).resume("r"))
    with pytest.raises(RunNotFoundError):
        run(workflow(store, [], gone).resume("unknown"))

    assert ["up", "down"] == lamp.log
    assert [] == gone.log
