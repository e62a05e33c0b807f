"""What the rules of the store contract are written with."""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from cano.checkpoints.store import CheckpointStore, NewRun, Owner
from cano.events import (
    BranchFailed,
    BranchFinished,
    Cause,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunReopened,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    TaskCompensated,
    TaskCompleted,
    TaskRetried,
    TimerSet,
    WaitStarted,
)

E = TypeVar("E", bound=BaseException)

Check: TypeAlias = Callable[[CheckpointStore], Awaitable[None]]

NOW = 1_000_000.0
LEASE = 15.0
ANN = Owner("ann", "here", 1, "monday")
BEN = Owner("ben", "here", 2, "tuesday")
EVE = Owner("eve", "there", 1, "monday")


class Rule(NamedTuple):
    """One rule of the contract, and how it is tried."""

    name: str
    sentence: str
    check: Check
    persistent: bool = False
    """Whether it is asked only of stores that outlive `close`."""


def rule(rules: list[Rule], *, persistent: bool = False) -> Callable[[Check], Check]:
    """Add a check to *rules*; its docstring is the rule."""

    def add(check: Check) -> Check:
        sentence = " ".join((check.__doc__ or "").split())
        rules.append(Rule(getattr(check, "__name__", "?"), sentence, check, persistent))
        return check

    return add


def expect(expected: object, actual: object, about: str) -> None:
    """Raise `AssertionError` if *actual* is something else, which is *about* something."""
    if expected != actual:
        wanted, found = _SHORT.repr(expected), _SHORT.repr(actual)
        raise AssertionError(f"{about}: expected {wanted}, got {found}")


async def refused(kind: type[E], call: Awaitable[object], about: str) -> E:
    """Await *call*, which must raise *kind*."""
    try:
        answer = await call
    except kind as error:
        return error
    raise AssertionError(f"{about}: expected {kind.__name__}, got {_SHORT.repr(answer)}")


async def expect_events(
    store: CheckpointStore, run_id: str, expected: Sequence[Event], about: str
) -> None:
    """The history of the run is *expected*, to the byte."""
    expect(written(expected), written(await store.load(run_id)), about)


def written(events: Sequence[Event]) -> list[bytes]:
    """Events as text: what they hold as JSON compares equal by what it says."""
    return [msgspec.json.encode(event, order="deterministic") for event in events]


def started(run_id: str = "run", time: float = NOW) -> RunStarted:
    """The first event of a run."""
    return RunStarted(run_id=run_id, workflow="flow", sequence=1, time=time, state="START")


def entered(number: int, run_id: str = "run", **more: Any) -> StateEntered:
    """Event *number* of a run."""
    more = {"time": NOW + number, "state": f"S{number}", **more}
    return StateEntered(run_id=run_id, workflow="flow", sequence=number, **more)


async def begin(
    store: CheckpointStore,
    run_id: str = "run",
    *,
    owner: Owner = ANN,
    workflow: str = "flow",
    time: float = NOW,
    tags: tuple[str, ...] = (),
) -> None:
    """Begin a run with one event, carried out by *owner* until NOW + LEASE."""
    await store.renew(owner, NOW, NOW + LEASE)
    new = NewRun(run_id, workflow, owner.id, time, tags=tags)
    await store.create(new, [started(run_id, time)])


def samples() -> list[Event]:
    """One of each kind of event that is kept, with all that it can hold."""
    raw = msgspec.Raw
    value = raw(b'{"b":[1,2.5,null],"a":"x"}')
    patch = {"total": raw(b"12"), "items": raw(b'["a","b"]'), "note": raw(b"null")}
    cause = Cause("builtins:ValueError", "too small", ("a note", "another"), "Traceback ...")
    kinds: list[Event] = [
        RunStarted(version=3, fingerprint="f1", patch=patch, forked_from="old", forked_at=7, trace="00-1-2-01"),
        RunClaimed(owner="ben", epoch=2),
        RunMigrated(before=1, version=2, fingerprint="f2", patch=patch, renamed={"A": "B"}),
        StateEntered(patch=patch),
        TaskRetried(name="n", error="lost connection", delay=0.25),
        TaskCompleted(next="SHIP", value=value, patch=patch),
        FailureRouted(next="FAILED", error="too small", cause=cause),
        CursorSaved(name="n", value=value, patch=patch),
        EffectIntended(name="charge", number=3),
        EffectDone(name="charge", value=value),
        TimerSet(name="nap", until=NOW + 0.125),
        WaitStarted(name="wait", signals=("approved", "refused"), until=NOW + 0.5),
        SignalReceived(name="wait", signal="approved", number=4, value=value),
        SplitStarted(name="n", names=("eu", "us")),
        BranchFinished(name="eu", index=1, value=value, undoable=True),
        BranchFailed(name="us", index=2, error="too small", cause=cause),
        SplitJoined(
            satisfied=False, reason="impossible", succeeded=1, failed=2, cancelled=3,
            not_started=4, lost=(1, 2),
        ),
        RollbackStarted(cause=cause, cancelled=True),
        TaskCompensated(patch=patch),
        CompensationFailed(cause=cause),
        RunFinished(patch=patch),
        RunFailed(kind="ValueError", error="too small", cause=cause),
        RunCancelled(),
        RunReopened(owner="ben", epoch=3, seen=4),
    ]  # fmt: skip
    return [
        msgspec.structs.replace(
            event, run_id="run", workflow="flow", sequence=number, time=NOW + number / 8,
            state=f"S{number}", attempt=2, branch="eu",
        )
        for number, event in enumerate(kinds, 1)
    ]  # fmt: skip


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 400
        self.maxlist = self.maxtuple = 30


_SHORT = _Short()
