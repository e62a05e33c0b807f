"""`cano db check`: whether a store is sound."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner
from cano.cli import main
from cano.events import RunStarted, StateEntered


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a run of three events; the one the environment names."""
    path = tmp_path / "runs.db"
    monkeypatch.setenv("CANO_STORE", str(path))

    async def fill() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(Owner("web"), 1.0, 99.0)
        event: Any = {"run_id": "order-17", "workflow": "orders", "time": 2.0, "state": "PAY"}
        entered = StateEntered(sequence=2, **event), StateEntered(sequence=3, **event)
        run = NewRun("order-17", "orders", "web", 2.0)
        await store.create(run, [RunStarted(sequence=1, **event), *entered])
        await store.close()

    asyncio.run(fill())
    return path


def spoil(path: Path) -> None:
    """Make the second event unreadable."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE events SET body = x'7b' WHERE sequence = 2")


def test_a_sound_store(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store with nothing wrong is OK, and the exit code 0."""
    assert 0 == main(["db", "check"])
    assert f"OK {path}\n" == capsys.readouterr().out
    assert 0 == main(["db", "check", "--json", "--store", f"sqlite:///{path}"])
    told = json.loads(capsys.readouterr().out)
    assert {"store": f"sqlite:///{path}", "ok": True, "findings": []} == told


def test_a_damaged_store(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every finding is a line on stdout, and the exit code 1."""
    spoil(path)
    assert 1 == main(["db", "check"])
    *findings, total = capsys.readouterr().out.splitlines()
    assert f"1 finding in {path}" == total
    assert all(part in findings[0] for part in ("✗ ", "order-17", "event 2"))
    assert 1 == main(["db", "check", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [False, 1] == [told["ok"], len(told["findings"])]


def test_a_store_that_cannot_even_be_read(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is a finding, too."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\x00" * (len(whole) - 4096))
    assert 1 == main(["db", "check"])
    assert f" in {path}" in capsys.readouterr().out.splitlines()[-1]


def test_a_damaged_run_is_still_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a history that is damaged the readable rest is shown, the damage named, the code 1."""
    spoil(path)
    assert 1 == main(["runs", "show", "order-17", "--events"])
    out = capsys.readouterr().out
    assert "Not all of its history can be read: event 2 of run 'order-17'" in " ".join(out.split())
    assert ["1", "3"] == [line.split()[1] for line in out.splitlines()[-2:]]
    assert "→" not in out
    assert 1 == main(["runs", "show", "order-17", "--json"])
    assert "event 2" in json.loads(capsys.readouterr().out)["trouble"]
    assert 0 == main(["runs"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["db"], 2, "check"),
        (["db", "chekc"], 2, "chekc"),
        (["db", "check", "--store", "nowhere.db"], 3, "there is no store nowhere.db"),
    ],
)
def test_mistakes(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """A mistake is said on stderr."""
    assert code == main(arguments)
    assert said in capsys.readouterr().err
