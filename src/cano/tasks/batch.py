"""Many items in one state: load them, process each, decide what comes of it.

How they are carried out is in `_working`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, Generic, TypeVar

from cano._causes import revive
from cano._graph import Targets
from cano._values import ValueType
from cano.context import Context
from cano.errors import CheckpointError, ProgressMismatchError
from cano.events import BatchProcessed, BranchFailed, BranchFinished, Progress
from cano.policies.policy import Policy, problems_of
from cano.tasks._outcomes import ItemOutcome, Outcomes
from cano.tasks._recording import kept_branch
from cano.tasks._working import SHOWN, Work, Working, too_many
from cano.tasks.task import Guard, Model, Runner, S, ours
from cano.tasks.verb import describe

__all__ = ["BatchTask", "ItemOutcome", "Outcomes"]

Item = TypeVar("Item")
Out = TypeVar("Out")


class BatchTask(Model[S], Generic[S, Item, Out]):
    """Load items, process each of them, and decide on what they came to.

    Three verbs are to be written. Example::

        class Resize(BatchTask[Step, Path, int]):
            concurrency = 8
            item_policies = (Retry(), Timeout(30))

            async def load(self, ctx: Context) -> list[Path]:
                return sorted(Path("in").glob("*.png"))

            async def process(self, ctx: Context, item: Path) -> int:
                return await resize(item)

            async def finish(self, ctx: Context, outcomes: Outcomes[int]) -> Literal[Step.DONE]:
                return Step.DONE

    Each takes resources as further parameters. `load` may also be a generator, plain or async: then
    an item is read when there is somebody to process it. An item that raises fills its place in the
    outcomes, and the others go on. The policies of the state go around all of it, from `load` to
    `finish`; `item_policies` around the processing of each item.

    `process` leaves `ctx.data` alone: many run at once. It finds its attempt, its `idempotency_key`
    and its effects under the item's key, and its item in `ctx.item` too.
    """

    verb: ClassVar[str] = "finish"

    concurrency: int = 1
    """How many items are processed at once."""
    item_policies: Sequence[Policy] = ()
    """Around the processing of each item, outermost first."""
    max_failures: int | None = None
    """As soon as more items than that failed for good, the batch ends with `TooManyFailuresError`;
    what is under way is cancelled. None leaves all to `finish`."""
    durable_items: bool = False
    """With a store: the end of every item is recorded, under its key, and neither a resume nor
    another attempt of the state processes it again; only what failed in an earlier attempt is tried
    again. `load` must then bring the same items whenever it is called, in any order."""

    def load(
        self, ctx: Context[Any], /, *args: Any, **kwargs: Any
    ) -> Awaitable[Iterable[Item] | AsyncIterable[Item]] | AsyncIterable[Item] | Iterable[Item]:
        """Return the items, or yield them: an `async def` or a generator."""
        raise NotImplementedError

    async def process(self, ctx: Context[Any], item: Item, /, *args: Any, **kwargs: Any) -> Out:
        """Do what is to be done with one item."""
        raise NotImplementedError

    async def finish(
        self, ctx: Context[Any], outcomes: Outcomes[Out], /, *args: Any, **kwargs: Any
    ) -> S:
        """Return the next state, when every item has succeeded or failed for good."""
        raise NotImplementedError

    async def collect(
        self, ctx: Context[Any], outcome: ItemOutcome[Out], /, *args: Any, **kwargs: Any
    ) -> None:
        """Take the outcome of one item. Optional, for inputs too long to be kept.

        Where it is written, it is called once per item, one at a time, in input order, and may
        change `ctx.data`; the outcomes that `finish` gets are then counts alone. At most twice
        *concurrency* items are begun and not collected, so a slow one holds new ones back.
        """
        raise NotImplementedError

    def key(self, item: Item, /) -> str:
        """What to call an item, in events, errors and records; by default its index.

        Every item needs a key of its own. Where outcomes are collected, and there is no store, only
        items under way are compared.
        """
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        load = guard(_loading(self.load), alone=True)
        finish = guard(self.finish, item=True, alone=True)
        takes = self._writes("collect")
        collect = guard(self.collect, item=True, alone=True) if takes else None
        process = guard(self.process, *self.item_policies, item=True, alone=True)
        value: ValueType | None = None
        if self.durable_items:
            says = describe(self.process, 2).returns
            value = guard.value(says, f"an item of {self.label}", needed=True)
        if value is not None and guard.durable:
            process = kept_branch(process, value, None)
        work = Work(
            label=self.label,
            process=process,
            collect=collect,
            key=self.key if self._writes("key") else None,
            workers=self.concurrency,
            max_failures=self.max_failures,
        )

        async def cycle(ctx: Context[Any]) -> S:
            known = {} if value is None else _known(ctx, value, work.max_failures)
            working = Working(ctx, work, await load(ctx), known)
            outcomes = await working.run()
            _compare(ctx, work, known)
            if ctx.listens(BatchProcessed):
                ctx.emit(BatchProcessed(succeeded=outcomes.succeeded, failed=outcomes.failed))
            ctx.item = outcomes
            try:
                return await finish(ctx)
            finally:
                ctx.item = None

        return guard(cycle)

    @property
    def returns(self) -> Targets:
        return describe(self.finish, 2).targets

    def problems(self, total: float | None, /) -> Iterable[str]:
        for verb, how in _VERBS.items():
            if not self._writes(verb):
                yield f"{self.label} has no {verb}(); write `{how}`"
        if self._writes("finish"):
            yield from describe(self.finish, 2).no_state
        if not _whole(self.concurrency, 1):
            yield (
                f"{self.label}.concurrency={self.concurrency!r} is no number of items at once; say a "
                "whole number, 1 or more"
            )
        if self.max_failures is not None and not _whole(self.max_failures, 0):
            yield (
                f"{self.label}.max_failures={self.max_failures!r} is no number of items; say a whole "
                "number, 0 to end with the first failure, or None for no limit"
            )
        if iscoroutinefunction(self.key):
            yield f"{self.label}.key is async; make it a plain `def`, which returns a text"
        yield from problems_of(self.item_policies, total)

    def _writes(self, name: str) -> bool:
        """Whether a subclass has written the method of that *name*."""
        return getattr(type(self), name) is not vars(BatchTask)[name]


_VERBS = {
    "load": "async def load(self, ctx)",
    "process": "async def process(self, ctx, item)",
    "finish": "async def finish(self, ctx, outcomes)",
}


def _whole(number: Any, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _loading(load: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """*load* as something to await, where it is a generator, or was not written."""
    if not (isgeneratorfunction(load) or isasyncgenfunction(load) or ours(load)):
        return load

    @wraps(load)
    async def begun(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **kwargs)

    return begun


def _known(ctx: Context[Any], value: ValueType, most: int | None) -> dict[str, Any]:
    """What items came to within this visit, by key: a value, or an exception.

    What failed in an earlier attempt of the whole batch is left out. Raises `TooManyFailuresError`.
    """
    if not ctx.host.durable:
        return {}
    visit = ctx.host.history.visit
    retried: Progress | None = visit.of("attempt", ctx.branch_name)
    since = retried.sequence if retried is not None else 0
    known: dict[str, Any] = {}
    failed: list[tuple[int, Exception]] = []
    for (_, key, _), event in visit.progress.items():
        if isinstance(event, BranchFinished):
            known[key] = value.read(event.value)
        elif isinstance(event, BranchFailed) and event.sequence > since:
            lost = CheckpointError("lost its cause")
            known[key] = revive(event.cause) if event.cause is not None else lost
            failed.append((event.index, known[key]))
    if most is not None and len(failed) > most:
        raise too_many(ctx, most, failed[: most + 1][:SHOWN])
    return known


def _compare(ctx: Context[Any], work: Work, known: dict[str, Any]) -> None:
    """Raise `ProgressMismatchError` where items are gone that were there before."""
    if known:
        gone = ", ".join(map(repr, sorted(known)[:5]))
        raise ProgressMismatchError(
            f"{len(known)} items of {ctx.state.name} were processed before, and {work.label}.load "
            f"did not bring them again: {gone}. Let it bring the same items whenever it is called, "
            "or leave durable_items out"
        )
