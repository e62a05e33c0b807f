"""The pauses of `Retry`, and the settings it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum, auto
from itertools import pairwise
from math import inf, nan
from typing import Any

import pytest

from cano import Context, Retry, Workflow
from cano.errors import DefinitionError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


def gaps(
    retry: Retry, failures: int, error: Callable[[int], Exception] = ValueError
) -> list[float]:
    """The seconds between the attempts of a task that fails so many times."""
    calls: list[float] = []

    async def work(ctx: Context) -> Step:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) <= failures:
            raise error(len(calls))
        return Step.DONE

    run(Workflow(Step).register(Step.WORK, work, retry).exits(Step.DONE).run(Step.WORK))
    return [round(after - before, 6) for before, after in pairwise(calls)]


def test_pauses_grow_by_the_factor() -> None:
    """The pause is `delay * factor ** (n - 1)` after attempt n."""
    retry = Retry(5, delay=0.05, factor=3, jitter=0)
    assert [0.05, 0.15, 0.45, 1.35] == gaps(retry, failures=4)


def test_pauses_are_capped() -> None:
    """No pause is longer than `max_delay`."""
    retry = Retry(4, delay=0.1, factor=10, max_delay=0.5, jitter=0)
    assert [0.1, 0.5, 0.5] == gaps(retry, failures=3)


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 0.05), (0.5, 0.1), (0.999999999, 0.15)])
def test_jitter_spreads_to_both_sides(chance: float, expected: float) -> None:
    """The jitter is a share of the pause, taken off or put on."""
    assert expected == pytest.approx(Retry(delay=0.1, jitter=0.5).pause(1, chance))


def test_jitter_comes_before_the_cap() -> None:
    """Jitter never lifts a pause above `max_delay`."""
    retry = Retry(delay=10, max_delay=10, jitter=1)
    assert 10 == retry.pause(1, 0.999)


def test_draws_its_chances_from_the_given_source() -> None:
    """With a source of its own the pauses are the same in every run."""
    chances = iter([0.0, 0.5, 0.75])
    retry = Retry(4, delay=1, factor=1, jitter=0.5, random=lambda: next(chances))
    assert [0.5, 1.0, 1.25] == gaps(retry, failures=3)


def test_draws_its_chances_by_itself() -> None:
    """Without a source of its own the pauses differ, within the jitter."""
    found = gaps(Retry(21, delay=1, factor=1, jitter=0.5), failures=20)
    assert all(0.5 <= gap <= 1.5 for gap in found)
    assert 1 < len(set(found))


@pytest.mark.parametrize("failed", [1, 3, 5000])
def test_a_zero_delay_stays_zero(failed: int) -> None:
    """Nothing times anything is nothing, even where the factor's power overflows."""
    assert 0 == Retry(9999, delay=0, factor=1e9).pause(failed, 0.9)


@pytest.mark.parametrize("factor", [2, 2.0, 1e300])
def test_huge_exponents_saturate(factor: float) -> None:
    """A pause too long for a number is the longest there is, whatever the jitter."""
    assert 30 == Retry(10**7, factor=factor, jitter=1).pause(10**6, 0.1)


def test_fixed_pauses() -> None:
    """`fixed` pauses equally long, and never jitters."""
    assert [60.5, 60.5, 60.5] == gaps(Retry.fixed(4, 60.5), failures=3)


def test_given_pauses() -> None:
    """`delays` makes one more attempt than there are pauses, and pauses exactly so."""
    assert [3, 0, 100] == gaps(Retry.delays([3, 0, 100]), failures=3)
    assert 4 == Retry.delays([3, 0, 100]).attempts


def test_no_given_pauses() -> None:
    """`delays` of nothing is a single try."""
    assert Retry.delays([]).pause(1, 0.5) is None


class BusyError(Exception):
    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(("asked", "expected"), [(2, 2.0), (0.5, 1.0), (100.0, 100.0)])
def test_waits_as_long_as_the_error_asks(asked: float, expected: float) -> None:
    """The pause is at least the error's `retry_after`, though it be above `max_delay`."""
    retry = Retry(2, delay=1, max_delay=1, jitter=0)
    assert [expected] == gaps(retry, 1, lambda _: BusyError(asked))


@pytest.mark.parametrize("asked", ["120", None, nan, -5, object()])
def test_ignores_what_is_no_number_of_seconds(asked: object) -> None:
    """Other things that errors call `retry_after` leave the pause as it was."""
    assert [7] == gaps(Retry.fixed(2, 7), 1, lambda _: BusyError(asked))


def test_an_endless_patience_ends_the_attempts() -> None:
    """An error that asks to be left alone for ever is not waited for."""
    with pytest.raises(BusyError) as caught:
        gaps(Retry(), 1, lambda _: BusyError(inf))
    assert "gave up after 1 of 4 attempts" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attempts": 0}, "attempts=0"),
        ({"attempts": -1}, "attempts=-1"),
        ({"attempts": 1.5}, "attempts=1.5"),
        ({"attempts": inf}, "attempts=inf"),
        ({"attempts": nan}, "attempts=nan"),
        ({"delay": -0.1}, "delay=-0.1"),
        ({"delay": nan}, "delay=nan"),
        ({"delay": inf}, "delay=inf"),
        ({"factor": -1}, "factor=-1"),
        ({"factor": nan}, "factor=nan"),
        ({"factor": inf}, "factor=inf"),
        ({"max_delay": -1}, "max_delay=-1"),
        ({"max_delay": nan}, "max_delay=nan"),
        ({"max_delay": inf}, "max_delay=inf"),
        ({"jitter": -0.1}, "jitter=-0.1"),
        ({"jitter": 1.1}, "jitter=1.1"),
        ({"jitter": nan}, "jitter=nan"),
        ({"attempts": 3, "pauses": (1, nan)}, "pauses[1]=nan"),
        ({"attempts": 3, "pauses": (1,)}, "1 pauses: attempts=3"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings: dict[str, Any], named: str) -> None:
    """A setting that cannot be worked with is a definition error that names it."""
    with pytest.raises(DefinitionError) as caught:
        Retry(**settings)
    assert named in str(caught.value)


def test_names_every_bad_setting_at_once() -> None:
    """All settings that make no sense are named in one error."""
    with pytest.raises(DefinitionError) as caught:
        Retry(0, delay=-1)
    assert "attempts=0" in str(caught.value)
    assert "delay=-1" in str(caught.value)
