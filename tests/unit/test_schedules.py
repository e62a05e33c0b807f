"""Every, Once, Manual: when is the next time?"""

from datetime import UTC, datetime, timedelta, timezone
from math import inf

import pytest

from cano.errors import DefinitionError
from cano.schedules import Every, Manual, Once, Schedule, latest, upcoming

START = 1_000_000.0


def ticks(schedule: Schedule, count: int = 4, ended: float | None = None) -> list[float]:
    """The first ticks of a flow begun at START, in seconds from there."""
    found: list[float] = []
    after = -inf
    while len(found) < count and (tick := schedule.next(after, START, ended)) is not None:
        found.append(tick - START)
        after = tick
    return found


def test_the_first_tick_of_an_interval_is_at_once() -> None:
    """An interval begins with the flow, and goes on from there."""
    assert [0, 60, 120, 180] == ticks(Every(60))


def test_an_interval_may_begin_later() -> None:
    """The delay comes before the first tick only."""
    assert [5, 65, 125, 185] == ticks(Every(60, delay=5))


def test_durations_may_be_timedeltas() -> None:
    """A timedelta is the seconds that it is."""
    assert Every(90, delay=1) == Every(timedelta(minutes=1.5), delay=timedelta(seconds=1))


def test_a_fixed_rate_does_not_care_for_runs() -> None:
    """With a fixed rate, when the last run ended makes no difference."""
    assert ticks(Every(60)) == ticks(Every(60), ended=START + 30)


def test_a_fixed_delay_counts_from_the_end_of_a_run() -> None:
    """With a fixed delay the next tick is that long after the last end."""
    assert START + 75 == Every(60, fixed="delay").next(START, START, START + 15)


def test_a_fixed_delay_that_is_over_begins_anew() -> None:
    """Asked after a moment when the delay was over, as after a pause, it is waited for again."""
    assert START + 160 == Every(60, fixed="delay").next(START + 100, START, START + 15)


def test_rounding_does_not_add_up() -> None:
    """A tick is counted from the first, so that the millionth is where it belongs."""
    every = Every(0.1)
    assert START + 100_000.0 == every.next(START + 99_999.95, START)


def test_ticks_that_cannot_be_told_apart() -> None:
    """Even where rounding would say the same tick again, the next is later."""
    moment = START
    for _ in range(1000):
        following = Every(1 / 3).next(moment, START)
        assert following is not None
        assert following > moment
        moment = following


@pytest.mark.parametrize("seconds", [0, -1, inf, float("nan"), "60", None, timedelta(0), 1e-9])
def test_intervals_that_are_none(seconds: float) -> None:
    """An interval must pass, and end: zero would run for ever at once."""
    with pytest.raises(DefinitionError, match="is no time to wait; pass seconds, 0.001 or more"):
        Every(seconds)


def test_other_nonsense() -> None:
    """A negative start delay, and a third way to fix an interval, are refused."""
    with pytest.raises(DefinitionError, match="delay=-1 is no time to wait"):
        Every(1, delay=-1)
    with pytest.raises(DefinitionError, match='pass "rate" or "delay"'):
        Every(1, fixed="both")  # type: ignore[arg-type]


def test_once() -> None:
    """One time has one tick, in whatever time zone it was said."""
    at = datetime(2027, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC).timestamp()
    assert noon == Once(at).next(-inf)
    assert None is Once(at).next(noon)


@pytest.mark.parametrize("at", [datetime(2027, 1, 1), "2027-01-01", None, 5])  # noqa: DTZ001
def test_a_time_without_a_zone(at: datetime) -> None:
    """A time that does not say where is refused: it would mean another moment elsewhere."""
    with pytest.raises(DefinitionError, match="pass a datetime with a time zone"):
        Once(at)


def test_by_hand() -> None:
    """A manual flow has no ticks."""
    assert [] == ticks(Manual())


def test_in_words() -> None:
    """Schedules say what they are."""
    at = datetime(2027, 1, 1, tzinfo=UTC)
    assert [
        "every 60 s",
        "every 0.5 s after the end of the last run",
        "once at 2027-01-01T00:00:00+00:00",
        "by hand",
    ] == [str(Every(60)), str(Every(0.5, fixed="delay")), str(Once(at)), str(Manual())]


def test_upcoming() -> None:
    """The next times are shown in the time zone that was asked in; fewer if there are no more."""
    now = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    later = now + timedelta(minutes=1)
    assert [now + timedelta(minutes=n) for n in (1, 2)] == upcoming(Every(60), now, 2)
    assert [later] == upcoming(Once(later), now)
    with pytest.raises(DefinitionError, match="with a time zone"):
        upcoming(Every(60), datetime(2027, 1, 1))  # noqa: DTZ001


class Counted(Every):
    """Counts how often it is asked."""

    asked = 0

    def next(self, after: float, start: float = 0.0, ended: float | None = None, /) -> float | None:
        Counted.asked += 1
        return super().next(after, start, ended)


def test_the_latest_of_a_year() -> None:
    """After a year of absence the latest ticks are found without going through all of it."""
    now = START + 365 * 86400 + 0.5
    assert [now - 1.5, now - 0.5] == latest(Counted(1), START, now, START, 2)
    assert Counted.asked < 100


def test_the_latest_of_few() -> None:
    """All there are, if there are fewer than asked for."""
    assert [START, START + 60] == latest(Every(60), START, START + 119, START, 5)
    assert [START] == latest(Every(1e6), START, START + 1e5, START, 1)


def test_anything_that_says_when_is_a_schedule() -> None:
    """A schedule of one's own needs nothing but `next`."""

    class Squares:
        def next(self, after: float, start: float = 0.0, ended: float | None = None) -> float:
            n = 0
            while start + n * n <= after:
                n += 1
            return start + n * n

    assert [0, 1, 4, 9] == ticks(Squares())
    assert isinstance(Squares(), Schedule)
