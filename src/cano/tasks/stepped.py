"""Work in steps: each tells how far it got, and a resumed run goes on from there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Any, ClassVar, Generic, Literal, TypeVar, Union, get_args, get_origin

from cano._clock import loop_time
from cano._graph import Targets, targets_of
from cano._kinds import kind_name
from cano._values import awaited
from cano.context import Context
from cano.errors import RoutingError
from cano.events import CursorSaved
from cano.policies.policy import Call
from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
S_co = TypeVar("S_co", bound=Enum, covariant=True)

STEPS = 256
"""Steps after which a visit that never suspends lets the rest of the loop have its turn."""
SECONDS = 0.01
"""Seconds after which it does."""


@dataclass(frozen=True, slots=True)
class More(Generic[C_co]):
    """There is more to do, from *cursor* on."""

    cursor: C_co


@dataclass(frozen=True, slots=True)
class Done(Generic[S_co]):  # no tuple: pyright would widen Done(Step.END) to Done[Step]
    """The work is done, and leads to *state*."""

    state: S_co


class SteppedTask(Task[S], Generic[S, C]):
    """Do the work in steps, each from the cursor that the one before returned.

    With a store every cursor is kept, with what the step changed of the run data, before the next
    step begins; a resumed visit goes on with the last one. A visit begins with None: a later visit
    of the same state never sees the cursor of an earlier one. Policies go around each step, so a
    failed one is repeated with the same cursor. Example::

        class Copy(SteppedTask[Step, int]):
            async def step(self, ctx: Context, cursor: int | None) -> More[int] | Done[Literal[Step.END]]:
                page = await fetch_page(cursor or 0)
                return More(page.next) if page.next else Done(Step.END)
    """

    verb: ClassVar[str] = "step"

    async def step(
        self, ctx: Context[Any], cursor: C | None, /, *args: Any, **kwargs: Any
    ) -> More[C] | Done[S]:
        """Do one step, and say `More(cursor)` or `Done(state)`."""
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        step: Call[Any] = guard(self.step, item=True)
        kept = guard.value(self._cursor, f"the cursor of {self.label}")

        async def run(ctx: Context[Any]) -> S:
            saved: CursorSaved | None = None
            if ctx.host.durable:
                saved = ctx.host.history.visit.of("cursor", ctx.branch_name)
            ctx.item = None if saved is None else kept.read(saved.value)
            clock = loop_time(asyncio.get_running_loop())
            steps, due = 0, clock() + SECONDS
            while isinstance(outcome := await step(ctx), More):
                cursor = _cursor_of(outcome)
                if ctx.host.durable:
                    event = CursorSaved(value=kept.write(cursor), patch=ctx.changes())
                    await ctx.record(event)
                    ctx.begin()
                ctx.item = cursor
                steps += 1
                if not steps % STEPS or clock() >= due:
                    await asyncio.sleep(0)  # else neither a timeout nor a cancellation gets in
                    due = clock() + SECONDS
            ctx.item = None
            state: S = _state_of(outcome, self.label)
            return state

        return run

    @property
    def returns(self) -> Targets:
        done = [part for part in self._parts if get_origin(part) is Done]
        return targets_of(get_args(done[0])[0]) if done else None

    def problems(self, total: float | None, /) -> Iterable[str]:
        if getattr(type(self), self.verb) is vars(SteppedTask)[self.verb]:
            yield f"{self.label} has no step(); write `async def step(self, ctx, cursor)`"
        if isinstance(found := self.returns, str):
            yield f"{self.label}.step says Done[{found}], which is no state"
        for part in self._parts:
            kind: Any = get_origin(part) or part
            known = kind in (More, Done, Any)
            if not known and (kind is Literal or isinstance(kind, type)):
                yield (
                    f"{self.label}.step is annotated to return {kind_name(kind)}; write "
                    "-> More[Cursor] | Done[Literal[Step.A]]"
                )

    @property
    def _parts(self) -> tuple[Any, ...]:
        hint = awaited(describe(self.step, 2).returns)
        return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)

    @property
    def _cursor(self) -> Any:
        more = [part for part in self._parts if get_origin(part) is More]
        return get_args(more[0])[0] if more else Any


def _cursor_of(outcome: Any) -> Any:
    return outcome.cursor


def _state_of(outcome: Any, label: str) -> Any:
    state: Any = getattr(outcome, "state", None)
    if isinstance(outcome, Done):
        return state
    raise RoutingError(f"{label}.step returned {outcome!r}; return More(cursor) or Done(state)")
