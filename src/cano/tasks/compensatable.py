"""Work that can be undone: one link of a saga."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from cano._graph import Targets, targets_of
from cano._values import ValueType, awaited
from cano.context import Context
from cano.errors import RoutingError
from cano.events import TaskCompleted
from cano.policies.policy import Call, Policy, problems_of
from cano.tasks._undoing import undo_at_once
from cano.tasks.task import Guard, Model, Runner, S, Undoer
from cano.tasks.verb import describe

T = TypeVar("T")


class CompensatableTask(Model[S], Generic[S, T]):
    """Do something, and say how to undo it.

    When the run fails, or is cancelled, everything that completed is undone, newest first. The
    output is what undoing needs; it is kept as JSON and comes back as it is annotated. Example::

        class Reserve(CompensatableTask[Step, Seat]):
            async def run(self, ctx: Context[Trip]) -> tuple[Literal[Step.PAY], Seat]:
                return Step.PAY, await book_seat(ctx.data.train)

            async def compensate(self, ctx: Context[Trip], output: Seat) -> None:
                await free_seat(output)

    Cancellations and timeouts of the whole run wait for `run` to finish. Whatever it changes
    outside should be its last act: what failed left nothing to undo.
    """

    interruptible: ClassVar[bool] = False
    undoable: bool = True
    compensation_policies: ClassVar[Sequence[Policy]] = ()
    """Around `compensate`, outermost first, such as `(Retry(), Timeout(5))`."""

    async def run(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> tuple[S, T]:
        """Do the work; return the next state, and what undoing needs."""
        raise NotImplementedError

    async def compensate(self, ctx: Context[Any], output: T, /, *args: Any, **kwargs: Any) -> None:
        """Undo what `run` did. It may be called more than once for the same output."""
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        forward: Call[tuple[S, T]] = guard(self.run)
        undo = guard(self.compensate, *self.compensation_policies, item=True, alone=True)
        value = self._value(guard)

        async def run(ctx: Context[Any]) -> S:
            state, output = _pair(await forward(ctx), self.label)
            try:
                event = TaskCompleted(
                    next=_label(state, ctx, self.label),
                    value=value.write(output),
                    patch=ctx.changes(),
                )
            except Exception as error:
                await undo_at_once(undo, ctx, output, error)
                raise
            await ctx.record(event)
            target: S = state
            return target

        return run

    def undoers(self, guard: Guard, /) -> Mapping[str, Undoer]:
        undo = guard(self.compensate, *self.compensation_policies, item=True, alone=True)
        return {"": Undoer(undo, self._value(guard))}

    def problems(self, total: float | None, /) -> Iterable[str]:
        yield from problems_of(self.compensation_policies, None)
        for name in ("run", "compensate"):
            if getattr(type(self), name) is getattr(CompensatableTask, name):
                yield f"{self.label} has no {name}(); write `async def {name}(self, ctx, ...)`"
        if isinstance(found := self.returns, str):
            yield (
                f"{self.label}.run is annotated to return {found}; write -> tuple[Literal[Step.A], "
                "Output]: the next state, and what undoing needs"
            )

    @property
    def returns(self) -> Targets:
        parts = _parts(describe(self.run).returns)
        return targets_of(parts[0]) if parts else _said(describe(self.run).returns)

    def _value(self, guard: Guard) -> ValueType:
        parts = _parts(describe(self.run).returns)
        return guard.value(parts[1] if parts else Any, f"the output of {self.label}", needed=True)


def _parts(hint: Any) -> tuple[Any, ...]:
    """State and output of an annotation; nothing if it is no pair."""
    plain = awaited(hint)
    parts = get_args(plain)
    return parts if get_origin(plain) is tuple and len(parts) == 2 and parts[1] is not ... else ()


def _said(hint: Any) -> Targets:
    plain = awaited(hint)
    return None if plain is Any or plain is tuple or isinstance(plain, TypeVar) else str(plain)


def _pair(returned: Any, label: str) -> tuple[Any, Any]:
    try:
        state, output = returned
    except (TypeError, ValueError):
        raise RoutingError(
            f"{label} returned {returned!r}; return the next state and the output that undoing "
            "needs, as a pair"
        ) from None
    return state, output


def _label(state: Any, ctx: Context[Any], label: str) -> str:
    if isinstance(state, Enum) and type(state) is type(ctx.state):
        return state._name_
    raise RoutingError(
        f"{label} returned {state!r} as next state, which is no member of "
        f"{type(ctx.state).__name__}"
    )
