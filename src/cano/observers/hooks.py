"""An observer with a method for every kind of event, for those who prefer methods.

Rule 1: only what a subclass overrides is subscribed to; the rest is not even built.
Rule 2: the methods of `WorkflowObserver` are the list: their names say which event they are told of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from inspect import iscoroutinefunction
from typing import Any, ClassVar

from cano import announced, events
from cano.announced import (
    ResourceFailed,
    ResourceReady,
    ResourceReleased,
    ScheduleBackedOff,
    ScheduleEnded,
    ScheduleFired,
    ScheduleSkipped,
    ScheduleTripped,
)
from cano.errors import DefinitionError
from cano.events import (
    BatchProcessed,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    CallDelayed,
    CallRefused,
    CircuitChanged,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    FallbackUsed,
    HedgeStarted,
    ItemFailed,
    PollAnswered,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunParked,
    RunReleased,
    RunReopened,
    RunResumed,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    StreamClosed,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TimerSet,
    WaitStarted,
    WindowFlushed,
)


class WorkflowObserver:
    """Override the methods of what you want to be told; nothing else costs anything.

    Example::

        class Alarm(WorkflowObserver):
            def on_run_failed(self, event: RunFailed) -> None:
                print(event.run_id, event.error)

        Workflow(Step, observers=[Alarm()])

    `on_event` is told of everything, events of your own included, before the method of the event.
    Methods are called where the event happens, so they must be quick, and plain: not `async def`.
    One that raises is logged, and its observer is told no more. Any other method whose name begins
    with ``on_`` is taken for a mistake, which raises `DefinitionError` when the class is defined.
    """

    _hooks: ClassVar[dict[type[Event], str]] = {}
    """What is overridden: the name of the method, by kind."""
    _hears_all: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if problems := list(_problems(cls)):
            raise DefinitionError("; ".join(problems))
        cls._hears_all = cls.on_event is not WorkflowObserver.on_event
        cls._hooks = {
            kind: name
            for name, kind in _KINDS.items()
            if getattr(cls, name) is not getattr(WorkflowObserver, name)
        }

    @property
    def events(self) -> Sequence[type[Event]]:
        """The kinds of events this class has methods for."""
        return (Event,) if self._hears_all else (*self._hooks, _Never)

    def __call__(self, event: Event, /) -> None:
        """Tell the method of *event*."""
        if self._hears_all:
            self.on_event(event)
        hooks = self._hooks
        for kind in type(event).__mro__:
            if kind in hooks:
                getattr(self, hooks[kind])(event)
                break

    def on_event(self, event: Event, /) -> None: ...

    def on_run_started(self, event: RunStarted, /) -> None: ...
    def on_run_claimed(self, event: RunClaimed, /) -> None: ...
    def on_run_migrated(self, event: RunMigrated, /) -> None: ...
    def on_state_entered(self, event: StateEntered, /) -> None: ...
    def on_task_started(self, event: TaskStarted, /) -> None: ...
    def on_task_succeeded(self, event: TaskSucceeded, /) -> None: ...
    def on_task_failed(self, event: TaskFailed, /) -> None: ...
    def on_task_cancelled(self, event: TaskCancelled, /) -> None: ...
    def on_task_retried(self, event: TaskRetried, /) -> None: ...
    def on_task_completed(self, event: TaskCompleted, /) -> None: ...
    def on_failure_routed(self, event: FailureRouted, /) -> None: ...
    def on_cursor_saved(self, event: CursorSaved, /) -> None: ...
    def on_effect_intended(self, event: EffectIntended, /) -> None: ...
    def on_effect_done(self, event: EffectDone, /) -> None: ...
    def on_timer_set(self, event: TimerSet, /) -> None: ...
    def on_wait_started(self, event: WaitStarted, /) -> None: ...
    def on_signal_received(self, event: SignalReceived, /) -> None: ...
    def on_split_started(self, event: SplitStarted, /) -> None: ...
    def on_branch_started(self, event: BranchStarted, /) -> None: ...
    def on_branch_finished(self, event: BranchFinished, /) -> None: ...
    def on_branch_failed(self, event: BranchFailed, /) -> None: ...
    def on_branch_cancelled(self, event: BranchCancelled, /) -> None: ...
    def on_split_joined(self, event: SplitJoined, /) -> None: ...
    def on_poll_answered(self, event: PollAnswered, /) -> None: ...
    def on_item_failed(self, event: ItemFailed, /) -> None: ...
    def on_batch_processed(self, event: BatchProcessed, /) -> None: ...
    def on_window_flushed(self, event: WindowFlushed, /) -> None: ...
    def on_stream_closed(self, event: StreamClosed, /) -> None: ...
    def on_circuit_changed(self, event: CircuitChanged, /) -> None: ...
    def on_call_refused(self, event: CallRefused, /) -> None: ...
    def on_call_delayed(self, event: CallDelayed, /) -> None: ...
    def on_hedge_started(self, event: HedgeStarted, /) -> None: ...
    def on_fallback_used(self, event: FallbackUsed, /) -> None: ...
    def on_run_parked(self, event: RunParked, /) -> None: ...
    def on_run_released(self, event: RunReleased, /) -> None: ...
    def on_run_resumed(self, event: RunResumed, /) -> None: ...
    def on_rollback_started(self, event: RollbackStarted, /) -> None: ...
    def on_task_compensated(self, event: TaskCompensated, /) -> None: ...
    def on_compensation_failed(self, event: CompensationFailed, /) -> None: ...
    def on_run_finished(self, event: RunFinished, /) -> None: ...
    def on_run_failed(self, event: RunFailed, /) -> None: ...
    def on_run_cancelled(self, event: RunCancelled, /) -> None: ...
    def on_run_reopened(self, event: RunReopened, /) -> None: ...
    def on_schedule_fired(self, event: ScheduleFired, /) -> None: ...
    def on_schedule_ended(self, event: ScheduleEnded, /) -> None: ...
    def on_schedule_skipped(self, event: ScheduleSkipped, /) -> None: ...
    def on_schedule_backed_off(self, event: ScheduleBackedOff, /) -> None: ...
    def on_schedule_tripped(self, event: ScheduleTripped, /) -> None: ...
    def on_resource_ready(self, event: ResourceReady, /) -> None: ...
    def on_resource_failed(self, event: ResourceFailed, /) -> None: ...
    def on_resource_released(self, event: ResourceReleased, /) -> None: ...


class _Never(Event, frozen=True):
    """What never happens: an observer that names no kind would be told of everything."""


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


_KINDS: dict[str, type[Event]] = {
    f"on_{_snake(name)}": kind
    for module in (events, announced)
    for name, kind in vars(module).items()
    if f"on_{_snake(name)}" in vars(WorkflowObserver) and kind is not Event
}
"""What each method is told of."""


def _problems(cls: type[WorkflowObserver]) -> Iterator[str]:
    """Say which methods would never be called, and which would do nothing."""
    for name in dir(cls):
        if not name.startswith("on_"):
            continue
        method: object = getattr(cls, name)
        where = f"{cls.__name__}.{name}"
        if name not in _KINDS and name != "on_event":
            yield f"{where} is told of nothing: there is no such event; {_meant(name)}"
        elif not callable(method):
            yield f"{where} is {method!r}; make it a method of one event"
        elif iscoroutinefunction(method):
            yield f"{where} is async; make it a plain `def`, or put events into a queue"


def _meant(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 -- only a mistake pays for it

    remedy = "begin its name otherwise if it is none of the observer's"
    near = get_close_matches(name, [*_KINDS, "on_event"], n=1)
    return f"did you mean {near[0]}? If not, {remedy}" if near else f"{remedy}"
