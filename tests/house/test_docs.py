"""The docs are run: what they show works, what they link to exists, what they claim is tested."""

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
SHOWN = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE), 1
    )
]


@pytest.mark.parametrize("code", SHOWN)
def test_shown_code_runs(code: str) -> None:
    """Every Python block in the docs runs by itself and prints what its `#>` lines say."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs", "exec"), {"__name__": "docs"})  # noqa: S102 -- our own pages

    assert re.findall(r"^\s*#> (.*)$", code, re.MULTILINE) == printed.getvalue().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in the docs points at a file that is there."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert [] == missing


def parity() -> list[tuple[str, str]]:
    rows = re.findall(
        r"^\| ([A-Z]+-\d+) \| ([^|]+) \|", (ROOT / "docs/parity.md").read_text(), re.M
    )
    return [(row, proof.strip()) for row, proof in rows]


@pytest.mark.parametrize(("row", "proof"), parity(), ids=[row for row, _ in parity()])
def test_parity_rows_are_proved(row: str, proof: str) -> None:
    """Every feature of the reference names a test that exists, or the decision replacing it."""
    for name in proof.split("<br>"):
        path, _, test = name.strip().strip("`").partition("::")
        file = ROOT / path

        assert file.exists(), f"{row}: {path}"
        if test:
            tree = ast.parse(file.read_text())
            functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            assert test.split("[")[0] in {
                node.name for node in ast.walk(tree) if isinstance(node, functions)
            }, f"{row}: {name}"


def test_every_row_once() -> None:
    """The parity page lists each feature once."""
    rows = [row for row, _ in parity()]

    assert sorted(set(rows)) == sorted(rows)
