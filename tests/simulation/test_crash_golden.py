"""What a store holds after well-known runs, event by event.

These are the worked logs of the system that Cano follows, told in our events. What differs:

- Nothing is ever cleared: a log tells of its run until a retention policy removes it.
- A log begins with `RunStarted`, and an exit has no entry of its own but an end: `RunFinished`.
  Failures, cancellations, rollbacks and each undoing are events as well.
- A resumed visit is not entered again: `RunClaimed` says that somebody else goes on, and the
  events of the visit follow those of before.
- `TaskCompleted` names its successor, so completed undoable work is not repeated by a resume, and
  nothing stands twice.
- The branches of a split leave one event each, and the join another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    Done,
    MemoryCheckpoints,
    More,
    RouterTask,
    Split,
    SteppedTask,
    Workflow,
)
from cano.errors import CompensationFailedError, RunFailedError
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash

sys.path.insert(0, str(Path(__file__).parent))

from _crash import RUN, Step

Build = Callable[[Any], Any]


def log_of(build: Build, *crashes: int, retried: bool = False) -> list[str]:
    """The events of a run; one life after the other ends when it made so many writes."""

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        for crash in (*crashes, None):
            flow = build(FaultyStore(store, crash_after=crash))
            flow.exits(*set(Step).difference(flow.registered))
            with suppress(SimulatedCrash, ValueError, RunFailedError, CompensationFailedError):
                await flow.run(Step.A, run_id=RUN)
            for owner in await store.owners(flow._stored.lives.keeper.owner.host, 0.0):
                await store.expire(owner.id)
        if retried:
            await flow.retry(RUN)
        return [f"{type(event).__name__}({event.state})" for event in await store.load(RUN)]

    return run(main())


class Book(CompensatableTask[Step, str]):
    """Books in A and B; undoing B may fail."""

    def __init__(self, stubborn: bool = False) -> None:
        self.stubborn = stubborn

    async def run(self, ctx: Context[None]) -> tuple[Literal[Step.B, Step.C], str]:
        return (Step.B if ctx.state is Step.A else Step.C), ctx.state.name

    async def compensate(self, ctx: Context[None], output: str) -> None:
        if self.stubborn and output == "B":
            raise OSError("no answer")


async def to_b(ctx: Context[None]) -> Literal[Step.B]:
    return Step.B


async def end(ctx: Context[None]) -> Literal[Step.END]:
    return Step.END


def fails(times: int = 99) -> Any:
    left = [times]

    async def task(ctx: Context[None]) -> Literal[Step.END]:
        left[0] -= 1
        if left[0] >= 0:
            raise ValueError("no")
        return Step.END

    return task


def flow(store: Any) -> Workflow[Any, Any]:
    made: Any = Workflow(Step, checkpoints=store)
    return made  # type: ignore[no-any-return]


def chain(store: Any) -> Any:
    return flow(store).register(Step.A, to_b).register(Step.B, end)


def failing() -> Build:
    task = fails(1)
    return lambda store: flow(store).register(Step.A, to_b).register(Step.B, task)


def saga(stubborn: bool = False) -> Build:
    book, task = Book(stubborn), fails()

    def build(store: Any) -> Any:
        return flow(store).register(Step.A, book).register(Step.B, book).register(Step.C, task)

    return build


class Count(SteppedTask[Step, int]):
    async def step(self, ctx: Context[None], cursor: int | None) -> More[int] | Done[Step]:
        at = (cursor or 0) + 1
        return More(at) if at <= 3 else Done(Step.END)


def stepped(store: Any) -> Any:
    return flow(store).register(Step.A, Count())


class Route(RouterTask[Step]):
    async def route(self, ctx: Context[None]) -> Literal[Step.B]:
        return Step.B


def routed(store: Any) -> Any:
    return flow(store).register(Step.A, Route()).register(Step.B, end)


async def one(ctx: Context[None]) -> int:
    return 1


def split(store: Any) -> Any:
    return flow(store).register(Step.A, Split([one] * 5, then=Step.END))


BEGUN = "RunStarted(a) StateEntered(a)"
SAGA = f"{BEGUN} TaskCompleted(a) StateEntered(b) TaskCompleted(b) StateEntered(c)"
UNDONE = "RollbackStarted(c) TaskCompensated(b) TaskCompensated(a) RunFailed(c)"

GOLDEN: list[Any] = [
    ("A → B → END", f"{BEGUN} StateEntered(b) RunFinished(end)", chain, {}),
    ("B fails", f"{BEGUN} StateEntered(b) RunFailed(b)", failing(), {}),
    (
        "B fails, is tried again and succeeds",
        f"{BEGUN} StateEntered(b) RunFailed(b) RunReopened(b) RunFinished(end)",
        failing(),
        {"retried": True},
    ),
    ("A and B can be undone, C fails", f"{SAGA} {UNDONE}", saga(), {}),
    (
        "the same, and undoing B fails",
        f"{SAGA} RollbackStarted(c) CompensationFailed(b) TaskCompensated(a) RunFailed(c)",
        saga(stubborn=True),
        {},
    ),
    ("the same, with a crash inside C", f"{SAGA} RunClaimed(c) {UNDONE}", saga(), {"crash": [5]}),
    (
        "the same, with a crash when B was complete: it is not repeated",
        f"{BEGUN} TaskCompleted(a) StateEntered(b) TaskCompleted(b) RunClaimed(b) StateEntered(c) "
        f"{UNDONE}",
        saga(),
        {"crash": [4]},
    ),
    (
        "and another crash in that resume: B is undone once",
        f"{BEGUN} TaskCompleted(a) StateEntered(b) TaskCompleted(b) RunClaimed(b) RunClaimed(b) "
        f"StateEntered(c) {UNDONE}",
        saga(),
        {"crash": [4, 2]},
    ),
    (
        "a crash in the rollback: it goes on",
        f"{SAGA} RollbackStarted(c) TaskCompensated(b) RunClaimed(b) TaskCompensated(a) "
        "RunFailed(c)",
        saga(),
        {"crash": [7]},
    ),
    (
        "steps",
        f"{BEGUN} CursorSaved(a) CursorSaved(a) CursorSaved(a) RunFinished(end)",
        stepped,
        {},
    ),
    (
        "steps, with a crash after the second",
        f"{BEGUN} CursorSaved(a) CursorSaved(a) RunClaimed(a) CursorSaved(a) RunFinished(end)",
        stepped,
        {"crash": [3]},
    ),
    (
        "a router leaves no trace",
        "RunStarted(a) StateEntered(b) RunFinished(end)",
        routed,
        {},
    ),
    (
        "a split of five",
        f"{BEGUN} {'BranchFinished(a) ' * 5}SplitJoined(a) RunFinished(end)",
        split,
        {},
    ),
]


@pytest.mark.parametrize(("what", "log", "build", "how"), GOLDEN, ids=[one[0] for one in GOLDEN])
def test_golden(what: str, log: str, build: Build, how: dict[str, Any]) -> None:
    """The log of a well-known run is this one, event by event, and stays it."""
    actual = log_of(build, *how.get("crash", ()), retried=how.get("retried", False))

    assert log.upper().split() == " ".join(actual).upper().split()
