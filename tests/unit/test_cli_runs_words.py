"""Times, durations and conditions of runs, as they are written and read."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any

import click
import pytest

from cano.checkpoints.store import RunSummary, Status
from cano.cli.runs_words import (
    clock,
    condition,
    cut,
    lasted,
    moment,
    plain,
    relative,
    span,
)

NOW = datetime(2030, 5, 1, 14, 0).astimezone().timestamp()
OPTION = click.Option(["--since"])
CONTEXT = click.Context(click.Command("runs"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("15 min", 900), ("2h", 7200), ("1h30m", 5400), ("1h 30m", 5400),
     ("30d", 2592000), ("1w", 604800), ("250ms", 0.25), ("1.5h", 5400), (" 2h ", 7200), ("0s", 0)],
)  # fmt: skip
def test_spans(text: str, seconds: float) -> None:
    """A duration is one or more numbers with units."""
    assert seconds == span(CONTEXT, OPTION, text)


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2x", "-2h", "2h x", "x 2h", "2h,3m", "1e3s", "٣h3"]
)
def test_what_is_no_span(text: str) -> None:
    """What is no duration is refused, with examples of what is one."""
    with pytest.raises(click.BadParameter, match="90s, 15m, 1h30m"):
        span(CONTEXT, OPTION, text)


@pytest.mark.parametrize(
    ("text", "at"),
    [("2h", NOW - 7200), ("2030-05-01T14:00", NOW), ("2030-05-01 13:59:50", NOW - 10),
     ("2030-05-01", NOW - 14 * 3600), ("1970-01-01T00:01Z", 60), ("1970-01-01T01:01+01:00", 60)],
)  # fmt: skip
def test_moments(text: str, at: float) -> None:
    """A moment is so long ago, or a date; without a timezone it is local time."""
    assert at == moment(CONTEXT, OPTION, text).at(NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "2030-13-01", "14:00", "2030-05-01T25:00"])
def test_what_is_no_moment(text: str) -> None:
    """What is no moment is refused, with examples of what is one."""
    with pytest.raises(click.BadParameter, match="how long ago it was"):
        moment(CONTEXT, OPTION, text)


def test_options_that_are_not_given() -> None:
    """What is not said is None."""
    assert None is moment(CONTEXT, OPTION, None)
    assert None is span(CONTEXT, OPTION, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0, "0.0 s"), (0.04, "0.0 s"), (3.21, "3.2 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (3600, "1 h"),
     (3661, "1 h 1 min"), (86400, "1 d"), (90061, "1 d 1 h"), (8640000 * 20, "2,000 d")],
)  # fmt: skip
def test_lasted(seconds: float, text: str) -> None:
    """A duration is told in at most two units."""
    assert text == lasted(seconds)


def test_clock_and_relative() -> None:
    """Today's times have no date; others do; infinity and nothing are no times."""
    assert "13:59:48" == clock(NOW - 12, NOW)
    assert "2030-04-30 14:00" == clock(NOW - 86400, NOW)
    assert ["never", "never"] == [clock(0, NOW), clock(inf, NOW)]
    assert ["12 s ago", "in 12 s"] == [relative(NOW - 12, NOW), relative(NOW + 12, NOW)]


def summary(status: Status = Status.RUNNING, **fields: Any) -> RunSummary:
    return RunSummary("a", "orders", status, "PAY", 3, NOW - 60, **fields)


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (summary(owner="w", lease=NOW + 1), "running"),
        (summary(owner="w", lease=NOW), "abandoned"),
        (summary(), "let go"),
        (summary(owner="w", lease=NOW + 1, crashes=4), "running"),
        (summary(owner="w", lease=NOW - 1, crashes=5), "stuck"),
        (summary(Status.WAITING, wake=inf), "waiting"),
        (summary(Status.WAITING, crashes=5), "stuck"),
        (summary(Status.IN_DOUBT, crashes=5), "in doubt"),
        (summary(Status.FINISHED, crashes=5, owner="w"), "finished"),
        (summary(Status.CANCELLED), "cancelled"),
    ],
)
def test_condition(run: RunSummary, word: str) -> None:
    """A run that nobody carries out is not called running."""
    assert word == condition(run, NOW)


def test_terminals_are_not_obeyed() -> None:
    """What was stored cannot colour, clear or ring: control characters are spelled out."""
    assert "a b c\\x1b[31m\\x07" == plain("a\nb\tc\x1b[31m\x07")
    assert "naïve → 😀" == plain("naïve → 😀")


def test_cut() -> None:
    """A text that is too long ends in an ellipsis, and is exactly as wide as allowed."""
    assert ["abc", "ab…", "…"] == [cut("abc", 3), cut("abcd", 3), cut("abcd", 1)]
