"""`cano runs resume`, `retry` and `fork`: runs of a store carried on from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, RunQuery, RunSummary, Status
from cano.cli import main
from cano.events import Event, RunStarted

NOW = datetime.now(UTC).timestamp()
Cano = Callable[..., tuple[int, str, str]]

SHOP = """
import os
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Resources, Workflow
from cano.checkpoints.sqlite import SqliteCheckpoints


class Step(StrEnum):
    PAY = auto()
    SHIP = auto()
    DONE = auto()


@dataclass
class Order:
    total: int = 0
    path: str = ""


flow = Workflow(Step, data=Order, start=Step.PAY, name="orders").exits(Step.DONE)


@flow.task(Step.PAY)
async def pay(ctx: Context[Order]) -> Literal[Step.SHIP]:
    ctx.data.path += "pay "
    return Step.SHIP


@flow.task(Step.SHIP)
async def ship(ctx: Context[Order]) -> Literal[Step.DONE]:
    if ctx.data.total > 10:
        raise ValueError("too heavy")
    if ctx.data.total < 0:
        await ctx.wait_signal("paid", int)
    ctx.data.path += "ship"
    return Step.DONE


checked = flow.copy()
checked.check()
own = flow.copy()
own.checkpoints = SqliteCheckpoints("runs.db")
missing = flow.copy()
missing.checkpoints = SqliteCheckpoints("none.db")


class Gone:
    async def setup(self) -> None:
        raise RuntimeError("no warehouse today")


unready = Workflow(
    Step, data=Order, start=Step.PAY, name="orders", resources=Resources(warehouse=Gone())
).exits(Step.DONE)
unready.register(Step.PAY, pay).register(Step.SHIP, ship)
plain = Workflow(Step, start=Step.PAY, name="orders").exits(Step.DONE)
other = Workflow(Step, data=Order, start=Step.PAY, name="others").exits(Step.DONE)
for bare in (plain, other):

    @bare.task(Step.PAY)
    async def only(ctx: Context) -> Literal[Step.SHIP]:
        return Step.SHIP

    @bare.task(Step.SHIP)
    async def also(ctx: Context) -> Literal[Step.DONE]:
        return Step.DONE
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a workflow in it, and a store with a run that failed and one cut short."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("CANO_STORE", "runs.db")
    import shop  # type: ignore[import-not-found]

    async def fill() -> None:
        flow, store = shop.flow.copy(), SqliteCheckpoints("runs.db")
        flow.checkpoints = store
        with pytest.raises(ValueError, match="heavy"):
            await flow.run(data=shop.Order(11), run_id="heavy")
        handle = await flow.start_run(data=shop.Order(-1), run_id="asks")
        await started(store, "asks")
        await flow._end_runs()  # lets go of it
        assert handle.done
        await store.close()

    asyncio.run(fill())
    yield tmp_path
    del sys.modules["shop"]


async def started(store: Any, run_id: str) -> None:
    """Wait until the run is in SHIP."""
    while (await store.summary(run_id)).state != "SHIP":
        await asyncio.sleep(0.01)


@pytest.fixture
def cano(capsys: pytest.CaptureFixture[str], here: Path) -> Cano:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["runs", *arguments])
        return code, *capsys.readouterr()

    return call


def ask(work: Callable[[SqliteCheckpoints], Any]) -> Any:
    async def asked() -> Any:
        store = SqliteCheckpoints("runs.db")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(asked())


def summary(run_id: str) -> RunSummary:
    found: RunSummary = ask(lambda store: store.summary(run_id))
    return found


@pytest.mark.parametrize("target", ["shop:flow", "shop:checked", "shop:own", "shop.py:flow"])
def test_resume(cano: Cano, target: str) -> None:
    """A run that was let go is carried on to its end; what was completed is not done again."""
    assert 0 == cano("signal", "asks", "paid", "7")[0]
    code, out, err = cano("resume", "asks", "--target", target)
    assert (0, "") == (code, err)
    state, _, data = out.partition("\n")
    assert ("DONE", {"total": -1, "path": "pay ship"}) == (state, json.loads(data))
    assert Status.FINISHED == summary("asks").status


