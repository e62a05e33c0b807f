"""The table of runs: what it shows, and what it leaves out where there is no room."""

from __future__ import annotations

from typing import Any

import click

from cano.checkpoints.store import RunSummary, Status
from cano.cli.runs_table import table

NOW = 1_900_000_000.0
MADE_UP = "019aa5c2f1e37abc8d01020304050607"


def run(run_id: str, **fields: Any) -> RunSummary:
    given: dict[str, Any] = {
        "workflow": "orders", "status": Status.FINISHED, "state": "DONE", "sequence": 4,
        "created": NOW - 60, "ended": NOW - 50,
    }  # fmt: skip
    return RunSummary(run_id=run_id, **{**given, **fields})


def shown(runs: list[RunSummary], width: int | None = None) -> list[str]:
    return [click.unstyle(line) for line in table(runs, NOW, width)]


def test_columns_line_up() -> None:
    """Each cell begins below its title, whatever the colours."""
    held = run("b", status=Status.RUNNING, ended=None, owner="web:1", lease=NOW + 9)
    title, *rows = shown([run("a-longer-name"), held])

    assert ["RUN", "WORKFLOW", "STATUS", "STATE", "CREATED", "TOOK", "OWNER"] == title.split()
    assert ["a-longer-name", "b"] == [row.split()[0] for row in rows]
    assert ["finished", "running"] == [row[title.index("STATUS") :].split()[0] for row in rows]
    assert ["10 s", "1 min"] == [row[title.index("TOOK") :].partition("  ")[0] for row in rows]
    assert ["", "web:1"] == [row[title.index("OWNER") :] for row in rows]


def test_an_ended_run_has_no_owner() -> None:
    """Who once carried a run out is of no interest when it has ended."""
    assert "web:1" not in "".join(shown([run("a", owner="web:1", lease=NOW + 9)]))


def test_without_a_limit_nothing_is_cut() -> None:
    """Where the output goes to a file or pipe, everything is in it."""
    long = run(MADE_UP, workflow="w" * 80, state="S" * 80)
    assert all(text in shown([long])[1] for text in (MADE_UP, "w" * 80, "S" * 80))


def test_a_narrow_terminal() -> None:
    """No line is wider than the terminal; run, status and state are always there."""
    long = run("order-" + "1" * 20, workflow="billing" * 5, status=Status.RUNNING, ended=None,
               owner="host:" * 9, lease=NOW + 9, state="RECONCILE_ALL_OF_IT")  # fmt: skip
    for width in range(52, 200):
        title, row = shown([long], width)
        assert len(title) <= width
        assert len(row) <= width
        assert {"RUN", "STATUS", "STATE"} <= set(title.split())
        assert row.startswith(long.run_id)


def test_made_up_names_are_shortened_so_that_they_still_differ() -> None:
    """Of names that cano made up, as much is shown as tells the runs apart, and no ellipsis."""
    other = MADE_UP[:-4] + "ffff"
    long = {"workflow": "w" * 30}
    rows = shown([run(MADE_UP, **long), run(other, **long), run("mine" * 5, **long)], 60)[1:]
    names = [row.split()[0] for row in rows]

    assert [MADE_UP[:-3], other[:-3], "mine" * 5] == names
    assert MADE_UP[:16] == shown([run(MADE_UP, **long)], 60)[1].split()[0]


def test_there_is_a_narrowest() -> None:
    """What is left when nothing more can go is shown, however wide."""
    assert "RUN  STATUS    STATE" == shown([run("a")], 5)[0]
