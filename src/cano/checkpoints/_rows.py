"""Events as rows: how a database keeps them, and how they come back.

Rule 1: the body of a row is the event's JSON, without the values that are large.
Rule 2: large values are kept apart, once, under the hash of their JSON. Which ones were taken out
        of a body is said beside it and never within: users' JSON may look like anything.
Rule 3: what cannot be read is named by run and number, and harms no other run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from cano._patch import written
from cano.errors import CheckpointError, CorruptHistoryError
from cano.events import KEPT, Event

LARGE = 32_000
"""From this many bytes of JSON on, a value is kept apart."""

LIMIT = 256_000_000
"""No single value may have more bytes of JSON; a database could not hold it for sure."""

encode = msgspec.json.Encoder().encode
_one: msgspec.json.Decoder[Event] = msgspec.json.Decoder(KEPT)
_kept: Any = list[KEPT]
_many: msgspec.json.Decoder[list[Event]] = msgspec.json.Decoder(_kept)


@runtime_checkable
class Codec(Protocol):
    """Bytes to other bytes and back: compression, encryption. Called from several threads."""

    def encode(self, plain: bytes, /) -> bytes:
        """What is to be stored for *plain*."""
        ...

    def decode(self, stored: bytes, /) -> bytes:
        """What `encode` was given. Raises, rather than return something else."""
        ...


class Large(msgspec.Struct, frozen=True, omit_defaults=True):
    """The hashes of what was taken out of one event."""

    patch: dict[str, str] = {}
    """By field."""
    value: str = ""


class Packed(NamedTuple):
    """One event, ready to be stored."""

    body: bytes
    large: bytes | None
    """`Large` as JSON, if anything was taken out."""
    apart: tuple[tuple[str, bytes], ...]
    """The values taken out: hash and JSON."""


Stored: TypeAlias = tuple[int, bytes, bytes | None]
"""Number, body and `Packed.large` of a row."""

Fetch: TypeAlias = Callable[[str], bytes | None]
"""Finds a value by its hash."""


class _State(msgspec.Struct):
    state: str = ""


_large = msgspec.json.Decoder(Large)
_state = msgspec.json.Decoder(_State)


def pack(event: Event, body: bytes) -> Packed:
    """Take the large values out of *event*, whose JSON is *body*.

    Raises `CheckpointError` for a value beyond `LIMIT`.
    """
    patch = written(getattr(event, "patch", None) or {})
    value: msgspec.Raw | None = getattr(event, "value", None)
    moved = {name: _bytes(event, name, raw) for name, raw in patch.items() if _big(raw)}
    apart = {_hash(raw): raw for raw in moved.values()}
    names = {name: _hash(raw) for name, raw in moved.items()}
    changes: dict[str, Any] = {}
    if names:
        changes["patch"] = {name: raw for name, raw in patch.items() if name not in names}
    digest = ""
    if value is not None and _big(value):
        raw = _bytes(event, "value", value)
        digest = _hash(raw)
        apart[digest] = raw
        changes["value"] = None
    if not changes:
        return Packed(body, None, ())
    rest = encode(msgspec.structs.replace(event, **changes))
    return Packed(rest, encode(Large(names, digest)), tuple(apart.items()))


def unpack(
    run_id: str, rows: Sequence[Stored], first: int, fetch: Fetch, codec: Codec | None
) -> list[Event]:
    """Bring the events of *run_id* back, from number *first* on.

    Raises `CorruptHistoryError` for the first that is missing or cannot be read.
    """
    events: list[Event] = []
    for due, (number, body, large) in enumerate(rows, first):
        if number != due:
            raise _corrupt(run_id, due, "it is missing")
        event = _read(run_id, number, body, codec)
        if event.sequence != number:
            raise _corrupt(run_id, number, f"it says that it is number {event.sequence}")
        events.append(event if large is None else whole(run_id, event, large, fetch))
    return events


def unpack_all(joined: bytes, count: int, first: int) -> list[Event] | None:
    """Bring *count* events back whose bodies were joined by commas; None if anything is wrong.

    What is wrong, `unpack` will say. Values that are kept apart are still missing.
    """
    try:
        events = _many.decode(b"[" + joined + b"]")
    except msgspec.MsgspecError:
        return None
    numbers = [event.sequence for event in events]
    return events if numbers == list(range(first, first + count)) else None


def state_of(body: bytes, codec: Codec | None) -> str:
    """The state an event was in, or nothing if that cannot be read."""
    try:
        return _state.decode(body if codec is None else codec.decode(body)).state
    except Exception:  # noqa: BLE001 -- a list of runs is no place to fail for one of them
        return ""


def whole(run_id: str, event: Event, large: bytes, fetch: Fetch) -> Event:
    """Put the values that *large* names back in their places."""

    def get(digest: str) -> msgspec.Raw:
        raw = fetch(digest)
        if raw is None or _hash(raw) != digest:
            raise _corrupt(run_id, event.sequence, "a large value of it is missing or damaged")
        return msgspec.Raw(raw)

    try:
        missing = _large.decode(large)
    except msgspec.DecodeError as error:
        raise _corrupt(run_id, event.sequence, str(error)) from error
    changes: dict[str, Any] = {}
    if missing.patch:
        patch: dict[str, msgspec.Raw] = getattr(event, "patch", None) or {}
        changes["patch"] = patch | {name: get(digest) for name, digest in missing.patch.items()}
    if missing.value:
        changes["value"] = get(missing.value)
    return msgspec.structs.replace(event, **changes)


def _read(run_id: str, number: int, body: bytes, codec: Codec | None) -> Event:
    try:
        return _one.decode(body if codec is None else codec.decode(body))
    except Exception as error:
        raise _corrupt(run_id, number, str(error)) from error


def _corrupt(run_id: str, number: int, why: str) -> CorruptHistoryError:
    return CorruptHistoryError(
        f"event {number} of run {run_id!r} cannot be read: {why}; restore the store from a backup, "
        "or fork the run from an earlier event"
    )


def _big(raw: msgspec.Raw) -> bool:
    return memoryview(raw).nbytes >= LARGE


def _bytes(event: Event, name: str, raw: msgspec.Raw) -> bytes:
    size = memoryview(raw).nbytes
    if size > LIMIT:
        raise CheckpointError(
            f"{name!r} of {type(event).__name__} in state {event.state!r} has {size:,} bytes of "
            f"JSON, and {LIMIT:,} is the most; keep the bulk in files, and where it is in the data"
        )
    return bytes(raw)


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
