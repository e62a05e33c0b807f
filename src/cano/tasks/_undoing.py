"""Work that was done and cannot be recorded is undone at once: nobody could undo it later."""

from __future__ import annotations

from typing import Any

from cano.context import Context
from cano.errors import CompensationFailedError
from cano.policies.policy import Call


async def undo_at_once(
    undo: Call[None], ctx: Context[Any], output: object, error: Exception
) -> None:
    """Undo what *error* keeps from being recorded. Raises `CompensationFailedError`."""
    whose = f"branch {ctx.branch.name!r} of {ctx.state.name}" if ctx.branch else ctx.state.name
    undoing = ctx.for_undo(ctx.state, f"{ctx.branch_name} undo at once".strip(), output)
    try:
        await undo(undoing)
    except Exception as failure:  # noqa: BLE001 -- told together with what led here
        raise CompensationFailedError(
            f"the output of {whose} could not be kept, and its work not undone",
            [error, failure],
        ) from error
    finally:
        undoing.close()
    ctx.data = undoing.data
