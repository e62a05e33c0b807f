"""Everything cano raises, and which of it is worth trying again.

Exceptions of the user's own code pass through as they are, with a note saying where they
happened; what is listed here is what cano itself has to say. ``CanoError`` is the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from cano.join import SplitResult  # a type only: the vocabulary imports nothing of ours


class CanoError(Exception):
    """The root of everything cano raises of its own."""

    retryable: ClassVar[bool] = True
    """Whether trying again may help; `Retry()` asks this of every error it meets."""


class DefinitionError(CanoError, ValueError):
    """A workflow that cannot be right, found before its first task ran.

    `problems` holds every finding; each says what is wrong, where, and what to do.
    """

    retryable = False

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return f"{len(self.problems)} problems:\n" + "\n".join(f"- {p}" for p in self.problems)


class RoutingError(CanoError):
    """A task returned something that is not a state the run can go to."""

    retryable = False


class DataError(CanoError):
    """Run data that cannot be written down, or was changed where it must be left alone."""

    retryable = False


class AttemptTimeoutError(CanoError, TimeoutError):
    """One attempt took longer than its `Timeout` allows."""


class RunTimeoutError(CanoError, TimeoutError):
    """The whole run took longer than the workflow's `timeout`."""

    retryable = False


class SplitTimeoutError(CanoError, TimeoutError):
    """The branches of a split did not satisfy its join before its deadline."""


class PollExhaustedError(CanoError, TimeoutError):
    """A poll was not ready within the polls, or the seconds, it had."""

    retryable = False


class TooManyFailuresError(CanoError, ExceptionGroup[Exception]):
    """More items of a batch or stream failed than it tolerates; holds their exceptions."""

    retryable = False

    def derive(self, excs: Sequence[Exception], /) -> TooManyFailuresError:  # type: ignore[override]
        """Keep the class when the group is split by ``except*`` or `contextlib.suppress`."""
        return TooManyFailuresError(self.message, excs)


class CallRefusedError(CanoError):
    """A policy did not let a call through; `retry_after` says for how many seconds it will not."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.retry_after), self.__dict__


class CircuitOpenError(CallRefusedError):
    """The circuit breaker is open, or all its probes are out; the call was not made."""

    retryable = False


class RateLimitedError(CallRefusedError):
    """The rate limiter has nothing left, or would have made the call wait for too long.

    `tier` is the name of the limit that said no, where there are several.
    """

    tier: str = ""


class BulkheadFullError(CallRefusedError):
    """All places were taken for longer than the call was to wait."""


class CostError(CanoError, ValueError):
    """A call costs more than its limiter could ever allow at once."""

    retryable = False


class JoinFailedError(CanoError, ExceptionGroup[Exception]):
    """The join of a split could not be satisfied; holds the branches' own exceptions.

    `result` is the whole `SplitResult`: what succeeded, failed, was cancelled or never started.
    """

    result: SplitResult[Any]

    def derive(self, excs: Sequence[Exception], /) -> JoinFailedError:  # type: ignore[override]
        """Keep *result* when the group is split by ``except*``."""
        group = JoinFailedError(self.message, excs)
        group.result = self.result
        return group


class NotJoinedError(CanoError, LookupError):
    """A task asked for the split before it, and there was none."""

    retryable = False


class TooFewBranchesError(CanoError):
    """A split made at run time had fewer branches than its join needs."""

    retryable = False


class RunCancelledError(CanoError):
    """The run was cancelled through its handle."""

    retryable = False


class StrayCancelledError(CanoError):
    """A task raised `asyncio.CancelledError` although nobody cancelled its run.

    Usually it awaited something that somebody else had cancelled.
    """


class CorruptHistoryError(CanoError):
    """An event that cannot follow what has happened to this run so far, or cannot be read."""

    retryable = False


class CompensationFailedError(CanoError, ExceptionGroup[Exception]):
    """The run failed, and some of its completed work could not be undone.

    Holds the original error first (if there was one), then each failed compensation, in the order
    in which they were tried.
    """

    retryable = False


class OrphanedCompensationError(CanoError):
    """Completed work that nobody can undo any more, or that the rollback had no time for.

    `state`, `branch` and `value`, what undoing it needs as JSON, are what a person has to go by.
    """

    retryable = False

    def __init__(self, message: str, state: str, branch: str, value: bytes) -> None:
        super().__init__(message)
        self.state = state
        self.branch = branch
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.state, self.branch, self.value), self.__dict__


class RollbackTimeoutError(CanoError, TimeoutError):
    """The rollback took longer than the workflow's `rollback_timeout`."""

    retryable = False


