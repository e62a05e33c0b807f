"""How a command ends: the exit codes, and the errors that lead to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cano.errors import MissingExtraError

OK = 0
FAILED = 1
"""The run failed."""
USAGE = 2
NOT_FOUND = 3
INVALID = 4
"""A definition or data that cannot be right."""
TIMED_OUT = 124
INTERRUPTED = 130
TERMINATED = 143


def missing(library: str) -> MissingExtraError:
    """What to say when *library* is not installed."""
    return MissingExtraError(
        f"this command needs {library}, which is not installed; "
        "install it with: pip install 'cano[cli]'"
    )
