"""Virtual time: what is due happens in order, threads are waited for, nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import Context, Retry, SqliteCheckpoints, Timeout, Workflow, process, thread
from cano._clock import wall_offset
from cano.errors import DefinitionError
from cano.testing.clock import VirtualLoop, advance, jump, now, run

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


def elapsed() -> float:
    return asyncio.get_running_loop().time()


def test_hours_pass_at_once() -> None:
    """Sleeps, timeouts and backoff take virtual time and no other."""

    async def work(ctx: Context) -> Literal[Step.DONE]:
        await asyncio.sleep(7200)
        return Step.DONE

    async def main() -> None:
        flow = Workflow(Step).register(Step.WORK, work, Retry.fixed(3, 600), Timeout(3600))
        with pytest.raises(TimeoutError):
            await flow.exits(Step.DONE).run(Step.WORK)
        assert 3 * 3600 + 2 * 600 == elapsed()

    run(main())


def test_advance() -> None:
    """`advance` lets happen what is due by then, at the very moment too, and nothing after it."""
    done: list[float] = []

    async def ticking() -> None:
        while True:
            await asyncio.sleep(60)
            for _ in range(100):  # what follows from it takes its turns of the loop
                await asyncio.sleep(0)
            done.append(elapsed())

    async def main() -> None:
        task = asyncio.create_task(ticking())
        await advance(59)
        assert [] == done
        await advance(1)
        assert [60.0] == done
        await advance(3600)
        assert 61 == len(done)
        assert 3660.0 == elapsed()
        task.cancel()
        await advance()
        assert task.done()

    run(main())


def test_advance_waits_for_threads() -> None:
    """What threads do at a moment is done when that moment is over."""
    done: list[str] = []
    go = threading.Event()

    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(60)
            asyncio.get_running_loop().call_soon(go.set)
            await asyncio.to_thread(go.wait, 10)
            done.append("done")

        task = asyncio.create_task(work())
        await advance(60)
        assert (["done"], 60.0, True) == (done, elapsed(), task.done())

    run(main())


def test_advance_twice_at_once() -> None:
    """Two tasks may advance side by side; each comes back at its own time."""

    async def main() -> None:
        async def there(seconds: float) -> float:
            await advance(seconds)
            return elapsed()

        assert [5.0, 60.0, 60.0] == await asyncio.gather(there(5), there(60), there(60))

    run(main())


def test_the_wall_clock_can_be_set() -> None:
    """The wall clock begins where it is told and moves with the loop's time; runs see it."""
    times: list[datetime] = []

    async def work(ctx: Context) -> Literal[Step.DONE]:
        times.append(datetime.fromtimestamp(ctx.now(), UTC))
        await ctx.sleep(86_400)
        times.append(datetime.fromtimestamp(ctx.now(), UTC))
        return Step.DONE

    async def main() -> None:
        assert now() == NEW_YEAR
        await advance(3600)
        assert now() == NEW_YEAR + timedelta(hours=1)
        await Workflow(Step).register(Step.WORK, work).exits(Step.DONE).run(Step.WORK)

    run(main(), at=NEW_YEAR)
    assert [NEW_YEAR + timedelta(hours=hours) for hours in (1, 25)] == times


def test_a_set_clock_is_not_inherited() -> None:
    """A loop that was told where to begin does not push later ones into its future."""

    async def time() -> datetime:
        return now()

    before = run(time())
    run(time(), at=NEW_YEAR + timedelta(days=36_500))
    assert run(time()) - before < timedelta(hours=1)


