"""Things that go wrong on purpose: a store that crashes, a task that fails."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from cano.checkpoints.store import (
    CheckpointStore,
    Claim,
    Due,
    Message,
    NewRun,
    Owner,
    RunQuery,
    RunSummary,
    Status,
)
from cano.errors import CheckpointError
from cano.events import Event, RunClaimed

T = TypeVar("T")


class SimulatedCrash(BaseException):
    """The process "died" here. No `Exception`, so that nobody handles it by accident."""


class FaultyStore(CheckpointStore):
    """Wraps a store, and lets its caller crash or fail at a durable write of its choice.

    Durable writes are `create`, `append`, `claim` and `reopen`, counted from 1 as they are called.
    After a crash every call raises `SimulatedCrash`: the process is dead. What it wrote is in
    *store*, for the next "process" to find. To crash everywhere::

        clean = FaultyStore(MemoryCheckpoints())
        asyncio.run(work(clean))
        for n in range(1, clean.writes + 1):
            store = MemoryCheckpoints()
            with contextlib.suppress(SimulatedCrash):
                asyncio.run(work(FaultyStore(store, crash_after=n)))
            asyncio.run(work(FaultyStore(store)))

    Args:
        store: The real one.
        crash_before: Crash instead of making this write.
        crash_after: Crash when this write is on disk, and before its caller learns of it.
        fail_at: Raise `CheckpointError` instead of making this write, and go on with the next.
        latency: How many seconds every answer takes, by the clock of the loop.
    """

    def __init__(
        self,
        store: CheckpointStore,
        /,
        *,
        crash_before: int | None = None,
        crash_after: int | None = None,
        fail_at: int | None = None,
        latency: float = 0.0,
    ) -> None:
        self.store: CheckpointStore = store
        self.crash_before: int | None = crash_before
        self.crash_after: int | None = crash_after
        self.fail_at: int | None = fail_at
        self.latency: float = latency
        self.dead: bool = False
        """Whether the crash has happened."""
        self.writes: int = 0
        """How many durable writes were asked for, those that crashed or failed included."""
        self.written: list[tuple[str, str]] = []
        """What is on disk: run and kind of each event, in order. No bound: it is for tests."""
        self._unavailable: bool = False

    def __repr__(self) -> str:
        state = "dead" if self.dead else "alive"
        return f"<FaultyStore: {state} after {self.writes} writes, around {self.store!r}>"

    @contextmanager
    def unavailable(self) -> Generator[None]:
        """Every call within this block raises `CheckpointError`."""
        self._unavailable = True
        try:
            yield
        finally:
            self._unavailable = False

    def create(self, run: NewRun, events: Sequence[Event], /) -> Future[None]:
        return self._write(run.run_id, events, partial(self.store.create, run, events))

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> Future[None]:
        call = partial(self.store.append, run_id, epoch, events, status)
        return self._write(run_id, events, call)

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        return await self._take(run_id, partial(self.store.claim, run_id, owner, now))

    async def reopen(
        self, run_id: str, owner: str, now: float, /, *, finished: bool = False
    ) -> Claim:
        reopen = partial(self.store.reopen, run_id, owner, now, finished=finished)
        return await self._take(run_id, reopen)

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        await self._reach()
        await self.store.release(run_id, epoch, status, wake, seen)

    async def renew(self, owner: Owner, now: float, until: float, /) -> bool:
        await self._reach()
        return await self.store.renew(owner, now, until)

    async def owners(self, host: str, now: float, /) -> Sequence[Owner]:
        await self._reach()
        return await self.store.owners(host, now)

    async def expire(self, owner: str, /) -> None:
        await self._reach()
        await self.store.expire(owner)

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        await self._reach()
        return await self.store.load(run_id, after, limit)

    async def summary(self, run_id: str, /) -> RunSummary:
        await self._reach()
        return await self.store.summary(run_id)

    async def runs(self, query: RunQuery, /) -> Sequence[RunSummary]:
        await self._reach()
        return await self.store.runs(query)

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        await self._reach()
        return await self.store.due(workflow, now, limit, crashes)

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        await self._reach()
        return await self.store.send(run_id, name, value, now, key)

    async def inbox(self, run_id: str, after: int = 0, /) -> Sequence[Message]:
        await self._reach()
        return await self.store.inbox(run_id, after)

    def listen(self, tell: Callable[[str], None], /) -> Callable[[], None]:
        self._check()

        def told(run_id: str) -> None:
            if not self.dead:  # the dead hear nothing
                tell(run_id)

        return self.store.listen(told)

    async def define(self, fingerprint: str, shape: bytes, /) -> None:
        await self._reach()
        await self.store.define(fingerprint, shape)

    async def definition(self, fingerprint: str, /) -> bytes | None:
        await self._reach()
        return await self.store.definition(fingerprint)

    async def note(self, key: str, value: bytes, was: bytes | None, /) -> bool:
        await self._reach()
        return await self.store.note(key, value, was)

    async def noted(self, key: str, /) -> bytes | None:
        await self._reach()
        return await self.store.noted(key)

    async def delete(self, run_ids: Sequence[str], /) -> int:
        await self._reach()
        return await self.store.delete(run_ids)

    async def ended(
        self, workflow: str | None, before: float, keep: int, limit: int, /
    ) -> list[str]:
        await self._reach()
        return await self.store.ended(workflow, before, keep, limit)

    async def check(self) -> Sequence[str]:
        await self._reach()
        return await self.store.check()

    async def close(self) -> None:
        """Close the wrapped store, even after a crash: the system closes what the dead left."""
        await self.store.close()
        await asyncio.sleep(self.latency)  # by then every answer is given

    def _check(self) -> None:
        if self.dead:
            raise SimulatedCrash(f"the process died at write {self.writes}")
        if self._unavailable:
            raise CheckpointError("the store is unavailable, because a test says so")

    async def _reach(self) -> None:
        self._check()
        if self.latency:
            await asyncio.sleep(self.latency)
            self._check()

    def _count(self) -> None:
        """Count a write, and let happen what shall happen at it."""
        self._check()
        self.writes += 1
        if self.writes == self.crash_before:
            self.dead = True
            raise SimulatedCrash(f"the process died before write {self.writes}")
        if self.writes == self.fail_at:
            raise CheckpointError(f"write {self.writes} failed, because a test says so")
        self.dead = self.writes == self.crash_after

    def _write(
        self, run_id: str, events: Sequence[Event], call: Callable[[], Future[None]]
    ) -> Future[None]:
        answer = _Answer()
        try:
            self._count()
        except CheckpointError as error:
            answer.set_exception(error)
            return answer
        loop = asyncio.get_running_loop()

        def tell(done: Future[None]) -> None:
            if not (error := done.exception()):
                self.written += [(run_id, type(event).__name__) for event in events]
            if self.latency:
                loop.call_later(self.latency, self._answer, answer, error)
            else:
                self._answer(answer, error)

        call().add_done_callback(tell)
        return answer

    def _answer(self, answer: _Answer, error: BaseException | None) -> None:
        if self.dead:  # nobody of this process learns how it went
            error = SimulatedCrash(f"the process died after write {self.writes}")
        if error is None:
            answer.set_result(None)
            return
        answer.set_exception(error)
        answer.exception()  # whoever died does not complain that nobody looked

    async def _take(self, run_id: str, call: Callable[[], Awaitable[Claim]]) -> Claim:
        self._count()
        claim = await call()
        self.written.append((run_id, RunClaimed.__name__))
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.dead:
            raise SimulatedCrash(f"the process died after write {self.writes}")
        return claim


class _Answer(asyncio.Future[None]):
    """A future that cannot be cancelled, as the contract wants it."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class FailTimes(Generic[T]):
    """An async callable that fails *times* times, and returns *then* from there on.

    It takes whatever it is called with, so it can be a task, a branch or an effect::

        flow.register(Step.FETCH, FailTimes(2, TimeoutError, then=Step.DONE), Retry.fixed(3, 0))

    *error* is what it raises: an exception, or a class of them. `calls` counts its calls.
    """

    def __init__(
        self, times: int, error: Exception | type[Exception] = ConnectionError, *, then: T
    ) -> None:
        self.times: int = times
        self.error: Exception | type[Exception] = error
        self.then: T = then
        self.calls: int = 0

    def __repr__(self) -> str:
        return f"FailTimes({self.times}, then={self.then!r})"

    async def __call__(self, *args: Any, **more: Any) -> T:
        self.calls += 1
        if self.calls > self.times:
            return self.then
        if isinstance(self.error, Exception):
            raise self.error.with_traceback(None)
        raise self.error(f"failure {self.calls} of {self.times}, because a test says so")
