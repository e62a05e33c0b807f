"""What is announced to observers around runs: schedules, and the resources that runs share.

Like all events these are facts, named in the past tense. They belong to no run, so that `run_id` is
empty unless they speak of one, and no store keeps them.
"""

from __future__ import annotations

from cano.events import Event


class ScheduleFired(Event, frozen=True):
    """Flow *flow* was due at *due* (seconds since the epoch; 0 by hand), and began run `run_id`."""

    flow: str = ""
    due: float = 0.0


class ScheduleEnded(Event, frozen=True):
    """A run of *flow* ended after *seconds*, with *outcome* finished, failed, cancelled, or released."""

    flow: str = ""
    outcome: str = ""
    seconds: float = 0.0
    error: str = ""


class ScheduleSkipped(Event, frozen=True):
    """Flow *flow* was due at *due*, and no run was begun: *reason* says why."""

    flow: str = ""
    due: float = 0.0
    reason: str = ""


class ScheduleBackedOff(Event, frozen=True):
    """Flow *flow* failed *streak* times in a row, and rests until *until*."""

    flow: str = ""
    streak: int = 0
    until: float = 0.0


class ScheduleTripped(Event, frozen=True):
    """Flow *flow* failed *streak* times in a row, and is not begun again until it is reset."""

    flow: str = ""
    streak: int = 0
    error: str = ""


class ResourceReady(Event, frozen=True):
    """Resource *name* was set up, which took *seconds*."""

    name: str = ""
    seconds: float = 0.0


class ResourceFailed(Event, frozen=True):
    """Setting resource *name* up, or taking it down, failed with *error*."""

    name: str = ""
    error: str = ""


class ResourceReleased(Event, frozen=True):
    """Resource *name* was taken down."""

    name: str = ""
