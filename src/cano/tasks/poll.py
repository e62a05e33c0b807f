"""Ask again and again, until something is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import UnionType
from typing import Any, ClassVar, Concatenate, Literal, Union, get_args, get_origin

from cano._graph import Targets, targets_of
from cano._kinds import kind_name
from cano._values import awaited
from cano.context import Context
from cano.policies.policy import Call
from cano.policies.retry import Which
from cano.tasks._asking import Poller
from cano.tasks._polling import Course, Decider, Pending, Ready, Settings
from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe

__all__ = ["Pending", "PollTask", "Ready", "poll"]


class PollTask(Task[S]):
    """Ask until the answer is `Ready(state)`; `Pending()` and `Pending(seconds)` ask again later.

    Policies go around each poll: `Timeout(5)` bounds one, `Retry()` repeats one. Settings are
    attributes of the class, or of the object. Example::

        class Delivered(PollTask[Step]):
            delay, factor, max_delay = 1.0, 2.0, 60.0
            deadline = 24 * 3600
            errors = 3

            async def poll(
                self, ctx: Context[Order], carrier: Carrier
            ) -> Ready[Literal[Step.DONE]] | Pending:
                parcel = await carrier.find(ctx.data.parcel)
                return Ready(Step.DONE) if parcel.delivered else Pending()

    A poll costs nothing in a store: a resumed visit starts over, from the data it was entered with.
    `Pending(save=True)` keeps data, counts and the moment of the next poll, and a resumed visit
    waits for what is left of it. A poll that itself left something in the store (a failed attempt,
    an effect, a sleep) is kept in the same way: what it did is its own, and the next poll begins
    anew.

    Fails with `PollExhaustedError` after *limit* polls, at *deadline*, or as soon as the next poll
    would come too late for it or for the timeout of the run.
    """

    verb: ClassVar[str] = "poll"
    _remedy: ClassVar[str] = "return Ready(state) or Pending()"
    """What to do about an answer that is none."""

    delay: float = 1.0
    """Seconds to wait after the first poll, where `Pending()` names none; those after poll n are
    `delay * factor ** (n - 1)`."""
    factor: float = 1.0
    max_delay: float = 60.0
    """The longest wait that *delay* and *factor* come to."""
    jitter: float = 0.0
    """The share of the wait by which it is spread to both sides, from 0 to 1, before the cap."""
    limit: int | None = None
    """The most polls, those that failed included."""
    deadline: float | None = None
    """Seconds for all polls and waits together: from the beginning of the visit where it was saved,
    else from the resume. A poll that is under way then is cancelled; a resumed visit that finds it
    past asks once more."""
    errors: int = 0
    """How many failures in a row are tolerated, each after what the policies could do; it is waited
    after them as after a `Pending()`, and the data is as before the poll."""
    on: Which = Exception
    """Which errors are tolerated, as for `Retry`: types, or (in a class: static) a function."""
    random: Callable[[], float] | None = None
    """A source of numbers in [0, 1), for the jitter; by default `random.random`."""

    async def poll(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> Ready[S] | Pending:
        """Ask once, and say `Ready(state)` or `Pending()`."""
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        return self._bind(guard, guard(self.poll))

    def _bind(self, guard: Guard, ask: Call[Any]) -> Runner[S]:
        value = guard.value(Course, f"the progress of {self.label}")
        return Poller[S](ask, Decider(self.label, self._settings), value, self._remedy).run

    @property
    def returns(self) -> Targets:
        ready = [part for part in self._parts if get_origin(part) is Ready]
        return targets_of(get_args(ready[0])[0]) if ready else None

    def problems(self, total: float | None, /) -> Iterable[str]:
        if getattr(type(self), self.verb) is vars(PollTask)[self.verb]:
            yield f"{self.label} has no poll(); write `async def poll(self, ctx)`"
        if isinstance(found := self.returns, str):
            yield f"{self.label}.poll says Ready[{found}], which is no state"
        kinds: list[Any] = [get_origin(part) or part for part in self._parts]
        for kind in kinds:
            known = kind in (Ready, Pending, Any)
            if not known and (kind is Literal or isinstance(kind, type)):
                yield (
                    f"{self.label}.poll is annotated to return {kind_name(kind)}; write "
                    "-> Ready[Literal[Step.A]] | Pending"
                )
        if kinds == [Pending]:
            yield (
                f"{self.label}.poll is annotated never to be ready; write "
                "-> Ready[Literal[Step.A]] | Pending"
            )
        yield from self._settings.problems(self.label, total)

    @property
    def _settings(self) -> Settings:
        return Settings(**{name: getattr(self, name) for name in Settings._fields})

    @property
    def _parts(self) -> tuple[Any, ...]:
        return _parts(self.poll)


def poll(
    function: Callable[Concatenate[Context[Any], ...], Awaitable[bool | Pending]],
    /,
    *,
    then: S,
    delay: float = 1.0,
    factor: float = 1.0,
    max_delay: float = 60.0,
    jitter: float = 0.0,
    limit: int | None = None,
    deadline: float | None = None,
    errors: int = 0,
    on: Which = Exception,
    random: Callable[[], float] | None = None,
) -> PollTask[S]:
    """A `PollTask` of a function that says whether it is ready; if so, the run goes on to *then*.

    It returns True, False, or a `Pending` of its own; anything else is an error, since values are
    easily taken for true. The settings are those of `PollTask`. Example::

        flow.register(Step.WAIT, poll(delivered, then=Step.DONE, delay=2.0, limit=100))
    """
    return _Asking(
        function,
        then,
        Settings(delay, factor, max_delay, jitter, limit, deadline, errors, on, random),
    )


class _Asking(PollTask[S]):
    """A function, asked until it says True."""

    _remedy: ClassVar[str] = "return True, False or Pending()"

    def __init__(
        self,
        function: Callable[Concatenate[Context[Any], ...], Awaitable[bool | Pending]],
        then: S,
        settings: Settings,
    ) -> None:
        self.function = function
        self.then = then
        self._given = settings

    def bind(self, guard: Guard, /) -> Runner[S]:
        function = guard(self.function)
        answers: dict[Any, Ready[S] | Pending] = {True: Ready(self.then), False: Pending()}

        async def ask(ctx: Context[Any]) -> Any:
            answer: Any = await function(ctx)
            return answers[answer] if isinstance(answer, bool) else answer

        return self._bind(guard, ask)

    def targets(self) -> frozenset[S]:
        return frozenset((self.then,))

    def problems(self, total: float | None, /) -> Iterable[str]:
        for part in _parts(self.function):
            kind: Any = get_origin(part) or part
            if isinstance(kind, type) and kind not in (bool, Pending, Any, object):
                yield f"{self.label} is annotated to return {kind_name(kind)}; write -> bool"
        yield from self._settings.problems(self.label, total)

    @property
    def _settings(self) -> Settings:
        return self._given

    @property
    def label(self) -> str:
        return describe(self.function).name


def _parts(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The kinds of answers that *function* is annotated to give."""
    hint = awaited(describe(function).returns)
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
