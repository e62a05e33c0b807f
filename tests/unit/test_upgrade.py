"""Whether a stored run can be continued by the workflow as it is now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic
import pytest

from cano._data import data_type
from cano._history import History, Standing, Visit
from cano._lifecycle import Phase
from cano._migrations import Migrations, Saved
from cano._shape import Shape, StateShape, fields_of
from cano._upgrade import Fitness, Present, Verdict
from cano._values import ValueType, value_type
from cano.errors import VersionMismatchError
from cano.events import RunMigrated

SAFE, NEEDS, BLOCKED = Fitness.SAFE, Fitness.NEEDS_MIGRATION, Fitness.BLOCKED


@dataclass
class Order:
    total: int = 0
    note: str | None = None


class Model(pydantic.BaseModel):
    total: int = 0
    note: str = "long enough"

    @pydantic.field_validator("note")
    @classmethod
    def is_long(cls, note: str) -> str:
        if len(note) < 3:
            raise ValueError("too short")
        return note


OUTPUTS = {("BOOK", ""): value_type(str, "BOOK"), ("FETCH", "eu"): value_type(int, "eu")}


def present(
    version: int = 2,
    states: str = "BOOK FETCH CHARGE",
    data: type[Any] | None = Order,
    outputs: dict[tuple[str, str], ValueType] = OUTPUTS,
    exits: tuple[str, ...] = ("DONE",),
    **migrations: Callable[[Saved], Any],
) -> Present:
    known = Migrations()
    for name, up in migrations.items():
        known.add(int(name.removeprefix("from_")), up)
    kind = None if data is None else data_type(data)
    shape = Shape(
        version,
        {name: StateShape() for name in states.split()},
        exits,
        {} if kind is None else fields_of(kind),
    )
    return Present(shape, "new", kind, lambda *of: outputs.get(of), known)


def history(**other: Any) -> History:
    settings: dict[str, Any] = {
        "phase": Phase.RUNNING,
        "sequence": 7,
        "state": "CHARGE",
        "entered": True,
        "visit": Visit(3, "CHARGE"),
        "data": {"total": b"12", "note": b"null"},
        "standing": [Standing("BOOK", "", b'"b1"', 3), Standing("FETCH", "eu", b"2", 5)],
        "version": 2,
    }
    given = {**settings, **other}
    fields = {name: msgspec.Raw(raw) for name, raw in given.pop("data").items()}
    return History(**given, fields=fields)


def same(saved: Saved) -> Saved:
    return saved


def test_what_fits_is_safe() -> None:
    """A run of the present version whose state, work and data are all there may go on as it is."""
    assert Verdict(SAFE) == present().verdict(history())


@pytest.mark.parametrize("state", ["DONE", "FETCH"])
def test_exits_and_states_fit(state: str) -> None:
    """A run may be in an exit as well as in a state with a task."""
    assert Verdict(SAFE) == present().verdict(history(state=state))


def test_code_may_change() -> None:
    """What a run does not hold may change freely; it is told, but does not matter."""
    now = present(states="BOOK FETCH CHARGE EXTRA")
    verdict = now.verdict(history(), present().shape)

    assert Verdict(SAFE, (), ("state EXTRA was added",)) == verdict


@dataclass
class Needy:
    total: int
    note: str | None = None
    currency: str = "EUR"
    tags: list[str] = field(default_factory=list)


@dataclass
class Lacking:
    currency: str
    total: int = 0
    note: str | None = None


@dataclass
class Retyped:
    total: str = ""
    note: str | None = None


@dataclass
class Narrow:
    total: int = 0


UNFIT: list[tuple[str, dict[str, Any], dict[str, Any], Fitness, list[str]]] = [
    (
        "state gone",
        {"states": "BOOK FETCH"},
        {},
        NEEDS,
        [
            "it is in CHARGE, which has no task and is no exit; name the state it goes on in: "
            "saved.rename(...) if it has a new name, else saved.move(...)"
        ],
    ),
    (
        "field gone",
        {"data": Narrow},
        {},
        NEEDS,
        [
            "its data has a field note (null), and this version has not: keep what matters of it "
            "under another name, and del saved.data['note']"
        ],
    ),
    (
        "all data gone",
        {"data": None},
        {"data": {"total": b"1"}},
        NEEDS,
        [
            "its data has a field total (1), and this version has not: keep what matters of it "
            "under another name, and del saved.data['total']"
        ],
    ),
    (
        "field retyped",
        {"data": Retyped},
        {},
        NEEDS,
        [
            "its data field total is 12, which is no str: Expected `str`, got `int`; change "
            "saved.data['total']"
        ],
    ),
    (
        "field lacking",
        {"data": Lacking},
        {},
        NEEDS,
        [
            "its data has no field currency, which has no default; give it one, or set "
            "saved.data['currency']"
        ],
    ),
    (
        "work of a state gone",
        {"states": "FETCH CHARGE"},
        {},
        BLOCKED,
        [
            "the completed work of BOOK could not be undone: that state has no task; keep it until "
            "the run has ended, or let a migration rename it to a state whose task can undo the "
            "same"
        ],
    ),
    (
        "work of an exit",
        {"states": "FETCH CHARGE", "exits": ("BOOK", "DONE")},
        {},
        BLOCKED,
        [
            "the completed work of BOOK could not be undone: that state has no task; keep it until "
            "the run has ended, or let a migration rename it to a state whose task can undo the "
            "same"
        ],
    ),
    (
        "work that nothing undoes",
        {"outputs": {("FETCH", "eu"): value_type(int, "eu")}},
        {},
        BLOCKED,
        [
            "the completed work of BOOK could not be undone: nothing there can undo it; keep a "
            "task that can undo, until the run has ended"
        ],
    ),
    (
        "work of a branch gone",
        {"outputs": {("BOOK", ""): value_type(str, "BOOK")}},
        {},
        BLOCKED,
        [
            "the completed work of FETCH (branch 'eu') could not be undone: nothing there can "
            "undo it; keep the branch, by that name, until the run has ended"
        ],
    ),
    (
        "output retyped",
        {"outputs": {**OUTPUTS, ("BOOK", ""): value_type(int, "book()")}},
        {},
        BLOCKED,
        [
            "the completed work of BOOK could not be undone: book() was recorded as \"b1\", which "
            "is not what it is annotated with: Expected `int`, got `str`; mend the annotation"
        ],
    ),
    (
        "newer",
        {},
        {"version": 3},
        BLOCKED,
        [
            "it was last carried out by version 3, which is newer than 2; deploy version 3 or a "
            "later one"
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "then", "fitness", "told"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_what_does_not_fit_is_said(
    now: dict[str, Any], then: dict[str, Any], fitness: Fitness, told: list[str]
) -> None:
    """Whatever a run holds that has no place any more is named, with what to do."""
    verdict = present(**now).verdict(history(**then))
    remedy = "raise the version to 3 and write a migration from 2, or take the change back"

    assert fitness == verdict.fitness
    assert [*told, *([remedy] if fitness is NEEDS else [])] == list(verdict.reasons)


def test_everything_is_said_at_once() -> None:
    """One verdict names every reason, so that one migration can mend them all."""
    verdict = present(states="CHARGE", data=Retyped).verdict(history(state="GONE"))

    assert (BLOCKED, 5) == (verdict.fitness, len(verdict.reasons))


def test_fields_with_defaults_may_be_new() -> None:
    """A new field that has a default does not stand in the way."""
    data = {"total": b"1", "note": b"null", "currency": b'"EUR"'}

    assert SAFE == present(data=Needy).verdict(history(data=data)).fitness


def test_a_model_has_the_last_word() -> None:
    """What a pydantic model's validators refuse cannot be continued."""
    verdict = present(data=Model).verdict(history(data={"total": b"1", "note": b'"no"'}))

    assert NEEDS == verdict.fitness
    assert "too short" in verdict.reasons[0]


