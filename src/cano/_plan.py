"""Workflow → Plan: checked once, compiled once.

Compiling turns every state into one coroutine function. What nobody asked for is not compiled
in, so it costs nothing and needs no test in the loop. The wrappers below, innermost first, are
all there is: the work is `task.bind(guard)`, and around it, where asked for, come not being
interrupted, being strict, being announced, routing a failure, receiving what the state before
handed over, looking at the clock and, with a store, recording the entry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from cano._audience import Audience
from cano._data import DataType
from cano._kinds import fits, kind_name
from cano._shield import shielded
from cano._values import ValueType, value_type
from cano._wrapping import (
    Otherwise,
    leaving_data,
    on_time,
    receiving,
    recorded,
    routed,
    started,
    succeeding,
    within,
)
from cano.errors import DataError
from cano.events import (
    Event,
    StateEntered,
    TaskStarted,
    TaskSucceeded,
)
from cano.policies.policy import Call, Policy, compose
from cano.resources import Resources, Using
from cano.tasks.task import EVERY_BRANCH, Model, Runner, S, Undoer
from cano.tasks.verb import Wanted, describe, inject

if TYPE_CHECKING:
    from cano._migrations import Migrations
    from cano._upgrade import Present

T = TypeVar("T")
Listens: TypeAlias = Callable[[type[Event]], bool]


class Registration(msgspec.Struct, Generic[S], frozen=True):
    """A state, what it runs, and how."""

    state: S
    task: Model[S]
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
    rollback_timeout: float = 30.0
    durable: bool = False
    """Whether there is a store: entering a state is then recorded, as part of its runner."""
    migrations: Migrations | None = None
    present: Present | None = None
    """What stored runs are held against, with a store."""
    fingerprint: str = ""
    starts: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The states found fit to start from, by name."""
    problems: list[str] = msgspec.field(default_factory=list[str])
    """What binding the tasks brought to light."""
    steps: Mapping[str, Step[S]] = {}
    bodies: Mapping[str, Step[S]] = {}
    """The steps without recording the entry, for visits that had begun before."""
    undoers: dict[str, Mapping[str, Undoer]] = {}
    """By state and branch, how completed work is undone."""
    compiled_for_all: Mapping[str, Step[S]] | None = None
    lifecycle: AbstractAsyncContextManager[object] | None = None
    """What keeps the resources up, and tells of it, if anybody listens."""

    def undoer(self, state: str, branch: str) -> Undoer | None:
        """How the work of a state, or of one of its branches, is undone."""
        undoers = self.undoers.get(state, {})
        return undoers.get(branch) or undoers.get(EVERY_BRANCH)

    @property
    def watched(self) -> Mapping[str, Step[S]]:
        """The steps for a run somebody watches: every event is announced."""
        if self.compiled_for_all is None:
            self.compiled_for_all = self._recording(self._compile(lambda kind: True))
        return self.compiled_for_all

    @property
    def using(self) -> AbstractAsyncContextManager[object]:
        """What a run does its work within: the resources are up."""
        return self.lifecycle or self.resources

    def compile(self) -> None:
        """Fill in the steps."""
        if self.audience.observers and self.resources:
            self.lifecycle = Using(self.resources, partial(self.audience.hear, self.name))
        self.bodies = self._compile(self.audience.listens if self.audience.observers else None)
        self.steps = self._recording(self.bodies)
        for name, registration in self.registrations.items():
            if registration.task.undoable:
                self.undoers[name] = registration.task.undoers(Guarding(self, name, ()))

    def _recording(self, bodies: Mapping[str, Step[S]]) -> Mapping[str, Step[S]]:
        """With a store: *bodies*, each behind the record of its entry."""
        if not self.durable:
            return bodies
        steps = dict(bodies)
        for name, registration in self.registrations.items():
            state, _, runner = bodies[name]
            if registration.task.recorded and runner is not None:
                steps[name] = (state, None, recorded(runner, name))
        return steps

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
                runner = receiving(runner)
            if self.timeout is not None:
                runner = on_time(runner, self.timeout)
            if listens is not None and listens(TaskStarted):
                runner = started(runner, name)
            kept = self.durable and registration.task.recorded
            entered = None if kept else _entered(name, listens)
            steps[name] = (registration.state, entered, runner)
        return steps

    def _runner(
        self, name: str, registration: Registration[S], listens: Listens | None
    ) -> Runner[S]:
        """What a state's visit comes to, but for what depends on the visit before it."""
        task, otherwise = registration.task, registration.otherwise
        runner = task.bind(Guarding(self, name, registration.policies or task.policies))
        if not task.interruptible:
            runner = shielded(runner)
        if self.strict:
            runner = self._strict(runner, registration)
        if listens is not None and listens(TaskSucceeded):
            runner = succeeding(runner, name)
        if otherwise is not None:
            runner = routed(runner, otherwise)
        return runner

    def _strict(self, runner: Runner[S], registration: Registration[S]) -> Runner[S]:
        if registration.targets is not None:
            runner = within(runner, registration.state, registration.targets)
        if self.data_type is not None and not registration.task.changes_data:
            runner = leaving_data(runner, self.data_type)
        return runner


class Guarding:
    """The guard of one state: policies around a call, and resources into its parameters."""

    __slots__ = ("_plan", "_policies", "_state")

    def __init__(self, plan: Plan[Any], state: str, policies: Sequence[Policy]) -> None:
        self._plan = plan
        self._state = state
        self._policies = policies

    @property
    def durable(self) -> bool:
        return self._plan.durable

    def value(self, hint: Any, what: str, /, *, needed: bool = False) -> ValueType:
        try:
            return value_type(hint, what)
        except DataError as error:
            if self.durable or needed:
                self._plan.problems.append(f"{self._state}: {error}")
            return value_type(Any, what)

    def __call__(
        self,
        call: Callable[..., Awaitable[T]],
        /,
        *policies: Policy,
        item: bool = False,
        alone: bool = False,
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
        if (self._policies and not alone) or policies:
            ready = compose(policies if alone else (*self._policies, *policies), ready)
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
