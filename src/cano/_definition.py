"""What a workflow is made of, before it runs: states, tasks, exits, settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import EnumType
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Self, TypeAlias, TypeVar

from cano import _check
from cano._compiling import audience, compiled
from cano._graph import Graph
from cano._plan import Plan, Registration
from cano._subscribe import Observer
from cano.context import Context
from cano.errors import DataError, DefinitionError
from cano.policies.policy import Policy, with_policies
from cano.resources import NO_RESOURCES, Resources
from cano.tasks.function import FunctionTask
from cano.tasks.task import Model, S

if TYPE_CHECKING:
    from cano._migrations import Migration, Migrations
    from cano.checkpoints.store import CheckpointStore

D = TypeVar("D")

TaskFunction: TypeAlias = Callable[Concatenate[Context[D], ...], Awaitable[S]]


class Definition(Generic[S, D]):
    """The part of `Workflow` that says what to do. Changes freely until it is compiled."""

    def __init__(  # noqa: PLR0917 -- `Workflow` passes on what it was given by name
        self,
        states: type[Any],
        data: type[Any] | None,
        start: Any,
        name: str | None,
        version: int,
        resources: Resources | None,
        observers: Sequence[Observer],
        timeout: float | None,
        strict: bool,
        checkpoints: CheckpointStore | None,
        rollback_timeout: float,
        lease: float,
        max_crashes: int,
    ) -> None:
        self.states: type[S] = states
        if not isinstance(states, EnumType):
            raise DefinitionError(f"states must be an Enum class, not {states!r}")
        if not ((timeout is None or timeout > 0) and rollback_timeout > 0 and lease > 0):
            raise _no_time(timeout=timeout, rollback_timeout=rollback_timeout, lease=lease)
        if max_crashes < 1:
            raise DefinitionError(f"max_crashes={max_crashes} lets no run begin; pass 1 or more")
        self.start: S | None = start
        self.name: str = name or states.__name__
        self.version: int = version
        self.resources: Resources = NO_RESOURCES if resources is None else resources
        self.timeout: float | None = timeout
        self.strict: bool = strict
        self.data: type[Any] | None = data
        self.checkpoints: CheckpointStore | None = checkpoints
        self.rollback_timeout: float = rollback_timeout
        self.lease: float = lease
        self.max_crashes: int = max_crashes
        self._observers = observers
        self._registrations: dict[str, Registration[S]] = {}
        self._exits: dict[str, S] = {}
        self._plan: Plan[S] | None = None
        self._migrations: Migrations | None = None

    def __repr__(self) -> str:
        tasks, exits = len(self._registrations), ", ".join(self._exits) or "none"
        limit = f", timeout {self.timeout:g} s" if self.timeout is not None else ""
        return f"<Workflow {self.name}: {tasks} states with tasks, exits: {exits}{limit}>"

    def register(
        self,
        state: S,
        task: TaskFunction[D, S] | Model[S],
        /,
        *policies: Policy,
        otherwise: S | Mapping[type[Exception], S] | None = None,
    ) -> Self:
        """Say what *state* runs; a later registration replaces an earlier one.

        *policies* go around the call, outermost first, instead of those of the task's class.
        *otherwise* names the state to go to when the task fails for good: one for every exception,
        or one per type, the first match counts.
        """
        if self._plan is not None:
            self._refuse_changes()
        # A class may be a function and a Task of other states at once, as far as pyright can tell.
        made: Model[S] = task if isinstance(task, Model) else _function(state, task)  # pyright: ignore[reportUnknownVariableType]
        if otherwise is not None and not isinstance(otherwise, Mapping):
            otherwise = {Exception: otherwise}
        try:
            name = state._name_
        except AttributeError:
            raise self._no_member(state) from None
        targets = made.targets()
        if policies or made.policies:
            targets = with_policies(targets, policies or made.policies)
        self._registrations[name] = Registration(state, made, policies, otherwise, targets)
        return self

    def task(
        self,
        state: S,
        /,
        *policies: Policy,
        otherwise: S | Mapping[type[Exception], S] | None = None,
    ) -> Callable[[TaskFunction[D, S]], TaskFunction[D, S]]:
        """`register` as a decorator; the function stays as it is."""

        def decorate(function: TaskFunction[D, S]) -> TaskFunction[D, S]:
            self.register(state, function, *policies, otherwise=otherwise)
            return function

        return decorate

    def exits(self, *states: S) -> Self:
        """Name the states that end a run. They run nothing."""
        if self._plan is not None:
            self._refuse_changes()
        for state in states:
            try:
                self._exits[state._name_] = state
            except AttributeError:
                raise self._no_member(state) from None
        return self

    @property
    def registered(self) -> tuple[S, ...]:
        """The states that have a task, in the order of registration."""
        return tuple(registration.state for registration in self._registrations.values())

    def migrate(self, *, from_: int) -> Callable[[Migration], Migration]:
        """Register a function that brings stored runs from version *from_* to the next one.

        It must be pure: it is given what is stored of a run, and returns what is to be.
        """
        from cano._migrations import Migrations  # noqa: PLC0415 -- only who migrates pays for it

        if self._plan is not None:
            self._refuse_changes()
        if self._migrations is None:
            self._migrations = Migrations()
        migrations = self._migrations

        def register(up: Migration) -> Migration:
            migrations.add(from_, up)
            return up

        return register

    def check(self, start: S | None = None) -> Graph[S]:
        """Find every definition error at once, and return the graph.

        Raises `DefinitionError`. With *start*, or one given to the workflow, states that cannot be
        reached from it are errors too.
        """
        start = self.start if start is None else start
        self._compile(start, only_entry=True)
        return _check.graph(self.name, self.states, self._registrations, self._exits, start)

    def _no_member(self, state: object) -> DefinitionError:
        return DefinitionError(f"{state!r} is no member of {self.states.__name__}")

    def _refuse_changes(self) -> None:
        raise DefinitionError(
            f"{self.name} has been compiled and no longer changes; register everything before "
            "the first run or check(), or change a copy()"
        )

    def _begin(self, start: S | None) -> tuple[Plan[S], S]:
        """The plan, and the state to start from, looked at once."""
        first = self.start if start is None else start
        plan = self._plan
        # By identity: a member of another enum may have the name, or even be equal.
        name = getattr(first, "_name_", "")
        if plan is None or plan.starts.get(name) is not first or first is None:
            plan, first = self._compile(first), self._known(first)
        return plan, first

    def _data_of(self, plan: Plan[S], data: D | None) -> Any:
        """The run's data: what was given, or fresh. Raises `DataError`."""
        kind = plan.data_type
        if data is None:
            return None if kind is None else kind.new()
        if kind is None:
            raise DataError(
                f"{self.name} has no run data; say Workflow({self.states.__name__}, "
                f"data={type(data).__name__})"
            )
        if problem := kind.problem(data):
            raise DataError(problem)
        return data

    def _known(self, start: S | None) -> S:
        if start is None:
            raise DefinitionError(
                f"{self.name} does not know where to start; pass a state to run(), or start= to "
                "the workflow"
            )
        return start

    def _compile(self, start: S | None, *, only_entry: bool = False) -> Plan[S]:
        """The plan, made at first use. Raises `DefinitionError` with every problem there is."""
        plan = self._plan
        found: list[str] = []
        edges = _check.edges_of(self._registrations)
        if plan is None:
            plan = Plan(
                self.name, self.version, self.states, self._registrations, self._exits, None,
                self.resources, audience(self._observers), self.timeout, self.strict,
                self.rollback_timeout, self.checkpoints is not None, self._migrations,
            )  # fmt: skip
            found += compiled(plan, self.data, edges)
            if self.checkpoints is not None and (problem := _no_store(self.checkpoints)):
                found.append(problem)
        if start is not None:
            if not isinstance(start, self.states):
                found.append(f"start {start!r} is no member of {self.states.__name__}")
            elif not found and start._name_ not in plan.steps:  # two flags at once, say
                found.append(f"start {start._name_} has no task and is not an exit")
            elif start._name_ in self._registrations and (only_entry or start is self.start):
                found += _check.unreachable(self.states, edges, start._name_)
            if not found:
                plan.starts[start._name_] = start
        if found:
            raise DefinitionError(found)
        self._plan = plan
        return plan


