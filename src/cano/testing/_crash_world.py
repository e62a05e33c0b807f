"""What outlives a process under `crash_everywhere`: the store, and the world outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cano._data import encode
from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CANCEL, CheckpointStore
from cano.context import Context
from cano.errors import DefinitionError, RunEndedError
from cano.testing._crash_store import CrashStore
from cano.testing.faults import SimulatedCrash

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was done."""

    life: int
    """In which process; the first is 1."""
    what: str
    key: str = ""
    late: bool = False
    """By a process that had stood still for too long, and did not know it yet."""
    run_id: str = ""
    """Of what `World.ran` was told: the run, ..."""
    visit: int = 0
    """... the number of its visit, ..."""
    state: str = ""
    branch: str = ""
    """... and its branch."""
    undone: int = 0
    """The number of the event that completed what was undone; 0 where work was done."""

    def __str__(self) -> str:
        late = ", too late" if self.late else ""
        return f"{self.what} {self.key}".rstrip() + f" (process {self.life}{late})"


class Outside:
    """All that no crash takes back."""

    def __init__(self) -> None:
        self.store: CheckpointStore = MemoryCheckpoints()
        self.ledger: list[Deed] = []
        self.kept: dict[Any, Any] = {}

    def save(self) -> None:
        """What a dead process still does to what was kept is lost, as far as it can be copied."""
        for key, thing in list(self.kept.items()):
            with suppress(Exception):
                self.kept[key] = deepcopy(thing)


class World:
    """One process, as the workflow under test sees it.

    It outlives nothing: each process is given its own. Once it is dead, every use of it raises
    `SimulatedCrash`.
    """

    def __init__(self, outside: Outside, life: int, store: CrashStore, run_id: str) -> None:
        self.life: int = life
        """Which process this is; the first is 1."""
        self.run_id: str = run_id
        self._store = store
        self._outside = outside
        self._late = False

    def __repr__(self) -> str:
        return f"<World of process {self.life}: {len(self._outside.ledger)} deeds>"

    @property
    def store(self) -> CrashStore:
        """The store that the workflow has to use."""
        return self._store

    @property
    def ledger(self) -> tuple[Deed, ...]:
        """What was done so far, by all processes."""
        return tuple(self._outside.ledger)

    def breathe(self) -> None:
        """Raise `SimulatedCrash` if the process is dead: no code of it runs any more."""
        if self._store.dead:
            raise SimulatedCrash("the process is dead already")

    def did(self, what: str, key: object = "") -> None:
        """Say that something was done outside which must be done exactly once.

        More exactly: as often as without a crash, for each *key*.
        """
        self._note(Deed(self.life, what, str(key), self._late))

    def ran(self, ctx: Context[Any], what: str = "ran") -> None:
        """Say that the work of a state, a branch, an item or a compensation was begun.

        That may happen again when a crash came in its midst, and never once it is recorded.
        """
        key, branch = ctx.idempotency_key, ctx.branch_name
        where = ctx.run_id, ctx.host.visits, ctx.state.name, branch
        label, _, number = branch.partition(" ")
        undone = int(number) if label == "undo" and number.isdecimal() else 0
        self._note(Deed(self.life, what, key, self._late, *where, undone))

    def times(self, what: str, key: object = "") -> int:
        """How often that was done so far, by all processes."""
        self.breathe()
        return sum((deed.what, deed.key) == (what, str(key)) for deed in self._outside.ledger)

    def keep(self, make: Callable[[], T], name: str = "") -> T:
        """The fake of an outside system: made once, and found again by every later process.

        *name* tells several of the same *make* apart; a function is known by where it is written. It should be possible to `deepcopy` it: a
        process that died then cannot change what the next one finds.
        """
        self.breathe()
        key = name or _place(make)
        if key not in self._outside.kept:
            self._outside.kept[key] = make()
        found: T = self._outside.kept[key]
        return found

    async def send(self, name: str, value: object = None, key: str = "") -> None:
        """For `outside=`: send the run a signal, once per *key*, or per name without one."""
        await self._tell(name, encode(value), key or name)

    async def cancel(self) -> None:
        """For `outside=`: ask the run to end."""
        await self._tell(CANCEL, b"null", CANCEL)

    async def _tell(self, name: str, value: bytes, key: str) -> None:
        store, loop = self._outside.store, asyncio.get_running_loop()
        with suppress(RunEndedError):
            await store.send(self.run_id, name, value, loop.time(), key)

    def _note(self, deed: Deed) -> None:
        self.breathe()
        self._outside.ledger.append(deed)


def _place(make: Callable[[], Any]) -> object:
    """What is the same of a class or a function that every process defines for itself."""
    if isinstance(make, type):
        return make.__module__, make.__qualname__
    if isinstance(make, partial):
        raise DefinitionError(f"world.keep({make!r}) would make it anew every time; pass name=")
    return getattr(make, "__code__", make)
