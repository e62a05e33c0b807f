"""A `then` that is no state is found before the first run, whatever the task."""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Any

import pytest

from cano import Context, DefinitionError, Split, TimerTask, Workflow, poll


class Step(StrEnum):
    WAIT = auto()
    END = auto()


async def yes(ctx: Context[Any]) -> bool:
    return True


@pytest.mark.parametrize("then", ["end", "END", 3, None])
@pytest.mark.parametrize(
    "made",
    [
        lambda then: TimerTask(1, then=then),
        lambda then: Split([yes], then=then),
        lambda then: poll(yes, then=then),
    ],
    ids=["timer", "split", "poll"],
)
def test_a_then_that_is_no_state(made: Any, then: Any) -> None:
    """A text that looks like a state is none, and a number neither."""
    flow = Workflow(Step).exits(Step.END).register(Step.WAIT, made(then))
    with pytest.raises(DefinitionError) as caught:
        flow.check(Step.WAIT)
    said = f"WAIT leads to {then!r}, which is no member of Step; use its members"
    assert said == caught.value.problems[0]
