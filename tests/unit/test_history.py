"""What the events of a run add up to: the lifecycle table, and the fold of each event."""

from __future__ import annotations

import copy
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cano import events as all_events
from cano._history import _FOLDS, History, Standing, evolve, replay
from cano._lifecycle import LIFECYCLE, Phase
from cano.errors import CorruptHistoryError
from cano.events import (
    KEPT,
    BranchFailed,
    BranchFinished,
    Cause,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    Progress,
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
    StateEntered,
    TaskCompensated,
    TaskCompleted,
    TaskRetried,
    TaskStarted,
    TimerSet,
)

KINDS: list[type[Event]] = sorted(get_args(KEPT), key=lambda kind: kind.__name__)
ANNOUNCED = [
    kind
    for kind in vars(all_events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in KINDS
]
CAUSE = Cause("builtins:ValueError", "too small")
thorough = settings(max_examples=100, deadline=None)

decode = msgspec.json.Decoder(KEPT).decode
texts = st.sampled_from(["", "a", "b", "c"])
raws = st.sampled_from([b"null", b"1", b'"x"', b'{"a":[1,2]}']).map(msgspec.Raw)
patches = st.none() | st.dictionaries(st.sampled_from("xyz"), raws, max_size=2)


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def a(kind: type[Event], **fields: Any) -> Event:
    return kind(**fields)


def numbered(*events: Event) -> list[Event]:
    return [msgspec.structs.replace(event, sequence=n) for n, event in enumerate(events, 1)]


def history_of(*events: Event) -> History:
    """What these events add up to, numbered from 1."""
    return replay(numbered(*events))


def plain(history: History) -> dict[str, Any]:
    """A history as values that compare equal by what they say; raw JSON does not."""
    fields = msgspec.structs.asdict(history) | {"fields": history.data}
    for name in ("visit", "before"):
        if (visit := fields[name]) is not None:
            fields[name] = msgspec.structs.asdict(visit)
            fields[name]["progress"] = {
                key: msgspec.json.encode(event) for key, event in visit.progress.items()
            }
    return fields


def in_phase(phase: Phase) -> History:
    """A history in that phase, with work standing that a rollback could undo."""
    completed = [RunStarted(state="A"), StateEntered(state="A"), TaskCompleted(state="A", next="B")]
    ends: dict[Phase, list[Event]] = {
        Phase.RUNNING: [],
        Phase.ROLLING_BACK: [RollbackStarted()],
        Phase.FINISHED: [RunFinished()],
        Phase.FAILED: [RunFailed()],
        Phase.CANCELLED: [RunCancelled()],
    }
    return History() if phase is Phase.NEW else history_of(*completed, *ends[phase])


def any_event(draw: Any, kind: type[Event]) -> Event:
    """An event of that kind with whatever in it."""
    known: dict[str, Any] = {
        "patch": patches,
        "value": raws,
        "cause": st.none() | st.just(CAUSE),
        "renamed": st.none() | st.dictionaries(texts, texts, max_size=2),
        "names": st.just(()),
        "signals": st.just(()),
        "lost": st.just(()),
    }
    plain_types: dict[Any, Any] = {
        str: texts,
        int: st.integers(0, 3),
        bool: st.booleans(),
        float: st.just(1.5),
    }
    fields = {
        field.name: draw(known[field.name] if field.name in known else plain_types[field.type])
        for field in msgspec.structs.fields(kind)
        if field.name not in ("sequence", "run_id", "workflow", "time")
    }
    return kind(**fields)


@st.composite
def lives(draw: Any) -> list[Event]:
    """The events of a run: any that the table allows, with anything in them."""
    events: list[Event] = []
    phase, standing = Phase.NEW, 0
    for _ in range(draw(st.integers(1, 25))):
        allowed = [
            kind
            for kind in LIFECYCLE[phase]
            if standing or kind not in (TaskCompensated, CompensationFailed)
        ]
        if not allowed:
            break
        event = any_event(draw, draw(st.sampled_from(sorted(allowed, key=lambda k: k.__name__))))
        events.append(event)
        phase = LIFECYCLE[phase][type(event)]
        standing += isinstance(event, TaskCompleted)
        standing += isinstance(event, BranchFinished) and event.undoable
        standing -= isinstance(event, TaskCompensated | CompensationFailed)
    return numbered(*events)


def test_every_phase_has_its_row() -> None:
    """No phase is forgotten, and every row leads to phases that have one."""
    assert set(Phase) == set(LIFECYCLE)
    assert set(Phase) >= {phase for row in LIFECYCLE.values() for phase in row.values()}


def test_every_phase_can_be_reached() -> None:
    """From a new run there is a way to every phase."""
    found = {Phase.NEW}
    for _ in Phase:
        found |= {phase for known in list(found) for phase in LIFECYCLE[known].values()}

    assert set(Phase) == found


def test_every_kept_event_has_a_place() -> None:
    """Exactly the events that are kept stand in the table, and each of them has a fold."""
    assert set(KINDS) == {kind for row in LIFECYCLE.values() for kind in row}
    assert set(KINDS) == set(_FOLDS)


@pytest.mark.parametrize("phase", Phase)
def test_over(phase: Phase) -> None:
    """A run is over exactly in the phases that nothing but reopening can follow."""
    assert (LIFECYCLE[phase].keys() <= {RunReopened}) == History(phase=phase).over


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", Phase)
def test_the_table_is_obeyed(phase: Phase, kind: type[Event]) -> None:
    """In every phase every event leads where the table says, or is refused and changes nothing."""
    history = in_phase(phase)
    before = copy.deepcopy(plain(history))
    expected = LIFECYCLE[phase].get(kind)
    if expected is None:
        with pytest.raises(
            CorruptHistoryError, match=f"^{kind.__name__} cannot follow: the run is"
        ):
            evolve(history, a(kind))
        assert before == plain(history)
        return
    evolve(history, a(kind))

    assert (expected, before["sequence"] + 1) == (history.phase, history.sequence)


@pytest.mark.parametrize("kind", ANNOUNCED, ids=lambda kind: kind.__name__)
def test_what_is_only_announced_is_no_history(kind: type[Event]) -> None:
    """An event that is not kept never becomes part of a history."""
    for phase in Phase:
        with pytest.raises(CorruptHistoryError, match="cannot follow"):
            evolve(in_phase(phase), a(kind))


def test_what_cannot_follow_is_explained() -> None:
    """The message names the event, the phase, and how far the run had come."""
    history = history_of(RunStarted(), RunFinished())
    with pytest.raises(
        CorruptHistoryError, match="^RunFailed cannot follow: the run is finished after 2 events$"
    ):
        evolve(history, RunFailed())


@thorough
@given(lives(), st.integers(1, 25))
def test_replay_is_the_live_history(events: list[Event], place: int) -> None:
    """Folding what a store gives back adds up to what the living run had, at any moment."""
    live = History()
    for n, event in enumerate(events, 1):
        evolve(live, event)
        if n in (len(events), place):
            stored = [decode(msgspec.json.encode(kept)) for kept in events[:n]]
            assert plain(live) == plain(replay(stored))


@pytest.mark.parametrize("left", [SplitJoined(), FailureRouted(next="B")])
@pytest.mark.parametrize("entries", [1, 2, 5])
def test_visits_in_which_nothing_happened(left: Event, entries: int) -> None:
    """However many states are passed through, a replay adds up to what the run had."""
    passed = [a(StateEntered, state=f"S{n}", patch={"n": raw(str(n))}) for n in range(entries)]
    events = numbered(RunStarted(), StateEntered(), left, *passed, TimerSet(name="t"), *passed)
    live = History()
    for n, event in enumerate(events, 1):
        evolve(live, event)
        assert plain(live) == plain(replay(events[:n]))
    assert live.visit.number == 2 * entries + 1


@thorough
@given(lives())
def test_at_most_one_end_at_a_time(events: list[Event]) -> None:
    """A run starts once; an end is followed by nothing but reopening, FINISHED by an undoing."""
    history = History()
    for n, event in enumerate(events):
        assert (n == 0) == isinstance(event, RunStarted)
        if history.over:
            assert isinstance(event, RunReopened)
        finished = history.phase is Phase.FINISHED
        evolve(history, event)
        assert not finished or (Phase.ROLLING_BACK, True) == (history.phase, history.cancelled)


@thorough
@given(lives())
def test_standing_work_is_a_stack(events: list[Event]) -> None:
    """Each piece of work is completed once, undone at most once, and the newest one first."""
    history, stack = History(), list[int]()
    for event in events:
        evolve(history, event)
        if isinstance(event, TaskCompleted) or (
            isinstance(event, BranchFinished) and event.undoable
        ):
            stack.append(event.sequence)
        elif isinstance(event, TaskCompensated | CompensationFailed):
            stack.pop()

        assert stack == [work.sequence for work in history.standing]
    compensated = sum(isinstance(event, TaskCompensated) for event in events)
    failed = sum(isinstance(event, CompensationFailed) for event in events)
    assert (compensated, failed) == (history.undone, len(history.failures))


@thorough
@given(lives(), st.data())
def test_a_hole_is_found(events: list[Event], data: st.DataObject) -> None:
    """A history that lacks an event in its middle, or has one twice, is refused."""
    place = data.draw(st.integers(0, len(events) - 1))
    for broken in (
        [*events[:place], *events[place + 1 :]] if place < len(events) - 1 else [],
        [*events[: place + 1], *events[place:]],
    ):
        if broken:
            with pytest.raises(CorruptHistoryError, match="is missing: | cannot follow: "):
                replay(broken)


def test_a_missing_event_is_named() -> None:
    """The message says which number is missing and what stands in its place."""
    events = numbered(RunStarted(), StateEntered(), StateEntered(), RunFinished())
    with pytest.raises(CorruptHistoryError, match="^event 3 is missing: RunFinished has number 4$"):
        replay([*events[:2], events[3]])


@pytest.mark.parametrize("kind", [TaskCompensated, CompensationFailed])
def test_nothing_is_undone_twice(kind: type[Event]) -> None:
    """A history that undoes more than was done is refused, and the message says so."""
    history = history_of(RunStarted(), TaskCompleted(), RollbackStarted(), a(kind))
    before = copy.deepcopy(plain(history))
    with pytest.raises(CorruptHistoryError, match=f"^{kind.__name__} cannot follow"):
        evolve(history, a(kind))

    assert before == plain(history)


def test_nothing_adds_up_to_nothing() -> None:
    """Without events a run is new, and no two histories share what they hold."""
    one, other = replay([]), replay([])
    one.fields["a"] = msgspec.Raw(b"1")
    evolve(one, RunStarted(state="A"))
    evolve(one, CursorSaved())
    one.received["go"] = 1

    assert (Phase.NEW, 0, False) == (other.phase, other.sequence, other.over)
    assert ({}, {}, {}) == (other.data, other.visit.progress, other.received)


def test_where_a_run_is() -> None:
    """A start and a completion say where the run goes next; an entry says that it got there."""
    events: list[Event] = [RunStarted(state="A", version=3, fingerprint="f")]
    for event, expected in [
        (StateEntered(state="A"), ("A", True)),
        (TaskCompleted(state="A", next="B"), ("B", False)),
        (StateEntered(state="B"), ("B", True)),
        (RunClaimed(state="B"), ("B", True)),
        (RunFinished(state="C"), ("C", False)),
    ]:
        events.append(event)
        history = history_of(*events)
        assert expected == (history.state, history.entered)
    start = history_of(*events[:1])
    assert ("A", False, 3, "f") == (start.state, start.entered, start.version, start.fingerprint)


def test_data_adds_up() -> None:
    """Each event with a patch changes the fields it names, and those alone."""
    x = {"x": raw("1"), "y": raw("1")}
    history = history_of(RunStarted(patch=x))
    for expected, event in enumerate(
        [
            StateEntered(patch={"x": raw("2")}),
            CursorSaved(patch={"x": raw("3")}),
            TaskCompleted(patch={"x": raw("4")}),
            RollbackStarted(),
            TaskCompensated(patch={"x": raw("6")}),
        ],
        2,
    ):
        evolve(history, event)
        wanted = expected if expected != 5 else 4

        assert {"x": str(wanted).encode(), "y": b"1"} == history.data
    finished = history_of(RunStarted(patch=x), RunFinished(patch={"y": raw("9")}))
    assert {"x": b"1", "y": b"9"} == finished.data


@pytest.mark.parametrize(
    ("event", "family", "branch", "name"),
    [
        (TaskRetried(attempt=1, branch="eu"), "attempt", "eu", ""),
        (CursorSaved(value=raw("3"), branch="eu"), "cursor", "eu", ""),
        (EffectIntended(name="charge"), "effect", "", "charge"),
        (EffectDone(name="charge", branch="eu"), "effect", "eu", "charge"),
        (TimerSet(name="nap", until=5.0), "timer", "", "nap"),
        (SignalReceived(name="wait", signal="go", number=4), "signal", "", "wait"),
        (BranchFinished(name="eu", branch="eu"), "branch", "eu", "eu"),
        (BranchFailed(name="eu", branch="eu"), "branch", "eu", "eu"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Event) else "",
)
def test_progress_is_found_again(event: Progress, family: str, branch: str, name: str) -> None:
    """What was done within a visit is found by family, branch and name, until the visit ends."""
    history = history_of(RunStarted(), StateEntered(state="A"), event)
    found = history.visit.of(family, branch, name)

    assert type(event) is type(found)
    assert history.visit.of(family, "elsewhere", name) is None
    evolve(history, StateEntered(state="A"))
    assert history.visit.of(family, branch, name) is None
    assert (2, "A") == (history.visit.number, history.visit.state)


def test_the_latest_progress_counts() -> None:
    """Of several of the same family, branch and name the last one is found."""
    saves = [CursorSaved(value=raw(str(n))) for n in range(3)]
    history = history_of(RunStarted(), StateEntered(), EffectIntended(name="e"), *saves)
    evolve(history, EffectDone(name="e", value=raw("7")))

    assert b"2" == bytes(history.visit.of("cursor").value)
    assert EffectDone is type(history.visit.of("effect", "", "e"))


def test_a_step_begins_with_its_first_attempt() -> None:
    """A saved cursor ends the attempts at the step before, of its own branch alone."""
    history = history_of(
        RunStarted(), StateEntered(), TaskRetried(attempt=2), TaskRetried(attempt=1, branch="eu")
    )
    evolve(history, CursorSaved())

    assert history.visit.of("attempt") is None
    assert 1 == history.visit.of("attempt", "eu").attempt


def test_signals_are_counted_by_name() -> None:
    """The number of the last message taken is known for each name, whatever the visit."""
    history = history_of(
        RunStarted(),
        StateEntered(),
        SignalReceived(signal="go", number=1),
        SignalReceived(signal="stop", number=2),
        StateEntered(),
        SignalReceived(signal="go", number=5),
    )

    assert {"go": 5, "stop": 2} == history.received


def test_a_visit_knows_the_split_before_it() -> None:
    """The visit after a join or a routed failure sees the one before, and the next one does not."""
    for event in (SplitJoined(reason="all"), FailureRouted(next="B", cause=CAUSE)):
        history = history_of(RunStarted(), StateEntered(state="A"), event, StateEntered(state="B"))
        assert history.before is not None
        assert "A" == history.before.state
        assert event.reason if isinstance(event, SplitJoined) else history.before.routed

        evolve(history, StateEntered(state="C"))
        assert history.before is None


def test_what_stands() -> None:
    """Completed tasks and undoable branches stand, with what undoing them needs, oldest first."""
    history = history_of(
        RunStarted(),
        StateEntered(state="A"),
        TaskCompleted(state="A", next="B", value=raw('"a"')),
        StateEntered(state="B"),
        BranchFinished(state="B", branch="eu", value=raw("1"), undoable=True),
        BranchFinished(state="B", branch="us", value=raw("2")),
        TaskCompleted(state="B", next="C"),
    )

    assert [
        Standing("A", "", b'"a"', 3),
        Standing("B", "eu", b"1", 5),
        Standing("B", "", b"null", 7),
    ] == history.standing


def test_rolling_back() -> None:
    """A rollback takes the newest work off; what could not be undone is kept with the reason."""
    history = history_of(
        RunStarted(),
        TaskCompleted(state="A", value=raw("1")),
        TaskCompleted(state="B", value=raw("2")),
        TaskCompleted(state="C", value=raw("3")),
        RollbackStarted(cause=CAUSE),
        TaskCompensated(state="C"),
        CompensationFailed(state="B", cause=Cause("m:Stuck", "no")),
    )

    assert [Standing("A", "", b"1", 2)] == history.standing
    assert [Standing("B", "", b"2", 3, Cause("m:Stuck", "no"))] == history.failures
    assert (1, CAUSE, False) == (history.undone, history.cause, history.cancelled)


def test_why_it_ended() -> None:
    """The cause of a failure is that of its rollback, or the one its end names; a cancel says so."""
    other = Cause("m:Other", "worse")
    for events, expected in [
        ([RunFailed(cause=CAUSE)], (Phase.FAILED, CAUSE, False)),
        ([RollbackStarted(cause=CAUSE), RunFailed()], (Phase.FAILED, CAUSE, False)),
        ([RollbackStarted(cause=CAUSE), RunFailed(cause=other)], (Phase.FAILED, other, False)),
        ([RunCancelled()], (Phase.CANCELLED, None, True)),
        ([RollbackStarted(cancelled=True), RunCancelled()], (Phase.CANCELLED, None, True)),
        ([RunFailed(cause=CAUSE), RunReopened()], (Phase.RUNNING, None, False)),
        ([RunCancelled(), RunReopened()], (Phase.RUNNING, None, False)),
    ]:
        history = history_of(RunStarted(), *events)
        assert expected == (history.phase, history.cause, history.cancelled)


def test_reopening_keeps_the_visit() -> None:
    """A reopened run is where it failed, with all that was done there."""
    history = history_of(
        RunStarted(),
        StateEntered(state="A"),
        CursorSaved(value=raw("3")),
        RunFailed(),
        RunReopened(),
    )

    assert ("A", True) == (history.state, history.entered)
    assert b"3" == bytes(history.visit.of("cursor").value)


def test_migration() -> None:
    """A migration replaces the data and renames states, of standing work too."""
    history = history_of(
        RunStarted(state="A", version=1, patch={"old": raw("1")}),
        StateEntered(state="A"),
        TaskCompleted(state="A", next="B"),
        StateEntered(state="B"),
        CursorSaved(value=raw("3")),
        RunMigrated(
            state="B", before=1, version=2, fingerprint="g", patch={"new": raw("2")},
            renamed={"A": "ONE"},
        ),
    )  # fmt: skip

    assert (2, "g", {"new": b"2"}) == (history.version, history.fingerprint, history.data)
    assert ["ONE"] == [work.state for work in history.standing]
    assert ("B", True, 1) == (history.state, history.entered, history.visit.number - 1)
    assert history.visit.of("cursor") is not None


def test_migration_to_a_renamed_state() -> None:
    """A state that only has another name goes on with what was done in it; another one does not."""
    for renamed, entered in [({"A": "ONE"}, True), ({}, False)]:
        history = history_of(
            RunStarted(state="A"),
            StateEntered(state="A"),
            CursorSaved(value=raw("3")),
            RunMigrated(state="ONE", version=2, renamed=renamed),
        )

        assert ("ONE", entered) == (history.state, history.entered)


def test_what_is_announced_is_not_kept() -> None:
    """The start of a task is announced; it is no part of a history."""
    assert TaskStarted in ANNOUNCED
    assert len(ANNOUNCED) + len(KINDS) > 25
