"""What users build: what to do in which state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from cano._compiling import audience
from cano._deadline import AGAIN
from cano._definition import Definition
from cano._run import Run
from cano._subscribe import Observer
from cano.context import Context
from cano.errors import DefinitionError
from cano.events import Event
from cano.handle import RunHandle
from cano.resources import Resources
from cano.tasks.task import S

if TYPE_CHECKING:
    from cano._nested import PartResult, SubWorkflow
    from cano._stored import Stored, StoredRun
    from cano.checkpoints.store import CheckpointStore
    from cano.policies.policy import Policy
    from cano.tasks.split import Branch

D = TypeVar("D")
S0 = TypeVar("S0", bound=Enum)
P = TypeVar("P", bound=Enum)


class Workflow(Definition[S, D]):
    """What to do in which state. Changes freely until it first runs, never after.

    Example::

        flow = Workflow(Step, data=Order).exits(Step.DONE)

        @flow.task(Step.PAY)
        async def pay(ctx: Context[Order], bank: Bank) -> Literal[Step.DONE]:
            ctx.data.receipt = await bank.charge(ctx.data.total)
            return Step.DONE

        state = await flow.run(Step.PAY, data=Order(total=12))

    Args:
        states: the `Enum` whose members are the states.
        data: the type of the run data: a dataclass, msgspec struct or pydantic model.
        start: where runs start unless told otherwise; every state must then be reachable from it.
        name: what events and errors call the workflow; the enum's name by default.
        version: a number of your own, carried by `RunStarted`.
        resources: what the tasks share, by name.
        observers: callables of one event, told of everything, or of what `on` subscribed them to.
        timeout: seconds for a whole run; None is no limit.
        strict: check at run time too that tasks keep to their annotations, and branches of a
            split leave the run data alone.
        checkpoints: the store that keeps the history of every run, so that it survives its
            process; None keeps nothing.
        rollback_timeout: seconds for undoing the completed work of a run that failed.
        lease: seconds after which the runs of a process that is not heard of may be taken over.
        max_crashes: how often in a row a run may be taken over from a lost process without getting
            any further; then it is set aside as stuck.
    """

    @overload
    def __init__(
        self: Workflow[S0, None],
        states: type[S0],
        *,
        data: None = None,
        start: S0 | None = None,
        name: str | None = None,
        version: int = 0,
        resources: Resources | None = None,
        observers: Sequence[Observer] = (),
        timeout: float | None = None,
        strict: bool = False,
        checkpoints: CheckpointStore | None = None,
        rollback_timeout: float = 30.0,
        lease: float = 15.0,
        max_crashes: int = 5,
    ) -> None: ...

    @overload
    def __init__(
        self,
        states: type[S],
        *,
        data: type[D],
        start: S | None = None,
        name: str | None = None,
        version: int = 0,
        resources: Resources | None = None,
        observers: Sequence[Observer] = (),
        timeout: float | None = None,
        strict: bool = False,
        checkpoints: CheckpointStore | None = None,
        rollback_timeout: float = 30.0,
        lease: float = 15.0,
        max_crashes: int = 5,
    ) -> None: ...

    def __init__(
        self,
        states: type[Any],
        *,
        data: type[Any] | None = None,
        start: Any = None,
        name: str | None = None,
        version: int = 0,
        resources: Resources | None = None,
        observers: Sequence[Observer] = (),
        timeout: float | None = None,
        strict: bool = False,
        checkpoints: CheckpointStore | None = None,
        rollback_timeout: float = 30.0,
        lease: float = 15.0,
        max_crashes: int = 5,
    ) -> None:
        super().__init__(
            states, data, start, name, version, resources, observers, timeout, strict, checkpoints,
            rollback_timeout, lease, max_crashes,
        )  # fmt: skip
        self._scope: set[asyncio.Task[Any]] = set()
        self._stored: Stored[S, D] | None = None

    def copy(self) -> Workflow[S, D]:
        """A workflow of the same definition that may still be changed."""
        copied: Workflow[S, Any] = Workflow(
            self.states, data=self.data, start=self.start, name=self.name, version=self.version,
            resources=self.resources, observers=self._observers, timeout=self.timeout,
            strict=self.strict, checkpoints=self.checkpoints,
            rollback_timeout=self.rollback_timeout, lease=self.lease, max_crashes=self.max_crashes,
        )  # fmt: skip
        copied._migrations = self._migrations and self._migrations.copy()
        copied._registrations = dict(self._registrations)
        copied._exits = dict(self._exits)
        return copied

    def run(
        self,
        start: S | None = None,
        *,
        data: D | None = None,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        wait: bool = False,
    ) -> Coroutine[Any, Any, S]:
        """Visit states from *start* until an exit, and return it. To be awaited.

        *data* is the run's from here on; without it a fresh one is made. What a task raises comes
        out as it is, with a note saying where. Cancelling whoever awaits this ends the run.

        With a store *run_id* is an idempotency key: a run of that name that is over gives its
        recorded end again (`RunFailedError`, `RunCancelledError`), one that nobody carries out is
        resumed, and for one that somebody does this raises `RunOwnedError`, or with *wait* waits.
        Cancelling whoever awaits this then lets go of the run, for anybody to resume. *tags* are
        for finding it in lists.
        """
        if self.checkpoints is not None:
            self._begin(start)  # its errors come at once; there need not be an event loop yet
            return self._run_durably(start, data, run_id, tags, wait=wait)
        return self._new_run(start, data, run_id)[-1]

    async def start_run(
        self,
        start: S | None = None,
        *,
        data: D | None = None,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        wait: bool = False,
    ) -> RunHandle[S, D]:
        """Start a run in the background and return its handle; with a store, once it is kept."""
        if self.checkpoints is not None:
            return await self._durably(start).start(start, data, run_id, tags, wait=wait)
        run, context, living = self._new_run(start, data, run_id)
        return RunHandle(run, context, self._in_background(living, run))

    async def resume(self, run_id: str, *, even_if_stuck: bool = False) -> S:
        """Carry on a run of the store where it is, to its end.

        What was completed is not done again; the task of the state it is in is, unless it recorded
        its progress. A run that is over gives its recorded end. Raises `RunNotFoundError`,
        `RunOwnedError` if somebody carries it out, `VersionMismatchError`, and `RunStuckError`
        for a run that killed its process too often, unless *even_if_stuck*.
        """
        return await self._durably().resume(run_id, even_if_stuck=even_if_stuck)

    async def retry(self, run_id: str) -> S:
        """Reopen a run that failed or was cancelled, in the state it ended in, and carry it on.

        Raises `CheckpointError` if any of its work was undone: such a run can only be forked.
        """
        return await self._durably().retry(run_id)

    async def fork(
        self, run_id: str, *, at: int, new_id: str | None = None, data: D | None = None
    ) -> RunHandle[S, D]:
        """Start a new run from where another one was after its event number *at*.

        That must be one that decided on a state: `RunStarted`, `StateEntered`, `TaskCompleted`.
        *data* replaces what the run had then. The old run stays as it is, and what it completed
        belongs to it alone: the new one never undoes it.
        """
        return await self._durably().fork(run_id, at, new_id, data)

    async def recover(self, limit: int = 100) -> Sequence[RunHandle[S, D]]:
        """Carry on, in the background, at most *limit* runs that nobody does although they should.

        `async with workflow:` does so by itself as long as the scope is open.
        """
        return await self._durably().recover(limit)

    def handle(self, run_id: str) -> StoredRun[S, D]:
        """Reach a run of the store, whoever carries it out. Nothing is looked up before it is used."""
        return self._durably().handle(run_id)

    def _in_background(self, living: Coroutine[Any, Any, S], run: Run[S]) -> asyncio.Task[S]:
        task = asyncio.get_running_loop().create_task(living, name=self.name)
        self._scope.add(task)  # asyncio itself would not keep it from being collected
        task.add_done_callback(self._scope.discard)
        task.add_done_callback(run.looked_at)
        return task

    async def _run_durably(
        self,
        start: S | None,
        data: D | None,
        run_id: str | None,
        tags: Sequence[str],
        *,
        wait: bool,
    ) -> S:
        return await self._durably(start).run(start, data, run_id, tags, wait=wait)

    def _durably(self, start: S | None = None) -> Stored[S, D]:
        """The side of this workflow that deals with its store. Raises `DefinitionError`."""
        from cano._stored import Stored  # noqa: PLC0415 -- only who has a store pays for it

        if self.checkpoints is None:
            raise DefinitionError(
                f"{self.name} has no store, so nothing is left of its runs; say "
                "Workflow(..., checkpoints=SqliteCheckpoints(path))"
            )
        if self._plan is None:
            self._compile(start)
        if self._stored is None or not self._stored.usable:
            self._stored = Stored(self, self.checkpoints)
        return self._stored

    def as_task(
        self,
        then: P | Mapping[S, P],
        *,
        start: S | None = None,
        data_in: Callable[[Context[Any]], D] | None = None,
        data_out: Callable[[Context[Any], D], None] | None = None,
    ) -> SubWorkflow[P, S, D]:
        """A task for a state of another workflow: a visit there is a run of this one.

        Example::

            flow.register(Step.SHIP, shipping.as_task(
                {Shipping.SENT: Step.DONE, Shipping.LOST: Step.REFUND},
                data_in=lambda ctx: Parcel(ctx.data.items),
                data_out=lambda ctx, parcel: setattr(ctx.data, "tracking", parcel.tracking),
            ))

        The run within is cancelled, timed out, let go and resumed with the run it is part of, and
        undone with it. With a store it is a run of its own, named after the run, the visit and the
        state it is part of, and tagged "part of" that run; its workflow should have a store where
        the outer one has. Policies of the state go around the whole of it, and each attempt is
        a new run.

        Args:
            then: the state to go to: one for every exit, or the same for all.
            start: where the run begins, if not at the workflow's own start.
            data_in: makes the data of the run within. Not called where the run is found begun.
            data_out: takes over what the data has become; called once the run has finished.
        """
        from cano._nested import SubWorkflow  # noqa: PLC0415 -- only who nests pays for it

        return SubWorkflow(self, then, start, data_in, data_out)

    def as_branch(
        self,
        *policies: Policy,
        name: str | None = None,
        start: S | None = None,
        data_in: Callable[[Context[Any]], D] | None = None,
    ) -> Branch[PartResult[D]]:
        """A branch for a `Split` of another workflow; its value is a `PartResult`.

        See `as_task`. Where work of this workflow can be undone, the branch is not interrupted once
        it has begun, as with every branch that can be undone.
        """
        from cano._nested import branch_of  # noqa: PLC0415 -- only who nests pays for it

        return branch_of(self, policies, name, start, data_in)

    def _part(
        self, whole: Run[Any], start: S | None, data: D | None, run_id: str
    ) -> tuple[Run[S], Context[D], Coroutine[Any, Any, S]]:
        """`_new_run` for a run that is part of another."""
        if self.checkpoints is None:
            return self._new_run(start, data, run_id)
        return self._durably(start).part(whole, start, data, run_id)

    async def __aenter__(self) -> Self:
        """Open a scope: resources stay up until it ends, whatever runs come and go.

        With a store, the runs that nobody carries out are carried on meanwhile.
        """
        await self.resources.acquire(self._hear)
        if self.checkpoints is not None:
            try:
                await self._durably(self.start).open()
            except BaseException:
                await self.resources.release(self._hear)
                raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Wait for the runs that were started, cancel them if the block failed; then let go.

        With a store, cancelling them is letting go of them, and a run that waits for a signal or a
        moment is left waiting.
        """
        try:
            if self._stored is not None:
                await self._stored.stop_sweeping()
            if kind is not None:
                await self._end_runs()
            while self._scope:
                await asyncio.wait(self._scope)
        except asyncio.CancelledError:
            await self._end_runs()
            raise
        finally:
            try:
                if self._stored is not None:
                    await self._stored.close()
            finally:
                await self.resources.release(self._hear)

    def _hear(self, kind: type[Event], **fields: Any) -> None:
        """Tell the observers of something that belongs to no run."""
        told = self._plan.audience if self._plan is not None else audience(self._observers)
        told.hear(self.name, kind, **fields)

    async def _end_runs(self) -> None:
        """Cancel the runs that were started, again if need be, and wait for them."""
        cancelled = False
        while self._scope:
            for task in self._scope:
                task.cancel()
            try:
                await asyncio.wait(self._scope, timeout=AGAIN)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    def _new_run(
        self, start: S | None, data: D | None, run_id: str | None
    ) -> tuple[Run[S], Context[D], Coroutine[Any, Any, S]]:
        """A run, its context, and its life from the first event to the last, not begun."""
        plan, first = self._begin(start)
        run = Run(plan, run_id)
        context: Context[Any] = Context(run, run.path, self._data_of(plan, data))
        live = run.live_with_resources if self.resources else run.live
        return run, context, live(context, first)
