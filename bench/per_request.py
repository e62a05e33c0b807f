"""A workflow per request: built, checked and run, against a dict, a set and a loop."""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum
from typing import Any, Final, Literal

from bench.harness import Line, repeated
from bench.transitions import Task, by_hand
from cano import Context, Retry, Workflow

REQUESTS = 1_000


class Step(Enum):
    """What a small request goes through."""

    VALIDATE = "validate"
    CHARGE = "charge"
    REPLY = "reply"
    DONE = "done"


# A look-up in the class would be part of what is measured.
VALIDATE: Final = Step.VALIDATE
CHARGE: Final = Step.CHARGE
REPLY: Final = Step.REPLY
DONE: Final = Step.DONE


async def validate(ctx: Context[Any]) -> Literal[Step.CHARGE]:
    return CHARGE


async def charge(ctx: Context[Any]) -> Literal[Step.REPLY]:
    return REPLY


async def reply(ctx: Context[Any]) -> Literal[Step.DONE]:
    return DONE


def table() -> dict[Step, Task[Step]]:
    return {VALIDATE: validate, CHARGE: charge, REPLY: reply}


def by_hand_anew() -> Awaitable[Step]:
    """Everything made for one request."""
    return by_hand(table(), {DONE}, VALIDATE)(None)


def built() -> Workflow[Step, None]:
    return (
        Workflow(Step)
        .register(VALIDATE, validate)
        .register(CHARGE, charge)
        .register(REPLY, reply)
        .exits(DONE)
    )


def built_with_start() -> Workflow[Step, None]:
    """With a start known at definition, every state must be reachable too."""
    return (
        Workflow(Step, start=VALIDATE)
        .register(VALIDATE, validate)
        .register(CHARGE, charge)
        .register(REPLY, reply)
        .exits(DONE)
    )


def built_with_retry() -> Workflow[Step, None]:
    return (
        Workflow(Step)
        .register(VALIDATE, validate)
        .register(CHARGE, charge, Retry(attempts=3))
        .register(REPLY, reply)
        .exits(DONE)
    )


def built_of_closures() -> Workflow[Step, None]:
    """The functions too are made for the request, as a decorator inside a handler does."""
    flow = Workflow(Step).exits(DONE)

    @flow.task(VALIDATE)
    async def first(ctx: Context[Any]) -> Literal[Step.CHARGE]:
        return CHARGE

    @flow.task(CHARGE)
    async def second(ctx: Context[Any]) -> Literal[Step.REPLY]:
        return REPLY

    @flow.task(REPLY)
    async def third(ctx: Context[Any]) -> Literal[Step.DONE]:
        return DONE

    return flow


async def checked() -> None:
    flow = built()
    flow.check(VALIDATE)
    await flow.run(VALIDATE)


def lines() -> list[Line]:
    """Three states each time; `run` checks by itself, `check()` also returns the graph."""
    prebuilt = built()
    loop = by_hand(table(), {DONE}, VALIDATE)
    anew = repeated(by_hand_anew, REQUESTS)
    hand = repeated(lambda: loop(None), REQUESTS)

    async def in_background() -> None:
        await (await prebuilt.start_run(VALIDATE)).result()

    return [
        Line(
            "built, checked and run",
            repeated(lambda: built().run(VALIDATE), REQUESTS),
            anew, must=10, aim=5, unit="µs",
        ),
        Line("with start=", repeated(lambda: built_with_start().run(), REQUESTS), anew, unit="µs"),
        Line("with the graph of check()", repeated(checked, REQUESTS), anew, unit="µs"),
        Line(
            "with a Retry(attempts=3)",
            repeated(lambda: built_with_retry().run(VALIDATE), REQUESTS),
            anew, unit="µs",
        ),
        Line(
            "of functions made for it",
            repeated(lambda: built_of_closures().run(VALIDATE), REQUESTS // 10),
            anew, unit="µs",
        ),
        Line(
            "prebuilt, run",
            repeated(lambda: prebuilt.run(VALIDATE), REQUESTS),
            hand, must=4, aim=2.5, unit="µs",
        ),
        Line("prebuilt, start_run and result", repeated(in_background, REQUESTS), hand, unit="µs"),
    ]  # fmt: skip
