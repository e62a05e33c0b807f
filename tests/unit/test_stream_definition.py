"""What is wrong with a stream is found before its first run, and what is right is drawn."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    CloseReason,
    Context,
    DefinitionError,
    Done,
    MemoryCheckpoints,
    Retry,
    StreamTask,
    Workflow,
)

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


def problems(task: Any, *policies: Any, store: Any = None) -> str:
    """What `check` says of it."""
    with pytest.raises(DefinitionError) as caught:
        flow(task, *policies, store=store).check()
    return str(caught.value)


def test_the_verbs_that_are_needed_are_named() -> None:
    """open, process and close have to be written; each is told with how."""

    class Empty(StreamTask[Step, int, int, int]):
        pass

    said = problems(Empty())
    assert "Empty has no open(); write `async def open(self, ctx, cursor)`" in said
    assert "Empty has no process(); write `async def process(self, ctx, item)`" in said
    assert "Empty has no close(); write `async def close(self, ctx, reason)`" in said
    assert "plain function" not in said, "what is ours is not blamed on the user"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("window", 5, "Wrong.window is 5; say Window(count=...)"),
        ("errors", -1, "Wrong.errors=-1 is no number of items; 0 or more, or None"),
        ("errors", 1.5, "Wrong.errors=1.5"),
        ("errors", True, "Wrong.errors=True"),
        ("errors", inf, "Wrong.errors=inf"),
        ("errors", nan, "Wrong.errors=nan"),
        ("drain_timeout", 0, "Wrong.drain_timeout=0; pass finite seconds > 0"),
        ("drain_timeout", -1.0, "Wrong.drain_timeout=-1.0"),
        ("drain_timeout", inf, "Wrong.drain_timeout=inf"),
        ("drain_timeout", nan, "Wrong.drain_timeout=nan"),
        ("drain_timeout", "5", "Wrong.drain_timeout='5'"),
        ("drain_timeout", None, "Wrong.drain_timeout=None"),
        ("flush_policies", (Retry,), "Retry is a class; pass an instance"),
    ],
)
def test_settings_are_checked(name: str, value: Any, said: str) -> None:
    """Zero, negative, infinite, NaN and what is no number are refused with the remedy."""
    assert said in problems(type("Wrong", (Numbers,), {name: value})())


def test_verbs_that_are_not_what_they_have_to_be() -> None:
    """A verb that is plain where it has to be async, or the other way, is found."""

    class Wrong(Numbers):
        def open(self, ctx: Context[Any], cursor: int | None) -> Any:  # type: ignore[override]
            return None

        def process(self, ctx: Context[Any], item: int) -> int:  # type: ignore[override]
            return item

        async def position(self, item: int) -> int:  # type: ignore[override]
            return item

        def rejected(self, ctx: Context[Any], item: int, error: Exception) -> None:  # type: ignore[override]
            pass

    said = problems(Wrong())
    assert "Wrong.position is async; write `def position(self, item)`" in said
    assert "Wrong.rejected is not async; write `async def rejected" in said

    class Plain(Numbers):
        open = Wrong.open
        process = Wrong.process  # type: ignore[assignment]

    said = problems(Plain())
    assert "Wrong.open is a plain function" in said
    assert "Wrong.process is a plain function" in said


def test_what_close_and_flush_return_has_to_be_states() -> None:
    """An annotation that is no state is found, and drawn edges are those of both."""

    class Lost(Numbers):
        async def close(self, ctx: Context[Any], reason: CloseReason) -> int:  # type: ignore[override]
            return 5

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Done[int] | None:  # type: ignore[override,type-var]
            return None

    class Bare(Numbers):
        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Step | None:  # type: ignore[override]
            return None

    said = problems(Lost())
    assert "Lost.close is annotated to return int, which is no state" in said
    assert "Lost.flush says Done[int], which is no state" in said
    assert "Bare.flush is annotated to return Step; write -> None, or -> Done" in problems(Bare())


def test_the_graph_knows_both_ways_out() -> None:
    """The states of `close` and those of `Done` are edges."""
    graph = flow(Numbers()).check()
    assert {(Step.READ, Step.END), (Step.READ, Step.LEFT)} == {
        (edge.source, edge.target) for edge in graph.edges
    }


def test_a_close_that_may_lead_anywhere_is_no_error() -> None:
    """A bare enum, or nothing, is anywhere."""

    class Anywhere(Numbers):
        async def close(self, ctx: Context[Any], reason: CloseReason) -> Step:  # type: ignore[override]
            return Step.END

    flow(Anywhere()).check()


def test_a_resource_that_is_missing_is_found() -> None:
    """Parameters of every verb are looked up before the first run."""

    class Wanting(Numbers):
        async def open(
            self, ctx: Context[Any], cursor: int | None, broker: str
        ) -> AsyncIterator[int]:
            yield 1

        async def close(
            self, ctx: Context[Any], reason: CloseReason, database: str
        ) -> Literal[Step.END]:
            return Step.END

    said = problems(Wanting())
    assert "Wanting.open wants a resource named 'broker'" in said
    assert "Wanting.close wants a resource named 'database'" in said


def test_a_cursor_that_cannot_be_kept_is_found() -> None:
    """With a store, the type of the cursor has to be one that can be written down."""

    class Odd(Numbers):
        def position(self, item: int) -> Numbers:  # type: ignore[override]
            return self

    said = problems(Odd(), store=MemoryCheckpoints())
    assert "the cursor of Odd" in said


def test_verbs_take_what_they_are_given() -> None:
    """A verb without room for its item is told how to be written."""

    class Short(Numbers):
        async def close(self, ctx: Context[Any]) -> Literal[Step.END]:  # type: ignore[override]
            return Step.END

    assert "Short.close does not take the context and the item" in problems(Short())


def test_class_settings_may_be_set_per_object() -> None:
    """One class may serve streams of different windows."""
    task = Numbers()
    task.errors = None
    task.drain_timeout = 1.0
    Workflow(Step).exits(Step.END, Step.LEFT, Step.AGAIN).register(Step.READ, task).check()
