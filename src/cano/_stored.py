"""A workflow's dealings with its store: what `Workflow` offers where it has one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakValueDictionary

from cano._data import encode
from cano._durable import DurableRun
from cano._history import replay
from cano._host import Parked
from cano._lives import Lives
from cano._run import Run
from cano.checkpoints.store import CANCEL, RESOLVE, CheckpointStore, RunSummary, Status
from cano.context import Context
from cano.errors import (
    CheckpointError,
    DefinitionError,
    RunCancelledError,
    RunEndedError,
    RunOwnedError,
    VersionMismatchError,
)
from cano.events import Event, RunStarted, StateEntered, TaskCompleted
from cano.handle import RunHandle
from cano.tasks.task import S

if TYPE_CHECKING:
    from cano.workflow import Workflow

D = TypeVar("D")
_log = logging.getLogger("cano.recovery")

AT_ONCE = 100
"""How many abandoned runs a scope carries on at once."""
PAUSE = 0.01
"""Seconds between two sweeps, at least."""
LATEST = 1.0
"""Seconds after which events are looked for at the latest: nobody is told of each one."""


class Stored(Generic[S, D]):
    """What a workflow does with its store, in one event loop."""

    def __init__(self, workflow: Workflow[S, D], store: CheckpointStore) -> None:
        plan = workflow._plan
        assert plan is not None  # noqa: S101 -- the workflow compiles first
        self.workflow = workflow
        self.store = store
        self.lives: Lives[S, D] = Lives(
            plan, store, lease=workflow.lease, max_crashes=workflow.max_crashes
        )
        self.refused: set[str] = set()
        """Abandoned runs that this workflow cannot carry on."""
        self._recovered: set[asyncio.Task[Any]] = set()
        self._handles: WeakValueDictionary[str, RunHandle[S, D]] = WeakValueDictionary()
        """By run, for those that are parked and carried on again."""
        self._sweeper: asyncio.Task[None] | None = None
        self._scopes = 0

    @property
    def usable(self) -> bool:
        """Whether this belongs to the event loop that runs now."""
        return self.lives.loop is asyncio.get_running_loop()

    def run(
        self,
        start: S | None,
        data: D | None,
        run_id: str | None,
        tags: Sequence[str],
        *,
        wait: bool,
    ) -> Coroutine[Any, Any, S]:
        """Carry out a run, in the task of whoever awaits this."""
        return self._new(start, data, run_id, tags, wait=wait, background=False)[-1]

    def part(
        self, within: Run[Any], start: S | None, data: D | None, run_id: str
    ) -> tuple[DurableRun[S], Context[Any], Coroutine[Any, Any, S]]:
        """A run that is part of another, to be carried out in its asyncio task."""
        tags = [f"part of {within.run_id}"]
        return self._new(start, data, run_id, tags, wait=True, background=False, within=within)

    async def undo(self, run_id: str) -> None:
        """See that nothing is left standing of a run that is part of another."""
        run, context = self._other(run_id, background=False)
        await self.lives.undo(run, context)

    async def asked_to_end(self, run_id: str) -> bool:
        """Whether somebody sent the run a request to end."""
        return any(message.name == CANCEL for message in await self.store.inbox(run_id))

    async def start(
        self,
        start: S | None,
        data: D | None,
        run_id: str | None,
        tags: Sequence[str],
        *,
        wait: bool,
    ) -> RunHandle[S, D]:
        """Carry out a run in the background; it is in the store when this returns."""
        run, context, living = self._new(start, data, run_id, tags, wait=wait, background=True)
        return await self._handle(run, context, living)

    async def resume(self, run_id: str, *, even_if_stuck: bool) -> S:
        """Carry on a run, in the task of whoever awaits this."""
        run, context = self._other(run_id, background=False)
        return await self.lives.resume(run, context, even_if_stuck=even_if_stuck)

    async def retry(self, run_id: str) -> S:
        """Reopen a run, and carry it on."""
        run, context = self._other(run_id, background=False)
        return await self.lives.retry(run, context)

    async def fork(
        self, run_id: str, at: int, new_id: str | None, data: D | None
    ) -> RunHandle[S, D]:
        """Start a run from where another was."""
        await self.lives.known(run_id)
        events = await self.store.load(run_id)
        state = _decided(run_id, events, at)
        plan = self.workflow._plan
        assert plan is not None  # noqa: S101 -- compiled before
        member: Any = plan.states.__members__.get(state)
        if member is None or state not in plan.steps:
            raise VersionMismatchError(
                f"run {run_id!r} was in {state} at event {at}, which {plan.name} no longer has"
            )
        if data is None and plan.data_type is not None:
            data = plan.data_type.rebuild(replay(events[:at]).data)
        run, context, living = self._new(
            member, data, new_id, (), wait=False, background=True, attach=False
        )
        run.origin = (run_id, at)
        return await self._handle(run, context, living)

    async def recover(self, limit: int) -> list[RunHandle[S, D]]:
        """Carry on what nobody does, in the background."""
        names, _ = await self.lives.sweep(limit, self.refused)
        return [self._revive(name) for name in names]

    def handle(self, run_id: str) -> StoredRun[S, D]:
        """Reach a run from anywhere."""
        return StoredRun(run_id, self)

    async def open(self) -> None:
        """Keep the lease up, and carry on what nobody does, until `close`."""
        self.lives.keeper.open = True
        await self.lives.keeper.ready()
        self._scopes += 1
        if self._scopes > 1:  # a scope within a scope, such as a scheduler's
            return
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop_sweeping(self) -> None:
        """Take up no more runs, unless a scope around this one does."""
        if self._sweeper is not None and self._scopes <= 1:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None

    async def close(self) -> None:
        """Let go of the lease, with the last scope."""
        await self.stop_sweeping()
        self._scopes -= 1
        if self._scopes > 0:
            return
        with suppress(CheckpointError):  # the lease then ends by itself
            await self.lives.keeper.close()

    async def _sweep(self) -> None:
        keeper = self.lives.keeper
        while True:
            with keeper.word_of("") as word:  # listens before it looks
                later = keeper.now() + keeper.lease
                try:
                    later = min(later, await self._revive_all())
                except CheckpointError as error:
                    _log.warning("abandoned runs could not be looked for: %s", error)
                await asyncio.sleep(PAUSE)
                await asyncio.wait((word,), timeout=max(later - keeper.now(), 0))

    async def _revive_all(self) -> float:
        """Carry on what nobody does; when to ask again."""
        names, due = await self.lives.sweep(AT_ONCE - len(self._recovered), self.refused)
        for name in names:
            self._revive(name)
        return due

    def _revive(self, run_id: str) -> RunHandle[S, D]:
        run, context = self._other(run_id, background=True)
        living = self._parkable(self.lives.resume(run, context), run)
        task = self.workflow._in_background(living, run)
        self._recovered.add(task)
        task.add_done_callback(self._recovered.discard)
        task.add_done_callback(lambda done: self._revived(run_id, done))
        known = self._handles.get(run_id)
        if known is None or not known.parked:
            return RunHandle(run, context, task, self)
        known.follow(run, context, task)
        return known

    def _revived(self, run_id: str, task: asyncio.Task[Any]) -> None:
        """A run that was carried on is over, or let go of, or was not to be had."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, RunOwnedError | RunEndedError | RunCancelledError):
            return  # somebody else was faster, or it was asked to end
        if isinstance(error, VersionMismatchError) and run_id not in self.refused:
            self.refused.add(run_id)
        _log.warning("run %r was carried on, and ended with an error", run_id, exc_info=error)

    def _new(
        self,
        start: S | None,
        data: D | None,
        run_id: str | None,
        tags: Sequence[str],
        *,
        wait: bool,
        background: bool,
        attach: bool = True,
        within: Run[Any] | None = None,
    ) -> tuple[DurableRun[S], Context[Any], Coroutine[Any, Any, S]]:
        name: object = run_id
        if name is not None and not (isinstance(name, str) and name):
            raise DefinitionError(f"run_id={run_id!r} is no name; pass a text that is not empty")
        plan, first = self.workflow._begin(start)
        run = self.lives.new_run(run_id, background=background)
        run.tags, run.within = _tags(tags), within
        context: Context[Any] = Context(run, run.path, self.workflow._data_of(plan, data))
        named = attach and run_id is not None
        compared = data is not None and within is None  # a part is what its whole says it is
        living = self.lives.live(run, context, first, named=named, with_data=compared, wait=wait)
        return run, context, living

    def _other(self, run_id: str, *, background: bool) -> tuple[DurableRun[S], Context[Any]]:
        run = self.lives.new_run(run_id, background=background)
        return run, Context(run, run.path, None)

    async def _handle(
        self, run: DurableRun[S], context: Context[Any], living: Coroutine[Any, Any, S]
    ) -> RunHandle[S, D]:
        task = self.workflow._in_background(self._parkable(living, run), run)
        task.add_done_callback(_on_record)
        kept = run.kept = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((task, kept), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()  # nobody would have a handle of it
            raise
        finally:
            kept.cancel()
        handle = self._handles[run.run_id] = RunHandle(run, context, task, self)
        return handle

    async def _parkable(self, living: Coroutine[Any, Any, S], run: DurableRun[S]) -> Any:
        """What becomes of a run in the background: its exit, or `Parked` if it was let go to wait."""
        try:
            return await living
        except Parked as parked:
            return parked


def _on_record(task: asyncio.Task[Any]) -> None:
    """How the run ended is in the store: asyncio need not complain that nobody asked the task."""
    if not task.cancelled():
        task.exception()


class StoredRun(Generic[S, D]):
    """A run in the store, whoever carries it out, in whatever process."""

    def __init__(self, run_id: str, stored: Stored[S, D]) -> None:
        self.run_id: str = run_id
        self._stored = stored
        self._store = stored.store

    def __repr__(self) -> str:
        return f"<StoredRun {self.run_id!r} of {self._stored.workflow.name}>"

    async def summary(self) -> RunSummary:
        """The run at a glance. Raises `RunNotFoundError`."""
        return await self._store.summary(self.run_id)

    async def result(self) -> S:
        """Wait for the end, and return the exit; or raise the recorded end, as `Workflow.run` does.

        Nothing is carried out for it: that is up to whoever has the run.
        """
        return await self._stored.lives.outcome(self.run_id)

    async def data(self) -> D:
        """The run's data as last recorded."""
        await self.summary()  # raises for a run that is not there
        kind = self._stored.lives.plan.data_type
        history = replay(await self._store.load(self.run_id))
        found: Any = None if kind is None else kind.rebuild(history.data)
        return found  # type: ignore[no-any-return]

    async def cancel(self) -> None:
        """Ask for the end; done when the request is recorded. A run that is over stays as it is."""
        now = self._stored.lives.keeper.now()
        with suppress(RunEndedError):
            await self._store.send(self.run_id, CANCEL, b"null", now)

    async def signal(self, name: str, value: object = None, *, key: str = "") -> None:
        """Send a signal. A second one with the same *key* counts for nothing.

        Raises `RunNotFoundError`, `RunEndedError`, and `DefinitionError` for a name that begins
        with "cano.": those are kept for requests.
        """
        if name.startswith("cano."):
            raise DefinitionError(f'signal {name!r}: names that begin with "cano." are taken')
        now = self._stored.lives.keeper.now()
        await self._store.send(self.run_id, name, encode(value), now, key)

    async def resolve(self, effect: str, value: object = None, *, again: bool = False) -> None:
        """Say what became of an effect in doubt: it returned *value*, or is to be made *again*."""
        run = await self.summary()
        if run.status is not Status.IN_DOUBT:
            raise CheckpointError(
                f"run {self.run_id!r} is not in doubt, it is {run.status}; nothing was said"
            )
        said: dict[str, object] = {"again": True} if again else {"done": value}
        told = {"effect": effect, **said, "seen": run.sequence}
        now = self._stored.lives.keeper.now()
        await self._store.send(self.run_id, RESOLVE, encode(told), now)

    def events(self) -> AsyncIterator[Event]:
        """What is recorded of the run, from its beginning; and what follows, to its end."""
        return self.events_after(0)

    async def events_after(self, seen: int) -> AsyncIterator[Event]:
        """`events`, but for the first *seen*."""
        while True:
            with self._stored.lives.keeper.word_of(self.run_id) as word:
                over = (await self.summary()).over  # asked first, so that what follows is all
                for event in await self._store.load(self.run_id, seen):
                    seen = event.sequence
                    yield event
                if over:
                    return
                await asyncio.wait((word,), timeout=LATEST)


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise DefinitionError(f"tags={tags!r} is one text; pass a list of them")
    return tuple(tags)


def _decided(run_id: str, events: list[Event], at: int) -> str:
    """The state that event *at* decided on."""
    fit = (RunStarted, StateEntered, TaskCompleted)
    if 1 <= at <= len(events) and isinstance(event := events[at - 1], fit):
        return event.next if isinstance(event, TaskCompleted) else event.state
    there = [f"{event.sequence} ({event.state})" for event in events if isinstance(event, fit)]
    raise CheckpointError(
        f"run {run_id!r} cannot be forked at event {at}, which decided on no state; these did: "
        + ", ".join(there[-20:])
    )
