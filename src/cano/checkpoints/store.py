"""The contract of a store: where histories live, and who owns the runs they belong to.

Rule 1: an event is durable when its `append` is done, and never changed afterwards.
Rule 2: whoever appends says as which owner's *epoch*. An old epoch, or a sequence number that is
        taken, raises, and nothing is written; claiming a run raises its epoch. All of it is decided
        in the transaction that writes. That one rule makes two workers on one run safe.
Rule 3: a store never asks what time it is. Times are seconds since the epoch, and come from the
        caller. (A store for many machines may use its database's clock for leases alone.)
Rule 4: everything may be called from many tasks at once, and from several event loops.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from enum import StrEnum
from math import inf
from typing import Protocol, runtime_checkable

import msgspec

from cano._history import CANCEL, RESOLVE
from cano.events import Event

__all__ = [
    "CANCEL", "RESOLVE", "CheckpointStore", "Claim", "Due", "Message", "NewRun", "Owner",
    "RunQuery", "RunSummary", "Status",
]  # fmt: skip


class Status(StrEnum):
    """What is to become of a run. The first three are open, the others are its end."""

    RUNNING = "running"
    """Somebody carries it out, or should."""
    WAITING = "waiting"
    """It waits for a signal or a moment; nobody holds it."""
    IN_DOUBT = "in doubt"
    """It waits for a person, who says whether an effect happened; nobody holds it."""
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self in (Status.FINISHED, Status.FAILED, Status.CANCELLED)


class Owner(msgspec.Struct, frozen=True):
    """One workflow scope of one process. A restarted process is another owner."""

    id: str
    host: str = ""
    """The machine, boot and process namespace in which *pid* means something."""
    pid: int = 0
    started: str = ""
    """When the process started, in the words of its machine; a later process may have its pid."""


class NewRun(msgspec.Struct, frozen=True):
    """What a store notes of a run besides its events."""

    run_id: str
    workflow: str
    owner: str
    """The `Owner.id`; its lease was renewed before."""
    time: float
    version: int = 0
    fingerprint: str = ""
    tags: tuple[str, ...] = ()
    generated_id: bool = False
    """Whether *run_id* was generated for this run, so that a store need not look for another."""


class RunSummary(msgspec.Struct, frozen=True):
    """A run at a glance."""

    run_id: str
    workflow: str
    status: Status
    state: str
    """That of its last event."""
    sequence: int
    """How many events it has."""
    created: float
    ended: float | None = None
    version: int = 0
    fingerprint: str = ""
    tags: tuple[str, ...] = ()
    epoch: int = 1
    owner: str = ""
    """Who carries it out, or was the last to; empty when it was let go."""
    lease: float = 0.0
    """Until when its owner need not be asked; 0 without an owner."""
    wake: float = 0.0
    """Until when it waits; infinity for a signal without a limit."""
    crashes: int = 0
    """How often in a row it was claimed from an owner that was lost, without an event since."""

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self.status.over


class RunQuery(msgspec.Struct, frozen=True):
    """Which runs to list; newest first. What is left out does not matter."""

    workflow: str | None = None
    statuses: tuple[Status, ...] = ()
    """Any of these; empty is all."""
    tag: str | None = None
    since: float | None = None
    """Created at this time or later."""
    before: float | None = None
    """Created earlier than this."""
    stuck: int | None = None
    """Open, and with at least so many crashes in a row."""
    after: str | None = None
    """Only runs behind this one in the list: the last `run_id` of the page before."""
    limit: int = 50


class Message(msgspec.Struct, frozen=True):
    """Something sent to a run from outside: a signal, a request."""

    number: int
    """Counts the messages of the run, from 1, in the order they came."""
    name: str
    value: bytes
    """As JSON."""
    time: float = 0.0
    key: str = ""


class Claim(msgspec.Struct, frozen=True):
    """A run, taken over."""

    epoch: int
    sequence: int
    """How many events the run has, `RunClaimed` included."""


class Due(msgspec.Struct, frozen=True):
    """Which runs nobody carries out although somebody should."""

    runs: tuple[str, ...]
    next: float = inf
    """When to ask again at the latest: a wait or a lease ends then. Infinity if none does."""


@runtime_checkable
class CheckpointStore(Protocol):
    """Where histories live. `cano.testing.check_checkpoint_store` tests an implementation.

    Every method may raise `CheckpointError`, which says what is wrong with the store itself and
    what to do; transient trouble (busy, a lost connection) is tried again inside, within a limit.
    """

    def create(self, run: NewRun, events: Sequence[Event], /) -> Future[None]:
        """Begin a run, owned at epoch 1, whose first *events* are numbered from 1.

        Like `append` it takes its place when it is called. Raises `RunExistsError`.
        """
        ...

    def append(
        self,
        run_id: str,
        epoch: int,
        events: Sequence[Event],
        status: Status | None = None,
        /,
    ) -> Future[None]:
        """Add *events*, all or none, to the run; done when they are on disk.

        Each carries its number in `Event.sequence`. In an `Event.patch` texts, whole numbers and
        truth values may be themselves; loaded they are JSON, as all others. `RunMigrated` gives the
        run's row its version and fingerprint. The place in the order is taken when this is called,
        not when it is awaited. With a *status* that is new, it is noted with the events; an end
        also lets go of the run and is dated by the last event. The future cannot be cancelled:
        whoever awaits it learns of a cancellation afterwards. Raises `RunLostError` for an old
        epoch or a number that is taken.
        """
        ...

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        """Take over an open run whose owner is none, or whose owner's lease is over.

        Raises the epoch, appends `RunClaimed`, and makes its status RUNNING. Counts a crash if the
        run was not let go and has no event but `RunClaimed` since it was last claimed; if it has
        others, the count starts again at 1. A run that was let go keeps its count, unless it has
        made progress: then it is 0.

        Raises `RunNotFoundError`, `RunEndedError`, or `RunOwnedError` saying by whom and until
        when. An owner that claims its own run again is refused too.
        """
        ...

    async def reopen(
        self, run_id: str, owner: str, now: float, /, *, finished: bool = False
    ) -> Claim:
        """`claim` for a run that has FAILED or was CANCELLED; its status is RUNNING afterwards.

        Appends `RunReopened`, with the number of the run's last message, instead of `RunClaimed`.

        Raises `RunNotFoundError`, `RunOwnedError` if it is open, `RunEndedError` if it FINISHED.
        With *finished* it is the other way round: only a run that FINISHED may be reopened.
        """
        ...

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        """Let go of the run, to be claimed from *wake* on, or as soon as a message comes.

        If a message after number *seen* is there already, it may be claimed at once. Letting go
        of a run with an old epoch changes nothing.
        """
        ...

    async def renew(self, owner: Owner, now: float, until: float, /) -> bool:
        """Say that *owner* lives, and holds all its runs until *until*.

        One row, however many runs there are. False if its lease was over at *now* (or there was
        none), so that others may have claimed what it holds.
        """
        ...

    async def owners(self, host: str, now: float, /) -> Sequence[Owner]:
        """The owners on *host* whose lease is not over."""
        ...

    async def expire(self, owner: str, /) -> None:
        """End the lease of an owner that is known to be dead, or is closing."""
        ...

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        """The events of the run with numbers above *after*, in order, at most *limit*.

        Empty for an unknown run. Raises `CorruptHistoryError`, naming run and number, for an event
        that cannot be read.
        """
        ...

    async def summary(self, run_id: str, /) -> RunSummary:
        """The run at a glance. Raises `RunNotFoundError`."""
        ...

    async def runs(self, query: RunQuery, /) -> Sequence[RunSummary]:
        """The runs *query* asks for, newest first; of the same age by `run_id`, the last first."""
        ...

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        """At most *limit* runs of *workflow* to be claimed, the longest overdue first.

        Those are open runs, IN_DOUBT ones included, that have no owner or one whose lease is over,
        do not wait beyond *now*, and have fewer than *crashes* crashes.
        """
        ...

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        """Leave a message for the run; if nobody holds it, it may be claimed at once.

        Returns its number.

        A second message with the same *key*, unless that is empty, is the first one. Raises
        `RunNotFoundError` or `RunEndedError`.
        """
        ...

    async def inbox(self, run_id: str, after: int = 0, /) -> Sequence[Message]:
        """The messages of the run with numbers above *after*, in order."""
        ...

    def listen(self, tell: Callable[[str], None], /) -> Callable[[], None]:
        """Call *tell*, on the running loop, when something happened that may be worth a look.

        That is: a message was sent to the run named, by whatever process, or it ended or was let
        go; or, with an empty name, something else was written by another process. May be told too
        often, never too rarely, and within a second. Returns what ends it.
        """
        ...

    async def define(self, fingerprint: str, shape: bytes, /) -> None:
        """Keep the description of a workflow, once per *fingerprint*."""
        ...

    async def definition(self, fingerprint: str, /) -> bytes | None:
        """What `define` kept."""
        ...

    async def note(self, key: str, value: bytes, was: bytes | None, /) -> bool:
        """Keep a small *value* that belongs to no run, if what is kept under *key* is *was*.

        None stands for nothing. Returns whether it is kept now: of several who change the same
        note at once exactly one does.
        """
        ...

    async def noted(self, key: str, /) -> bytes | None:
        """What `note` kept."""
        ...

    async def delete(self, run_ids: Sequence[str], /) -> int:
        """Forget these runs, with all that belongs to them; open ones are left. Returns how many."""
        ...

    async def ended(
        self, workflow: str | None, before: float, keep: int, limit: int, /
    ) -> list[str]:
        """At most *limit* runs that ended before *before*, or are not among the latest *keep*.

        The oldest first: what a retention policy may `delete`.
        """
        ...

    async def check(self) -> Sequence[str]:
        """What is wrong with the store, looked at thoroughly; empty if nothing is."""
        ...

    async def close(self) -> None:
        """Finish what was begun, and let go of files and connections. Using it again reopens it."""
        ...
