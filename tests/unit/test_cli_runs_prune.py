"""`cano runs prune`: which runs are forgotten, and which never are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, RunQuery, Status
from cano.cli import main, runs_prune
from cano.events import RunFinished, RunStarted

NOW = datetime.now(UTC).timestamp()
DAY = 86400.0
Cano = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with runs that ended 1, 2, ... 6 days ago, and one as old that still waits."""
    path = tmp_path / "runs.db"

    async def fill() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(Owner("web"), NOW, NOW + DAY)
        for days in range(1, 8):
            name, end = f"r{days}", NOW - days * DAY
            workflow = "billing" if days % 2 else "orders"
            event: Any = {"run_id": name, "workflow": workflow, "time": end, "state": "PAY"}
            await store.create(
                NewRun(name, workflow, "web", end), [RunStarted(sequence=1, **event)]
            )
            if days < 7:
                await store.append(name, 1, [RunFinished(sequence=2, **event)], Status.FINISHED)
        await store.close()

    asyncio.run(fill())
    return path


@pytest.fixture
def cano(capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> Cano:
    monkeypatch.setenv("CANO_STORE", str(path))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["runs", *arguments])
        return code, *capsys.readouterr()

    return call


def left(path: Path) -> str:
    async def read() -> str:
        store = SqliteCheckpoints(path)
        try:
            return " ".join(run.run_id for run in await store.runs(RunQuery()))
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("options", "forgotten", "stay"),
    [
        ("--older-than 84h", 3, "r1 r2 r3 r7"),
        ("--older-than 30d", 0, "r1 r2 r3 r4 r5 r6 r7"),
        ("--keep 2", 4, "r1 r2 r7"),
        ("--keep 0", 6, "r7"),
        ("--older-than 84h --keep 2", 4, "r1 r2 r7"),
        ("--older-than 36h --keep 4", 5, "r1 r7"),
        ("--keep 1 --workflow orders", 2, "r1 r2 r3 r5 r7"),
        ("--older-than 36h -w billing", 2, "r1 r2 r4 r6 r7"),
    ],
)
@pytest.mark.parametrize("batch", [1, 500])
def test_which_runs_are_forgotten(
    cano: Cano, path: Path, monkeypatch: pytest.MonkeyPatch,
    options: str, forgotten: int, stay: str, batch: int,
) -> None:  # fmt: skip
    """Ended runs go by age or count, in batches; runs under way stay however old they are."""
    monkeypatch.setattr(runs_prune, "BATCH", batch)
    monkeypatch.setattr(runs_prune, "AT_ONCE", batch + 1)
    runs = f"{forgotten} run{'s' * (forgotten != 1)}"
    dry = cano("prune", *options.split(), "--dry-run")
    assert (0, f"{runs} would be forgotten\n", "") == dry
    assert "r1 r2 r3 r4 r5 r6 r7" == left(path)
    assert (0, f"forgot {runs}\n", "") == cano("prune", *options.split())
    assert stay == left(path)


def test_json(cano: Cano) -> None:
    """Programs are told how many, and whether they are gone."""
    dry = cano("prune", "--keep", "4", "--dry-run", "--json")
    assert {"runs": 2, "deleted": False} == json.loads(dry[1])
    done = cano("prune", "--keep", "4", "--json")
    assert {"runs": 2, "deleted": True} == json.loads(done[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [("", "which runs? Say --older-than"), ("--keep -1", "--keep"), ("--older-than 30", "30d")],
)
def test_mistakes(cano: Cano, path: Path, options: str, said: str) -> None:
    """Without a rule, or with one that makes no sense, nothing is forgotten."""
    code, out, err = cano("prune", *options.split())
    assert (2, "") == (code, out)
    assert said in err
    assert "r1 r2 r3 r4 r5 r6 r7" == left(path)
