"""An observer that remembers what happened, and says readably what should have happened instead."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from cano.announced import ScheduleFired
from cano.errors import DefinitionError
from cano.events import (
    CompensationFailed,
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    StateEntered,
    TaskCompensated,
    TaskRetried,
)
from cano.testing._coverage import Coverage, cover
from cano.testing._shown import Named, differing, name_of, path_text, some, within
from cano.workflow import Workflow

E = TypeVar("E", bound=Event)

Failure: TypeAlias = type[BaseException] | str
"""A class of exceptions, or the name of one."""

_ENDS = (RunFinished, RunFailed, RunCancelled)


class Recorder:
    """An observer that keeps every event, or those of some *kinds*, for a test to look at.

    ::

        recorder = Recorder()
        await override(flow, observers=[recorder]).run(Step.PAY)
        recorder.assert_path(Step.PAY, Step.SHIP, Step.DONE)

    States are given as members or by name. Where several runs were recorded, say which one:
    ``run_id="a7"``. What is not as it should be raises `AssertionError`, showing both. A recorder
    may watch any number of workflows and runs, one that is resumed included. It has no bound.
    """

    def __init__(self, *kinds: type[Event]) -> None:
        given: tuple[object, ...] = kinds
        for kind in given:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise DefinitionError(f"Recorder({kind!r}): pass classes of events, or nothing")
        self.kinds: tuple[type[Event], ...] = kinds or (Event,)
        self.events: list[Event] = []
        """What was recorded, in order."""

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, self.kinds):
            self.events.append(event)

    def __repr__(self) -> str:
        return f"<Recorder: {len(self.events)} events of {len(self.runs)} runs>"

    def __str__(self) -> str:
        """A line per event: the seconds since the first, the run, the kind, where."""
        first = self.events[0].time if self.events else 0.0
        return "\n".join(
            f"{event.time - first:10.3f}  {event.run_id}  {_told(event)}" for event in self.events
        )

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs that were recorded, in the order of their first event."""
        return tuple(dict.fromkeys(event.run_id for event in self.events if event.run_id))

    def of(self, kind: type[E], /, run_id: str | None = None) -> list[E]:
        """The events of *kind*, and of kinds derived from it; of one run, or of all."""
        self._need(kind)
        return [
            event
            for event in self.events
            if isinstance(event, kind) and run_id in (None, event.run_id)
        ]

    def take(self) -> list[Event]:
        """Return what was recorded, and begin anew."""
        taken, self.events = self.events, []
        return taken

    def clear(self) -> None:
        """Forget what was recorded."""
        self.events = []

    def states(self, run_id: str | None = None) -> tuple[str, ...]:
        """The names of the states that a run entered, in order."""
        return tuple(event.state for event in self.of(StateEntered, self._run(run_id)))

    def attempts(self, state: Named, /, run_id: str | None = None) -> tuple[int, ...]:
        """How many attempts each visit of *state* took, those of its branches left out.

        A visit is one attempt, and one more for every `TaskRetried`: of the task, or of a step,
        item or poll of it.
        """
        self._need(TaskRetried)
        self._need(StateEntered)
        found: list[int] = []
        for event in self.of(Event, self._run(run_id)):
            if event.state != name_of(state) or event.branch:
                continue
            if isinstance(event, StateEntered):
                found.append(1)
            elif isinstance(event, TaskRetried) and found:
                found[-1] += 1
        return tuple(found)

    def compensated(self, run_id: str | None = None) -> tuple[str, ...]:
        """What was undone, in order: states by name, branches as ``STATE/branch``."""
        return tuple(_work(event) for event in self.of(TaskCompensated, self._run(run_id)))

    def fires(self, flow: str, /) -> list[datetime]:
        """The moments, in UTC, for which a scheduler began runs of *flow*; its observer this is.

        For a run begun by hand it is the moment when that was done.
        """
        return [
            datetime.fromtimestamp(event.due or event.time, UTC)
            for event in self.of(ScheduleFired)
            if event.flow == flow
        ]

    def coverage(self, workflow: Workflow[Any, Any], /) -> Coverage:
        """Which states and edges of *workflow* its recorded runs went through, and which not."""
        self._need(StateEntered)
        return cover(workflow, self.events)

    def assert_path(self, *states: Named, run_id: str | None = None) -> None:
        """The run entered exactly these states, in this order, the exit included."""
        expected, actual = [name_of(state) for state in states], list(self.states(run_id))
        if expected != actual:
            where = differing(expected, actual)
            raise AssertionError(
                f"{self._of_run(run_id)} took another path\n"
                f"  expected: {path_text(expected, where)}\n"
                f"  actual:   {path_text(actual, where)}\n"
                f"  they differ at {where + 1}"
            )

    def assert_events(
        self, *kinds: type[Event], exactly: bool = False, run_id: str | None = None
    ) -> None:
        """These kinds of events came in this order: others may have come in between.

        With *exactly*, nothing else came. A kind stands for those derived from it too. Without
        *run_id* the events of all runs, and those of none, are looked at together.
        """
        for kind in kinds:
            self._need(kind)
        events = self.of(Event, None if run_id is None else self._run(run_id))
        if exactly:
            right = len(events) == len(kinds) and all(map(isinstance, events, kinds))
            missing = ""
        else:
            rest = iter(events)
            lost = next((k for k in kinds if not any(isinstance(e, k) for e in rest)), None)
            right = lost is None
            missing = "" if lost is None else f"\n  missing from there on: {lost.__name__}"
        if not right:
            raise AssertionError(
                f"{'Other' if exactly else 'Not these'} events were recorded\n"
                f"  expected: {some([kind.__name__ for kind in kinds])}\n"
                f"  actual:   {some([type(event).__name__ for event in events])}{missing}"
            )

    def assert_attempts(self, state: Named, *attempts: int, run_id: str | None = None) -> None:
        """Each visit of *state* took so many attempts: one number per visit."""
        actual = self.attempts(state, run_id)
        if attempts != actual:
            raise AssertionError(
                f"{name_of(state)} took another number of attempts\n"
                f"  expected: {some(attempts) or 'no visit'}\n"
                f"  actual:   {some(actual) or 'no visit'}"
            )

    def assert_finished(self, state: Named | None = None, *, run_id: str | None = None) -> None:
        """The run finished, and in *state* if one is given."""
        wanted = "finished" if state is None else f"finished in {name_of(state)}"
        end = self._end(run_id)
        right = isinstance(end, RunFinished) and _is(state, end.state)
        self._ended(right, wanted, end, run_id)

    def assert_failed(
        self,
        error: Failure | None = None,
        *,
        state: Named | None = None,
        match: str = "",
        run_id: str | None = None,
    ) -> None:
        """The run failed: with an *error* of that class (not one derived from it), in *state*.

        *match* is to be found in the message of the error.
        """
        kind = error.__qualname__ if isinstance(error, type) else error
        wanted = within("failed", state) + (f" with {kind}" if kind else "")
        wanted += f", saying {match!r}" if match else ""
        end = self._end(run_id)
        right = (
            isinstance(end, RunFailed)
            and kind in (None, end.kind)
            and _is(state, end.state)
            and match in end.error
        )
        self._ended(right, wanted, end, run_id)

    def assert_cancelled(self, state: Named | None = None, *, run_id: str | None = None) -> None:
        """The run was cancelled, and in *state* if one is given."""
        end = self._end(run_id)
        right = isinstance(end, RunCancelled) and _is(state, end.state)
        self._ended(right, within("cancelled", state), end, run_id)

    def assert_compensated(self, *works: Named, run_id: str | None = None) -> None:
        """Exactly these were undone, in this order: states, or branches as ``"STATE/branch"``."""
        expected, actual = tuple(map(name_of, works)), self.compensated(run_id)
        failed = [_work(event) for event in self.of(CompensationFailed, self._run(run_id))]
        if expected != actual:
            raise AssertionError(
                f"{self._of_run(run_id)} undid something else, or in another order\n"
                f"  expected: {some(expected) or 'nothing'}\n"
                f"  actual:   {some(actual) or 'nothing'}"
                + (f"\n  could not be undone: {some(failed)}" if failed else "")
            )

    def assert_covered(self, workflow: Workflow[Any, Any], /, *, edges: bool = False) -> None:
        """Every state that has a task was entered in some recorded run; and every edge taken."""
        found = self.coverage(workflow)
        if found.missing_states or (edges and found.missing_edges):
            raise AssertionError(found.complaint(edges=edges))

    def _run(self, run_id: str | None) -> str | None:
        """The run that is meant. Raises `AssertionError` where that could be several."""
        if run_id is None and len(self.runs) > 1:
            raise AssertionError(
                f"{len(self.runs)} runs were recorded; say which is meant, run_id="
                f"{some([repr(run) for run in self.runs])}"
            )
        if run_id is not None and run_id not in self.runs:
            raise AssertionError(
                f"nothing was recorded of run {run_id!r}; there are: {some(self.runs) or 'none'}"
            )
        return run_id

    def _of_run(self, run_id: str | None) -> str:
        run = run_id or (self.runs[0] if self.runs else None)
        return "No run was recorded: it" if run is None else f"Run {run!r}"

    def _end(self, run_id: str | None) -> Event | None:
        """What ended the run last, unless it went on after it."""
        for kind in _ENDS:
            self._need(kind)
        end: Event | None = None
        for event in self.of(Event, self._run(run_id)):
            if isinstance(event, _ENDS):
                end = event
            elif isinstance(event, RunStarted | RunResumed):
                end = None
        return end

    def _ended(self, right: bool, wanted: str, end: Event | None, run_id: str | None) -> None:
        if not right:
            raise AssertionError(
                f"{self._of_run(run_id)} ended otherwise\n"
                f"  expected: {wanted}\n"
                f"  actual:   {self._ending(end, run_id)}"
            )

    def _ending(self, end: Event | None, run_id: str | None) -> str:
        if isinstance(end, RunFailed):
            return f"{within('failed', end.state)} with {end.kind}: {end.error}"
        if isinstance(end, RunFinished):
            return f"finished in {end.state}"
        if isinstance(end, RunCancelled):
            return within("cancelled", end.state)
        states = [event.state for event in self.of(Event, run_id) if event.state]
        return f"not ended; the last state is {states[-1]}" if states else "not begun"

    def _need(self, kind: type[Event]) -> None:
        """Raise `DefinitionError` if events of *kind* were not kept, so that they prove nothing."""
        related = any(issubclass(kind, own) or kind is Event for own in self.kinds)
        if not related:
            kept = ", ".join(own.__name__ for own in self.kinds)
            raise DefinitionError(
                f"this Recorder keeps {kept} alone, not {kind.__name__}; make it Recorder()"
            )


def _is(state: Named | None, name: str) -> bool:
    """Whether *name* is that of *state*, or any will do."""
    return state is None or name_of(state) == name


def _work(event: Event) -> str:
    return f"{event.state}/{event.branch}" if event.branch else event.state


def _told(event: Event) -> str:
    attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
    rest = {
        name: getattr(event, name)
        for name in ("next", "kind", "error", "delay", "name", "flow", "reason")
        if getattr(event, name, "") != ""
    }
    more = "".join(f", {name} {value}" for name, value in rest.items())
    return f"{type(event).__name__}  {_work(event)}{attempt}{more}"
