"""`cano.testing.Recorder`: what it keeps, what it asserts, and what its failures say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    Retry,
    RouterTask,
    RunFinished,
    RunStarted,
    StateEntered,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    Workflow,
)
from cano.errors import DefinitionError
from cano.testing import FailTimes, run
from cano.testing.recorder import Recorder


class Step(StrEnum):
    ROUTE = auto()
    WORK = auto()
    SHIP = auto()
    SORRY = auto()
    DONE = auto()


class Route(RouterTask[Step]):
    async def route(self, ctx: Context) -> Literal[Step.WORK, Step.SHIP]:
        return Step.WORK


async def ship(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


async def sorry(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


def flow(recorder: Recorder, work: Any = None, **settings: Any) -> Workflow[Step, None]:
    made = Workflow(Step, start=Step.ROUTE, observers=[recorder], **settings)
    made.register(Step.ROUTE, Route())
    made.register(
        Step.WORK, work or FailTimes(2, then=Step.SHIP), Retry.fixed(3, 60), otherwise=Step.SORRY
    )
    return made.register(Step.SHIP, ship).register(Step.SORRY, sorry).exits(Step.DONE)


def recorded(work: Any = None) -> Recorder:
    """A run that went ROUTE → WORK (three attempts) → SHIP → DONE, or as *work* decides."""
    recorder = Recorder()
    run(flow(recorder, work).run(run_id="a7"))
    return recorder


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught:
        call()
    return str(caught.value)


def test_events_are_kept_in_order() -> None:
    """A recorder keeps every event in order; `take` moves them out, `clear` drops them."""
    recorder = recorded()
    events = recorder.events
    assert [RunStarted, StateEntered, TaskStarted] == [type(event) for event in events[:3]]
    assert RunFinished is type(events[-1])
    assert f"<Recorder: {len(events)} events of 1 runs>" == repr(recorder)

    assert events is recorder.take()
    assert [] == recorder.events
    recorder.events = list(events)
    recorder.clear()
    assert ([], ()) == (recorder.events, recorder.runs)


def test_only_some_kinds_are_kept() -> None:
    """With kinds given, no other is kept, and asking about another is an error, not a proof."""
    recorder = Recorder(StateEntered)
    run(flow(recorder).run())
    assert {StateEntered} == {type(event) for event in recorder.events}
    recorder.assert_path(Step.ROUTE, Step.WORK, Step.SHIP, Step.DONE)
    asked: list[Callable[[], object]] = [
        lambda: recorder.of(TaskFailed),
        lambda: recorder.attempts(Step.WORK),
        recorder.assert_finished,
        recorder.assert_compensated,
        lambda: recorder.assert_events(TaskStarted),
    ]
    for ask in asked:
        with pytest.raises(DefinitionError, match=r"keeps StateEntered alone, not .*Recorder\(\)"):
            ask()


@pytest.mark.parametrize("wrong", [StateEntered(), int, "StateEntered"])
def test_kinds_are_classes_of_events(wrong: Any) -> None:
    """Whatever is no class of events is refused when the recorder is made."""
    with pytest.raises(DefinitionError, match="pass classes of events, or nothing"):
        Recorder(wrong)


def test_events_of_a_kind() -> None:
    """`of` gives the events of a kind, and of those derived from it."""
    recorder = recorded()
    assert [1, 2] == [event.attempt for event in recorder.of(TaskRetried)]
    assert recorder.events == recorder.of(Event)
    assert [] == recorder.of(TaskFailed)


def test_the_path() -> None:
    """The path is the states entered, routers and the exit included, by member or by name."""
    recorder = recorded()
    recorder.assert_path(Step.ROUTE, Step.WORK, Step.SHIP, Step.DONE)
    recorder.assert_path("ROUTE", "WORK", "SHIP", "DONE")
    assert ("ROUTE", "WORK", "SHIP", "DONE") == recorder.states()


@pytest.mark.parametrize(
    ("expected", "shown", "at"),
    [
        ([Step.ROUTE, Step.SHIP, Step.DONE], "ROUTE → SHIP → DONE", 2),
        ([Step.ROUTE, Step.WORK, Step.SHIP], "ROUTE → WORK → SHIP", 4),
        ([*Step], "ROUTE → WORK → SHIP → SORRY → DONE", 4),
        ([], "no state", 1),
    ],
)
def test_another_path(expected: list[Step], shown: str, at: int) -> None:
    """A path that is another one is shown beside the expected one, and where they part."""
    assert complaint(lambda: recorded().assert_path(*expected)) == (
        "Run 'a7' took another path\n"
        f"  expected: {shown}\n"
        "  actual:   ROUTE → WORK → SHIP → DONE\n"
        f"  they differ at {at}"
    )


def test_a_long_path_is_cut() -> None:
    """Of long paths the part around the difference is shown."""
    recorder = Recorder()
    for number in range(10_000):
        recorder(StateEntered(run_id="a7", state=f"S{number}"))
    expected = [f"S{number}" for number in range(10_000)]
    expected[5_000] = "OTHER"
    said = complaint(lambda: recorder.assert_path(*expected))
    assert "  expected: … 4985 before → S4985 → " in said
    assert " → S4999 → OTHER → S5001 → " in said
    assert "they differ at 5001" in said
    assert len(said) < 800


def test_events_as_a_subsequence() -> None:
    """Kinds are looked for in order, whatever comes in between; a base class stands for all."""
    recorder = recorded()
    recorder.assert_events(RunStarted, TaskRetried, TaskRetried, TaskSucceeded, RunFinished)
    recorder.assert_events(Event, Event, RunFinished)
    recorder.assert_events()
    said = complaint(lambda: recorder.assert_events(TaskRetried, TaskRetried, RunStarted))
    assert said.startswith(
        "Not these events were recorded\n"
        "  expected: TaskRetried, TaskRetried, RunStarted\n"
        "  actual:   RunStarted, StateEntered, TaskStarted, TaskSucceeded, "
    )
    assert said.endswith("\n  missing from there on: RunStarted")


def test_events_exactly() -> None:
    """Exactly means nothing else, and nothing left over."""
    recorder = Recorder(TaskRetried, RunFinished)
    run(flow(recorder).run())
    recorder.assert_events(TaskRetried, TaskRetried, RunFinished, exactly=True)
    for kinds in ([TaskRetried], [TaskRetried, RunFinished], [TaskRetried] * 2 + [RunFinished] * 2):
        said = complaint(lambda kinds=kinds: recorder.assert_events(*kinds, exactly=True))  # type: ignore[misc]
        assert said.endswith("  actual:   TaskRetried, TaskRetried, RunFinished")


def test_attempts() -> None:
    """Attempts are counted per visit of a state, the first one included."""
    recorder = recorded()
    recorder.assert_attempts(Step.WORK, 3)
    recorder.assert_attempts(Step.SHIP, 1)
    recorder.assert_attempts(Step.SORRY)
    assert complaint(lambda: recorder.assert_attempts(Step.WORK, 1, 1)) == (
        "WORK took another number of attempts\n  expected: 1, 1\n  actual:   3"
    )
    assert "actual:   no visit" in complaint(lambda: recorder.assert_attempts("SORRY", 1))


def test_attempts_of_several_visits() -> None:
    """A state that is visited again has a number per visit."""
    fails = [1, 0, 1, 1, 0]

    async def work(ctx: Context) -> Literal[Step.ROUTE, Step.SHIP]:
        if fails.pop(0):
            raise ConnectionError
        return Step.ROUTE if fails else Step.SHIP

    recorder = recorded(work)
    recorder.assert_attempts(Step.WORK, 2, 3)
    recorder.assert_path("ROUTE", "WORK", "ROUTE", "WORK", "SHIP", "DONE")


def test_the_end() -> None:
    """A finished run is finished in its exit, and nothing else."""
    recorder = recorded()
    recorder.assert_finished()
    recorder.assert_finished(Step.DONE)
    for call, wanted in [
        (lambda: recorder.assert_finished(Step.SHIP), "finished in SHIP"),
        (lambda: recorder.assert_failed(), "failed"),
        (
            lambda: recorder.assert_failed(ValueError, state=Step.WORK),
            "failed in WORK with ValueError",
        ),
        (lambda: recorder.assert_failed(match="no"), "failed, saying 'no'"),
        (lambda: recorder.assert_cancelled(Step.SHIP), "cancelled in SHIP"),
    ]:
        assert complaint(call) == (
            f"Run 'a7' ended otherwise\n  expected: {wanted}\n  actual:   finished in DONE"
        )


def test_a_failed_end() -> None:
    """A failed run names the class of its error, its state and its message."""
    recorder = Recorder()
    broken = flow(recorder).register(
        Step.SHIP, FailTimes(9, ValueError("no stamps"), then=Step.DONE)
    )
    with pytest.raises(ValueError, match="no stamps"):
        run(broken.run(run_id="a7"))
    recorder.assert_failed()
    recorder.assert_failed(ValueError, state=Step.SHIP, match="stamps")
    recorder.assert_failed("ValueError")
    assert complaint(lambda: recorder.assert_failed(Exception)) == (
        "Run 'a7' ended otherwise\n"
        "  expected: failed with Exception\n"
        "  actual:   failed in SHIP with ValueError: no stamps"
    )
    for call in (
        lambda: recorder.assert_failed(ValueError, state=Step.WORK),
        lambda: recorder.assert_failed(match="stamped"),
        lambda: recorder.assert_finished(),
    ):
        assert "actual:   failed in SHIP" in complaint(call)


def test_a_cancelled_end() -> None:
    """A cancelled run is cancelled in the state it was in; one under way has no end."""
    recorder = Recorder()

    async def work(ctx: Context) -> Literal[Step.SHIP]:
        await ctx.sleep(3600)
        return Step.SHIP

    async def main() -> None:
        handle = await flow(recorder, work).start_run(run_id="a7")
        async for _ in handle.events():
            assert "actual:   not begun" in complaint(recorder.assert_finished) or recorder.events
            if recorder.states()[-1:] == ("WORK",):
                break
        assert complaint(recorder.assert_finished).endswith("not ended; the last state is WORK")
        await handle.cancel()
        with pytest.raises(Exception, match="was cancelled"):
            await handle.result()

    run(main())
    recorder.assert_cancelled()
    recorder.assert_cancelled(Step.WORK)
    assert complaint(lambda: recorder.assert_cancelled(Step.SHIP)).endswith("cancelled in WORK")


def test_nothing_was_recorded() -> None:
    """Without a run the failure says so."""
    recorder = Recorder()
    assert complaint(lambda: recorder.assert_path(Step.WORK)).startswith("No run was recorded: it")
    assert complaint(recorder.assert_finished).endswith("actual:   not begun")
    recorder.assert_events()
    recorder.assert_compensated()


def test_several_runs() -> None:
    """Of several runs one has to be named; each is judged alone."""
    recorder = Recorder()
    both = flow(recorder, FailTimes(1, then=Step.SHIP))
    run(both.run(run_id="a7"))
    run(both.run(run_id="b8"))
    assert ("a7", "b8") == recorder.runs
    recorder.assert_attempts(Step.WORK, 2, run_id="a7")
    recorder.assert_attempts(Step.WORK, 1, run_id="b8")
    recorder.assert_finished(Step.DONE, run_id="b8")
    recorder.assert_path("ROUTE", "WORK", "SHIP", "DONE", run_id="b8")
    assert 1 == len(recorder.of(RunStarted, run_id="b8"))
    recorder.assert_events(RunStarted, RunFinished, RunStarted, RunFinished)
    for call in (
        lambda: recorder.assert_path("WORK"),
        recorder.assert_finished,
        lambda: recorder.attempts("WORK"),
    ):
        assert "2 runs were recorded; say which is meant, run_id='a7', 'b8'" == complaint(call)
    assert "nothing was recorded of run 'c9'; there are: a7, b8" == complaint(
        lambda: recorder.assert_finished(run_id="c9")
    )


def test_coverage() -> None:
    """States with a task, and edges, are covered if any recorded run of the workflow took them."""
    recorder = recorded()
    whole = flow(Recorder())
    found = recorder.coverage(whole)
    assert ("ROUTE", "WORK", "SHIP") == found.states
    assert ("SORRY",) == found.missing_states
    assert (("ROUTE", "WORK"), ("SHIP", "DONE")) == found.edges
    assert (("ROUTE", "SHIP"), ("WORK", "SORRY"), ("SORRY", "DONE")) == found.missing_edges
    assert "Step: 3 of 4 states, 2 of 5 edges" == str(found)
    assert complaint(lambda: recorder.assert_covered(whole, edges=True)) == (
        "not everything was gone through: Step: 3 of 4 states, 2 of 5 edges\n"
        "  states never entered: SORRY\n"
        "  edges never taken: ROUTE → SHIP, WORK → SORRY, SORRY → DONE"
    )
    assert "edges never" not in complaint(lambda: recorder.assert_covered(whole))

    without = whole.copy().register(Step.SHIP, sorry).register(Step.SORRY, ship)
    recorder(StateEntered(run_id="b8", workflow="Step", state="SORRY"))
    recorder.assert_covered(without)
    said = complaint(lambda: recorder.assert_covered(without, edges=True))
    assert said.endswith("  edges never taken: ROUTE → SHIP, WORK → SORRY, SORRY → DONE")


def test_full_coverage() -> None:
    """Several runs together may cover everything; `otherwise` is an edge that only failures take."""
    recorder = Recorder()
    run(flow(recorder, FailTimes(9, then=Step.SHIP)).run(run_id="a7"))
    recorder.assert_attempts(Step.WORK, 3)
    assert ("WORK", "SORRY") in recorder.coverage(flow(recorder)).edges

    async def direct(ctx: Context) -> Literal[Step.WORK, Step.SHIP]:
        return Step.SHIP

    run(flow(recorder).register(Step.ROUTE, direct).run(run_id="b8"))
    recorder.assert_covered(flow(recorder), edges=True)


def test_coverage_is_of_one_workflow() -> None:
    """Runs of another workflow cover nothing of this one, and the workflow may still be changed."""
    recorder = recorded()
    other = flow(recorder, name="other")
    assert () == recorder.coverage(other).states
    other.register(Step.SHIP, sorry)


def test_as_text() -> None:
    """As text it is a timeline: a line per event, by the time since the first."""
    lines = str(recorded()).splitlines()
    assert "     0.000  a7  RunStarted  ROUTE" == lines[0]
    assert (
        "     0.000  a7  TaskRetried  WORK, error ConnectionError('failure 1 of 2, because a test "
        "says so'), delay 60.0" == lines[6]
    )
    assert "   120.000  a7  RunFinished  DONE" == lines[-1]


def test_the_kit_is_no_part_of_the_engine() -> None:
    """Importing `cano` does not import the test kit, and the kit needs no pytest."""
    for module, absent in [("cano", "cano.testing"), ("cano.testing.recorder", "pytest")]:
        script = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
        assert 0 == subprocess.run([sys.executable, "-c", script], check=False).returncode
