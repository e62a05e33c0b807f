"""What a context needs of the run it belongs to, and the small things that travel with it."""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from cano._history import History
from cano._mailbox import Mailbox
from cano.events import Event
from cano.join import SplitResult

if TYPE_CHECKING:
    from cano._data import DataType

T = TypeVar("T")


class BranchInfo(msgspec.Struct, frozen=True):
    """Which branch of a split this is, and the item it was made for."""

    index: int
    name: str
    item: Any = None


class Resolution(NamedTuple):
    """What a person said, in message *number*, of an effect in doubt."""

    number: int
    value: bytes | None
    """What it returned, as JSON; None to make it again."""
    seen: float = inf
    """How far the run had come when that was said: of what began later it says nothing."""


def resolution(number: int, value: bytes) -> tuple[str, Resolution]:
    """What message *number* says of an effect, and of which."""
    said = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    effect = msgspec.json.decode(said["effect"], type=str)
    done = bytes(said["done"]) if "done" in said else None
    seen = msgspec.json.decode(said["seen"], type=int) if "seen" in said else inf
    return effect, Resolution(number, done, seen)


class Lookup(Protocol):
    """Where a context finds its resources."""

    def get(self, kind: type[T], name: Hashable = "", /) -> T: ...
    def __getitem__(self, name: Hashable, /) -> object: ...


class Host(Protocol):
    """What a context needs of the run it belongs to. The engine's `Run` is one.

    `durable` says that a store keeps what is recorded; `inherited`, how many of the events were
    there when this process took the run over; `look` fetches what was sent to the run meanwhile.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def resources(self) -> Lookup: ...
    @property
    def data_type(self) -> DataType[Any] | None: ...
    @property
    def history(self) -> History: ...
    @property
    def durable(self) -> bool: ...
    @property
    def may_park(self) -> bool: ...
    @property
    def fence(self) -> int: ...
    @property
    def visits(self) -> int: ...
    @property
    def inherited(self) -> int: ...
    @property
    def mailbox(self) -> Mailbox: ...
    @property
    def resolutions(self) -> Mapping[str, Resolution]: ...
    def now(self) -> float: ...
    def listens(self, kind: type[Event], /) -> bool: ...
    def announce(self, event: Event, /) -> None: ...
    def defer(self, event: Event, /) -> None: ...
    def stops(self, error: Exception, /) -> bool: ...
    def record(self, event: Event, /) -> Awaitable[None]: ...
    def not_begun(self) -> None: ...
    async def look(self) -> None: ...


class Handover(NamedTuple):
    """What a visit leaves for the very next one: the split it joined, the error it routed."""

    split: SplitResult[Any] | None = None
    error: Exception | None = None


NOTHING = Handover()


class Parked(BaseException):
    """The run only waits, and is to be let go until *until* or until something comes."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until
