"""How the writing thread's answers reach whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from cano.checkpoints._sqlite_asked import Answer, Asked, apply, deliver
from cano.errors import RunExistsError


def answer() -> Answer:
    """One of the running loop, as the writer makes them."""
    made = Answer(loop=asyncio.get_running_loop())
    made.outcome = made.waiter = None
    return made


def asked(made: Answer) -> Asked:
    return Asked(made.get_loop(), made)


def in_a_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    async def awaited() -> Any:
        return await main()

    return asyncio.run(awaited())


def test_a_task_goes_on_within_the_call() -> None:
    """Whoever waits is not put at the end of the loop's queue."""

    async def main() -> list[str]:
        said: list[str] = []
        one, two = answer(), answer()

        async def wait(made: Answer, name: str) -> None:
            said.append(f"{name}: {await made}")

        tasks = [asyncio.ensure_future(wait(one, "one")), asyncio.ensure_future(wait(two, "two"))]
        await asyncio.sleep(0)
        one.outcome, two.outcome = 1, 2
        deliver([asked(one), asked(two)])
        asyncio.get_running_loop().call_soon(said.append, "later")
        await asyncio.gather(*tasks)
        return said

    assert ["one: 1", "two: 2", "later"] == in_a_loop(main)


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
        loop = asyncio.get_running_loop()
        changes: Any = "done"
        apply([Refused(loop, one), Done(loop, two)], changes)
        return one.outcome, two.outcome

    refused, done = in_a_loop(main)
    assert isinstance(refused, RunExistsError)
    assert refused.__traceback__ is None
    assert done == "done"
