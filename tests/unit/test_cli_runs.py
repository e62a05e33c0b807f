"""`cano runs`: which runs are listed, and how a store and a run in it are named."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from cano._process import here, started
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, Status
from cano.cli import main
from cano.cli.store import open_store
from cano.events import RunFinished, RunStarted, StateEntered

NOW = datetime.now(UTC).timestamp()
HOUR = 3600.0
Cano = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CANO_STORE", raising=False)


@pytest.fixture
def cano(capsys: pytest.CaptureFixture[str]) -> Cano:
    """Carry out a command line; the exit code, and what it said on stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store: one run of yesterday, two finished ones, one under way, one waiting, one lost."""
    path = tmp_path / "runs.db"

    async def fill() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(Owner("web-1:7:0"), NOW, NOW + HOUR)
        await store.renew(Owner("web-2:8:0"), NOW - 2 * HOUR, NOW - HOUR)
        await begin(store, "old", NOW - 24 * HOUR, workflow="billing")
        await end(store, "old", NOW - 23 * HOUR)
        for number in (1, 2):
            await begin(store, f"order-{number}", NOW - HOUR + number, tags=("eu",) * (number - 1))
            await end(store, f"order-{number}", NOW - HOUR + 5)
        await begin(store, "order-lost", NOW - 60, owner="web-2:8:0")
        await begin(store, "order-asks", NOW - 50)
        await store.release("order-asks", 1, Status.WAITING, NOW + HOUR)
        await begin(store, "order-busy", NOW - 40)
        await store.close()

    asyncio.run(fill())
    return path


async def begin(
    store: Any, run_id: str, time: float, owner: str = "web-1:7:0", **given: Any
) -> None:
    run = NewRun(run_id, given.pop("workflow", "orders"), owner, time, **given)
    event = {"run_id": run_id, "workflow": run.workflow, "time": time, "state": "PAY"}
    await store.create(run, [RunStarted(sequence=1, **event), StateEntered(sequence=2, **event)])


async def end(store: Any, run_id: str, time: float) -> None:
    event = RunFinished(run_id=run_id, sequence=3, time=time, state="DONE")
    await store.append(run_id, 1, [event], Status.FINISHED)


def names(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()[1:]]


ALL = ["order-busy", "order-asks", "order-lost", "order-2", "order-1", "old"]


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ("", ALL),
        ("list", ALL),
        ("--workflow billing", ["old"]),
        ("-w none", []),
        ("--status finished", ["order-2", "order-1", "old"]),
        ("-s waiting -s running", ["order-busy", "order-asks", "order-lost"]),
        ("--status open", ["order-busy", "order-asks", "order-lost"]),
        ("--tag eu", ["order-2"]),
        ("--since 2h", ALL[:-1]),
        ("--before 2h", ["old"]),
        ("--since 2h --before 30min", ["order-2", "order-1"]),
        ("--since 1971-01-01 --before 1972-01-01", []),
        ("--stuck", []),
        ("-n 2", ALL[:2]),
        ("--limit 2 --after order-asks", ["order-lost", "order-2"]),
        ("--after order-as", ["order-lost", "order-2", "order-1", "old"]),
        ("--after old", []),
    ],
)
def test_which_runs_are_listed(cano: Cano, path: Path, options: str, listed: list[str]) -> None:
    """The newest first; each option leaves runs out, several of them even more."""
    code, out, err = cano("runs", *options.split(), "--store", path)
    assert (0, listed) == (code, names(out))
    assert bool(listed) or "there are no such runs" in err


def test_what_the_table_tells(cano: Cano, path: Path) -> None:
    """Of each run its workflow, condition, state and owner; a lost one is not called running."""
    rows = {line.split()[0]: line for line in cano("runs", "--store", path)[1].splitlines()}
    assert ["billing", "finished", "DONE"] == rows["old"].split()[1:4]
    assert "1 h" in rows["old"]
    assert " running " in rows["order-busy"]
    assert " waiting " in rows["order-asks"]
    assert " abandoned " in rows["order-lost"]
    assert rows["order-lost"].endswith("web-2:8:0")


def test_pages(cano: Cano, path: Path) -> None:
    """A page that is not the last ends with the command for the next one; the last says nothing."""
    given = ("runs", "--status", "open", "--store", path, "--limit", "1")
    said = cano(*given)[2]
    assert f"more: cano {' '.join(map(str, given))} --after order-busy\n" == said
    said = cano(*given, "--after", "order-busy")[2]
    assert f"more: cano {' '.join(map(str, given))} --after order-asks\n" == said
    assert "" == cano(*given, "--after=order-asks")[2]
    assert "" == cano("runs", "--store", path, "-n", len(ALL))[2]


def test_json(cano: Cano, path: Path) -> None:
    """For programs: every field of every run, what it comes to, and where the next page begins."""
    code, out, err = cano("runs", "--store", path, "--limit", 3, "--json")
    told = json.loads(out)
    busy, asks, lost = told["runs"]
    assert (0, "", "order-lost") == (code, err, told["next"])
    assert ("running", "running", 2) == (busy["status"], busy["condition"], busy["sequence"])
    assert ("running", "abandoned") == (lost["status"], lost["condition"])
    assert (None, NOW + HOUR) == (busy["wake"], pytest.approx(asks["wake"]))
    ended = json.loads(cano("runs", "--store", path, "--status", "finished", "--json")[1])
    assert None is ended["next"]
    assert {"owner", "lease"}.isdisjoint(ended["runs"][0])


def test_an_empty_store(cano: Cano, tmp_path: Path) -> None:
    """Nothing to list is said, and is no failure; programs get an empty list."""

    async def make() -> None:
        store = SqliteCheckpoints(tmp_path / "new.db")
        await store.renew(Owner("web"), NOW, NOW + 1)
        await store.close()

    asyncio.run(make())
    assert (0, "", "there are no runs yet\n") == cano("runs", "--store", tmp_path / "new.db")
    empty = '{"runs":[],"next":null}\n'
    assert (0, empty, "") == cano("runs", "--json", "--store", tmp_path / "new.db")


def test_the_store_may_come_from_the_environment(
    cano: Cano, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CANO_STORE stands for --store, as a path or as an address."""
    for named in (str(path), f"sqlite:///{path}"):
        monkeypatch.setenv("CANO_STORE", named)
        assert ALL == names(cano("runs")[1])
    monkeypatch.chdir(path.parent)
    assert ALL == names(cano("runs", "--store", "sqlite:///runs.db")[1])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs"], 2, "CANO_STORE"),
        (["runs", "--store", "memory:"], 2, "dies with its process"),
        (["runs", "--store", "sqlite:///:memory:"], 2, "dies with its process"),
        (["runs", "--store", "postgres://db/x"], 2, "no such kind of store; write sqlite:///"),
        (["runs", "--store", "ab:c.db"], 3, "there is no module 'ab'"),
        (["runs", "--store", "sqlite:runs.db"], 2, "write sqlite:///PATH"),
        (["runs", "--store", "run.db"], 3, "did you mean runs.db?"),
        (["runs", "--store", "elsewhere/runs.db"], 3, "there is no store elsewhere/runs.db"),
        (["runs", "--store", "."], 3, "is a directory"),
        (["runs", "--store", "runs.db", "--since", "2x"], 2, "'2x' is no moment"),
        (["runs", "--store", "runs.db", "--status", "stuk"], 2, "in-doubt"),
        (["runs", "--store", "runs.db", "--limit", "0"], 2, "--limit"),
        (["runs", "--store", "runs.db", "--after", "x"], 3, "there is no run 'x'"),
        (["runs", "--store", "runs.db", "show", "old"], 2, "its options go behind it"),
        (["runs", "shwo", "old"], 2, "did you mean show?"),
        (["runs", "old"], 2, "to look at a run: cano runs show RUN"),
        (["runs", "show", "--store", "runs.db", ""], 2, "RUN is empty"),
        (["runs", "show", "--store", "runs.db", "order-"], 2, "5 runs begin with 'order-'"),
        (["runs", "show", "--store", "runs.db", "ordr-busy"], 3, "did you mean order-busy?"),
        (["runs", "show", "--store", "runs.db", "x"], 3, "cano runs lists those there are"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    cano: Cano, path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    """What cannot be done is said on stderr with the remedy, and makes no file."""
    monkeypatch.chdir(path.parent)
    ended, out, err = cano(*arguments)
    assert (code, "") == (ended, out)
    assert said in " ".join(err.split())
    assert not list(path.parent.glob("*run.db"))
    assert not (path.parent / "elsewhere").exists()


def test_a_run_may_be_named_by_how_it_begins(cano: Cano, path: Path) -> None:
    """A beginning that only one run has is enough; a whole name counts before a beginning."""
    asyncio.run(begin(SqliteCheckpoints(path), "order-busybody", NOW))
    shown = {given: cano("runs", "show", given, "--store", path)[1].split()[0]
             for given in ("ol", "order-l", "order-busy", "order-busyb")}  # fmt: skip
    expected = ["old", "order-lost", "order-busy", "order-busybody"]
    assert expected == list(shown.values())


def test_a_process_that_died_here_is_known_at_once(cano: Cano, path: Path) -> None:
    """A run whose owner was a process of this machine is abandoned when that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner("here:1", here(), process.pid, started(process.pid))

    async def hold() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(owner, NOW, NOW + HOUR)
        await begin(store, "order-here", NOW, owner=owner.id)
        await store.close()

    asyncio.run(hold())
    assert "order-here  orders    running " in cano("runs", "--store", path)[1]
    process.communicate(b"\n")
    assert "order-here  orders    abandoned " in cano("runs", "--store", path)[1]
    assert "its process died" in cano("runs", "show", "order-here", "--store", path)[1]
    told = json.loads(cano("runs", "--store", path, "-n", 1, "--json")[1])["runs"][0]
    assert ("abandoned", 0) == (told["condition"], told["lease"])
    said = cano("runs", "cancel", "order-here", "--store", path)[2]
    assert "nobody holds it" in said


def test_what_is_no_store(cano: Cano, tmp_path: Path) -> None:
    """A file that is something else is refused, and left as it is."""
    (tmp_path / "notes.txt").write_text("dear diary" * 100)
    code, out, err = cano("runs", "--store", tmp_path / "notes.txt")
    assert (1, "") == (code, out)
    assert "notes.txt" in err
    assert "dear diary" * 100 == (tmp_path / "notes.txt").read_text()


def test_a_path_may_look_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is meant, whatever its name."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(begin(SqliteCheckpoints(Path("ab:c.db")), "a", NOW, owner="w"))
    assert "a" == asyncio.run(open_store("ab:c.db").summary("a")).run_id


def test_help(cano: Cano) -> None:
    """Every command is listed with what it does."""
    code, out, _ = cano("runs", "--help")
    assert 0 == code
    for command in ["show", "cancel", "signal", "resolve", "resume", "retry", "fork", "prune"]:
        assert f"\n  {command} " in out
        assert "--json" in cano("runs", command, "--help")[1]


def test_on_a_terminal(path: Path) -> None:
    """Conditions are coloured, and the table keeps to the width of the terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "CANO_STORE": str(path)}
    del environment["NO_COLOR"]
    command = [sys.executable, "-m", "cano", "runs"]
    ended = subprocess.run(command, stdout=theirs, env=environment, timeout=50, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert 0 == ended.returncode
    assert "\x1b[33mabandoned\x1b[0m" in shown
    assert 60 >= max(len(click.unstyle(line)) for line in shown.splitlines())
