"""Who is told of events: anything that can be called with one, and may say which it wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from cano.errors import DefinitionError
from cano.events import Event

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
