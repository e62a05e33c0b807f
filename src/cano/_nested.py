"""A workflow as the task of a state: a run within a run.

Rule 1: the part lives in the asyncio task of its whole, so that deadlines and cancellations reach
        it by themselves; it ends when the whole ends, and is let go when the whole is let go.
Rule 2: its name is made of its whole's, the visit and the attempt. So whoever resumes the whole
        finds the part again, and what is finished of it is not done twice.
Rule 3: a part that failed has undone itself. One that finished is undone with its whole.
"""

from __future__ import annotations

from asyncio import CancelledError, ensure_future
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import msgspec

from cano._lifecycle import Phase
from cano._run import Run
from cano._shield import outlast
from cano.context import Context
from cano.errors import (
    CheckpointError,
    CompensationFailedError,
    DefinitionError,
    EffectInDoubtError,
    RunCancelledError,
)
from cano.events import RunCancelled, RunReopened, TaskCompleted
from cano.policies.policy import Call, Policy, problems_of
from cano.tasks._undoing import undo_at_once
from cano.tasks.split import Branch
from cano.tasks.task import Guard, Model, Runner, S, Undoer

if TYPE_CHECKING:
    from cano.workflow import Workflow

C = TypeVar("C", bound=Enum)
D = TypeVar("D")

DataIn = Callable[[Context[Any]], D]
DataOut = Callable[[Context[Any], D], None]


class PartResult(msgspec.Struct, Generic[D], frozen=True):
    """What a branch that is a workflow came to."""

    run_id: str
    exit: str
    """The name of the state that the run ended in."""
    data: D
    """The run's data, as the run left it."""


class Part(NamedTuple):
    """A run within a run, at its end."""

    exit: Any
    run: Run[Any]
    context: Context[Any]