def test_the_store_of_the_workflow_will_do(
    cano: Cano, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    """Where the workflow has a store none need be named; another one is refused."""
    monkeypatch.delenv("CANO_STORE")
    assert 0 == cano("signal", "asks", "paid", "7", "--store", "runs.db")[0]
    assert (2, "") == cano("resume", "asks", "--target", "shop:flow")[:2]
    (here / "elsewhere.db").touch()
    code, _, err = cano("resume", "asks", "--target", "shop:own", "--store", "elsewhere.db")
    assert 2 == code
    assert "leave --store out" in err
    assert 0 == cano("resume", "asks", "--target", "shop:own")[0]


def test_a_workflow_names_its_store(cano: Cano) -> None:
    """`--store MODULE:ATTR` is the store of that workflow, with whatever settings it has."""
    code, out, _ = cano("list", "--store", "shop:own")
    assert (0, ["asks", "heavy"]) == (code, [line.split()[0] for line in out.splitlines()[1:]])
    code, _, err = cano("list", "--store", "shop:flow")
    assert 2 == code
    assert "this workflow has no store" in err
    code, _, err = cano("list", "--store", "shop:missing")
    assert 3 == code
    assert "there is no store" in err
    assert not Path("none.db").exists()
    both = ("--target", "shop:own", "--store", "shop:own")
    assert "has not ended" in cano("retry", "asks", *both)[2]


def test_resume_as_json(cano: Cano) -> None:
    """A run that ended is not run again: its recorded end is told, for programs too."""
    code, out, _ = cano("resume", "heavy", "--target", "shop:flow", "--json")
    told = json.loads(out)
    assert (1, "heavy", "failed", "SHIP") == (code, told["run_id"], told["status"], told["state"])
    assert {"total": 11, "path": "pay "} == told["data"]
    assert "too heavy" in told["error"]["message"]
    assert 0 == cano("signal", "asks", "paid", "7")[0]
    done = json.loads(cano("resume", "asks", "--target", "shop:flow", "--json")[1])
    assert ("finished", "DONE", "pay ship") == (done["status"], done["state"], done["data"]["path"])


def test_a_run_that_somebody_holds(cano: Cano) -> None:
    """Such a run is refused, saying by whom; with --wait it is taken when the lease is over."""

    async def hold(store: SqliteCheckpoints) -> None:
        event = {"run_id": "held", "workflow": "orders", "time": NOW, "state": "PAY"}
        patch = {"total": msgspec.Raw(b"1"), "path": msgspec.Raw(b'""')}
        first = RunStarted(sequence=1, fingerprint=fingerprint, patch=patch, **event)
        now = datetime.now(UTC).timestamp()
        await store.renew(Owner("elsewhere:1"), now, now + 1.0)
        await store.create(NewRun("held", "orders", "elsewhere:1", NOW, 0, fingerprint), [first])

    fingerprint = summary("heavy").fingerprint
    ask(hold)
    code, out, err = cano("resume", "held", "--target", "shop:flow")
    assert (1, "") == (code, out)
    assert "elsewhere:1" in err
    assert "--wait" in err
    code, out, _ = cano("resume", "held", "--target", "shop:flow", "--wait")
    assert (0, "DONE") == (code, out.splitlines()[0])


def test_retry(cano: Cano) -> None:
    """A failed run is reopened where it failed, and its new failure told."""
    before = summary("heavy").sequence
    code, out, err = cano("retry", "heavy", "--target", "shop:flow")
    assert (1, "") == (code, out)
    assert "heavy failed after" in err
    assert "ValueError: too heavy" in err
    assert before < summary("heavy").sequence


def test_fork(cano: Cano) -> None:
    """A new run begins behind an event of an old one, with data changed on the way."""
    options = ("--target", "shop:flow", "--run-id", "light")
    code, out, err = cano("fork", "heavy", "--at", "3", "--set", "total=4", *options)
    assert (0, "") == (code, err)
    state, _, data = out.partition("\n")
    assert ("DONE", {"total": 4, "path": "pay ship"}) == (state, json.loads(data))
    assert Status.FAILED == summary("heavy").status
    first: list[Event] = ask(lambda store: store.load("light", 0, 1))
    assert ("heavy", 3) == (getattr(first[0], "forked_from"), getattr(first[0], "forked_at"))  # noqa: B009
    told = json.loads(cano("fork", "heavy", "--at", "3", "--target", "shop:flow", "--json")[1])
    assert ("failed", "SHIP") == (told["status"], told["state"])
    names = [run.run_id for run in ask(lambda store: store.runs(RunQuery()))]
    assert told["run_id"] in names
    assert 4 == len(names)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("resume asks --target shop:nothing", 3, "shop has no 'nothing'"),
        ("resume asks", 2, "--target"),
        ("resume nobody --target shop:flow", 3, "there is no run 'nobody'"),
        ("resume asks --target shop:other", 3, "is one of orders, not of others"),
        ("retry asks --target shop:flow", 1, "asks"),
        ("resume asks --target shop:unready", 1, "could not be carried on: RuntimeError: no ware"),
        ("fork heavy --at 3 --target shop:flow --set total", 2, "write FIELD=JSON"),
        ("fork heavy --at 3 --target shop:flow --set totla=1", 4, "did you mean total?"),
        ("fork heavy --at 3 --target shop:flow --set x=1", 4, "it has total, path"),
        ("fork heavy --at 3 --target shop:flow --set total=x", 4, "--set total is no JSON"),
        ('fork heavy --at 3 --target shop:flow --set total="x"', 4, "--set: Order.total"),
        ("fork heavy --at 3 --target shop:plain --set total=1", 4, "has no run data"),
        ("fork heavy --at 99 --target shop:flow", 1, "cannot be forked at event 99"),
        ("fork heavy --at 0 --target shop:flow", 2, "--at"),
        ("fork heavy --at 3 --target shop:flow --run-id asks", 2, "there is a run 'asks' already"),
    ],
)
def test_refused(cano: Cano, arguments: str, code: int, said: str) -> None:
    """What cannot be carried on is refused with the reason, and nothing is changed."""
    before = ask(lambda store: store.runs(RunQuery()))
    ended, out, err = cano(*arguments.split())
    assert (code, "") == (ended, out)
    assert said in " ".join(err.split())
    assert before == ask(lambda store: store.runs(RunQuery()))


@pytest.mark.parametrize("command", ["resume asks", "fork asks --at 3 --run-id other"])
def test_ctrl_c_lets_go(here: Path, command: str) -> None:
    """An interrupted command lets go of the run, which can be resumed at once."""
    arguments = [sys.executable, "-W", "error", "-m", "cano", "runs", *command.split()]
    process = subprocess.Popen(
        [*arguments, "--target", "shop:flow"], stderr=subprocess.PIPE, text=True
    )
    run_id = "other" if "other" in command else "asks"

    async def taken(store: SqliteCheckpoints) -> None:
        while not any(r.run_id == run_id and r.owner for r in await store.runs(RunQuery())):
            await asyncio.sleep(0.02)
        await started(store, run_id)

    ask(taken)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert 130 == process.returncode
    assert "interrupted; the run was let go, and can be resumed" in err
    assert "Traceback" not in err
    left = summary(run_id)
    assert ("", False) == (left.owner, left.over)
