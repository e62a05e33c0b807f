"""Carrying out a run whose history is in a store.

Two things differ from a run in memory: when its process goes away the run is let go, not undone;
and it may lose the run to somebody else, after which it touches nothing.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Coroutine
from math import inf
from typing import Any

from cano._ends import result_of
from cano._host import Parked
from cano._lifecycle import Phase
from cano._plan import Step
from cano._recorded import RecordedRun
from cano._rollback import roll_back
from cano.checkpoints.store import Status
from cano.context import Context
from cano.errors import RunLostError
from cano.events import (
    Cause,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunReleased,
    RunResumed,
)
from cano.tasks.task import S


class DurableRun(RecordedRun[S]):
    """A recorded run, carried out here."""

    __slots__ = ()

    def failed(self, context: Context[Any], error: BaseException) -> None:
        """Say that the work of this state ended, unless it is only let go to wait."""
        if self._idle:
            self._idle = False
        elif not isinstance(error, Parked):
            super().failed(context, error)
        elif self.cancelled:  # told of it in the very step it was about to wait
            super().failed(context, CancelledError())

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
