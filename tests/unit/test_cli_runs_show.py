"""`cano runs show`: what is said of a run, and what its events look like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from cano._history import replay
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import CANCEL, RESOLVE, Message, NewRun, Owner, RunSummary, Status
from cano.cli import main
from cano.cli.runs_events import lines, what
from cano.cli.runs_verdict import Story, actions, verdict
from cano.events import (
    BranchFailed,
    BranchFinished,
    Cause,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunReopened,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    TaskCompensated,
    TaskCompleted,
    TaskRetried,
    TimerSet,
    WaitStarted,
)

NOW = datetime(2030, 5, 1, 14, 0).astimezone().timestamp()
CAUSE = Cause("shop.errors:NoStockError", "none of x1", ("cano: in SHIP",), "Traceback:\n  boom\n")
STARTED: tuple[Event, ...] = (RunStarted(state="PAY"), StateEntered(state="PAY"))
PAID = TaskCompleted(state="PAY", next="SHIP", value=msgspec.Raw(b'{"receipt":7}'))
SHIPPING = StateEntered(state="SHIP")


def numbered(events: Sequence[Event]) -> list[Event]:
    """*events* as a store has them: one per second, the last a minute ago."""
    begun = NOW - 60 - len(events)
    return [
        msgspec.structs.replace(event, sequence=number, time=begun + number, workflow="orders")
        for number, event in enumerate(events, 1)
    ]


def story(status: Status, *events: Event, inbox: Sequence[Message] = (), **fields: Any) -> Story:
    kept = numbered([*STARTED, *events])
    ended = {"ended": kept[-1].time} if status.over else {}
    run = RunSummary(
        "a7", "orders", status, kept[-1].state, len(kept), kept[0].time, **ended, **fields
    )
    return Story(run, kept, replay(kept), inbox)


HELD = {"owner": "web-1:7", "lease": NOW + 12}


@pytest.mark.parametrize(
    ("told", "said", "helps"),
    [
        (story(Status.RUNNING, **HELD), "web-1:7 carries it out; its lease ends in 12 s.", []),
        (
            story(Status.RUNNING, TaskRetried(attempt=2, error="OSError: no"), **HELD),
            "Attempt 2 failed: OSError: no. web-1:7 carries it out; its lease ends in 12 s.",
            [],
        ),
        (
            story(Status.RUNNING, owner="web-1:7", lease=NOW - 60),
            "Its owner web-1:7 is gone: the lease ended 1 min ago. It goes on when a process",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.RUNNING, owner="web-1:7", lease=0.0),
            "Its owner web-1:7 is gone: its process died.",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.RUNNING),
            "Nobody holds it: it was let go, as in a shutdown.",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.RUNNING, crashes=6),
            "It killed its process 6 times in a row in PAY, and is set aside until",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.WAITING, wake=inf),
            "It waits for a signal, without a limit; nobody holds it meanwhile.",
            ["cano runs signal a7 NAME JSON"],
        ),
        (
            story(Status.WAITING, TimerSet(name="1.1", until=NOW + 9), wake=NOW + 9),
            "It waits for the timer until 14:00:09 (in 9.0 s).",
            [],
        ),
        (
            story(Status.WAITING, TimerSet(name="reminder", until=NOW + 9), wake=NOW + 9),
            "It waits for the timer 'reminder' until 14:00:09 (in 9.0 s).",
            [],
        ),
        (
            story(Status.WAITING, WaitStarted(name="1.1", signals=("ok",), until=NOW + 9), wake=NOW + 9),
            "It waits for signal 'ok' until 14:00:09 (in 9.0 s).",
            [],
        ),
        (
            story(Status.WAITING, wake=NOW + 9),
            "It waits for a moment or a signal until 14:00:09 (in 9.0 s).",
            [],
        ),
        (
            story(Status.WAITING, wake=NOW - 60),
            "Its wait is over since 13:59:00, but nobody has taken it up yet.",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.WAITING, inbox=[Message(1, CANCEL, b"null", NOW - 5)], wake=inf),
            "nobody holds it meanwhile. It was asked to cancel 5.0 s ago.",
            ["cano runs signal a7 NAME JSON"],
        ),
        (
            story(Status.IN_DOUBT, EffectIntended(name="charge {it}"), wake=inf),
            "It is in doubt about 'charge {it}': its process died in the middle",
            [
                "cano runs resolve a7 'charge {it}' --done JSON",
                "cano runs resolve a7 'charge {it}' --again",
            ],
        ),
        (
            story(
                Status.IN_DOUBT, EffectIntended(name="a"), EffectIntended(name="b"), wake=inf
            ),
            "It is in doubt about 'a' and 'b': its process died",
            ["cano runs resolve a7 EFFECT --done JSON", "cano runs resolve a7 EFFECT --again"],
        ),
        (
            story(Status.IN_DOUBT, wake=inf),
            "Whoever took it up last could not carry it on",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(
                Status.IN_DOUBT,
                EffectIntended(name="charge"),
                inbox=[Message(1, RESOLVE, b"{}", NOW - 3)],
            ),
            "It was in doubt, and was told 3.0 s ago what to do.",
            ["cano runs resume a7 --target MODULE:ATTR"],
        ),
        (
            story(Status.RUNNING, PAID, SHIPPING, RollbackStarted(cause=CAUSE), **HELD),
            "It is rolling back (NoStockError: none of x1): 0 undone, 1 to go. web-1:7 carries",
            [],
        ),
        (story(Status.FINISHED, RunFinished(state="DONE")), "It finished in DONE after 2.0 s.", []),
        (
            story(Status.FAILED, RunFailed(state="PAY", cause=CAUSE)),
            "It failed in PAY after 2.0 s: NoStockError: none of x1.",
            ["cano runs retry a7 --target MODULE:ATTR"],
        ),
        (
            story(
                Status.FAILED, PAID, SHIPPING, RollbackStarted(state="SHIP", cause=CAUSE),
                TaskCompensated(state="PAY"), RunFailed(state="SHIP"),
            ),
            "It failed in SHIP after 6.0 s: NoStockError: none of x1. 1 completed task undone.",
            ["cano runs fork a7 --at SEQUENCE --target MODULE:ATTR"],
        ),
        (
            story(
                Status.CANCELLED, PAID, SHIPPING, RollbackStarted(state="SHIP", cancelled=True),
                CompensationFailed(state="PAY", cause=CAUSE), RunCancelled(state="SHIP"),
            ),
            "It was cancelled in SHIP after 6.0 s. 1 completed task could not be undone.",
            ["cano runs fork a7 --at SEQUENCE --target MODULE:ATTR"],
        ),
    ],
)  # fmt: skip
def test_why_a_run_is_where_it_is(told: Story, said: str, helps: list[str]) -> None:
    """A sentence says what the run waits for or why it does not move, and which command helps."""
    assert said in verdict(told, NOW)
    assert helps == actions(told, NOW)


def test_an_old_request_to_cancel_is_over() -> None:
    """What was asked of a run before it was reopened is no longer asked of it."""
    asked = [Message(1, CANCEL, b"null", NOW - 70)]
    reopened = story(Status.RUNNING, RunCancelled(), RunReopened(), inbox=asked, **HELD)
    assert "cancel" not in verdict(reopened, NOW)


RAW = msgspec.Raw(b'{"a":1}')


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (RunStarted(version=3), "run started, version 3"),
        (RunStarted(forked_from="b", forked_at=4), "run forked from b at event 4"),
        (RunClaimed(owner="web", epoch=2), "taken over by web, epoch 2"),
        (RunMigrated(before=1, version=2), "migrated from version 1 to 2"),
        (StateEntered(), "entered"),
        (StateEntered(patch={"total": RAW, "id": RAW}), "entered; changed total, id"),
        (TaskRetried(attempt=1, error="E", delay=0.5), "attempt 1 failed: E; again in 0.5 s"),
        (TaskCompleted(next="B", value=RAW), 'completed, leads to B, can be undone with {"a":1}'),
        (FailureRouted(next="B", error="E"), "failed: E; goes on to B"),
        (CursorSaved(value=RAW), 'cursor saved: {"a":1}'),
        (EffectIntended(name="pay"), "effect 'pay' intended"),
        (EffectDone(name="pay", value=RAW), "effect 'pay' done: {\"a\":1}"),
        (WaitStarted(name="x", signals=("ok",)), "wait for 'ok' began, without a limit"),
        (TimerSet(name="x", until=NOW + 9, time=NOW), "sleep 'x' began, until 14:00:09"),
        (SignalReceived(signal="go", number=1, value=RAW), "signal 'go' received: {\"a\":1}"),
        (SignalReceived(name="w"), "wait 'w' ended without a signal"),
        (SplitStarted(names=("a", "b")), "split into 2: a, b"),
        (BranchFinished(value=RAW), 'branch finished: {"a":1}'),
        (BranchFailed(error="E"), "branch failed: E"),
        (
            SplitJoined(reason="enough", succeeded=2, failed=1, cancelled=1, not_started=3),
            "split joined (enough): 2 succeeded, 1 failed, 1 cancelled, 3 not started",
        ),
        (SplitJoined(satisfied=False), "split join failed"),
        (RollbackStarted(cause=CAUSE), "rollback started: none of x1"),
        (RollbackStarted(cancelled=True), "rollback started: asked for"),
        (RollbackStarted(), "rollback started"),
        (TaskCompensated(patch={"total": RAW}), "undone; changed total"),
        (CompensationFailed(cause=CAUSE), "could not be undone: NoStockError: none of x1"),
        (CompensationFailed(), "could not be undone"),
        (RunFinished(), "run finished"),
        (RunFailed(kind="E", error="no"), "run failed: E: no"),
        (RunFailed(), "run failed"),
        (RunCancelled(), "run cancelled"),
        (RunReopened(), "run reopened, to try again"),
        (Event(), "Event"),
    ],
)
def test_what_happened(event: Event, told: str) -> None:
    """Every kind of event is told in a line; one that is not known, by its name."""
    assert told == what(event)


def test_the_list_of_events() -> None:
    """Events have time, number, place and text in columns; each day is named once."""
    told = numbered([*STARTED, BranchFailed(state="PAY", branch="eu", error="e" * 99)])
    told = [msgspec.structs.replace(told[0], time=told[0].time - 86400), *told[1:]]
    for width in (None, 60):
        shown = [click.unstyle(line) for line in lines(told, width)]
        assert ["Tuesday 2030-04-30", "Wednesday 2030-05-01"] == [
            shown[at].partition(",")[0] for at in (0, 2)
        ]
        assert "13:58:58.000  1  PAY     run started" == shown[1]
        assert shown[4].startswith("13:59:00.000  3  PAY/eu  branch failed: eee")
        assert width is None or {width} == {len(shown[4])}
    assert [] == list(lines([], None))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one run that failed, having undone what it had done."""
    path = tmp_path / "runs.db"
    events = numbered(
        [
            RunStarted(
                state="PAY", patch={"total": msgspec.Raw(b"7"), "name": msgspec.Raw(b'"x"')}
            ),
            StateEntered(state="PAY"),
            PAID,
            StateEntered(state="SHIP", patch={"total": msgspec.Raw(b"8")}),
            TaskCompleted(state="SHIP", next="SEND", value=msgspec.Raw(b"1")),
            StateEntered(state="SEND"),
            RollbackStarted(state="SEND", cause=CAUSE),
            CompensationFailed(state="SHIP", cause=CAUSE),
            RunFailed(state="SEND", kind="NoStockError", error="none of x1", cause=CAUSE),
        ]
    )

    async def fill() -> None:
        store = SqliteCheckpoints(path)
        await store.renew(Owner("web"), NOW - 99, NOW)
        run = NewRun("order-17", "orders", "web", NOW - 70, 3, "f00", ("eu", "vip"))
        await store.create(run, events[:-1])
        await store.send("order-17", "hello", b'{"by":"Ann"}', NOW - 65)
        await store.append("order-17", 1, events[-1:], Status.FAILED)
        await store.close()

    asyncio.run(fill())
    return path


