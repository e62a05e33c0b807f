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
import stat
import sysconfig
import time
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from heapq import nlargest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cano import CheckpointStore, Context, Observer, Retry, RouterTask, Split, Timeout, Workflow
from cano.errors import WorkerCrashedError
from cano.executors import process, thread
from cano.join import Tolerate

CHUNK = 512 * 1024
"""Bytes of source per branch: a tenth of a second's work, so that sending it away pays."""
LARGEST = 16 * 1024 * 1024
"""Larger files are left unread: parsed, they take some fifty times their size in memory."""
KEPT = 100
"""How many of the longest functions, largest modules, ... are kept."""
RANKINGS = ("imports", "raises", "names")
PLACES = ("longest", "deepest", "largest")
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
        for name in vars(self):
            mine: Any = getattr(self, name)
            theirs: Any = getattr(other, name)
            if name in RANKINGS:
                for key, number in theirs.items():
                    mine[key] = mine.get(key, 0) + number
            else:
                together = mine + theirs
                setattr(self, name, nlargest(KEPT, together) if name in PLACES else together)


@dataclass
class Survey:
    """What a run carries. Every run has its own, and every task of the run sees the same."""

    root: str = field(default_factory=lambda: sysconfig.get_path("stdlib"))
    chunks: list[list[str]] = field(default_factory=list[list[str]])
    bytes: int = 0
    counts: Counts = field(default_factory=Counts)


def find(ctx: Context[Survey]) -> Literal[Step.CHOOSE]:
    """Look for source files. It waits for a disk, and so is registered as `thread(find)`."""
    survey = ctx.data
    files, survey.counts.unread = sources(survey.root)
    survey.bytes = sum(size for _, size in files)
    survey.chunks = chunked(files)
    return Step.CHOOSE


class Choose(RouterTask[Step]):
    """A router decides where to go, and does nothing else."""

    async def route(self, ctx: Context[Survey]) -> Literal[Step.READ, Step.EMPTY]:
        """There may be nothing to read."""
        return Step.READ if ctx.data.chunks else Step.EMPTY


def read(ctx: Context[Survey], files: list[str]) -> Counts:
    """Count what is in some of the files: a branch of the split in READ.

    It needs a core of its own, and so is passed as `process(read)`. A file that cannot be parsed
    is a finding, not a failure.
    """
    began = time.process_time()
    counts = Counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes are not our concern
        for name in files:
            try:
                with tokenize.open(Path(ctx.data.root, name)) as file:  # in the encoding it states
                    counts.add(count(file.read(), name))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
                counts.unread.append((name, reason(error)))
    counts.seconds = time.process_time() - began
    return counts


async def add_up(ctx: Context[Survey]) -> Literal[Step.DONE]:
    """Put together what the branches found; what was lost with one is said, too."""
    assert ctx.split is not None  # noqa: S101 -- this state follows a split
    counts = ctx.data.counts
    for part in ctx.split.values:
        counts.add(part)
    for lost in ctx.split.errors:
        counts.unread += [(name, repr(lost.error)) for name in ctx.data.chunks[lost.index]]
    return Step.DONE


def workflow(
    workers: int | None = None,
    *,
    observers: Sequence[Observer] = (),
    checkpoints: CheckpointStore | None = None,
) -> Workflow[Step, Survey]:
    """Everything above, put together; `cano graph cano.demo:workflow` draws it.

    A branch whose process dies or hangs is tried again. If that does not help, the survey does
    without it, as long as at least half of the others succeed. With *checkpoints* a survey whose
    own process dies can be resumed, and the branches that were finished are not read again.
    """
    workers = workers or os.cpu_count() or 2
    split = Split.over(
        lambda survey: survey.chunks,
        run=process(read, limit=workers),
        name=lambda files: files[0],
        bulkhead=workers,
        join=Tolerate(share=0.5),
        then=Step.ADD_UP,
    )
    again = Retry(attempts=3, on=(WorkerCrashedError, TimeoutError))
    return (
        Workflow(
            Step,
            data=Survey,
            start=Step.FIND,
            name="demo",
            strict=True,
            observers=observers,
            checkpoints=checkpoints,
        )
        .register(Step.FIND, thread(find))
        .register(Step.CHOOSE, Choose())
        .register(Step.READ, split, again, Timeout(60))
        .register(Step.ADD_UP, add_up)
        .exits(Step.DONE, Step.EMPTY)
    )


