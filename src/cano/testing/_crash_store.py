"""The store as one process of `crash_everywhere` sees it."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any

from cano.checkpoints.store import CheckpointStore, Claim
from cano.errors import CheckpointError
from cano.events import Event
from cano.testing._crash_points import Crash
from cano.testing.faults import FaultyStore, SimulatedCrash, _Answer

OUTAGE = 30.0
"""Seconds for which the store fails."""

_OUTAGES = frozenset(("unavailable", "unanswered"))
_DIES_AFTER = frozenset(("after", "duplicate", "forward", "backward"))


class CrashStore(FaultyStore):
    """Counts the durable writes of a process, and lets *crash* happen at one of them.

    *struck* is called when the process dies or stands still, and *stopping* when it is asked to
    stop.
    """

    def __init__(
        self,
        store: CheckpointStore,
        crash: Crash | None,
        struck: Callable[[], None],
        stopping: Callable[[], None],
    ) -> None:
        super().__init__(store)
        self.crash: Crash | None = crash
        self.happened: bool = False
        self.down_until: float = -inf
        """The loop's time until which nothing can be reached."""
        self.shared: list[int] = []
        """Writes that another one followed in the same turn of the loop."""
        self._struck = struck
        self._stopping = stopping
        self._in_turn = False
        self._losing = False
        self._unanswered: list[_Answer] = []
        self._wake: Future[None] | None = None

    @property
    def frozen(self) -> bool:
        """Whether the process stands still."""
        return self._wake is not None

    @property
    def failing(self) -> bool:
        """Whether an outage was to be met, and may be the reason of an error."""
        return self.happened and self.crash is not None and self.crash.fault in _OUTAGES

    def back(self) -> float:
        """In how many seconds it can be reached again."""
        return max(self.down_until - asyncio.get_running_loop().time(), 0.0)

    def thaw(self) -> None:
        """Let what was about to be written be written now."""
        if self._wake is not None:
            self._wake.set_result(None)
            self._wake = None

    def die(self) -> None:
        """End the process."""
        self.dead: bool = True
        self._struck()

    def bury(self) -> None:
        """Give the last answers, so that nobody waits any more."""
        self.dead = True
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(SimulatedCrash("the process is dead"))
                answer.exception()
        if self._wake is not None:
            self._wake.cancel()

    def _check(self) -> None:
        super()._check()
        if self.back():
            raise CheckpointError("the store cannot be reached, because a test says so")

    def _count(self) -> None:
        """Count a write, and let happen what shall happen before it."""
        self._check()
        self.writes: int = self.writes + 1
        if self._in_turn:
            self.shared.append(self.writes - 1)
        else:
            self._in_turn = True
            asyncio.get_running_loop().call_soon(self._turn_over)
        crash = self.crash
        if crash is None or self.writes != crash.at:
            return
        self.happened = True
        if crash.fault == "before":
            self.die()
            raise SimulatedCrash(f"the process died before write {self.writes}")
        if crash.fault == "frozen":
            self._wake = asyncio.get_running_loop().create_future()
            self._struck()
        elif crash.fault == "torn":
            asyncio.get_running_loop().call_soon(self.die)
        elif crash.fault == "shutdown":
            asyncio.get_running_loop().call_soon(self._stopping)
        elif crash.fault in _DIES_AFTER:
            self.die()
        else:
            self.down_until = asyncio.get_running_loop().time() + OUTAGE

    def _turn_over(self) -> None:
        self._in_turn = False

    @property
    def _at_the_crash(self) -> bool:
        return self.crash is not None and self.writes == self.crash.at

    def _write(
        self, run_id: str, events: Sequence[Event], call: Callable[[], Future[None]]
    ) -> Future[None]:
        if self._losing and not self.dead:  # it is under way, and will never arrive
            return self._open()
        if self._wake is not None and not self.dead:
            return self._later(call)
        fault = self.crash.fault if self.crash is not None else ""
        if self.crash is not None and self.writes + 1 == self.crash.at:
            if fault == "unavailable":
                return super()._write(run_id, events, _refused)
            if fault == "unanswered":
                return super()._write(run_id, events, lambda: _unanswered(call()))
            if fault == "frozen":
                self._count()
                return self._later(call)
        answer = super()._write(run_id, events, call)
        if fault == "torn" and self._at_the_crash:
            self._losing = True
        return answer

    def _open(self) -> _Answer:
        answer = _Answer()
        self._unanswered.append(answer)
        return answer

    def _later(self, call: Callable[[], Future[None]]) -> Future[None]:
        """Write when the process wakes up."""
        assert self._wake is not None  # noqa: S101 -- asked by whoever calls this
        answer = self._open()

        def tell(done: Future[None]) -> None:
            if (error := done.exception()) is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        def go_on(wake: Future[None]) -> None:
            if not wake.cancelled():
                call().add_done_callback(tell)

        self._wake.add_done_callback(go_on)
        return answer

    async def _take(self, run_id: str, call: Callable[[], Awaitable[Claim]]) -> Claim:
        if self._losing:
            self._check()
            await self._open()
        crash = self.crash
        if crash is not None and self.writes + 1 == crash.at:
            if crash.fault == "unavailable":
                return await super()._take(run_id, _never)
            if crash.fault == "unanswered":
                await super()._take(run_id, call)
                raise CheckpointError("the store did not answer, because a test says so")
            if crash.fault == "frozen":
                self._count()
        if self._wake is not None:
            await asyncio.shield(self._wake)
            return await call()
        return await super()._take(run_id, call)


def _refused() -> Future[None]:
    future: Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(CheckpointError("the store cannot be reached, because a test says so"))
    return future


def _unanswered(written: Future[None]) -> Future[None]:
    """It is written, and the answer lost."""
    answer = _Answer()

    def tell(done: Future[None]) -> None:
        error = done.exception() or CheckpointError("the store did not answer, a test says so")
        answer.set_exception(error)

    written.add_done_callback(tell)
    return answer


async def _never() -> Any:
    raise CheckpointError("the store cannot be reached, because a test says so")
