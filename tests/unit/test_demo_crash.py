"""What `cano demo --crash` saves and says, without its processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cano import MemoryCheckpoints
from cano._values import value_type
from cano.cli.demo_crash import Crash
from cano.demo import Counts, Place, Step, Survey, count, workflow

SOURCE = '''\
"""A module."""
import os


class Shelf:
    def fetch(self):
        raise ValueError


def fetch(): ...
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def (:\n")
    return tmp_path


def test_counts_come_back() -> None:
    """What a branch returns is the same after it was kept: places are places, not lists."""
    counts = count(SOURCE, "shelf.py")
    counts.unread.append(("broken.py", "invalid syntax"))
    kind = value_type(Counts, "counts")
    again = kind.read(kind.write(counts))
    assert counts == again
    assert [Place(2, "Shelf.fetch", "shelf.py:6"), Place(1, "fetch", "shelf.py:10")] == sorted(
        again.longest, reverse=True
    )
    assert {Place} == {type(place) for place in (*again.longest, *again.deepest, *again.largest)}


def test_a_survey_comes_back(tree: Path) -> None:
    """The data of a survey that is over is the same in the store as it was in its process."""
    survey = Survey(root=str(tree))

    async def main() -> Survey:
        flow = workflow(1, checkpoints=MemoryCheckpoints())
        assert Step.DONE is await flow.run(data=survey, run_id="demo")
        return await flow.handle("demo").data()

    assert survey == asyncio.run(main())
    assert (2, [("broken.py", "invalid syntax, line 1")]) == (
        survey.counts.modules,
        survey.counts.unread,
    )
    assert isinstance(survey.counts.largest[0], Place)


@pytest.mark.parametrize(
    ("saved", "read_after", "told"),
    [
        (["a"], ["b", "c"], "1 of 3 chunks was finished before the crash, and not read again"),
        (["a", "b"], ["c"], "2 of 3 chunks were finished before the crash, and not read again"),
        (
            ["a", "b"],
            ["a", "c"],
            "2 of 3 chunks were finished before the crash, and 1 of them read again",
        ),
    ],
)
def test_told(saved: list[str], read_after: list[str], told: str) -> None:
    """What was finished is counted by name, so that work done twice would show."""
    assert told == Crash(1, 2, 3, saved, read_after).told
