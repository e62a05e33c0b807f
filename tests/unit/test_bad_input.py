"""What people get wrong: each ends in an error or an outcome that a person understands."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, Resources, Retry, Split, Workflow
from cano.errors import (
    DataError,
    DefinitionError,
    DuplicateResourceError,
    JoinFailedError,
    ResourceNotFoundError,
    RoutingError,
    RunCancelledError,
)
from cano.join import Quorum
from cano.testing import run


class Step(Enum):
    WORK = "work"
    NEXT = "next"
    DONE = "done"


class Other(Enum):
    DONE = "done"


async def finish(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def flow_of(work: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    """WORK does *work*, NEXT leads to the exit."""
    flow = Workflow(Step, **settings).register(Step.WORK, work, *policies)
    return flow.register(Step.NEXT, finish).exits(Step.DONE)


def returning(value: Any) -> Any:
    async def work(ctx: Context[Any]) -> Any:
        return value

    return work


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("done", r"WORK, returned 'done'; that is no member of Step; did you mean .*DONE"),
        (Other.DONE, r"WORK, returned <Other\.DONE: 'done'>; that is no member of Step"),
        (None, "WORK, returned None; .*A task without a return statement returns None"),
        ((Step.NEXT, 1), r"WORK, returned \(<Step\.NEXT: 'next'>, 1\); that is no member of Step"),
    ],
)
def test_a_task_that_leads_nowhere(value: Any, expected: str) -> None:
    """A foreign value, or none at all, fails the run; it never counts as an end."""
    with pytest.raises(RoutingError, match=expected):
        run(flow_of(returning(value)).run(Step.WORK))


def test_a_state_that_nobody_provided_for() -> None:
    """A state without a task is found before the first task runs."""
    flow = Workflow(Step).register(Step.WORK, finish).exits(Step.DONE)
    with pytest.raises(DefinitionError, match="^NEXT has no task and is not an exit; register"):
        flow.run(Step.WORK)


@dataclass
class Locked:
    lock: threading.Thread | None = None


@dataclass
class Loose:
    anything: Any = None


def test_a_data_type_that_cannot_be_written_down() -> None:
    """A field that can never be written down is found before the first run."""
    with pytest.raises(DefinitionError, match=r"Locked\.lock holds a Thread, which cannot be"):
        flow_of(finish, data=Locked).run(Step.WORK)


def test_a_value_that_cannot_be_written_down() -> None:
    """One that only turns up at run time fails the run where it has to be written, by name."""

    async def work(ctx: Context[Loose]) -> Literal[Step.NEXT]:
        ctx.data.anything = object()
        return Step.NEXT

    flow = flow_of(work, data=Loose).register(Step.NEXT, finish, Retry())
    with pytest.raises(DataError, match=r"Loose\.anything holds an object that cannot be written"):
        run(flow.run(Step.WORK))


def test_a_duplicate_resource() -> None:
    """Two resources of one name are refused when the second is added."""
    with pytest.raises(DuplicateResourceError, match="'db' is in .* already; take another name"):
        Resources(db=1).add("db", 2)


def test_a_missing_resource() -> None:
    """A resource that a parameter names is missed by the check, one that `get` names at run time."""

    async def asks(ctx: Context[Any]) -> Literal[Step.DONE]:
        ctx.get(int, "db")
        return Step.DONE

    async def wants(ctx: Context[Any], db: int) -> Literal[Step.DONE]:
        return Step.DONE

    with pytest.raises(DefinitionError, match=r"WORK: .*wants a resource named 'db'; pass Res"):
        flow_of(wants).run(Step.WORK)
    with pytest.raises(ResourceNotFoundError, match=r"no resource 'db' in .*did you mean 'dbs'\?"):
        run(flow_of(asks, resources=Resources(dbs=1)).run(Step.WORK))


@dataclass
class Faulty:
    """A resource that fails in one of its hooks, and writes down which were called."""

    hook: str
    log: list[str] = field(default_factory=list)

    def call(self, hook: str) -> None:
        self.log.append(hook)
        if hook == self.hook:
            raise OSError(f"{hook} failed")

    async def setup(self) -> None:
        self.call("setup")

    async def teardown(self) -> None:
        self.call("teardown")

    async def health(self) -> bool:
        self.call("health")
        return True


def test_a_raising_setup() -> None:
    """The run does not start, what was up is torn down, and the error says whose setup it was."""
    sound, broken = Faulty(""), Faulty("setup")
    flow = flow_of(finish, resources=Resources(sound=sound, broken=broken))
    with pytest.raises(OSError, match="setup failed") as caught:
        run(flow.run(Step.WORK))

    assert ["setup", "teardown"] == sound.log
    assert ["cano: setting up resource 'broken'"] == caught.value.__notes__


def test_a_raising_teardown(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and takes nothing from the run's success."""
    flow = flow_of(finish, resources=Resources(broken=Faulty("teardown")))
    with caplog.at_level(logging.ERROR):
        assert Step.DONE == run(flow.run(Step.WORK))

    assert ["tearing down resource 'broken' failed"] == [r.getMessage() for r in caplog.records]


def test_a_raising_health_check() -> None:
    """It is an answer like any other: unhealthy, with the error as the reason."""
    health = run(Resources(broken=Faulty("health"), sound=Faulty("")).health())

    assert "unhealthy: OSError: health failed" == str(health["broken"])
    assert health["sound"].ok


