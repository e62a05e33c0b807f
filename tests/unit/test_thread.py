"""`thread`: ordinary functions beside the event loop, a bounded number at a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextvars import ContextVar
from enum import Enum, auto
from functools import partial
from typing import Any, Literal

import pytest

from cano import Context, Resources, Split, Task, Workflow, thread
from cano.errors import DefinitionError
from cano.executors.thread import LIMIT
from cano.tasks.verb import describe
from cano.testing import run

SPOKEN: ContextVar[str] = ContextVar("SPOKEN", default="nothing")


class Step(Enum):
    WORK = auto()
    REPORT = auto()
    DONE = auto()


def work(ctx: Context, words: list[str]) -> Literal[Step.DONE]:
    words.append(f"{ctx.state.name} in {threading.current_thread().name.split('_')[0]}")
    return Step.DONE


class Crowd:
    """Knows how many were inside at once; lets them go in groups of *size* only."""

    def __init__(self, size: int) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(size, timeout=10)

    def visit(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.barrier.wait()
        with self.lock:
            self.inside -= 1
        self.barrier.wait()


class Gate:
    """A function that says when it has begun and ends when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.opened = threading.Event()
        self.log: list[str] = []
        self.loop = asyncio.get_running_loop()

    def wait(self) -> str:
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.opened.wait(10)
        self.log.append("waited")
        return "dropped"

    def say(self, word: str) -> None:
        self.log.append(word)


def test_describes_like_the_function() -> None:
    """Name, edges and resources are read through the wrapper, and it counts as async."""
    verb = describe(thread(work))

    assert "work" == verb.name
    assert frozenset({Step.DONE}) == verb.targets
    assert ["words"] == [want.name for want in verb.wants]
    assert verb.problem is None


def test_is_a_state_s_task() -> None:
    """A wrapped function runs as a task, in a thread of ours, with context and resources."""
    words: list[str] = []
    flow = Workflow(Step, resources=Resources(words=words))
    flow.register(Step.WORK, thread(work)).exits(Step.DONE, Step.REPORT)

    assert run(flow.run(Step.WORK)) is Step.DONE
    assert ["WORK in cano-thread"] == words


def test_is_a_branch() -> None:
    """Wrapped functions are branches, and a `Split.over` gives them their items."""

    def double(ctx: Context, item: int) -> int:
        return 2 * item

    async def report(ctx: Context) -> Literal[Step.DONE]:
        assert ctx.split is not None
        seen.extend(ctx.split.values)
        return Step.DONE

    seen: list[int] = []
    items = [1, 2, 3]
    flow = (
        Workflow(Step)
        .register(Step.WORK, Split.over(lambda _: items, run=thread(double), then=Step.REPORT))
        .register(Step.REPORT, report)
        .exits(Step.DONE)
    )
    run(flow.run(Step.WORK))

    assert [2, 4, 6] == seen


def test_decorates_methods() -> None:
    """As a decorator in a class body it binds like a function."""

    class Work(Task[Step]):
        found = Step.DONE

        @thread
        def run(self, ctx: Context) -> Literal[Step.DONE]:
            return self.found

    flow = Workflow(Step).register(Step.WORK, Work()).exits(Step.DONE, Step.REPORT)

    assert run(flow.run(Step.WORK)) is Step.DONE


def test_runs_by_itself() -> None:
    """Called outside a workflow it passes arguments on and hands the result back."""

    async def main() -> int:
        return await thread(int)("11", base=2)

    assert 3 == run(main())


def test_copies_context_variables() -> None:
    """The function sees the caller's context variables; what it sets stays its own."""

    def speak() -> str:
        heard = SPOKEN.get()
        SPOKEN.set("in the thread")
        return heard

    async def main() -> tuple[str, str]:
        SPOKEN.set("outside")
        return await thread(speak)(), SPOKEN.get()

    assert ("outside", "outside") == run(main())


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), StopIteration("no")])
def test_exceptions_come_out(error: Exception) -> None:
    """What the function raises is raised; `StopIteration`, which asyncio refuses, in another."""

    def fail() -> None:
        raise error

    async def main() -> None:
        await thread(fail)()

    with pytest.raises((ValueError, KeyError, RuntimeError)) as caught:
        run(main())

    assert error in (caught.value, caught.value.__cause__)