def _function(state: S, given: Any) -> FunctionTask[S]:
    """The task that a plain function is."""
    if type(given) is FunctionType:  # as nearly always
        return FunctionTask(given)
    if isinstance(given, type):
        raise DefinitionError(
            f"{state.name}: {given.__name__} is a class; register an instance, {given.__name__}()"
        )
    if hasattr(given, "wrap"):
        raise DefinitionError(f"{state.name}: {given!r} is a policy; pass it after the task")
    function: Callable[..., Awaitable[S]] = given
    if not callable(function):
        raise DefinitionError(f"{state.name}: {given!r} is no task; pass an async function")
    return FunctionTask(function)


def _no_store(given: Any) -> str | None:
    """Why what was given as `checkpoints` can keep nothing, if so."""
    if isinstance(given, type):
        return f"checkpoints={given.__name__} is a class; pass an instance, {given.__name__}(...)"
    if not hasattr(given, "append") or not hasattr(given, "claim"):
        return (
            f"checkpoints={given!r} is no store; pass SqliteCheckpoints(path), or another "
            "CheckpointStore"
        )
    return None


def _no_time(**limits: float | None) -> DefinitionError:
    return DefinitionError(
        [
            f"{name}={seconds} leaves a run no time; pass seconds > 0"
            for name, seconds in limits.items()
            if seconds is not None and not seconds > 0
        ]
    )
