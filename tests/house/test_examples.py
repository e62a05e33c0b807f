"""Every example runs, and prints what its first lines promise."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCSTRINGS = {path.name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in EXAMPLES}


def promised(docstring: str | None) -> list[str]:
    """The lines of the section ``Prints:``, in which ``...`` stands for anything."""
    _, _, below = (docstring or "").partition("\nPrints:\n")
    section = takewhile(lambda line: line.startswith(" ") or not line, below.splitlines())
    return [line for line in section if line.strip(" .")]


def missing(lines: list[str], output: str) -> list[str]:
    """The promised lines that were not printed, in that order; how wide a gap is does not count."""
    printed = iter([" ".join(line.split()) for line in output.splitlines()])
    patterns = [re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") for line in lines]
    return [
        line
        for line, pattern in zip(lines, patterns, strict=True)
        if not any(re.fullmatch(pattern, candidate) for candidate in printed)
    ]


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_prints_what_it_promises(name: str) -> None:
    """An example exits with 0, complains of nothing, and prints what its docstring says."""
    run = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{name}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert (0, "") == (run.returncode, run.stderr)
    lines = promised(DOCSTRINGS[name])
    assert lines, f"{name} has no section 'Prints:' in its docstring"
    assert [] == missing(lines, run.stdout), run.stdout


def test_the_table_lists_every_example() -> None:
    """The README of the examples has one row for each, and none for what is not there."""
    table = (ROOT / "examples" / "README.md").read_text("utf-8")
    assert list(DOCSTRINGS) == sorted(re.findall(r"^\| \[`(\w+\.py)`\]\(\1\)", table, re.MULTILINE))


def test_promises_can_be_broken() -> None:
    """A line that is absent, altered or out of order is missing; gaps and ``...`` are not."""
    output = "one\n  two   2 ms\nthree\n"
    assert [] == missing(["one", "two ... ms", "three"], output)
    assert ["four"] == missing(["one", "four"], output)
    assert ["two 3 ms"] == missing(["two 3 ms"], output)
    assert ["one"] == missing(["three", "one"], output)


def test_a_docstring_without_the_section_promises_nothing() -> None:
    """Only what stands indented under ``Prints:`` is a promise."""
    assert [] == promised(None)
    assert [] == promised("One idea.\n\nNothing is said.")
    assert ["    one"] == promised("One idea.\n\nPrints:\n    one\n    ...\n\nMore.")
