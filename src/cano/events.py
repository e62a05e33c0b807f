"""Everything that can happen to a run.

An event is a fact: named in the past tense, frozen, never edited. The fields of `Event` itself
are the envelope, filled in when the event is announced, so that an observer never has to ask
whose event it is holding; a store keeps them as columns of its own and leaves them out of the
body (`omit_defaults`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

import msgspec

from cano.errors import DefinitionError


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """A fact about a run."""

    run_id: str = ""
    workflow: str = ""
    sequence: int = 0
    """Counts the events announced for this run, from 1."""
    time: float = 0.0
    """Seconds since the epoch, by the run's own clock: it never jumps."""
    state: str = ""
    """The name of the state the run was in."""
    attempt: int = 0
    """Which attempt of the state's work, counted from 1; 0 outside any."""
    branch: str = ""
    """The branch of a split this happened in; empty outside one."""


class RunStarted(Event, frozen=True):
    """The first event of a run; *state* is where it starts."""

    version: int = 0
    data: bytes = b""


class StateEntered(Event, frozen=True):
    """A visit to *state* begins; for an exit it is the last thing before `RunFinished`."""


class TaskStarted(Event, frozen=True):
    """The work of *state* begins. Exactly one of the next three ends it."""


class TaskSucceeded(Event, frozen=True):
    """The work of *state* is done and leads to *next*."""

    next: str = ""


class TaskFailed(Event, frozen=True):
    """The work of *state* failed for good: its policies had no more to offer."""

    error: str = ""


class TaskCancelled(Event, frozen=True):
    """The work of *state* was ended from outside: cancelled, or out of time."""


class TaskRetried(Event, frozen=True):
    """*attempt* failed with *error*; the next one follows after *delay* seconds."""

    error: str = ""
    delay: float = 0.0


class FailureRouted(Event, frozen=True):
    """The failure of *state* led to the state *next* instead of ending the run."""

    next: str = ""
    error: str = ""


class BranchStarted(Event, frozen=True):
    """Branch *index* of the split in *state* begins. Exactly one of the next three ends it."""

    index: int = 0


class BranchFinished(Event, frozen=True):
    """Branch *index* returned a value."""

    index: int = 0


class BranchFailed(Event, frozen=True):
    """Branch *index* raised *error*."""

    index: int = 0
    error: str = ""


class BranchCancelled(Event, frozen=True):
    """Branch *index* was ended because the join no longer needed it."""

    index: int = 0


class SplitJoined(Event, frozen=True):
    """The join of the split in *state* has decided, for *reason*; a failed one fails the task."""

    satisfied: bool = True
    reason: str = ""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_started: int = 0


class RunFinished(Event, frozen=True):
    """The run reached the exit *state*. Nothing follows."""


class RunFailed(Event, frozen=True):
    """The run ended with an error."""

    kind: str = ""
    error: str = ""


class RunCancelled(Event, frozen=True):
    """The run was cancelled, by its handle or by asyncio."""


Observer: TypeAlias = Callable[[Event], None]
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)


@runtime_checkable
class Subscriber(Protocol):
    """An observer that says which events it wants; it is not told of any other."""

    @property
    def events(self) -> Sequence[type[Event]]: ...

    def __call__(self, event: Event, /) -> None: ...


class Subscription:
    """A function and the events it was subscribed to."""

    def __init__(self, call: Callable[..., None], events: tuple[type[Event], ...]) -> None:
        self.call = call
        self.events = events

    def __call__(self, event: Event, /) -> None:
        self.call(event)

    def __repr__(self) -> str:
        name = getattr(self.call, "__qualname__", repr(self.call))
        return f"<observer {name} of {', '.join(kind.__name__ for kind in self.events)}>"


@overload
def on(kind: type[E1], /) -> Callable[[Callable[[E1], None]], Subscriber]: ...
@overload
def on(a: type[E1], b: type[E2], /) -> Callable[[Callable[[E1 | E2], None]], Subscriber]: ...
@overload
def on(
    a: type[E1], b: type[E2], c: type[E3], /
) -> Callable[[Callable[[E1 | E2 | E3], None]], Subscriber]: ...
@overload
def on(*kinds: type[Event]) -> Callable[[Callable[[Any], None]], Subscriber]: ...
def on(*kinds: type[Event]) -> Callable[[Callable[[Any], None]], Subscriber]:
    """Subscribe a function to some kinds of events; the others then cost nothing.

    A kind stands for those derived from it too. Example::

        @on(RunFailed, TaskFailed)
        def alarm(event: RunFailed | TaskFailed) -> None:
            print(event.run_id, event.error)

        Workflow(Step, observers=[alarm])
    """
    if not kinds:
        raise DefinitionError("on() names no kind of event; say on(Event) for everything")

    def subscribe(call: Callable[[Any], None]) -> Subscriber:
        return Subscription(call, kinds)

    return subscribe
