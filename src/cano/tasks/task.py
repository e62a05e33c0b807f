"""The contract of a task: how the work of a state is carried out.

Everything the engine knows of a processing model is in `Model`: a model is one file beside this
one, and the engine does not change for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from cano._graph import Targets
from cano._history import Visit
from cano._values import ValueType
from cano.context import Context
from cano.join import SplitResult
from cano.policies.policy import Call, Policy
from cano.tasks.verb import describe

S = TypeVar("S", bound=Enum)
T = TypeVar("T")

Runner: TypeAlias = Callable[[Context[Any]], Awaitable[S]]
"""One visit's work: it ends in the next state."""


class Guard(Protocol):
    """Puts a state's policies around the part of a task that may fail and be repeated.

    The call's parameters after the context (and, with *item*, after the branch's item) are filled
    with resources of the same names. *policies* go inside the state's own, nearest to the call;
    *alone* leaves the state's own out.
    """

    @property
    def durable(self) -> bool:
        """Whether there is a store, so that what the work brings must be writable."""
        ...

    def __call__(
        self,
        call: Callable[..., Awaitable[T]],
        /,
        *policies: Policy,
        item: bool = False,
        alone: bool = False,
    ) -> Call[T]: ...

    def value(self, hint: Any, what: str, /, *, needed: bool = False) -> ValueType:
        """How values annotated with *hint* are kept.

        One that cannot be is a definition error where there is a store, or it is *needed* anyway.
        """
        ...


EVERY_BRANCH = "*"
"""Stands, among the undoers of a task, for all branches."""


class Undoer(NamedTuple):
    """How a piece of completed work is undone."""

    call: Call[None]
    """Finds what it needs in `Context.item`."""
    value: ValueType
    """How that was kept."""


class Model(Generic[S]):
    """What the engine knows of a task, whatever method its users write.

    It has no verb of its own, so that a model may declare one with other parameters and results.
    """

    policies: ClassVar[Sequence[Policy]] = ()
    """Used where `register` is given none."""
    recorded: ClassVar[bool] = True
    """False: entering the state leaves no trace in a store; it is never where a run resumes."""
    interruptible: ClassVar[bool] = True
    """False: cancellations and timeouts wait until the work is done."""
    hands_over: ClassVar[bool] = False
    """True: the next state is to find something in its context; see `Context.handover`."""
    changes_data: ClassVar[bool] = True
    """False: the work must leave the run data alone; checked under `strict`."""
    once: ClassVar[bool] = False
    """True: the work must not be done twice side by side, as a `Hedge` would."""
    undoable: bool = False
    """Whether there is anything to undo; `undoers` then says how."""
    verb: ClassVar[str] = "run"
    """The method that users of the model write."""
    edge: ClassVar[str] = "returns"
    """What kind of edge leads on from here, in the graph."""

    def bind(self, guard: Guard, /) -> Runner[S]:
        """Compile into the one coroutine function that a visit awaits."""
        return guard(self._work)

    def undoers(self, guard: Guard, /) -> Mapping[str, Undoer]:
        """How to undo what `TaskCompleted` (under "") or an undoable branch (its name) recorded.

        `EVERY_BRANCH` stands for branches whose names are not known before.
        """
        return {}

    def recall(self, visit: Visit, /) -> SplitResult[Any] | None:
        """What the state after this one finds in `ctx.split`, from what was recorded of *visit*."""
        return None

    def targets(self) -> frozenset[S] | None:
        """The states this can lead to; None if the annotations do not say."""
        found = self.returns
        return cast("frozenset[S]", found) if isinstance(found, frozenset) else None

    @property
    def returns(self) -> Targets:
        """What the return annotation of the verb says; see `cano._graph.Targets`."""
        return describe(self._work).targets

    def problems(self, total: float | None, /) -> Iterable[str]:
        """What is wrong with this definition, where a run has *total* seconds; with remedies."""
        # Whoever writes a `bind` of his own needs no verb.
        if ours(self.bind) and ours(self._work):
            yield f"{self.label} has no {self.verb}(); write `async def {self.verb}(self, ctx)`"
        yield from describe(self._work).no_state

    @property
    def _work(self) -> Any:
        """The verb, as it was written; if it was not, what stands in its place."""
        return getattr(self, self.verb)

    @property
    def label(self) -> str:
        """What the graph and the errors call this."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} task>"


class Task(Model[S]):
    """A processing model. Subclass it, or a model derived from it, and write its verb.

    Example::

        class Fetch(Task[Step]):
            async def run(self, ctx: Context, http: Client) -> Literal[Step.PARSE]:
                ...

    One task object serves all runs at once; what belongs to a run is in the context.
    """

    async def run(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> S:
        """Do the work of a visit and return the next state."""
        raise NotImplementedError

    @property
    def _work(self) -> Any:
        return getattr(self, self.verb, self.run)


def ours(function: object) -> bool:
    """Whether *function* is one of the library's own, which stand for what is to be written."""
    return getattr(function, "__module__", "").startswith("cano.tasks.")
