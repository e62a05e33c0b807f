"""The type contract: what checkers accept, and what they refuse, line by line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPING = ROOT / "tests" / "typing"
MYPY = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-color-output"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
CHECKERS = pytest.mark.parametrize("checker", [MYPY, PYRIGHT], ids=["mypy", "pyright"])

pytestmark = pytest.mark.timeout(300)


def complaints(checker: list[str], file: Path) -> tuple[set[int], str]:
    """The lines of *file* the checker complains about, and all it said."""
    done = subprocess.run([*checker, str(file)], cwd=ROOT, capture_output=True, text=True)
    text = done.stdout + done.stderr
    found = re.findall(rf"{file.name}:(\d+)(?::\d+)?(?: -)?:? error", text)
    return {int(line) for line in found}, text


def marked(file: Path) -> set[int]:
    lines = file.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


@CHECKERS
def test_right_passes(checker: list[str]) -> None:
    """Everything the docs promise to be well typed is accepted by strict checkers."""
    found, text = complaints(checker, TYPING / "right.py")

    assert set() == found, text


@CHECKERS
def test_wrong_fails_line_by_line(checker: list[str]) -> None:
    """Every mistake in the list is found by strict checkers, and nothing else is."""
    file = TYPING / "wrong.py"
    found, text = complaints(checker, file)

    assert marked(file) == found, text
    assert len(found) > 15


def test_types_are_complete() -> None:
    """Every name that users can import is fully typed."""
    done = subprocess.run(
        [*PYRIGHT, "--verifytypes", "cano", "--ignoreexternal"],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip

    assert "completeness score: 100%" in done.stdout, done.stdout
