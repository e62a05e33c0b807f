"""Who is told of which event: a table per kind, filled as kinds turn up."""

from __future__ import annotations

from collections.abc import Sequence

from cano.events import Event, Observer


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
            found = tuple(o for o in self.observers if issubclass(kind, _wanted(o)))
            self._table[kind] = found
        return found

    def tell(self, event: Event) -> None:
        """Hand *event* to whoever wants it. Who raises is logged, and told no more."""
        for observer in self.of(type(event)):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- an observer never changes a run
                self._remove(observer, event, error)

    def _remove(self, observer: Observer, event: Event, error: Exception) -> None:
        import logging  # noqa: PLC0415 -- nobody pays for it before something is wrong

        logging.getLogger("cano.observers").error(
            "observer %r raised on %s and is told no more",
            observer,
            type(event).__name__,
            exc_info=error,
        )
        self.observers = tuple(o for o in self.observers if o is not observer)
        self._table.clear()


def _wanted(observer: Observer) -> tuple[type[Event], ...]:
    return tuple(getattr(observer, "events", (Event,)))
