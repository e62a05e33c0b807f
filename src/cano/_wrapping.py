"""The wrappers that a plan puts around the work of a visit, where they were asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeAlias

from cano._causes import cause_of
from cano._data import DataType
from cano._host import NOTHING, Handover
from cano.context import Context
from cano.errors import (
    DataError,
    JoinFailedError,
    RoutingError,
    RunTimeoutError,
)
from cano.events import (
    FailureRouted,
    StateEntered,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
)
from cano.tasks.task import Runner, S

Otherwise: TypeAlias = Mapping[type[Exception], S]


def recorded(runner: Runner[S], name: str) -> Runner[S]:
    """Have the entry on disk, and what changed of the data until then, before the work begins."""

    async def visit(ctx: Context[Any]) -> S:
        try:
            await ctx.host.record(StateEntered(state=name, patch=ctx.changes()))
        except BaseException:
            ctx.host.not_begun()
            raise
        ctx.begin()
        return await runner(ctx)

    return visit


def within(runner: Runner[S], state: S, targets: frozenset[S]) -> Runner[S]:
    """Hold a task to the edges it declares."""

    async def checked(ctx: Context[Any]) -> S:
        returned = await runner(ctx)
        if returned not in targets:
            declared = ", ".join(sorted(target._name_ for target in targets))
            raise RoutingError(
                f"{state._name_} returned {returned!r}, but declares {declared or 'nothing'}; "
                "add it to the return annotation, or leave strict=True out"
            )
        return returned

    return checked


def leaving_data(runner: Runner[S], kind: DataType[Any]) -> Runner[S]:
    """Hold the branches of a split to leaving the run data alone."""

    async def checked(ctx: Context[Any]) -> S:
        before = kind.snapshot(ctx.data)
        returned = await runner(ctx)
        after = kind.snapshot(ctx.data)
        if changed := [name for name in before if before[name] != after[name]]:
            raise DataError(
                f"a branch of {ctx.state._name_} changed ctx.data.{', '.join(changed)}; return the "
                "value instead, and let the next state put it there from ctx.split"
            )
        return returned

    return checked


def started(runner: Runner[S], name: str) -> Runner[S]:
    """Say that the work of a visit begins; how it ends is said where that is known."""
    started = TaskStarted(state=name, attempt=1)

    def visit(ctx: Context[Any]) -> Awaitable[S]:
        ctx.attempt = 1
        ctx.host.announce(started)
        return runner(ctx)

    return visit


def succeeding(runner: Runner[S], name: str) -> Runner[S]:
    """Say that the work of a visit led somewhere."""

    async def work(ctx: Context[Any]) -> S:
        state = await runner(ctx)
        label = getattr(state, "_name_", repr(state))
        ctx.host.announce(TaskSucceeded(state=name, attempt=ctx.attempt, next=label))
        return state

    return work


def routed(runner: Runner[S], otherwise: Otherwise[S]) -> Runner[S]:
    """Lead what is left of a failure to a state."""

    async def route(ctx: Context[Any]) -> S:
        try:
            return await runner(ctx)
        except Exception as error:
            if ctx.host.stops(error):  # nothing could be recorded of a route
                raise
            target = next((to for kind, to in otherwise.items() if isinstance(error, kind)), None)
            if target is None:
                raise
            split = error.result if isinstance(error, JoinFailedError) else None
            ctx.handover = Handover(split, error)
            if ctx.listens(TaskFailed):
                ctx.emit(TaskFailed(error=repr(error)))
            if ctx.host.durable or ctx.listens(FailureRouted):
                cause = cause_of(error) if ctx.host.durable else None
                ctx.defer(FailureRouted(next=target._name_, error=repr(error), cause=cause))
            return target

    return route


def receiving(runner: Runner[S]) -> Runner[S]:
    """Show a visit what the one before left for it, and take it away afterwards."""

    async def receive(ctx: Context[Any]) -> S:
        ctx.split, ctx.error = ctx.handover
        ctx.handover = NOTHING
        try:
            return await runner(ctx)
        finally:
            ctx.split = ctx.error = None

    return receive


def on_time(runner: Runner[S], limit: float) -> Runner[S]:
    """Look at the clock before each visit: a cycle that never suspends meets no timer."""

    def visit(ctx: Context[Any]) -> Awaitable[S]:
        alarm = ctx._alarm or ctx.alarm
        deadline = alarm.innermost  # before a visit, no other than the run's own is open
        if deadline is not None and deadline[0] <= alarm.now():
            raise RunTimeoutError(
                f"the run took longer than its {limit:g} s; it was about to visit "
                f"{ctx.state._name_}"
            )
        return runner(ctx)

    return visit
