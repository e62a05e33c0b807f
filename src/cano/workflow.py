"""What users build: what to do in which state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from enum import Enum, EnumType
from math import isnan
from typing import Any, Concatenate, Generic, Self, TypeAlias, TypeVar, overload

from cano import _audience, _check
from cano._audience import NOBODY, Audience
from cano._data import DataType, data_type
from cano._deadline import AGAIN
from cano._graph import Graph
from cano._plan import Plan, Registration
from cano._run import Run
from cano.context import Context
from cano.errors import DataError, DefinitionError
from cano.events import Observer
from cano.handle import RunHandle
from cano.policies.policy import Policy
from cano.resources import NO_RESOURCES, Resources
from cano.tasks.function import FunctionTask
from cano.tasks.task import S, Task

D = TypeVar("D")
S0 = TypeVar("S0", bound=Enum)

TaskFunction: TypeAlias = Callable[Concatenate[Context[D], ...], Awaitable[S]]
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class Workflow(Generic[S, D]):
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
    ) -> None:
        self.states: type[S] = states
        if not isinstance(states, EnumType):
            raise DefinitionError(f"states must be an Enum class, not {states!r}")
        if timeout is not None and (isnan(timeout) or timeout <= 0):
            raise DefinitionError(
                f"timeout={timeout} leaves a run no time; pass seconds > 0, or None"
            )
        self.start: S | None = start
        self.name: str = name or states.__name__
        self.version: int = version
        self.resources: Resources = NO_RESOURCES if resources is None else resources
        self.timeout: float | None = timeout
        self.strict: bool = strict
        self.data: type[Any] | None = data
        self._observers = observers
        self._registrations: dict[str, Registration[S]] = {}
        self._exits: dict[str, S] = {}
        self._plan: Plan[S] | None = None
        self._scope: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        tasks, exits = len(self._registrations), ", ".join(self._exits) or "none"
        limit = f", timeout {self.timeout:g} s" if self.timeout is not None else ""
        return f"<Workflow {self.name}: {tasks} states with tasks, exits: {exits}{limit}>"

    def register(
        self,
        state: S,
        task: TaskFunction[D, S] | Task[S],
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
        made: Task[S] = task if isinstance(task, Task) else _function(state, task)  # pyright: ignore[reportUnknownVariableType]
        if otherwise is not None and not isinstance(otherwise, Mapping):
            otherwise = {Exception: otherwise}
        try:
            name = state._name_
        except AttributeError:
            raise self._no_member(state) from None
        self._registrations[name] = Registration(state, made, policies, otherwise, made.targets())
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

    def copy(self) -> Workflow[S, D]:
        """A workflow of the same definition that may still be changed."""
        copied: Workflow[S, Any] = Workflow(
            self.states, data=self.data, start=self.start, name=self.name, version=self.version,
            resources=self.resources, observers=self._observers, timeout=self.timeout,
            strict=self.strict,
        )  # fmt: skip
        copied._registrations = dict(self._registrations)
        copied._exits = dict(self._exits)
        return copied

    def check(self, start: S | None = None) -> Graph[S]:
        """Find every definition error at once, and return the graph.

        Raises `DefinitionError`. With *start*, or one given to the workflow, states that cannot be
        reached from it are errors too.
        """
        start = self.start if start is None else start
        self._compile(start, only_entry=True)
        return _check.graph(self.name, self.states, self._registrations, self._exits, start)

    def run(
        self, start: S | None = None, *, data: D | None = None, run_id: str | None = None
    ) -> Coroutine[Any, Any, S]:
        """Visit states from *start* until an exit, and return it. To be awaited.

        *data* is the run's from here on; without it a fresh one is made. What a task raises comes
        out as it is, with a note saying where. Cancelling whoever awaits this ends the run.
        """
        return self._new_run(start, data, run_id)[-1]

    async def start_run(
        self, start: S | None = None, *, data: D | None = None, run_id: str | None = None
    ) -> RunHandle[S, D]:
        """Start a run in the background and return its handle."""
        run, context, living = self._new_run(start, data, run_id)
        task = asyncio.get_running_loop().create_task(living, name=self.name)
        self._scope.add(task)  # asyncio itself would not keep it from being collected
        task.add_done_callback(self._scope.discard)
        task.add_done_callback(run.looked_at)
        return RunHandle(run, context, task)

    async def __aenter__(self) -> Self:
        """Open a scope: resources stay up until it ends, whatever runs come and go."""
        await self.resources.acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Wait for the runs that were started, cancel them if the block failed; then let go."""
        try:
            if kind is not None:
                await self._end_runs()
            while self._scope:
                await asyncio.wait(self._scope)
        except asyncio.CancelledError:
            await self._end_runs()
            raise
        finally:
            await self.resources.release()

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

    def _no_member(self, state: object) -> DefinitionError:
        return DefinitionError(f"{state!r} is no member of {self.states.__name__}")

    def _refuse_changes(self) -> None:
        raise DefinitionError(
            f"{self.name} has been compiled and no longer changes; register everything before "
            "the first run or check(), or change a copy()"
        )

    def _new_run(
        self, start: S | None, data: D | None, run_id: str | None
    ) -> tuple[Run[S], Context[D], Coroutine[Any, Any, S]]:
        """A run, its context, and its life from the first event to the last, not begun."""
        first = self.start if start is None else start
        plan = self._plan
        # By identity: a member of another enum may have the name, or even be equal.
        name = getattr(first, "_name_", "")
        if plan is None or plan.starts.get(name) is not first or first is None:
            plan, first = self._compile(first), self._known(first)
        run = Run(plan, run_id)
        context: Context[Any] = Context(run, run.path, self._data_of(plan, data))
        live = run.live_with_resources if self.resources else run.live
        return run, context, live(context, first)

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
                self.name, self.version, self.states, self._registrations, self._exits,
                self._data_type(found), self.resources, Audience(self._observers) if self._observers else NOBODY,
                self.timeout, self.strict,
            )  # fmt: skip
            found += _check.problems(
                self.states, self._registrations, self._exits, edges, self.timeout
            )
            found += _audience.problems(self._observers)
            try:
                plan.compile()
            except Exception:
                if not found:  # else what was found is why
                    raise
            found += plan.problems
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

    def _data_type(self, found: list[str]) -> DataType[Any] | None:
        if self.data is None:
            return None
        try:
            kind: Any = self.data
            return data_type(kind)
        except DataError as error:
            found.append(str(error))
            return None


def _function(state: S, given: Any) -> FunctionTask[S]:
    """The task that a plain function is."""
    if isinstance(given, type):
        raise DefinitionError(
            f"{state.name}: {given.__name__} is a class; register an instance, {given.__name__}()"
        )
    function: Callable[..., Awaitable[S]] = given
    if not callable(function):
        raise DefinitionError(f"{state.name}: {given!r} is no task; pass an async function")
    return FunctionTask(function)