def test_the_wall_clock_jumps() -> None:
    """A jump moves the wall clock for whoever looks next, and no timer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sleep = asyncio.create_task(asyncio.sleep(60))
        await advance(30)
        jump(-3600)
        assert now() == NEW_YEAR - timedelta(minutes=59, seconds=30)
        assert NEW_YEAR.timestamp() - 3600 == wall_offset(loop)
        assert not sleep.done()
        await advance(30)
        assert sleep.done()

    run(main(), at=NEW_YEAR)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"at": datetime(2027, 1, 1)}, "no time zone"), ({"limit": 0}, "leaves no time")],  # noqa: DTZ001
)
def test_settings_are_checked(settings: dict[str, Any], match: str) -> None:
    """A moment without a zone and a limit of nothing are refused at once."""
    with pytest.raises(DefinitionError, match=match):
        VirtualLoop(**settings)


def test_real_time_cannot_be_moved() -> None:
    """Outside of virtual time, moving it says what to do instead of waiting."""
    for call in (now, lambda: jump(1)):

        async def main(call: Any = call) -> None:
            call()

        with pytest.raises(DefinitionError, match=r"cano\.testing\.run\(main\(\)\)"):
            asyncio.run(main())
    with pytest.raises(DefinitionError, match="in virtual time only"):
        asyncio.run(advance(3600))


def test_a_deadlock_says_who_waits() -> None:
    """When nothing can ever happen again, the error names each task and the line it waits at."""

    async def waits(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        event = asyncio.Event()
        other = asyncio.create_task(waits(event), name="the other")
        await asyncio.gather(other)

    with pytest.raises(RuntimeError, match="deadlock: every task waits") as caught:
        run(main())
    first, *lines = str(caught.value).splitlines()
    assert "deadlock: every task waits and no timer is set" == first
    assert 2 == len(lines)
    assert lines[0].startswith("  Task-")
    assert "main, " in lines[0]
    assert lines[1].startswith(
        "  the other waits in test_a_deadlock_says_who_waits.<locals>.waits, "
    )
    assert f"{__file__}:{waits.__code__.co_firstlineno + 1}" in lines[1]


def test_a_deadlock_in_a_run_names_the_task_of_the_user() -> None:
    """Of what waits within the engine, the innermost line of the user's own is shown."""

    async def work(ctx: Context) -> Literal[Step.DONE]:
        await ctx.wait_signal("go", int)
        return Step.DONE

    flow = Workflow(Step).register(Step.WORK, work).exits(Step.DONE)
    with pytest.raises(RuntimeError, match=r"<locals>\.work, .*test_virtual_time\.py:\d+"):
        run(flow.run(Step.WORK))


def test_many_who_wait_are_cut() -> None:
    """Of very many tasks twenty are listed."""

    async def main() -> None:
        for_ever = asyncio.Event()
        await asyncio.gather(*[for_ever.wait() for _ in range(50)])

    with pytest.raises(RuntimeError, match="and 31 more$"):
        run(main())


def test_a_limit() -> None:
    """Where timers go on for ever, a limit ends the test and says who waits; cleaning up works."""
    cleaned: list[str] = []

    async def heartbeat() -> None:
        try:
            while True:
                await asyncio.sleep(5)
        finally:
            await asyncio.sleep(60)
            cleaned.append("yes")

    async def main() -> None:
        await asyncio.create_task(heartbeat(), name="heart")

    with pytest.raises(RuntimeError, match="not over after its limit of 3600 virtual") as caught:
        run(main(), limit=3600)
    assert "\n  heart waits in " in str(caught.value)
    assert ["yes"] == cleaned


def test_a_thread_task_holds_the_time() -> None:
    """While the thread of a task works, no timeout passes, however long it takes."""
    entered, release = threading.Event(), threading.Event()

    def work(ctx: Context) -> Literal[Step.DONE]:
        entered.set()
        release.wait(10)
        return Step.DONE

    async def main() -> None:
        flow = Workflow(Step).register(Step.WORK, thread(work), Timeout(0.001)).exits(Step.DONE)
        running = asyncio.create_task(flow.run(Step.WORK))
        while not entered.is_set():
            await asyncio.sleep(0)
        threading.Timer(0.05, release.set).start()
        assert Step.DONE is await running
        assert 0.0 == elapsed()

    run(main())


def double(number: int) -> int:
    return 2 * number


def test_a_process_holds_the_time() -> None:
    """While another process works, no timer is jumped to, though starting it takes a while."""

    async def main() -> None:
        call = asyncio.create_task(process(double)(21))
        tick = asyncio.create_task(asyncio.sleep(0.001))
        assert 42 == await call
        assert 0.0 == elapsed()
        await tick

    run(main())


def test_sqlite_in_virtual_time(tmp_path: Path) -> None:
    """A run of a day over a SQLite store takes a virtual day, and no lease is lost on the way."""

    async def work(ctx: Context) -> Literal[Step.DONE]:
        for _ in range(24):
            await ctx.sleep(3600)
        return Step.DONE

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "runs.db") as store:
            flow = Workflow(Step, checkpoints=store, lease=900)
            async with flow.register(Step.WORK, work).exits(Step.DONE) as flow:
                handle = await flow.start_run(Step.WORK)
                await advance(86_399)
                assert "running" == handle.status
                await advance(2)
                assert "finished" == handle.status

    run(main())
