"""Bugs planted into the engine, each a context manager that takes it out again.

`BUGS` says for each of them in which of the workflows it is to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from msgspec.structs import force_setattr

from cano import _history, _lifecycle, _lives, _plan, _progress, _rollback, events
from cano._durable import DurableRun
from cano._journal import Journal
from cano._nested import SubWorkflow
from cano.checkpoints.memory import MemoryCheckpoints
from cano.context import Context
from cano.tasks import batch, split

Bug = Callable[[], AbstractContextManager[Any]]


def entry_not_recorded() -> AbstractContextManager[Any]:
    return patch.object(_plan, "recorded", lambda runner, name: runner)


def without_patch(*kinds: type[events.Event]) -> AbstractContextManager[Any]:
    """What these events should say of the run data is forgotten."""
    real = Journal._number

    def number(self: Journal, given: Sequence[Any], now: float) -> Any:
        for event in given:
            if isinstance(event, kinds):
                force_setattr(event, "patch", None)
        return real(self, given, now)

    return patch.object(Journal, "_number", number)


def data_forgotten_on_entry() -> AbstractContextManager[Any]:
    return without_patch(events.StateEntered)


def data_forgotten_on_completion() -> AbstractContextManager[Any]:
    return without_patch(events.TaskCompleted)


def data_forgotten_with_cursor() -> AbstractContextManager[Any]:
    return without_patch(events.CursorSaved)


def data_forgotten_on_the_way_back() -> AbstractContextManager[Any]:
    return without_patch(events.TaskCompensated)


def epoch_not_checked() -> AbstractContextManager[Any]:
    """A store that takes events of whoever comes, and gives them the next number."""
    real = MemoryCheckpoints.append

    def append(
        self: MemoryCheckpoints, run_id: str, epoch: int, given: Any, status: Any = None
    ) -> Any:
        run = self._runs[run_id]
        for number, event in enumerate(given, len(run.events) + 1):
            force_setattr(event, "sequence", number)
        return real(self, run_id, run.epoch, given, status)

    return patch.object(MemoryCheckpoints, "append", append)


def second_owner_accepted() -> AbstractContextManager[Any]:
    return patch.object(MemoryCheckpoints, "_lease", lambda self, owner: 0.0)


def goes_on_before_it_is_written() -> AbstractContextManager[Any]:
    async def write(self: Journal, given: Any, now: float, status: Any, told: Any) -> None:
        given = self._number(given, now)
        future = self.store.append(self.run_id, self.epoch, given, status)
        future.add_done_callback(lambda done: done.exception())
        for event in given:
            told(event)

    return patch.object(Journal, "write", write)


def fold(kind: type[events.Event], mutated: Callable[[Any, Any], None]) -> Any:
    """Fold events of that kind in another way."""
    return patch.dict(_history._FOLDS, {kind: mutated})


def completion_ignored_on_resume() -> AbstractContextManager[Any]:
    def completed(history: Any, event: Any) -> None:
        work = _history.Standing(event.state, "", bytes(event.value), history.sequence + 1)
        history.standing.append(work)

    return fold(events.TaskCompleted, completed)


def next_state_forgotten() -> AbstractContextManager[Any]:
    """A resumed run begins the state after a completed one without its name: in the same one."""
    real = _history._FOLDS[events.TaskCompleted]

    def completed(history: Any, event: Any) -> None:
        before = history.state
        real(history, event)
        history.state = before

    return fold(events.TaskCompleted, completed)


def signal_not_counted() -> AbstractContextManager[Any]:
    return fold(events.SignalReceived, _history._progressed)


def split_forgotten_after_the_join() -> AbstractContextManager[Any]:
    return fold(events.SplitJoined, lambda history, event: None)


def compensated_oldest_first() -> AbstractContextManager[Any]:
    real = _rollback._undo_all

    async def undo_all(run: Any, *rest: Any) -> Any:
        run.history.standing.reverse()
        return await real(run, *rest)

    return patch.object(_rollback, "_undo_all", undo_all)


def compensation_not_recorded() -> AbstractContextManager[Any]:
    real = DurableRun.record

    def record(self: DurableRun[Any], event: Any) -> Any:
        if isinstance(event, events.TaskCompensated):
            return unrecorded(self)
        return real(self, event)

    async def unrecorded(run: DurableRun[Any]) -> None:
        run.history.standing.pop()

    return patch.object(DurableRun, "record", record)


def rollback_not_resumed() -> AbstractContextManager[Any]:
    """A resumed rollback ends at once."""
    real = DurableRun.finish_rollback

    async def finish(self: DurableRun[Any], context: Any) -> Any:
        self.history.standing.clear()
        return await real(self, context)

    return patch.object(DurableRun, "finish_rollback", finish)


def rollback_goes_forward() -> AbstractContextManager[Any]:
    async def finish(self: DurableRun[Any], context: Any) -> Any:
        return await self.go_forward(context, self.next_step())

    return patch.object(DurableRun, "finish_rollback", finish)


def undone_again_on_resume() -> AbstractContextManager[Any]:
    """What is undone still stands for whoever resumes."""
    real = DurableRun.recall

    def recall(self: DurableRun[Any], history: Any, path: Any) -> None:
        real(self, history, path)
        if history.phase is _lifecycle.Phase.ROLLING_BACK and history.undone:
            history.standing.append(_history.Standing("C", "", b'"C of 3"', history.sequence))

    return patch.object(DurableRun, "recall", recall)


@contextmanager
def not_recorded(kind: type[events.Event]) -> Iterator[None]:
    """Tasks' events of that kind are not written down."""
    real = Context.record

    async def record(self: Context[Any], event: Any) -> None:
        if not isinstance(event, kind):
            await real(self, event)

    with patch.object(Context, "record", record):
        yield


