"""Definition errors: each is found before anything runs, all of them at once, with a remedy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

import pytest

from cano import Bulkhead, Context, Resources, Retry, RouterTask, Split, Task, Timeout, Workflow
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
        Workflow(Step, **settings)
        .register(Step.A, to_b)
        .register(Step.B, to_done)
        .exits(Step.DONE)
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
            Workflow(Step).register(Step.A, to_b).exits(Step.B, Step.DONE).copy(),
            None,
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
def test_states(flow: Any, expected: str | None) -> None:
    """Every state has a task or is an exit, not both; every task leads to an exit in the end."""
    found = problems(flow)

    assert (expected in found) if expected else found == ()


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


@runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...


class Reads(Protocol):
    def read(self) -> str: ...


async def wants_db(ctx: Context[Any], db: Db) -> Literal[Step.B]:
    return Step.B


async def wants_maybe(ctx: Context[Any], db: Db | None = None) -> Literal[Step.B]:
    assert db is None
    return Step.B


async def wants_or_default(ctx: Context[Any], db: Db = Db()) -> Literal[Step.B]:  # noqa: B008
    return Step.B


async def wants_closes(ctx: Context[Any], db: Closes) -> Literal[Step.B]:
    return Step.B


async def wants_reads(ctx: Context[Any], db: Reads) -> Literal[Step.B]:
    return Step.B


async def wants_list(ctx: Context[Any], db: list[int]) -> Literal[Step.B]:
    return Step.B


async def wants_anything(ctx: Context[Any], db: Any) -> Literal[Step.B]:
    return Step.B


async def wants_optional(ctx: Context[Any], db: Db | None) -> Literal[Step.B]:
    return Step.B


async def of_item(ctx: Context[Any], item: int, db: Db) -> int:
    return item


class Fetch(Task[Step]):
    async def run(self, ctx: Context[Any], db: Db) -> Literal[Step.B]:
        return Step.B


class Choose(RouterTask[Step]):
    async def route(self, ctx: Context[Any], db: Db) -> Literal[Step.B]:
        return Step.B


@pytest.mark.parametrize(
    ("task", "by"),
    [
        (wants_db, "wants_db"),
        (wants_optional, "wants_optional"),
        (Fetch(), "Fetch.run"),
        (Choose(), "Choose.route"),
        (Split([to_a, wants_db], then=Step.B), "wants_db"),
        (Split.over(lambda data: [1], run=of_item, then=Step.B), "of_item"),
    ],
)
def test_missing_resource(task: Any, by: str) -> None:
    """A resource that is not there is found for functions, verbs and branches alike."""
    flow = sound(resources=Resources(dbs=Db())).register(Step.A, task)
    expected = (
        f"A: {by} wants a resource named 'db'; pass Resources(db=...) to the workflow. "
        "There are: dbs"
    )
    assert (expected,) == problems(flow)


@pytest.mark.parametrize(
    ("task", "resource", "kind"),
    [
        (wants_db, "text", "Db"),
        (wants_or_default, 5, "Db"),
        (wants_closes, Db(), "Closes"),
        (wants_list, (1, 2), "list"),
        (Fetch(), Other.A, "Db"),
        (Split([wants_db], then=Step.B), None, "Db"),
    ],
)
def test_resource_of_another_type(task: Any, resource: object, kind: str) -> None:
    """A resource that is no instance of what its parameter says is found, defaults or not."""
    (found,) = problems(sound(resources=Resources(db=resource)).register(Step.A, task))
    expected = f"wants 'db' as {kind}, but it is a {type(resource).__name__}; mend the annotation"

    assert found.startswith("A: ")
    assert expected in found


@pytest.mark.parametrize(
    ("task", "resources"),
    [
        (wants_db, Resources(db=Db())),
        (wants_maybe, Resources()),
        (wants_or_default, Resources()),
        (wants_closes, Resources(db=open)),
        (wants_reads, Resources(db=Db())),
        (wants_list, Resources(db=["not", "looked", "into"])),
        (wants_anything, Resources(db=None)),
        (wants_optional, Resources(db=None)),
        (wants_optional, Resources(db=Db())),
        (wants_db, Resources(db=contextlib.nullcontext(Db()))),
    ],
)
def test_resources_that_fit(task: Any, resources: Resources) -> None:
    """What fits, or cannot be told before it is used, is let through."""
    if task is wants_closes:
        resources = Resources(db=type("Closer", (), {"close": lambda self: None})())

    assert () == problems(sound(resources=resources).register(Step.A, task))


def blocks(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def no_context() -> Literal[Step.B]:
    return Step.B


async def to_int(ctx: Context[Any]) -> int:
    return 1


async def to_nothing(ctx: Context[Any]) -> None:
    return None


async def maybe(ctx: Context[Any]) -> Step | None:
    return None


async def to_text(ctx: Context[Any]) -> Literal["b"]:
    return "b"


async def to_other(ctx: Context[Any]) -> Literal[Other.B]:
    return Other.B


async def to_any_other(ctx: Context[Any]) -> Other:
    return Other.B


class Empty(Task[Step]):
    """A task class without its verb."""


class Lost(RouterTask[Step]):
    """A router without its verb."""


class Blocking(Task[Step]):
    def run(self, ctx: Context[Any]) -> Literal[Step.B]:  # type: ignore[override]
        return Step.B


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (blocks, "A: blocks is a plain function, which would block every other run; make it `async "
         "def`, or say where it runs: thread(blocks) or process(blocks)"),
        (Blocking(), "A: Blocking.run is a plain function, which would block every other run; "
         "make it `async def`"),
        (no_context, "A: no_context does not take the context; write `async def no_context(ctx)`"),
        (to_int, "A: to_int is annotated to return int, which is no state; "
         "write -> Literal[Step.A, ...], or -> Step for anywhere"),
        (to_nothing, "A: to_nothing is annotated to return None, which is no state; "
         "write -> Literal[Step.A, ...], or -> Step for anywhere"),
        (maybe, "A: maybe is annotated to return None, which is no state; "
         "write -> Literal[Step.A, ...], or -> Step for anywhere"),
        (to_text, "A: to_text is annotated to return 'b', which is no state; "
         "write -> Literal[Step.A, ...], or -> Step for anywhere"),
        (to_any_other, "A: to_any_other is annotated to return Other, but the states are Step"),
        (Empty(), "A: Empty has no run(); write `async def run(self, ctx)`"),
        (Lost(), "A: Lost has no route(); write `async def route(self, ctx)`"),
    ],
)  # fmt: skip
def test_tasks(task: Any, expected: str) -> None:
    """What cannot serve as a task is named with its state and the remedy."""
    assert (expected,) == problems(sound().register(Step.A, task))


def test_lambda() -> None:
    """A lambda cannot be async."""
    (found,) = problems(sound().register(Step.A, lambda ctx: to_b(ctx)))

    assert "<lambda> is not async; write an `async def` instead" in found


def test_branches_are_functions_too() -> None:
    """What cannot serve as a task cannot serve as a branch, but for its return type."""
    found = problems(sound().register(Step.A, Split([blocks, to_int, Fetch, Fetch()], then=Step.B)))

    assert 3 == len(found)
    assert found[0].startswith("A: blocks is a plain function")
    assert "A: Fetch is a class; pass an instance, Fetch(...)" == found[1]
    assert "A: <Fetch task> cannot be called; pass its method, .run" == found[2]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Fetch, r"A: Fetch is a class; register an instance, Fetch\(\)"),
        ("text", r"A: 'text' is no task; pass an async function"),
        (None, r"A: None is no task; pass an async function"),
    ],
)
def test_no_task_at_all(task: Any, expected: str) -> None:
    """A class, or what cannot be called, is refused at the registration."""
    with pytest.raises(DefinitionError, match=expected):
        sound().register(Step.A, task)


def test_own_model_needs_no_verb() -> None:
    """A task that writes its own `bind` is not asked for a `run`."""

    class Model(Task[Step]):
        def bind(self, guard: Any, /) -> Any:
            return guard(to_b)

    flow = sound().register(Step.A, Model())

    assert () == problems(flow)
    assert Step.DONE == run(flow.run(Step.A))


def test_own_verb_is_asked_for() -> None:
    """A subclass may rename the verb; whoever forgets to write it is told so."""

    class Polite(Task[Step]):
        verb = "please"

    class Kind(Polite):
        async def please(self, ctx: Context[Any]) -> Literal[Step.B]:
            return Step.B

    assert ("A: Polite has no please(); write `async def please(self, ctx)`",) == problems(
        sound().register(Step.A, Polite())
    )
    assert () == problems(sound().register(Step.A, Kind()))


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
