"""`cano runs cancel`, `signal` and `resolve`: what they leave for a run, and when they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import CANCEL, RESOLVE, Message, NewRun, Owner, Status
from cano.cli import main
from cano.events import EffectIntended, RunFinished, RunStarted, StateEntered

NOW = datetime.now(UTC).timestamp()
Cano = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a run under way, one that waits, one in doubt, one stuck and one that ended."""
    path = tmp_path / "runs.db"

    async def fill() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(Owner("web"), NOW, NOW + 3600)
        await store.renew(Owner("gone"), NOW - 900, NOW - 800)
        for run_id in ("busy", "waits", "doubts", "ended", "stuck"):
            owner = "gone" if run_id == "stuck" else "web"
            event: Any = {"run_id": run_id, "workflow": "orders", "time": NOW - 60, "state": "PAY"}
            await store.create(
                NewRun(run_id, "orders", owner, NOW - 60),
                [RunStarted(sequence=1, **event), StateEntered(sequence=2, **event)],
            )
        await store.release("waits", 1, Status.WAITING, inf)
        effect = EffectIntended(run_id="doubts", sequence=3, name="charge", time=NOW, state="PAY")
        await store.append("doubts", 1, [effect])
        await store.release("doubts", 1, Status.IN_DOUBT, inf)
        end = RunFinished(run_id="ended", sequence=3, time=NOW, state="DONE")
        await store.append("ended", 1, [end], Status.FINISHED)
        for crash in range(5):
            await store.renew(Owner(f"w{crash}"), NOW - 700 + crash, NOW - 699.5 + crash)
            await store.claim("stuck", f"w{crash}", NOW - 700 + crash)
        await store.close()

    asyncio.run(fill())
    return path


@pytest.fixture
def cano(capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> Cano:
    """Carry out a command line; the exit code, and what it said on stdout and stderr."""
    monkeypatch.setenv("CANO_STORE", str(path))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["runs", *arguments])
        return code, *capsys.readouterr()

    return call


def inbox(path: Path, run_id: str) -> list[Message]:
    async def read() -> list[Message]:
        store = SqliteCheckpoints(path)
        try:
            return list(await store.inbox(run_id))
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("run_id", "hint"),
    [
        ("busy", "web carries it out, and is told within a second"),
        ("waits", "nobody holds it: a process that has this workflow recovers it"),
        ("stuck", "it is stuck and nobody takes it up; to have it read: cano runs resume"),
    ],
)
def test_cancel(cano: Cano, path: Path, run_id: str, hint: str) -> None:
    """A request to cancel is a message, and who will heed it is said."""
    code, out, err = cano("cancel", run_id[:3])
    (message,) = inbox(path, run_id)
    assert (0, f"{run_id}: asked to cancel (message 1)\n") == (code, out)
    assert hint in err
    assert (CANCEL, b"null") == (message.name, message.value)
    assert message.time == pytest.approx(datetime.now(UTC).timestamp(), abs=60)


def test_signal(cano: Cano, path: Path) -> None:
    """A signal carries JSON, or null; the same key counts once."""
    assert 0 == cano("signal", "waits", "approve", '{"by": "Ann"}', "--key", "k1")[0]
    again = cano("signal", "waits", "approve", "false", "--key", "k1", "--json")
    assert (0, {"run_id": "waits", "name": "approve", "message": 1}) == (
        again[0], json.loads(again[1])
    )  # fmt: skip
    assert 0 == cano("signal", "waits", "go")[0]
    assert [("approve", b'{"by": "Ann"}', "k1"), ("go", b"null", "")] == [
        (message.name, message.value, message.key) for message in inbox(path, "waits")
    ]


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--done", '{"receipt": 7}'], {"effect": "charge", "done": {"receipt": 7}}),
        (["--done", "null"], {"effect": "charge", "done": None}),
        (["--again"], {"effect": "charge", "again": True}),
    ],
)
def test_resolve(cano: Cano, path: Path, options: list[str], answer: dict[str, object]) -> None:
    """A person's word on an effect is a message that names the effect."""
    code, out, _ = cano("resolve", "doubts", "charge", *options)
    (message,) = inbox(path, "doubts")
    assert (0, RESOLVE, answer | {"seen": 3}) == (code, message.name, json.loads(message.value))
    assert out.startswith("doubts: told that 'charge' is ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("cancel ended", 1, "run ended has ended (finished) and takes no more messages"),
        ("signal ended go", 1, "has ended (finished)"),
        ("resolve ended charge --again", 1, "has ended (finished)"),
        ("cancel nobody", 3, "there is no run 'nobody'"),
        ("signal waits go yes", 4, "the value is no JSON"),
        ("signal waits go yes", 4, "text needs quotes: '\"yes\"'"),
        ("signal waits cano.cancel", 2, "what begins with cano. is the engine's own"),
        ("resolve doubts charge", 2, "say either --done JSON"),
        ("resolve doubts charge --again --done 1", 2, "say either --done JSON"),
        ("resolve doubts charge --done {", 4, "--done is no JSON"),
        ("resolve doubts chrage --again", 3, "did you mean charge?"),
        ("resolve doubts ship --again", 3, "it is about charge"),
        ("resolve busy charge --again", 1, "run busy is not in doubt, it is running"),
    ],
)
def test_refused(cano: Cano, path: Path, arguments: str, code: int, said: str) -> None:
    """What makes no sense is refused with the reason, and leaves no message."""
    ended, out, err = cano(*arguments.split())
    assert (code, "") == (ended, out)
    assert said in " ".join(err.split())
    for run_id in ("busy", "waits", "doubts", "ended"):
        assert [] == inbox(path, run_id)
