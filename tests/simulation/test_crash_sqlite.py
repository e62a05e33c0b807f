"""The same crashes over a file: a sample of the crash points of every scenario."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from cano import SqliteCheckpoints

sys.path.insert(0, str(Path(__file__).parent))

import test_crash_chains
import test_crash_progress
import test_crash_sagas
import test_crash_splits
from _crash import Scenario, check, points

SCENARIOS = [
    *test_crash_chains.SCENARIOS,
    *test_crash_progress.SCENARIOS,
    *test_crash_sagas.SCENARIOS,
    *test_crash_splits.SCENARIOS,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_some_crashes(scenario: Scenario, tmp_path: Path) -> None:
    """Runs in a file survive crashes as those in memory do."""
    clean = scenario.clean()
    chance = Random(scenario.name)  # noqa: S311 -- seeded on purpose
    for n in range(2):
        crashes = chance.sample(points(clean), chance.choice([1, 2]))
        path = tmp_path / f"{n}.db"
        check(scenario, *crashes, opened=partial(SqliteCheckpoints, path), clean=clean)
