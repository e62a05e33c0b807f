"""`Timeout`: the end of one attempt, and what user code can do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum, auto
from math import inf, nan
from typing import Any

import pytest

from cano import Context, Retry, Timeout, Workflow
from cano.errors import AttemptTimeoutError, CanoError, DefinitionError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


Body = Callable[[Context], Awaitable[Any]]


def flow(body: Body, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    async def work(ctx: Context) -> Step:
        await body(ctx)
        return Step.DONE

    return Workflow(Step, **settings).register(Step.WORK, work, *policies).exits(Step.DONE)


def ended(body: Body, *policies: Any, **settings: Any) -> tuple[object, float]:
    """What a run of *body* came to, the exit or the error, and when."""

    async def main() -> tuple[object, float]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        try:
            end: object = await flow(body, *policies, **settings).run(Step.WORK)
        except Exception as error:
            end = error
        assert 0 == task.cancelling(), "what was sent was not taken back"
        return end, round(loop.time(), 6)

    return run(main())


async def nap(ctx: Context) -> None:
    await asyncio.sleep(60)


async def failing_group(slow: float = 0) -> None:
    """A task group whose child fails, and whose other child takes its time to clean up."""

    async def fail() -> None:
        raise ValueError

    async def clean_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(slow)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(clean_up())
    except* ValueError:
        pass


def test_leaves_a_call_in_time_alone() -> None:
    """Who is done in time notices nothing."""
    assert (Step.DONE, 60) == ended(nap, Timeout(61))


def test_ends_a_call_that_takes_too_long() -> None:
    """At its deadline the call is cancelled, and fails with an error that is a `TimeoutError`."""
    error, time = ended(nap, Timeout(5))
    assert 5 == time
    assert isinstance(error, AttemptTimeoutError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, CanoError)


def test_names_state_attempt_and_limit() -> None:
    """The error says where it happened, in which attempt, and what the limit was."""
    error, _ = ended(nap, Retry.fixed(2, 0), Timeout(2.5))
    assert "attempt 2 in WORK took longer than 2.5 s" == str(error)


def test_is_tried_again_after() -> None:
    """A timeout is an error like any other for `Retry`, and every attempt has its own time."""

    async def slow_then_fast(ctx: Context) -> None:
        await asyncio.sleep(60 if ctx.attempt == 1 else 4)

    assert (Step.DONE, 5 + 1 + 4) == ended(slow_then_fast, Retry.fixed(2, 1), Timeout(5))


def test_counts_from_the_call() -> None:
    """A new visit has new time, however long the run has taken."""
    visits = 0

    async def again(ctx: Context) -> Step:
        nonlocal visits
        visits += 1
        await asyncio.sleep(4)
        return Step.WORK if visits < 100 else Step.DONE

    workflow = Workflow(Step).register(Step.WORK, again, Timeout(5)).exits(Step.DONE)
    assert Step.DONE == run(workflow.run(Step.WORK))


def test_strikes_again_at_once_in_the_next_attempt() -> None:
    """An attempt that is over does not put off the end of one soon after it."""
    assert 0.06 == ended(nap, Retry.fixed(3, 0), Timeout(0.02))[1]


def test_inside_another_the_shorter_one_ends_the_call() -> None:
    """Of two timeouts around a call the one that is due first is the one that failed."""
    assert "took longer than 3 s" in str(ended(nap, Timeout(5), Timeout(3))[0])
    assert "took longer than 3 s" in str(ended(nap, Timeout(3), Timeout(5))[0])


def test_of_two_at_once_the_outer_one_counts() -> None:
    """Two timeouts due in the same moment are the outer one's: no attempt would be left time."""
    error, time = ended(nap, Timeout(2), Retry.fixed(3, 0), Timeout(2))
    assert ("attempt 1 in WORK took longer than 2 s", 2) == (str(error), time)
    assert not any("gave up" in note for note in error.__notes__)  # type: ignore[attr-defined]


