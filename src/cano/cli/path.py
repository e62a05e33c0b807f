"""The way a run goes, told to a terminal while it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import click

from cano.cli.show import counted, say
from cano.events import (
    Event,
    FailureRouted,
    RunStarted,
    SplitJoined,
    StateEntered,
    TaskRetried,
)

TOLD = 200
"""How many lines are told at most: runs may go round for ever."""


class PathTeller:
    """An observer that says on stderr which states a run visits, and what goes wrong in them."""

    events: ClassVar[tuple[type[Event], ...]] = (
        FailureRouted,
        RunStarted,
        SplitJoined,
        StateEntered,
        TaskRetried,
    )

    def __init__(self) -> None:
        self._began = 0.0
        self._told = 0

    def __call__(self, event: Event, /) -> None:
        """Tell *event*."""
        if isinstance(event, RunStarted):
            self._began = event.time
            return
        self._told += 1
        if self._told <= TOLD:
            after = click.style(f"{event.time - self._began:8.3f} s", dim=True)
            say(f"{after}  {_line(event)}")
        elif self._told == TOLD + 1:
            say("            … and so on; the rest is not shown")


def _line(event: Event) -> str:
    match event:
        case TaskRetried():
            return click.style(
                f"  attempt {event.attempt} failed: {event.error}; again in {event.delay:.3g} s",
                fg="yellow",
            )
        case FailureRouted():
            return click.style(f"  failed: {event.error}; goes on to {event.next}", fg="yellow")
        case SplitJoined():
            return f"  {', '.join(_branches(event))}"
        case _:
            return click.style(event.state, bold=True)


def _branches(event: SplitJoined) -> Iterator[str]:
    yield f"{counted(event.succeeded, 'branch', 'branches')} succeeded"
    if event.failed:
        yield f"{event.failed:,} failed"
    if event.cancelled:
        yield f"{event.cancelled:,} cancelled"
    if event.not_started:
        yield f"{event.not_started:,} not started"
