"""A run as it is kept in memory."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cano.checkpoints.store import Claim, Message, NewRun, RunQuery, Status
from cano.errors import CheckpointError, CorruptHistoryError, RunLostError
from cano.events import KEPT, Event, RunClaimed, RunMigrated, RunReopened

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(KEPT)


class MemoryRun(msgspec.Struct):
    """All there is of a run. *owner* is empty when it was let go."""

    new: NewRun
    owner: str
    epoch: int = 1
    status: Status = Status.RUNNING
    state: str = ""
    changed: float = 0.0
    """The time of its last event."""
    ended: float | None = None
    wake: float = 0.0
    crashes: int = 0
    events: list[bytes] = []
    inbox: list[Message] = []


def add(run: MemoryRun, events: Sequence[Event]) -> None:
    """Add *events* to the run: all of them, or none where one raises."""
    rows: list[bytes] = []
    number = len(run.events)
    for event in events:
        number += 1
        if event.sequence != number:
            raise _misplaced(run.new.run_id, event, number)
        try:
            rows.append(_encode(event))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{type(event).__name__} cannot be kept: {error}") from error
    if rows:
        run.events += rows
        for e in [event for event in events if isinstance(event, RunMigrated)]:
            run.new = msgspec.structs.replace(run.new, version=e.version, fingerprint=e.fingerprint)
        run.state, run.changed, run.crashes = events[-1].state, events[-1].time, 0


def read(run_id: str, number: int, row: bytes) -> Event:
    try:
        event = _decoder.decode(row)
    except ValueError as error:
        raise CorruptHistoryError(f"event {number} of run {run_id!r}: {error}") from error
    if event.sequence != number:
        raise CorruptHistoryError(f"event {number} of run {run_id!r} is numbered {event.sequence}")
    return event


def take(run: MemoryRun, taken: RunClaimed | RunReopened) -> Claim:
    # A crash is a claim from an owner that is lost; the next event makes it forgotten.
    crashes = run.crashes + 1 if run.owner else run.crashes
    run.owner, run.epoch, run.status = taken.owner, taken.epoch, Status.RUNNING
    run.wake, run.ended = 0.0, None
    new, number = run.new, len(run.events) + 1
    event = msgspec.structs.replace(
        taken, run_id=new.run_id, workflow=new.workflow, sequence=number, state=run.state
    )
    add(run, [event])
    run.crashes = crashes
    return Claim(run.epoch, len(run.events))


def _misplaced(run_id: str, event: Event, number: int) -> CheckpointError:
    kind = type(event).__name__
    if event.sequence < number:
        return RunLostError(f"run {run_id!r} has an event {event.sequence} already, and no {kind}")
    return CheckpointError(f"run {run_id!r}: {kind} {event.sequence} came before event {number}")


def age(run: MemoryRun) -> tuple[float, str]:
    return run.new.time, run.new.run_id


def asked_for(run: MemoryRun, query: RunQuery) -> bool:
    new = run.new
    return (
        query.workflow in (None, new.workflow)
        and (not query.statuses or run.status in query.statuses)
        and (query.tag is None or query.tag in new.tags)
        and (query.since is None or new.time >= query.since)
        and (query.before is None or new.time < query.before)
        and (query.stuck is None or (run.crashes >= query.stuck and not run.status.over))
    )
