"""A run that is written down: what it is on record as, and who may write.

It differs from a run in memory in what a record costs: an event counts when it is on disk, and may
be refused, because somebody else has the run by now. How it is carried out is in `cano._durable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from msgspec.structs import force_setattr, replace

from cano._cancel import Canceller
from cano._history import History, evolve
from cano._host import Resolution, resolution
from cano._journal import Journal
from cano._mailbox import Letter
from cano._patch import written
from cano._plan import Plan, Step
from cano._run import Run
from cano._shield import outlast
from cano.checkpoints.store import CANCEL, RESOLVE, CheckpointStore, Claim, NewRun, Status
from cano.context import Context
from cano.errors import CheckpointError, EffectInDoubtError, ProgressMismatchError
from cano.events import (
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StateEntered,
)
from cano.tasks.task import S

_ENDS: Mapping[type[Event], Status] = {
    RunFinished: Status.FINISHED,
    RunFailed: Status.FAILED,
    RunCancelled: Status.CANCELLED,
}

_OWN_TROUBLE = (EffectInDoubtError, ProgressMismatchError)


class RecordedRun(Run[S]):
    """A run, and its journal."""

    __slots__ = (
        "_canceller",
        "_generated_id",
        "_idle",
        "_inherited",
        "_may_park",
        "_resolutions",
        "driver",
        "ending",
        "history",
        "journal",
        "kept",
        "origin",
        "tags",
        "within",
    )

    durable = True
    history: History
    """Looked at several times in every step, so there is no property in between."""

    def __init__(
        self,
        plan: Plan[S],
        run_id: str | None,
        store: CheckpointStore,
        clock: tuple[Callable[[], float], float],
        *,
        may_park: bool,
    ) -> None:
        super().__init__(plan, run_id)
        self._elapsed, self._offset = clock
        self._generated_id = run_id is None
        self.journal: Journal = Journal(store, self.run_id)
        self._may_park = may_park
        self._be(History())
        self._inherited = 0
        self._idle = False
        """Whether the work of the state it is in has not begun."""
        self.ending: bool = False
        """Whether its end is being written: what the store tells of that is for others."""
        self._resolutions: dict[str, Resolution] = {}
        self.tags: tuple[str, ...] = ()
        self.origin: tuple[str, int] = ("", 0)
        """Where the run was forked from."""
        self.kept: asyncio.Future[None] | None = None
        """For whoever waits until the run is in the store, and carried out here."""
        self._canceller: Canceller | None = None
        self.driver: tuple[asyncio.Task[Any], Context[Any]] | None = None
        """The asyncio task that carries the run out, and its context; set while it does."""
        self.within: Run[Any] | None = None
        """The run that this one is part of."""

    def _be(self, history: History) -> None:
        """Have this history, under the name that `Run` knows it by, too."""
        self.history = self._history = history  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def may_park(self) -> bool:
        return self._may_park

    @property
    def fence(self) -> int:
        return self.journal.epoch

    @property
    def inherited(self) -> int:
        return self._inherited

    @property
    def resolutions(self) -> Mapping[str, Resolution]:
        return self._resolutions

    @property
    def visits(self) -> int:
        return self.history.visit.number

    @property
    def leaving(self) -> bool:
        if self.cancelled or self.driver is None:
            return False
        task, context = self.driver
        own = context._alarm.sent if context._alarm is not None else 0  # timeouts of its own
        return task.cancelling() > own and (self.within is None or self.within.leaving)

    def defer(self, event: Event, /) -> None:
        self.journal.defer(event)

    def not_begun(self) -> None:
        self._idle = True

    def record(  # pyright: ignore[reportIncompatibleMethodOverride] -- it is awaited all the same
        self, event: Event, /
    ) -> Coroutine[Any, Any, None]:
        """The one door through which a run changes: persist, evolve, announce."""
        status = _ENDS.get(type(event))
        self.ending = status is not None
        return self.journal.write((event,), self.now(), status, self.took_place)

    def took_place(self, event: Event) -> None:
        """What is on disk counts, and is told."""
        evolve(self.history, event)
        if self.audience.observers and self.audience[type(event)]:
            if patch := getattr(event, "patch", None):
                force_setattr(event, "patch", written(patch))
            force_setattr(event, "run_id", self.run_id)
            force_setattr(event, "workflow", self.plan.name)
            self.tell(event)

    def tell(self, told: Event) -> None:
        """Tell the observers of *told*, whose envelope is filled in."""
        for observer in self.audience[type(told)]:
            try:
                observer(told)
            except Exception as error:  # noqa: BLE001 -- an observer never changes a run
                self.audience.dismiss(observer, told, error)

    def announce(self, event: Event, /) -> None:
        """Tell the observers of something that is not kept."""
        self.tell(
            replace(
                event,
                run_id=self.run_id,
                workflow=self.plan.name,
                sequence=self.history.sequence,
                time=self.now(),
            )
        )

    async def begin(self, context: Context[Any], start: S, owner: str) -> Step[S]:
        """Create the run; what to do first. Raises `RunExistsError`."""
        name, plan = start._name_, self.plan
        run = NewRun(
            self.run_id, plan.name, owner, self.now(), plan.version, plan.fingerprint, self.tags,
            self._generated_id,
        )  # fmt: skip
        started = RunStarted(
            state=name,
            version=plan.version,
            fingerprint=plan.fingerprint,
            patch=context.changes(),
            forked_from=self.origin[0],
            forked_at=self.origin[1],
            trace=self.audience.trace(self.run_id, plan.name, run.time),
        )
        events: list[Event] = [started]
        entered = self.steps[name] is not plan.bodies[name]
        if entered:  # the first visit begins in the same transaction
            events.append(StateEntered(state=name))
        await self.journal.create(run, events, self.took_place)
        return plan.bodies[name] if entered else self.steps[name]

    def stops(self, error: Exception, /) -> bool:
        """Whether *error* is this run's own trouble with its history, and no failure of a task."""
        if self.journal.broken is not None or isinstance(error, _OWN_TROUBLE):
            return True
        # A task may have met it in a group of its own tasks.
        return isinstance(error, ExceptionGroup) and _in_trouble(error)

    def stop_for(self, error: CheckpointError, /) -> None:
        if self.journal.broken is None:
            self.journal.broken = error

    def lose(self, error: CheckpointError) -> None:
        """Somebody else has the run: stop, and touch nothing."""
        self.stop_for(error)
        self.stop()

    def stop(self) -> None:
        """Cancel whoever carries the run out, if somebody does."""
        if self.driver is not None:
            self._canceller = self._canceller or Canceller(self, self.driver[0])
            self._canceller.begin()

    def leave(self) -> None:
        """It is carried out here no more; its asyncio task may have other things to do."""
        self.driver = None
        if self._canceller is not None:
            self._canceller.end()
            self._canceller = None

    def take_over(self, claim: Claim) -> None:
        """Be its new owner."""
        self.journal.epoch = claim.epoch

    def forget(self) -> None:
        """It is not the beginning of a run after all: another of its name exists."""
        self.journal = Journal(self.journal.store, self.run_id)
        self._be(History())

    def recall(self, history: History, path: Sequence[str]) -> None:
        """Be what *history* says, having gone along *path*; states that are no more are left out."""
        members = self.plan.states.__members__
        self._be(history)
        for name, raw in history.fields.items():  # each keeps alive what it was read from
            history.fields[name] = raw.copy()
        self.path[:] = [members[name] for name in path[:-1] if name in members]
        if path and (not history.entered or path[-1] not in members):
            self.path.extend(members[name] for name in path[-1:] if name in members)
        self.journal.sequence = self._inherited = history.sequence

    def next_step(self) -> Step[S]:
        """What to do first after a resume: the visit that was broken off, or the next."""
        steps = self.plan.bodies if self.history.entered else self.steps
        return steps[self.history.state]

    def recall_data(self, context: Context[Any], /) -> None:
        if self.plan.data_type is not None:
            context.data = self.plan.data_type.rebuild(self.history.data)

    async def let_go(self, status: Status, wake: float) -> None:
        """Give the run up, for anybody to claim from *wake* on. No cancellation breaks it off."""
        journal = self.journal
        release = asyncio.ensure_future(
            journal.store.release(journal.run_id, journal.epoch, status, wake, self.mailbox.last)
        )
        await outlast(release)
        release.result()

    async def look(self) -> None:
        """Fetch what was sent to the run, by whatever process."""
        for message in await self.journal.store.inbox(self.run_id, self.mailbox.last):
            if message.number <= self.mailbox.last:
                continue  # somebody else looked meanwhile
            self.mailbox.last = message.number
            if message.number <= self.history.received.get(message.name, 0):
                continue  # taken already
            if message.name == CANCEL:
                self.cancelled = True
                self.stop()
            elif message.name == RESOLVE:
                effect, said = resolution(message.number, message.value)
                self._resolutions[effect] = said
            else:
                self.mailbox.put(Letter(message.name, message.number, message.value))


def _in_trouble(group: Any) -> bool:
    return group.subgroup(_OWN_TROUBLE) is not None
