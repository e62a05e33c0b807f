"""What must be true of a run that was crashed: of each process, and of the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from cano._history import History, replay
from cano._lifecycle import Phase
from cano.events import (
    BranchFailed,
    BranchFinished,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    Event,
    FailureRouted,
    RollbackStarted,
    RunCancelled,
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
)
from cano.testing._crash_life import TroubleError
from cano.testing._crash_world import Deed

Histories: TypeAlias = Mapping[str, tuple[History, list[Event]]]


def check_life(
    run_id: str,
    before: Histories,
    after: Histories,
    deeds: Sequence[Deed],
    live: History | None,
) -> None:
    """What must be true of every process, however it ended. Raises `TroubleError`.

    *live* is the history of the run as the process had it.
    """
    if live is not None and live.sequence and run_id in after:
        stored = replay(after[run_id][1][: live.sequence])
        if _plain(stored) != _plain(live):
            raise TroubleError("what the process knew of its run is not what is on record of it")
    done = {name: frozenset(_done(events)) for name, (_, events) in before.items()}
    for deed in deeds:
        known = before.get(deed.run_id)
        if known is not None and not deed.late:
            _check_deed(deed, known[0], done[deed.run_id])


def _check_deed(deed: Deed, before: History, done: frozenset[tuple[int, str, str]]) -> None:
    """Work that is recorded is not begun again."""
    if deed.undone:
        if deed.undone <= before.sequence and all(
            work.sequence != deed.undone for work in before.standing
        ):
            raise TroubleError(f"it was undone already: {deed}")
        return
    if "undo at once" in deed.branch:
        return
    if before.phase is Phase.ROLLING_BACK:
        raise TroubleError(f"it was on its way back already, and went forward again: {deed}")
    if (deed.visit, deed.state, deed.branch) in done:
        raise TroubleError(f"it was done already, and on record: {deed}")


def _done(events: Iterable[Event]) -> Iterator[tuple[int, str, str]]:
    """Visit, state and branch of the work that *events* say is over."""
    visit, state = 0, ""
    for event in events:
        if isinstance(event, StateEntered):
            yield visit, state, ""
            visit, state = visit + 1, event.state
        elif isinstance(event, TaskCompleted):
            yield visit, event.state, ""
        elif isinstance(event, BranchFinished):
            yield visit, event.state, event.branch


def _plain(history: History) -> Any:
    """*history* as something that can be compared."""
    encode = msgspec.json.encode
    visits = [
        visit
        and (
            visit.number,
            visit.state,
            {key: encode(event) for key, event in visit.progress.items()},
            encode([visit.joined, visit.routed]),
        )
        for visit in (history.visit, history.before)
    ]
    rest = [
        getattr(history, name)
        for name in ("data", *History.__struct_fields__)
        if name not in ("visit", "before", "fields")
    ]
    return visits, rest


_ONCE: tuple[type[Event], ...] = (
    TaskCompleted, BranchFinished, BranchFailed, EffectDone, CursorSaved, SignalReceived, TimerSet,
    SplitStarted, SplitJoined, FailureRouted, RollbackStarted, TaskCompensated, CompensationFailed,
    RunStarted, RunFinished, RunFailed, RunCancelled, RunReopened, RunMigrated,
)  # fmt: skip
"""What is recorded as often with crashes as without."""

Mark: TypeAlias = tuple[int, str, str, str, str]
"""Visit, kind, state, branch, name."""
Attempt: TypeAlias = tuple[int, str, int, str]
"""Visit, branch, number, name."""


def check_path(recorded: list[str], gone: list[str], *, finished: bool) -> None:
    """The states that were visited are those on record. Raises `TroubleError`.

    A run may have failed because the last of them could not be recorded.
    """
    latest = recorded[-len(gone) :]
    if not finished and latest != gone and recorded[len(recorded) - len(gone) + 1 :] == gone[:-1]:
        return
    same("the way on record", " → ".join(gone), " → ".join(latest))


@dataclass
class Outline:
    """What can be compared of a history."""

    phase: Phase
    path: list[str] = field(default_factory=list[str])
    completed: list[str] = field(default_factory=list[str])
    undone: list[str] = field(default_factory=list[str])
    marks: Counter[Mark] = field(default_factory=Counter[Mark])
    retried: Counter[Attempt] = field(default_factory=Counter[Attempt])
    by_chance: set[int] = field(default_factory=set[int])
    """Visits in which it depends on the time which branches end, or which failed."""


def outline(history: History, events: Sequence[Event]) -> Outline:
    """What *events*, which make up *history*, tell. Raises `TroubleError` if work is undone in another order than it should."""
    out = Outline(history.phase)
    standing: list[str] = []
    visit = 0
    for event in events:
        where = f"{event.state}, branch {event.branch}" if event.branch else event.state
        if isinstance(event, StateEntered):
            visit += 1
            out.path.append(event.state)
        elif isinstance(event, TaskRetried):
            out.retried[visit, event.branch, event.attempt, event.name] += 1
        elif isinstance(event, _ONCE):
            name = getattr(event, "name", "")
            state = "" if isinstance(event, RunCancelled | RunFailed) else event.state
            out.marks[visit, type(event).__name__, state, event.branch, name] += 1
        if isinstance(event, TaskCompleted) or (
            isinstance(event, BranchFinished) and event.undoable
        ):
            out.completed.append(where)
            standing.append(where)
        elif isinstance(event, TaskCompensated | CompensationFailed):
            out.undone.append(where)
            if not standing or standing.pop() != where:
                raise TroubleError(f"undone in another order than newest first: {out.undone}")
        elif (isinstance(event, SplitJoined) and (event.lost or event.not_started)) or isinstance(
            event, FailureRouted | RollbackStarted | RunFailed | RunCancelled
        ):
            out.by_chance.add(visit)
    if standing and history.phase in (Phase.FAILED, Phase.CANCELLED):
        raise TroubleError(f"not undone, although the run {history.phase}: {', '.join(standing)}")
    return out


def same(what: str, expected: object, actual: object) -> None:
    """Raise `TroubleError` unless they are."""
    if expected != actual:
        first = f"{what} should be "
        second = f"{what} is".ljust(len(first))
        raise TroubleError(f"{first}{expected}\n{second}{actual}")


def compare_runs(
    clean: Mapping[str, Outline], crashed: Mapping[str, Outline], loose: frozenset[str]
) -> None:
    """Hold what is on record against the record without crashes. Raises `TroubleError`."""
    same("the runs", sorted(clean), sorted(crashed))
    for name, one in clean.items():
        of = f" of run {name!r}" if len(clean) > 1 else ""
        other = crashed[name]
        same(f"the way{of}", " → ".join(one.path), " → ".join(other.path))
        same(f"the end{of}", str(one.phase), str(other.phase))
        _compare_marks(one, other, of, loose)


def _compare_marks(one: Outline, other: Outline, of: str, loose: frozenset[str]) -> None:
    chance = one.by_chance | other.by_chance
    for mark in {**one.marks, **other.marks}:
        visit, kind, state, branch, name = mark
        usual, now = one.marks[mark], other.marks[mark]
        if state in loose and (branch or name or kind == "CursorSaved"):
            continue
        excused = visit in chance and (branch or name or kind == "SplitJoined")
        if now > max(usual, 1) or (now != usual and not excused):
            where = ", ".join(part for part in (state, branch and f"branch {branch}", name) if part)
            raise TroubleError(f"{kind} of {where}{of} is recorded {now} times, not {usual}")
    for attempt, now in other.retried.items():
        if now > max(one.retried[attempt], 1):
            raise TroubleError(f"attempt {attempt[2]} failed {now} times on record")


def compare_deeds(clean: Sequence[Deed], crashed: Sequence[Deed], troubles: int) -> None:
    """What was done outside: once what must be, more often only what a trouble broke off."""
    one, other = counted(clean), counted(crashed)
    for deed in {**one, **other}:
        what, key, told = deed
        usual, now = one[deed], other[deed]
        name = f"{what} {key}".rstrip()
        if not told and now != usual:
            raise TroubleError(f"{name!r} was done {now} times, and {usual} without a crash")
        if told and now > max(usual, 1) + troubles:
            raise TroubleError(f"{name!r} was begun {now} times, and {usual} without a crash")
    _compare_undone(clean, crashed)
    _compare_order(clean, crashed)


def _compare_order(clean: Sequence[Deed], crashed: Sequence[Deed]) -> None:
    """Nothing goes back to a state that was left: the next one had begun, so it was over."""
    order: dict[str, int] = {}
    for deed in filter(_forward, clean):
        order.setdefault(deed.key, len(order))
    last: Deed | None = None
    for deed in filter(_forward, crashed):
        if last is not None and order.get(deed.key, 0) < order.get(last.key, 0):
            raise TroubleError(f"it went back to what was over: {deed}, after {last}")
        last = deed


def _forward(deed: Deed) -> bool:
    return bool(deed.run_id) and not deed.branch and not deed.late


def counted(ledger: Sequence[Deed]) -> Counter[tuple[str, str, bool]]:
    """How often what was done; what came too late is left out."""
    return Counter(alike(deed) for deed in ledger if not deed.late)


def alike(deed: Deed) -> tuple[str, str, bool]:
    """What two deeds have in common; that an undoing has another number elsewhere is no matter."""
    return deed.what, _NUMBER.sub("", deed.key), bool(deed.run_id)


_NUMBER = re.compile(r"(?<=/undo )\d+$")


def _compare_undone(clean: Sequence[Deed], crashed: Sequence[Deed]) -> None:
    """Undone newest first; what was under way at a crash may be there twice in a row."""
    for run_id in dict.fromkeys(deed.run_id for deed in crashed if deed.undone):
        numbers = [
            deed.undone
            for deed in crashed
            if deed.run_id == run_id and deed.undone and not deed.late
        ]
        if sorted(numbers, reverse=True) != numbers:
            raise TroubleError(f"undone in another order than newest first: events {numbers}")
    undone = {deed.state for deed in crashed if deed.undone}  # of a branch, it may not have begun
    for deed in clean:
        if deed.undone and deed.state not in undone:
            raise TroubleError(f"{deed.what} {deed.key}: it was never undone")