def test_show(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything about a run on one page: why, when, what stands, its error and its data."""
    assert 0 == main(["runs", "show", "order-17", "--store", str(path)])
    out = capsys.readouterr().out
    for part in (
        "order-17  failed  orders, in SEND\n\nIt failed in SEND after",
        "  → cano runs fork order-17 --at SEQUENCE --target MODULE:ATTR\n",
        "  version   3 (f00)\n  tags      eu, vip\n",
        '\nleft standing\n  #3  PAY  {"receipt":7}\n',
        "\ncould not be undone\n  #5  SHIP  1  NoStockError: none of x1\n",
        '\nmessages\n  #1  2030-05-01 13:58  hello  {"by":"Ann"}\n',
        "\nerror\n  NoStockError: none of x1\n    cano: in SHIP\n\n  Traceback:\n    boom\n",
        '\ndata\n  {\n    "total": 8,\n    "name": "x"\n  }\n',
    ):
        assert part in out
    assert "events\n" not in out


def test_show_events(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--events` adds a line for each event of the run."""
    main(["runs", "show", "order-17", "--events", "--store", str(path)])
    listed = capsys.readouterr().out.partition("\nevents\n")[2].splitlines()
    assert 10 == len(listed)
    assert listed[-1].endswith("9  SEND  run failed: NoStockError: none of x1")


def test_show_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs everything is there, untouched, and the events if asked for."""
    main(["runs", "show", "order-17", "--json", "--store", str(path)])
    told = json.loads(capsys.readouterr().out)
    assert "events" not in told
    assert {"total": 8, "name": "x"} == told["data"]
    assert "It failed in SEND" in told["explanation"]
    assert ["failed", "failed", "eu"] == [told["status"], told["phase"], told["tags"][0]]
    assert "shop.errors:NoStockError" == told["error"]["kind"]
    assert {"receipt": 7} == told["standing"][0]["value"]
    assert [1, "NoStockError"] == [
        told["not_undone"][0]["value"], told["not_undone"][0]["error"]["kind"].split(":")[1]
    ]  # fmt: skip
    assert [{"number": 1, "name": "hello", "key": "", "value": {"by": "Ann"}}] == [
        {name: value for name, value in message.items() if name != "time"}
        for message in told["messages"]
    ]
    main(["runs", "show", "order-17", "--json", "--events", "--store", str(path)])
    kinds = [event["type"] for event in json.loads(capsys.readouterr().out)["events"]]
    assert ["RunStarted", "RunFailed", 9] == [kinds[0], kinds[-1], len(kinds)]
