"""Histories in the memory of one process: for tests, and for runs that need not survive it.

It is the contract of `CheckpointStore`, where every promise is said, written as plainly as can be.

Rule 1: one lock, held for a moment and never across an `await`; within it a method looks and
        writes, or raises and has written nothing.
Rule 2: events are kept as the JSON a file would hold, so that nothing is shared with whoever
        wrote them, and what cannot come back from a file does not come back from here either.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from math import inf
from threading import Lock
from typing import Self

from cano.checkpoints._memory_runs import MemoryRun, add, age, asked_for, read, take
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
from cano.errors import (
    CheckpointError,
    CorruptHistoryError,
    RunEndedError,
    RunExistsError,
    RunLostError,
    RunNotFoundError,
    RunOwnedError,
)
from cano.events import Event, RunClaimed, RunReopened


class MemoryCheckpoints(CheckpointStore):
    """Keeps histories as long as the object lives.

    It has no bound but memory: an event takes about 200 bytes and what was recorded with it, a
    run about 1 kB, until `delete`; so a long-lived process needs a retention policy, or
    `SqliteCheckpoints`. `runs` and `ended` look at every run, `due` at every open one. It may be
    used by several threads, each with its own event loop.
    """

    def __init__(self) -> None:
        self._runs: dict[str, MemoryRun] = {}
        self._open: dict[str, MemoryRun] = {}
        self._leases: dict[str, tuple[Owner, float]] = {}
        self._shapes: dict[str, bytes] = {}
        self._notes: dict[str, bytes] = {}
        self._listeners: dict[object, tuple[AbstractEventLoop, Callable[[str], None]]] = {}
        self._lock: Lock = Lock()
        self._done: Future[None] | None = None

    def __repr__(self) -> str:
        return f"<MemoryCheckpoints: {len(self._runs)} runs, {len(self._open)} of them open>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def create(self, run: NewRun, events: Sequence[Event], /) -> Future[None]:
        try:
            with self._lock:
                if run.run_id in self._runs:
                    raise RunExistsError(
                        f"run {run.run_id!r} exists already; resume it, or choose another run_id"
                    )
                new = MemoryRun(run, run.owner, changed=run.time)
                add(new, events)
                self._runs[run.run_id] = self._open[run.run_id] = new
        except CheckpointError as error:
            return _refusal(error)
        return self._written()

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> Future[None]:
        try:
            with self._lock:
                run = self._runs.get(run_id)
                if run is None or run.epoch != epoch:
                    now = f"at epoch {run.epoch}" if run else "deleted"
                    raise RunLostError(f"run {run_id!r} is {now}, not at epoch {epoch} any more")
                add(run, events)
                if status is not None:
                    self._note(run, status)
        except CheckpointError as error:
            return _refusal(error)
        return self._written()

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        run = self._runs.get(run_id)
        rows = run.events[after:] if run else []
        return [read(run_id, after + n, row) for n, row in enumerate(rows[:limit], 1)]

    def _written(self) -> Future[None]:
        """A future that is done; all of one loop are the same, for making one is half the price."""
        done, loop = self._done, asyncio.get_running_loop()
        if done is None or done.get_loop() is not loop:
            self._done = done = loop.create_future()
            done.set_result(None)
        return done

    def _note(self, run: MemoryRun, status: Status) -> None:
        run.status = status
        if status.over:
            run.owner, run.wake, run.ended = "", 0.0, run.changed
            self._open.pop(run.new.run_id, None)
            self._tell(run.new.run_id)

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        with self._lock:
            run = self._find(run_id)
            if run.status.over:
                raise RunEndedError(
                    f"run {run_id!r} is over: {run.status}; there is nothing to claim"
                )
            if run.owner and self._lease(run.owner) > now:
                raise self._owned(run)
            return take(run, RunClaimed(owner=owner, epoch=run.epoch + 1, time=now))

    async def reopen(
        self, run_id: str, owner: str, now: float, /, *, finished: bool = False
    ) -> Claim:
        with self._lock:
            run = self._find(run_id)
            if not run.status.over:
                raise self._owned(run)
            if (run.status is Status.FINISHED) is not finished:
                raise RunEndedError(f"run {run_id!r} has {run.status}; it never moves again")
            self._open[run_id] = run
            epoch, seen = run.epoch + 1, len(run.inbox)
            return take(run, RunReopened(owner=owner, epoch=epoch, seen=seen, time=now))

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        with self._lock:
            run = self._runs.get(run_id)
            if run is None or run.epoch != epoch or run.status.over:
                return
            run.owner, run.status = "", status
            run.wake = 0.0 if len(run.inbox) > seen else wake
            self._tell(run_id)

    async def renew(self, owner: Owner, now: float, until: float, /) -> bool:
        with self._lock:
            held = self._lease(owner.id) > now
            self._leases[owner.id] = (owner, until)
            return held

    async def owners(self, host: str, now: float, /) -> Sequence[Owner]:
        with self._lock:
            leases = list(self._leases.values())
        return [owner for owner, until in leases if owner.host == host and until > now]

    async def expire(self, owner: str, /) -> None:
        with self._lock:
            self._leases.pop(owner, None)

    def _lease(self, owner: str) -> float:
        """Until when *owner* holds its runs; they may be claimed from that moment on."""
        lease = self._leases.get(owner)
        return lease[1] if lease else 0.0

    def _find(self, run_id: str) -> MemoryRun:
        run = self._runs.get(run_id)
        if run is None:
            raise RunNotFoundError(f"there is no run {run_id!r} here; look at runs()")
        return run

    def _owned(self, run: MemoryRun) -> RunOwnedError:
        run_id, until = run.new.run_id, self._lease(run.owner)
        if not run.owner:
            return RunOwnedError(f"run {run_id!r} is {run.status}, not over; resume it instead")
        return RunOwnedError(
            f"run {run_id!r} belongs to {run.owner!r} until {until:.3f}; wait, or ask its owner",
            run.owner,
            until,
        )

    async def summary(self, run_id: str, /) -> RunSummary:
        with self._lock:
            return self._summary(self._find(run_id))

    async def runs(self, query: RunQuery, /) -> Sequence[RunSummary]:
        with self._lock:
            found = [run for run in self._runs.values() if asked_for(run, query)]
            if query.after is not None:
                last = self._runs.get(query.after)
                found = [run for run in found if last and age(run) < age(last)]
            found.sort(key=age, reverse=True)
            return [self._summary(run) for run in found[: query.limit]]

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        ready: list[tuple[float, str]] = []
        later = inf
        with self._lock:
            for run_id, run in self._open.items():
                if run.new.workflow != workflow or run.crashes >= crashes:
                    continue
                since = self._lease(run.owner) if run.owner else run.wake
                if since <= now:
                    ready.append((since, run_id))
                else:
                    later = min(later, since)
        ready.sort()
        return Due(tuple(run_id for _, run_id in ready[:limit]), later)

    async def ended(
        self, workflow: str | None, before: float, keep: int, limit: int, /
    ) -> list[str]:
        with self._lock:
            ends = sorted(
                (run.ended, run_id)
                for run_id, run in self._runs.items()
                if run.ended is not None and workflow in (None, run.new.workflow)
            )
        surplus = len(ends) - keep
        gone = [run_id for n, (end, run_id) in enumerate(ends) if n < surplus or end < before]
        return gone[:limit]

    async def delete(self, run_ids: Sequence[str], /) -> int:
        with self._lock:
            gone = [id_ for id_ in set(run_ids) if id_ in self._runs and id_ not in self._open]
            for run_id in gone:
                del self._runs[run_id]
        return len(gone)

    def _summary(self, run: MemoryRun) -> RunSummary:
        new = run.new
        return RunSummary(
            run_id=new.run_id,
            workflow=new.workflow,
            status=run.status,
            state=run.state,
            sequence=len(run.events),
            created=new.time,
            ended=run.ended,
            version=new.version,
            fingerprint=new.fingerprint,
            tags=new.tags,
            epoch=run.epoch,
            owner=run.owner,
            lease=self._lease(run.owner),
            wake=run.wake,
            crashes=run.crashes,
        )

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        with self._lock:
            run = self._find(run_id)
            if run.status.over:
                raise RunEndedError(f"run {run_id!r} is over: {run.status}; nobody reads {name!r}")
            for message in run.inbox:
                if key and message.key == key:
                    return message.number
            run.inbox.append(Message(len(run.inbox) + 1, name, value, now, key))
            run.wake = 0.0
            self._tell(run_id)
            return len(run.inbox)

    async def inbox(self, run_id: str, after: int = 0, /) -> Sequence[Message]:
        run = self._runs.get(run_id)
        return run.inbox[after:] if run else []

    def listen(self, tell: Callable[[str], None], /) -> Callable[[], None]:
        me = object()
        self._listeners[me] = (asyncio.get_running_loop(), tell)

        def stop() -> None:
            self._listeners.pop(me, None)

        return stop

    def _tell(self, run_id: str) -> None:
        for me, (loop, tell) in list(self._listeners.items()):
            try:
                loop.call_soon_threadsafe(tell, run_id)
            except RuntimeError:  # its loop was closed
                self._listeners.pop(me, None)

    async def define(self, fingerprint: str, shape: bytes, /) -> None:
        self._shapes.setdefault(fingerprint, shape)

    async def definition(self, fingerprint: str, /) -> bytes | None:
        return self._shapes.get(fingerprint)

    async def note(self, key: str, value: bytes, was: bytes | None, /) -> bool:
        with self._lock:
            if self._notes.get(key) != was:
                return False
            self._notes[key] = value
            return True

    async def noted(self, key: str, /) -> bytes | None:
        return self._notes.get(key)

    async def check(self) -> Sequence[str]:
        problems: list[str] = []
        for run_id in list(self._runs):
            try:
                await self.load(run_id)
            except CorruptHistoryError as error:
                problems.append(str(error))
        return problems

    async def close(self) -> None:
        self._listeners.clear()


def _refusal(error: CheckpointError) -> Future[None]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
