"""What one transition costs, against the loop one would write by hand.

By hand is `while state not in exits: state = await table[state](ctx)` over a plain `Enum`. Both
sides await the very same task functions, so that what differs is the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, TypeVar

from bench.harness import Batch, Line, repeated, timed
from cano import (
    Context,
    Event,
    Observer,
    Policy,
    Resources,
    Retry,
    RunFailed,
    StateEntered,
    TaskFailed,
    Timeout,
    Workflow,
    on,
)

S = TypeVar("S", bound=Enum)
Task: TypeAlias = Callable[[Any], Awaitable[S]]

TRANSITIONS = 20_000


class Loop(Enum):
    """Two states that hand over to each other until a counter has run out."""

    PING = "ping"
    PONG = "pong"
    DONE = "done"


Line10 = Enum("Line10", [f"S{i}" for i in range(10)] + ["DONE"])  # type: ignore[misc]


@dataclass
class Notes:
    """Run data that no task touches."""

    text: str = ""


class Counter:
    """How many rounds are left."""

    __slots__ = ("left",)
    left: int


COUNTER = Counter()
# A look-up in the class would be part of what is measured.
PING: Final = Loop.PING
PONG: Final = Loop.PONG
DONE: Final = Loop.DONE


async def ping(ctx: Context[Any]) -> Literal[Loop.PONG]:
    return PONG


async def pong(ctx: Context[Any]) -> Literal[Loop.PING, Loop.DONE]:
    COUNTER.left -= 1
    return PING if COUNTER.left else DONE


async def ping_with_notes(ctx: Context[Any], notes: Notes) -> Literal[Loop.PONG]:
    return PONG


TABLE: Mapping[Loop, Task[Loop]] = {Loop.PING: ping, Loop.PONG: pong}


def by_hand(table: Mapping[S, Task[S]], exits: Collection[S], start: S) -> Task[S]:
    """The reference, R."""

    async def loop(ctx: Any) -> S:
        state = start
        while state not in exits:
            state = await table[state](ctx)
        return state

    return loop


def history() -> Observer:
    """An observer that keeps where the run has been lately."""
    kept: deque[Event] = deque(maxlen=64)
    return on(StateEntered)(kept.append)


@on(RunFailed)
def alarm(event: RunFailed) -> None:
    """An observer of what does not happen here."""


@on(TaskFailed)
def task_alarm(event: TaskFailed) -> None:
    """The same, of something that concerns every visit."""


def everything(event: Event) -> None:
    """An observer that is told of all there is, and keeps nothing."""


def flow(
    *policies: Policy,
    observers: Sequence[Observer] = (),
    otherwise: Loop | None = None,
    first: Callable[..., Awaitable[Loop]] = ping,
    **settings: Any,
) -> Batch:
    """A batch of our engine around the loop of two states."""
    workflow = Workflow(Loop, observers=observers, **settings).exits(Loop.DONE)
    workflow.register(Loop.PING, first, *policies, otherwise=otherwise)
    workflow.register(Loop.PONG, pong, *policies, otherwise=otherwise)

    async def work() -> None:
        COUNTER.left = TRANSITIONS // 2
        await workflow.run(Loop.PING)

    return timed(work, TRANSITIONS)


def loop_by_hand() -> Batch:
    """R, of the loop of two states."""
    loop = by_hand(TABLE, {Loop.DONE}, Loop.PING)

    async def work() -> None:
        COUNTER.left = TRANSITIONS // 2
        await loop(None)

    return timed(work, TRANSITIONS)


def linear() -> Line:
    """Ten states in a row: here the set-up of the run is shared by ten transitions only."""
    states: Any = Line10
    members = list(states)
    table = {here: _leading_to(there) for here, there in pairwise(members)}
    workflow = Workflow(states).exits(states.DONE)
    for state, task in table.items():
        workflow.register(state, task)
    loop = by_hand(table, {states.DONE}, members[0])
    runs = TRANSITIONS // 10

    def per_transition(batch: Batch) -> Batch:
        return lambda: batch() / 10

    return Line(
        "10 states in a row, run set up anew",
        per_transition(repeated(lambda: workflow.run(members[0]), runs)),
        per_transition(repeated(lambda: loop(None), runs)),
    )


def _leading_to(there: Enum) -> Task[Enum]:
    async def go(ctx: Context[Any]) -> Enum:
        return there

    return go


def lines() -> list[Line]:
    """What is on costs a multiple of R; what is off must not be measurable."""
    hand, bare = loop_by_hand(), flow()
    retry, timeout = Retry(attempts=3), Timeout(30)
    resources = Resources(notes=Notes())

    def off(name: str, batch: Batch) -> Line:
        return Line(f"off: {name}", batch, bare, must=25, by="difference")

    return [
        Line("nothing attached", bare, hand, must=1.1, aim=0.9),
        linear(),
        Line("Retry(attempts=3)", flow(retry), hand),
        Line("Timeout(30)", flow(timeout), hand),
        Line("history kept by an observer", flow(observers=[history()]), hand),
        Line(
            "all four: attempts, timeout, observer, history",
            flow(retry, timeout, observers=[history()]),
            hand,
            must=3,
            aim=2,
        ),
        Line("an observer of everything", flow(observers=[everything]), hand),
        Line("an observer of TaskFailed", flow(observers=[task_alarm]), hand),
        Line("timeout=30 for the run", flow(timeout=30.0), hand),
        Line("strict=True", flow(strict=True), hand),
        Line("otherwise=", flow(otherwise=Loop.DONE), hand),
        Line("a resource asked for", flow(first=ping_with_notes, resources=resources), hand),
        off("an observer of RunFailed", flow(observers=[alarm])),
        off("resources nobody asks for", flow(resources=resources)),
        off("run data nobody touches", flow(data=Notes)),
        off("the same again", flow(strict=False, timeout=None)),
    ]
