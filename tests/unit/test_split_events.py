"""Split: what observers are told, and that every branch they saw begin they see end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import pytest

from cano import (
    Branch,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Context,
    Event,
    Retry,
    Split,
    SplitJoined,
    Workflow,
    on,
)
from cano import join as joins
from cano.testing import run

Work = Callable[[Context[Any]], Awaitable[Any]]
CLOSING = (BranchFinished, BranchFailed, BranchCancelled)


class Step(Enum):
    SPLIT = "split"
    DONE = "done"


def after(seconds: float | None, value: Any = None, stubborn: int = 0) -> Work:
    """A branch that returns *value*, or raises it, after a while; it may swallow cancellations."""

    async def work(ctx: Context[Any]) -> Any:
        if seconds is not None:
            for patience in range(stubborn, -1, -1):
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    if not patience:
                        raise
                else:
                    break
        if isinstance(value, BaseException):
            raise value
        return value

    return work


def told(split: Split[Step], *policies: Any, cancel_at: float | None = None) -> list[Event]:
    """Every event of a run of *split*, however it ends."""
    events: list[Event] = []

    async def main() -> None:
        built = Workflow(Step, observers=[events.append]).register(Step.SPLIT, split, *policies)
        task = asyncio.ensure_future(built.exits(Step.DONE).run(Step.SPLIT))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait((task,), timeout=cancel_at)
        task.cancel()
        await asyncio.wait((task,))

    run(main())
    return events


def story(events: list[Event]) -> list[tuple[str, Any]]:
    """What was said of branches and joins, in order."""
    kinds = (BranchStarted, *CLOSING, SplitJoined)
    return [(type(e).__name__, getattr(e, "index", None)) for e in events if isinstance(e, kinds)]


def balanced(events: list[Event]) -> bool:
    """Whether each branch that began ended exactly once, later, under the same name."""
    open_branches: dict[Any, str] = {}
    for event in events:
        if isinstance(event, BranchStarted):
            assert event.index not in open_branches
            open_branches[event.index] = event.branch
        elif isinstance(event, CLOSING) and open_branches.pop(event.index, None) != event.branch:
            return False
    return not open_branches


def test_branches_are_told_as_they_happen() -> None:
    """Starts by index, ends in the order of time, the losers' and then the join's after that."""
    branches = [after(3), after(2, "a"), after(1, OSError("no"))]
    events = told(Split(branches, then=Step.DONE, join=joins.Any()))
    assert [
        ("BranchStarted", 0),
        ("BranchStarted", 1),
        ("BranchStarted", 2),
        ("BranchFailed", 2),
        ("BranchFinished", 1),
        ("BranchCancelled", 0),
        ("SplitJoined", None),
    ] == story(events)


def test_events_of_a_branch_carry_its_name_state_and_attempt() -> None:
    """Whose event it is stands in the event: state, branch, index, attempt, error."""
    branch = Branch(after(1, OSError("no")), name="eu")
    events = told(Split([branch], then=Step.DONE), Retry.fixed(2, 1))
    (failed,) = (event for event in events if isinstance(event, BranchFailed))
    assert ("SPLIT", "eu", 0, 2) == (failed.state, failed.branch, failed.index, failed.attempt)
    assert "OSError('no')" == failed.error


ENDS: dict[str, tuple[list[Work], dict[str, Any], float | None]] = {
    "all": ([after(1), after(2), after(None)], {}, None),
    "enough": ([after(1), after(2), after(3)], {"join": joins.Any()}, None),
    "enough, waiting": ([after(1), after(2), after(3)],
                        {"join": joins.Any(), "losers": "wait"}, None),
    "impossible": ([after(1, OSError()), after(2)], {}, None),
    "deadline": ([after(1), after(9), after(9)], {"timeout": 5, "bulkhead": 2}, None),
    "deadline, waiting": ([after(1), after(9)],
                          {"timeout": 5, "join": joins.Any(), "losers": "wait"}, None),
    "none started": ([after(None, OSError()), after(1)], {}, None),
    "stubborn": ([after(1), after(9, "a", 3)], {"join": joins.Any()}, None),
    "late value": ([after(1), after(0.01, "a", 3)], {"join": joins.Any()}, None),
    "stray": ([after(None, asyncio.CancelledError()), after(1)], {}, None),
    "cancelled": ([after(9), after(1), after(9, None, 2), after(9)], {"bulkhead": 3}, 5),
    "cancelled at once": ([after(9), after(9)], {}, 0),
    "cancelled late": ([after(4.99), after(9, None, 2)], {"join": joins.Any()}, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_every_branch_that_begins_ends_once(name: str) -> None:
    """However a split ends, each BranchStarted is followed by exactly one closing event."""
    branches, settings, cancel_at = ENDS[name]
    events = told(Split(branches, then=Step.DONE, **settings), cancel_at=cancel_at)
    assert balanced(events)
    joined = [event for event in events if isinstance(event, SplitJoined)]
    assert ("cancelled" not in name) == bool(joined)


def test_what_a_fatal_branch_said_before_it_left() -> None:
    """Branches ended by a KeyboardInterrupt or the like of another have closing events too."""
    events: list[Event] = []
    split = Split([after(9), after(1, KeyboardInterrupt())], then=Step.DONE)
    built = Workflow(Step, observers=[events.append]).register(Step.SPLIT, split)
    with pytest.raises(KeyboardInterrupt):
        run(built.exits(Step.DONE).run(Step.SPLIT))
    assert [("BranchStarted", 0), ("BranchStarted", 1), ("BranchFailed", 1), ("BranchCancelled", 0)
            ] == story(events)  # fmt: skip


@pytest.mark.parametrize("kind", CLOSING)
def test_each_kind_can_be_heard_alone(kind: type[Event]) -> None:
    """Who subscribes to one kind of branch event is told of it without asking for the start."""
    heard: list[Event] = []
    branches = [after(1, OSError()), after(2), after(3)]
    split = Split(branches, then=Step.DONE, join=joins.Any())
    built = Workflow(Step, observers=[on(kind)(heard.append)]).register(Step.SPLIT, split)
    run(built.exits(Step.DONE).run(Step.SPLIT))
    assert [kind] == [type(event) for event in heard]