def test_long_values_are_cut() -> None:
    """A value that does not fit is shown, but not all of it."""
    data = {"total": b"1", "note": b'"' + b"x" * 1000 + b'"'}
    verdict = present(data=Narrow).verdict(history(data=data))

    assert f'("{"x" * 58}…)' in verdict.reasons[0]


def test_an_older_run_needs_a_migration() -> None:
    """A run of an older version is not continued by guesswork, even if all of it fits."""
    verdict = present(version=3).verdict(history(version=1))

    assert (
        NEEDS,
        (
            "it was last carried out by version 1, and this is version 3: write a migration from "
            "version 1; it may return what it is given, as all that the run holds fits",
        ),
    ) == (verdict.fitness, verdict.reasons)


def test_a_missing_migration_is_told_with_what_it_has_to_do() -> None:
    """Where a chain has a gap, the gap is named, and what does not fit as it is."""
    verdict = present(version=3, data=Narrow, from_1=same).verdict(history(version=1))

    assert NEEDS == verdict.fitness
    assert (
        "it was last carried out by version 1, and this is version 3: write a migration from "
        "version 2"
    ) == verdict.reasons[0]
    assert "its data has a field note" in verdict.reasons[1]


def mend(saved: Saved) -> Saved:
    saved.data.clear()
    return saved.rename("CHARGE", "PAY")


