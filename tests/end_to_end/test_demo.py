"""`cano demo`, as a process of its own with workers of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CANO = (sys.executable, "-W", "error", "-m", "cano")

ALPHA = '''\
"""Two functions."""
import os
import sys


def first():
    """Documented."""
    return os


async def second():
    # a comment
    raise ValueError
'''

BETA = """\
import os
class Thing:
    def first(self):
        if self:
            pass
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small directory of source, with one file that is no Python and one that is no text."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "alpha.py").write_text(ALPHA)
    (tmp_path / "pkg" / "beta.py").write_text(BETA)
    (tmp_path / "pkg" / "latin.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    (tmp_path / "broken.py").write_text("x = 1\ndef (:\n")
    (tmp_path / "binary.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "notes.txt").write_text("def not_counted(): ...\n")
    return tmp_path


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CANO, "demo", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_json_is_exact(tree: Path) -> None:
    """Every number is right, files that cannot be read are named, and stdout is one object."""
    ended = demo("--path", str(tree), "--workers", "1", "--json")
    assert (0, "") == (ended.returncode, ended.stderr)
    told = json.loads(ended.stdout)
    assert told.pop("seconds") >= 0
    assert told.pop("work_seconds") >= 0
    assert {
        "root": str(tree),
        "python": ".".join(map(str, sys.version_info[:3])),
        "bytes": sum(path.stat().st_size for path in tree.rglob("*.py")),
        "chunks": 1,
        "modules": 3,
        "lines": 20,
        "code": 12,
        "docstrings": 2,
        "comments": 2,
        "blank": 4,
        "functions": 3,
        "async_functions": 1,
        "classes": 1,
        "documented": 1,
        "imports": [{"name": "os", "number": 2}, {"name": "sys", "number": 1}],
        "raises": [{"name": "ValueError", "number": 1}],
        "names": [{"name": "first", "number": 2}, {"name": "second", "number": 1}],
        "longest": [
            {"size": 3, "what": "second", "where": "alpha.py:11"},
            {"size": 3, "what": "first", "where": "alpha.py:6"},
            {"size": 3, "what": "Thing.first", "where": "pkg/beta.py:3"},
        ],
        "deepest": [
            {"size": 3, "what": "Thing.first", "where": "pkg/beta.py:5"},
            {"size": 1, "what": "first", "where": "alpha.py:7"},
        ],
        "largest": [
            {"size": 13, "what": "", "where": "alpha.py"},
            {"size": 5, "what": "", "where": "pkg/beta.py"},
            {"size": 2, "what": "", "where": "pkg/latin.py"},
        ],
        "unread": [
            {"file": "binary.py", "reason": "invalid or missing encoding declaration"},
            {"file": "broken.py", "reason": "invalid syntax, line 2"},
        ],
    } == told


def test_table_is_plain_when_piped(tree: Path) -> None:
    """Piped, the table is on stdout without colours, and the progress in lines on stderr."""
    ended = demo("--path", str(tree), "--graph", COLUMNS="80")
    assert 0 == ended.returncode
    assert ["reading 5 files", "5 of 5 files read"] == ended.stderr.splitlines()
    assert "\x1b" not in ended.stdout
    lines = [line.strip() for line in ended.stdout.splitlines()]
    assert "demo" == lines[0]
    assert "READ  Split of n, Tolerate  ⟶  ADD_UP (joins)" in lines
    assert str(tree) in lines
    assert "3 modules · 20 lines · 3 functions · 1 class" in lines
    assert "2 files could not be read" in lines
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())


def test_terminal_has_a_progress_bar(tree: Path) -> None:
    """On a terminal, stderr has a bar, which is gone at the end; stdout stays the table."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CANO, "demo", "--path", str(tree)],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    ) as running:  # fmt: skip
        os.close(theirs)
        assert running.stdout is not None
        out = running.stdout.read().decode()
        told = b""
        try:
            while part := os.read(ours, 65536):
                told += part
        except OSError:  # Linux says so when the other end is closed
            os.close(ours)
    assert 0 == running.returncode
    assert "3 modules" in out
    assert "━" in told.decode()
    assert "reading" not in told.decode()


@pytest.mark.parametrize("name", ["", "notes"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    """A directory without Python source is said to be one; the exit code is 3."""
    if name:
        (tmp_path / name).touch()
    ended = demo("--path", str(tmp_path), "--json")
    assert (3, "") == (ended.returncode, ended.stdout)
    assert [f"cano: there is no Python source below {tmp_path}"] == ended.stderr.splitlines()


def children(process: int) -> list[int]:
    """The processes that a process has started, as far as they live."""
    tasks = Path(f"/proc/{process}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["ctrl-c", "sigterm"],
)
def test_interrupted(number: int, code: int, said: str) -> None:
    """Ctrl-C ends the demo at once, with one calm line, and takes every worker along."""
    with subprocess.Popen(
        [*CANO, "demo", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stderr.readline().startswith("reading ")
        workers: list[int] = []
        until = time.perf_counter() + 20
        while len(workers) < 2 and time.perf_counter() < until:
            workers = children(running.pid)
            time.sleep(0.02)
        os.killpg(running.pid, number)
        began = time.perf_counter()
        out, err = running.communicate(timeout=30)
        took = time.perf_counter() - began
    assert (code, "") == (running.returncode, out)
    assert f"cano: {said}; the workers are gone" == err.splitlines()[-1]
    assert [] == [line for line in err.splitlines()[:-1] if not line.endswith("files read")]
    assert 2 == len(workers)
    assert [] == [worker for worker in workers if lives(worker)]
    assert took < 5