def test_the_outer_one_strikes_while_the_inner_one_is_being_heeded() -> None:
    """Who cleans up after one timeout is cancelled anew when an outer one is due."""
    interrupted: list[float] = []

    async def clean_up(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                interrupted.append(asyncio.get_running_loop().time())

    error, time = ended(clean_up, Timeout(1.02), Timeout(1))
    assert ([1.02], 1.02) == (interrupted, time)
    assert "took longer than 1.02 s" in str(error)


def test_the_inner_one_no_longer_matters_when_the_outer_one_has_struck() -> None:
    """Who cleans up after the outer timeout is not cancelled anew when the inner one is due."""

    async def clean_up(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.04)

    error, time = ended(clean_up, Timeout(1), Timeout(1.02))
    assert 1.04 == time
    assert "took longer than 1 s" in str(error)


def test_a_value_returned_after_all_counts() -> None:
    """Code that swallows the cancellation and returns a value has succeeded."""

    async def stubborn(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)

    assert (Step.DONE, 5.01) == ended(stubborn, Timeout(5))


def test_an_error_raised_after_all_counts() -> None:
    """What goes wrong while the call is cleaned up passes like any error of the user's."""

    async def clumsy(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while cleaning up")

    assert "while cleaning up" == str(ended(clumsy, Timeout(5))[0])


def test_waits_for_what_cleans_up() -> None:
    """The attempt is over when its `finally` is, so that nothing of it runs beside the next."""
    left: list[float] = []

    async def tidy(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.04)
            left.append(asyncio.get_running_loop().time())

    error, time = ended(tidy, Timeout(5))
    assert isinstance(error, AttemptTimeoutError)
    assert ([5.04], 5.04) == (left, time)


@pytest.mark.parametrize("times", [1, 5])
def test_cancels_again_who_heeds_no_cancellation(times: int) -> None:
    """A call that swallows cancellations is cancelled every 50 ms until it ends."""
    caught: list[float] = []

    async def stubborn(ctx: Context) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                caught.append(round(asyncio.get_running_loop().time(), 6))
                if len(caught) > times:
                    raise

    error, time = ended(stubborn, Timeout(1))
    assert isinstance(error, AttemptTimeoutError)
    assert [round(1 + n * 0.05, 6) for n in range(times + 1)] == caught
    assert caught[-1] == time


def test_cancels_again_what_the_call_waits_for() -> None:
    """A task that the call awaits, and that swallows a cancellation, is cancelled again too."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def body(ctx: Context) -> None:
        await asyncio.create_task(stubborn())

    error, time = ended(body, Timeout(1))
    assert isinstance(error, AttemptTimeoutError)
    assert 1.05 == time


def test_survives_a_task_group_that_failed_before() -> None:
    """The cancel count that a failed group leaves behind is not taken for a cancellation."""

    async def body(ctx: Context) -> None:
        await failing_group()
        await failing_group()
        await asyncio.sleep(60)

    assert isinstance(_left_behind(body), AttemptTimeoutError)


def test_survives_a_task_group_that_swallows_the_cancellation() -> None:
    """A group that is failing already when time is up absorbs it; the next cancellation counts."""

    async def body(ctx: Context) -> None:
        await failing_group(slow=2)  # from 0 to 2
        await asyncio.sleep(60)

    assert isinstance(_left_behind(body, Timeout(1)), AttemptTimeoutError)


def test_survives_a_task_group_that_fails_while_the_call_cleans_up() -> None:
    """A group that fails after time was up, and in time, changes nothing."""

    async def body(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await failing_group(slow=0.01)

    assert isinstance(_left_behind(body, Timeout(1)), AttemptTimeoutError)


def test_survives_task_groups_in_earlier_attempts_and_states() -> None:
    """What an earlier attempt left on the cancel count does not matter in a later one."""

    async def body(ctx: Context) -> None:
        await failing_group()
        if ctx.attempt < 3:
            raise ValueError
        await asyncio.sleep(60)

    error = _left_behind(body, Retry.fixed(3, 1), Timeout(5))
    assert "attempt 3 in WORK took longer than 5 s" == str(error)


def _left_behind(body: Body, *policies: Any) -> object:
    """What a run came to whose task groups may leave the cancel count raised, as before 3.13."""

    async def main() -> object:
        try:
            return await flow(body, *(policies or (Timeout(1),))).run(Step.WORK)
        except Exception as error:
            return error

    return run(main())


def test_an_own_timeout_inside_still_works() -> None:
    """An `asyncio.timeout` in the call ends what it is around, and the call goes on."""

    async def body(ctx: Context) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.sleep(60)
        await asyncio.sleep(2)

    assert (Step.DONE, 4) == ended(body, Timeout(5))


def test_an_own_timeout_inside_does_not_take_our_cancellation_for_its_own() -> None:
    """An `asyncio.timeout` that is not due passes the end of the attempt on."""

    async def body(ctx: Context) -> None:
        async with asyncio.timeout(30):
            await asyncio.sleep(60)

    error, time = ended(body, Timeout(5))
    assert isinstance(error, AttemptTimeoutError)
    assert 5 == time


def test_an_own_timeout_due_in_the_same_moment_leaves_the_attempt_ended() -> None:
    """An `asyncio.timeout` inside, due together with ours, hides it from nobody."""

    async def body(ctx: Context) -> None:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(60)

    error, _ = ended(body, Timeout(5))
    assert isinstance(error, AttemptTimeoutError)


def test_an_own_timeout_around_the_run_still_works() -> None:
    """An `asyncio.timeout` around `run()` becomes a plain `TimeoutError` outside of it."""

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(5):
                await flow(nap, Retry(), Timeout(50)).run(Step.WORK)
        assert type(caught.value) is TimeoutError
        assert 5 == asyncio.get_running_loop().time()

    run(main())


def test_an_own_timeout_around_the_run_survives_timeouts_in_it() -> None:
    """Attempts that timed out leave an `asyncio.timeout` around the run as it was."""

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(12):
                await flow(nap, Retry.fixed(9, 0), Timeout(5)).run(Step.WORK)
        assert type(caught.value) is TimeoutError
        assert 12 == asyncio.get_running_loop().time()

    run(main())


@pytest.mark.parametrize("seconds", [0, -1, nan, -inf])
def test_refuses_no_time_at_all(seconds: float) -> None:
    """A limit that leaves no time is a definition error that names it."""
    with pytest.raises(DefinitionError, match=f"Timeout\\({seconds}\\)"):
        Timeout(seconds)


def test_infinity_is_no_limit() -> None:
    """An infinite limit never strikes."""
    assert (Step.DONE, 60) == ended(nap, Timeout(inf))


def test_refuses_more_time_than_the_run_has() -> None:
    """A limit that the run's own would never let it reach is a definition error."""
    with pytest.raises(DefinitionError, match=r"WORK: Timeout\(seconds=60\) outlasts the 30 s"):
        flow(nap, Timeout(60), timeout=30).check()
