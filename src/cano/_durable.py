"""A run whose history is in a store.

It differs from the run in memory in three things: an event counts when it is on disk; when its
process goes away the run is let go, not undone; and it may lose the run to somebody else, after
which it touches nothing.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine, Mapping, Sequence
from math import inf
from typing import Any

from msgspec.structs import force_setattr, replace

from cano._cancel import Canceller
from cano._ends import result_of
from cano._history import History, Phase, evolve
from cano._host import Parked, Resolution, resolution
from cano._journal import Journal
from cano._mailbox import Letter
from cano._patch import written
from cano._plan import Plan, Step
from cano._rollback import roll_back
from cano._run import Run
from cano._shield import outlast
from cano.checkpoints.store import CANCEL, RESOLVE, CheckpointStore, Claim, NewRun, Status
from cano.context import Context
from cano.errors import CheckpointError, EffectInDoubtError, ProgressMismatchError, RunLostError
from cano.events import (
    Cause,
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunReleased,
    RunResumed,
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


class DurableRun(Run[S]):
    """A plan being carried out, and written down."""

    __slots__ = (
        "_canceller", "_idle", "_inherited", "_may_park", "_resolutions", "driver", "ending",
        "journal", "kept", "origin", "tags", "within",
    )  # fmt: skip

    durable = True

    def __init__(
        self, plan: Plan[S], run_id: str | None, store: CheckpointStore, *, may_park: bool
    ) -> None:
        super().__init__(plan, run_id)
        self.journal: Journal = Journal(store, self.run_id)
        self._may_park = may_park
        self._history: History | None = History()
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
            self.run_id, plan.name, owner, self.now(), plan.version, plan.fingerprint, self.tags
        )
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

    def failed(self, context: Context[Any], error: BaseException) -> None:
        """Say that the work of this state ended, unless it is only let go to wait."""
        if self._idle:
            self._idle = False
        elif not isinstance(error, Parked):
            super().failed(context, error)
        elif self.cancelled:  # told of it in the very step it was about to wait
            super().failed(context, CancelledError())

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

    def take_over(self, claim: Claim) -> None:
        """Be its new owner."""
        self.journal.epoch = claim.epoch

    def forget(self) -> None:
        """It is not the beginning of a run after all: another of its name exists."""
        self.journal = Journal(self.journal.store, self.run_id)
        self._history = History()

    def recall(self, history: History, path: Sequence[str]) -> None:
        """Be what *history* says, having gone along *path*; states that are no more are left out."""
        members = self.plan.states.__members__
        self._history = history
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

    async def carry_on(self, context: Context[Any], first: Step[S], *, resumed: bool) -> S:
        """From here to the end of the run, or until somebody else has to go on."""
        try:
            if resumed and self.listens(RunResumed):
                self.announce(self.resumption())
            if self.history.phase is Phase.ROLLING_BACK:
                return await self.finish_rollback(context)
            return await self.go_forward(context, first)
        except CancelledError:
            self.tell_of_release("shutdown")
            raise
        except Exception as error:
            try:
                if self.stops(error):
                    await self.set_aside(error, context)
            finally:
                self.tell_of_release("in doubt")
            raise
        finally:
            context.close()

    def resumption(self) -> RunResumed:
        history = self.history
        state, entered = history.state, history.entered
        return RunResumed(state=state, entered=entered, begun=history.begun, trace=history.trace)

    def tell_of_release(self, reason: str) -> None:
        """Tell the observers, where the run is not over, that it is not carried out here."""
        if self.history.over or not self.listens(RunReleased):
            return
        if self.journal.broken is not None:
            reason = "lost" if isinstance(self.journal.broken, RunLostError) else "store"
        self.announce(RunReleased(state=self.history.state, reason=reason))

    async def go_forward(self, context: Context[Any], first: Step[S]) -> S:
        """Visit states to the end, or to where the run stops or waits."""
        try:
            if self.cancelled:
                self.heed_early_cancel(first)
            state = await self.visit_all(context, first)
            await self.record(RunFinished(state=state._name_, patch=context.changes()))
        except Parked as parked:
            if self.cancelled:  # told of it in the very step it was about to wait
                await self.end_cancelled(context)
            await self.let_go(Status.WAITING, parked.until)
            if self.listens(RunParked):
                context.emit(RunParked(until=0.0 if parked.until == inf else parked.until))
            raise
        except CancelledError:
            await self.end_or_release(context)
            if self.cancelled and self.history.phase is Phase.FINISHED:
                return self.plan.exits[self.history.state]  # asked for too late
            raise
        except Exception as error:
            if not self.stops(error):
                await self.end_failed(context, error)
            raise
        return state

    def heed_early_cancel(self, first: Step[S]) -> None:
        """The end was asked for before this process had the run. Raises `CancelledError`.

        Not where undoable work may have been broken off: it is finished first, as it is when a
        cancellation comes in its midst, so that it is known and can be undone.
        """
        if self.history.entered and self.history.state in self.plan.undoers:
            self.stop()
            return
        if self.history.entered:
            self.path.append(first[0])
        raise CancelledError

    def visit_all(self, context: Context[Any], first: Step[S]) -> Coroutine[Any, Any, S]:
        """The visits, within the time there is for them."""
        if self.plan.timeout is None:
            return self.forward(context, first)
        return self.forward_within(context, first, self.plan.timeout)

    async def end_or_release(self, context: Context[Any]) -> None:
        """After a cancellation: the end, if that was asked for; or somebody else goes on."""
        if self.journal.broken is not None:
            raise self.journal.broken
        if self.history.over:  # it came too late
            return
        over_with = self.within is not None and not self.within.leaving
        if self.cancelled or over_with or self.stray():
            await self.end_cancelled(context)
        else:
            await self.let_go(Status.RUNNING, 0.0)

    async def set_aside(self, error: Exception, context: Context[Any]) -> None:
        """Stop where we are. What only a person can mend waits for one."""
        broken = self.journal.broken
        self.note(broken or error, context)
        if broken is None:
            await self.let_go(Status.IN_DOUBT, inf)
        elif broken is not error:  # the task made something else of it
            raise broken from error

    async def undo_standing(self, context: Context[Any], cause: Cause | None) -> list[Exception]:
        """Roll back, with the data as last recorded: so would whoever has to go on with it."""
        if self.history.standing:
            self.recall_data(context)
        return await super().undo_standing(context, cause)

    def recall_data(self, context: Context[Any], /) -> None:
        if self.plan.data_type is not None:
            context.data = self.plan.data_type.rebuild(self.history.data)

    async def finish_rollback(self, context: Context[Any]) -> S:
        """Go on with a rollback that was broken off, and end as the run would have ended."""
        history = self.history
        if (member := self.plan.states.__members__.get(history.state)) is not None:
            self.path.append(member)
        await roll_back(self, context)
        if history.cancelled:
            await self.record(RunCancelled(state=history.state))
        else:
            cause = history.cause or Cause(kind=":Exception", message="")
            kind = cause.kind.rpartition(":")[2]
            await self.record(
                RunFailed(state=history.state, kind=kind, error=cause.message, cause=cause)
            )
        return result_of(history, self.plan, self.run_id, part=self.within is not None)

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
