"""The contract of a task model, as a test that any model, and any task, must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from cano import _data
from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CheckpointStore
from cano.context import Context
from cano.events import TaskCompensated
from cano.policies.policy import Call, Policy
from cano.policies.retry import Retry
from cano.resources import Resources
from cano.tasks.task import Model
from cano.testing._contract_kit import expect
from cano.testing._verdict import silent, verdict
from cano.testing.contracts import BrokenContractError
from cano.testing.faults import FaultyStore, SimulatedCrash
from cano.testing.recorder import Recorder
from cano.workflow import Workflow

S = TypeVar("S", bound=Enum)
D = TypeVar("D")

_Check: TypeAlias = Callable[["_Trial[Any, Any]"], Coroutine[Any, Any, None]]
LEASE = 15.0


async def check_task(
    make: Callable[[], Model[S]],
    state: S,
    /,
    *,
    data: Callable[[], D] | None = None,
    resources: Resources | None = None,
    replaces_errors: bool = False,
    runs: int = 10,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    patience: float = 3600.0,
) -> None:
    """Try every rule of the contract on a task of its own; `BrokenContractError` lists the broken.

    The task is put into *state* of a workflow in which all other states are exits. A test in any
    framework, in virtual time::

        def test_my_model():
            cano.testing.run(check_task(lambda: MyTask(3), Step.WORK, data=Order))

    What *make* raises goes through, and what it gives that is no task is a `TypeError`.

    Args:
        make: Gives a new task each time, which does the same work in every run.
        state: Where it is registered; it must lead on from there.
        data: Makes the run data, if there is any: the class itself, or a function.
        resources: What its verbs ask for: fakes, for every rule uses them.
        replaces_errors: Whether errors of its work do not come out of it, on purpose.
        runs: How many runs are made where one is not enough.
        skip: The names of rules that do not apply.
        only: The names of some rules, to try these alone.
        patience: After so many seconds of silence a rule is broken.
    """
    trial = _Trial(_checked(make), state, data, resources, replaces_errors, runs)
    broken: list[AssertionError] = []
    for rule in _RULES:
        if rule.name in skip or (only and rule.name not in only):
            continue
        error = await _tried(rule, trial, patience)
        if error is not None:
            broken.append(error)
    if broken:
        listed = "\n".join(f"- {error}" for error in broken)
        raise BrokenContractError(f"{len(broken)} broken rules of Task:\n{listed}\n", broken)


class Ending(NamedTuple):
    """What a run came to."""

    state: str
    data: bytes


@dataclass(frozen=True)
class _Trial(Generic[S, D]):
    """A task to be tried, and what it needs."""

    make: Callable[[], Model[S]]
    state: S
    data: Callable[[], D] | None
    resources: Resources | None
    replaces_errors: bool
    runs: int

    def flow(
        self,
        task: Model[S],
        *policies: Policy,
        store: CheckpointStore | None = None,
        recorder: Recorder | None = None,
        strict: bool = False,
        after: Callable[[Context[Any]], Awaitable[Any]] | None = None,
    ) -> Workflow[S, Any]:
        """A workflow with *task* in its state; in the others *after*, or nothing."""
        states: Any = type(self.state)
        kind: Any = None if self.data is None else type(self.data())
        made: Workflow[Any, Any] = Workflow(
            states, data=kind, resources=self.resources, checkpoints=store, lease=LEASE,
            observers=() if recorder is None else [recorder], strict=strict,
        )  # fmt: skip
        made.register(self.state, task, *policies)
        others = [state for state in states if state is not self.state]
        if after is None:
            return made.exits(*others)
        targets = task.targets() or frozenset(others)
        for other in others:
            if other in targets:
                made.register(other, after)
        return made.exits(*(other for other in others if other not in targets))

    async def run(self, flow: Workflow[S, Any], run_id: str | None = None) -> Ending:
        """Run *flow* to its end."""
        handle = await flow.start_run(self.state, data=self.data and self.data(), run_id=run_id)
        try:
            end: Enum = await handle.result()
        finally:
            if not handle.done:
                await handle.cancel()
        data = await handle.data()
        return Ending(end.name, _data.encode(data))

    async def alone(self) -> Ending:
        """What one run of a new task comes to."""
        return await self.run(self.flow(self.make()))


async def _tried(rule: _Rule, trial: _Trial[Any, Any], patience: float) -> AssertionError | None:
    """What is wrong, if something is. The rule is tried in a task, which can be given up."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(rule.check(trial))
    done, _ = await asyncio.wait({task}, timeout=patience)
    if not done:
        await _end({task, *asyncio.all_tasks() - before})
        return silent(rule, patience)
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    left = await _left(before | {task})
    await _end(left)
    if error is None and left:
        error = AssertionError(f"{len(left)} asyncio tasks were left running")
    return verdict(rule, error)


