"""Bugs planted into the engine: `crash_everywhere` finds each of them, and nothing without them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cano.testing.crash import CrashFoundError, crash_everywhere

sys.path.insert(0, str(Path(__file__).parent / "planted"))

from bugs import BUGS
from workflows import CASES, Step, large_saga


@pytest.mark.parametrize("name", CASES)
def test_the_engine_as_it_is(name: str) -> None:
    """Nothing is found in the engine, at any point, nor in pairs of points."""
    case = CASES[name]
    report = crash_everywhere(case.make, pairs=15, **case.arguments)

    assert report.points > 50


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name: str) -> None:
    """A bug planted into the engine is found by crashing a workflow that depends on it."""
    bug, case = BUGS[name]
    with bug(), pytest.raises(CrashFoundError) as found:
        crash_everywhere(CASES[case].make, **CASES[case].arguments)

    assert "again:\n    crash_everywhere(" in str(found.value)


def test_there_are_enough() -> None:
    """At least fifteen bugs are planted, each with a sentence or a name that says what it is."""
    assert 15 <= len(BUGS)


def test_a_large_saga() -> None:
    """Ten states with a split of twenty branches, undone to the last: a sample of its points."""
    report = crash_everywhere(large_saga, start=Step.A, points=40, pairs=5)

    assert (45, 70) == (report.points, report.writes)