def count(text: str, name: str) -> Counts:
    """Count what is in the source *text* of one module. Raises `SyntaxError` and its like."""
    tree = ast.parse(text)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()  # the newline at the end of a file does not begin another line
    counts = Counts(modules=1, lines=len(lines), largest=[Place(len(lines), "", name)])
    counts.comments = sum(1 for found in TOKEN.finditer(text) if found["alone"] is not None)
    counts.blank = sum(1 for line in lines if not line or line.isspace())
    _count_docstring(tree, lines, counts)
    deepest = Place(0, "", name)
    for node, level, scope in statements(tree):
        place = f"{name}:{node.lineno}"
        if level > deepest.size:
            deepest = Place(level, scope.rstrip("."), place)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                counts.longest.append(Place(length, scope + node.name, place))
                counts.functions += 1
                counts.async_functions += isinstance(node, ast.AsyncFunctionDef)
                _count(counts.names, node.name)
                _count_docstring(node, lines, counts)
            case ast.ClassDef():
                counts.classes += 1
                _count_docstring(node, lines, counts)
            case ast.Import():
                for alias in node.names:
                    counts.imports[alias.name.partition(".")[0]] = 1
            case ast.ImportFrom(module=str(module), level=0) if module != "__future__":
                counts.imports[module.partition(".")[0]] = 1
            case ast.Raise(exc=ast.Name(kind) | ast.Call(func=ast.Name(kind))) if kind[0].isupper():
                _count(counts.raises, kind)
            case _:
                pass
    counts.deepest = [deepest]
    return counts


def _count(counter: dict[str, int], key: str) -> None:
    counter[key] = counter.get(key, 0) + 1


def _count_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
    lines: list[str],
    counts: Counts,
) -> None:
    """Its lines are docstring, the empty ones, too."""
    match node.body[:1]:
        case [ast.Expr(value=ast.Constant(value=str()) as text)]:
            written = lines[text.lineno - 1 : text.end_lineno]
            counts.documented += not isinstance(node, ast.Module)
            counts.docstrings += len(written)
            counts.blank -= sum(1 for line in written if not line or line.isspace())
        case _:
            pass


def statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, int, str]]:
    """Every statement, as written, how far it is indented, and the `Class.function.` it is in."""
    waiting: list[tuple[ast.AST, int, str]] = [(node, 0, "") for node in reversed(tree.body)]
    while waiting:
        node, level, scope = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node, level, scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope += f"{node.name}."
        for block in ("finalbody", "orelse", "handlers", "cases", "body"):
            inside = reversed(getattr(node, block, ()))
            inner = level + (block != "handlers" and not _elif(node, block))
            waiting += [(statement, inner, scope) for statement in inside]


def _elif(node: ast.AST, block: str) -> bool:
    """Whether a block is written `elif`: an `if` alone in an `else`, but not indented."""
    match node:
        case ast.If(orelse=[ast.If() as other]) if block == "orelse":
            return other.col_offset == node.col_offset
        case _:
            return False


TOKEN = re.compile(
    r"""
    ^[ \t\f]*(?P<alone>\#[^\n]*)          # a line that is all comment
    | \#[^\n]*
    | \"{3} (?: [^"\\]++ | \\. | "(?!"") )*+ \"{3}
    | '{3} (?: [^'\\]++ | \\. | '(?!'') )*+ '{3}
    | " (?: [^"\\\n]++ | \\. )*+ "
    | ' (?: [^'\\\n]++ | \\. )*+ '
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""Comments and strings: a `#` in a string is no comment, and a quote in a comment no string."""


def reason(error: BaseException) -> str:
    """Why a file could not be read, in a line."""
    match error:
        case SyntaxError(msg=str(message), lineno=line):
            what = re.sub(r" for '.*'", "", message)  # which file it is, is said elsewhere
            return f"{what}, line {line}" if line else what
        case OSError(strerror=str(message)):
            return message
        case _:
            return f"{type(error).__name__}: {error}"


def sources(root: str) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """The source files below *root* with their sizes; and what cannot be read, with the reasons.

    Raises `OSError` if *root* itself cannot be read.
    """
    os.scandir(root).close()  # os.walk would be silent about it
    files: list[tuple[str, int]] = []
    unread: list[tuple[str, str]] = []

    def closed(error: OSError) -> None:
        unread.append((shown(os.path.relpath(error.filename, root)), reason(error)))

    for folder, folders, names in os.walk(root, onerror=closed):
        folders[:] = sorted(d for d in folders if d not in SKIPPED and not d.startswith("."))
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".py")):
            name = path.relative_to(root).as_posix()
            try:
                name.encode()
                status = path.stat()
            except (OSError, UnicodeEncodeError) as error:
                unread.append((shown(name), reason(error)))
                continue
            if status.st_size > LARGEST:
                unread.append((name, f"larger than {LARGEST:,} bytes"))
            elif stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
                files.append((name, status.st_size))
    return files, unread


def shown(name: str) -> str:
    """A file's name as text, even if it is none: to Linux, names are just bytes."""
    return os.fsencode(name).decode(errors="replace")


def chunked(files: Iterable[tuple[str, int]]) -> list[list[str]]:
    """The names of *files*, in portions of about `CHUNK` bytes."""
    chunks: list[list[str]] = []
    room = 0
    for name, size in files:
        if not chunks or size > room:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(name)
        room -= size
    return chunks
