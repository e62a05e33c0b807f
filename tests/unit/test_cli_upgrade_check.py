"""`cano upgrade-check`: which live runs can go on with this version of their workflow."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from cano._shape import FieldShape, Shape, StateShape, fingerprint
from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, RunQuery, RunSummary, Status
from cano.cli import upgrade_check
from cano.cli.outcome import FAILED, OK, CommandError
from cano.errors import DefinitionError
from cano.events import RunFinished, RunStarted, StateEntered

Check = Callable[..., tuple[int, str]]

WORKFLOW = """
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from cano import Context, Workflow

class Step(Enum):
    PAY = 1
    SHIP = 2
    DONE = 3

@dataclass
class Order:
    total: int = 0

async def pay(ctx: Context[Order]) -> Literal[Step.SHIP]:
    raise AssertionError("upgrade-check must not run anything")

async def ship(ctx: Context[Order]) -> Literal[Step.DONE]:
    raise AssertionError("upgrade-check must not run anything")

def make(version):
    flow = Workflow(Step, data=Order, name="orders", version=version, start=Step.PAY)
    return flow.register(Step.PAY, pay).register(Step.SHIP, ship).exits(Step.DONE)

same = make(1)
raised = make(2)
migrated = make(2)
older = make(0)
wrong = make(1)

@migrated.migrate(from_=1)
def up(saved):
    saved.data.setdefault("total", 0)
    saved.data.pop("note", None)
    return saved.rename("CHARGE", "PAY").rename("GONE", "NOWHERE")

@wrong.migrate(from_=1)
def beyond(saved):
    return saved
"""
OLD = Shape(
    1,
    {
        "CHARGE": StateShape("", targets=("SHIP",)),
        "SHIP": StateShape("", targets=("DONE",)),
    },
    ("DONE",),
    {"total": FieldShape("int", default=True), "note": FieldShape("str", default=True)},
)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """Carry out the command for a workflow of the module above and a store of these runs."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CANO_STORE", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "upgraded.py").write_text(WORKFLOW)

    def call(flow: str, runs: list[dict[str, Any]], *options: str) -> tuple[int, str]:
        path = tmp_path / "runs.db"
        asyncio.run(fill(path, runs))
        before = path.read_bytes()
        target = f"{tmp_path}/upgraded.py:{flow}"
        arguments = [target, "--store", str(path), *options]
        done = CliRunner().invoke(upgrade_check.command, arguments, standalone_mode=False)
        if done.exception is not None:
            raise done.exception

        assert before == path.read_bytes()
        return done.return_value, done.stdout

    yield call
    sys.modules.pop("upgraded", None)


async def fill(path: Path, runs: list[dict[str, Any]]) -> None:
    store = SqliteCheckpoints(path)
    await store.renew(Owner("one"), 0.0, 1e12)
    await store.define(fingerprint(OLD), OLD.written())
    for number, run in enumerate(runs):
        await begin(store, f"run-{number}", float(number), **run)
    await store.close()


async def begin(
    store: Any,
    run_id: str,
    time: float,
    state: str = "PAY",
    version: int = 1,
    patch: dict[str, Any] | None = None,
    workflow: str = "orders",
    ended: bool = False,
) -> None:
    mark = fingerprint(OLD)
    raw = {n: msgspec.Raw(msgspec.json.encode(v)) for n, v in (patch or {"total": 3}).items()}
    envelope: dict[str, Any] = {"run_id": run_id, "workflow": workflow, "state": state}
    new = NewRun(run_id, workflow, "one", time, version, mark)
    first = RunStarted(sequence=1, **envelope, version=version, fingerprint=mark, patch=raw)
    await store.create(new, [first, StateEntered(sequence=2, **envelope)])
    if ended:
        end = RunFinished(run_id=run_id, workflow=workflow, sequence=3, state="DONE")
        await store.append(run_id, 1, [end], Status.FINISHED)


def test_all_safe(check: Check) -> None:
    """Where every live run can go on, each is listed, and the exit code is 0."""
    code, out = check("same", [{}, {"state": "SHIP"}])

    assert OK == code
    assert ["safe  run-1  in SHIP", "safe  run-0  in PAY"] == out.splitlines()[:2]
    assert "2 live runs of orders, version 1: 2 safe" == out.splitlines()[-1]


def test_only_live_runs_of_the_workflow_count(check: Check) -> None:
    """Runs that have ended, and those of other workflows, stand in nobody's way."""
    code, out = check("same", [{"state": "X", "workflow": "other"}, {"state": "X", "ended": True}])

    assert (OK, "0 live runs of orders, version 1\n") == (code, out)


def test_what_stands_in_the_way(check: Check) -> None:
    """A run that cannot go on fails the command, with every reason and what has changed."""
    code, out = check("same", [{"state": "CHARGE", "patch": {"total": 1, "note": "x"}}, {}])
    lines = out.splitlines()

    assert FAILED == code
    assert ["safe               run-1  in PAY", "needs a migration  run-0  in CHARGE"] == lines[:2]
    assert lines[2].startswith(" " * 21 + "it is in CHARGE, which has no task and is no exit;")
    assert lines[3].startswith(
        " " * 21 + 'its data has a field note ("x"), and this version has not'
    )
    assert lines[4].startswith(" " * 21 + "raise the version to 2 and write a migration from 1")
    assert [
        "changed since 2 of these runs began:",
        "    state CHARGE was removed",
        "    state PAY was added",
        "    data field note was removed",
        "2 live runs of orders, version 1: 1 safe, 1 needs a migration",
    ] == lines[5:]