class SubWorkflow(Model[S], Generic[S, C, D]):
    """What `Workflow.as_task` makes: a visit carries out a run of another workflow."""

    changes_data: ClassVar[bool] = True
    once: ClassVar[bool] = True  # two parts would have one name
    verb: ClassVar[str] = "as_task"

    def __init__(
        self,
        workflow: Workflow[C, D],
        then: S | Mapping[C, S],
        start: C | None,
        data_in: DataIn[D] | None,
        data_out: DataOut[D] | None,
    ) -> None:
        self.workflow: Workflow[C, D] = workflow
        self.then: S | Mapping[C, S] = then
        self.start: C | None = start
        self.data_in: DataIn[D] | None = data_in
        self.data_out: DataOut[D] | None = data_out
        self._standing: WeakKeyDictionary[Run[Any], dict[str, Part]] = WeakKeyDictionary()
        """Without a store: what is to be undone with its whole, by name."""

    def bind(self, guard: Guard, /) -> Runner[S]:
        self.undoable: bool = undoable(self.workflow)
        if guard.durable and self.undoable and self.workflow.checkpoints is None:
            raise DefinitionError(
                f"{self.label} has no store, so a crash would forget what is to be undone of it; "
                "say Workflow(..., checkpoints=...), as of the workflow it is part of"
            )
        carry_out: Call[Part] = guard(self.carry_out)
        undo, name = self._undo(guard), guard.value(str, f"the name of {self.label}", needed=True)

        async def run(ctx: Context[Any]) -> S:
            part = await carry_out(ctx)
            run_id = part.run.run_id
            try:
                if self.data_out is not None:
                    self.data_out(ctx, part.context.data)
                state = self._next(part.exit)
                patch = ctx.changes() if self.undoable else None
            except Exception as error:
                if self.undoable:
                    await undo_at_once(undo, ctx, run_id, error)
                raise
            if self.undoable:
                done = TaskCompleted(next=state._name_, value=name.write(run_id), patch=patch)
                await ctx.record(done)
            return state

        return run

    def undoers(self, guard: Guard, /) -> Mapping[str, Undoer]:
        return {"": Undoer(self._undo(guard), guard.value(str, "its name", needed=True))}

    def targets(self) -> frozenset[S]:
        then = self.then
        return frozenset(then.values()) if isinstance(then, Mapping) else frozenset((then,))

    def problems(self, total: float | None, /) -> Iterable[str]:
        part = self.workflow
        try:
            part.check(self.start)
        except DefinitionError as error:
            yield from (f"{self.label}: {problem}" for problem in error.problems)
        if self.start is None and part.start is None:
            yield (
                f"{self.label} does not know where to start; say as_task(start=...), or start= of "
                "the workflow"
            )
        if isinstance(self.then, Mapping):
            missing = [name for name, exit_ in part._exits.items() if exit_ not in self.then]
            if missing:
                yield (
                    f"{self.label}: then= does not say where to go from {', '.join(missing)}; "
                    "name a state for every exit"
                )

    @property
    def label(self) -> str:
        return self.workflow.name

    def _next(self, exit_: C) -> S:
        then = self.then
        return then[exit_] if isinstance(then, Mapping) else then

    async def carry_out(self, ctx: Context[Any]) -> Part:
        """Carry out the part, from its beginning or from wherever it is."""
        whole = cast("Run[Any]", ctx.host)
        name = f"{ctx.idempotency_key}/{ctx.attempt}" if ctx.attempt > 1 else ctx.idempotency_key
        numbers = count(2)
        while (part := await self._live(ctx, whole, name)) is None:
            name = f"{name.partition('+')[0]}+{next(numbers)}"
        if not part.run.durable and self.undoable:
            self._standing.setdefault(whole, {})[name] = part
        return part

    async def _live(self, ctx: Context[Any], whole: Run[Any], name: str) -> Part | None:
        """The part called *name*, at its end; None if it has to be done again, as another."""
        data = None if self.data_in is None else self.data_in(ctx)
        run, context, living = self.workflow._part(whole, self.start, data, name)
        context._outer_deadline = ctx.deadline
        try:
            return Part(await living, run, context)
        except CancelledError:
            if not whole.leaving:  # it may have ended in that very moment, or not have begun
                undoing = ensure_future(self._take_back(Part(None, run, context)))
                await outlast(undoing)
                if isinstance(error := undoing.exception(), CheckpointError):
                    whole.stop_for(error)
                undoing.result()  # what could not be undone goes before the cancellation
            raise
        except RunCancelledError:
            if whole.cancelled or not whole.durable or await self._asked_to_end(name):
                raise
            return None  # it was ended by its whole, which died before it could say why
        except CheckpointError as error:
            if not isinstance(error, EffectInDoubtError):
                whole.stop_for(error)
            raise

    async def _asked_to_end(self, name: str) -> bool:
        """Whether somebody asked for the end of the part itself."""
        stored = self.workflow._stored
        return stored is None or await stored.asked_to_end(name)

    def _undo(self, guard: Guard) -> Call[None]:
        return guard(self.undo, item=True, alone=True)

    async def undo(self, ctx: Context[Any], run_id: str) -> None:
        """Take back a finished run. Raises `CompensationFailedError`."""
        part = self._standing.get(cast("Run[Any]", ctx.host), {}).pop(run_id, None)
        if part is not None:
            await self._take_back(part)
        else:
            await self.workflow._durably().undo(run_id)

    async def _take_back(self, part: Part) -> None:
        """See that nothing of a part is left standing. Raises `CompensationFailedError`."""
        run = part.run
        if run.durable:
            await self.workflow._durably().undo(run.run_id)
        elif run.phase is Phase.FINISHED and run.history.standing:
            from cano._rollback import roll_back  # noqa: PLC0415 -- only who undoes pays for it

            await run.record(RunReopened())
            failures = await roll_back(run, part.context)
            await run.record(RunCancelled(state=part.context.state.name))
            if failures:
                raise CompensationFailedError(f"{run!r} could not be undone", failures)


def undoable(workflow: Workflow[Any, Any]) -> bool:
    """Whether any of its work is undone when its run fails."""
    return any(each.task.undoable for each in workflow._registrations.values())


def branch_of(
    workflow: Workflow[C, D],
    policies: Sequence[Policy],
    name: str | None,
    start: C | None,
    data_in: DataIn[D] | None,
) -> Branch[PartResult[D]]:
    """See `Workflow.as_branch`."""
    task: SubWorkflow[Any, C, D] = SubWorkflow(workflow, {}, start, data_in, None)
    problems = [found for found in task.problems(None) if "then=" not in found]
    if problems := [*problems, *problems_of(policies, None, once=True)]:
        raise DefinitionError(problems)
    task.undoable = undoable(workflow)

    async def part(ctx: Context[Any]) -> Any:
        done = await task.carry_out(ctx)
        return PartResult(done.run.run_id, done.exit._name_, done.context.data)

    async def undo(ctx: Context[Any], result: Any) -> None:
        await task.undo(ctx, result.run_id)

    kind: Any = PartResult
    part.__annotations__["return"] = kind[workflow.data or None]
    return Branch(
        part, *policies, name=name or workflow.name, compensate=undo if task.undoable else None
    )
