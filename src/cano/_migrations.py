"""Bringing a stored run from an older version of its workflow to the present one. Pure.

Rule 1: a migration is a function of what is stored, and nothing else; it may be tried on a run at
        any time, as often as one likes.
Rule 2: nothing is lost silently: completed work that can be undone survives every migration, and
        what was done within a visit counts in the state it was done in, under its new name too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec

from cano._data import encode
from cano._history import History
from cano.errors import VersionMismatchError
from cano.events import RunMigrated


class Saved(msgspec.Struct, frozen=True):
    """What is stored of a run, for a migration to change.

    Example::

        @flow.migrate(from_=1)
        def up(saved: Saved) -> Saved:
            saved.data["currency"] = "EUR"
            return saved.rename("CHARGE", "PAY")
    """

    state: str
    """Where the run goes on."""
    data: dict[str, Any]
    """The run data as plain JSON values; this copy may be changed in place."""
    standing: tuple[str, ...] = ()
    """The states whose completed work would be undone by a rollback, oldest first."""
    renamed: dict[str, str] = {}
    """What `rename` was told."""

    def rename(self, old: str, new: str) -> Self:
        """Say that the state *old* is called *new* now, wherever the run knows it.

        What was done in it so far (cursor, effects, finished branches) counts in the new one.
        """
        now = {before: new if after == old else after for before, after in self.renamed.items()}
        return msgspec.structs.replace(
            self,
            state=new if self.state == old else self.state,
            standing=tuple(new if each == old else each for each in self.standing),
            renamed={old: new, **now},
        )

    def move(self, state: str) -> Self:
        """Let the run go on in *state*, and begin there anew."""
        return msgspec.structs.replace(self, state=state)


Migration: TypeAlias = Callable[[Saved], Saved]


class Registered(NamedTuple):
    """A migration, and the version it starts from, as given; it leads to the next one."""

    version: Any
    up: Any

    def __str__(self) -> str:
        name = getattr(self.up, "__qualname__", repr(self.up))
        return f"the migration {name} from version {self.version}"


class Migrations:
    """The migrations of a workflow."""

    def __init__(self, registered: tuple[Registered, ...] = ()) -> None:
        self._registered: list[Registered] = [*registered]

    def add(self, from_: int, up: Migration) -> None:
        """Let *up* lead from version *from_* to the next one."""
        self._registered.append(Registered(from_, up))

    def copy(self) -> Migrations:
        """The same migrations, to be added to."""
        return Migrations(tuple(self._registered))

    def problems(self, version: int) -> list[str]:
        """What is wrong with them where *version* is the present one."""
        found: list[str] = []
        known: dict[int, Registered] = {}
        for each in self._registered:
            if problem := _problem(each, version):
                found.append(f"{each} {problem}")
            elif each.version in known:
                found.append(
                    f"{each} is not the only one: there is {known[each.version]}; drop one"
                )
            else:
                known[each.version] = each
        found += [
            f"{known[start]} leads to version {start + 1}, and none leads on to version "
            f"{start + 2}; write it with migrate(from_={start + 1})"
            for start in sorted(known)
            if start + 1 < version and start + 1 not in known
        ]
        return found

    def lacking(self, stored: int, version: int) -> int | None:
        """The first version on the way to the present one that no migration starts from."""
        known = {each.version for each in self._registered}
        return next((step for step in range(stored, version) if step not in known), None)

    def carry_out(self, history: History, version: int, fingerprint: str) -> RunMigrated:
        """Bring the run to *version*, where nothing is `lacking`; *history* stays as it is.

        Raises `VersionMismatchError` for a migration that raises, or returns what cannot be.
        """
        by_version = {each.version: each for each in self._registered}
        state, data = history.state, history.data
        standing = tuple(work.state for work in history.standing)
        renamed: dict[str, str] = {}
        for step in range(history.version, version):
            values = {name: msgspec.json.decode(raw) for name, raw in data.items()}
            saved = _step(by_version[step], Saved(state, values, standing))
            state, standing = saved.state, saved.standing
            data = _written(by_version[step], saved.data, data)
            renamed = _composed(renamed, saved.renamed)
        return RunMigrated(
            state=state,
            before=history.version,
            version=version,
            fingerprint=fingerprint,
            patch={name: msgspec.Raw(raw) for name, raw in data.items()},
            renamed={old: new for old, new in sorted(renamed.items()) if old != new} or None,
        )


def _problem(migration: Registered, version: int) -> str | None:
    """What is wrong with one migration alone."""
    start = migration.version
    if type(start) is not int or start < 0:
        return "starts from no version; pass a whole number from 0 on, such as from_=1"
    if start >= version:
        return (
            f"leads beyond the workflow's own version {version}; pass version={start + 1} to the "
            "workflow"
        )
    if not callable(migration.up):
        return "is no function; write one that takes a Saved and returns one"
    if inspect.iscoroutinefunction(migration.up):
        return "is async; it must be an ordinary function of what is stored"
    return None


def _step(migration: Registered, given: Saved) -> Saved:
    """One migration, held to its contract."""
    held = given.standing
    try:
        made: Any = migration.up(given)
    except Exception as error:
        raise VersionMismatchError(
            f"{migration} raised {type(error).__name__}: {error}; mend it, and try it on the "
            "stored runs with cano upgrade-check"
        ) from error
    if problem := _unfit(made, held):
        raise VersionMismatchError(f"{migration} {problem}")
    saved: Saved = made
    return saved


def _unfit(made: Any, held: tuple[str, ...]) -> str | None:
    """Why *made* cannot be what a migration of a run with the work *held* standing returns."""
    if not isinstance(made, Saved):
        what = "None" if made is None else f"a value of type {type(made).__name__}"
        return f"returned {what}; return the Saved, changed or not"
    for problem in _mistyped(made):
        return f"returned a Saved whose {problem}"
    standing = tuple(made.renamed.get(state, state) for state in held)
    if made.standing != standing:
        return (
            f"left {_listed(made.standing)} standing where {_listed(standing)} stood; completed "
            "work cannot be dropped, added or moved: return saved.rename(old, new), or pass on "
            "saved.standing"
        )
    return None


def _mistyped(saved: Any) -> Iterator[str]:
    """What of a Saved is not of its type: nobody has looked until now."""
    wanted = {"data": dict, "standing": tuple, "renamed": dict}
    for name, kind in wanted.items():
        if not isinstance(value := getattr(saved, name), kind):
            yield f"{name} is of type {type(value).__name__}, not {kind.__name__}"
    for state in (saved.state, *saved.standing, *saved.renamed, *saved.renamed.values()):
        if type(state) is not str:  # a member of a StrEnum is its value, not its name
            yield f"states are not all given by name: {state!r} is of type {type(state).__name__}"
    for name in saved.data:
        if not isinstance(name, str):
            yield f"data has a field {name!r}, which is of type {type(name).__name__}"


def _composed(first: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """Both renamings, one after the other."""
    both = {old: then.get(new, new) for old, new in first.items()}
    return {**then, **both}


def _written(
    migration: Registered, values: Mapping[str, Any], before: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Run data as JSON: byte by byte as *before* where nothing was changed."""
    written: dict[str, bytes] = {}
    for name, value in values.items():
        try:
            raw = encode(value)
        except Exception as error:
            raise VersionMismatchError(
                f"{migration} left data[{name!r}] as a value of type {type(value).__name__}, "
                f"which cannot be written down: {error}; use plain JSON values"
            ) from error
        old = before.get(name)
        same = old is not None and encode(msgspec.json.decode(old)) == raw
        written[name] = old if old is not None and same else raw
    return written


def _listed(states: tuple[str, ...]) -> str:
    return ", ".join(states) or "nothing"
