"""Definition errors of single states: tasks, branches, verbs, and the resources they ask for."""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

import pytest

from cano import Context, Resources, RouterTask, Split, Task, Workflow
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
        (wants_list, (1, 2), "list[int]"),
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