@pytest.mark.parametrize("limit", [2, None])
def test_bound(limit: int | None) -> None:
    """At most *limit* calls run at once, or 32 without one; the others wait."""
    places = limit or LIMIT
    crowd = Crowd(places)
    visit = thread(crowd.visit, limit=limit)

    async def main() -> None:
        await asyncio.gather(*[visit() for _ in range(2 * places)])

    run(main())

    assert 32 == LIMIT
    assert places == crowd.most


def test_abandons() -> None:
    """Cancelled, a call that has begun goes on unheard and keeps its place until it returns."""

    async def main() -> tuple[bool, list[str], list[str]]:
        gate = Gate()
        do = thread(lambda f, *args: f(*args), limit=1)
        abandoned = asyncio.ensure_future(do(gate.wait))
        await gate.begun.wait()
        abandoned.cancel()
        await asyncio.wait({abandoned})
        following = asyncio.ensure_future(do(gate.say, "next"))
        await asyncio.sleep(0)
        before = list(gate.log)
        gate.opened.set()
        await following
        return abandoned.cancelled(), before, gate.log

    assert (True, [], ["waited", "next"]) == run(main())


def test_what_has_not_begun_never_will() -> None:
    """Cancelled while it waits in line, a call is not made."""

    async def main() -> list[str]:
        gate = Gate()
        do = thread(lambda f, *args: f(*args), limit=1)
        first = asyncio.ensure_future(do(gate.wait))
        await gate.begun.wait()
        second = asyncio.ensure_future(do(gate.say, "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        third = asyncio.ensure_future(do(gate.say, "third"))
        gate.opened.set()
        await asyncio.gather(first, third)
        return gate.log

    assert ["waited", "third"] == run(main())


def test_holds_virtual_time() -> None:
    """Virtual time stands still while a thread works."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        sleeper = asyncio.ensure_future(asyncio.sleep(10))
        await thread(sum)(range(1_000_000))
        now = loop.time()
        await sleeper
        return now

    assert 0.0 == run(main())


def test_outlives_event_loops() -> None:
    """One wrapped function serves several event loops, one after the other."""
    name = thread(threading.get_ident, limit=1)

    async def main() -> int:
        return await name()

    assert 1 == len({run(main()), asyncio.run(main())})


def test_starts_no_thread_before_it_is_called() -> None:
    """Wrapping alone costs no thread."""
    before = threading.active_count()
    wrapped = [thread(work, limit=5) for _ in range(10)]

    assert before == threading.active_count(), wrapped


FORKING = """
import asyncio, os, warnings
from cano import thread
warnings.simplefilter("ignore")
length = thread(len)
async def main(): return await length("four")
asyncio.run(main())
if (child := os.fork()) == 0:
    os._exit(asyncio.run(main()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_survives_a_fork() -> None:
    """A forked process, which has none of its parent's threads, makes its own."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30
    )

    assert ("4\n", "") == (done.stdout, done.stderr)


async def asynchronous(ctx: Context) -> None: ...


class Asynchronous:
    async def __call__(self, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "limit", "said"),
    [
        (asynchronous, None, "asynchronous is async already and needs no thread"),
        (partial(asynchronous), None, "async already"),
        (Asynchronous(), None, "Asynchronous is async already"),
        (thread(work), None, "work is async already"),
        ("work", None, "thread('work'): pass a function"),
        (work, 0, "thread(work, limit=0) lets nothing run; pass 1 or more"),
    ],
)
def test_refuses(wrong: Any, limit: int | None, said: str) -> None:
    """What cannot run in a thread, or needs none, is refused at once."""
    with pytest.raises(DefinitionError) as caught:
        thread(wrong, limit=limit)

    assert said in str(caught.value)
