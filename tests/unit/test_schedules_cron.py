"""Cron texts, and their days of 23 and 25 hours."""

from datetime import UTC, datetime
from math import inf
from zoneinfo import ZoneInfo

import pytest

from cano._cron import ALIASES
from cano.errors import DefinitionError
from cano.schedules import Cron, upcoming

NEW_YORK = "America/New_York"


def times(cron: Cron, after: datetime, count: int = 3) -> list[str]:
    """The next ticks, in UTC."""
    return [f"{tick.astimezone(UTC):%d %H:%M:%S}" for tick in upcoming(cron, after, count)]


def utc(month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/5 * * * *", ["06 00:05:00", "06 00:10:00", "06 00:15:00"]),
        ("0 */5 * * * *", ["06 00:05:00", "06 00:10:00", "06 00:15:00"]),
        ("* * * * * *", ["06 00:00:01", "06 00:00:02", "06 00:00:03"]),
        ("30 9 * * MON-FRI", ["06 09:30:00", "07 09:30:00", "08 09:30:00"]),
        ("30 9 * * monday,Thurs", ["06 09:30:00", "09 09:30:00", "13 09:30:00"]),
        ("0 0 1 jan,JULY *", ["01 00:00:00", "01 00:00:00", "01 00:00:00"]),
        ("0 12 L * *", ["30 12:00:00", "31 12:00:00", "30 12:00:00"]),
        ("0 12 LW * *", ["30 12:00:00", "29 12:00:00", "30 12:00:00"]),
        ("0 12 * * 5L", ["24 12:00:00", "29 12:00:00", "26 12:00:00"]),
        ("0 12 * * MON#2", ["13 12:00:00", "11 12:00:00", "08 12:00:00"]),
        ("0 0 * * 7", ["12 00:00:00", "19 00:00:00", "26 00:00:00"]),
        ("0 0 13 * FRI", ["10 00:00:00", "13 00:00:00", "17 00:00:00"]),
        ("0 0-10/5 * * *", ["06 05:00:00", "06 10:00:00", "07 00:00:00"]),
    ],
)
def test_texts(text: str, expected: list[str]) -> None:
    """Five and six fields, names short and long, L, LW, #, lists, ranges and steps."""
    assert expected == times(Cron(text), utc(4, 6))


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("@yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
        ("@monthly", "2026-05-01 00:00"),
        ("@weekly", "2026-04-12 00:00"),
        ("@daily", "2026-04-07 00:00"),
        ("@midnight", "2026-04-07 00:00"),
        (" @Hourly ", "2026-04-06 01:00"),
    ],
)
def test_shorthands(alias: str, expected: str) -> None:
    """Each of the seven shorthands is the text it stands for."""
    assert [expected] == [f"{t:%Y-%m-%d %H:%M}" for t in upcoming(Cron(alias), utc(4, 6), 1)]
    assert alias.strip().lower() in ALIASES


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 25 * * *", "the hour '25': 25 is not from 0 to 23"),
        ("60 * * * *", "the minute '60': 60 is not from 0 to 59"),
        ("61 0 0 * * *", "the second '61': 61 is not from 0 to 59"),
        ("0 0 0 * *", "the day of the month '0': 0 is not from 1 to 31"),
        ("0 0 * 13 *", "the month '13': 13 is not from 1 to 12"),
        (
            "0 0 * * MOM",
            "the day of the week 'MOM': 'MOM' is no number from 0 to 7, or a name, SUN",
        ),
        ("0 22-2 * * *", "22-2 goes down; say 22-23,0-2"),
        ("0 0 * * FRI-MON", "FRI-MON goes down; say FRI-SAT,SUN-MON"),
        ("*/0 * * * *", "the minute '\\*/0': '0' is no step"),
        ("*/x * * * *", "'X' is no step"),
        ("1,,2 * * * *", "there is nothing between two commas"),
        ("0 0 ? * *", "say \\* instead of \\?"),
        ("0 0 * * 1#6", "'6' is no week of a month; say 1 to 5"),
        ("0 0 30 2 *", "day 30 of month 2 never comes"),
        ("0 0 31 FEB,APR *", "never comes"),
        ("* * * *", "has 4 fields; 5 are minute, hour"),
        ("", "has 0 fields"),
        ("0 0 0 1 1 * 2027", "has 7 fields, and years are none of them"),
        ("@dayly", "no such shorthand; did you mean '@daily'"),
        ("every day", "has 2 fields"),
        ("a b c d e", "5 problems"),
        ("5#1 * * * *", "the minute"),
    ],
)
def test_texts_that_are_none(text: str, why: str) -> None:
    """What cannot be read says which field is wrong, and why."""
    with pytest.raises(DefinitionError, match=why):
        Cron(text)


