"""What the writing thread is asked for, and how the answers come back.

An answer is a future of the loop that asked. All answers of one transaction reach a loop in one
call, in the order of the questions.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from cano.checkpoints._sqlite_changes import Change, Changes
from cano.checkpoints.store import NewRun, Status
from cano.errors import CheckpointError
from cano.events import Event


class Answer(Future[Any]):
    """Cannot be cancelled: what is in the queue will be done, and whoever waits will know.

    asyncio delivers a cancellation of the task that waits when the answer is there.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        """No."""
        return False


class Asked(msgspec.Struct, gc=False):
    """Something to be done in a transaction, and where the answer is awaited."""

    loop: AbstractEventLoop
    answer: Future[Any]

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


def apply(batch: Sequence[Asked], changes: Changes) -> list[Any]:
    """Do what is asked, in order. Each answer is a value, or the error to be raised."""
    answers: list[Any] = []
    for asked in batch:
        try:
            answers.append(asked.apply(changes))
        except CheckpointError as error:
            answers.append(error.with_traceback(None))
    return answers


def deliver(batch: Sequence[Asked], answers: Sequence[Any]) -> None:
    """Answer on every loop that asked, once for each."""
    first = batch[0].loop
    if all(asked.loop is first for asked in batch):  # as nearly always
        given = [(asked.answer, answer) for asked, answer in zip(batch, answers, strict=True)]
        with suppress(RuntimeError):
            first.call_soon_threadsafe(_give, first, given)
        return
    loops: dict[AbstractEventLoop, list[tuple[Future[Any], Any]]] = {}
    for asked, answer in zip(batch, answers, strict=True):
        loops.setdefault(asked.loop, []).append((asked.answer, answer))
    for loop, given in loops.items():
        with suppress(RuntimeError):  # it was closed, and nobody waits there any more
            loop.call_soon_threadsafe(_give, loop, given)


def _give(loop: AbstractEventLoop, given: list[tuple[Future[Any], Any]]) -> None:
    for future, answer in given:
        if answer is None:
            future.set_result(None)
        elif isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
    busy(loop, -len(given))


def announce(tell: Callable[[str], None], news: Sequence[str]) -> None:
    """Tell one listener, on its loop."""
    for run_id in news:
        tell(run_id)


def busy(loop: AbstractEventLoop, more: int) -> None:
    """Tell a loop in virtual time how many threads work for it: its time must not jump ahead."""
    virtual: Any = loop
    if hasattr(virtual, "busy_threads"):
        virtual.busy_threads += more
