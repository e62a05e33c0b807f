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
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from cano._audience import Audience
from cano._data import DataType
from cano._kinds import fits, kind_name
from cano.context import NOTHING, Context, Handover
from cano.errors import DataError, JoinFailedError, RoutingError, RunTimeoutError
from cano.events import (
    Event,
    FailureRouted,
    StateEntered,
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


class Registration(msgspec.Struct, Generic[S], frozen=True):
    """A state, what it runs, and how."""

    state: S
    task: Task[S]
    policies: Sequence[Policy]
    otherwise: Otherwise[S] | None
    targets: frozenset[S] | None
    """Where the task says that it leads; None is anywhere."""


Step: TypeAlias = tuple[S, StateEntered | None, Runner[S] | None]
"""A state as the loop sees it: what to announce of a visit, if anybody listens, and what to run.
An exit has no runner, which is what ends the loop."""


class Plan(msgspec.Struct, Generic[S]):
    """A workflow, compiled. Shared by all its runs; nothing in it changes any more."""

    name: str
    version: int
    states: type[S]
    registrations: Mapping[str, Registration[S]]
    exits: Mapping[str, S]
    data_type: DataType[Any] | None
    resources: Resources
    audience: Audience
    timeout: float | None
    strict: bool
    starts: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The states found fit to start from, by name."""
    problems: list[str] = msgspec.field(default_factory=list[str])
    """What binding the tasks brought to light."""
    steps: Mapping[str, Step[S]] = {}
    compiled_for_all: Mapping[str, Step[S]] | None = None

    @property
    def watched(self) -> Mapping[str, Step[S]]:
        """The steps for a run somebody watches: every event is announced."""
        if self.compiled_for_all is None:
            self.compiled_for_all = self._compile(lambda kind: True)
        return self.compiled_for_all

    def compile(self) -> None:
        """Fill in the steps."""
        self.steps = self._compile(self.audience.listens if self.audience.observers else None)

    def _compile(self, listens: Listens | None) -> Mapping[str, Step[S]]:
        steps: dict[str, Step[S]] = {
            name: (state, _entered(name, listens), None) for name, state in self.exits.items()
        }
        receivers: set[str] = set()
        for registration in self.registrations.values():
            if registration.task.hands_over or registration.otherwise is not None:
                receivers |= _receivers(registration)
        for name, registration in self.registrations.items():
            runner = self._runner(name, registration, listens)
            if name in receivers:
                runner = _receiving(runner)
            if self.timeout is not None:
                runner = _on_time(runner, self.timeout)
            if listens is not None and listens(TaskStarted):
                runner = _started(runner, name)
            steps[name] = (registration.state, _entered(name, listens), runner)
        return steps

    def _runner(
        self, name: str, registration: Registration[S], listens: Listens | None
    ) -> Runner[S]:
        """What a state's visit comes to, but for what depends on the visit before it."""
        task, otherwise = registration.task, registration.otherwise
        runner = task.bind(Guarding(self, name, registration.policies or task.policies))
        if not task.interruptible:
            runner = _uninterrupted(runner)
        if self.strict:
            runner = self._strict(runner, registration)
        if listens is not None and listens(TaskSucceeded):
            runner = _succeeding(runner, name)
        if otherwise is not None:
            runner = _routed(runner, otherwise)
        return runner

    def _strict(self, runner: Runner[S], registration: Registration[S]) -> Runner[S]:
        if registration.targets is not None:
            runner = _within(runner, registration.state, registration.targets)
        if self.data_type is not None and not registration.task.changes_data:
            runner = _leaving_data(runner, self.data_type)
        return runner


class Guarding:
    """The guard of one state: policies around a call, and resources into its parameters."""

    __slots__ = ("_plan", "_policies", "_state")

    def __init__(self, plan: Plan[Any], state: str, policies: Sequence[Policy]) -> None:
        self._plan = plan
        self._state = state
        self._policies = policies

    def __call__(
        self, call: Callable[..., Awaitable[T]], /, *policies: Policy, item: bool = False
    ) -> Call[T]:
        verb = describe(call, 2 if item else 1)
        if verb.problem is not None:
            self._plan.problems.append(f"{self._state}: {verb.problem}")
        if verb.data is not None:
            self._compare(verb.data, verb.name)
        ready: Call[T] = call
        if verb.wants or item:
            for want in verb.wants:
                self._look_up(want, verb.name)
            ready = inject(call, verb, self._plan.resources.__contains__, item=item)
        if self._policies or policies:
            ready = compose((*self._policies, *policies), ready)
        return ready

    def _compare(self, data: type[Any], by: str) -> None:
        """Find a function that works on the data of another workflow."""
        kind = type(None) if self._plan.data_type is None else self._plan.data_type.kind
        if data is not type(None) and not _is_subclass(kind, data):
            has = "there is none" if kind is type(None) else f"it is {kind.__name__}"
            self._plan.problems.append(
                f"{self._state}: {by} wants {data.__name__} as run data, but {has}; mend the "
                "annotation of its context, or data= of the workflow"
            )

    def _look_up(self, want: Wanted, by: str) -> None:
        """Find at once what would otherwise be missed at run time."""
        if want.name not in self._plan.resources:
            if not want.optional:
                there = ", ".join(map(str, self._plan.resources)) or "none"
                self._plan.problems.append(
                    f"{self._state}: {by} wants a resource named {want.name!r}; pass "
                    f"Resources({want.name}=...) to the workflow. There are: {there}"
                )
            return
        found = self._plan.resources[want.name]
        entered = hasattr(found, "__aenter__")  # what it hands out is known when it is entered
        if want.kind is not None and not entered and not _is_a(found, want.kind):
            self._plan.problems.append(
                f"{self._state}: {by} wants {want.name!r} as {kind_name(want.kind)}, but it is a "
                f"{type(found).__name__}; mend the annotation or the resource"
            )


def _is_subclass(kind: type[Any], of: type[Any]) -> bool:
    try:
        return issubclass(kind, of)
    except TypeError:  # a protocol that cannot be asked at run time
        return True


def _is_a(found: object, kind: Any) -> bool:
    try:
        return fits(found, kind)
    except TypeError:  # such as a protocol that cannot be asked at run time
        return True


def _entered(name: str, listens: Listens | None) -> StateEntered | None:
    return StateEntered(state=name) if listens is not None and listens(StateEntered) else None


def _receivers(registration: Registration[S]) -> set[str]:
    """The states that may find something in their context from this one."""
    found: set[str] = set()
    if registration.task.hands_over:
        found.update(state._name_ for state in registration.targets or ())
    if registration.otherwise is not None:
        found.update(state._name_ for state in registration.otherwise.values())
    return found


def _uninterrupted(runner: Runner[S]) -> Runner[S]:
    """Let the work finish before a cancellation continues."""

    async def apart(ctx: Context[Any]) -> S:
        with ctx.apart():
            return await runner(ctx)

    async def finish(ctx: Context[Any]) -> S:
        work = asyncio.ensure_future(apart(ctx))
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


def _started(runner: Runner[S], name: str) -> Runner[S]:
    """Say that the work of a visit begins; how it ends is said where that is known."""
    started = TaskStarted(state=name, attempt=1)

    def visit(ctx: Context[Any]) -> Awaitable[S]:
        ctx.attempt = 1
        ctx.host.announce(started)
        return runner(ctx)

    return visit


def _succeeding(runner: Runner[S], name: str) -> Runner[S]:
    """Say that the work of a visit led somewhere."""

    async def work(ctx: Context[Any]) -> S:
        state = await runner(ctx)
        label = getattr(state, "_name_", repr(state))
        ctx.host.announce(TaskSucceeded(state=name, attempt=ctx.attempt, next=label))
        return state

    return work


def _routed(runner: Runner[S], otherwise: Otherwise[S]) -> Runner[S]:
    """Lead what is left of a failure to a state."""

    async def route(ctx: Context[Any]) -> S:
        try:
            return await runner(ctx)
        except Exception as error:
            target = next((to for kind, to in otherwise.items() if isinstance(error, kind)), None)
            if target is None:
                raise
            split = error.result if isinstance(error, JoinFailedError) else None
            ctx.handover = Handover(split, error)
            if ctx.listens(TaskFailed):
                ctx.emit(TaskFailed(error=repr(error)))
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
        alarm = ctx._alarm or ctx.alarm
        deadline = alarm.innermost  # before a visit, no other than the run's own is open
        if deadline is not None and deadline[0] <= alarm.now():
            raise RunTimeoutError(
                f"the run took longer than its {limit:g} s; it was about to visit "
                f"{ctx.state._name_}"
            )
        return runner(ctx)

    return visit
