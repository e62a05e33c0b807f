"""What a scheduler decides: what is due, whether it may begin, and what follows an end.

Rule 1: nothing here waits or reads a clock; *now* comes in, and what is to be done goes out.
Rule 2: what is known of a flow is in its `FlowState`, so that it can be kept, and decided upon by
        any of several processes: the same state and the same time lead to the same decision.
Rule 3: a tick is decided upon once: `last` only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from math import inf
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from cano.errors import FlowRefusedError
from cano.scheduler.settings import MOST_QUEUED, Allow, CatchUp, FlowSettings
from cano.schedules import Every, Manual, latest

LATE = 60.0
"""Seconds after which a tick that was not noticed counts as missed."""


class FlowState(msgspec.Struct, omit_defaults=True):
    """What is known of a flow; with a store, what is kept of it."""

    start: float
    """When it was first begun: the ticks of an interval are counted from there."""
    schedule: str = ""
    last: float | None = None
    """The latest tick that was decided upon."""
    running: dict[str, float] = {}
    """The runs under way, and when they began."""
    queued: list[float] = []
    """Ticks that are to be begun as soon as there is room."""
    runs: int = 0
    began: float | None = None
    ended: float | None = None
    outcome: str = ""
    error: str = ""
    streak: int = 0
    rests: float = 0.0
    """Until when it backs off."""
    tripped: bool = False
    paused: bool = False


class Begin(NamedTuple):
    """Begin run *run_id* for the tick *due*; 0 if by hand."""

    run_id: str
    due: float


class Skip(NamedTuple):
    """Begin nothing for the tick *due*, for a *reason*."""

    due: float
    reason: str


class Stop(NamedTuple):
    """Cancel run *run_id*: a newer one takes its place."""

    run_id: str


class Rest(NamedTuple):
    """Begin nothing before *until*, after *streak* failures in a row."""

    streak: int
    until: float


class Trip(NamedTuple):
    """Begin nothing before a reset, after *streak* failures in a row."""

    streak: int
    error: str


Action: TypeAlias = Begin | Skip | Stop | Rest | Trip


@dataclass(frozen=True, eq=False)
class Flow(FlowSettings):
    """A workflow, and when to run it: what is decided about it."""

    limit: int = field(init=False)
    """How many runs may be under way at once."""
    elastic: bool = field(init=False)
    """Whether the next tick depends on the end of the run before."""
    manual: bool = field(init=False)
    """Whether it runs only by hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        schedule = self.schedule
        limit = self.overlap.n if isinstance(self.overlap, Allow) else 1
        object.__setattr__(self, "limit", limit)
        elastic = isinstance(schedule, Every) and schedule.fixed == "delay"
        object.__setattr__(self, "elastic", elastic)
        object.__setattr__(self, "manual", isinstance(schedule, Manual))

    def fresh(self, now: float) -> FlowState:
        """What is known of a flow that is new."""
        return FlowState(now, str(self.schedule))

    def run_id(self, due: float) -> str:
        """The name of the run for a tick: the same wherever it is decided upon."""
        return f"{self.name}@{datetime.fromtimestamp(due, UTC).isoformat()[:-6]}Z"

    def chance(self, of: float) -> float:
        """A number in [0, 1) that looks like chance, and is the same in every process."""
        return crc32(f"{self.name}@{of!r}".encode()) / 2**32

    def next_tick(self, state: FlowState) -> float | None:
        """The first tick that was not decided upon, and may be fired; None if there is none."""
        if state.paused or state.tripped or (self.elastic and state.running):
            return None
        after = -inf if state.last is None else state.last
        tick = self.schedule.next(after, state.start, state.ended)
        if tick is None:
            return None
        if tick < state.rests and not self.elastic:
            # Those that come while it rests do not count, unless it is the only one.
            tick = self.schedule.next(state.rests, state.start, state.ended) or tick
        return None if tick > self.last_moment else tick

    def when(self, state: FlowState, tick: float) -> float:
        """When the tick is to be fired: itself, or up to *jitter* seconds later."""
        moment = tick + self.jitter * self.chance(tick) if self.jitter else tick
        return state.rests if state.rests > moment else moment

    def wake(self, state: FlowState) -> float | None:
        """When to look at the flow again; None if that is not up to the clock."""
        tick = self.next_tick(state)
        return None if tick is None else self.when(state, tick)

    def look(self, state: FlowState, now: float) -> list[Action]:
        """What is to be done at *now*."""
        if state.rests:  # the clock may have been put back
            state.rests = min(state.rests, now + self.backoff.max_delay)
        tick = self.next_tick(state)
        if tick is None or (moment := self.when(state, tick)) > now:
            return list(self._fill(state, now)) if state.queued else []
        if now - moment <= LATE and self._alone(state, tick, now):
            state.last = tick
            return [self._begin(state, self.run_id(tick), tick, now)]
        ticks = self._passed(state, tick, now)
        state.last = ticks[-1]
        chosen = self._chosen(state, ticks, now)
        actions: list[Action] = [] if tick in chosen else [Skip(tick, "missed")]
        if chosen:
            actions += self._overlapping(state, chosen)
        if state.queued:
            actions += self._fill(state, now)
        return actions

    def _alone(self, state: FlowState, tick: float, now: float) -> bool:
        """Whether *tick* is the only one that has come, and there is room: so it mostly is."""
        if state.queued or len(state.running) >= self.limit:
            return False
        following = self.schedule.next(tick, state.start, state.ended)
        return following is None or following > now

    def end(
        self, state: FlowState, run_id: str, outcome: str, error: str, now: float
    ) -> list[Action] | None:
        """Take note of the end of a run; None if it is known already."""
        if state.running.pop(run_id, None) is None:
            return None
        state.ended, state.outcome = now, outcome
        actions: list[Action] = []
        if outcome == "finished":
            if now < state.rests:
                _skip_to(state, now)
            state.streak, state.rests, state.error = 0, 0.0, ""
        elif outcome == "failed":
            state.streak, state.error = state.streak + 1, error
            state.rests = 0.0
            if self.trip is not None and state.streak >= self.trip:
                state.tripped = True
                actions.append(Trip(state.streak, error))
            else:
                chance = self.chance(state.streak + now)
                state.rests = now + self.backoff.pause(state.streak, chance)
                actions.append(Rest(state.streak, state.rests))
        if state.queued:
            actions += self._fill(state, now)
        return actions

    def by_hand(self, state: FlowState, run_id: str, now: float) -> list[Action]:
        """Begin a run that somebody asked for. Raises `FlowRefusedError`."""
        if run_id in state.running:
            raise FlowRefusedError(f"flow {self.name!r} is running {run_id!r} already")
        if state.tripped:
            raise FlowRefusedError(
                f"flow {self.name!r} is tripped after {state.streak} failures in a row, the last: "
                f"{state.error}; mend that, then reset({self.name!r})"
            )
        if len(state.running) >= self.limit:
            raise FlowRefusedError(
                f"flow {self.name!r} is running {', '.join(state.running)}, and may not run more "
                "often at once; wait for it, cancel it, or add the flow with overlap=Allow(n)"
            )
        return [self._begin(state, run_id, 0.0, now)]

    def pause(self, state: FlowState, now: float) -> list[Action]:
        """Begin nothing any more."""
        state.paused = True
        return list(self._fill(state, now))

    def resume(self, state: FlowState, now: float) -> list[Action]:
        """Begin runs again; what came meanwhile does not count."""
        if state.paused:
            state.paused = False
            _skip_to(state, now)
        return []

    def reset(self, state: FlowState, now: float) -> list[Action]:
        """Forget the failures."""
        if state.tripped or now < state.rests:
            _skip_to(state, now)
        state.tripped, state.streak, state.rests, state.error = False, 0, 0.0, ""
        return []

    def clear(self, state: FlowState, now: float) -> list[Action]:
        """Forget the ticks that wait for room."""
        gone: list[Action] = [Skip(tick, "cancelled") for tick in state.queued]
        state.queued = []
        return gone

    def _passed(self, state: FlowState, first: float, now: float) -> list[float]:
        """The latest ticks that have come since *first*, which has; as many as may be of use."""
        if self.elastic:
            return [first]
        second = self.schedule.next(first, state.start, state.ended)
        if second is None or second > now:
            return [first]
        count = self.misfire.n + 1 if isinstance(self.misfire, CatchUp) else 1
        last = min(now, self.last_moment)
        found = latest(self.schedule, first, last, state.start, count)
        # Where a tick is to come a bit later, those behind it wait with it.
        come = takewhile(lambda tick: self.when(state, tick) <= now, found)
        return list(come) or [first]

    def _chosen(self, state: FlowState, ticks: list[float], now: float) -> list[float]:
        """Those of the *ticks* that are to be run: what to do about missed ones."""
        on_time = now - self.when(state, ticks[-1]) <= LATE
        if isinstance(self.misfire, CatchUp):
            return ticks[-self.misfire.n - on_time :]
        return ticks[-1:] if on_time or self.misfire == "once" else []

    def _overlapping(self, state: FlowState, ticks: list[float]) -> Iterator[Action]:
        """Have *ticks* begun, or do what is to be done while there is no room."""
        room = self.limit - len(state.running) - len(state.queued)
        if len(ticks) > 1:  # they are made up for, one after the other
            full = MOST_QUEUED - len(state.queued)
            yield from (Skip(tick, "queue full") for tick in ticks[full:])
            state.queued += ticks[:full]
        elif room > 0 or (self.overlap == "queue" and not state.queued):
            state.queued += ticks
        elif self.overlap == "cancel":
            yield from (Skip(tick, "superseded") for tick in state.queued)
            yield from (Stop(run_id) for run_id in state.running)
            state.queued = ticks
        else:
            yield Skip(ticks[0], "queue full" if self.overlap == "queue" else "running")

    def _fill(self, state: FlowState, now: float) -> Iterator[Action]:
        """Begin what is queued, while there is room."""
        if state.paused or state.tripped or now < state.rests:
            why = "paused" if state.paused else "tripped" if state.tripped else "backing off"
            yield from (Skip(tick, why) for tick in state.queued)
            state.queued = []
        while state.queued and len(state.running) < self.limit:
            due = state.queued.pop(0)
            yield self._begin(state, self.run_id(due), due, now)

    def _begin(self, state: FlowState, run_id: str, due: float, now: float) -> Begin:
        state.running[run_id] = now
        state.runs, state.began = state.runs + 1, now
        return Begin(run_id, due)


def _skip_to(state: FlowState, now: float) -> None:
    state.last = now if state.last is None else max(state.last, now)
