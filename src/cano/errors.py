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
    """An event that cannot follow what has happened to this run so far."""

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
