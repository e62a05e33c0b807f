"""Read a source without end: item by item, window by window, from where the last window ended."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from enum import Enum
from functools import wraps
from types import UnionType
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin

from cano._graph import Targets, targets_of
from cano._kinds import kind_name
from cano._values import awaited
from cano.context import Context
from cano.policies.policy import Policy, problems_of
from cano.tasks._stream_end import Verbs
from cano.tasks._streaming import Session
from cano.tasks._windows import CloseReason, Window, is_duration, tolerated
from cano.tasks.stepped import Done
from cano.tasks.task import Guard, Runner, S, Task, ours
from cano.tasks.verb import describe

__all__ = ["CloseReason", "StreamTask", "Window"]

Item = TypeVar("Item")
Out = TypeVar("Out")
Cursor = TypeVar("Cursor")


class StreamTask(Task[S], Generic[S, Item, Out, Cursor]):
    """Read a source item by item, and hand out what comes of it window by window.

    For each item, in order: `process`. For each window: `flush`, then, with a store, its cursor is
    kept together with what changed of the run data, in one commit; only then the next item is
    read. At the end: `close`, which says where to go on. A resumed visit opens the source with
    the last cursor kept, so that whatever came after it comes again; a later visit of the same
    state begins with None. Policies go around `process` of each item. Example::

        class Read(StreamTask[Step, Message, Row, int]):
            window = Window(count=500, seconds=5.0)

            async def open(self, ctx: Context, cursor: int | None) -> AsyncIterator[Message]:
                async for message in subscribe(after=cursor):
                    yield message

            async def process(self, ctx: Context, item: Message) -> Row:
                return parse(item)

            def position(self, item: Message) -> int:
                return item.offset

            async def flush(self, ctx: Context, window: Sequence[Row]) -> None:
                await insert(window)

            async def close(self, ctx: Context, reason: CloseReason) -> Literal[Step.DONE]:
                return Step.DONE

    When the run is cancelled, shut down or out of time, the stream is *drained*: the item in
    progress ends, what is held is flushed and kept, the source and the stream are closed, and
    then the cancellation goes on.
    """

    verb: ClassVar[str] = "process"
    window: Window = Window()
    """When to flush."""
    errors: int | None = 0
    """How many items in a row may fail, and are dropped; None for any number. One more, and the
    stream fails: with the item's own error where none is tolerated, else `TooManyFailuresError`."""
    drain_timeout: float = 10.0
    """Seconds that the item in progress, and then each of flush, the source's `aclose` and `close`,
    may take when the stream ends before its time. What takes longer is cancelled."""
    flush_policies: ClassVar[Sequence[Policy]] = ()
    """Policies around `flush`, such as a `Retry`."""

    def open(
        self, ctx: Context[Any], cursor: Cursor | None, /, *args: Any, **kwargs: Any
    ) -> AsyncIterable[Item] | Awaitable[AsyncIterable[Item]]:
        """Begin to read after *cursor*, or from the beginning where that is None.

        Either an ``async def`` with ``yield``, or one that returns an async iterator.
        """
        raise NotImplementedError

    async def process(self, ctx: Context[Any], item: Item, /, *args: Any, **kwargs: Any) -> Out:
        """Turn an item into what its window holds of it."""
        raise NotImplementedError

    def position(self, item: Item, /) -> Cursor:
        """The cursor from which on nothing up to *item* comes again.

        Without it no cursor is kept, and a resumed visit begins with None.
        """
        raise NotImplementedError

    async def flush(
        self, ctx: Context[Any], window: Sequence[Out], /, *args: Any, **kwargs: Any
    ) -> Done[S] | None:
        """Take what came of the items of a window, never empty; `Done(state)` ends the stream."""
        return None

    async def rejected(self, ctx: Context[Any], item: Item, error: Exception, /) -> None:
        """Take an *item* that failed for good and is dropped: it will not come again."""

    async def close(
        self, ctx: Context[Any], reason: CloseReason, /, *args: Any, **kwargs: Any
    ) -> S:
        """End the stream, once, whatever ended it, if its source was opened.

        The state returned counts where the source was exhausted, and nowhere else.
        """
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        verbs = Verbs(
            label=self.label,
            open=guard(_opening(self.open), item=True, alone=True),
            process=self._processing(guard),
            flush=guard(self.flush, *self.flush_policies, item=True, alone=True)
            if self._writes("flush")
            else None,
            close=guard(self.close, item=True, alone=True),
            rejected=self.rejected,
            position=self.position if self._writes("position") else None,
            cursor=guard.value(self._cursor, f"the cursor of {self.label}"),
            window=self.window,
            errors=self.errors,
            drain_timeout=self.drain_timeout,
        )

        async def run(ctx: Context[Any]) -> S:
            state: S = await Session(ctx, verbs).run()
            return state

        return run

    def _processing(self, guard: Guard) -> Callable[[Context[Any], Item], Awaitable[Out]]:
        """`process` with its policies and resources; as it was written, if it has none."""
        call = guard(self.process, item=True)
        if guard(_probe) is _probe and not describe(self.process, 2).wants:
            return self.process
        return lambda ctx, item: call(ctx)

    @property
    def returns(self) -> Targets:
        closed = targets_of(awaited(describe(self.close, 2).returns))
        done = [part for part in self._said if get_origin(part) is Done]
        left = targets_of(get_args(done[0])[0]) if done else frozenset[Enum]()
        if isinstance(closed, frozenset) and isinstance(left, frozenset):
            return closed | left
        return left if isinstance(left, str) else closed

    def problems(self, total: float | None, /) -> Iterable[str]:
        for verb, how in _NEEDED.items():
            if not self._writes(verb):
                yield f"{self.label} has no {verb}(); write `{how}`"
        yield from describe(self.close, 2).no_state if self._writes("close") else ()
        for part in self._said:
            kind: Any = get_origin(part) or part
            if kind not in (Done, Any, None, type(None)):
                yield (
                    f"{self.label}.flush is annotated to return {kind_name(kind)}; write -> None, "
                    "or -> Done[Literal[Step.A]] | None"
                )
            elif kind is Done and isinstance(found := targets_of(get_args(part)[0]), str):
                yield f"{self.label}.flush says Done[{found}], which is no state"
        for verb in ("position",):
            if inspect.iscoroutinefunction(getattr(self, verb)):
                yield f"{self.label}.{verb} is async; write `def {verb}(self, item)`"
        if not inspect.iscoroutinefunction(self.rejected):
            yield f"{self.label}.rejected is not async; write `async def rejected`"
        yield from problems_of(self.flush_policies, total)
        yield from self._wrong_settings()

    def _wrong_settings(self) -> Iterable[str]:
        window: object = self.window
        if not isinstance(window, Window):
            yield f"{self.label}.window is {window!r}; say Window(count=...)"
        if not tolerated(self.errors):
            yield f"{self.label}.errors={self.errors!r} is no number of items; 0 or more, or None"
        if not is_duration(self.drain_timeout):
            yield f"{self.label}.drain_timeout={self.drain_timeout!r}; pass finite seconds > 0"

    def _writes(self, verb: str) -> bool:
        """Whether a subclass wrote *verb*."""
        return getattr(type(self), verb) is not vars(StreamTask)[verb]

    @property
    def _said(self) -> tuple[Any, ...]:
        """What `flush` is annotated to return."""
        hint = awaited(describe(self.flush, 2).returns) if self._writes("flush") else None
        return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)

    @property
    def _cursor(self) -> Any:
        return describe(self.position, 1).returns if self._writes("position") else Any


_NEEDED = {
    "open": "async def open(self, ctx, cursor)",
    "process": "async def process(self, ctx, item)",
    "close": "async def close(self, ctx, reason)",
}


async def _probe(ctx: Context[Any]) -> None:
    """What a guard returns as it is, if it has no policies."""


def _opening(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function* as one that is awaited, if it is an async generator, or was not written."""
    if not (inspect.isasyncgenfunction(function) or ours(function)):
        return function

    @wraps(function)
    async def opened(ctx: Context[Any], cursor: Any, **resources: Any) -> Any:
        return function(ctx, cursor, **resources)

    return opened