async def _left(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks begun since, but for those that only have to come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - before


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


def _checked(make: Callable[[], Model[S]]) -> Callable[[], Model[S]]:
    def made() -> Model[S]:
        task = make()
        if not isinstance(task, Model):
            raise TypeError(f"{task!r} is no task: make() is to give an object of a Task class")
        return task

    made()
    return made


class _Rule(NamedTuple):
    """One rule of the contract, and how it is tried."""

    name: str
    sentence: str
    check: _Check


_RULES: list[_Rule] = []


def _rule(check: _Check) -> _Check:
    """Add a check; its docstring is the rule."""
    name: str = getattr(check, "__name__", "?")
    _RULES.append(_Rule(name, " ".join((check.__doc__ or "").split()), check))
    return check


class _Raising:
    """A policy that makes the first calls fail, instead of making them."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times = times
        self.error = error
        self.calls = 0

    def wrap(self, call: Call[Any], /) -> Call[Any]:
        async def made(ctx: Context[Any]) -> Any:
            self.calls += 1
            if self.calls <= self.times:
                raise self.error.with_traceback(None)
            return await call(ctx)

        return made


@_rule
async def describes_itself(trial: _Trial[Any, Any]) -> None:
    """Its label is a text, `targets` are states or None, and both are the same every time."""
    task = trial.make()
    label: object = task.label
    expect(True, isinstance(label, str) and label != "", f"its label, {label!r}, is a text")
    expect(True, isinstance(repr(task), str), "repr() gives a text")
    targets = task.targets()
    state: Enum = trial.state
    states = type(state)
    wrong = [target for target in targets or () if not isinstance(target, states)]
    expect([], wrong, f"targets that are no {states.__name__}")
    expect((task.label, targets), (task.label, task.targets()), "label and targets, asked again")


@_rule
async def problems_are_texts(trial: _Trial[Any, Any]) -> None:
    """`problems` never raises, whatever the time limit of a run, and finds none in this task."""
    for total in (None, 1e9):
        expect([], list(trial.make().problems(total)), f"problems for runs of {total} seconds")
    list(trial.make().problems(1e-9))


@_rule
async def leads_where_it_says(trial: _Trial[Any, Any]) -> None:
    """It leads to a state that `targets` names, and branches leave the run data alone."""
    task = trial.make()
    end = await trial.run(trial.flow(task, strict=True))
    targets = task.targets()
    if targets is not None:
        expect(True, end.state in {state.name for state in targets}, f"{end.state} is a target")


@_rule
async def can_be_bound_again(trial: _Trial[Any, Any]) -> None:
    """One object may be in several workflows, and in several plans of one."""
    task, expected = trial.make(), await trial.alone()
    first, second = trial.flow(task), trial.flow(task)
    for flow in (first, second, first.copy()):
        expect(expected, await trial.run(flow), "state and data at the end")


@_rule
async def serves_runs_one_after_the_other(trial: _Trial[Any, Any]) -> None:
    """A run finds nothing of the run before it in the task."""
    expected, flow = await trial.alone(), trial.flow(trial.make())
    for _ in range(trial.runs):
        expect(expected, await trial.run(flow), "state and data at the end")


@_rule
async def serves_many_runs_at_once(trial: _Trial[Any, Any]) -> None:
    """One object serves all runs at once, and does not mix them up."""
    expected, flow = await trial.alone(), trial.flow(trial.make())
    ends = await asyncio.gather(*[trial.run(flow) for _ in range(trial.runs)])
    expect([expected] * trial.runs, ends, "state and data at the ends")


@_rule
async def puts_policies_around_its_work(trial: _Trial[Any, Any]) -> None:
    """The policies of the state go around the part that may fail: *guard* is called with it."""
    policy = _Raising(0, ConnectionError())
    await trial.run(trial.flow(trial.make(), policy))
    expect(True, policy.calls > 0, "calls made through the policies of the state: some")


@_rule
async def lets_errors_out(trial: _Trial[Any, Any]) -> None:
    """An error of its work comes out of it: itself, or in a group."""
    if trial.replaces_errors:
        return
    error = ConnectionError("no answer")
    try:
        end = await trial.run(trial.flow(trial.make(), _Raising(10_000, error)))
    except Exception as raised:  # noqa: BLE001 -- judged here
        expect(True, error in _within(raised), f"{raised!r} is or holds {error!r}")
    else:
        raise AssertionError(f"the run ended in {end.state}, though all of its work failed")


def _within(raised: BaseException) -> list[BaseException]:
    inside: Sequence[BaseException] = getattr(raised, "exceptions", ())
    return [inner for one in inside for inner in _within(one)] or [raised]


@_rule
async def can_be_tried_again(trial: _Trial[Any, Any]) -> None:
    """After a failed attempt the next one, or the next visit, does the whole work."""
    expected = await trial.alone()
    policies = (Retry.fixed(3, 0.0), _Raising(1, ConnectionError()))
    expect(expected, await trial.run(trial.flow(trial.make(), *policies)), "at the end")
    task = trial.make()
    try:
        await trial.run(trial.flow(task, _Raising(1, ConnectionError())))
    except Exception:  # noqa: BLE001 -- whether it may is another rule
        expect(expected, await trial.run(trial.flow(task)), "at the end of a later run")


@_rule
async def lets_go_when_cancelled(trial: _Trial[Any, Any]) -> None:
    """Cancelled wherever it waits, its run ends, and no asyncio task is left of it."""
    task = trial.make()
    for turns in range(trial.runs):
        before = asyncio.all_tasks()
        flow = trial.flow(task)
        data = trial.data and trial.data()
        running = asyncio.create_task(flow.run(trial.state, data=data))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # looked at: it is no matter how it ended
        left = await _left(before | {running})
        await _end(left)
        expect(0, len(left), f"asyncio tasks left after a cancellation in turn {turns}")
    expect(await trial.alone(), await trial.run(trial.flow(task)), "the run after them")


@_rule
async def can_be_undone(trial: _Trial[Any, Any]) -> None:
    """Work that is `undoable` is undone when the state after it fails."""
    task = trial.make()
    if not task.undoable:
        return
    recorder = Recorder()

    async def fail(ctx: Context[Any]) -> Any:
        raise ConnectionError("because a test says so")

    flow = trial.flow(task, store=MemoryCheckpoints(), recorder=recorder, after=fail)
    try:
        await trial.run(flow)
    except Exception:  # noqa: BLE001 -- the failure that was asked for
        undone = [event.state for event in recorder.of(TaskCompensated)]
        expect(True, trial.state.name in undone, f"{undone} were undone, {trial.state.name} too")


@_rule
async def survives_a_crash(trial: _Trial[Any, Any]) -> None:
    """With a store: after a crash at any write, a resumed run comes to the same end."""
    clean = FaultyStore(MemoryCheckpoints())
    expected = await trial.run(trial.flow(trial.make(), store=clean), "run")
    for number in range(1, min(clean.writes, 100) + 1):
        for when in ("crash_before", "crash_after"):
            kept = MemoryCheckpoints()
            dying = FaultyStore(kept, **{when: number})
            with suppress(SimulatedCrash):
                await trial.run(trial.flow(trial.make(), store=dying), "run")
            await asyncio.sleep(LEASE + 1)
            end = await trial.run(trial.flow(trial.make(), store=kept), "run")
            expect(expected, end, f"at the end, resumed after {when}={number}")
