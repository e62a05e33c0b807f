"""Puts the events of one run into its store, in order.

Rule 1: the number of an event is taken when it is queued. Branches record side by side, and share
        whatever transaction their events fall into; no lock holds them apart.
Rule 2: an event is folded into the history, and announced, when it is on disk, in that order.
Rule 3: an append that failed, or whose outcome nobody knows, is the last thing this process does
        to the run. Whoever asks afterwards is told the same.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec.structs import force_setattr

from cano.checkpoints.store import CheckpointStore, NewRun, Status
from cano.errors import CheckpointError
from cano.events import Event

Told: TypeAlias = Callable[[Event], None]


class Journal:
    """One owner's pen."""

    __slots__ = ("_deferred", "broken", "epoch", "run_id", "sequence", "store")

    def __init__(self, store: CheckpointStore, run_id: str) -> None:
        self.store: CheckpointStore = store
        self.run_id: str = run_id
        self.epoch: int = 1
        self.sequence: int = 0
        """The number of the last event that was queued."""
        self.broken: CheckpointError | None = None
        """What ended the writing, if something did."""
        self._deferred: list[Event] = []

    def defer(self, event: Event) -> None:
        """Write *event* together with what is written next."""
        self._deferred.append(event)

    async def create(self, run: NewRun, events: Sequence[Event], told: Told) -> None:
        """Begin the run with *events*. Raises `RunExistsError`."""
        self._number(events, run.time)
        future = self.store.create(run, events)
        try:
            await future
        except BaseException:
            self._failed(future, events, told)
            raise
        for event in events:
            told(event)

    async def write(
        self, events: Sequence[Event], now: float, status: Status | None, told: Told
    ) -> None:
        """Add *events* to the run, and tell *told* of each; they are on disk when this returns.

        A cancellation meanwhile is delivered afterwards: there is no half of an append. Raises
        `CheckpointError`.
        """
        if self.broken is not None:
            raise self.broken
        if self._deferred:
            events = (*self._deferred, *events)
            self._deferred.clear()
        self._number(events, now)
        try:
            future = self.store.append(self.run_id, self.epoch, events, status)
        except BaseException as error:
            self.broken = _as_checkpoint_error(error)
            raise
        try:
            await future
        except BaseException:
            self._failed(future, events, told)
            raise
        for event in events:
            told(event)

    def _failed(self, future: Future[None], events: Sequence[Event], told: Told) -> None:
        """What an await that raised means: the append failed, or it is kept and we are cancelled."""
        if not future.done():
            self.broken = CheckpointError("an append was broken off; resume the run")
        elif (error := future.exception()) is not None:
            self.broken = self.broken or _as_checkpoint_error(error)
        else:
            for event in events:
                told(event)

    def _number(self, events: Sequence[Event], now: float) -> None:
        """Give *events* their numbers and their time.

        They were made to be recorded, and nobody else has them yet: so they may be filled in.
        """
        for event in events:
            self.sequence += 1
            force_setattr(event, "sequence", self.sequence)
            force_setattr(event, "time", now)


def _as_checkpoint_error(error: BaseException) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    wrapped = CheckpointError(f"the store raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
