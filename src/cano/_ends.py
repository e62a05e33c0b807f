"""What a run that is over comes to, for whoever asks for it again."""

from __future__ import annotations

from typing import Any

from cano._causes import revive
from cano._history import History
from cano._lifecycle import Phase
from cano._plan import Plan
from cano.errors import (
    CompensationFailedError,
    JoinFailedError,
    RunCancelledError,
    RunFailedError,
    StrayCancelledError,
    VersionMismatchError,
    note,
)
from cano.events import Cause
from cano.join import SplitResult
from cano.tasks.task import S


def result_of(history: History, plan: Plan[S], run_id: str, *, part: bool = False) -> S:
    """The exit of a finished run. Raises the recorded end of another.

    That is `RunFailedError` or `RunCancelledError`, inside `CompensationFailedError` if completed
    work could not be undone. A *part* fails with what it failed of, for its whole to judge.
    """
    if history.phase is Phase.FINISHED:
        exit_: Any = plan.states.__members__.get(history.state)
        if exit_ is None:
            raise VersionMismatchError(
                f"run {run_id!r} finished in {history.state}, which {plan.states.__name__} no "
                "longer has"
            )
        return exit_  # type: ignore[no-any-return]
    end = _end(history, run_id)
    if part and history.cause is not None and not history.cancelled:
        end = revive(history.cause)
    if history.failures:
        failures = [revive(work.error) for work in history.failures if work.error is not None]
        raise CompensationFailedError(
            f"run {run_id!r} ended, and {len(history.failures)} of its completed works could not "
            "be undone",
            [end, *failures],
        )
    raise end


def _end(history: History, run_id: str) -> Exception:
    where = f" in {history.state}" if history.state else ""
    if history.phase is Phase.CANCELLED:
        return RunCancelledError(f"run {run_id!r} was cancelled{where}")
    cause = history.cause
    if cause is None:
        return RunFailedError(f"run {run_id!r} failed{where}")
    kind = cause.kind.rpartition(":")[2]
    error = RunFailedError(
        f"run {run_id!r} failed{where}: {kind}: {cause.message}",
        kind,
        cause.message,
        cause.traceback,
    )
    for text in cause.notes:
        note(error, text)
    return error


def stray_error(where: str) -> StrayCancelledError:
    """What is raised instead of a cancellation that came from nobody who has a right to it."""
    return StrayCancelledError(
        f"{where or 'the run'} raised CancelledError, but nobody had cancelled the run; it "
        "probably awaited something that was cancelled elsewhere"
    )


def refused(cause: Cause, split: SplitResult[Any] | None) -> Exception:
    """The error that led to a state: of a join that failed all is known, and it is what it was."""
    if split is None or not split.errors:
        return revive(cause)
    message = cause.message.rpartition(" (")[0]  # without the count that a group adds
    group = JoinFailedError(message, [one.error for one in split.errors if one.error])
    group.result = split
    for text in cause.notes:
        note(group, text)
    return group
