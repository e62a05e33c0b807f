"""Several branches at once, joined by a strategy: what users write, and what is wrong with it.

How they are carried out is in `_gathering`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Concatenate, Generic, TypeAlias, TypeVar, cast

from cano._history import Visit
from cano._host import BranchInfo, Handover
from cano._shield import shielded
from cano._values import ValueType, value_type
from cano.context import Context
from cano.errors import DataError
from cano.join import All, Join, SplitResult
from cano.policies.policy import Call, Policy, problems_of
from cano.tasks._gathering import Gathering, Losers
from cano.tasks._recording import ValueOf, kept_branch, known_results, recalled, start_split
from cano.tasks.task import EVERY_BRANCH, Guard, Runner, S, Task, Undoer
from cano.tasks.verb import describe

T_co = TypeVar("T_co", covariant=True)
I = TypeVar("I")  # noqa: E741 -- an item
D = TypeVar("D")
R = TypeVar("R", bound=Enum)


class Branch(Generic[T_co]):
    """One branch of a split, with policies or a name of its own.

    *policies* go inside those of the split's state: `register(s, Split([Branch(f, B)]), A)` makes
    the call as `A(B(f))`.

    With *compensate*, a function of the context and of what the branch returned, a rollback of the
    run undoes what the branch did. Such a branch is not interrupted once it has begun, and counts
    as finished even if the join no longer needed it. *compensation_policies* go around that call.
    """

    __slots__ = ("call", "compensate", "compensation_policies", "name", "policies")

    def __init__(
        self,
        call: Callable[Concatenate[Context[Any], ...], Awaitable[T_co]],
        /,
        *policies: Policy,
        name: str | None = None,
        compensate: Callable[Concatenate[Context[Any], Any, ...], Awaitable[None]] | None = None,
        compensation_policies: Sequence[Policy] = (),
    ) -> None:
        self.call: Callable[Concatenate[Context[Any], ...], Awaitable[T_co]] = call
        self.policies: tuple[Policy, ...] = policies
        self.name: str | None = name
        self.compensate: Callable[Concatenate[Context[Any], Any, ...], Awaitable[None]] | None = (
            compensate
        )
        self.compensation_policies: Sequence[Policy] = compensation_policies

    def __repr__(self) -> str:
        return f"<Branch {self.name or describe(self.call).name}>"


BranchLike: TypeAlias = Branch[Any] | Callable[Concatenate[Context[Any], ...], Awaitable[Any]]


class Split(Task[S]):
    """Run *branches* side by side, join them by *join*, go on to *then*.

    Branches return values, which the next state finds in `ctx.split`; they leave `ctx.data`
    alone. A join that fails raises `JoinFailedError`, holding the branches' own exceptions.

    Args:
        branches: async functions of the context, or `Branch(f, *policies, name=...)`.
        join: when to go on: `All()` unless said otherwise, or another of `cano.join`.
        then: the state after the join.
        timeout: seconds for the whole split; at the deadline a satisfied join still joins.
        bulkhead: how many branches may run at once; None is no bound.
        losers: what becomes of branches still running when the join is satisfied: "cancel" them,
            or "wait" for them and keep what they return. A failed join always cancels. Who is
            cancelled is awaited, and cancelled again every 50 ms until it has ended: cleanup that
            takes longer needs an `asyncio.shield`.
    """

    hands_over: ClassVar[bool] = True
    changes_data: ClassVar[bool] = False
    edge: ClassVar[str] = "joins"

    def __init__(
        self,
        branches: Iterable[BranchLike] = (),
        *,
        then: S,
        join: Join | None = None,
        timeout: float | None = None,
        bulkhead: int | None = None,
        losers: Losers = "cancel",
    ) -> None:
        self.branches: list[Branch[Any]] = [
            branch if isinstance(branch, Branch) else Branch(branch) for branch in branches
        ]
        self.undoable: bool = any(branch.compensate is not None for branch in self.branches)
        self.then = then
        self.join: Join = All() if join is None else join
        self.timeout = timeout
        self.bulkhead = bulkhead
        self.losers: Losers = losers
        self._items: Callable[[Any], Iterable[Any]] | None = None
        self._name: Callable[[Any], str] | None = None

    @staticmethod
    def over(
        items: Callable[[D], Iterable[I]],
        *,
        run: Callable[Concatenate[Context[D], I, ...], Awaitable[Any]] | Branch[Any],
        then: R,
        name: Callable[[I], str] | None = None,
        join: Join | None = None,
        timeout: float | None = None,
        bulkhead: int | None = None,
        losers: Losers = "cancel",
    ) -> Split[R]:
        """One branch per item, known only at run time.

        *items* is asked with the run's data when the state is entered; *run* is called with the
        context and the item; *name* names the branch of an item, by its index otherwise. The rest
        is as in `Split`. No items: `All`, `Percentage`, `Tolerate` and `Settled` join an empty
        result, the others fail with `TooFewBranchesError`.
        """
        split: Split[R] = Split(
            (), then=then, join=join, timeout=timeout, bulkhead=bulkhead, losers=losers
        )
        split.branches = [run if isinstance(run, Branch) else Branch(cast("Any", run))]
        split.undoable = split.branches[0].compensate is not None
        split._items, split._name = items, name
        return split

    @property
    def label(self) -> str:
        count = "n" if self._items else str(len(self.branches))
        return f"Split of {count}, {type(self.join).__name__}"

    def targets(self) -> frozenset[S]:
        return frozenset((self.then,))

    def problems(self, limit: float | None, /) -> Iterable[str]:
        dynamic = self._items is not None
        total = None if dynamic else len(self.branches)
        if isinstance(self.join, type) or not hasattr(self.join, "verdict"):
            yield f"join={self.join!r} is no strategy; pass one of cano.join, such as All()"
        elif (found := self.join.problem(total, self.timeout)) is not None:
            yield found
        if total == 0:
            yield "a split without branches; add some, or use Split.over for items known later"
        if self.bulkhead is not None and self.bulkhead < 1:
            yield f"bulkhead={self.bulkhead} lets no branch run; pass 1 or more, or None"
        if self.timeout is not None and not self.timeout > 0:
            yield f"timeout={self.timeout} leaves no time; pass seconds > 0, or None"
        elif self.timeout is not None and limit is not None and self.timeout > limit:
            yield f"timeout={self.timeout:g} outlasts the {limit:g} s a whole run has; shorten it"
        if self.losers not in ("cancel", "wait"):
            yield f'losers={self.losers!r} is unknown; pass "cancel" or "wait"'
        for branch in self.branches:
            yield from problems_of(branch.policies, limit, once=branch.compensate is not None)
        if doubled := [name for name, count in Counter(self._names()).items() if count > 1]:
            yield f"branch names must be unique: {', '.join(doubled)} appear more than once"

    def bind(self, guard: Guard, /) -> Runner[S]:
        names = self._names()
        calls = [
            self._call(guard, branch, name)
            for branch, name in zip(self.branches, names, strict=True)
        ]
        static = [BranchInfo(index, name) for index, name in enumerate(names)]
        undoable = [branch.compensate is not None for branch in self.branches]
        kept = guard.durable
        value_of = self._value_of(guard.value) if kept else None

        async def run(ctx: Context[Any]) -> S:
            if self._items is None:
                made, plan = static, calls
            else:
                made = self._make(ctx.data, names[0])
                plan = calls * len(made)
                if kept:
                    await start_split(ctx, [branch.name for branch in made])
            gathering = Gathering(
                ctx, made, plan, self.join,
                timeout=self.timeout, bulkhead=self.bulkhead, losers=self.losers,
                known=known_results(ctx, made, value_of) if value_of else {}, kept=kept,
                undoable=undoable if self._items is None else undoable * len(made),
            )  # fmt: skip
            result = await gathering.run()
            ctx.handover = Handover(split=result)
            return self.then

        return run

    def undoers(self, guard: Guard, /) -> Mapping[str, Undoer]:
        value = self._value_of(guard.value)
        return {
            EVERY_BRANCH if self._items is not None else name: Undoer(undo, value(index))
            for index, (branch, name) in enumerate(zip(self.branches, self._names(), strict=True))
            if (undo := self._undo(guard, branch)) is not None
        }

    def recall(self, visit: Visit, /) -> SplitResult[Any] | None:
        return recalled(visit, self._names(), self._value_of(value_type))

    def _call(self, guard: Guard, branch: Branch[Any], name: str) -> Call[Any]:
        call = guard(branch.call, *branch.policies, item=self._items is not None)
        undo = self._undo(guard, branch)
        if guard.durable or undo is not None:
            value = guard.value(self._says(branch), f"branch {name!r}", needed=undo is not None)
            call = kept_branch(call, value, undo)
        return call if undo is None else shielded(call, then_cancelled=False)

    @staticmethod
    def _undo(guard: Guard, branch: Branch[Any]) -> Call[None] | None:
        """How what the branch did is undone, if it can be."""
        if branch.compensate is None:
            return None
        return guard(branch.compensate, *branch.compensation_policies, item=True, alone=True)

    def _value_of(self, how: Callable[[Any, str], ValueType]) -> ValueOf:
        """How the value of the branch of that index is kept."""
        values = [
            how(self._says(branch), f"branch {name!r}")
            for branch, name in zip(self.branches, self._names(), strict=True)
        ]
        return lambda index: values[0 if self._items is not None else index]

    def _says(self, branch: Branch[Any]) -> Any:
        """What a branch is annotated to return."""
        return describe(branch.call, 1 if self._items is None else 2).returns

    def _names(self) -> list[str]:
        return [
            branch.name or f"{describe(branch.call).name}[{index}]"
            for index, branch in enumerate(self.branches)
        ]

    def _make(self, data: Any, default: str) -> list[BranchInfo]:
        """The branches for the items there are now. Raises `DataError` for a name used twice."""
        assert self._items is not None  # noqa: S101 -- `bind` asks first
        stem = default.removesuffix("[0]")
        made: list[BranchInfo] = []
        taken: set[str] = set()
        for index, item in enumerate(self._items(data)):
            name = self._name(item) if self._name else f"{stem}[{index}]"
            if not isinstance(name, str):
                raise DataError(f"the branch of item {index} is named {name!r}; return a text")
            if name in taken:
                raise DataError(f"two branches are named {name!r}; give every item its own name")
            taken.add(name)
            made.append(BranchInfo(index, name, item))
        return made
