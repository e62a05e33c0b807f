"""What is left of a context in another process: it can be read, but has no run to speak to."""

from __future__ import annotations

from enum import Enum
from typing import Any

from cano._host import BranchInfo
from cano.context import Context
from cano.errors import DetachedContextError
from cano.events import Event
from cano.join import SplitResult


def detached(  # noqa: PLR0917 -- pickle passes them by position
    run_id: str,
    state: Enum,
    data: Any,
    attempt: int,
    branch: BranchInfo | None,
    split: SplitResult[Any] | None,
    error: Exception | None,
) -> Context[Any]:
    host: Any = Detached(run_id)
    context = Context(host, [state], data)
    context.attempt = attempt
    context.branch = branch
    context.item = branch.item if branch else None
    context.split = split
    context.error = error
    return context


class Detached:
    """Stands where the run was, in a context that was sent to another process."""

    data_type = None
    durable = False

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def listens(self, kind: type[Event], /) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise DetachedContextError(
            "this context was sent to another process: it knows run_id, state, data, attempt, "
            "branch, item, split and error, but "
            f"has no {name}; pass what the function needs as an argument"
        )
