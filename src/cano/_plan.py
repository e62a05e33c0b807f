"""Workflow → Plan: checked once, compiled once.

Compiling turns every state into one coroutine function. What nobody asked for is not compiled
in, so it costs nothing and needs no test in the loop. The wrappers below, innermost first, are
all there is: the work is `task.bind(guard)`, and around it, where asked for, come not being
interrupted, being strict, being announced, routing a failure, receiving what the state before
handed over, and looking at the clock.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from cano._audience import Audience
from cano._data import DataType
from cano.context import NOTHING, Context, Handover
from cano.errors import DataError, JoinFailedError, RoutingError, RunTimeoutError
from cano.events import (
    Event,
    FailureRouted,
    StateEntered,
    TaskCancelled,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
)
from cano.policies.policy import Call, Policy, compose
from cano.resources import Resources
from cano.tasks.task import Runner, S, Task
from cano.tasks.verb import Wanted, describe, inject

T = TypeVar("T")
Otherwise: TypeAlias = Mapping[type[Exception], S]
Listens: TypeAlias = Callable[[type[Event]], bool]


class Registration(NamedTuple, Generic[S]):
    """A state, what it runs, and how."""

    state: S
    task: Task[S]
    policies: Sequence[Policy]
    otherwise: Otherwise[S] | None
    targets: frozenset[S] | None
    """Where the task says that it leads; None is anywhere."""


class Step(Generic[S]):
    """A state as the loop sees it. An exit has no runner, which is what ends the loop."""

    __slots__ = ("runner", "state")

    def __init__(self, state: S, runner: Runner[S] | None) -> None:
        self.state = state
        self.runner = runner


@dataclass(slots=True)
class Plan(Generic[S]):
    """A workflow, compiled. Shared by all its runs; nothing in it changes any more."""

    name: str
    version: int
    states: type[S]
    registrations: Mapping[str, Registration[S]]
    steps: Mapping[str, Step[S]]
    data_type: DataType[Any] | None
    resources: Resources
    audience: Audience
    timeout: float | None
    strict: bool
    starts: set[str] = field(default_factory=set)
    """The states found fit to start from."""
    problems: list[str] = field(default_factory=list)
    """What binding the tasks brought to light."""
    _watched: Mapping[str, Step[S]] | None = None

    @property
    def watched(self) -> Mapping[str, Step[S]]:
        """The steps for a run somebody watches: every event is announced."""
        if self._watched is None:
            self._watched = self._compile(lambda kind: True)
        return self._watched

    def compile(self, exits: Mapping[str, S]) -> None:
        """Fill in the steps."""
        self.steps = {name: Step(state, None) for name, state in exits.items()}
        self.steps = self._compile(self.audience.listens if self.audience.observers else None)

    def _compile(self, listens: Listens | None) -> Mapping[str, Step[S]]:
        steps = {name: step for name, step in self.steps.items() if step.runner is None}
        receivers = _receivers(self.registrations.values())
        for name, registration in self.registrations.items():
            runner = self._runner(name, registration, listens)
            if name in receivers:
                runner = _receiving(runner)
            if self.timeout is not None:
                runner = _on_time(runner, self.timeout)
            steps[name] = Step(registration.state, runner)
        return steps

    def _runner(
        self, name: str, registration: Registration[S], listens: Listens | None
    ) -> Runner[S]:
        state, task, policies, otherwise, targets = registration
        guard = Guarding(self.resources, policies or task.policies, name, self.problems)
        runner = task.bind(guard)
        if not task.interruptible:
            runner = _uninterrupted(runner)
        if self.strict and targets is not None:
            runner = _within(runner, state, targets)
        if self.strict and self.data_type is not None and not task.changes_data:
            runner = _leaving_data(runner, self.data_type)
        if listens is not None:
            runner = _announced(runner, name, listens)
        if otherwise is not None:
            runner = _routed(runner, otherwise)
        return runner


class Guarding:
    """The guard of one state: policies around a call, and resources into its parameters."""

    __slots__ = ("_policies", "_problems", "_resources", "_state")

    def __init__(
        self, resources: Resources, policies: Sequence[Policy], state: str, problems: list[str]
    ) -> None:
        self._resources = resources
        self._policies = policies
        self._state = state
        self._problems = problems

    def __call__(
        self, call: Callable[..., Awaitable[T]], /, *policies: Policy, item: bool = False
    ) -> Call[T]:
        verb = describe(call, 2 if item else 1)
        if verb.problem is not None:
            self._problems.append(f"{self._state}: {verb.problem}")
        ready: Call[T] = call
        if verb.wants or item:
            for want in verb.wants:
                self._look_up(want, verb.name)
            ready = inject(call, verb, self._resources.__contains__, item=item)
        if self._policies or policies:
            ready = compose((*self._policies, *policies), ready)
        return ready

    def _look_up(self, want: Wanted, by: str) -> None:
        """Find at once what would otherwise be missed at run time."""
        if want.name not in self._resources:
            if not want.optional:
                there = ", ".join(map(str, self._resources)) or "none"
                self._problems.append(
                    f"{self._state}: {by} wants a resource named {want.name!r}; pass "
                    f"Resources({want.name}=...) to the workflow. There are: {there}"
                )
            return
        found = self._resources[want.name]
        entered = hasattr(found, "__aenter__")  # what it hands out is known when it is entered
        if want.kind is not None and not entered and not _is_a(found, want.kind):
            self._problems.append(
                f"{self._state}: {by} wants {want.name!r} as {want.kind.__name__}, but it is a "
                f"{type(found).__name__}; mend the annotation or the resource"
            )


def _is_a(found: object, kind: type[Any]) -> bool:
    try:
        return isinstance(found, kind)
    except TypeError:  # a protocol that cannot be asked at run time
        return True


def _receivers(registrations: Any) -> set[str]:
    """The states that may find something in their context from the state before."""
    found: set[str] = set()
    for registration in registrations:
        if registration.task.hands_over:
            found.update(state._name_ for state in registration.targets or ())
        if registration.otherwise is not None:
            found.update(state._name_ for state in registration.otherwise.values())
    return found


def _uninterrupted(runner: Runner[S]) -> Runner[S]:
    """Let the work finish before a cancellation continues."""

    async def finish(ctx: Context[Any]) -> S:
        work = asyncio.ensure_future(runner(ctx))
        cancelled = False
        while not work.done():
            try:
                await asyncio.wait((work,))
            except CancelledError:
                cancelled = True
        if cancelled and not work.cancelled() and work.exception() is None:
            raise CancelledError
        return work.result()

    return finish


def _within(runner: Runner[S], state: S, targets: frozenset[S]) -> Runner[S]:
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


def _leaving_data(runner: Runner[S], kind: DataType[Any]) -> Runner[S]:
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


def _announced(runner: Runner[S], name: str, listens: Listens) -> Runner[S]:
    """Say that a visit begins, and that its work begins and ends: what is wanted of it."""
    if not any(listens(kind) for kind in (TaskStarted, TaskSucceeded, TaskFailed, TaskCancelled)):
        return _entered(runner, name) if listens(StateEntered) else runner
    entered, started = StateEntered(state=name), TaskStarted(state=name, attempt=1)
    enters, starts, succeeds = listens(StateEntered), listens(TaskStarted), listens(TaskSucceeded)

    async def visit(ctx: Context[Any]) -> S:
        ctx.attempt = 1
        announce = ctx.host.announce
        if enters:
            announce(entered)
        if starts:
            announce(started)
        try:
            state = await runner(ctx)
        except CancelledError:
            announce(TaskCancelled(state=name, attempt=ctx.attempt))
            raise
        except Exception as error:
            announce(TaskFailed(state=name, attempt=ctx.attempt, error=repr(error)))
            raise
        if succeeds:
            label = getattr(state, "_name_", repr(state))
            announce(TaskSucceeded(state=name, attempt=ctx.attempt, next=label))
        return state

    return visit


def _entered(runner: Runner[S], name: str) -> Runner[S]:
    """Say that a visit begins, and no more."""
    entered = StateEntered(state=name)

    def visit(ctx: Context[Any]) -> Awaitable[S]:
        ctx.host.announce(entered)
        return runner(ctx)

    return visit


def _routed(runner: Runner[S], otherwise: Otherwise[S]) -> Runner[S]:
    """Lead what is left of a failure to a state."""

    async def route(ctx: Context[Any]) -> S:
        try:
            return await runner(ctx)
        except Exception as error:
            for kind, target in otherwise.items():
                if isinstance(error, kind):
                    break
            else:
                raise
            split = error.result if isinstance(error, JoinFailedError) else None
            ctx.handover = Handover(split, error)
            if ctx.listens(FailureRouted):
                ctx.emit(FailureRouted(next=target._name_, error=repr(error)))
            return target

    return route


def _receiving(runner: Runner[S]) -> Runner[S]:
    """Show a visit what the one before left for it, and take it away afterwards."""

    async def receive(ctx: Context[Any]) -> S:
        ctx.split, ctx.error = ctx.handover
        ctx.handover = NOTHING
        try:
            return await runner(ctx)
        finally:
            ctx.split = ctx.error = None

    return receive


def _on_time(runner: Runner[S], limit: float) -> Runner[S]:
    """Look at the clock before each visit: a cycle that never suspends meets no timer."""

    def visit(ctx: Context[Any]) -> Awaitable[S]:
        if ctx.remaining <= 0:
            raise RunTimeoutError(
                f"the run took longer than its {limit:g} s; it was about to visit "
                f"{ctx.state._name_}"
            )
        return runner(ctx)

    return visit
