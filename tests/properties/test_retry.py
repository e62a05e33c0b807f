"""`Retry` against its own arithmetic: pauses in their bounds, and a run that a model foretells."""

from __future__ import annotations

import asyncio
from enum import StrEnum, auto
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cano import Context, Retry, Workflow
from cano.testing import run

chances = st.floats(0, 1, exclude_max=True)
retries = st.builds(
    Retry,
    attempts=st.integers(1, 10**6),
    delay=st.floats(0, 1e9),
    factor=st.floats(0, 1e9) | st.integers(0, 10),
    max_delay=st.floats(0, 1e9),
    jitter=st.floats(0, 1),
)


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


@given(retries, st.integers(1, 10**6), chances)
def test_no_pause_is_negative_or_above_the_cap(retry: Retry, failed: int, chance: float) -> None:
    """Whatever the numbers, a pause is one, and within bounds; after the last attempt is none."""
    pause = retry.pause(failed, chance)
    if failed >= retry.attempts:
        assert pause is None
    else:
        assert pause is not None
        assert 0 <= pause <= retry.max_delay


@given(st.integers(1, 20), st.floats(0.001, 10), st.floats(0.5, 3), st.floats(0, 1), chances)
def test_the_jitter_is_a_share_of_the_plan(
    failed: int, delay: float, factor: float, jitter: float, chance: float
) -> None:
    """Below the cap a pause differs from the formula by the jitter's share at most."""
    pause = Retry(99, delay, factor, 1e15, jitter).pause(failed, chance)
    planned = delay * factor ** (failed - 1)
    assert planned * (1 - jitter) * 0.999 <= pause <= planned * (1 + jitter) * 1.001  # type: ignore[operator]


@given(retries, st.integers(1, 10**6), chances, st.floats(0, 1e6))
def test_a_pause_is_as_long_as_it_was_asked_for(
    retry: Retry, failed: int, chance: float, asked: float
) -> None:
    """With `retry_after` a pause is that long or longer, and never shorter than without."""
    pause, plain = retry.pause(failed, chance, asked), retry.pause(failed, chance)
    if plain is not None:
        assert max(plain, asked) == pause


@given(
    attempts=st.integers(1, 6),
    failures=st.integers(0, 6),
    cost=st.sampled_from([0.0, 1.0, 7.0]),
    pauses=st.lists(st.sampled_from([0.0, 0.25, 2.0, 30.0]), min_size=5, max_size=5),
    limit=st.sampled_from([None, 0.3, 3.3, 20.3, 90.3]),
)
def test_a_run_makes_the_attempts_that_its_settings_foretell(
    attempts: int, failures: int, cost: float, pauses: list[float], limit: float | None
) -> None:
    """Number, times and end of the attempts follow from the settings alone."""
    calls: list[float] = []

    async def work(ctx: Context) -> Step:
        calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(cost)
        if len(calls) <= failures:
            raise ValueError
        return Step.DONE

    async def main() -> tuple[str, float]:
        retry = Retry.delays(pauses[: attempts - 1])
        flow = Workflow(Step, timeout=limit).register(Step.WORK, work, retry).exits(Step.DONE)
        try:
            await flow.run(Step.WORK)
            end = "done"
        except (ValueError, TimeoutError) as error:
            end = type(error).__name__
        return end, asyncio.get_running_loop().time()

    end, time = run(main())
    expected_calls, expected_end, expected_time = foretell(attempts, failures, cost, pauses, limit)
    assert expected_end == end
    assert pytest.approx(expected_calls) == calls
    assert pytest.approx(expected_time) == time


def foretell(
    attempts: int, failures: int, cost: float, pauses: list[float], limit: float | None
) -> tuple[list[float], str, float]:
    """When the attempts are made, how it ends, and when."""
    now, over, calls = 0.0, inf if limit is None else limit, []
    for number in range(attempts):
        calls.append(now)
        if now + cost >= over:
            return calls, "RunTimeoutError", over
        now += cost
        if number >= failures:
            return calls, "done", now
        if number == attempts - 1 or now + pauses[number] >= over:
            break
        now += pauses[number]
    return calls, "ValueError", now
