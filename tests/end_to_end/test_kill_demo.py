"""`cano demo --crash`: real processes, one of which is killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

CANO = (sys.executable, "-W", "error", "-m", "cano")
MODULES = 12

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Source in a dozen chunks: files as large as a chunk is."""
    folder = tmp_path / "source"
    folder.mkdir()
    line = "# " + "x" * 97 + "\n"
    for number in range(MODULES):
        text = f"import os\n\n\ndef only_{number}(): ...\n" + line * 5500
        (folder / f"m{number:02}.py").write_text(text)
    return folder


@pytest.fixture
def room(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary files are in a folder of its own."""
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "COLUMNS": "80"}


def demo(room: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CANO, "demo", *arguments],
        env=room, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def told(room: dict[str, str], *arguments: str) -> dict[str, Any]:
    ended = demo(room, *arguments, "--json")
    assert (0, "") == (ended.returncode, ended.stderr)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_result_is_the_same(tree: Path, room: dict[str, str]) -> None:
    """A crash in the middle changes nothing of the result; what was finished is not read again."""
    crashed = told(room, "--crash", "--path", str(tree), "--workers", "2")
    crash = crashed.pop("crash")
    plain = told(room, "--path", str(tree), "--workers", "2")
    for name in ("seconds", "work_seconds"):
        assert crashed.pop(name) > 0
        plain.pop(name)
    assert plain == crashed
    assert MODULES == crashed["chunks"]
    killed, resumed = crash.pop("killed"), crash.pop("resumed")
    assert killed != resumed
    assert MODULES // 3 <= crash["finished_before"] < MODULES
    assert {
        "finished_before": crash["finished_before"],
        "read_after": MODULES - crash["finished_before"],
        "read_twice": 0,
    } == crash
    assert [] == list(Path(room["TMPDIR"]).iterdir())


def test_the_story_is_told(tree: Path, room: dict[str, str]) -> None:
    """Piped, stderr says who was killed and who went on, and stdout ends with what it came to."""
    ended = demo(room, "--crash", "--path", str(tree), "--workers", "1")
    assert 0 == ended.returncode
    said = ended.stderr.splitlines()
    killed = next(number for number, line in enumerate(said) if "was killed" in line)
    assert f"reading {MODULES} files" == said[0]
    assert said[killed].endswith(
        f"was killed: 4 of {MODULES} chunks finished, and saved in demo.db"
    )
    assert said[killed + 1].endswith("resumes the run")
    assert f"{MODULES} of {MODULES} files read" == said[-1]
    lines = [line.strip() for line in ended.stdout.splitlines()]
    told = " ".join(line for line in lines[-4:] if line)
    assert told.endswith(
        f"; 4 of {MODULES} chunks were finished before the crash, and not read again"
    )
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())


def test_a_terminal_has_one_bar(tree: Path, room: dict[str, str]) -> None:
    """On a terminal the bar goes on where it was when the process died."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CANO, "demo", "--crash", "--path", str(tree)],
        stdout=subprocess.PIPE, stderr=theirs, env={**room, "TERM": "xterm"},
    ) as running:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # Linux says so when the other end is closed
            os.close(ours)
        assert running.stdout is not None
        out = running.stdout.read().decode()
    assert 0 == running.returncode
    assert f"{MODULES} modules" in out
    text = said.decode()
    assert "was killed" in text
    assert "━" in text
    assert f"{MODULES}/{MODULES}" in text
    assert f" 0/{MODULES}" not in text[text.index("was killed") :]


def test_a_single_chunk(tmp_path: Path, room: dict[str, str]) -> None:
    """Even a survey of one chunk survives, killed between reading and adding up."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.py").write_text("def only(): ...\n")
    found = told(room, "--crash", "--path", str(tmp_path / "source"))
    assert (1, 1, 0) == (
        found["functions"],
        found["crash"]["finished_before"],
        found["crash"]["read_after"],
    )


def test_nothing_to_read(tmp_path: Path, room: dict[str, str]) -> None:
    """Without source there is nothing to kill; the exit code is 3."""
    (tmp_path / "source").mkdir()
    ended = demo(room, "--crash", "--path", str(tmp_path / "source"))
    assert (3, "") == (ended.returncode, ended.stdout)
    assert f"cano: there is no Python source below {tmp_path / 'source'}\n" == ended.stderr


def below(process: int) -> list[int]:
    """The living processes that a process has started, and those that these have."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        found = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return found + [pid for child in found for pid in below(child)]


def lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("when", ["reading ", "process "], ids=["before", "after"])
def test_interrupted(number: int, when: str, tmp_path: Path, room: dict[str, str]) -> None:
    """Stopped before the crash or after it, everything ends at once, and nothing is left behind."""
    (tmp_path / "source").mkdir()
    for name in range(6):  # takes a good while to read
        text = "def f(a, b):\n    return [a + b for c in a if c]\n" * 12_000
        (tmp_path / "source" / f"m{name}.py").write_text(text)
    code, said = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}[number]
    with subprocess.Popen(
        [*CANO, "demo", "--crash", "--workers", "2", "--path", str(tmp_path / "source")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=room, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        while not running.stderr.readline().startswith(when):
            pass
        until = time.perf_counter() + 20
        while len(there := below(running.pid)) < 3 and time.perf_counter() < until:
            time.sleep(0.02)
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=30)
    assert (code, "") == (running.returncode, out)
    assert f"cano: {said}; the workers are gone" == err.splitlines()[-1]
    assert len(there) >= 3
    until = time.perf_counter() + 5
    while any(map(lives, there)) and time.perf_counter() < until:
        time.sleep(0.02)
    assert [] == [pid for pid in there if lives(pid)]
    assert [] == list(Path(room["TMPDIR"]).iterdir())
