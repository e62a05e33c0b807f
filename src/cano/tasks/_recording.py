"""What a store keeps of a split: what its branches came to, so that none runs twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from cano._causes import cause_of, revive
from cano._history import Visit
from cano._host import BranchInfo
from cano._values import ValueType
from cano.context import Context
from cano.errors import CheckpointError, DataError, ProgressMismatchError
from cano.events import BranchFailed, BranchFinished, Progress, SplitStarted
from cano.join import BranchResult, SplitResult
from cano.policies.policy import Call
from cano.tasks._undoing import undo_at_once

T = TypeVar("T")
ValueOf: TypeAlias = Callable[[int], ValueType]


def kept_branch(call: Call[T], value: ValueType, undo: Call[None] | None) -> Call[T]:
    """Record what the branch comes to, before the join hears of it.

    What can be undone, but not recorded, is undone at once.
    """

    async def branch(ctx: Context[Any]) -> T:
        index = ctx.branch.index if ctx.branch else 0
        try:
            result = await call(ctx)
            try:
                written = value.write(result)
            except DataError as error:
                if undo is not None:
                    await undo_at_once(undo, ctx, result, error)
                raise
        except Exception as error:
            if ctx.host.stops(error):
                raise
            failed = BranchFailed(index=index, error=repr(error), cause=cause_of(error))
            await ctx.keep(failed)
            raise
        finished = BranchFinished(index=index, value=written, undoable=undo is not None)
        await (ctx.keep(finished) if undo is None else ctx.record(finished))
        return result

    return branch


async def start_split(ctx: Context[Any], names: Sequence[str]) -> None:
    """Record which branches there are, before the first begins; a resumed split has the same.

    Raises `ProgressMismatchError` if it has not.
    """
    begun: SplitStarted | None = ctx.host.history.visit.of("split", ctx.branch_name)
    if begun is None:
        await ctx.record(SplitStarted(names=tuple(names)))
    elif begun.names != tuple(names):
        odd = sorted(set(begun.names) ^ set(names))[:5] or ["their order"]
        raise ProgressMismatchError(
            f"the split of {ctx.state.name} began with {len(begun.names)} branches, and was resumed "
            f"with {len(names)}; what differs: {', '.join(odd)}. Make its items from the run data "
            "alone, in a fixed order"
        )


def known_results(
    ctx: Context[Any], branches: Sequence[BranchInfo], value_of: ValueOf
) -> Mapping[int, BranchResult[Any]]:
    """What branches came to before the run was resumed, the first to end first."""
    visit = ctx.host.history.visit
    if not visit.progress:
        return {}
    found = [(branch, visit.of("branch", branch.name)) for branch in branches]
    ended = [(branch, event) for branch, event in found if event is not None]
    ended.sort(key=lambda end: end[1].sequence)
    return {
        branch.index: _result(branch.name, branch.index, event, value_of(branch.index))
        for branch, event in ended
    }


def recalled(visit: Visit, names: Sequence[str], value_of: ValueOf) -> SplitResult[Any] | None:
    """The result of a split, as the state after it finds it."""
    joined = visit.joined
    if joined is None:
        return None
    begun: SplitStarted | None = visit.of("split")
    names = names if begun is None else begun.names
    results: list[BranchResult[Any]] = []
    for index, name in enumerate(names):
        # One that was cancelled while its end was being written is on disk, but did not count.
        if index not in joined.lost and (event := visit.of("branch", name)) is not None:
            results.append(_result(name, index, event, value_of(index)))
    ended = {result.index for result in results}
    lost = joined.lost
    return SplitResult(
        successes=tuple(result for result in results if result.error is None),
        errors=tuple(result for result in results if result.error is not None),
        cancelled=lost,
        not_started=tuple(i for i in range(len(names)) if i not in ended and i not in lost),
        reason=joined.reason,
        names=tuple(names),
    )


def _result(name: str, index: int, event: Progress, value: ValueType) -> BranchResult[Any]:
    if isinstance(event, BranchFinished):
        return BranchResult(index, name, value.read(event.value))
    cause = event.cause if isinstance(event, BranchFailed) else None
    error = revive(cause) if cause is not None else CheckpointError("lost its cause")
    return BranchResult(index, name, None, error)
