"""A whole program in one file, and the first example to read: what is in a tree of Python source?

    FIND ──▶ CHOOSE ──▶ READ ══▶ ADD_UP ──▶ DONE
                └─────▶ EMPTY

`Step` names the states; `Survey` is what a run carries from one to the next. Then come the tasks,
one per state, whose return annotations are the edges above, and `workflow`, which puts them
together. Everything below that is the work itself: ordinary functions that know nothing of Cano.

Without a directory it reads the standard library of the Python it runs on, tests included.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import time
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum, auto
from heapq import nlargest
from pathlib import Path
from typing import Literal, NamedTuple

from cano import Context, Retry, RouterTask, Split, Timeout, Workflow
from cano.errors import WorkerCrashedError
from cano.executors import process, thread
from cano.join import Tolerate

CHUNK = 512 * 1024
"""Bytes of source per branch: a tenth of a second's work, so that sending it away pays."""
LARGEST = 16 * 1024 * 1024
"""Larger files are left unread: parsed, they take some fifty times their size in memory."""
KEPT = 100
"""How many of the longest functions, largest modules, ... are kept."""
SKIPPED = {"site-packages", "dist-packages", "node_modules", "__pycache__"}


class Step(StrEnum):
    """Where a run can be."""

    FIND = auto()
    CHOOSE = auto()
    READ = auto()
    ADD_UP = auto()
    DONE = auto()
    EMPTY = auto()


class Place(NamedTuple):
    """Something worth pointing at: how much of it, of what, and where."""

    size: int
    what: str
    where: str


@dataclass
class Counts:
    """What is in some source files."""

    modules: int = 0
    lines: int = 0
    blank: int = 0
    comments: int = 0
    docstrings: int = 0
    functions: int = 0
    async_functions: int = 0
    classes: int = 0
    documented: int = 0
    """How many functions and classes have a docstring."""
    imports: dict[str, int] = field(default_factory=dict[str, int])
    """In how many modules each other module is imported."""
    raises: dict[str, int] = field(default_factory=dict[str, int])
    names: dict[str, int] = field(default_factory=dict[str, int])
    """How many functions go by each name."""
    longest: list[Place] = field(default_factory=list[Place])
    deepest: list[Place] = field(default_factory=list[Place])
    largest: list[Place] = field(default_factory=list[Place])
    unread: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The files that could not be read, and why."""
    seconds: float = 0.0
    """What the counting took, added up over all processes."""

    @property
    def code(self) -> int:
        """The lines that are neither blank, nor nothing but comment, nor docstring."""
        return self.lines - self.blank - self.comments - self.docstrings

    def add(self, other: Counts) -> None:
        """Take in what was counted elsewhere."""
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(mine, dict):
                for key, number in theirs.items():
                    mine[key] = mine.get(key, 0) + number
            else:
                setattr(self, name, mine + theirs)
        for places in (self.longest, self.deepest, self.largest):
            places[:] = nlargest(KEPT, places)


class Chunk(NamedTuple):
    """Some of the files below *root*: what one branch reads."""

    root: str
    files: list[str]


@dataclass
class Survey:
    """What a run carries. Every run has its own, and every task of the run sees the same."""

    root: str = field(default_factory=lambda: sysconfig.get_path("stdlib"))
    chunks: list[list[str]] = field(default_factory=list[list[str]])
    bytes: int = 0
    counts: Counts = field(default_factory=Counts)


# The tasks.


async def find(ctx: Context[Survey]) -> Literal[Step.CHOOSE]:
    """Look for source files, in a thread, because disks block."""
    survey = ctx.data
    survey.chunks, survey.bytes, survey.counts.unread = await list_files(ctx, survey.root)
    return Step.CHOOSE


class Choose(RouterTask[Step]):
    """A router decides where to go and does nothing else."""

    async def route(self, ctx: Context[Survey]) -> Literal[Step.READ, Step.EMPTY]:
        """There may be nothing to read."""
        return Step.READ if ctx.data.chunks else Step.EMPTY


def read(workers: int) -> Split[Step]:
    """One branch per chunk, each in another process, *workers* at a time.

    A file that cannot be parsed is a finding, not a failure. What can fail is a whole branch, when
    its process dies or hangs: it is tried again, and if that does not help, the survey goes on
    without it, as long as most of the others succeed.
    """
    return Split.over(
        lambda survey: [Chunk(survey.root, files) for files in survey.chunks],
        run=process(count_chunk),
        name=lambda chunk: chunk.files[0],
        bulkhead=workers,
        join=Tolerate(share=0.5),
        then=Step.ADD_UP,
    )


async def add_up(ctx: Context[Survey]) -> Literal[Step.DONE]:
    """Put together what the branches found; what they lost is said, too."""
    assert ctx.split is not None  # this state comes after a split
    counts = ctx.data.counts
    for part in ctx.split.values:
        counts.add(part)
    for lost in ctx.split.errors:
        counts.unread += [(name, repr(lost.error)) for name in ctx.data.chunks[lost.index]]
    return Step.DONE


def workflow(workers: int | None = None) -> Workflow[Step, Survey]:
    """Everything above, put together. It is checked before it runs: try `cano graph cano.demo:workflow`."""
    again = Retry(attempts=3, on=(WorkerCrashedError, TimeoutError))
    return (
        Workflow(Step, data=Survey, start=Step.FIND, name="demo", strict=True)
        .register(Step.FIND, find)
        .register(Step.CHOOSE, Choose())
        .register(Step.READ, read(workers or os.cpu_count() or 2), again, Timeout(60))
        .register(Step.ADD_UP, add_up)
        .exits(Step.DONE, Step.EMPTY)
    )


# The work.


def count_chunk(chunk: Chunk) -> Counts:
    """Count what is in the files of *chunk*. Runs in another process."""
    began = time.process_time()
    counts = Counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes are not our concern
        for name in chunk.files:
            try:
                with tokenize.open(Path(chunk.root, name)) as file:  # heeds the coding cookie
                    counts.add(count_source(file.read(), name))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
                counts.unread.append((name, reason(error)))
    counts.seconds = time.process_time() - began
    return counts


def count_source(text: str, name: str) -> Counts:
    """Count what is in the source *text* of one module. Raises `SyntaxError` and its like."""
    tree = ast.parse(text)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()  # a file that ends with a newline does not begin another line
    counts = Counts(modules=1, lines=len(lines), largest=[Place(len(lines), "", name)])
    counts.comments = sum(1 for found in COMMENTS.finditer(text) if found["alone"])
    counts.blank = sum(1 for line in lines if not line or line.isspace())
    imported = set[str]()
    deepest = Place(0, "", name)
    _count_docstring(tree, lines, counts)
    for node, level, scope in statements(tree):
        if level > deepest.size:
            deepest = Place(level, scope.rstrip("."), f"{name}:{node.lineno}")
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                counts.functions += 1
                counts.async_functions += isinstance(node, ast.AsyncFunctionDef)
                counts.names[node.name] = counts.names.get(node.name, 0) + 1
                length = node.end_lineno - node.lineno + 1
                counts.longest.append(Place(length, f"{scope}{node.name}", f"{name}:{node.lineno}"))
                _count_docstring(node, lines, counts)
            case ast.ClassDef():
                counts.classes += 1
                _count_docstring(node, lines, counts)
            case ast.Import():
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                imported.add(module.partition(".")[0])
            case _:
                pass
    counts.imports = dict.fromkeys(imported, 1)
    counts.deepest = [deepest]
    return counts
