"""How the writing thread's answers reach whoever waits for them."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from cano import SqliteCheckpoints
from cano.checkpoints._sqlite_asked import Answer, Asked, Asker, Askers, apply, deliver
from cano.errors import RunExistsError


def answer() -> Answer:
    """One of the running loop, as the writer makes them."""
    made = Answer(loop=asyncio.get_running_loop())
    made.outcome = made.waiter = None
    return made


ASKERS = Askers()


def asked(made: Answer) -> Asked:
    """A question that was put to the thread."""
    asker = ASKERS[made.get_loop()]
    asker.expect(1)
    return Asked(asker, made)


def in_a_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    async def awaited() -> Any:
        return await main()

    return asyncio.run(awaited())


@pytest.fixture(
    params=["a descriptor", "no descriptor left", "a full loop", "a loop without readers"],
    autouse=True,
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the loop is woken."""

    def none_left(*_: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    def not_here(*_: Any) -> None:
        raise NotImplementedError

    if request.param == "no descriptor left":
        monkeypatch.setattr(os, "eventfd", none_left, raising=False)
    elif request.param == "a full loop":
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", none_left)
    elif request.param == "a loop without readers":
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", not_here)
    way: str = request.param
    return way


def test_a_task_goes_on_within_the_call() -> None:
    """Whoever waits is not put at the end of the loop's queue."""

    async def main() -> list[str]:
        said: list[str] = []
        one, two = answer(), answer()

        async def wait(made: Answer, name: str) -> None:
            said.append(f"{name}: {await made}")
            asyncio.get_running_loop().call_soon(said.append, "later")

        tasks = [asyncio.ensure_future(wait(one, "one")), asyncio.ensure_future(wait(two, "two"))]
        await asyncio.sleep(0)
        one.outcome, two.outcome = 1, 2
        deliver([asked(one), asked(two)])
        await asyncio.gather(*tasks)
        return said

    assert ["one: 1", "two: 2", "later"] == in_a_loop(main)[:3]


def test_everybody_who_waits_is_told() -> None:
    """A second task, and callbacks of any kind, are told as of any future."""

    async def main() -> tuple[list[Any], list[int]]:
        made, called = answer(), list[int]()
        made.add_done_callback(lambda done: called.append(done.result()))
        tasks = [asyncio.ensure_future(wait(made)) for _ in range(3)]
        await asyncio.sleep(0)
        made.outcome = 7
        deliver([asked(made)])
        return [await task for task in tasks], called

    async def wait(made: Answer) -> int:
        return int(await made)

    assert ([7, 7, 7], [7]) == in_a_loop(main)


def test_a_late_comer_finds_the_answer() -> None:
    """An answer that came before anybody waited is there for whoever does."""

    async def main() -> Any:
        made = answer()
        deliver([asked(made)])
        await asyncio.sleep(0.01)
        assert made.done()
        return await made

    assert in_a_loop(main) is None


def test_an_error_is_raised_where_it_is_awaited() -> None:
    """An outcome that is an exception is raised, not returned."""

    async def main() -> None:
        made = answer()

        async def wait() -> None:
            await made

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        made.outcome = RunExistsError("it exists")
        deliver([asked(made)])
        await task

    with pytest.raises(RunExistsError, match="it exists"):
        in_a_loop(main)


def test_a_task_is_woken_in_its_own_context() -> None:
    """What a task sees of context variables is what it set, not what the writer's call has."""
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def main() -> str:
        made = answer()

        async def wait() -> str:
            name.set("me")
            await made
            return name.get()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        deliver([asked(made)])
        assert name.get() == "nobody"
        return await task

    assert in_a_loop(main) == "me"


def test_a_cancellation_comes_after_the_answer() -> None:
    """What is asked for will be done: whoever is cancelled meanwhile learns of it afterwards."""

    async def main() -> tuple[bool, bool]:
        made = answer()

        async def wait() -> None:
            await made

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        waiting = not task.done()
        deliver([asked(made)])
        await asyncio.wait((task,))
        return waiting, task.cancelled()

    assert (True, True) == in_a_loop(main)


@pytest.mark.parametrize("order", [SystemExit, KeyboardInterrupt])
def test_an_order_to_stop_keeps_nobody_waiting(order: type[BaseException]) -> None:
    """A task that ends the loop does not take the answers of the others with it."""
    loop = asyncio.new_event_loop()

    async def stop(made: Answer) -> None:
        await made
        raise order

    async def wait(made: Answer) -> str:
        await made
        return "answered"

    async def begin() -> tuple[asyncio.Task[None], asyncio.Task[str], list[Asked]]:
        one, two = answer(), answer()
        tasks = asyncio.ensure_future(stop(one)), asyncio.ensure_future(wait(two))
        await asyncio.sleep(0)
        return *tasks, [asked(one), asked(two)]

    ends, waits, batch = loop.run_until_complete(begin())
    deliver(batch)
    with pytest.raises(order):
        loop.run_until_complete(waits)
    assert loop.run_until_complete(waits) == "answered"
    with pytest.raises(order):
        ends.result()
    loop.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such descriptors")
def test_a_descriptor_for_each_loop_that_is_open(way: str) -> None:
    """A writer that many loops ask one after the other does not run out of descriptors."""

    async def main() -> None:
        deliver([asked(made := answer())])
        await made

    asyncio.run(main())
    before = descriptors()
    for _ in range(5):
        asyncio.run(main())
        assert descriptors() == before
    assert (way == "a descriptor") == (
        next(iter(ASKERS.values())).close() and descriptors() < before
    )


def test_none_is_closed_that_may_be_written_to() -> None:
    """While an answer is to come the thread may still write, and a number is soon used again."""

    async def main() -> list[bool]:
        asker = Asker(asyncio.get_running_loop())
        asker.expect(2)
        closed = [asker.close()]
        made = answer(), answer()
        asker.answer([Asked(asker, made[0])])
        await made[0]
        closed.append(asker.close())
        asker.answer([Asked(asker, made[1])])
        await made[1]
        return [*closed, asker.close(), asker.close()]

    assert [False, False, True, True] == in_a_loop(main)


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such descriptors")
def test_who_is_forgotten_keeps_no_descriptor() -> None:
    """Where a store is never closed, its descriptors go with it."""
    gc.collect()
    before = descriptors()
    loop = asyncio.new_event_loop()
    asker = Asker(loop)
    loop.close()
    del asker, loop
    gc.collect()
    assert descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such descriptors")
def test_a_closed_store_keeps_no_descriptor(tmp_path: Path) -> None:
    """Whoever closes a store has as many descriptors as before."""

    async def main() -> None:
        before = descriptors()
        for _ in range(2):
            store = SqliteCheckpoints(tmp_path / "runs.db")
            await store.define("shape", b"{}")
            await asyncio.gather(*(store.note(str(n), b"1", None) for n in range(3)))
            assert descriptors() > before
            await store.close()
            await asyncio.sleep(0)
            assert descriptors() == before

    in_a_loop(main)


def test_what_is_refused_is_the_answer() -> None:
    """A refusal is an outcome of that question alone; the others have theirs."""

    class Refused(Asked):
        def apply(self, changes: Any) -> Any:
            raise RunExistsError("taken")

    class Done(Asked):
        def apply(self, changes: Any) -> Any:
            return changes

    async def main() -> tuple[Any, Any]:
        one, two = answer(), answer()
        asker = Asker(asyncio.get_running_loop())
        changes: Any = "done"
        apply([Refused(asker, one), Done(asker, two)], changes)
        return one.outcome, two.outcome

    refused, done = in_a_loop(main)
    assert isinstance(refused, RunExistsError)
    assert refused.__traceback__ is None
    assert done == "done"
