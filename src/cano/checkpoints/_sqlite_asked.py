"""What the writing thread is asked for, and how the answers come back.

An answer is a future of the loop that asked. All answers of one transaction reach a loop in one
call, in the order of the questions, and a task that waits for one goes on within that call: a
turn of the loop for each would be a good part of what a durable step costs.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

import msgspec

from cano.checkpoints._sqlite_changes import Change, Changes
from cano.checkpoints.store import NewRun, Status
from cano.errors import CheckpointError
from cano.events import Event


class Answer(Future[Any]):
    """Cannot be cancelled: what is in the queue will be done, and whoever waits will know.

    asyncio delivers a cancellation of the task that waits when the answer is there.
    """

    __slots__ = ("outcome", "waiter")

    outcome: Any
    """What the thread says: a value, or an exception to be raised."""
    waiter: tuple[Callable[[Any], object], Context] | None
    """Calls the task that waits. Both are set by whoever makes one: an `__init__` is dear."""

    def cancel(self, msg: Any | None = None) -> bool:
        """No."""
        return False

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """As ever, but for the first task that waits: it says in which context it is woken."""
        if context is None or self.waiter is not None or self.done():
            super().add_done_callback(fn, context=context)
        else:
            self.waiter = fn, context

    def give(self) -> None:
        """Be done, and let the task that waits go on."""
        outcome, waiter = self.outcome, self.waiter
        if outcome is None or not isinstance(outcome, BaseException):
            self.set_result(outcome)
        else:
            self.set_exception(outcome)
        if waiter is not None:
            self.waiter = None
            waiter[1].run(waiter[0], self)


class Asked(msgspec.Struct, gc=False):
    """Something to be done in a transaction, and where the answer is awaited."""

    loop: AbstractEventLoop
    answer: Answer

    def apply(self, changes: Changes) -> Any:
        """Do it. What it returns is the answer."""
        return None


class AskedToCreate(Asked, gc=False):
    """See `CheckpointStore.create`."""

    new: NewRun
    events: Sequence[Event]
    bodies: Sequence[bytes]

    def apply(self, changes: Changes) -> None:
        changes.create(self.new, self.events, self.bodies)


class AskedToAppend(Asked, gc=False):
    """See `CheckpointStore.append`."""

    run_id: str
    epoch: int
    events: Sequence[Event]
    bodies: Sequence[bytes]
    status: Status | None

    def apply(self, changes: Changes) -> None:
        changes.append(self.run_id, self.epoch, self.events, self.bodies, self.status)


class AskedToChange(Asked):
    """Anything else."""

    change: Change

    def apply(self, changes: Changes) -> Any:
        return self.change(changes)


class AskedToClose(Asked):
    """Everything asked before is done, then the file is let go."""


def apply(batch: Iterable[Asked], changes: Changes) -> None:
    """Do what is asked, in order. Each outcome is a value, or the error to be raised."""
    for asked in batch:
        try:
            asked.answer.outcome = asked.apply(changes)
        except CheckpointError as error:
            asked.answer.outcome = error.with_traceback(None)


def deliver(batch: Iterable[Asked]) -> None:
    """Answer on the loops that asked."""
    for loop, asked in groupby(batch, attrgetter("loop")):
        with suppress(RuntimeError):  # it was closed, and nobody waits there any more
            loop.call_soon_threadsafe(_give, loop, list(asked))


def _give(loop: AbstractEventLoop, batch: list[Asked]) -> None:
    busy(loop, -len(batch))
    _go_on(loop, iter(batch))


def _go_on(loop: AbstractEventLoop, rest: Iterator[Asked]) -> None:
    try:
        for asked in rest:
            asked.answer.give()
    except BaseException:  # such as SystemExit, which ends the loop: the others' answers stand
        loop.call_soon(_go_on, loop, rest)
        raise


def announce(tell: Callable[[str], None], news: Sequence[str]) -> None:
    """Tell one listener, on its loop."""
    for run_id in news:
        tell(run_id)


def busy(loop: AbstractEventLoop, more: int) -> None:
    """Tell a loop in virtual time how much threads do for it: its time must not jump ahead."""
    virtual: Any = loop
    if hasattr(virtual, "busy_threads"):
        virtual.busy_threads += more
