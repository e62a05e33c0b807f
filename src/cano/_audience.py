"""Who is told of which event: a table per kind, filled as kinds turn up."""

from __future__ import annotations

from collections.abc import Sequence

from cano.events import Event, Observer, Subscription


class Audience:
    """The observers of a workflow or a run."""

    __slots__ = ("_table", "observers")

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.observers = tuple(observers)
        self._table: dict[type[Event], tuple[Observer, ...]] = {}

    def listens(self, kind: type[Event], /) -> bool:
        """Whether anybody wants events of *kind*."""
        return bool(self.observers) and bool(self.of(kind))

    def of(self, kind: type[Event]) -> tuple[Observer, ...]:
        """Whoever wants events of *kind*."""
        found = self._table.get(kind)
        if found is None:
            found = tuple(_told(o) for o in self.observers if issubclass(kind, _wanted(o)))
            self._table[kind] = found
        return found

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
        self._table.clear()


def _told(observer: Observer) -> Observer:
    """What to call for *observer*: what `on` subscribed, without going through `on`'s object."""
    return observer.call if isinstance(observer, Subscription) else observer


def _wanted(observer: Observer) -> tuple[type[Event], ...]:
    return tuple(getattr(observer, "events", (Event,)))
