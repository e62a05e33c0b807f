"""The lifecycle table, against every sequence of events there can be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cano import (
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StateEntered,
    TaskStarted,
)
from cano._history import LIFECYCLE, NOTHING_YET, History, Phase, evolve
from cano._run import finished
from cano.errors import CorruptHistoryError

KINDS: list[type[Event]] = [
    RunStarted, RunFinished, RunFailed, RunCancelled, StateEntered, TaskStarted, Event,
]  # fmt: skip
thorough = settings(max_examples=200, deadline=None, database=None)
sequences = st.lists(
    st.builds(lambda kind, state: kind(state=state), st.sampled_from(KINDS), st.text(max_size=3)),
    max_size=6,
)


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


@pytest.mark.parametrize("phase", Phase)
def test_finished(phase: Phase) -> None:
    """A run is finished exactly in the phases nothing can follow."""
    assert (not LIFECYCLE[phase]) == finished(phase)


@thorough
@given(sequences)
def test_events_are_known_or_refused(events: list[Event]) -> None:
    """An event leads where the table says, or is refused and changes nothing."""
    history = NOTHING_YET
    for event in events:
        expected = LIFECYCLE[history.phase].get(type(event))
        if expected is None:
            with pytest.raises(CorruptHistoryError, match=f"{type(event).__name__} cannot follow"):
                evolve(history, event)
            continue
        history_before, history = history, evolve(history, event)

        assert History(expected, history_before.sequence + 1, event.state) == history


@thorough
@given(sequences)
def test_at_most_one_end(events: list[Event]) -> None:
    """Of whatever events, a run takes one start and one end at most, in this order."""
    taken: list[type[Event]] = []
    history = NOTHING_YET
    for event in events:
        try:
            history = evolve(history, event)
        except CorruptHistoryError:
            continue
        taken.append(type(event))

    assert taken[:1] in ([], [RunStarted])
    assert len(taken) <= 2
    assert RunStarted not in taken[1:]


def test_what_cannot_follow_is_explained() -> None:
    """The message names the event, the phase, and how far the run had come."""
    history = evolve(evolve(NOTHING_YET, RunStarted()), RunFinished())
    with pytest.raises(
        CorruptHistoryError, match="^RunFailed cannot follow: the run is finished after 2 events$"
    ):
        evolve(history, RunFailed())
