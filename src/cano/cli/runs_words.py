"""The words for times, durations and conditions of runs, and how they are read; pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

import click

from cano.checkpoints.store import RunSummary, Status

MAX_CRASHES = 5
"""From how many crashes in a row a run counts as stuck."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|[smhdw])\s*")
_STYLES: dict[str, dict[str, Any]] = {
    "running": {"fg": "cyan"},
    "waiting": {},
    "in doubt": {"fg": "magenta", "bold": True},
    "finished": {"fg": "green"},
    "failed": {"fg": "red"},
    "cancelled": {"dim": True},
    "stuck": {"fg": "red", "bold": True},
    "abandoned": {"fg": "yellow"},
    "let go": {"fg": "yellow"},
}


def span(ctx: click.Context, param: click.Parameter, given: str | None) -> float | None:
    """For an option: seconds, from a duration such as `30d`, `1h30m` or `90s`."""
    if given is None:
        return None
    seconds = _seconds(given)
    if seconds is None:
        raise click.BadParameter(f"{given!r} is no duration; write it like 90s, 15m, 1h30m or 30d")
    return seconds


class Moment(NamedTuple):
    """A moment on the command line: how long *ago* it was, or else when it is."""

    seconds: float
    ago: bool

    def at(self, now: float) -> float:
        """Seconds since the epoch."""
        return now - self.seconds if self.ago else self.seconds


def moment(ctx: click.Context, param: click.Parameter, given: str | None) -> Moment | None:
    """For an option: `2h` (ago), `2030-05-01`, `2030-05-01T14:00`; local time if not said."""
    if given is None:
        return None
    if (seconds := _seconds(given)) is not None:
        return Moment(seconds, ago=True)
    try:
        return Moment(datetime.fromisoformat(given).timestamp(), ago=False)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{given!r} is no moment; write how long ago it was (90s, 2h, 30d) or a date "
            "(2030-05-01, 2030-05-01T14:00, 2030-05-01T14:00Z)"
        ) from None


def _seconds(text: str) -> float | None:
    """What *text* says in seconds, None if it is no duration."""
    position, total = 0, 0.0
    for match in _PART.finditer(text.strip()):
        if match.start() != position:
            return None
        position, total = match.end(), total + float(match[1]) * _UNITS[match[2]]
    return total if 0 < position == len(text.strip()) else None


def condition(run: RunSummary, now: float) -> str:
    """The run's status, or what is wrong with it: stuck, abandoned by its owner, or let go."""
    if run.over or run.status is Status.IN_DOUBT:
        return run.status.value
    if run.crashes >= MAX_CRASHES:
        return "stuck"
    if run.status is Status.RUNNING and not run.owner:
        return "let go"
    if run.status is Status.RUNNING and run.lease <= now:
        return "abandoned"
    return run.status.value


def painted(word: str, text: str = "") -> str:
    """*text* (or *word* itself) in the colour of the condition *word*."""
    return click.style(text or word, **_STYLES.get(word, {}))


def lasted(seconds: float) -> str:
    """A duration in at most two units: `3.2 s`, `5 min 12 s`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, below, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size:,} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def clock(time: float, now: float) -> str:
    """Local time, as short as it is clear: without the date if it is today's."""
    if not 0 < time < inf:
        return "never"
    then = local(time)
    today = then.date() == local(now).date()
    return f"{then:%H:%M:%S}" if today else f"{then:%Y-%m-%d %H:%M}"


def relative(time: float, now: float) -> str:
    """`3 h ago`, `in 12 s`."""
    return f"{lasted(now - time)} ago" if time <= now else f"in {lasted(time - now)}"


def local(time: float) -> datetime:
    """The moment, in the timezone of this machine."""
    return datetime.fromtimestamp(time, UTC).astimezone()


def plain(text: str) -> str:
    """*text* on one line, with nothing in it that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _shown(c) for c in text)


def _shown(character: str) -> str:
    return " " if character in "\n\t" else character.encode("unicode_escape").decode()


def cut(text: str, width: int) -> str:
    """*text* in *width* characters, its end left out if need be."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
