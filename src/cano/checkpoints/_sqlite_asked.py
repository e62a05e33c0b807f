"""What the writing thread is asked for, and how the answers come back.

An answer is a future of the loop that asked. All answers of one transaction reach a loop in one
call, in the order of the questions, and a task that waits for one goes on within that call: a
turn of the loop for each would be a good part of what a durable step costs.

The loop is woken by a descriptor of our own, where the system has such. `call_soon_threadsafe`
does the same, but what it sends is read twice, the second time in vain, and only after the tasks
went on: just when the thread, woken by what they asked for, wants the interpreter for itself.
"""

from __future__ import annotations

import os
import sys
from asyncio import AbstractEventLoop, Future
from collections import deque
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


class Asker:
    """A loop that asks, and how answers reach it. Made, used and closed in the loop's thread."""

    __slots__ = ("_answered", "_bell", "_waiting", "gathered", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop: AbstractEventLoop = loop
        self.gathered: list[Asked] = []
        """What is asked for in the present turn of the loop, while others are waited for."""
        self._waiting = 0
        """How many answers are still to come."""
        self._answered: deque[Sequence[Asked]] = deque()
        self._bell = _bell(loop, self._ring)

    def expect(self, more: int) -> None:
        """So many questions were put. A loop in virtual time must not jump ahead meanwhile."""
        self._waiting += more
        virtual: Any = self.loop
        if hasattr(virtual, "busy_threads"):
            virtual.busy_threads += more

    def answer(self, batch: Sequence[Asked]) -> None:
        """Let the loop give these answers. Called by the writing thread."""
        self._answered.append(batch)
        if self._bell is not None:
            os.eventfd_write(self._bell, 1)
        else:
            with suppress(RuntimeError):  # it was closed, and nobody waits there any more
                self.loop.call_soon_threadsafe(self._give, 1)

    def close(self) -> bool:
        """Whether the descriptor is closed: not while the thread has something to write to it."""
        if self._waiting:
            return False
        bell, self._bell = self._bell, None
        if bell is not None:
            if not self.loop.is_closed():
                self.loop.remove_reader(bell)
            os.close(bell)
        return True

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        """The store was never closed, and is gone."""
        if self._bell is not None:
            close(self._bell)

    def _ring(self) -> None:
        if self._bell is not None:
            # As many as were rung for: where none is waited for, the thread has done its writing.
            self._give(os.eventfd_read(self._bell))

    def _give(self, batches: int) -> None:
        batch = [asked for _ in range(batches) for asked in self._answered.popleft()]
        self.expect(-len(batch))
        self._go_on(iter(batch))

    def _go_on(self, rest: Iterator[Asked]) -> None:
        try:
            for asked in rest:
                asked.answer.give()
        except BaseException:  # such as SystemExit, which ends the loop: the others' answers stand
            self.loop.call_soon(self._go_on, rest)
            raise


def _bell(loop: AbstractEventLoop, ring: Callable[[], None]) -> int | None:
    """A descriptor that makes *loop* call *ring* when it is written to, if there can be one."""
    if sys.platform != "linux":
        return None
    bell = None
    try:
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(bell, ring)
    except (OSError, NotImplementedError):  # there are no more, or not in this loop
        if bell is not None:
            os.close(bell)
        return None
    return bell


class Askers(dict[AbstractEventLoop, Asker]):
    """Every loop that asks one writer."""

    def __missing__(self, loop: AbstractEventLoop) -> Asker:
        """The first question of a loop. Those that are over are let go."""
        for other in list(self.values()):
            if other.loop.is_closed():
                self.part(other)
        asker = self[loop] = Asker(loop)
        return asker

    def part(self, asker: Asker) -> None:
        """Let go of *asker*, if it waits for nothing."""
        if asker.close():
            self.pop(asker.loop, None)


class Asked(msgspec.Struct, gc=False):
    """Something to be done in a transaction, and where the answer is awaited."""

    asker: Asker
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
    for asker, asked in groupby(batch, attrgetter("asker")):
        asker.answer(list(asked))


def announce(tell: Callable[[str], None], news: Sequence[str]) -> None:
    """Tell one listener, on its loop."""
    for run_id in news:
        tell(run_id)
