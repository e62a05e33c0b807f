"""One of many: the run of one input, from before it is started until its outcome is known."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from cano._deadline import AGAIN
from cano.errors import CheckpointError, RunCancelledError
from cano.handle import RunHandle
from cano.tasks.task import S

if TYPE_CHECKING:
    from cano.concurrent import many

D = TypeVar("D")
Ended = Literal["succeeded", "failed", "cancelled"]
_log = logging.getLogger("cano.concurrent")


class RunOutcome(msgspec.Struct, Generic[S, D], frozen=True):
    """What became of the run of one input."""

    index: int
    """Of its input, counted from 0."""
    status: Literal["succeeded", "failed", "cancelled", "not started"] = "not started"
    run_id: str = ""
    """Empty if the run was not started."""
    state: S | None = None
    """The exit; for a run that failed or was cancelled where that was, if it is known."""
    data: D | None = None
    """The run's data as the run left it."""
    error: BaseException | None = None
    """What ended it, if that was no exit."""


class Instance(Generic[S, D]):
    """One input's run, from before it is started until its outcome is known."""

    __slots__ = ("_error", "_given", "_handle", "_index", "_many", "task")

    def __init__(self, many: many[S, D], index: int, given: D) -> None:
        self._many = many
        self._index = index
        self._given = given
        self._handle: RunHandle[S, D] | None = None
        self._error: BaseException | None = None
        self.task: asyncio.Task[None]

    async def live(self) -> None:
        """Start the run, wait for its end, and say what it came to."""
        status: Ended = "failed"
        state: S | None = None
        try:
            state = await self._result()
            status = "succeeded"
        except CancelledError:  # let go of
            status = "cancelled"
        except RunCancelledError as error:
            self._error = error
            if self._handle is not None and self._handle.status != "failed":
                status = "cancelled"
        except Exception as error:  # noqa: BLE001 -- reported, not raised
            self._error = error
        except BaseException as error:  # noqa: BLE001 -- passed on
            self._error = error
            self._many._fail(error)
        self._many._add(await self._outcome(status, state))

    async def _result(self) -> S:
        many = self._many
        if many._decided():
            raise CancelledError  # before it began
        handle = self._handle = await many._start_run(self._index, self._given)
        if many._decided() and not many._letting_go:  # it was decided while the store was asked
            await self.cancel()
        return await handle.result()

    async def _outcome(self, status: Ended, state: S | None) -> RunOutcome[S, D]:
        handle, data = self._handle, self._given
        if handle is None:
            return RunOutcome(self._index, status, data=data, error=self._error)
        with suppress(Exception, CancelledError):  # where that is up to a store, it may fail
            data = await handle.data()
        where = handle.state if state is None else state
        return RunOutcome(self._index, status, handle.run_id, where, data, self._error)

    async def cancel(self) -> None:
        """End the run, if it is started. If its store does not take that, let go of it."""
        if self._handle is None:
            return
        try:
            await self._handle.cancel()
        except CheckpointError as error:
            self._error = error
            _log.warning("run %r was not cancelled, only let go of: %s", self._handle.run_id, error)
            await end(self._handle._task)
            self.task.cancel()  # or it would wait for whoever carries the run on

    def let_go(self) -> asyncio.Task[Any]:
        """Stop carrying the run out. Returns what to wait for, before this is called again."""
        if self._handle is None:  # broken off here, the run would begin with nobody to know of it
            return self.task
        work: asyncio.Task[Any] = self._handle._task
        if work.done():  # else its end would be waited for, whoever carries it on
            work = self.task
        work.cancel()
        return work


async def end(task: asyncio.Task[Any]) -> bool:
    """Cancel *task*, every 50 ms until it is done, however often we are cancelled; whether we were."""
    cancelled = False
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=AGAIN)
        except CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()  # looked at here, or asyncio complains that nobody did
    return cancelled