def test_an_older_version_needs_a_migration(check: Check) -> None:
    """Raising the version without a migration is told for every run of the old one."""
    code, out = check("raised", [{}])

    assert FAILED == code
    assert "write a migration from version 1; it may return what it is given" in out


def test_migrations_are_tried(check: Check) -> None:
    """A run that its migrations make fit is safe; one that they do not is blocked."""
    code, out = check("migrated", [{"state": "CHARGE", "patch": {"note": "x"}}, {"state": "GONE"}])
    lines = out.splitlines()

    assert FAILED == code
    assert "blocked  run-1  in GONE" == lines[0]
    assert "after its migration it is in NOWHERE" in lines[1]
    assert "safe     run-0  in CHARGE, migrated from version 1" == lines[2]


def test_a_newer_version_blocks(check: Check) -> None:
    """Going back to an older version is told before it happens."""
    code, out = check("older", [{}])

    assert FAILED == code
    assert "which is newer than 0; deploy version 1 or a later one" in out


def test_as_json(check: Check) -> None:
    """Programs get the same, run by run."""
    code, out = check("same", [{"state": "DONE"}, {"state": "GONE"}], "--json")
    told = json.loads(out)

    assert FAILED == code
    assert ("orders", 1, False) == (told["workflow"], told["version"], told["ok"])
    assert {"safe": 1, "needs a migration": 1, "blocked": 0} == told["counts"]
    assert [
        ("run-1", "GONE", 1, "needs a migration", False, 2),
        ("run-0", "DONE", 1, "safe", False, 0),
    ] == [
        (
            run["run_id"],
            run["state"],
            run["version"],
            run["fitness"],
            run["migrated"],
            len(run["reasons"]),
        )
        for run in told["runs"]
    ]
    assert "state CHARGE was removed" in told["runs"][0]["changes"]


def test_more_than_a_page(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many live runs there are, all are looked at."""
    monkeypatch.setattr(upgrade_check, "PAGE", 2)
    _, out = check("same", [{}] * 5)

    assert "5 live runs of orders, version 1: 5 safe" == out.splitlines()[-1]


def test_a_run_that_cannot_be_read_blocks(check: Check, tmp_path: Path) -> None:
    """A corrupt history is one blocked run, not the end of the command."""

    async def spoil() -> None:
        store = SqliteCheckpoints(tmp_path / "runs.db")
        await store.renew(Owner("one"), 0.0, 1e12)
        new = NewRun("odd", "orders", "one", 9.0, 1)
        await store.create(new, [StateEntered(run_id="odd", sequence=1, state="PAY")])
        await store.close()

    asyncio.run(spoil())
    code, out = check("same", [{}])

    assert FAILED == code
    assert ["blocked  odd  in PAY", "safe     run-0  in PAY"] == [
        line for line in out.splitlines() if "  in " in line
    ]
    assert "StateEntered cannot follow" in out


def test_a_wrong_definition(check: Check) -> None:
    """What is wrong with the workflow itself, its migrations included, is told first."""
    with pytest.raises(DefinitionError, match="leads beyond the workflow's own version 1"):
        check("wrong", [{}])


def test_no_store(check: Check) -> None:
    """A store that is not there is no reason to say that all is well."""
    with pytest.raises(CommandError, match="there is no store"):
        check("same", [], "--store", "nowhere.db")


def test_data_cannot_write_to_the_terminal(check: Check) -> None:
    """What runs hold is shown without what a terminal would obey."""
    _, out = check("same", [{"patch": {"\x1b[2Jtotal": 1}}])

    assert "\x1b" not in out


class Late(MemoryCheckpoints):
    """A store whose list of runs is out of date by the time that it is read."""

    async def runs(self, query: RunQuery, /) -> Sequence[RunSummary]:
        found = await super().runs(msgspec.structs.replace(query, statuses=()))
        gone = msgspec.structs.replace(found[0], run_id="gone") if found else None
        return [*found, gone] if gone else []


def test_runs_that_end_meanwhile_do_not_count() -> None:
    """A run that has ended, or was deleted, since the list was made is left out."""
    store = Late()

    async def judged() -> list[str]:
        await store.renew(Owner("one"), 0.0, 1e12)
        await begin(store, "live", 1.0)
        await begin(store, "over", 2.0, ended=True)
        present = upgrade_check._present(workflow(), store)
        return [run.run_id async for run in upgrade_check._judged(store, "orders", present)]

    assert ["live"] == asyncio.run(judged())


def workflow() -> Any:
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(WORKFLOW, namespace)  # noqa: S102 -- written above
    return namespace["make"](1)


def test_the_workflow_is_left_alone() -> None:
    """A workflow that was compared with a store has no other store than before."""
    mine = workflow()
    upgrade_check._present(mine, MemoryCheckpoints())
    mine.exits()  # it would refuse if it were compiled

    assert mine.checkpoints is None
