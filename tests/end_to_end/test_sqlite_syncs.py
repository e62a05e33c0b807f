"""When SqliteCheckpoints waits for the disk: counted from outside, with strace."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import asyncio, os, sys
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner
from cano.events import RunStarted, StateEntered

path, level = sys.argv[1:3]

def mark(text):
    os.write(2, f"mark {text}".encode())

async def main():
    async with SqliteCheckpoints(path, synchronous=level) as store:
        for n in range(100):
            await store.create(NewRun(str(n), "flow", "me", 1.0), [RunStarted(sequence=1)])
        for n in range(2, 12):
            mark("before")
            await store.append("0", 1, [StateEntered(sequence=n)])
            mark("after")
        mark("together")
        for n in range(2, 12):
            await asyncio.gather(
                *(store.append(str(r), 1, [StateEntered(sequence=n)]) for r in range(1, 100))
            )
        mark("end")

asyncio.run(main())
"""


def calls(path: Path, level: str) -> list[str]:
    """The marks and the syncs of a child process, in order of their end."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    out = path.with_suffix(".strace")
    traced = "trace=write,fsync,fdatasync"
    command = [strace, "-f", "-e", traced, "-o", str(out), sys.executable, "-c", CHILD]
    done = subprocess.run(
        [*command, str(path), level], capture_output=True, text=True, timeout=50, check=False
    )
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip(f"strace may not look at processes here: {done.stderr.strip()[:200]}")
    assert 0 == done.returncode, done.stderr
    found: list[str] = []
    for line in out.read_text().splitlines():
        if mark := re.search(r'write\(2, "mark (\w+)"', line):
            found.append(mark[1])
        elif re.search(r"(fsync|fdatasync)\b.*= 0$", line):
            found.append("sync")
    return found


def between(found: list[str], first: str, last: str) -> int:
    """How many syncs ended between two marks, the first of their kind."""
    start = found.index(first)
    return found[start : found.index(last, start)].count("sync")


def test_full_waits_for_the_disk(tmp_path: Path) -> None:
    """At level full every append returns after a sync, and appends made together share it."""
    found = calls(tmp_path / "x.db", "full")

    alone = " ".join(found[found.index("before") : found.index("together")])
    assert 10 == len(re.findall(r"before (sync )+after", alone))
    together = between(found, "together", "end")
    assert 10 <= together <= 60, f"990 appends of 10 rounds took {together} syncs"


def test_normal_does_not(tmp_path: Path) -> None:
    """At level normal appends wait for no sync; there are a few when the log is folded in."""
    found = calls(tmp_path / "x.db", "normal")

    assert 9 >= between(found, "before", "end")
    assert 0 == between(found, "before", "after")
