"""Undo what stands, newest first. One failure does not spare the rest.

Rule 1: every step is in the history before the next begins, so that a crash in the middle goes on
        where it was.
Rule 2: nothing interrupts it but its own deadline. What it has no time for is kept, with what
        undoing it needs, for a person.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from cano._causes import cause_of
from cano._history import Standing
from cano._shield import outlast
from cano.context import Context
from cano.errors import (
    CheckpointError,
    OrphanedCompensationError,
    RollbackTimeoutError,
    StrayCancelledError,
    note,
)
from cano.events import CompensationFailed, RollbackStarted, TaskCompensated

if TYPE_CHECKING:
    from cano._run import Run


async def roll_back(
    run: Run[Any], context: Context[Any], started: RollbackStarted | None = None
) -> list[Exception]:
    """Undo everything that stands; what could not be undone, and why. Raises `CheckpointError`.

    *started* is recorded first, where the rollback begins here. A cancellation waits until it is
    over: it may come in the very moment in which *started* is written.
    """
    work = asyncio.ensure_future(_undo_all(run, context, started))
    cancelled = await outlast(work)
    failures = work.result()
    if cancelled and not run.cancelled:
        run.interrupted = True
    return failures


async def _undo_all(
    run: Run[Any], context: Context[Any], started: RollbackStarted | None
) -> list[Exception]:
    if started is not None:
        await run.record(started)
    limit = run.plan.rollback_timeout
    until = asyncio.get_running_loop().time() + limit
    failures: list[Exception] = []
    while standing := run.history.standing:
        work = standing[-1]
        label = f"undo {work.sequence}"
        try:
            ctx = await _undo(run, context, work, label, until, limit)
            patch = ctx.changes()
        except CheckpointError:
            raise
        except Exception as error:  # noqa: BLE001 -- told at the end, with all others
            where = f"{work.state}, branch {work.branch!r}" if work.branch else work.state
            note(error, f"cano: while undoing {where} of run {run.run_id!r}")
            failures.append(error)
            run.recall_data(context)  # what half an undoing made of it is not kept
            await run.record(
                CompensationFailed(state=work.state, branch=work.branch, cause=cause_of(error))
            )
        else:
            context.data = ctx.data
            await run.record(TaskCompensated(state=work.state, branch=work.branch, patch=patch))
    return failures


async def _undo(  # noqa: PLR0917 -- one call, told apart from the loop for its length
    run: Run[Any], context: Context[Any], work: Standing, label: str, until: float, limit: float
) -> Context[Any]:
    """Undo one piece of work, and return the context it was done in."""
    undo = run.plan.undoer(work.state, work.branch)
    left = until - asyncio.get_running_loop().time()
    if undo is None:
        raise _orphan(work, "nothing in this workflow can undo it any more")
    if left <= 0:
        raise _orphan(work, f"the rollback had used up its {limit:g} s")
    state = run.plan.registrations[work.state].state
    ctx = context.for_undo(state, label, undo.value.read(work.value))
    alarm = ctx.alarm
    alarm.push(left)
    try:
        await undo.call(ctx)
    except CancelledError:
        if alarm.expired():
            raise RollbackTimeoutError(
                f"undoing {work.state} was ended: the rollback took longer than its {limit:g} s"
            ) from None
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the loop is being shut down
            raise
        raise StrayCancelledError(
            f"undoing {work.state} raised CancelledError, but nobody had cancelled it"
        ) from None
    finally:
        alarm.pop()
        ctx.close()
    return ctx


def _orphan(work: Standing, why: str) -> OrphanedCompensationError:
    where = f"{work.state}, branch {work.branch!r}," if work.branch else work.state
    shown = work.value[:200].decode(errors="replace")
    return OrphanedCompensationError(
        f"{where} was not undone: {why}; its output was {shown}; undo it by hand",
        work.state,
        work.branch,
        work.value,
    )
