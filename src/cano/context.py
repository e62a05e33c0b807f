"""What work sees of its run, and what it can say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from cano._deadline import Alarm
from cano.errors import DetachedContextError, NotJoinedError
from cano.events import Event
from cano.join import SplitResult

T = TypeVar("T")

if TYPE_CHECKING:
    # Only type checkers know defaults of type variables before 3.13: a bare Context is one of Any.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from cano._data import DataType, Snapshot

    D = TypeVarWithDefault("D", default=Any)
else:
    D = TypeVar("D")


class BranchInfo(msgspec.Struct, frozen=True):
    """Which branch of a split this is, and the item it was made for."""

    index: int
    name: str
    item: Any = None


class Lookup(Protocol):
    """Where a context finds its resources."""

    def get(self, kind: type[T], name: Hashable = "", /) -> T: ...
    def __getitem__(self, name: Hashable, /) -> object: ...


class Host(Protocol):
    """What a context needs of the run it belongs to. The engine's `Run` is one."""

    @property
    def run_id(self) -> str: ...
    @property
    def resources(self) -> Lookup: ...
    @property
    def data_type(self) -> DataType[Any] | None: ...
    def listens(self, kind: type[Event], /) -> bool: ...
    def announce(self, event: Event, /) -> None: ...
    async def record(self, event: Event, /) -> None: ...


class Handover(NamedTuple):
    """What a visit leaves for the very next one: the split it joined, the error it routed."""

    split: SplitResult[Any] | None = None
    error: Exception | None = None


NOTHING = Handover()


class Context(Generic[D]):
    """What a task may see of, and say to, its run. Each branch of a split has its own."""

    __slots__ = (
        "_alarm",
        "_attempt",
        "_attempted",
        "_kind",
        "_outer_deadline",
        "_path",
        "branch",
        "data",
        "error",
        "handover",
        "host",
        "split",
    )

    data: D
    """The run's typed data."""

    def __init__(self, host: Host, path: list[Enum], data: D) -> None:
        self.host: Host = host
        self._kind = host.data_type
        self._path = path
        self._alarm: Alarm | None = None
        self._outer_deadline = inf
        self.data = data
        self._attempt = 1
        self._attempted: Enum | None = None
        self.branch: BranchInfo | None = None
        """The branch this is, inside a split."""
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
    def item(self) -> Any:
        """What this branch was made for, in a `Split.over`."""
        return self.branch.item if self.branch else None

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

    async def sleep(self, seconds: float, /) -> None:
        """Wait, on the loop's own time."""
        await asyncio.sleep(seconds)

    def listens(self, kind: type[Event], /) -> bool:
        """Whether anybody wants events of *kind*; what nobody wants need not be built."""
        return self.host.listens(kind)

    def emit(self, event: Event, /) -> None:
        """Announce *event* to the observers, with this state, attempt and branch. Not kept."""
        if self.listens(type(event)):
            branch = self.branch.name if self.branch else ""
            where = {"state": self._path[-1]._name_, "attempt": self.attempt, "branch": branch}
            self.host.announce(replace(event, **where))

    async def record(self, event: Event, /) -> None:
        """Make *event* part of the run's history, then announce it."""
        await self.host.record(event)

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
        context.split = self.split
        context.error = self.error
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
        plain = (self.run_id, self.state, self.data, self.attempt, self.branch)
        return _detached, (*plain, self.split, self.error)


class _Detached:
    """Stands where the run was, in a context that was sent to another process."""

    data_type = None

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def listens(self, kind: type[Event], /) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise DetachedContextError(
            "this context was sent to another process: it knows run_id, state, data, attempt, "
            "branch, item, split and error, but "
            f"has no {name}; pass what the function needs as an argument"
        )


def _detached(  # noqa: PLR0917 -- pickle passes them by position
    run_id: str,
    state: Enum,
    data: Any,
    attempt: int,
    branch: BranchInfo | None,
    split: SplitResult[Any] | None,
    error: Exception | None,
) -> Context[Any]:
    host: Any = _Detached(run_id)
    context = Context(host, [state], data)
    context.attempt = attempt
    context.branch = branch
    context.split = split
    context.error = error
    return context
