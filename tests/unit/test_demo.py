"""The counting behind `cano demo`, by itself."""

from __future__ import annotations

import ast
import asyncio
import io
import os
import random
import stat
import tokenize
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cano import demo
from cano.demo import CHUNK, KEPT, Counts, Place, Step, Survey
from cano.join import BranchResult, SplitResult

MODULE = '''\
"""A module.

Its docstring has three lines."""
from __future__ import annotations
import os, os.path
from . import near
from json.tool import main  # a comment behind code is none of its own

# one
    # two, indented
text = """
# not a comment
"""


class Shelf:
    """Of things."""

    async def fetch(self, thing):
        if thing:
            raise ValueError("no " "# thing")
        elif self:
            raise near
        else:
            for _ in thing:
                with thing as other:
                    raise ValueError
        return thing


def fetch(): return lambda: None
'''


def test_count() -> None:
    """Each line is of one kind, and each definition, import and exception is counted as itself."""
    counts = demo.count(MODULE, "shelf.py")
    assert (1, 31) == (counts.modules, counts.lines)
    assert {"code": 19, "blank": 6, "comments": 2, "docstrings": 4} == {
        name: getattr(counts, name) for name in ("code", "blank", "comments", "docstrings")
    }
    assert (2, 1, 1, 1) == (
        counts.functions,
        counts.async_functions,
        counts.classes,
        counts.documented,
    )
    assert {"os": 1, "json": 1} == counts.imports
    assert {"ValueError": 2} == counts.raises
    assert {"fetch": 2} == counts.names
    assert {
        Place(10, "Shelf.fetch", "shelf.py:19"),
        Place(1, "fetch", "shelf.py:31"),
    } == set(counts.longest)
    assert [Place(5, "Shelf.fetch", "shelf.py:27")] == counts.deepest
    assert [Place(31, "", "shelf.py")] == counts.largest


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("x = 1", 1), ("x = 1\n", 1), ("\n\n", 2)])
def test_lines_end_with_newlines(text: str, lines: int) -> None:
    """A newline ends a line; what follows the last one counts only if there is something."""
    assert lines == demo.count(text, "x.py").lines


@pytest.mark.parametrize(
    ("source", "levels"),
    [
        ("if a:\n    b\nelif c:\n    d\nelse:\n    e", [0, 1, 0, 1, 1]),
        ("if a:\n    b\nelse:\n    if c:\n        d", [0, 1, 1, 2]),
        ("try:\n    a\nexcept E:\n    b\nelse:\n    c\nfinally:\n    d", [0, 1, 1, 1, 1]),
        ("match a:\n    case 1:\n        b", [0, 2]),
        ("class A:\n    def b(self):\n        while c:\n            d", [0, 1, 2, 3]),
    ],
)
def test_levels_are_indentation(source: str, levels: list[int]) -> None:
    """Statements come in order, nested as deep as they are indented: `elif` adds nothing."""
    found = [level for _, level, _ in demo.statements(ast.parse(source))]
    assert levels == found


def tokenized_comments(text: str) -> int:
    """The lines that are all comment, by Python's own tokenizer."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(
        1
        for token in tokens
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    )


@pytest.mark.parametrize("module", [ast, asyncio.base_events, random, stat, tokenize, pytest])
def test_comments_are_what_the_tokenizer_finds(module: Any) -> None:
    """The quick way of finding comments agrees with Python's own, on real code."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert tokenized_comments(text) == demo.count(text, "x.py").comments


PIECES = ["#", '"', "'", '"""', "'''", "\\", "\n", "a", " ", "\\\n", "f'{a}'", "b'#'", '"#"']


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_comments_among_quotes(text: str) -> None:
    """However quotes, escapes and `#` follow each other: valid source has the tokenizer's count."""
    try:
        counts = demo.count(text, "x.py")
        expected = tokenized_comments(text)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return
    assert expected == counts.comments


def test_adding_keeps_the_largest() -> None:
    """Numbers and rankings are summed, of places only so many are kept, the largest first."""
    total = Counts(modules=1, imports={"os": 1}, longest=[Place(7, "seven", "")])
    places = [Place(size, "", "") for size in range(KEPT)]
    total.add(Counts(modules=2, imports={"os": 1, "re": 1}, longest=places, unread=[("x", "y")]))
    assert (3, {"os": 2, "re": 1}) == (total.modules, total.imports)
    assert (KEPT, KEPT - 1, [("x", "y")]) == (
        len(total.longest),
        total.longest[0].size,
        total.unread,
    )


@given(st.lists(st.integers(0, 2 * CHUNK)))
def test_chunks(sizes: list[int]) -> None:
    """Chunks keep every file in order, and exceed their size only for a file that is too large."""
    files = [(str(number), size) for number, size in enumerate(sizes)]
    chunks = demo.chunked(files)
    assert [name for name, _ in files] == [name for chunk in chunks for name in chunk]
    by_name = dict(files)
    for chunk in chunks:
        assert len(chunk) == 1 or sum(by_name[name] for name in chunk) <= CHUNK


def test_sources(tmp_path: Path) -> None:
    """Only regular Python files count; what cannot be read is named with the reason."""
    for name in ("b.py", "a.py", "sub/c.py", ".git/d.py", "site-packages/e.py", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("pass\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.py")).touch()
    with (tmp_path / "huge.py").open("w") as huge:
        huge.truncate(demo.LARGEST + 1)

    files, unread = demo.sources(str(tmp_path))

    assert [("a.py", 5), ("b.py", 5), ("sub/c.py", 5)] == files
    assert ["gone.py", "huge.py", "\ufffd.py"] == [name for name, _ in unread]
    assert "No such file or directory" == unread[0][1]
    with pytest.raises(FileNotFoundError):
        demo.sources(str(tmp_path / "nowhere"))


def test_a_lost_branch_is_reported() -> None:
    """The files of a branch that failed for good are named as unread; the others count."""
    survey = Survey(root="x", chunks=[["a.py"], ["b.py", "c.py"]])
    split = SplitResult(
        successes=(BranchResult(0, "a.py", Counts(modules=1)),),
        errors=(BranchResult(1, "b.py", None, RuntimeError("died")),),
    )
    ctx = cast("Any", SimpleNamespace(data=survey, split=split))
    assert Step.DONE is asyncio.run(demo.add_up(ctx))
    assert 1 == survey.counts.modules
    assert [(name, "RuntimeError('died')") for name in ("b.py", "c.py")] == survey.counts.unread


def test_the_workflow_is_what_its_docstring_draws() -> None:
    """Every state leads where the picture at the head of the file says."""
    graph = demo.workflow().check()
    assert {
        "FIND": {"CHOOSE"},
        "CHOOSE": {"READ", "EMPTY"},
        "READ": {"ADD_UP"},
        "ADD_UP": {"DONE"},
    } == {
        state.name: {edge.target.name for edge in graph.edges if edge.source is state}
        for state in graph.states
        if state not in graph.exits
    }
    drawn = dedent(demo.__doc__ or "")
    assert all(state.name in drawn for state in Step)
