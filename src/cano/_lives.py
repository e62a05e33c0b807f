"""The runs of one workflow in its store: begun, taken up again, looked after.

Rule 1: a name is an idempotency key. Whoever starts a run under a name that exists gets that run.
Rule 2: a run is claimed only by a workflow that can carry it on; see `cano._migrations`.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum
from math import inf
from typing import Any, Generic, TypeVar

from cano._clock import loop_time, wall_offset
from cano._data import DataType, FieldType
from cano._durable import DurableRun
from cano._ends import refused, result_of
from cano._history import History, replay
from cano._host import Handover
from cano._keeper import Keeper
from cano._lifecycle import Phase
from cano._patch import written
from cano._plan import Plan
from cano._run import PATH
from cano._shape import read
from cano._shield import outlast
from cano._upgrade import Fitness, Present
from cano.checkpoints.store import CheckpointStore, Claim, RunSummary, Status
from cano.context import Context
from cano.errors import (
    CheckpointError,
    RunCancelledError,
    RunEndedError,
    RunExistsError,
    RunIdReusedError,
    RunNotFoundError,
    RunOwnedError,
    RunStuckError,
    VersionMismatchError,
)
from cano.events import Event, Patch, RunStarted, StateEntered
from cano.tasks.task import S

D = TypeVar("D")


class Lives(Generic[S, D]):
    """What one workflow, in one event loop, does with its store."""

    def __init__(
        self, plan: Plan[S], store: CheckpointStore, *, lease: float, max_crashes: int
    ) -> None:
        self.plan = plan
        self.store = store
        self.max_crashes = max_crashes
        self.keeper: Keeper = Keeper(store, lease)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._elapsed = loop_time(self.loop)
        self._defined = False

    def new_run(self, run_id: str | None, *, background: bool) -> DurableRun[S]:
        """A run that is not in the store yet, or will turn out to be."""
        may_park = background and self.keeper.open
        clock = self._elapsed, wall_offset(self.loop)
        return DurableRun(self.plan, run_id, self.store, clock, may_park=may_park)

    async def live(
        self,
        run: DurableRun[S],
        context: Context[Any],
        start: S,
        *,
        named: bool,
        with_data: bool,
        wait: bool,
    ) -> S:
        """Begin *run*, or take up what goes by its name, and carry it out."""
        given = written(context.changes() or {}) if with_data else None
        async with self.plan.using:
            try:
                await self._ready()
                first = await run.begin(context, start, self.keeper.owner.id)
            except RunExistsError:
                if not named:
                    raise
            except CancelledError:
                if run.history.sequence:  # it was created all the same
                    await run.let_go(Status.RUNNING, 0.0)
                    run.tell_of_release("shutdown")
                raise
            else:
                return await self._carry(run, context, first, resumed=False)
            while True:
                run.forget()
                summary = await self.known(run.run_id)
                begun = (await self.store.load(run.run_id, 0, 1))[0]
                _same(summary, begun, start, given, self.plan.data_type)
                try:
                    part = run.within is not None  # it is stuck when its whole is
                    return await self._take_up(run, context, summary, even_if_stuck=part)
                except RunOwnedError as error:
                    if not wait:
                        raise
                    await self._news_of(run.run_id, error)

    async def resume(
        self, run: DurableRun[S], context: Context[Any], *, even_if_stuck: bool = False
    ) -> S:
        """Take up the run of that name where it is."""
        summary = await self.known(run.run_id)
        async with self.plan.using:
            await self._ready()
            return await self._take_up(run, context, summary, even_if_stuck=even_if_stuck)

    async def retry(self, run: DurableRun[S], context: Context[Any]) -> S:
        """Reopen a run that failed or was cancelled, in the state it ended in."""
        summary = await self.known(run.run_id)
        history = replay(await self.store.load(run.run_id))
        if history.undone or history.failures:
            raise CheckpointError(
                f"run {run.run_id!r} was rolled back: {history.undone} of its works were undone, "
                "so it cannot go on; fork it from a state before them"
            )
        async with self.plan.using:
            await self._ready()
            await self._accept(summary, history)
            store, keeper = self.store, self.keeper
            await self._take(run, store.reopen(run.run_id, keeper.owner.id, keeper.now()))
            return await self._go_on(run, context)

    async def undo(self, run: DurableRun[S], context: Context[Any]) -> None:
        """See that nothing is left standing of a run that is part of another.

        One that is not over is ended first. Raises `CompensationFailedError`.
        """
        async with self.plan.using:
            await self._ready()
            while True:
                try:
                    summary = await self.known(run.run_id)
                except RunNotFoundError:  # not even begun
                    return
                history = replay(await self.store.load(run.run_id))
                if summary.over and (history.phase is not Phase.FINISHED or not history.standing):
                    if history.failures:
                        result_of(history, self.plan, run.run_id)  # raises
                    return
                await self._accept(summary, history)
                store, keeper = self.store, self.keeper
                if summary.over:
                    how = store.reopen(run.run_id, keeper.owner.id, keeper.now(), finished=True)
                else:
                    run.cancelled = True
                    how = store.claim(run.run_id, keeper.owner.id, keeper.now())
                try:
                    await self._take(run, how)
                except RunOwnedError as error:
                    await self._news_of(run.run_id, error)
                    continue
                with suppress(RunCancelledError):  # which is how it ends
                    await self._go_on(run, context)
                return

    async def _news_of(self, run_id: str, owned: RunOwnedError) -> None:
        """Wait until the run may be claimed: something happens to it, or the lease is over."""
        with self.keeper.word_of(run_id) as word:
            left = max(owned.until - self.keeper.now(), 0.0)
            await asyncio.wait((word,), timeout=left)

    async def _take_up(
        self,
        run: DurableRun[S],
        context: Context[Any],
        summary: RunSummary,
        *,
        even_if_stuck: bool = False,
    ) -> S:
        if summary.over:
            history = replay(await self.store.load(run.run_id))
            run.recall(history, ())
            self._restore(run, context)
            return self._result(run, history)
        if summary.crashes >= self.max_crashes and not even_if_stuck:
            raise RunStuckError(
                f"run {run.run_id!r} was claimed {summary.crashes} times in a row without getting "
                f"anywhere in {summary.state}, and is set aside; find out what kills its process, "
                f"then say: cano runs resume {run.run_id}"
            )
        await self._accept(summary, None)
        if summary.owner:
            await self.keeper.pick_up()
            await self.keeper.bury()
        store, keeper = self.store, self.keeper
        try:
            await self._take(run, store.claim(run.run_id, keeper.owner.id, keeper.now()))
        except RunEndedError:  # somebody else was faster, and is done
            return self._result(run, replay(await self.store.load(run.run_id)))
        return await self._go_on(run, context)

    def _result(self, run: DurableRun[S], history: History) -> S:
        return result_of(history, self.plan, run.run_id, part=run.within is not None)

    async def _take(self, run: DurableRun[S], claiming: Coroutine[Any, Any, Claim]) -> None:
        """Be the owner. What a cancellation found claimed is let go again."""
        claim = asyncio.ensure_future(claiming)
        cancelled = await outlast(claim)
        run.take_over(claim.result())
        if cancelled:
            await run.let_go(Status.RUNNING, 0.0)
            raise CancelledError

    async def _go_on(self, run: DurableRun[S], context: Context[Any]) -> S:
        """From the claim on: bring back what the run was, and carry it out."""
        try:
            events = await self.store.load(run.run_id)
            path = [event.state for event in events if type(event) is StateEntered]
            run.recall(replay(events), path[-PATH:])
            await self._migrate(run)
            self._restore(run, context)
            await run.look()
        except CancelledError:
            await run.let_go(Status.RUNNING, 0.0)
            raise
        except VersionMismatchError:
            raise
        except Exception:
            if run.journal.broken is None:
                await run.let_go(Status.IN_DOUBT, inf)
            raise
        return await self._carry(run, context, run.next_step(), resumed=True)

    async def _migrate(self, run: DurableRun[S]) -> None:
        """Judge again: until the claim somebody else may have carried the run on, or migrated it."""
        verdict = self._present.verdict(run.history)
        if verdict.fitness is not Fitness.SAFE:
            await run.let_go(Status.RUNNING, 0.0)
            raise verdict.error(run.run_id, self.plan.name)
        if verdict.migration is not None:
            await run.record(verdict.migration)

    def _restore(self, run: DurableRun[S], context: Context[Any]) -> None:
        """The run's data, and what the visit before left for this one."""
        history = run.history
        if self.plan.data_type is not None:
            context.data = self.plan.data_type.rebuild(history.data)
        before = history.before
        if before is None or not history.entered:
            return
        registration = self.plan.registrations.get(before.state)
        routed = before.routed
        led = registration.targets if registration else None
        there = [routed.next] if routed is not None else [to._name_ for to in led or ()]
        if history.state in there:  # else a router came between, and it was for the router
            split = registration.task.recall(before) if registration else None
            error = refused(routed.cause, split) if routed is not None and routed.cause else None
            context.handover = Handover(split, error)

    async def _carry(
        self, run: DurableRun[S], context: Context[Any], first: Any, *, resumed: bool
    ) -> S:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine that runs has one
        run.driver = task, context
        if run.kept is not None and not run.kept.done():
            run.kept.set_result(None)
        self.keeper.hold(run)
        try:
            return await run.carry_on(context, first, resumed=resumed)
        finally:
            self.keeper.let_go(run)
            run.leave()

    async def outcome(self, run_id: str) -> S:
        """Wait for the end of a run, whoever carries it out; its exit, or raise its end."""
        while True:
            with self.keeper.word_of(run_id) as word:  # listens before it looks
                summary = await self.store.summary(run_id)
                if summary.over:
                    history = replay(await self.store.load(run_id))
                    return result_of(history, self.plan, run_id)
                await asyncio.wait((word,))

    async def sweep(self, limit: int, refused: set[str]) -> tuple[list[str], float]:
        """Whom nobody carries out although somebody should, and when to ask again."""
        await self._ready()
        await self.keeper.pick_up()
        await self.keeper.bury()
        due = await self.store.due(
            self.plan.name, self.keeper.now(), limit + len(refused), self.max_crashes
        )
        runs = [name for name in due.runs if name not in refused]
        return runs[:limit], due.next

    async def _ready(self) -> None:
        if not self._defined:
            present = self._present
            await self.store.define(present.fingerprint, present.shape.written())
            self._defined = True
        if not self.keeper.fresh:
            await self.keeper.ready()

    async def known(self, run_id: str) -> RunSummary:
        """One of this workflow's runs at a glance. Raises `RunNotFoundError`."""
        summary = await self.store.summary(run_id)
        if summary.workflow != self.plan.name:
            raise RunNotFoundError(
                f"run {run_id!r} is one of {summary.workflow}, not of {self.plan.name}"
            )
        return summary

    async def _accept(self, summary: RunSummary, history: History | None) -> None:
        """Leave alone what cannot be carried on here. Raises `VersionMismatchError`."""
        if summary.version == self.plan.version and summary.fingerprint == self.plan.fingerprint:
            return
        if history is None:
            history = replay(await self.store.load(summary.run_id))
        old = read(await self.store.definition(history.fingerprint))
        verdict = self._present.verdict(history, old)
        if verdict.fitness is not Fitness.SAFE:
            raise verdict.error(summary.run_id, self.plan.name)

    @property
    def _present(self) -> Present:
        present = self.plan.present
        assert present is not None  # noqa: S101 -- a plan with a store has one
        return present


def _same(
    summary: RunSummary, first: Event, start: Enum, given: Any, kind: DataType[Any] | None
) -> None:
    """Refuse to take a run for another of the same name. Raises `RunIdReusedError`."""
    if isinstance(first, RunStarted) and first.state != start._name_:
        what = f"from {first.state}, not from {start._name_}"
    elif isinstance(first, RunStarted) and (fields := _other(given, first.patch or {}, kind)):
        what = f"with other data: {', '.join(fields)}"
    else:
        return
    raise RunIdReusedError(
        f"run {summary.run_id!r} exists, and was started {what}; pass what it was started with, or "
        "another run_id"
    )


def _other(given: Patch | None, before: Patch, kind: DataType[Any] | None) -> list[str]:
    """The fields that are not what they were; by value, for a set is written in any order."""
    if given is None or kind is None:
        return []

    def same(name: str, field: FieldType | None) -> bool:
        new, old = given.get(name), before.get(name)
        if new == old or new is None or old is None or field is None:
            return new == old
        return bool(field.decode(bytes(new)) == field.decode(bytes(old)))

    names = sorted({*given, *before})
    return [name for name in names if not same(name, kind.fields.get(name))]
