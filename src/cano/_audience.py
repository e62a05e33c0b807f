"""Who is told of which event: a table per kind, filled as kinds turn up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from inspect import iscoroutinefunction
from typing import Any, TypeGuard, cast

from cano._clock import wall_offset
from cano._subscribe import Observer, Subscription
from cano.events import Event, RunStarted


class Audience(dict[type[Event], tuple[Observer, ...]]):
    """Whoever wants events of a kind, by kind. Looked up in every announcement, so a dictionary."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        super().__init__()
        self.observers: tuple[Observer, ...] = tuple(observers)

    def __missing__(self, kind: type[Event]) -> tuple[Observer, ...]:
        self[kind] = tuple(_told(o) for o in self.observers if issubclass(kind, _wanted(o)))
        return self[kind]

    def listens(self, kind: type[Event], /) -> bool:
        """Whether anybody wants events of *kind*."""
        return bool(self.observers) and bool(self[kind])

    def trace(self, run_id: str, workflow: str, time: float) -> str:
        """What a run that begins at *time* is called in its trace, if an observer makes one."""
        for observer in self.observers:
            begin = getattr(observer, "begin_trace", None)
            if begin is not None:
                try:
                    return str(begin(run_id, workflow, time))
                except Exception as error:  # noqa: BLE001 -- an observer never changes a run
                    self.dismiss(observer, RunStarted(run_id=run_id, workflow=workflow), error)
        return ""

    def hear(self, workflow: str, kind: type[Event], **fields: Any) -> None:
        """Tell of something that belongs to no run."""
        if not self.listens(kind):
            return
        loop = asyncio.get_running_loop()
        event = kind(workflow=workflow, time=wall_offset(loop) + loop.time(), **fields)
        for observer in self[kind]:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- an observer never changes anything
                self.dismiss(observer, event, error)

    def dismiss(self, observer: Observer, event: Event, error: Exception) -> None:
        """Log that *observer* raised on *event*, and tell it no more."""
        import logging  # noqa: PLC0415 -- nobody pays for it before something is wrong

        logging.getLogger("cano.observers").error(
            "observer %r raised on %s and is told no more",
            observer,
            type(event).__name__,
            exc_info=error,
        )
        self.observers = tuple(o for o in self.observers if _told(o) is not observer)
        self.clear()


NOBODY = Audience()


def _told(observer: Observer) -> Observer:
    """What to call for *observer*: what `on` subscribed, without going through `on`'s object."""
    return observer.call if isinstance(observer, Subscription) else observer


def _wanted(observer: Observer) -> tuple[type[Event], ...]:
    """The kinds *observer* subscribed to; a list of other things that is called `events` is none."""
    asked: object = getattr(observer, "events", ())
    listed = cast("Sequence[object]", asked) if isinstance(asked, Sequence) else ()
    return tuple([kind for kind in listed if _is_kind(kind)]) or (Event,)


def _is_kind(kind: object) -> TypeGuard[type[Event]]:
    return isinstance(kind, type) and issubclass(kind, Event)


def problems(observers: Sequence[Any]) -> Iterator[str]:
    """Say which of *observers* cannot be told anything."""
    for observer in observers:
        call = _told(observer)
        if isinstance(observer, type):
            yield f"observer {observer.__name__} is a class; pass an instance, {observer.__name__}()"
        elif not callable(observer):
            yield f"observer {observer!r} cannot be called; pass a function of one event"
        elif iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__):
            yield f"observer {call!r} is async; make it a plain `def`, or put events into a queue"
