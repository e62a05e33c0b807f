"""What the items of a batch came to, in input order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from cano.errors import DefinitionError

T = TypeVar("T")


class ItemOutcome(msgspec.Struct, Generic[T], frozen=True):
    """What one item came to: a *value*, or an *error*."""

    index: int
    name: str
    """Its key."""
    value: T | None = None
    error: Exception | None = None


class Outcomes(Generic[T]):
    """What the items of a batch came to, in input order. `len` and iteration cover all of them.

    In a test of `finish` make one by hand: `Outcomes([7, ValueError("no"), 9])`, where an exception
    stands for an item that failed.
    """

    __slots__ = ("_counted", "_errors", "_failed", "_names", "_slots")

    def __init__(self, results: Iterable[T | Exception] = (), names: Sequence[str] = ()) -> None:
        self._slots: list[Any] = []
        """A place per item; None for one that failed."""
        self._errors: dict[int, Exception] = {}
        self._names: list[str] | None = list(names) or None
        self._counted: int | None = None
        """How many items there were, where they themselves were not kept."""
        self._failed = 0
        for index, result in enumerate(results):
            self._slots.append(None)
            if isinstance(result, Exception):
                self._fail(index, result)
            else:
                self._slots[index] = result

    @classmethod
    def none(cls, *, counted: bool, named: bool) -> Outcomes[T]:
        """For the batch: nothing yet. *counted* keeps the counts alone."""
        outcomes = cls()
        outcomes._counted = 0 if counted else None
        outcomes._names = [] if named and not counted else None
        return outcomes

    @property
    def total(self) -> int:
        """How many items there were."""
        return len(self._slots) if self._counted is None else self._counted

    @property
    def succeeded(self) -> int:
        """How many of them were processed."""
        return self.total - self._failed

    @property
    def failed(self) -> int:
        """How many of them failed for good."""
        return self._failed

    @property
    def values(self) -> list[T]:
        """What the successful items returned, in input order; a new list each time."""
        self._kept("values")
        if not self._errors:
            return self._slots.copy()
        return [value for index, value in enumerate(self._slots) if index not in self._errors]

    @property
    def errors(self) -> Mapping[int, Exception]:
        """The exceptions of the items that failed, by index, in input order."""
        self._kept("errors")
        return dict(sorted(self._errors.items()))

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[ItemOutcome[T]]:
        self._kept("items")
        return map(self.__getitem__, range(self.total))

    def __getitem__(self, index: int) -> ItemOutcome[T]:
        self._kept("items")
        place = range(self.total)[index]
        name = str(place) if self._names is None else self._names[place]
        return ItemOutcome(place, name, self._slots[place], self._errors.get(place))

    def __repr__(self) -> str:
        return f"<Outcomes: {self.succeeded} of {self.total} succeeded>"

    def _begin(self, name: str) -> None:
        """One item more, of which nothing is known yet."""
        if self._counted is not None:
            self._counted += 1
            return
        self._slots.append(None)
        if self._names is not None:
            self._names.append(name)

    def _fail(self, index: int, error: Exception) -> None:
        self._failed += 1
        if self._counted is None:
            self._errors[index] = error

    def _kept(self, what: str) -> None:
        if self._counted is not None:
            raise DefinitionError(
                f"there are no {what} in these outcomes: collect() was given each of them, and only "
                "the counts are kept; read total, succeeded and failed, or leave collect() out"
            )