def effect_not_recorded_as_done() -> AbstractContextManager[Any]:
    return not_recorded(events.EffectDone)


def effect_not_intended() -> AbstractContextManager[Any]:
    return not_recorded(events.EffectIntended)


def effect_made_again() -> AbstractContextManager[Any]:
    """An intent found on resume is taken for none."""
    real = _progress.effect

    async def effect(ctx: Any, name: str, call: Any, kind: Any, verify: Any, **more: Any) -> Any:
        found = ctx.host.history.visit.of("effect", ctx.branch_name, name)
        if isinstance(found, events.EffectIntended):
            del ctx.host.history.visit.progress["effect", ctx.branch_name, name]
        return await real(ctx, name, call, kind, verify, **more)

    return patch.object(_progress, "effect", effect)


def timer_waits_in_full_again() -> AbstractContextManager[Any]:
    async def sleep(ctx: Any, seconds: float, name: str, *, park: bool) -> None:
        timer = events.TimerSet(name=name or ctx.next_name(), until=ctx.host.now() + seconds)
        await ctx.record(timer)
        await ctx.pause(seconds)

    return patch.object(_progress, "sleep", sleep)


def attempts_begin_anew() -> AbstractContextManager[Any]:
    return patch.object(Context, "first_attempt", lambda self: 1)


def branch_not_reused() -> AbstractContextManager[Any]:
    return patch.object(split, "known_results", lambda *given: {})


def batch_item_repeated() -> AbstractContextManager[Any]:
    return patch.object(batch, "_known", lambda *given: {})


def cursor_of_an_old_visit() -> AbstractContextManager[Any]:
    """Whoever resumes a visit finds what an earlier one of the same state had."""
    real = _history.replay

    def replay(given: Any) -> Any:
        given = list(given)
        history = real(given)
        for event in given:
            if isinstance(event, events.CursorSaved) and event.state == history.state:
                history.visit.progress.setdefault(("cursor", "", ""), event)
        return history

    return patch.object(_lives, "replay", replay)


def cursor_lost() -> AbstractContextManager[Any]:
    real = _history.replay

    def replay(given: Any) -> Any:
        history = real(given)
        history.visit.progress.pop(("cursor", "", ""), None)
        return history

    return patch.object(_lives, "replay", replay)


def cancel_message_lost() -> AbstractContextManager[Any]:
    """What came before the run was taken over is taken for read."""
    real = DurableRun.look

    async def look(self: DurableRun[Any]) -> None:
        if self.driver is None:
            self.mailbox.last = len(await self.journal.store.inbox(self.run_id, 0))
        await real(self)

    return patch.object(DurableRun, "look", look)


def lease_not_released() -> AbstractContextManager[Any]:
    async def let_go(self: DurableRun[Any], status: Any, wake: float) -> None:
        pass

    return patch.object(DurableRun, "let_go", let_go)


def end_not_noted() -> AbstractContextManager[Any]:
    """The last event is kept, and the run stays open."""
    return patch("cano._recorded._ENDS", {})


def part_begun_anew() -> AbstractContextManager[Any]:
    real = SubWorkflow._live

    async def live(self: Any, ctx: Any, whole: Any, name: str) -> Any:
        return await real(self, ctx, whole, f"{name}@{whole.fence}")

    return patch.object(SubWorkflow, "_live", live)


def crash_taken_for_a_cancellation() -> AbstractContextManager[Any]:
    """A run that is let go is rolled back, as if its end had been asked for."""

    async def end(self: DurableRun[Any], context: Any) -> None:
        await self.end_cancelled(context)

    return patch.object(DurableRun, "end_or_release", end)


BUGS: dict[str, tuple[Bug, str]] = {
    bug.__name__: (bug, case)
    for case, bugs in {
        "saga": (
            entry_not_recorded, data_forgotten_on_completion, data_forgotten_on_the_way_back,
            epoch_not_checked, second_owner_accepted, completion_ignored_on_resume,
            next_state_forgotten, compensated_oldest_first, compensation_not_recorded,
            rollback_not_resumed, rollback_goes_forward, undone_again_on_resume,
            lease_not_released, end_not_noted, crash_taken_for_a_cancellation,
        ),
        "order": (
            data_forgotten_on_entry, goes_on_before_it_is_written, signal_not_counted,
            effect_not_recorded_as_done, effect_not_intended, effect_made_again,
            timer_waits_in_full_again, attempts_begin_anew,
        ),
        "split": (split_forgotten_after_the_join, branch_not_reused),
        "steps": (data_forgotten_with_cursor, cursor_of_an_old_visit, cursor_lost),
        "batch": (batch_item_repeated,),
        "parts": (part_begun_anew,),
        "cancelled": (cancel_message_lost,),
    }.items()
    for bug in bugs
}  # fmt: skip
