"""What is wrong with a poll is found before the first run, all at once; and its short form."""

from __future__ import annotations

from enum import StrEnum, auto
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import (
    Context,
    DefinitionError,
    Pending,
    PollExhaustedError,
    PollTask,
    Ready,
    Retry,
    RoutingError,
    Workflow,
    poll,
)
from cano.testing import run


class Step(StrEnum):
    WAIT = auto()
    END = auto()


class Patient(PollTask[Step]):
    async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
        return Ready(Step.END)


async def yes(ctx: Context[Any]) -> bool:
    return True


async def no(ctx: Context[Any]) -> bool:
    return False


def polling(task: Any, *policies: Any, **more: Any) -> Workflow[Step, None]:
    return Workflow(Step, **more).exits(Step.END).register(Step.WAIT, task, *policies)


def problems(task: Any, **more: Any) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        polling(task, **more).check(Step.WAIT)
    return caught.value.problems


SETTINGS = [
    *(("delay", wrong, "a finite number, 0 or more") for wrong in (-1, inf, nan, "1", None, True)),
    *(("factor", wrong, "a finite number, 0 or more") for wrong in (-1, inf, nan, "2")),
    *(("max_delay", wrong, "a finite number, 0 or more") for wrong in (-1, inf, nan, None)),
    *(("jitter", wrong, "a share of the delay, from 0 to 1") for wrong in (-0.1, 1.1, nan, "x")),
    *(("limit", wrong, "a whole number of polls, 1 or more") for wrong in (0, -1, 1.5, inf, nan)),
    *(("deadline", wrong, "finite seconds > 0, or None") for wrong in (0, -1, inf, nan, "1 h")),
    *(("errors", wrong, "a whole number, 0 to tolerate none") for wrong in (-1, 0.5, inf, nan)),
    *(
        ("on", wrong, "types of exceptions, or a function of one")
        for wrong in (None, int, (OSError, "x"), "OSError", BaseException)
    ),
    ("random", 0.5, "a function that returns a number in [0, 1)"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), SETTINGS)
def test_a_setting_that_makes_no_sense(name: str, wrong: Any, said: str) -> None:
    """Zero, negative, infinite and NaN settings, and those of a wrong type, in both forms."""
    task = Patient()
    setattr(task, name, wrong)
    settings: Any = {name: wrong}

    expected = f"cannot poll with {name}={wrong!r}: {said}"
    assert problems(task)[0].startswith(f"WAIT: Patient {expected}")
    assert problems(poll(yes, then=Step.END, **settings))[0].startswith(f"WAIT: yes {expected}")


def test_a_function_that_became_a_method() -> None:
    """A function put into a class takes the task for its argument, unless it is static."""

    def busy(error: Exception) -> bool:
        return True

    class Picky(Patient):
        on = busy

    class Right(Patient):
        on = staticmethod(busy)

    (said,) = problems(Picky())
    assert "cannot poll with on=busy, which takes no self: staticmethod(busy)" in said
    polling(Right()).check(Step.WAIT)


def test_all_at_once() -> None:
    """Every problem of a task is told, not only the first."""

    class Hopeless(PollTask[Step]):
        delay = -1.0
        limit = 0

    missing, settings = problems(Hopeless())
    assert "WAIT: Hopeless has no poll(); write `async def poll(self, ctx)`" == missing
    assert (
        "WAIT: Hopeless cannot poll with delay=-1.0: a finite number, 0 or more, limit=0: a whole "
        "number of polls, 1 or more, or None" == settings
    )


def test_a_deadline_beyond_the_run() -> None:
    """What could never come to bear is an error, as it is for a `Timeout`."""
    task = Patient()
    task.deadline = 60
    assert (
        "WAIT: Patient polls for deadline=60 s, which outlasts the 10 s a whole run has; shorten "
        "it or raise timeout=",
    ) == problems(task, timeout=10.0)
    assert Step.END is run(polling(task, timeout=60.0).run(Step.WAIT))


