"""What work sees of its run, and what it can say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec.structs import replace

from cano._deadline import Alarm
from cano._host import NOTHING, BranchInfo, Handover, Host, Lookup
from cano.errors import NotJoinedError
from cano.events import Event, Patch, TaskRetried
from cano.join import SplitResult

T = TypeVar("T")

if TYPE_CHECKING:
    # Only type checkers know defaults of type variables before 3.13: a bare Context is one of Any.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from cano._data import Snapshot
    from cano._progress import Signal

    D = TypeVarWithDefault("D", default=Any)
else:
    D = TypeVar("D")


class Context(Generic[D]):
    """What a task may see of, and say to, its run. Each branch of a split has its own."""

    __slots__ = (
        "_alarm",
        "_attempt",
        "_attempted",
        "_durable",
        "_kind",
        "_named",
        "_outer_deadline",
        "_part",
        "_path",
        "_undoing",
        "branch",
        "data",
        "error",
        "handover",
        "host",
        "item",
        "split",
    )

    data: D
    """The run's typed data."""

    def __init__(self, host: Host, path: list[Enum], data: D) -> None:
        self.host: Host = host
        self._kind = host.data_type
        self._durable = host.durable
        self._path = path
        self._alarm: Alarm | None = None
        self._outer_deadline = inf
        self.data = data
        self._attempt = 1
        self._attempted: Enum | None = None
        self._named: tuple[object, int] = (0, 0)
        self._part: Callable[[], str] | None = None  # which of several, between two records
        self._undoing = ""
        self.branch: BranchInfo | None = None
        """The branch this is, inside a split."""
        self.item: Any = None
        """What this branch was made for, in a `Split.over`; for task models, what the verb gets
        besides the context."""
        self.split: SplitResult[Any] | None = None
        """The split joined immediately before this state."""
        self.error: Exception | None = None
        """The failure that led here, in a state reached through `otherwise`."""
        self.handover: Handover = NOTHING
        """For task models: what the next state is to find."""

    def __repr__(self) -> str:
        branch = f", branch {self.branch.name!r}" if self.branch else ""
        return f"<Context of run {self.run_id!r} in {self.state.name}{branch}>"

    @property
    def run_id(self) -> str:
        """The name of the run; given to `run`, or made up when first asked for."""
        return self.host.run_id

    @property
    def state(self) -> Enum:
        """The state the run is in."""
        return self._path[-1]

    @property
    def path(self) -> tuple[Enum, ...]:
        """The states visited so far, this one last: the latest 64 at least."""
        return tuple(self._path)

    @property
    def attempt(self) -> int:
        """Which try of this state's (or branch's) work this is, counted from 1."""
        # A number from an earlier state does not count, so that states need not reset it.
        return self._attempt if self._attempted is self._path[-1] else 1

    @attempt.setter
    def attempt(self, number: int) -> None:
        self._attempt = number
        self._attempted = self._path[-1]

    @property
    def deadline(self) -> float:
        """The loop time at which the nearest timeout strikes, or infinity."""
        own = self._alarm.nearest if self._alarm else inf
        return min(own, self._outer_deadline)

    @property
    def remaining(self) -> float:
        """Seconds until the nearest timeout strikes, or infinity."""
        deadline = self.deadline
        return deadline - asyncio.get_running_loop().time() if deadline < inf else inf

    @property
    def resources(self) -> Lookup:
        """What the workflow's tasks share."""
        return self.host.resources

    @property
    def alarm(self) -> Alarm:
        """For policies: the timer of the asyncio task this context's work runs in."""
        if self._alarm is None:
            self._alarm = Alarm()
        return self._alarm

    def get(self, kind: type[T], name: Hashable = "", /) -> T:
        """Find a resource by type, or by name and type.

        Raises `ResourceNotFoundError` or `ResourceTypeError`, each naming what there is.
        """
        return self.host.resources.get(kind, name)

    def joined(self, kind: type[T], /) -> SplitResult[T]:
        """The split joined immediately before, whose branches returned values of type *kind*.

        The type is for type checkers, and not looked at. Raises `NotJoinedError` where `split` is
        None.
        """
        if self.split is None:
            raise NotJoinedError(
                f"{self.state._name_} was not reached from a split; ctx.joined is for the state "
                "that a Split names as `then`, ctx.split is None elsewhere"
            )
        return self.split

    @property
    def fence(self) -> int:
        """How often the run was taken over, counted from 1; 0 without a store.

        An outside system that refuses numbers below the highest it has seen is safe from an owner
        that was taken for dead and wakes up again.
        """
        return self.host.fence

    @property
    def idempotency_key(self) -> str:
        """A text for outside systems: the same in all attempts and resumes of this visit's work."""
        parts = [self.run_id, str(self.host.visits), self.state._name_]
        return "/".join([*parts, self.branch_name] if self.branch_name else parts)

    def now(self) -> float:
        """Seconds since the epoch, by the run's own clock: it does not jump while it runs."""
        return self.host.now()

    async def sleep(self, seconds: float, /, name: str = "") -> None:
        """Wait. With a store, a resumed run waits only for what is left.

        Sleeps and waits without a *name* are told apart by their order within the attempt.
        """
        if self.host.durable:
            from cano import _progress  # noqa: PLC0415 -- only who has a store pays for it

            await _progress.sleep(self, seconds, name, park=False)
        else:
            await asyncio.sleep(seconds)

    async def pause(self, seconds: float, /) -> None:
        """For policies and task models: wait, on the loop's own time. Nothing is kept of it."""
        await asyncio.sleep(seconds)

    async def wait_signal(
        self, name: str, kind: type[T], /, *, timeout: float | None = None, key: str = ""
    ) -> T:
        """Wait for the signal *name* and return its value, which is a *kind*.

        Signals are kept from the start of the run, first in, first out. With a store any process
        may send them, and a resumed run neither loses one nor takes one twice. *key* names the
        wait itself; see `sleep`. Raises `SignalTimeoutError` after *timeout* seconds, and
        `DataError` for a value that is no *kind*.
        """
        from cano import _progress  # noqa: PLC0415 -- only who waits for signals pays for it

        signal = await _progress.wait(self, _progress.signals(name, kind), timeout, key)
        value: T = signal.value
        return value

    async def wait_signals(
        self, names: Sequence[str], kind: type[T], /, *, timeout: float | None = None, key: str = ""
    ) -> Signal[T]:
        """`wait_signal` for whichever of several comes first: its name and value."""
        from cano import _progress  # noqa: PLC0415

        return await _progress.wait(self, _progress.signals(names, kind), timeout, key)

    async def effect(
        self,
        name: str,
        call: Callable[[], Awaitable[T]],
        /,
        *,
        verify: Callable[[], Awaitable[T | None]] | None = None,
        idempotent: bool = False,
        kind: Any = None,
    ) -> T:
        """Make *call*, which does something outside, once: what it returned is kept.

        With a store, an intent is recorded before and the value after. Where a crash fell between
        the two, the resumed run asks *verify*, which returns the value if it happened and None if
        not; or, if the effect is *idempotent*, makes the call again; or else stops with
        `EffectInDoubtError` for a person to decide. What is done is not repeated in later attempts
        either. The value is kept as JSON, and read as the return annotation of *call*, or *kind*.
        Without a store *call* is made, and that is all.
        """
        if not self.host.durable:
            return await call()
        from cano import _progress  # noqa: PLC0415 -- only who has a store pays for it
        from cano._values import returns_of, value_type  # noqa: PLC0415

        said = returns_of(call) if kind is None else kind
        read = value_type(said, f"effect {name!r}")
        return await _progress.effect(self, name, call, read, verify, idempotent=idempotent)

    def first_attempt(self) -> int:
        """For policies: which attempt is the next one, those before a restart counted in."""
        failed = self.host.history.visit.of("attempt", self.branch_name)
        around = self._around
        if failed is None or (around is not None and around.sequence > failed.sequence):
            return 1
        attempt: int = failed.attempt
        return attempt + 1

    @property
    def _around(self) -> TaskRetried | None:
        """In the item of a batch: the last failure of the whole of it, which began all items anew."""
        visit = self.host.history.visit
        return visit.of("attempt") if self.branch is not None else None

    @property
    def branch_name(self) -> str:
        """The name of this branch; empty outside a split."""
        return self.branch.name if self.branch else self._undoing

    def begin(self) -> None:
        """For the engine: a visit, or a step of one, begins; what has no name is counted anew."""
        self._attempt, self._named = 1, (0, 0)

    def next_name(self) -> str:
        """For task models: a name for what has none, the same when the attempt is resumed."""
        place = str(self.attempt) if self._part is None else f"{self._part()}.{self.attempt}"
        latest, number = self._named
        number = number + 1 if latest == place else 1
        self._named = (place, number)
        around = self._around
        return f"{place}.{number}" if around is None else f"{around.attempt + 1}/{place}.{number}"

    def listens(self, kind: type[Event], /) -> bool:
        """Whether anybody wants events of *kind*; what nobody wants need not be built."""
        return self.host.listens(kind)

    def emit(self, event: Event, /) -> None:
        """Announce *event* to the observers, with this state, attempt and branch. Not kept."""
        if self.listens(type(event)):
            self.host.announce(self._placed(event))

    async def record(self, event: Event, /) -> None:
        """For task models: make *event* part of the run's history, then announce it.

        With a store it is on disk when this returns.
        """
        await self.host.record(self._placed(event))

    async def keep(self, event: Event, /) -> None:
        """For task models: `record` where a store keeps it, `emit` elsewhere."""
        if self.host.durable:
            await self.record(event)
        else:
            self.emit(event)

    def defer(self, event: Event, /) -> None:
        """For task models: `record` *event* together with whatever is recorded next."""
        if self.host.durable:
            self.host.defer(self._placed(event))
        else:
            self.emit(event)

    def changes(self) -> Patch | None:
        """What of the run data is not in the history yet; None if nothing is, or nothing is kept.

        Raises `DataError` for data that cannot be written down.
        """
        if self._kind is None or self.branch is not None or not self.host.durable:
            return None
        return self._kind.changes(self.data, self.host.history.fields)

    def _placed(self, event: Event) -> Event:
        where = {"state": self._path[-1]._name_, "attempt": self.attempt}
        return replace(event, branch=self.branch_name, **where)

    def snapshot(self) -> Snapshot | None:
        """For policies: the run data as it is now, written down; None if there is none.

        Nor is there one in a branch, which leaves the data alone.
        """
        if self._kind is None or self.branch is not None:
            return None
        return self._kind.snapshot(self.data)

    def restore(self, saved: Snapshot | None) -> None:
        """For policies: bring the run data back to what was saved."""
        if self._kind is not None and saved is not None:
            self.data = self._kind.restore(self.data, saved)

    def for_branch(self, branch: BranchInfo, deadline: float) -> Context[D]:
        """For task models: the context of one branch. It runs in an asyncio task of its own."""
        context = Context(self.host, self._path, self.data)
        context._outer_deadline = deadline
        context.branch = branch
        context.item = branch.item
        context.split = self.split
        context.error = self.error
        return context

    def for_undo(self, state: Enum, what: str, value: object) -> Context[D]:
        """For the rollback: the context in which the work of *state* is undone with *value*."""
        context = Context(self.host, [*self._path, state], self.data)
        context.item = value
        context._undoing = what
        return context

    @contextmanager
    def apart(self) -> Generator[None]:
        """For task models: work in another asyncio task meanwhile, with a timer of its own."""
        alarm, beyond = self._alarm, self._outer_deadline
        self._outer_deadline, self._alarm = self.deadline, None
        try:
            yield
        finally:
            self.close()
            self._alarm, self._outer_deadline = alarm, beyond

    def close(self) -> None:
        """For whoever drives: let go of the timer."""
        if self._alarm is not None:
            self._alarm.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a copy that can be read but has no run to speak to."""
        from cano._detached import detached  # noqa: PLC0415 -- only who leaves the process needs it

        plain = (self.run_id, self.state, self.data, self.attempt, self.branch)
        return detached, (*plain, self.split, self.error)
