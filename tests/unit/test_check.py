"""Definition errors: each is found before anything runs, all of them at once, with a remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Literal, NoReturn

import pytest

from cano import Bulkhead, Context, Resources, Retry, Split, Task, Timeout, Workflow, _check
from cano import join as joins
from cano.errors import DefinitionError
from cano.testing import run


class Step(Enum):
    A = "a"
    B = "b"
    DONE = "done"


class Other(Enum):
    A = "a"
    B = "b"
    ELSEWHERE = "elsewhere"


class Db:
    """A resource."""


async def to_a(ctx: Context[Any]) -> Literal[Step.A]:
    return Step.A


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def to_done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


async def anywhere(ctx: Context[Any]) -> Step:
    return Step.DONE


async def branch(ctx: Context[Any]) -> int:
    return 1


def sound(**settings: Any) -> Workflow[Step, Any]:
    return (
        Workflow(Step, **settings).register(Step.A, to_b).register(Step.B, to_done).exits(Step.DONE)
    )


def problems(flow: Any, start: Any = None) -> tuple[str, ...]:
    """What `check` finds, or nothing."""
    try:
        flow.check(start)
    except DefinitionError as error:
        return error.problems
    return ()


def test_sound() -> None:
    """A sound workflow has no problems."""
    assert () == problems(sound())
    assert () == problems(sound(start=Step.A))
    assert () == problems(sound(), Step.A)


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (
            Workflow(Step).register(Step.A, to_done).exits(Step.DONE),
            "B has no task and is not an exit; register a task or pass it to exits()",
        ),
        (
            sound().exits(Step.B),
            "B has a task and is an exit, which never runs one; drop one of the two",
        ),
        (
            sound().register(Step.B, to_b),
            "B can never reach an exit (it leads to B); return a state that does",
        ),
        (
            sound(start=Step.B),
            "A cannot be reached from B; lead some task to it, or remove it",
        ),
        (
            Workflow(Step).exits(Step.DONE),
            "no state of Step has a task; register at least one",
        ),
        (
            Workflow(Step),
            "no state of Step has a task; register at least one",
        ),
        (
            Workflow(Step).register(Step.A, to_b).register(Step.B, to_a).register(Step.DONE, to_a),
            "no state ends a run; pass the ones that do to exits()",
        ),
    ],
)
def test_states(flow: Any, expected: str) -> None:
    """Every state has a task or is an exit, not both; every task leads to an exit in the end."""
    assert expected in problems(flow)


def test_no_way_to_an_exit() -> None:
    """States that lead to each other only are all named."""
    flow = sound().register(Step.B, to_a)
    expected = (
        "A can never reach an exit (it leads to B); return a state that does",
        "B can never reach an exit (it leads to A); return a state that does",
    )
    assert expected == problems(flow)


def test_a_missing_task_is_one_problem() -> None:
    """Who leads to a state without a task is not blamed for it as well."""
    flow = Workflow(Step).register(Step.A, to_b).exits(Step.DONE)

    assert 1 == len(problems(flow))


def test_always_raising_is_an_end() -> None:
    """A task that says `NoReturn` ends the run by raising, and so is no dead end."""

    async def give_up(ctx: Context[Any]) -> NoReturn:
        raise ValueError

    assert () == problems(sound().register(Step.B, give_up))


def test_otherwise_is_an_edge() -> None:
    """Where a failure leads counts for reachability and for the way to an exit."""
    assert () == problems(sound(start=Step.A).register(Step.A, to_done, otherwise=Step.B))
    assert () == problems(sound().register(Step.B, to_b, otherwise={ValueError: Step.DONE}))


def test_anywhere_silences_reachability() -> None:
    """Where one task on the way may go anywhere, nothing is unreachable for certain."""
    assert () == problems(sound(start=Step.A).register(Step.A, anywhere).register(Step.B, anywhere))
    assert () == problems(sound().register(Step.B, anywhere))


def test_reachability_needs_a_start() -> None:
    """Without a declared start any state may be one; `check(start)` declares it for the check."""
    flow = Workflow(Step).register(Step.A, to_done).register(Step.B, to_done).exits(Step.DONE)
    expected = "A cannot be reached from B; lead some task to it, or remove it"

    assert (expected,) == problems(flow, Step.B)
    assert () == problems(flow)
    assert Step.DONE == run(flow.run(Step.B))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (Split([branch], then=Step.B, join=joins.Quorum(2)), "can never be met by 1 branches"),
        (Split([branch], then=Step.B, join=joins.Percentage(0)), "is no share; pass a number"),
        (Split([branch], then=Step.B, join=joins.Percentage(1.5)), "is no share; pass a number"),
        (Split([branch], then=Step.B, join=joins.Percentage(float("nan"))), "is no share; pass"),
        (Split([branch], then=Step.B, join=joins.PartialTimeout()), "requires a timeout; pass"),
        (Split([branch], then=Step.B, bulkhead=0), "bulkhead=0 lets no branch run; pass 1"),
        (Split([branch], then=Step.B, timeout=11), "timeout=11 outlasts the 10 s a whole run has"),
        (Split([], then=Step.B), "a split without branches; add some"),
    ],
)
def test_splits(split: Split[Step], expected: str) -> None:
    """A split that can never be joined is found, with its state."""
    (found,) = problems(sound(timeout=10).register(Step.A, split))

    assert found.startswith("A: ")
    assert expected in found


def test_attempt_longer_than_the_run() -> None:
    """An attempt's timeout that outlasts the whole run's is found, on a task and on its class."""

    class Slow(Task[Step]):
        policies = (Timeout(12),)

        async def run(self, ctx: Context[Any]) -> Literal[Step.DONE]:
            return Step.DONE

    flow = sound(timeout=10).register(Step.A, to_b, Retry(), Timeout(11)).register(Step.B, Slow())
    expected = (
        "A: Timeout(seconds=11) outlasts the 10 s a whole run has; shorten it or raise timeout=",
        "B: Timeout(seconds=12) outlasts the 10 s a whole run has; shorten it or raise timeout=",
    )
    assert expected == problems(flow)
    assert () == problems(sound(timeout=10).register(Step.A, to_b, Timeout(10)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Bulkhead(0), r"Bulkhead\(0\) .*; pass 1 or more"),
        (lambda: Timeout(0), r"Timeout\(0\) leaves no time; pass seconds > 0"),
        (lambda: Retry(attempts=0), r"attempts=0"),
        (lambda: Workflow(Step, timeout=0), r"timeout=0 leaves a run no time; pass seconds > 0"),
        (lambda: Workflow(int), r"states must be an Enum class, not <class 'int'>"),
        (lambda: Workflow(Step.A), r"states must be an Enum class, not <Step.A: 'a'>"),
    ],
)
def test_settings_are_refused_where_they_are_written(
    make: Callable[[], Any], expected: str
) -> None:
    """What is wrong by itself does not wait for the check."""
    with pytest.raises(DefinitionError, match=expected):
        make()


async def wants_db(ctx: Context[Any], db: Db) -> Literal[Step.B]:
    return Step.B


def blocks(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def to_other(ctx: Context[Any]) -> Literal[Other.B]:
    return Other.B


def test_foreign_states() -> None:
    """Members of another enum are found wherever they are given, even under the same name."""
    foreign: Any = Other.A
    found = problems(
        sound()
        .register(foreign, to_b)
        .register(Step.B, to_other, otherwise={ValueError: Other.ELSEWHERE})  # type: ignore[dict-item]
        .exits(Other.ELSEWHERE)  # type: ignore[arg-type]
    )
    expected = (
        "exit ELSEWHERE is no member of Step; use its members",
        "B leads to <Other.B: 'b'>, which is no member of Step; use Step.B",
        "A: <Other.A: 'a'> is no member of Step; use Step.A",
        "B: otherwise leads to <Other.ELSEWHERE: 'elsewhere'>, which is no member of Step; "
        "use its members",
    )
    assert expected == found


def test_equal_members_of_two_enums_are_told_apart() -> None:
    """Members of two `StrEnum`s may be equal; a sound workflow is sound after an unsound twin."""

    class One(StrEnum):
        X = "same"
        END = "end"

    class Two(StrEnum):
        Y = "same"
        END = "end"

    async def to_twin(ctx: Context[Any]) -> Literal[Two.END]:
        return Two.END

    async def to_end(ctx: Context[Any]) -> Literal[One.END]:
        return One.END

    for _ in range(2):
        assert 1 == len(problems(Workflow(One).register(One.X, to_twin).exits(One.END)))
        assert () == problems(Workflow(One).register(One.X, to_end).exits(One.END))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Retry, "A: Retry is a class; pass an instance, Retry(...)"),
        (5, "A: 5 is no policy; pass Retry(...), Timeout(...) or another with wrap()"),
    ],
)
def test_what_is_no_policy(policy: Any, expected: str) -> None:
    """A class in place of its instance, or anything without `wrap`, is named with its state."""
    flow = sound().register(Step.A, to_b, policy)
    found = _check.problems(
        Step, flow._registrations, flow._exits, _check.edges_of(flow._registrations), None
    )

    assert [expected] == found


def test_policies_with_a_say() -> None:
    """A policy of one's own may find a problem too; one without an opinion is fine."""

    class Picky:
        def wrap(self, call: Any, /) -> Any:
            return call

        def problem(self, total: float | None, /) -> str | None:
            return f"is picky about {total}"

    class Easy:
        def wrap(self, call: Any, /) -> Any:
            return call

    assert ("A: is picky about None",) == problems(sound().register(Step.A, to_b, Easy(), Picky()))


