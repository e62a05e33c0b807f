"""Whether a stored run can be continued by the workflow as it is now. Pure.

Nothing is replayed, so what tasks do may have changed at will. What counts is what the run holds:
where it stopped, which work it may have to undo, and its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from cano._data import DataType
from cano._history import History, Standing, evolve
from cano._lifecycle import Phase
from cano._migrations import Migrations
from cano._shape import Shape, changes
from cano._values import ValueType
from cano.errors import DataError, VersionMismatchError
from cano.events import RunMigrated

SHOWN = 60
"""How many characters of a value are shown."""


class Fitness(StrEnum):
    """Whether a run can go on."""

    SAFE = "safe"
    NEEDS_MIGRATION = "needs a migration"
    BLOCKED = "blocked"
    """By something that a migration has no say in, or could not mend."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a run can go on, and why not."""

    fitness: Fitness
    reasons: tuple[str, ...] = ()
    """What stands in the way, each with what to do; none if it is safe."""
    changes: tuple[str, ...] = ()
    """How the workflow differs from the one the run was last carried out by, as far as known."""
    migration: RunMigrated | None = None
    """To be recorded before a safe run goes on; None if it may go on as it is."""

    def error(self, run_id: str, workflow: str) -> VersionMismatchError:
        """What to raise instead of continuing the run."""
        return VersionMismatchError(
            f"run {run_id!r} cannot be continued by {workflow} as it is now ({self.fitness}): "
            + "; ".join(self.reasons),
            self.changes,
        )


class Present(msgspec.Struct, frozen=True):
    """The workflow as it is now, as far as stored runs are concerned."""

    shape: Shape
    fingerprint: str
    data: DataType[Any] | None
    output: Callable[[str, str], ValueType | None]
    """How the output of completed work is kept, by state and branch; None if nothing undoes it."""
    migrations: Migrations

    def verdict(self, history: History, old: Shape | None = None) -> Verdict:
        """Judge a run; *old* is the shape of the workflow that last carried it out, if known.

        Migrations are tried on a copy.
        """
        changed = () if old is None else tuple(changes(old, self.shape))
        stored, version = history.version, self.shape.version
        if stored > version:
            reason = (
                f"it was last carried out by version {stored}, which is newer than {version}; "
                f"deploy version {stored} or a later one"
            )
            return Verdict(Fitness.BLOCKED, (reason,), changed)
        if stored == version:
            return self._as_it_is(history, changed)
        lacking = self.migrations.lacking(stored, version)
        if lacking is not None:
            return Verdict(Fitness.NEEDS_MIGRATION, self._lacks(history, lacking), changed)
        try:
            event = self.migrations.carry_out(history, version, self.fingerprint)
        except VersionMismatchError as error:
            return Verdict(Fitness.BLOCKED, (str(error),), changed)
        migrated = _copy(history)
        evolve(migrated, event)
        reasons = tuple(f"after its migration {r}" for r in self._misfits(migrated))
        if reasons:
            return Verdict(Fitness.BLOCKED, reasons, changed)
        return Verdict(Fitness.SAFE, (), changed, event)

    def _as_it_is(self, history: History, changed: tuple[str, ...]) -> Verdict:
        """The verdict on a run of the present version."""
        orphans = tuple(self._orphans(history))
        others = (*self._lost(history), *self._misfits_of_data(history.data))
        if not orphans and not others:
            return Verdict(Fitness.SAFE, (), changed)
        version = history.version
        remedy = (
            f"raise the version to {version + 1} and write a migration from {version}, or take "
            "the change back",
        )
        fitness = Fitness.BLOCKED if orphans else Fitness.NEEDS_MIGRATION
        return Verdict(fitness, (*orphans, *others, *(remedy if others else ())), changed)

    def _lacks(self, history: History, lacking: int) -> tuple[str, ...]:
        """What to say of a run of an older version that there is no migration for."""
        misfits = tuple(self._misfits(history))
        write = f"write a migration from version {lacking}"
        if not misfits:
            write += "; it may return what it is given, as all that the run holds fits"
        reason = f"it was last carried out by version {history.version}, and this is version "
        return (f"{reason}{self.shape.version}: {write}", *misfits)

    def _misfits(self, history: History) -> Iterator[str]:
        """What the run holds that has no place in the present workflow."""
        yield from self._orphans(history)
        yield from self._lost(history)
        yield from self._misfits_of_data(history.data)

    def _orphans(self, history: History) -> Iterator[str]:
        """Completed work that could not be undone any more."""
        for work in history.standing:
            branch = f" (branch {work.branch!r})" if work.branch else ""
            if problem := self._orphaned(work):
                yield f"the completed work of {work.state}{branch} could not be undone: {problem}"

    def _orphaned(self, work: Standing) -> str | None:
        """Why the work could not be undone, if so, and what to do."""
        if work.state not in self.shape.states:
            return (
                "that state has no task; keep it until the run has ended, or let a migration "
                "rename it to a state whose task can undo the same"
            )
        output = self.output(work.state, work.branch)
        if output is None:
            keep = "the branch, by that name" if work.branch else "a task that can undo"
            return f"nothing there can undo it; keep {keep}, until the run has ended"
        try:
            output.read(work.value)
        except DataError as error:
            return str(error)
        return None

    def _lost(self, history: History) -> Iterator[str]:
        """A position that is nowhere."""
        if history.state not in self.shape:
            yield (
                f"it is in {history.state}, which has no task and is no exit; name the state it "
                "goes on in: saved.rename(...) if it has a new name, else saved.move(...)"
            )

    def _misfits_of_data(self, saved: dict[str, bytes]) -> Iterator[str]:
        """Run data that would be lost, is lacking, or cannot be read."""
        fields, data = self.shape.data, self.data
        fine = True
        for name, raw in saved.items():
            if name not in fields or data is None:
                fine = False
                yield (
                    f"its data has a field {name} ({_shown(raw)}), and this version has not: "
                    f"keep what matters of it under another name, and del saved.data[{name!r}]"
                )
            elif problem := _unreadable(data, name, raw):
                fine = False
                yield (
                    f"its data field {name} is {_shown(raw)}, which is no {fields[name].type}: "
                    f"{problem}; change saved.data[{name!r}]"
                )
        for name, field in fields.items():
            if name not in saved and not field.default:
                fine = False
                yield (
                    f"its data has no field {name}, which has no default; give it one, or set "
                    f"saved.data[{name!r}]"
                )
        if fine and data is not None:
            try:
                data.rebuild(saved)
            except DataError as error:
                yield f"its data cannot be read: {error}"


def _unreadable(data: DataType[Any], name: str, raw: bytes) -> str | None:
    """Why a field cannot be read, if so."""
    try:
        data.fields[name].decode(raw)
    except Exception as error:  # noqa: BLE001 -- types that users wrote decode themselves
        return str(error)
    return None


def _shown(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _copy(history: History) -> History:
    """A history to try a migration on; one that is over is treated as reopened."""
    return msgspec.structs.replace(
        history,
        phase=Phase.RUNNING if history.over else history.phase,
        visit=msgspec.structs.replace(history.visit),
        before=history.before and msgspec.structs.replace(history.before),
        fields=dict(history.fields),
        standing=list(history.standing),
    )
