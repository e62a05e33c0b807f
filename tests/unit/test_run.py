"""The loop: what a run visits, in which order, and where it ends."""

from __future__ import annotations

import sys
import time
from enum import Enum, Flag, IntEnum, StrEnum, auto
from typing import Any, Literal

import pytest

from cano import Context, Resources, Retry, Workflow
from cano.errors import RoutingError
from cano.testing import run


class Step(Enum):
    A = "a"
    B = "b"
    C = "c"
    DONE = "done"
    FAILED = "failed"


class Other(Enum):
    A = "a"
    B = "b"


def then(state: Any) -> Any:
    """A task that goes to *state*, or raises it."""

    async def task(ctx: Context[Any]) -> Any:
        if isinstance(state, BaseException):
            raise state
        return state

    return task


def flow_of(tasks: dict[Any, Any], **settings: Any) -> Any:
    """A workflow of *tasks*, given as functions, states to go to, or errors to raise.

    Every other state is an exit.
    """
    states = type(next(iter(tasks)))
    flow: Any = Workflow(states, **settings)
    for state, task in tasks.items():
        flow.register(state, task if callable(task) and not isinstance(task, Enum) else then(task))
    return flow.exits(*(state for state in states if state not in tasks))


def test_linear() -> None:
    """A run goes from state to state to the exit, and returns it."""
    seen: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.extend([ctx.state, *ctx.path])
        return Step.DONE

    flow = flow_of({Step.A: Step.B, Step.B: Step.C, Step.C: look})

    assert Step.DONE == run(flow.run(Step.A))
    assert [Step.C, Step.A, Step.B, Step.C] == seen


def test_self_loop() -> None:
    """A state may lead to itself; it runs exactly as often as it says."""
    count = 0

    async def again(ctx: Context[Any]) -> Literal[Step.A, Step.DONE]:
        nonlocal count
        count += 1
        return Step.A if count < 5 else Step.DONE

    flow = flow_of({Step.A: again})

    assert Step.DONE == run(flow.run(Step.A))
    assert 5 == count


def test_cycle() -> None:
    """States may lead back to earlier ones."""
    seen = []

    async def b(ctx: Context[Any]) -> Literal[Step.A, Step.DONE]:
        seen.append(len(ctx.path))
        return Step.A if len(seen) < 3 else Step.DONE

    flow = flow_of({Step.A: Step.B, Step.B: b})

    assert Step.DONE == run(flow.run(Step.A))
    assert [2, 4, 6] == seen


def test_start_at_an_exit() -> None:
    """A run started at an exit runs nothing, and resources go up and down all the same."""
    calls = []

    class Watchful:
        async def setup(self) -> None:
            calls.append("setup")

        async def teardown(self) -> None:
            calls.append("teardown")

    flow = flow_of({Step.A: Step.DONE}, resources=Resources(watch=Watchful()))

    assert Step.DONE == run(flow.run(Step.DONE))
    assert ["setup", "teardown"] == calls


class Text(StrEnum):
    X = auto()
    Y = auto()


class Number(IntEnum):
    X = 1
    Y = 2


class Bits(Flag):
    X = auto()
    Y = auto()


class Lists(Enum):
    """Values need not be hashable."""

    X = [1]  # noqa: RUF012
    Y = {"a": [1]}  # noqa: RUF012


class Aliased(Enum):
    X = 1
    Y = 2
    ALSO_Y = 2


class Renamed(Enum):
    """A member may be called like a property of enums."""

    X = 1
    name = 2


@pytest.mark.parametrize("states", [Text, Number, Bits, Lists, Aliased, Renamed])
def test_enums_of_every_make(states: Any) -> None:
    """Any enum will do: of texts, of numbers, of flags, with aliases, with values of any kind."""
    first, last = states

    assert last is run(flow_of({first: last}).run(first))


def test_aliases_are_one_state() -> None:
    """A task may be registered, and an exit reached, under any of a state's names."""
    flow = Workflow(Aliased).register(Aliased.X, then(Aliased.ALSO_Y)).exits(Aliased.Y)

    assert Aliased.Y is run(flow.run(Aliased.X))


HINT = "return one of its members: A, B, C, DONE, FAILED"


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, "returned None; that is no member of Step; .* without a return statement returns"),
        (Other.B, r"returned <Other\.B: 'b'>; that is no member of Step; did you mean .*B"),
        ("DONE", "returned 'DONE'; that is no member of Step; did you mean .*DONE"),
        ("done", "returned 'done'; that is no member of Step; did you mean .*DONE"),
        ("falied", "returned 'falied'; that is no member of Step; did you mean .*FAILED"),
        (7, "returned 7; that is no member of Step"),
        ([], rf"returned \[\]; that is no member of Step; {HINT}"),
        (Step, "returned <enum 'Step'>; that is no member of Step"),
        (True, f"returned True; that is no member of Step; {HINT}"),
    ],
)
def test_what_is_no_state(returned: Any, expected: str) -> None:
    """A run that is led nowhere fails, naming task, state and value, and what may be meant."""
    flow = flow_of({Step.A: Step.B, Step.B: then(returned)})
    with pytest.raises(RoutingError, match=rf"task, the task of B, {expected}"):
        run(flow.run(Step.A))