@dataclass
class Socketed:
    connection: asyncio.Transport | None = None
    orders: list[asyncio.Lock] = field(default_factory=list)


def test_everything_at_once() -> None:
    """One error holds every problem, each with its place, and says how many there are."""
    flow: Any = (
        Workflow(Step, data=Socketed, timeout=10, start=Step.A)
        .register(Step.A, wants_db, Timeout(20))
        .register(Step.B, Split([blocks], then=Step.A, join=joins.Quorum(3)))
    )
    with pytest.raises(DefinitionError) as caught:
        flow.check()
    expected = [
        "Socketed.connection holds a Transport",
        "no state ends a run",
        "DONE has no task and is not an exit",
        "A: Timeout(seconds=20) outlasts",
        "B: Quorum(needed=3) can never be met by 1 branches",
        "A: wants_db wants a resource named 'db'",
        "B: blocks is a plain function",
        "DONE cannot be reached from A",
    ]
    found = caught.value.problems
    assert [True] * 8 == [f.startswith(e) for f, e in zip(found, expected, strict=True)]
    assert str(caught.value).startswith("8 problems:\n- Socketed.connection")


def test_a_single_problem_is_its_own_message() -> None:
    """One problem is said without a list around it."""
    with pytest.raises(DefinitionError, match=r"^no state of Step has a task"):
        Workflow(Step).check()