def test_no_text_at_all() -> None:
    """Something else than a text is refused."""
    with pytest.raises(DefinitionError, match="pass a text such as"):
        Cron(5)  # type: ignore[arg-type]


def test_zones_that_are_none() -> None:
    """A time zone that is not there is refused, with a hint at one that is."""
    with pytest.raises(DefinitionError, match="'Europe/Berln' is no time zone; .* 'Europe/Berlin'"):
        Cron("@daily", "Europe/Berln")
    with pytest.raises(DefinitionError, match="is no time zone"):
        Cron("@daily", "../etc/passwd")
    with pytest.raises(DefinitionError, match="is no time zone"):
        Cron("@daily", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", ["08 07:00:00", "09 06:30:00", "10 06:30:00"]),
        ("15 30 2 * * *", ["08 07:00:15", "09 06:30:15", "10 06:30:15"]),
        ("0,30 2 * * *", ["08 07:00:00", "09 06:00:00", "09 06:30:00"]),
        ("0 * * * *", ["08 06:00:00", "08 07:00:00", "08 08:00:00"]),
        ("*/30 2 * * *", ["09 06:00:00", "09 06:30:00", "10 06:00:00"]),
    ],
)
def test_a_time_in_the_skipped_hour(text: str, expected: list[str]) -> None:
    """At 02:00 clocks go to 03:00: a named time comes right after, what goes by the clock does not."""
    assert expected == times(Cron(text, NEW_YORK), utc(3, 8, 5, 50))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 1 * * *", ["01 05:30:00", "02 06:30:00", "03 06:30:00"]),
        ("15 30 1 * * *", ["01 05:30:15", "02 06:30:15", "03 06:30:15"]),
        ("0 * * * *", ["01 05:00:00", "01 06:00:00", "01 07:00:00"]),
        ("*/30 1 * * *", ["01 05:00:00", "01 05:30:00", "01 06:00:00"]),
    ],
)
def test_a_time_in_the_doubled_hour(text: str, expected: list[str]) -> None:
    """At 02:00 clocks go to 01:00: a named time counts once, what goes by the clock twice."""
    assert expected == times(Cron(text, NEW_YORK), utc(11, 1, 4, 50))


def test_asked_in_the_second_of_the_doubled_hours() -> None:
    """Between the two times that are called 01:05 and 01:30 the first of them is over."""
    assert ["02 06:30:00"] == times(Cron("30 1 * * *", NEW_YORK), utc(11, 1, 6, 5), 1)


def test_fractions_of_a_second() -> None:
    """A tick is strictly later than what it is asked after, and never a second too late."""
    every_second = Cron("* * * * * *")
    assert [1001.0, 1001.0, 1002.0] == [every_second.next(t) for t in (1000.0, 1000.999, 1001.0)]


def test_before_the_first_tick() -> None:
    """A flow that never fired begins with the first time after it was made."""
    assert 1080.0 == Cron("* * * * *").next(-inf, 1050.0)


def test_the_end_of_the_calendar() -> None:
    """Where there are no more dates there is no next time."""
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    assert None is Cron("* * * * *").next(end)
    assert None is Cron("* * * * *").next(1e18)


def test_explained() -> None:
    """A text can be had in English."""
    assert "At 02:30 on the first Monday of the month" == Cron("30 2 * * MON#1").explain()


def test_equal_and_shown() -> None:
    """Two that say the same are equal, whatever they were asked."""
    one, other = Cron("0 6 * * *", "Europe/Berlin"), Cron("0 6 * * *", "Europe/Berlin")
    one.next(5.0)
    assert one == other
    assert hash(one) == hash(other)
    assert "cron 0 6 * * * Europe/Berlin" == str(one)
    assert "Cron(text='0 6 * * *', zone='Europe/Berlin')" == repr(one)


def test_leap_days() -> None:
    """A day that comes every four years does come."""
    tick = Cron("0 0 29 2 *").next(utc(4, 6).timestamp())
    assert tick is not None
    assert datetime(2028, 2, 29, tzinfo=UTC) == datetime.fromtimestamp(tick, UTC)


def test_by_the_clocks_of_a_zone() -> None:
    """Six in the morning is another moment in summer."""
    berlin = ZoneInfo("Europe/Berlin")
    cron = Cron("0 6 * * *", "Europe/Berlin")
    assert [6, 6] == [
        tick.hour for tick in upcoming(cron, datetime(2026, 3, 28, 12, tzinfo=berlin), 2)
    ]
    assert ["28 05:00:00", "29 04:00:00"] == times(cron, utc(3, 28), 2)
