"""A flow as a scheduler holds it, and how it is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from cano.handle import RunHandle
from cano.scheduler._flows import Flow, FlowState


class FlowPhase(StrEnum):
    """How a flow stands."""

    IDLE = "idle"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    """Its last run failed; nothing is begun by itself until it has rested."""
    TRIPPED = "tripped"
    """It failed too often in a row; nothing is begun until it is reset."""
    PAUSED = "paused"
    DONE = "done"
    """There is no other tick; it can be triggered all the same."""


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow at a glance. With a store it is as of the last time this process looked."""

    flow: str
    state: FlowPhase
    schedule: str
    """In words."""
    last_run: datetime | None
    """When the latest run began."""
    next_run: datetime | None
    """When the next one is due; None if it does not run by itself, or not before something else."""
    runs: int
    """How many were begun, those under way included."""
    outcome: str
    """Of the latest run that ended: `finished`, `failed`, `cancelled`; empty before."""
    streak: int
    """How many failed in a row."""
    error: str
    """The latest failure of the streak."""
    running: tuple[str, ...]
    """The names of the runs under way."""
    queued: int
    """How many ticks wait for room."""


class Asked(NamedTuple):
    """Somebody triggered a run with *data*, and waits for its handle."""

    data: Any
    handle: asyncio.Future[RunHandle[Any, Any]]


class Entry:
    """One flow of a scheduler: what is known of it, and what is carried out here."""

    __slots__ = (
        "_lock", "asked", "carried", "flow", "followed", "held", "kept", "open", "state", "tasks",
        "unwanted", "wakes",
    )  # fmt: skip

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.state: FlowState = flow.fresh(0.0)
        self.kept: bytes | None = None
        """What the store is known to keep of the state."""
        self.wakes: float | None = None
        """When the scheduler looks at it next."""
        self.open: bool = False
        """Whether the scheduler has begun with it, and it may run."""
        self.held: dict[str, RunHandle[Any, Any]] = {}
        """The runs that are carried out here."""
        self.asked: dict[str, Asked] = {}
        """The runs that somebody triggered and that did not begin yet."""
        self.carried: dict[str, asyncio.Task[Any]] = {}
        """Who carries out runs here, by run."""
        self.unwanted: set[str] = set()
        """Runs that are to be cancelled as soon as they have begun."""
        self.followed: set[str] = set()
        """The runs somebody here waits for, whoever carries them out."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self._lock: asyncio.Lock | None = None

    @property
    def lock(self) -> asyncio.Lock:
        """For changing what is kept: one after the other."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    def forget(self) -> None:
        """Begin anew in another event loop."""
        self.wakes, self.open, self._lock = None, False, None
        self.held, self.asked, self.carried = {}, {}, {}
        self.tasks, self.followed, self.unwanted = set(), set(), set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do *work* in the background, as long as the scheduler runs."""
        _ = self.task_of(work)

    def task_of(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """`spawn`, for whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=f"cano: flow {self.flow.name}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def status(self, now: float) -> FlowStatus:
        """The flow at a glance."""
        flow, state = self.flow, self.state
        when = flow.wake(state) if self.open else None
        return FlowStatus(
            flow=flow.name,
            state=self._phase(when, now),
            schedule=str(flow.schedule),
            last_run=_shown(state.began),
            next_run=_shown(when),
            runs=state.runs,
            outcome=state.outcome,
            streak=state.streak,
            error=state.error,
            running=tuple(state.running),
            queued=len(state.queued),
        )

    def _phase(self, when: float | None, now: float) -> FlowPhase:
        state = self.state
        if state.running:
            return FlowPhase.RUNNING
        if state.tripped:
            return FlowPhase.TRIPPED
        if state.paused:
            return FlowPhase.PAUSED
        if now < state.rests:
            return FlowPhase.BACKING_OFF
        done = self.open and when is None and not self.flow.manual
        return FlowPhase.DONE if done else FlowPhase.IDLE


def _shown(moment: float | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC)