def test_other_enum_with_the_same_name() -> None:
    """A member of another enum is no state, although it is called like one."""
    flow = flow_of({Step.A: Other.B, Step.B: Step.DONE})
    with pytest.raises(RoutingError, match=r"returned <Other\.B: 'b'>"):
        run(flow.run(Step.A))


def test_equal_member_of_another_enum() -> None:
    """Not even where the two are equal, as members of text enums can be."""

    class Twin(StrEnum):
        X = auto()
        Y = auto()

    flow = flow_of({Text.X: Twin.Y})

    assert Text.Y == Twin.Y
    with pytest.raises(RoutingError):
        run(flow.run(Text.X))


def test_flags_are_states_one_by_one() -> None:
    """A combination of flags is no state."""
    flow = flow_of({Bits.X: Bits.X | Bits.Y})
    with pytest.raises(RoutingError, match="has no task and is not an exit; register a task"):
        run(flow.run(Bits.X))


def test_a_million_transitions() -> None:
    """A cycle may go on for ever: no memory grows, and a transition is cheap."""
    left = 1_000_000
    longest, blocks = 0, []

    async def ping(ctx: Context[Any]) -> Literal[Step.B, Step.DONE]:
        nonlocal left, longest
        left -= 2
        if not left % 100_000:
            longest = max(longest, len(ctx.path))
            blocks.append(sys.getallocatedblocks())
        return Step.B if left else Step.DONE

    async def pong(ctx: Context[Any]) -> Literal[Step.A]:
        return Step.A

    flow = flow_of({Step.A: ping, Step.B: pong})
    started = time.process_time()
    run(flow.run(Step.A))

    if sys.gettrace() is None:  # under a debugger or coverage everything is slow
        assert time.process_time() - started < 2
    assert longest <= 128
    assert blocks[-1] - blocks[0] < 500


def test_the_path_is_the_latest_states() -> None:
    """What a run remembers of its way are the latest 64 states at least, in order."""
    states = Enum("states", [f"S{i}" for i in range(200)])  # type: ignore[misc]
    members = list(states)
    paths = []

    def to(state: Any) -> Any:
        async def task(ctx: Context[Any]) -> Any:
            paths.append(ctx.path)
            return state

        return task

    flow: Any = Workflow(states).exits(members[-1])
    for state, following in zip(members, members[1:], strict=False):
        flow.register(state, to(following))
    run(flow.run(members[0]))

    for visited, path in enumerate(paths, 1):
        assert tuple(members[visited - len(path) : visited]) == path
        assert len(path) >= min(visited, 64)


def test_a_run_within_a_run_is_its_own() -> None:
    """The inner run has its own context and returns its own exit."""
    inner = flow_of({Text.X: Text.Y})
    seen = []

    async def within(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append(await inner.run(Text.X))
        seen.append(ctx.state)
        return Step.DONE

    outer = flow_of({Step.A: within})

    assert Step.DONE == run(outer.run(Step.A))
    assert [Text.Y, Step.A] == seen


async def liar(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.DONE  # type: ignore[return-value]


def test_strict_holds_tasks_to_their_edges() -> None:
    """Under `strict` a member outside the declared edges fails the run, naming all of them."""
    flow = flow_of({Step.A: liar}, strict=True)
    with pytest.raises(RoutingError, match=r"A returned <Step.DONE: 'done'>, but declares B; add"):
        run(flow.run(Step.A))


def test_without_strict_any_member_will_do() -> None:
    """Without `strict` annotations are for the graph, and what a task returns is where it goes."""
    flow = flow_of({Step.A: liar})

    assert Step.DONE == run(flow.run(Step.A))


def test_strict_leaves_undeclared_edges_alone() -> None:
    """A task that may go anywhere may go anywhere under `strict` too."""

    async def anywhere(ctx: Context[Any]) -> Step:
        return Step.DONE

    flow = flow_of({Step.A: anywhere}, strict=True)

    assert Step.DONE == run(flow.run(Step.A))


def test_attempt_is_counted_per_state() -> None:
    """A state that follows one with retries begins with attempt 1."""
    seen = []

    async def second_time(ctx: Context[Any]) -> Literal[Step.B]:
        seen.append(ctx.attempt)
        if ctx.attempt < 2:
            raise ConnectionError
        return Step.B

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append(ctx.attempt)
        return Step.DONE

    flow = flow_of({Step.A: second_time, Step.B: look})
    run(flow.register(Step.A, second_time, Retry.fixed(2, 1)).run(Step.A))

    assert [1, 2, 1] == seen


def test_an_undeclared_local_enum_runs() -> None:
    """States may be an enum of the function around, whatever the annotations can say of it."""

    class Local(Enum):
        X = 1
        Y = 2

    async def to_y(ctx: Context[Any]) -> Literal[Local.Y]:
        return Local.Y

    assert Local.Y is run(Workflow(Local).register(Local.X, to_y).exits(Local.Y).run(Local.X))