def test_a_raising_observer(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once and told no more; the run does not notice."""

    def faulty(event: Any) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        assert Step.DONE == run(flow_of(finish, observers=[faulty]).run(Step.WORK))

    assert 1 == len(caplog.records)
    assert "is told no more" in caplog.records[0].getMessage()


def test_a_branch_that_never_suspends() -> None:
    """It runs to its end when its turn comes, and the others lose nothing but the time."""
    rounds = []

    async def busy(ctx: Context[Any]) -> str:
        rounds.extend(range(1000))
        return "busy"

    async def polite(ctx: Context[Any]) -> str:
        await asyncio.sleep(1)
        return "polite"

    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.extend(ctx.split.values if ctx.split else ())
        return Step.DONE

    flow = flow_of(Split([polite, busy], then=Step.NEXT)).register(Step.NEXT, look)

    assert Step.DONE == run(flow.run(Step.WORK))
    assert ["polite", "busy"] == found
    assert 1000 == len(rounds)


def test_a_cycle_that_never_suspends_meets_its_timeout() -> None:
    """A run's timeout is looked at between visits too, where no timer can ring."""

    async def burn(ctx: Context[Any]) -> Literal[Step.WORK, Step.NEXT]:
        asyncio.get_running_loop().now += 1  # type: ignore[attr-defined]
        return Step.WORK

    with pytest.raises(TimeoutError, match=r"the run took longer than its 10 s; .* visit WORK"):
        run(flow_of(burn, timeout=10).run(Step.WORK))


def test_a_task_that_swallows_a_cancellation_once() -> None:
    """Through a handle it is cancelled again, and the run ends as cancelled."""
    swallowed = []

    async def stubborn(ctx: Context[Any]) -> Literal[Step.NEXT]:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            swallowed.append(1)
        await asyncio.sleep(1000)
        return Step.NEXT

    async def main() -> float:
        handle = await flow_of(stubborn).start_run(Step.WORK)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError, match="was cancelled"):
            await handle.result()
        return asyncio.get_running_loop().time()

    assert run(main()) < 1.2
    assert [1] == swallowed


def test_a_run_inside_a_run_that_fails() -> None:
    """The error is the one that was raised, with a note for each of the runs it came through."""
    inner = flow_of(returning(None), name="inner")

    async def outer(ctx: Context[Any]) -> Literal[Step.NEXT]:
        await inner.run(Step.WORK)
        return Step.NEXT

    with pytest.raises(RoutingError) as caught:
        run(flow_of(outer, name="outer").run(Step.WORK))

    first, second = caught.value.__notes__
    assert first.endswith("of inner: WORK")
    assert second.endswith("of outer: WORK")


def test_ten_thousand_branches_one_at_a_time() -> None:
    """A bulkhead of 1 holds however many there are, and every one has its turn."""
    running = most = ran = 0

    async def branch(ctx: Context[Any], item: int) -> int:
        nonlocal running, most, ran
        running += 1
        most = max(most, running)
        ran += 1
        if not item % 1000:
            await asyncio.sleep(1)
        running -= 1
        return item

    split = Split.over(lambda data: range(10_000), run=branch, then=Step.NEXT, bulkhead=1)

    assert Step.DONE == run(flow_of(split).run(Step.WORK))
    assert (1, 10_000) == (most, ran)


def test_a_join_that_cannot_be_met_any_more() -> None:
    """It fails at once, and holds what the branches raised."""

    async def fail(ctx: Context[Any]) -> int:
        raise ValueError("no")

    async def linger(ctx: Context[Any]) -> int:
        await asyncio.sleep(1000)
        return 1

    async def main() -> float:
        split = Split([linger, fail, fail], then=Step.NEXT, join=Quorum(2))
        with pytest.raises(JoinFailedError, match="the join of WORK failed: 0 of 3") as caught:
            await flow_of(split).run(Step.WORK)
        assert ["no", "no"] == [str(error) for error in caught.value.exceptions]
        return asyncio.get_running_loop().time()

    assert run(main()) < 1


@dataclass
class Numbered:
    number: int = 0


def test_two_runs_at_once() -> None:
    """Each has its own data, and one's failure is no affair of the other's."""

    async def work(ctx: Context[Numbered]) -> Literal[Step.NEXT]:
        await asyncio.sleep(1)
        if ctx.data.number:
            raise ValueError(ctx.data.number)
        return Step.NEXT

    async def main() -> list[Any]:
        flow = flow_of(work, data=Numbered)
        runs = [flow.run(Step.WORK, data=Numbered(number)) for number in (0, 7)]
        return await asyncio.gather(*runs, return_exceptions=True)

    first, second = run(main())

    assert Step.DONE == first
    assert "7" == str(second)


def test_a_task_that_awaits_what_was_cancelled_elsewhere() -> None:
    """Its `CancelledError` is an error of the run, not a cancellation that nobody ordered."""

    async def work(ctx: Context[Any]) -> Literal[Step.NEXT]:
        other = asyncio.ensure_future(asyncio.sleep(1000))
        other.cancel()
        await other
        return Step.NEXT

    with pytest.raises(Exception, match="WORK raised CancelledError, but nobody had cancelled the"):
        run(flow_of(work).run(Step.WORK))


def test_awaiting_twice() -> None:
    """What `run` returns is awaited once, as any coroutine."""

    async def main() -> None:
        running = flow_of(finish).run(Step.WORK)
        await running
        with pytest.raises(RuntimeError, match="already awaited coroutine"):
            await running

    run(main())
