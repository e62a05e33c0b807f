"""Permits of a `CircuitBreaker`: given back in any case, by whomever, in any thread."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import CircuitBreaker, CircuitOpenError, CircuitState, Context, Resources, Workflow
from cano.policies._circuit import Circuit
from cano.policies.circuit import Permit
from cano.policies.guarded import Nobody
from cano.testing import run

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


async def due(reset: float = 1.0, probes: int = 1) -> CircuitBreaker:
    """A breaker that was open, and lets the next call through as a probe."""
    breaker = CircuitBreaker(1, reset=reset, probes=probes)
    breaker.trip()
    await asyncio.sleep(reset)
    return breaker


def nobodys() -> Context:
    """The context of a call that belongs to no run."""
    return Context(Nobody(), [Step.WORK], None)


def test_a_block_is_a_call() -> None:
    """What leaves the block decides: nothing is a success, an exception a failure."""

    async def main() -> None:
        breaker = CircuitBreaker(2)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                async with breaker:
                    raise ConnectionError
            with suppress(ConnectionError):
                async with breaker:
                    assert 1 == breaker.failures_in_a_row
            assert 0 == breaker.failures_in_a_row
        for _ in range(2):
            with suppress(ConnectionError), breaker.acquire():
                raise ConnectionError
        with pytest.raises(CircuitOpenError, match=r"ConnectionError\(\)"):
            async with breaker:
                pytest.fail("the block was entered")

    run(main())


def test_the_first_word_counts() -> None:
    """A permit is given back once; what is said of it later is not heard."""
    breaker = CircuitBreaker(2)
    with breaker.acquire() as permit:
        permit.failure()
        permit.success()
    permit.failure()
    assert 1 == breaker.failures_in_a_row
    with suppress(ConnectionError), breaker.acquire() as permit:
        permit.release()
        raise ConnectionError
    assert (CLOSED, 1) == (breaker.state, breaker.failures_in_a_row)


def test_only_errors_that_count_do() -> None:
    """A block judges errors as a guarded call does."""
    breaker = CircuitBreaker(1, on=ConnectionError)
    for error in (KeyError, KeyboardInterrupt, SystemExit, asyncio.CancelledError):
        with pytest.raises(error), breaker.acquire():
            raise error
    assert CLOSED is breaker.state
    with pytest.raises(ConnectionError), breaker.acquire():
        raise ConnectionError
    assert OPEN is breaker.state


def test_a_cancelled_block_is_neutral() -> None:
    """A probe whose task is cancelled gives its place back, and nothing else."""

    async def main() -> None:
        breaker = await due()

        async def forever() -> None:
            async with breaker:
                await asyncio.sleep(1e9)

        for _ in range(3):
            task = asyncio.create_task(forever())
            await asyncio.sleep(0)
            assert None is breaker.try_acquire()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert HALF_OPEN is breaker.state
        async with breaker:
            pass
        assert "closed" == breaker.state

    run(main())


def test_blocks_of_tasks_and_within_each_other() -> None:
    """Each block gives its own permit back, whoever else is in one of the same breaker."""

    async def main() -> None:
        outer, inner = await due(probes=3), await due(probes=3)

        async def nested(fails: bool) -> None:
            async with outer, outer:
                await asyncio.sleep(1)
                with suppress(ConnectionError):
                    async with inner:
                        await asyncio.sleep(1)
                        if fails:
                            raise ConnectionError

        async with outer:
            await asyncio.gather(nested(fails=False), return_exceptions=True)
        assert CLOSED is outer.state
        await nested(fails=True)
        assert (OPEN, CLOSED) == (inner.state, outer.state)

    run(main())


def test_blocks_that_end_in_another_order() -> None:
    """Each block gives a permit of its own breaker back, whichever was entered last."""

    async def main() -> None:
        first, second = await due(), await due()
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(ValueError, ValueError(), None)
        assert (OPEN, HALF_OPEN) == (first.state, second.state)
        await second.__aexit__(None, None, None)
        assert CLOSED is second.state

    run(main())


def test_closed_in_the_moment_between() -> None:
    """Who found it not closed, and has the lock when it is, is let through as anybody else."""
    assert (1, 0) == Circuit(5, 30.0, 1).enter(0.0)


def test_a_block_that_is_left_elsewhere() -> None:
    """What is entered in one task and left in another is an error that says what to do."""

    async def main() -> None:
        breaker = CircuitBreaker()
        await asyncio.create_task(breaker.__aenter__())
        with pytest.raises(RuntimeError, match="entered in another task; use `with breaker"):
            await breaker.__aexit__(None, None, None)

    run(main())


def test_a_probe_that_is_dropped_with_its_loop() -> None:
    """Work that nobody ended gives its place back as garbage, or it is free after a while."""
    now = [0.0]
    breaker = CircuitBreaker(1, reset=30, clock=lambda: now[0])

    async def forever() -> None:
        async with breaker:
            await asyncio.get_running_loop().create_future()

    async def calling(ctx: Context) -> None:
        await asyncio.get_running_loop().create_future()

    def drop(made: object) -> None:
        loop = asyncio.new_event_loop()

        async def step() -> None:
            made.send(None)  # type: ignore[attr-defined]

        with suppress(StopIteration):
            loop.run_until_complete(step())
        loop.close()

    breaker.trip()
    now[0] += 30
    drop(forever())
    gc.collect()
    assert None is breaker.try_acquire()
    now[0] += 30
    drop(breaker.wrap(calling)(nobodys()))
    gc.collect()
    assert HALF_OPEN is breaker.state
    assert None is not breaker.try_acquire()


def test_garbage_in_the_middle_of_it() -> None:
    """A probe that is collected while the breaker is at work does not block it for ever."""

    async def main() -> None:
        breaker = await due()

        async def calling(ctx: Context) -> None:
            await asyncio.sleep(0)

        probe = breaker.wrap(calling)(nobodys())
        probe.send(None)  # type: ignore[attr-defined]
        with breaker._lock:
            del probe
            gc.collect()
        assert None is not breaker.try_acquire()

    run(main())


def test_holds_no_exception() -> None:
    """Open for hours, it keeps neither the error that opened it alive nor what that refers to."""

    class FailedError(Exception):
        pass

    async def calling(ctx: Context) -> None:
        raise FailedError

    async def main() -> None:
        breaker = CircuitBreaker(2)
        call = breaker.wrap(calling)
        for _ in range(3):
            with suppress(FailedError, CircuitOpenError):
                await call(nobodys())
        gc.collect()
        assert OPEN is breaker.state
        held = [each for each in gc.get_objects() if isinstance(each, FailedError)]
        assert [] == held

    run(main())


def test_threads() -> None:
    """Six threads with thirty failing calls each open it once, and leave it in order."""
    changes: list[tuple[str, str]] = []
    breaker = CircuitBreaker(50, on_change=lambda *change: changes.append(change))

    def work(_: int) -> int:
        made = 0
        for _ in range(30):
            with suppress(ConnectionError, CircuitOpenError), breaker.acquire():
                made += 1
                raise ConnectionError
        return made

    with ThreadPoolExecutor(6) as pool:
        made = sum(pool.map(work, range(6)))
    assert 50 <= made <= 55
    assert ([(CLOSED, OPEN)], 50) == (changes, breaker.failures_in_a_row)
    breaker.close()
    breaker.acquire().success()


def test_probes_of_threads() -> None:
    """However many threads ask at once, no more probes are out than may be."""
    now = [0.0]
    breaker = CircuitBreaker(1, reset=30, probes=3, clock=lambda: now[0])
    breaker.trip()
    now[0] += 30
    with ThreadPoolExecutor(8) as pool:
        permits = list(pool.map(lambda _: breaker.try_acquire(), range(200)))
    probes = [permit for permit in permits if permit is not None]
    assert 3 == len(probes)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Permit.success, probes))
    assert CLOSED is breaker.state


@pytest.mark.parametrize("run", [run, asyncio.run])
def test_a_thread_without_a_loop_has_the_loops_time(run: Callable[[Any], None]) -> None:
    """What was opened on a loop is open for as long in a thread, and the other way round."""

    async def main() -> None:
        breaker = CircuitBreaker(1, reset=3600)
        breaker.trip()
        assert 3590 < await asyncio.to_thread(lambda: breaker.retry_after) <= 3600
        await asyncio.to_thread(breaker.trip)
        assert 3590 < breaker.retry_after <= 3600

    run(main())


def test_without_any_loop() -> None:
    """A program without a loop may use it too."""
    breaker = CircuitBreaker(1, reset=3600)
    breaker.trip()
    assert 3590 < breaker.retry_after <= 3600


def test_survives_its_loop() -> None:
    """A breaker may be used on one loop after another; the later clock may show less."""
    breaker = CircuitBreaker(1, reset=30)

    async def opens() -> None:
        await asyncio.sleep(1000)
        breaker.trip()

    async def waits() -> None:
        assert 30.0 == breaker.retry_after
        await asyncio.sleep(30)
        async with breaker:
            pass
        assert CLOSED is breaker.state

    run(opens())
    run(waits())


def test_a_resource_that_tasks_use_by_hand() -> None:
    """Among the resources it is handed out as it is: nobody enters it for the whole run."""
    breaker = CircuitBreaker(1)

    async def work(ctx: Context, payments: CircuitBreaker) -> Literal[Step.DONE]:
        async with payments:
            raise ConnectionError

    resources = Resources(payments=breaker)
    workflow = Workflow(Step, resources=resources).register(Step.WORK, work).exits(Step.DONE)
    for error in (ConnectionError, CircuitOpenError):
        with pytest.raises(error):
            run(workflow.run(Step.WORK))
    assert breaker is resources["payments"]


def test_decorates_functions() -> None:
    """Outside of workflows it goes around any async function, whatever its parameters."""
    breaker = CircuitBreaker(2)

    @breaker
    async def divide(dividend: float, *, divisor: float) -> float:
        return dividend / divisor

    async def main() -> None:
        assert 3.0 == await divide(6, divisor=2)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await divide(6, divisor=0)
        with pytest.raises(CircuitOpenError):
            await divide(6, divisor=2)

    run(main())
