"""SIGKILL of real processes at random moments: what is left, and what is made of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.end_to_end import soak
from tests.end_to_end.programs.errands import Ledger, Line, refused

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes it kills")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose processes were killed 200 times; the figures are in `told`."""
    folder = tmp_path_factory.mktemp("killed")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.end_to_end.soak", "--kills", "200",
         "--folder", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert ("", 0) == (ended.stderr, ended.returncode)
    (folder / "told").write_text(ended.stdout)
    return folder


@pytest.mark.timeout(180)
def test_killed_two_hundred_times(killed: Path) -> None:
    """Every run reaches its end, nothing acknowledged is lost, and nothing recorded is repeated."""
    told = json.loads((killed / "told").read_text())
    assert 200 == told["kills"]
    assert told["runs"] > 40
    assert told["claims"] > 200
    assert 0 < told["failed"] < told["runs"]
    assert told["decided_by_a_person"] > 0


@pytest.mark.timeout(180)
def test_the_examination_finds_what_is_wrong(killed: Path) -> None:
    """Work that is repeated, missing, or undone without need would have been noticed."""
    ledger = Ledger(killed / "ledger")
    mailed = [line.run for line in ledger.lines() if line.what == "told mail"]
    run = next(run for run in mailed if not refused(int(run[1:])))
    lines = ledger.lines(run)
    paid = next(line for line in lines if line.what == "effect pay")
    ledger.write(Line(run, "branch 0", 1000, f"{run}/2/GATHER/0 branch 0"))
    ledger.write(Line(run, "undo PAY it", 1000, "another"))
    ledger.write(paid)
    ledger.write(Line(run, "told end RefusedError"))
    ledger.write(Line("nobody", "told started"))
    ledger.close()

    found = asyncio.run(soak.examine(killed)).problems

    recorded = max(line.fence for line in lines if line.what == "branch 0")
    assert [
        "nobody was begun, and is not there",
        f"{run}: an owner did something twice",
        f"{run}: branch 0 was recorded by owner {recorded}, and done again by 1000",
        f"{run}: effect pay happened 2 times",
        f"{run}: undoing happened in the order ['PAY']",
        f"{run}: its process was told of the end RefusedError",
    ] == found