class CheckpointError(CanoError):
    """The root of what goes wrong with a store of histories, and its failure to keep an event.

    A run that meets it stops where it is: nothing is undone, and it can be resumed.
    """

    retryable = False


class RunNotFoundError(CheckpointError, LookupError):
    """The store knows no run of that name."""


class RunExistsError(CheckpointError):
    """The store has a run of that name already."""


class RunOwnedError(CheckpointError):
    """Somebody else is carrying out the run. `owner` says who, `until` how long at least."""

    def __init__(self, message: str, owner: str = "", until: float = 0.0) -> None:
        super().__init__(message)
        self.owner = owner
        self.until = until

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.owner, self.until), self.__dict__


class RunLostError(CheckpointError):
    """The run was taken over by somebody else, who carries it on. Nothing was undone here."""


class RunEndedError(CheckpointError):
    """The run has come to its end, and takes no more signals or requests."""


class RunIdReusedError(CheckpointError, ValueError):
    """A run of that name exists, but was started with other data or from another state."""


class RunStuckError(CheckpointError):
    """The run killed its process again and again, and waits for a person."""


class RunFailedError(CanoError, RuntimeError):
    """A run that ended with an error before now, and was asked for again.

    `kind` is the class of the original error, `message` what it said, `details` its traceback.
    """

    retryable = False

    def __init__(self, text: str, kind: str = "", message: str = "", details: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.kind, self.message, self.details), self.__dict__


class RecordedError(CanoError, RuntimeError):
    """Stands for an exception from before a restart that could not be rebuilt as itself.

    `kind` is its class, `message` what it said; its traceback is in the notes.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.message), self.__dict__


class EffectInDoubtError(CheckpointError):
    """An effect had begun when its process died, and nobody can tell whether it happened.

    The run waits for a person to say: ``cano runs resolve``.
    """


class ProgressMismatchError(CheckpointError):
    """A resumed task asks for something else than what was recorded in its place."""


class SignalTimeoutError(CanoError, TimeoutError):
    """The signal that was waited for did not come in time."""

    retryable = False


class VersionMismatchError(CheckpointError):
    """The workflow is not the one this run was started with; `changes` says what is different."""

    def __init__(self, message: str, changes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.changes: tuple[str, ...] = tuple(changes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.changes), self.__dict__


class FlowRefusedError(CanoError):
    """A flow of a scheduler cannot be triggered now; the message says why, and what to do."""

    retryable = False


class ResourceError(CanoError):
    """The root of what goes wrong with resources."""

    retryable = False


class ResourceNotFoundError(ResourceError, LookupError):
    """No resource has that name or type."""


class ResourceTypeError(ResourceError, TypeError):
    """The resource of that name is of another type."""


class DuplicateResourceError(ResourceError, ValueError):
    """Two resources were given the same name."""


class StoreError(CanoError):
    """The root of what goes wrong with a `MemoryStore`."""

    retryable = False


class KeyNotFoundError(StoreError, KeyError):
    """The store holds nothing under that key."""

    def __str__(self) -> str:  # KeyError would show the quoted repr of the message
        return str(self.args[0]) if self.args else ""


class ValueTypeError(StoreError, TypeError):
    """The store holds a value of another type under that key."""


class WorkerCrashedError(CanoError):
    """The process that was making a call died before it could answer."""


class RemoteError(CanoError, RuntimeError):
    """Stands for an exception of another process that could not be brought back as itself.

    `kind` is its class's name, `message` what it said; its traceback is in the notes.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (self.kind, self.message), self.__dict__


class DetachedContextError(CanoError):
    """Code in another process asked its context for something that stayed at home."""

    retryable = False


class MissingExtraError(CanoError, ImportError):
    """An optional dependency is not installed; the message says which one and how to get it."""

    retryable = False


def note(error: BaseException, text: str) -> None:
    """Add *text* to the notes of *error*, once: the same object may be raised again and again."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
