"""One run under `crash_everywhere`, through as many processes as it takes."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cano._history import replay
from cano._process import here
from cano.checkpoints.store import RunQuery, RunSummary
from cano.errors import CorruptHistoryError, DefinitionError
from cano.events import Event, RunClaimed, RunFinished, StateEntered
from cano.tasks.poll import PollTask
from cano.tasks.stream import StreamTask
from cano.testing._crash_check import Histories, check_life, check_path
from cano.testing._crash_life import Outcome, Process, Setup, Stop, TroubleError
from cano.testing._crash_points import Crash, Story
from cano.testing._crash_store import CrashStore
from cano.testing._crash_world import Deed, Outside, World
from cano.workflow import Workflow

T = TypeVar("T")

BEGIN = 1_700_000_000.0
"""When every story begins, in seconds since the epoch."""


@dataclass
class Play:
    """A story while it is told; what is there of it can be shown when it went wrong."""

    setup: Setup
    story: Story
    outside: Outside = field(default_factory=Outside)
    lives: int = 0
    begun: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """After which event of the run each process began, and what had happened to the one before."""
    writes: int = 0
    """Durable writes of the first process."""
    shared: Sequence[int] = ()
    """Those that another one followed in the same turn of the loop."""
    outcome: Outcome = None
    flow: Workflow[Any, Any] | None = None
    """That of the first process."""
    happened: list[bool] = field(default_factory=list[bool])
    """Which troubles of the story came to pass."""
    loose: frozenset[str] = frozenset()
    """States whose records depend on the time."""

    def __post_init__(self) -> None:
        self._wall = BEGIN
        self._todo = [*self.story]
        self._processes: list[Process] = []
        self.known: Histories = {}
        self._trouble = ""

    @property
    def ledger(self) -> Sequence[Deed]:
        return self.outside.ledger

    @property
    def troubles(self) -> int:
        """How often work may have been broken off."""
        return len(self.story) + sum(process.decided for process in self._processes)

    def witness(self) -> World:
        """The world as somebody sees it who takes no part."""
        store = CrashStore(self.outside.store, None, _nothing, _nothing)
        return World(self.outside, self.lives, store, self.setup.run_id)

    def run(self) -> Play:
        """Tell it to its end. Raises `TroubleError`."""
        while self.lives < len(self.story) + 5:
            crash = self._todo.pop(0) if self._todo else None
            process = self._process(crash)
            try:
                outcome = self._live(process, crash)
            finally:
                process.bury()
            if not isinstance(outcome, Stop):
                self.outcome = outcome
                self._nothing_is_left()
                return self
        raise TroubleError(f"the run never ends: {self.lives} processes have tried")

    def _process(self, crash: Crash | None, beside: Process | None = None) -> Process:
        self.lives += 1
        clock = self._wall if beside is None else beside.loop
        process = Process(self.setup, self.outside, self.lives, crash, clock)
        self._processes.append(process)
        if any(crash.fault == "backward" for crash in self.story):
            process.timeout *= 2  # what ends at a moment ends that much later
        return process

    def _live(self, process: Process, crash: Crash | None) -> Outcome:
        """One process, and what it is followed by at once; how that ended."""
        deeds = len(self.outside.ledger)
        self._mark(crash="" if self.lives == 1 else None)
        outcome = process.go()
        if crash is not None:
            self.happened.append(process.store.happened)
            self.begun += [(n, f"the store failed: {crash!r}") for n in process.taken_up]
        if self.lives == 1:
            self.flow = process.flow
            self.writes, self.shared = process.store.writes, process.store.shared
            self.loose = _loose(process)
        self._check_lives(deeds, process)
        if not self.story:
            self._check_record(process)
        self._wall = process.wall + 0.001
        if outcome is Stop.FROZEN:
            return self._overtaken(process)
        if outcome is Stop.LOST:
            raise TroubleError("the run was lost to another owner, but there is none")
        if outcome is Stop.CRASHED and crash is not None:
            self._trouble = f"process {process.world.life} died: {crash!r}"
            return self._mourn(process, crash)
        if outcome is Stop.STOPPED:
            self._trouble = f"process {process.world.life} was asked to stop: {crash!r}"
            self._let_go()
        return outcome

    def _check_lives(self, deeds: int, *processes: Process) -> None:
        """What must be true of the latest processes; the deeds after number *deeds* are theirs."""
        after = self.histories()
        for process in processes:
            latest = self.outside.ledger[deeds:]
            check_life(self.setup.run_id, self.known, after, latest, process.history)
        self.known = after

    def _check_record(self, process: Process) -> None:
        """What is on record of an untroubled run is what it did."""
        events = self.events().get(self.setup.run_id, [])
        if not events:
            raise DefinitionError(
                "nothing was recorded of the run, so there is nothing to crash: it ended with "
                f"{process.begin().result()}"
            )
        recorded = [event.state for event in events if isinstance(event, StateEntered)]
        check_path(recorded, process.path, finished=isinstance(events[-1], RunFinished))
        if forgotten := process.unrecorded:
            raise TroubleError(f"the data on record is not that of the run: {', '.join(forgotten)}")

    def _mark(self, crash: str | None) -> None:
        events = self.events().get(self.setup.run_id, [])
        self.begun.append((len(events), self._trouble if crash is None else crash))

    def _mourn(self, process: Process, crash: Crash) -> Outcome:
        """What follows the death of a process: somebody knows of it, or its lease runs out."""
        if crash.fault == "forward":
            self._wall += 2 * process.lease + 1
            return Stop.CRASHED
        for owner in at_once(self.outside.store.owners(here(), 0.0)):
            at_once(self.outside.store.expire(owner.id))
        if crash.fault == "backward":
            self._wall -= 2 * process.lease + 1
        return self._twins() if crash.fault == "duplicate" else Stop.CRASHED

    def _overtaken(self, frozen: Process) -> Outcome:
        """Another process carries the run on; then the one that stood still wakes up."""
        crash = frozen.store.crash
        self._wall += 2 * frozen.lease + 1
        self._trouble = f"process {frozen.world.life} stood still: {crash!r}"
        deeds = len(self.outside.ledger)
        self._mark(None)
        second = self._process(None)
        try:
            outcome = second.go()
            self._check_lives(deeds, second)
        finally:
            second.bury()
        events = self.events()
        self._wall = second.wall + 0.001
        late = frozen.wake_up(self._wall)
        if late is not Stop.LOST and late != outcome:
            raise TroubleError(
                f"a process that woke up too late should be refused; it ended with {late}"
            )
        if self.events() != events:
            raise TroubleError("a process that woke up too late wrote something all the same")
        return outcome

    def _twins(self) -> Outcome:
        """Two processes resume the run at the same moment, and one of them does."""
        deeds = len(self.outside.ledger)
        claims = self._claims()
        self._mark(None)
        one = self._process(None)
        other = self._process(None, beside=one)
        try:
            mains = [one.begin(), other.begin()]
            while not all(main.done() for main in mains):
                one.turn()
            outcomes = [main.result() for main in mains]
            one.go()  # looks for what is left behind
        finally:
            other._over = True
            other.store.bury()
            one.bury()
        self._wall = one.wall + 0.001
        if outcomes[0] != outcomes[1]:
            raise TroubleError(f"two processes saw different ends: {outcomes[0]}, {outcomes[1]}")
        self._check_lives(deeds, one, other)
        if (claimed := self._claims() - claims) > 1 and not one.decided + other.decided:
            raise TroubleError(
                f"two processes resumed the run at once: it was claimed {claimed} times"
            )
        return outcomes[0]

    def _claims(self) -> int:
        """How often the run was taken over."""
        events = self.events().get(self.setup.run_id, [])
        return sum(isinstance(event, RunClaimed) for event in events)

    def _let_go(self) -> None:
        for summary in self.summaries():
            if not summary.over and summary.lease > self._wall:
                raise TroubleError(
                    f"the process was asked to stop, and did not let go of run {summary.run_id!r}"
                )

    def _nothing_is_left(self) -> None:
        for run in self.summaries():
            if not run.over:
                raise TroubleError(f"run {run.run_id!r} is left {run.status} in {run.state}")
            if run.owner:
                raise TroubleError(f"run {run.run_id!r} is over, and still owned by {run.owner}")

    def summaries(self) -> Sequence[RunSummary]:
        """All runs there are, parts included."""
        return at_once(self.outside.store.runs(RunQuery(limit=1_000_000)))

    def events(self) -> dict[str, list[Event]]:
        """What is on record, by run."""
        load = self.outside.store.load
        return {run.run_id: at_once(load(run.run_id)) for run in self.summaries()}

    def histories(self) -> Histories:
        """The same, folded. Raises `TroubleError` for what does not fit."""
        try:
            return {name: (replay(events), events) for name, events in self.events().items()}
        except CorruptHistoryError as error:
            raise TroubleError(f"the history is no history: {error}") from error


def _nothing() -> None:
    """A witness neither dies nor stops."""


def _loose(process: Process) -> frozenset[str]:
    """The states whose progress is cut where time passes."""
    flow: Any = process.flow
    return frozenset(
        each.state.name
        for each in flow._registrations.values()
        if isinstance(each.task, StreamTask | PollTask)
    )


def at_once(asked: Coroutine[Any, Any, T]) -> T:
    """The answer of a store in memory, which never waits."""
    try:
        asked.send(None)
    except StopIteration as answer:
        result: T = answer.value
        return result
    raise RuntimeError("the store made us wait")
