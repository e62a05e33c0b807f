"""How a command ends: its exit codes, and the exception that carries one."""

from __future__ import annotations

from cano.errors import MissingExtraError

OK = 0
FAILED = 1
"""The run failed."""
USAGE = 2
NOT_FOUND = 3
INVALID = 4
"""A definition, or data, that cannot be right."""
TIMED_OUT = 124
INTERRUPTED = 130
TERMINATED = 143


class CommandError(Exception):
    """Ends a command with *message* for the user and *code* for the shell."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def missing(library: str) -> MissingExtraError:
    """What to say where *library* is not installed."""
    return MissingExtraError(
        f"the cano command needs {library}, which is not installed: pip install 'cano[cli]'"
    )