def test_a_run_that_can_be_migrated_is_safe() -> None:
    """If the migrations make of it what fits, a run may go on; what to record is handed over."""
    now = present(version=3, states="BOOK FETCH PAY", from_1=same, from_2=mend)
    given = history(version=1)
    verdict = now.verdict(given)

    assert history(version=1) == given
    assert SAFE == verdict.fitness
    assert verdict.migration == RunMigrated(
        state="PAY", before=1, version=3, fingerprint="new", patch={}, renamed={"CHARGE": "PAY"}
    )


def wrong(saved: Saved) -> Saved:
    raise KeyError("rate")


def test_a_migration_that_raises_blocks() -> None:
    """A run whose migration fails is not continued, and the migration is named."""
    verdict = present(from_1=wrong).verdict(history(version=1))

    assert BLOCKED == verdict.fitness
    assert "the migration wrong from version 1 raised KeyError: 'rate'" in verdict.reasons[0]


def test_a_migration_that_does_not_mend_blocks() -> None:
    """What does not fit after its migration is told like what does not fit without."""
    now = present(states="BOOK FETCH", from_1=lambda saved: saved.move("NOWHERE"))

    assert Verdict(
        BLOCKED,
        (
            "after its migration it is in NOWHERE, which has no task and is no exit; name the "
            "state it goes on in: saved.rename(...) if it has a new name, else saved.move(...)",
        ),
    ) == now.verdict(history(version=1))


def test_a_migration_may_not_orphan_work() -> None:
    """Completed work renamed to a state that cannot undo it blocks the run."""
    now = present(from_1=lambda saved: saved.rename("BOOK", "CHARGE"))
    verdict = now.verdict(history(version=1))

    assert BLOCKED == verdict.fitness
    assert "the completed work of CHARGE could not be undone" in verdict.reasons[0]


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.FAILED, Phase.CANCELLED])
def test_runs_that_failed_are_judged_too(phase: Phase) -> None:
    """A rollback to be gone on with, and a run to be reopened, are migrated like others."""
    verdict = present(from_1=same).verdict(history(version=1, phase=phase))

    assert (SAFE, 2) == (verdict.fitness, verdict.migration and verdict.migration.version)


def test_the_changes_are_told() -> None:
    """A verdict says how the workflow differs from that of the run, where its shape is known."""
    old, now = present(version=1).shape, present(states="BOOK FETCH", from_1=same)
    verdict = now.verdict(history(version=1), old)

    assert ("version 1 became 2", "state CHARGE was removed") == verdict.changes


def test_the_error_says_all() -> None:
    """What is raised instead of resuming names run, workflow, reasons and changes."""
    error = Verdict(NEEDS, ("a; do b", "c; do d"), ("state X was removed",)).error("a7", "orders")

    assert isinstance(error, VersionMismatchError)
    assert ("state X was removed",) == error.changes
    assert (
        "run 'a7' cannot be continued by orders as it is now (needs a migration): a; do b; c; do d"
    ) == str(error)


def test_judging_changes_nothing() -> None:
    """A verdict leaves the history as it is, whatever a migration does to its copy."""
    given = history(version=1)
    present(states="BOOK FETCH PAY", from_1=mend).verdict(given)

    assert history(version=1) == given