def annotated(hint: Any) -> PollTask[Step]:
    class Task(Patient):
        async def poll(self, ctx: Context[Any]) -> Any:
            return Ready(Step.END)

    Task.poll.__annotations__["return"] = hint
    return Task()


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (Ready[Any] | None, "Task.poll is annotated to return NoneType"),
        (bool, "Task.poll is annotated to return bool"),
        (Literal[Step.END], "Task.poll is annotated to return Literal"),
        (Step, "Task.poll is annotated to return Step"),
        (Ready[int] | Pending, "Task.poll says Ready[int], which is no state"),  # type: ignore[type-var]
        (Pending, "Task.poll is annotated never to be ready"),
    ],
)
def test_an_annotation_that_cannot_be_right(hint: Any, said: str) -> None:
    """An answer that is none is found in the annotation, with what to write instead."""
    assert said in problems(annotated(hint))[0]


@pytest.mark.parametrize("hint", [Any, Ready[Step] | Pending, Ready[Literal[Step.END]], Ready[Any]])
def test_an_annotation_that_may_be_right(hint: Any) -> None:
    """What says less than it could is no error."""
    polling(annotated(hint)).check(Step.WAIT)


@pytest.mark.parametrize("seconds", [nan, inf, -inf, "5", [5]])
def test_a_wait_that_is_none(seconds: Any) -> None:
    """`Pending` takes finite seconds, and says so where it is made."""
    with pytest.raises(DefinitionError, match="is no time to wait; pass finite seconds"):
        Pending(seconds)


def test_the_graph_knows_where_it_leads() -> None:
    """`Ready[Literal[...]]` draws the edge, and so does `then`."""
    for task, label in ((Patient(), "Patient"), (poll(yes, then=Step.END), "yes")):
        graph = polling(task).check(Step.WAIT)
        assert [(Step.WAIT, Step.END)] == [(edge.source, edge.target) for edge in graph.edges]
        assert {"WAIT": label} == graph.labels


# A function


def test_a_function_says_whether_it_is_ready() -> None:
    """True leads on, False waits as the settings say, a Pending as it says itself."""
    answers: list[bool | Pending] = [False, Pending(10), False, True]
    asked: list[float] = []

    async def arrived(ctx: Context[Any]) -> bool | Pending:
        asked.append(ctx.now())
        return answers.pop(0)

    flow = polling(poll(arrived, then=Step.END, delay=2.0, factor=3.0))
    assert Step.END is run(flow.run(Step.WAIT))
    assert [0, 2, 12, 30] == pytest.approx([when - asked[0] for when in asked], abs=1e-4)


def test_settings_of_a_function() -> None:
    """The short form has the settings of the long one."""
    with pytest.raises(PollExhaustedError, match="no was not ready after 3 polls in 2 s"):
        run(polling(poll(no, then=Step.END, limit=3)).run(Step.WAIT))


@pytest.mark.parametrize("answer", [None, 0, 1, "ready", Step.END])
def test_a_function_that_says_neither(answer: Any) -> None:
    """A value is not taken for true or false: a found 0 would never be ready."""

    async def vague(ctx: Context[Any]) -> Any:
        return answer

    with pytest.raises(RoutingError, match=r"vague returned .*; return True, False or Pending\(\)"):
        run(polling(poll(vague, then=Step.END)).run(Step.WAIT))


def test_a_function_that_is_wrong() -> None:
    """Annotations, missing resources and plain functions are found as everywhere."""

    async def found(ctx: Context[Any]) -> str | None:
        return None

    async def wants(ctx: Context[Any], carrier: str) -> bool:
        return True

    def plain(ctx: Context[Any]) -> bool:
        return True

    asked: Any = found
    assert 2 == len(problems(poll(asked, then=Step.END)))
    assert (
        "found is annotated to return str; write -> bool" in problems(poll(asked, then=Step.END))[0]
    )
    assert "wants a resource named 'carrier'" in problems(poll(wants, then=Step.END))[0]
    asked = plain
    assert "make it `async def`" in problems(poll(asked, then=Step.END))[0]


def test_policies_go_around_the_function() -> None:
    """A `Retry` repeats one poll of a function too."""
    attempts: list[int] = []

    async def hiccups(ctx: Context[Any]) -> bool:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise OSError
        return len(attempts) > 3

    run(polling(poll(hiccups, then=Step.END), Retry.fixed(2, 1)).run(Step.WAIT))
    assert [1, 2, 1, 2] == attempts
