"""One timer per run against an asyncio task per attempt: slower, plainer, and the same outcome."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, TypeAlias

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cano import Context, Retry, Timeout
from cano._deadline import AGAIN
from cano.testing import run

Work: TypeAlias = Callable[[], Awaitable[None]]
Steps: TypeAlias = tuple[Any, ...]
Timed: TypeAlias = Callable[[Work, float], Awaitable[None]]

COUNT_IS_RIGHT = sys.version_info >= (3, 13)


class Script:
    """Steps to play, and the way in which a call of theirs is timed."""

    def __init__(self, timed: Timed) -> None:
        self.timed = timed
        self.depth = 0
        self.swallowed = -inf
        """When user code last did not pass a cancellation on."""

    async def play(self, steps: Steps) -> None:
        for step in steps:
            await step.do(self)

    def swallow(self) -> None:
        self.swallowed = asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Sleep:
    seconds: float

    async def do(self, script: Script) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Fail:
    async def do(self, script: Script) -> None:
        raise ValueError


@dataclass(frozen=True)
class Swallow:
    """Heeds no cancellation, so many times, and has a nap after all but the last."""

    times: int
    inner: Steps
    nap: float

    async def do(self, script: Script) -> None:
        todo = self.inner
        for _ in range(self.times):
            try:
                await script.play(todo)
            except asyncio.CancelledError:
                script.swallow()
                todo = (Sleep(self.nap),)


@dataclass(frozen=True)
class CleanUp:
    inner: Steps
    seconds: float

    async def do(self, script: Script) -> None:
        try:
            await script.play(self.inner)
        finally:
            await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class OwnTimeout:
    """An `asyncio.timeout` in the timed code."""

    seconds: float
    inner: Steps

    async def do(self, script: Script) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await script.play(self.inner)
        except TimeoutError:
            pass


@dataclass(frozen=True)
class Group:
    """A `TaskGroup` in the timed code: one child fails, one takes its time to clean up."""

    fails_after: float
    cleans_up: float
    inner: Steps

    async def do(self, script: Script) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(script.play((Sleep(self.fails_after), Fail())))
                group.create_task(script.play((CleanUp((Sleep(60),), self.cleans_up),)))
                await script.play(self.inner)
        except* ValueError:
            script.swallow()


@dataclass(frozen=True)
class Nested:
    """A timed call in the timed code."""

    seconds: float
    inner: Steps
    caught: bool

    async def do(self, script: Script) -> None:
        script.depth += 1
        # Of two that strike in the same moment, each in a task of its own, both would cancel.
        seconds = self.seconds + script.depth * 0.00001
        try:
            await script.timed(lambda: script.play(self.inner), seconds)
        except TimeoutError:
            if not self.caught:
                raise
        finally:
            script.depth -= 1


class TasksOfTheirOwn:
    """The plain way to time calls: a task for each, and an eye on it from outside."""

    def __init__(self) -> None:
        self.depth = 0
        self.struck = inf
        """At which depth time is up. Further inside, deadlines no longer matter."""

    async def time(self, work: Work, seconds: float) -> None:
        self.depth += 1
        try:
            await self.attend(work, seconds, self.depth)
        finally:
            self.depth -= 1
            if self.struck > self.depth:
                self.struck = inf

    async def attend(self, work: Work, seconds: float, depth: int) -> None:
        loop = asyncio.get_running_loop()
        returned = cancelled = False
        strikes = loop.time() + seconds

        async def attempt() -> None:
            nonlocal returned
            await work()
            returned = True

        task = asyncio.ensure_future(attempt())
        while not task.done():
            try:
                await asyncio.wait([task], timeout=strikes - loop.time())
            except asyncio.CancelledError:
                cancelled = True
                task.cancel()
                continue
            if not task.done():
                strikes += AGAIN
                if depth <= self.struck:
                    self.struck = depth
                    task.cancel()
        if task.cancelled() and not returned:
            expired = self.struck == depth and not cancelled
            raise TimeoutError if expired else asyncio.CancelledError
        if not task.cancelled():
            task.result()


class State(Enum):
    HERE = 1


class Host:
    """As much of a run as a context needs."""

    run_id = "r"
    resources: Any = None
    data_type = None
    durable = False

    def listens(self, kind: Any) -> bool:
        return False

    def announce(self, event: Any) -> None: ...

    async def record(self, event: Any) -> None: ...


class Outcome:
    """How a timed call ended, when, and how often its task still counted as cancelled."""

    def __init__(self) -> None:
        self.context: Context[Any] = Context(Host(), [State.HERE], None)
        self.said = ""
        self.time = 0.0
        self.count = -1
        self.swallowed = -inf

    async def by_the_alarm(self, work: Work, seconds: float) -> None:
        await Timeout(seconds).wrap(lambda ctx: work())(self.context)

    async def by_the_alarm_of_a_retry(self, work: Work, seconds: float) -> None:
        await Retry(1).wrap(Timeout(seconds).wrap(lambda ctx: work()))(self.context)

    async def watch(self, steps: Steps, limit: float, timed: Timed) -> None:
        script = Script(timed)
        task = asyncio.current_task()
        assert task is not None
        try:
            await timed(lambda: script.play(steps), limit)
            self.said = "done"
        except TimeoutError:
            self.said = "timed out"
        except asyncio.CancelledError:
            self.said = "cancelled"
        except Exception as error:
            self.said = repr(error)
        self.time = round(asyncio.get_running_loop().time(), 6)
        self.count = task.cancelling()
        self.swallowed = script.swallowed
        self.context.close()


def outcome(
    steps: Steps, limit: float, cancel_at: float | None, way: Callable[[Outcome], Timed]
) -> Outcome:
    """What became of a call of *steps*, timed that *way*, and cancelled at that time."""

    async def main() -> Outcome:
        found = Outcome()
        task = asyncio.create_task(found.watch(steps, limit, way(found)))
        if cancel_at is not None:
            asyncio.get_running_loop().call_later(cancel_at, task.cancel)
        await asyncio.wait([task])
        return found

    return run(main())


def moments(end: float) -> st.SearchStrategy[float]:
    """Hundredths of seconds, with an odd end, so that no two kinds of moments ever coincide."""
    return st.integers(1, 60).map(lambda n: n / 100 + end)


naps, limits, cancels = moments(0.0007), moments(0.00473), moments(0.00031)
sleeps = st.builds(Sleep, naps)
ways = st.sampled_from(
    [lambda found: found.by_the_alarm, lambda found: found.by_the_alarm_of_a_retry]
)


def scripts(*around: Callable[[st.SearchStrategy[Steps]], st.SearchStrategy[Any]]) -> Any:
    """Steps, in steps made by *around*, and so on."""
    few = {"min_size": 1, "max_size": 3}
    return st.recursive(
        st.lists(sleeps | sleeps | st.builds(Fail), **few).map(tuple),
        lambda inner: st.lists(sleeps | st.one_of(*(make(inner) for make in around)), **few).map(
            tuple
        ),
        max_leaves=6,
    )


def swallow(inner: st.SearchStrategy[Steps]) -> st.SearchStrategy[Any]:
    return st.builds(Swallow, st.integers(1, 5), inner, naps)


def clean_up(inner: st.SearchStrategy[Steps]) -> st.SearchStrategy[Any]:
    return st.builds(CleanUp, inner, naps)


def own_timeout(inner: st.SearchStrategy[Steps]) -> st.SearchStrategy[Any]:
    return st.builds(OwnTimeout, moments(0.00211), inner)


def group(inner: st.SearchStrategy[Steps]) -> st.SearchStrategy[Any]:
    return st.builds(Group, naps, naps, inner)


def nested(inner: st.SearchStrategy[Steps]) -> st.SearchStrategy[Any]:
    return st.builds(Nested, limits, inner, st.booleans())


@settings(max_examples=250, deadline=None)
@given(scripts(swallow, clean_up, own_timeout, group), limits, st.none() | cancels, ways)
def test_ends_as_a_task_of_its_own_would(
    steps: Steps, limit: float, cancel_at: float | None, way: Callable[[Outcome], Timed]
) -> None:
    """Whatever timed code does with its cancellations, the outcome and its time are right."""
    plain = outcome(steps, limit, cancel_at, lambda _: TasksOfTheirOwn().time)
    found = outcome(steps, limit, cancel_at, way)
    event(found.said)
    assert plain.time == found.time
    assert found.said in right_ends(plain, steps, limit, cancel_at)


def right_ends(plain: Outcome, steps: Steps, limit: float, cancel_at: float | None) -> set[str]:
    """What is right where the plain way ends so. Where the cancel count is wrong, it is less."""
    if COUNT_IS_RIGHT or plain.said != "cancelled" or cancel_at is None:
        return {plain.said}
    if cancel_at <= plain.swallowed:
        # It was not passed on, so what ended it is the deadline; but where that struck while the
        # other was still being handled, the error tells of both, and who cancelled is heeded.
        return {"cancelled", "timed out"}
    if cancel_at > limit and "Group(" in repr(steps):  # a group that is ending absorbs it
        return {"cancelled", "timed out"}
    return {"cancelled"}


@settings(max_examples=120, deadline=None)
@given(scripts(clean_up, own_timeout, nested), limits, st.none() | cancels, ways)
def test_ends_as_nested_tasks_would(
    steps: Steps, limit: float, cancel_at: float | None, way: Callable[[Outcome], Timed]
) -> None:
    """Timed calls within timed calls each end in their own time."""
    plain = outcome(steps, limit, cancel_at, lambda _: TasksOfTheirOwn().time)
    found = outcome(steps, limit, cancel_at, way)
    event(found.said)
    assert (plain.said, plain.time) == (found.said, found.time)


@settings(max_examples=120, deadline=None)
@given(scripts(swallow, clean_up, own_timeout, nested), limits, st.none() | cancels, ways)
def test_takes_its_cancellations_back(
    steps: Steps, limit: float, cancel_at: float | None, way: Callable[[Outcome], Timed]
) -> None:
    """Afterwards the task counts as cancelled as often as others have cancelled it."""
    found = outcome(steps, limit, cancel_at, way)
    cancelled = cancel_at is not None and round(cancel_at, 6) <= found.time
    assert int(cancelled) == found.count
