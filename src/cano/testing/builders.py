"""A workflow of one's own with fakes in it, and tasks that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, final

import msgspec

from cano._definition import TaskFunction
from cano._kinds import did_you_mean
from cano._subscribe import Observer
from cano.checkpoints.store import CheckpointStore
from cano.errors import DefinitionError
from cano.resources import Resources
from cano.tasks.task import Model
from cano.workflow import Workflow

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
T = TypeVar("T")


@final
class _Kept:
    """Stands for what is left as it is."""

    def __repr__(self) -> str:
        return "as it is"


KEPT: Final = _Kept()


def override(
    workflow: Workflow[S, D],
    /,
    *,
    replace: Mapping[S, TaskFunction[D, S] | Model[S]] | None = None,
    observers: Sequence[Observer] | _Kept = KEPT,
    checkpoints: CheckpointStore | _Kept | None = KEPT,
    lease: float | _Kept = KEPT,
    **resources: object,
) -> Workflow[S, D]:
    """A copy of *workflow* for a test, with some of it replaced; the rest is as it was defined.

    ::

        shop = override(flow, replace={Step.PAY: fake_pay}, observers=[recorder], db=FakeDb())

    A task that takes the place of another keeps its policies, its edges and where its failures
    lead: it is one more task of that state, as far as the graph is concerned. A
    resource is replaced by name: no hook of the one that it replaces is ever called. Part of the
    workflow that is a workflow itself is overridden by itself, and put in its place by *replace*.

    Raises `DefinitionError` for a state that has no task, and for a resource that is not there.

    Args:
        workflow: What is to be tested. It is left as it is, and may have run already.
        replace: Other tasks, by state.
        observers: Instead of those of the workflow.
        checkpoints: The store instead of that of the workflow; None for none.
        lease: Seconds; the longer it is, the fewer heartbeats a run of many virtual days makes.
        resources: Others of the same names.
    """
    copied = workflow.copy()
    copied.resources = _resources(workflow, resources)
    if not isinstance(observers, _Kept):
        copied._observers = observers
    if not isinstance(checkpoints, _Kept):
        copied.checkpoints = checkpoints
    if not isinstance(lease, _Kept):
        copied.lease = lease
    for state, task in (replace or {}).items():
        old = copied._registrations.get(getattr(state, "_name_", ""))
        if old is None or old.state is not state:
            there = ", ".join(copied._registrations) or "none"
            raise DefinitionError(
                f"override of {workflow.name}: {state!r} has no task to replace; those that have "
                f"one: {there}"
            )
        policies = old.policies or old.task.policies
        copied.register(state, task, *policies, otherwise=old.otherwise)
        new = copied._registrations[state._name_]
        # A fake that leads to one of two states makes no other state unreachable.
        unknown = old.targets is None or new.targets is None
        targets = None if unknown else (old.targets or frozenset()) | (new.targets or frozenset())
        copied._registrations[state._name_] = msgspec.structs.replace(new, targets=targets)
    return copied


def _resources(workflow: Workflow[Any, Any], others: Mapping[str, object]) -> Resources:
    """The resources of *workflow*, some of them replaced. It had none: they are what it lacked."""
    there: dict[Any, object] = dict(workflow.resources._given)
    for name in others:
        if there and name not in there:
            hint = did_you_mean(name, there) or "."
            raise DefinitionError(
                f"override of {workflow.name}: there is no resource {name!r} to replace{hint} "
                f"There are: {', '.join(map(str, there))}"
            )
    return Resources({**there, **others})


@final
class Hang:
    """An act of `Scripted`: to wait for ever, that is, for a timeout or a cancellation."""

    def __repr__(self) -> str:
        return "Hang()"


@final
class After:
    """An act of `Scripted`: to take *seconds*, and then do *act*."""

    def __init__(self, seconds: float, act: object) -> None:
        if not seconds >= 0:
            raise DefinitionError(f"After({seconds}): pass seconds, 0 or more")
        self.seconds: float = seconds
        self.act: Any = act

    def __repr__(self) -> str:
        return f"After({self.seconds:g}, {self.act!r})"


Act: TypeAlias = T | BaseException | type[BaseException] | Hang | After


class Scripted(Generic[T]):
    """An async callable that does one act per call, and the last one from there on.

    An exception, or a class of them, is raised; `Hang()` waits for ever; `After(seconds, act)` is
    slow; anything else is returned. It takes whatever it is called with, so it can be a task, a
    branch or an effect::

        pay = Scripted(ConnectionError, Hang(), After(2, Step.SHIP))
        override(flow, replace={Step.PAY: pay})

    `calls` counts its calls.
    """

    def __init__(self, *acts: Act[T]) -> None:
        if not acts:
            raise DefinitionError("Scripted() has nothing to do; pass what its calls shall do")
        self.acts: tuple[Act[T], ...] = acts
        self.calls: int = 0

    def __repr__(self) -> str:
        return f"Scripted({', '.join(map(repr, self.acts))})"

    async def __call__(self, *args: Any, **more: Any) -> T:
        act: Any = self.acts[min(self.calls, len(self.acts) - 1)]
        self.calls += 1
        while isinstance(act, After):
            await asyncio.sleep(act.seconds)
            act = act.act
        if isinstance(act, Hang):
            await asyncio.get_running_loop().create_future()
        if isinstance(act, BaseException):
            raise act.with_traceback(None)
        if isinstance(act, type) and issubclass(act, BaseException):
            raise act(f"call {self.calls}, because a test says so")
        return cast("T", act)
