"""`LoggingObserver`: what is told at which level, with which context; `RunContext`; JSON lines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from enum import Enum
from itertools import count
from typing import Any, Literal

import pytest

from cano import (
    Branch,
    Cause,
    CompensationFailed,
    Context,
    DefinitionError,
    Event,
    MemoryCheckpoints,
    Retry,
    RunParked,
    Split,
    StateEntered,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    Workflow,
    announced,
    events,
)
from cano.announced import ScheduleBackedOff
from cano.observers import JsonFormatter, LoggingObserver, RunContext
from cano.testing import run

_numbers = count()


class Step(Enum):
    WORK = 1
    DONE = 2


class PointScored(Event, frozen=True):
    """An event of the user's own."""


async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
    ctx.emit(PointScored())
    return Step.DONE


def flow_of(task: Any, observer: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, name="Order", observers=[observer], **settings)
    return flow.register(Step.WORK, task, *policies).exits(Step.DONE)


class Kept(logging.Handler):
    """Keeps what passes its filters."""

    def __init__(self, *filters: logging.Filter) -> None:
        super().__init__()
        self.kept: list[Any] = []
        for one in filters:
            self.addFilter(one)

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


def own_logger(handler: logging.Handler, level: int = logging.DEBUG) -> logging.Logger:
    """A logger that no other test knows of."""
    logger = logging.getLogger(f"test.{next(_numbers)}")
    logger.addHandler(handler)
    logger.setLevel(level)
    return logger


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Everything that observers log."""
    handler = Kept()
    loggers = [logging.getLogger(name) for name in ("cano.run", "test.own")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield handler.kept
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def lines(records: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


def test_a_run(log: list[Any]) -> None:
    """A run tells its steps, each at the level of its kind, under a logger of its own."""
    run(flow_of(work, LoggingObserver()).run(Step.WORK, run_id="a7"))

    assert [
        "INFO Order a7 WORK: run started, version 0",
        "DEBUG Order a7 WORK: state entered",
        "DEBUG Order a7 WORK: task started",
        "DEBUG Order a7 WORK: point scored",
        "INFO Order a7 WORK: task succeeded, next is DONE",
        "DEBUG Order a7 DONE: state entered",
        "INFO Order a7 DONE: run finished",
    ] == lines(log)
    assert {"cano.run"} == {record.name for record in log}


def test_failures(log: list[Any]) -> None:
    """What fails is a warning as long as something follows, and then an error."""

    async def fail(ctx: Context[Any]) -> Literal[Step.DONE]:
        raise ValueError("100 % wrong")

    flow = flow_of(fail, LoggingObserver(), Retry.fixed(2, 0.5))
    with pytest.raises(ValueError):
        run(flow.run(Step.WORK, run_id="a7"))

    assert [
        "WARNING Order a7 WORK: attempt failed: ValueError('100 % wrong'); the next follows in 0.5 s",
        "ERROR Order a7 WORK attempt 2: task failed: ValueError('100 % wrong')",
        "ERROR Order a7 WORK: run failed: ValueError: 100 % wrong",
    ] == lines(log)[3:]


def test_every_record_carries_its_context(log: list[Any]) -> None:
    """Run, workflow, state, attempt, branch, kind and number are attributes of each record."""

    async def branch(ctx: Context[Any]) -> int:
        return 1

    run(
        flow_of(Split([Branch(branch, name="eu")], then=Step.DONE), LoggingObserver()).run(
            Step.WORK, run_id="a7"
        )
    )
    told = [record for record in log if "branch" in record.getMessage()]

    assert [("BranchStarted", "eu"), ("BranchFinished", "eu")] == [
        (record.event, record.branch) for record in told
    ]
    record = told[0]
    where = (record.run_id, record.workflow, record.state, record.attempt, record.sequence)
    assert ("a7", "Order", "WORK", 1, 4) == where
    assert record.getMessage() == "Order a7 WORK branch eu: branch started"


KINDS = [
    kind
    for module in (events, announced)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, Event)
    and kind.__module__ == module.__name__
    and kind.__name__ not in {"Event", "Progress", "RunClaimed", "RunReopened"}
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_event_has_its_line(kind: type[Event], log: list[Any]) -> None:
    """A new kind of event must be given a level and a text, whose fields it has."""
    assert kind in LoggingObserver.LEVELS
    LoggingObserver()(kind(run_id="a7", workflow="Order", state="WORK"))

    assert log[0].getMessage().startswith("Order a7 WORK: ")


def test_fields_are_shown_for_people(log: list[Any]) -> None:
    """Moments are dates, causes are what they said, and what is of no run says nothing of one."""
    observer = LoggingObserver()
    observer(RunParked(run_id="a", until=1e9))
    observer(RunParked(run_id="a"))
    observer(CompensationFailed(run_id="a", cause=Cause(kind="m:E", message="no", traceback="t")))
    observer(ScheduleBackedOff(flow="f", streak=3, until=0.5e9))

    assert [
        "INFO a: run waits, and is let go until 2001-09-09T01:46:40+00:00",
        "INFO a: run waits, and is let go until a signal comes",
        "ERROR a: compensation failed: E: no",
        "WARNING flow f failed 3 times in a row, and rests until 1985-11-05T00:53:20+00:00",
    ] == lines(log)


def test_levels_of_ones_own(log: list[Any]) -> None:
    """A kind can be told at another level, or not at all, and own kinds too."""
    levels = {StateEntered: logging.INFO, TaskStarted: None, PointScored: logging.CRITICAL}
    observer = LoggingObserver("test.own", levels)
    run(flow_of(work, observer).run(Step.WORK, run_id="a7"))

    assert ["INFO", "INFO", "CRITICAL", "INFO", "INFO", "INFO"] == [r.levelname for r in log]
    assert {"test.own"} == {record.name for record in log}
    assert TaskStarted not in observer.events
    assert TaskSucceeded in observer.events


def test_everything_left_out(log: list[Any]) -> None:
    """With all kinds left out nothing is told, rather than everything."""
    levels: Any = dict.fromkeys([*LoggingObserver.LEVELS, PointScored])
    run(flow_of(work, LoggingObserver(levels=levels)).run(Step.WORK))

    assert [] == log


def test_a_level_that_changes_later() -> None:
    """The level of the logger counts when an event happens, not when the workflow was made."""
    handler = Kept()
    logger, heard = own_logger(handler, logging.ERROR), handler.kept
    flow = flow_of(work, LoggingObserver(logger))

    run(flow.run(Step.WORK))
    assert [] == heard

    logger.setLevel(logging.DEBUG)
    run(flow.run(Step.WORK))
    assert 7 == len(heard)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"logger": 3}, "logger=3; pass a logger or its name"),
        ({"levels": "DEBUG"}, "levels='DEBUG'; pass a mapping"),
        ({"levels": {"TaskStarted": 10}}, "a level for 'TaskStarted', which is no kind of event"),
        ({"levels": {TaskStarted: "INFO"}}, "the level 'INFO'; pass one such as logging.INFO"),
    ],
)
def test_bad_settings(settings: Any, complaint: str) -> None:
    """Settings are judged when the observer is made."""
    with pytest.raises(DefinitionError) as caught:
        LoggingObserver(**settings)

    assert complaint in str(caught.value)


def test_lines_of_tasks_carry_the_run() -> None:
    """With `RunContext` a line that a task logs says which run, state, attempt and branch it is of."""
    context = RunContext()
    handler = Kept(context)
    logger = own_logger(handler)

    async def branch(ctx: Context[Any]) -> None:
        await asyncio.sleep(1)
        logger.info("working")
        await asyncio.to_thread(logger.info, "in a thread")
        if ctx.attempt == 1:
            raise ValueError

    branches = [Branch(branch, name=name) for name in ("eu", "us")]

    async def main() -> None:
        flow = flow_of(Split(branches, then=Step.DONE), context, Retry.fixed(2, 0.1))
        logger.info("before")
        await asyncio.gather(*(flow.run(Step.WORK, run_id=name) for name in ("a", "b")))
        logger.info("after")

    run(main())
    told = {(r.run_id, r.workflow, r.state, r.attempt, r.branch) for r in handler.kept[1:-1]}

    assert {
        (name, "Order", "WORK", attempt, branch)
        for name in ("a", "b") for attempt in (1, 2) for branch in ("eu", "us")
    } == told  # fmt: skip
    assert 2 * 2 * 2 * 2 == len(handler.kept) - 2
    assert ("", 0, "") == (handler.kept[0].run_id, handler.kept[0].attempt, handler.kept[0].branch)
    assert "" == handler.kept[-1].run_id


def test_a_run_within_a_run() -> None:
    """A nested run has its own context, and the outer one its own again afterwards."""
    context = RunContext()
    handler = Kept(context)
    logger = own_logger(handler)

    async def inner(ctx: Context[Any]) -> Literal[Step.DONE]:
        logger.info("inner")
        return Step.DONE

    async def outer(ctx: Context[Any]) -> Literal[Step.DONE]:
        await flow_of(inner, context).run(Step.WORK, run_id="inner")
        logger.info("outer")
        return Step.DONE

    async def main() -> None:
        await flow_of(outer, context).run(Step.WORK, run_id="outer")
        logger.info("over")

    run(main())

    assert ["inner", "outer", ""] == [record.run_id for record in handler.kept]


def test_after_a_failure_and_a_wait() -> None:
    """Runs that fail, or are let go to wait, leave no context behind; a resumed one has it."""
    context = RunContext()
    handler = Kept(context)
    logger = own_logger(handler)

    async def wait(ctx: Context[Any]) -> Literal[Step.DONE]:
        await ctx.wait_signal("go", str)
        logger.info("goes on")
        raise ValueError

    async def main() -> None:
        async with flow_of(wait, context, checkpoints=MemoryCheckpoints()) as flow:
            handle = await flow.start_run(Step.WORK, run_id="a7")
            await asyncio.sleep(1)
            await handle.signal("go", "now")
            with pytest.raises(ValueError):
                await handle.result()
        with pytest.raises(ValueError):
            await flow_of(wait_not, context).run(Step.WORK)
        logger.info("after")

    async def wait_not(ctx: Context[Any]) -> Literal[Step.DONE]:
        raise ValueError

    run(main())

    assert [("a7", "WORK"), ("", "")] == [(r.run_id, r.state) for r in handler.kept]


def test_a_retry_of_an_item_is_not_the_next_items() -> None:
    """What is retried elsewhere than where we are does not change the attempt shown."""
    context = RunContext()
    record: Any = logging.makeLogRecord({})

    def told() -> None:
        context(TaskStarted(run_id="a", state="WORK", attempt=1))
        context(TaskRetried(run_id="a", state="WORK", attempt=1, branch="item 3"))
        assert context.filter(record)

    import contextvars

    contextvars.copy_context().run(told)

    assert (1, "") == (record.attempt, record.branch)


def test_json_lines(log: list[Any]) -> None:
    """A record is one line of JSON, with all that was added to it, errors and odd values too."""
    run(flow_of(work, LoggingObserver()).run(Step.WORK, run_id="a7"))
    line = JsonFormatter().format(log[0])
    told = json.loads(line)

    assert "\n" not in line
    assert told.pop("time").endswith("+00:00")
    assert {
        "level": "INFO", "logger": "cano.run", "message": "Order a7 WORK: run started, version 0",
        "event": "RunStarted", "sequence": 1, "run_id": "a7", "workflow": "Order", "state": "WORK",
        "attempt": 0, "branch": "",
    } == told  # fmt: skip


def test_json_of_exceptions_and_odd_values() -> None:
    """Tracebacks stay within the line, and what JSON has no form for is shown as text."""
    handler = Kept()
    logger = own_logger(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("oh", extra={"odd": {1j}, "step": Step.WORK}, stack_info=True)
    line = JsonFormatter().format(handler.kept[0])
    told = json.loads(line)

    assert "\n" not in line
    assert "ValueError: two\nlines" in told["exception"]
    assert ("{1j}", "Step.WORK") == (told["odd"], told["step"])
    assert "Stack" in told["stack"]