class Watchful:
    """A resource that would tell if it was set up."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def setup(self) -> None:
        self.calls.append("setup")

    async def teardown(self) -> None:
        self.calls.append("teardown")


@pytest.mark.parametrize("how", ["check", "run", "start_run"])
def test_nothing_happens_before_the_definition_is_sound(how: str) -> None:
    """No task runs, no resource is set up, no observer is told, however the error is met."""
    watch, told, ran = Watchful(), [], []

    async def first(ctx: Context[Any]) -> Literal[Step.B]:
        ran.append(1)
        return Step.B

    flow = Workflow(Step, resources=Resources(watch=watch), observers=[told.append])
    flow.register(Step.A, first).exits(Step.DONE)

    async def main() -> None:
        if how == "check":
            flow.check(Step.A)
        else:
            await getattr(flow, how)(Step.A)

    with pytest.raises(DefinitionError, match="B has no task"):
        run(main())
    assert ([], [], []) == (watch.calls, told, ran)


def test_an_unsound_workflow_can_be_mended() -> None:
    """Nothing is fixed by a check that failed: register what was missing, and go on."""
    flow = Workflow(Step).register(Step.A, to_b).exits(Step.DONE)
    first = problems(flow)
    flow.register(Step.B, to_done)

    assert (1, ()) == (len(first), problems(flow))
    assert Step.DONE == run(flow.run(Step.A))


def test_start_must_be_a_state() -> None:
    """A start of another enum is named."""
    foreign: Any = Other.A

    assert ("start <Other.A: 'a'> is no member of Step",) == problems(sound(), foreign)


class Parcel:
    """What another workflow works on."""


def test_a_function_for_other_data() -> None:
    """A task that is annotated with the data of another workflow is found before it runs."""

    async def ship(ctx: Context[Parcel]) -> Literal[Step.DONE]:
        return Step.DONE

    async def measure(ctx: Context[Parcel], item: int) -> int:
        return item

    class Ship(Task[Step]):
        async def run(self, ctx: Context[Parcel]) -> Literal[Step.DONE]:
            return Step.DONE

    tasks: list[Any] = [ship, Ship(), Split.over(lambda data: [1], run=measure, then=Step.DONE)]
    for task in tasks:
        with pytest.raises(DefinitionError, match="wants Parcel as run data, but there is none"):
            Workflow(Step).register(Step.A, task).exits(Step.DONE).check()
