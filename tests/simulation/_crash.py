"""Crash everywhere: before and after every durable write, again while resuming, and compare.

A *scenario* is a workflow and whoever deals with its run from outside. A *life* is one process: a
new event loop in virtual time, a new `Workflow`, over the store that the life before left behind.
What tasks do to the outside world goes into a ledger, which no crash takes back; the dead write
nothing into it. Everything here follows from the scenario and the crash points: a failure names
both, and `check(scenario, *crashes)` does it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from random import Random
from typing import Any, NamedTuple

import msgspec

from cano import Context, Workflow
from cano._history import History, replay
from cano._lifecycle import Phase
from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CANCEL, CheckpointStore, Status
from cano.errors import (
    CompensationFailedError,
    EffectInDoubtError,
    RecordedError,
    RunCancelledError,
    RunEndedError,
    RunFailedError,
)
from cano.events import EffectIntended, Event, StateEntered
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash

RUN = "r"
LEASE = 15.0
FOR_EVER = 3600.0
"""Virtual seconds after which a life counts as hanging."""


class Step(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    D = auto()
    E = auto()
    F = auto()
    END = auto()
    LATE = auto()


@dataclass
class Data:
    trail: list[str] = field(default_factory=list)
    total: int = 0


class Deed(NamedTuple):
    """Something done to the outside world: in which life, what, and by whose work."""

    life: int
    what: str
    key: str
    detail: str = ""


Crash = tuple[str, int]
"""``("before", 3)``: at the third durable write of a life."""


class World:
    """What outlives a process: the store, and what was done outside."""

    def __init__(self, opened: Callable[[], CheckpointStore] | None = None) -> None:
        self.opened = opened
        self.inner: CheckpointStore = MemoryCheckpoints() if opened is None else opened()
        self.store = FaultyStore(self.inner)
        self.ledger: list[Deed] = []
        self.life = 0

    def begin_life(self, faults: dict[str, int]) -> None:
        """A new process, which opens the store for itself."""
        if self.life and self.opened is not None:
            self.inner = self.opened()
        self.store = FaultyStore(self.inner, **faults)
        self.life += 1

    def do(self, what: str, ctx: Context[Any], detail: object = "") -> None:
        """Do something outside; the dead cannot."""
        self.breathe()
        self.ledger.append(Deed(self.life, what, ctx.idempotency_key, str(detail)))

    def breathe(self) -> None:
        """Die here if the process is dead: no code of it runs any more."""
        if self.store.dead:
            raise SimulatedCrash("the process is dead already")

    def times(self, what: str, detail: object = "") -> int:
        """How often that was done so far."""
        return sum(deed.what == what and deed.detail == str(detail) for deed in self.ledger)

    async def send(self, name: str, value: str = "null") -> None:
        """Send the run a message, once, from a process that does not crash."""
        await self.send_once(name, value, name)

    async def send_once(self, name: str, value: str, key: str) -> None:
        """The same with a key; what comes after the end comes too late."""
        now = asyncio.get_running_loop().time()
        with suppress(RunEndedError):
            await self.inner.send(RUN, name, value.encode(), now, key)

    async def ask_to_cancel(self) -> None:
        await self.send(CANCEL)


class Scenario(NamedTuple):
    """A workflow, which begins in A with `Data`, and what goes on around it."""

    name: str
    end: str
    """The exit or the kind of error, and what is in the data then."""
    build: Callable[[World], Workflow[Any, Any]]
    outside: Callable[[World], Awaitable[None]] | None = None
    happened: Callable[[World, str], Any] = lambda world, name: None
    """What a person finds out about the effect of that name: its value; None if it did not happen."""

    def __repr__(self) -> str:
        return self.name

    def clean(self) -> Ending:
        """The run without a crash, which has to end as it is said to."""
        ending = play(self)
        kind, what = ending.outcome
        data = {name: msgspec.json.decode(value) for name, value in ending.data.items()}
        shown = ", ".join(data["trail"]) or data["total"]
        _same("end", self.end, f"{what if kind == 'exit' else kind}: {shown}")
        return ending


class Ending(NamedTuple):
    """How a run ended, whoever tells it: the run itself, or a later life from the store."""

    outcome: Any
    data: dict[str, bytes]
    ledger: list[Deed]
    events: list[str]
    writes: int
    lives: int


def workflow(world: World, **settings: Any) -> Workflow[Any, Any]:
    """An empty workflow over the store of this life."""
    made: Any = Workflow(Step, data=Data, checkpoints=world.store, lease=LEASE, **settings)
    return made  # type: ignore[no-any-return]


def play(
    scenario: Scenario,
    crashes: Sequence[Crash] = (),
    opened: Callable[[], CheckpointStore] | None = None,
) -> Ending:
    """One run through as many lives as it takes; the first ones end in *crashes*."""
    world = World(opened)
    writes = 0
    todo = list(crashes)
    while world.life < len(crashes) + 10:
        when, n = todo.pop(0) if todo else ("", 0)
        faults = {f"crash_{when}": n} if when else {}
        world.begin_life(faults)
        outcome = run(_live(scenario, world))
        writes = writes or world.store.writes
        if outcome is not _CRASHED and outcome is not _IN_DOUBT:
            events = run(_events(world))
            kinds = [type(event).__name__ for event in events]
            return Ending(
                outcome, dict(replay(events).data), world.ledger, kinds, writes, world.life
            )
    raise AssertionError("the run never ends")


_CRASHED = object()
_IN_DOUBT = object()


async def _live(scenario: Scenario, world: World) -> Any:
    """One process, from its start to its end; what its run came to."""
    try:
        await _bury_the_last(world)
        before = replay(await world.inner.load(RUN))
        begun = len(world.ledger)
        flow = scenario.build(world)
        flow.exits(*set(Step).difference(flow.registered))
        around = asyncio.ensure_future(_around(scenario, world))
        handle = await flow.start_run(Step.A, run_id=RUN, data=Data())
        ending = asyncio.ensure_future(_ending(handle, world.store))
        await asyncio.wait((ending,), timeout=FOR_EVER)
        around.cancel()
        assert ending.done(), f"life {world.life} hangs: {handle!r}"
        await asyncio.wait((around,))
        outcome = ending.result()
        await _check_life(world, before, world.ledger[begun:], handle._run.history)
        if outcome is _IN_DOUBT:
            await _decide(scenario, world, flow)
    except SimulatedCrash:
        return _CRASHED
    finally:
        await world.inner.close()
    return outcome


async def _bury_the_last(world: World) -> None:
    """What follows a crash: somebody knows that its owner is dead, or the lease runs out."""
    if world.life % 2:
        await asyncio.sleep(LEASE + 1)
        return
    for owner in await world.inner.owners(_here(), 0.0):
        await world.inner.expire(owner.id)


def _here() -> str:
    from cano._process import here

    return here()


async def _around(scenario: Scenario, world: World) -> None:
    if scenario.outside is None:
        return
    while not await world.inner.load(RUN):
        await asyncio.sleep(0.01)
    await scenario.outside(world)


async def _ending(handle: Any, store: FaultyStore) -> Any:
    try:
        outcome: Any = "exit", str(await handle.result())
    except SimulatedCrash:
        return _CRASHED
    except EffectInDoubtError:
        outcome = _IN_DOUBT
    except Exception as error:
        outcome = told(error)
    return _CRASHED if store.dead else outcome  # nobody hears what the dead say


def told(error: BaseException) -> Any:
    """What an error comes to, whether it is raised as itself or told from the store."""
    if isinstance(error, CompensationFailedError):
        return "not undone", [told(one) for one in error.exceptions]
    if isinstance(error, RunFailedError):
        return error.kind, error.message
    if isinstance(error, RecordedError):
        return error.kind, error.message
    if isinstance(error, RunCancelledError):
        return "cancelled", ""
    return type(error).__qualname__, str(error)


async def _decide(scenario: Scenario, world: World, flow: Workflow[Any, Any]) -> None:
    """Play the person who looks whether an effect happened, and says so."""
    summary = await flow.handle(RUN).summary()
    assert (Status.IN_DOUBT, "") == (summary.status, summary.owner)
    events = await world.inner.load(RUN)
    effect = [event for event in events if isinstance(event, EffectIntended)][-1]
    name = f"{effect.branch}/{effect.name}" if effect.branch else effect.name
    value = scenario.happened(world, effect.name)
    if value is None:
        await flow.handle(RUN).resolve(name, again=True)
    else:
        await flow.handle(RUN).resolve(name, value)


async def _events(world: World) -> list[Event]:
    events = await world.inner.load(RUN)
    await world.inner.close()
    return events


async def _check_life(world: World, before: History, deeds: Sequence[Deed], live: History) -> None:
    """What must be true of every life, however it ended."""
    events = await world.inner.load(RUN)
    assert [*range(1, len(events) + 1)] == [event.sequence for event in events]
    if live.sequence:  # else the run was over, or was never begun
        assert plain(replay(events[: live.sequence])) == plain(live), "live history differs"
    done = frozenset(_done(await world.inner.load(RUN, 0, before.sequence)))
    current = before.visit.number + (not before.entered)
    standing = {work.sequence for work in before.standing}
    for deed in deeds:
        _, number, *where = deed.key.split("/")
        if where[-1] == "undo at once":
            continue
        if where[-1].startswith("undo "):
            sequence = int(where[-1].removeprefix("undo "))
            known = sequence <= before.sequence
            assert not known or sequence in standing, f"undone already: {deed}"
        else:
            assert before.phase is not Phase.ROLLING_BACK, f"went forward again: {deed}"
            assert int(number) >= current or deed.what == "route", f"an earlier visit: {deed}"
            assert (deed.what, deed.key, deed.detail) not in done, f"done already: {deed}"


def _done(events: Sequence[Event]) -> Iterator[tuple[str, str, str]]:
    """The work that *events* say is done, as deeds would be told of it."""
    visit, cursor = 0, "None"
    for event in events:
        kind = type(event).__name__
        if isinstance(event, StateEntered):
            visit, cursor = visit + 1, "None"
        key = f"{RUN}/{visit}/{event.state}"
        if kind == "TaskCompleted":
            yield "run", key, ""
        elif kind in ("BranchFinished", "BranchFailed"):
            yield "run", f"{key}/{event.branch}", ""
        elif kind == "CursorSaved":
            yield "step", key, cursor
            cursor = bytes(event.value).decode()  # type: ignore[attr-defined]
        elif kind == "EffectDone":
            yield "effect", key, event.name  # type: ignore[attr-defined]


def plain(history: History) -> Any:
    """*history* as something that can be compared and printed."""
    encode = msgspec.json.encode
    visits = [
        visit and (visit.number, visit.state, {k: encode(v) for k, v in visit.progress.items()},
                   encode([visit.joined, visit.routed]))
        for visit in (history.visit, history.before)
    ]  # fmt: skip
    rest = [getattr(history, name) for name in ("data", *History.__struct_fields__[2:])
            if name not in ("visit", "before", "fields")]  # fmt: skip
    return history.phase, history.sequence, visits, rest


def check(
    scenario: Scenario,
    *crashes: Crash,
    opened: Callable[[], CheckpointStore] | None = None,
    clean: Ending | None = None,
) -> Ending:
    """Play *scenario* with *crashes*, and hold it against the run without them."""
    clean = clean or scenario.clean()
    try:
        ending = play(scenario, crashes, opened)
        _compare(clean, ending)
    except (Exception, asyncio.CancelledError) as error:
        error.add_note(f"again: check({scenario.name!r}, {', '.join(map(repr, crashes))})")
        raise
    return ending


def _compare(clean: Ending, crashed: Ending) -> None:
    _same("outcome", clean.outcome, crashed.outcome)
    _same("data", clean.data, crashed.data)
    usual, now = _deeds(clean), _deeds(crashed)
    _same("deeds", sorted(usual), sorted(usual.keys() | now.keys()))
    for deed, count in now.items():
        more = 0 if deed[0] == "effect" else crashed.lives - 1
        assert count <= usual[deed] + more, f"too often: {deed}"
    for deed, count in usual.items():
        if deed[0] in ("effect", "undo"):
            assert now[deed] >= count, f"never happened: {deed}"
    _same("undone", _undone(clean), _undone(crashed))
    closings = "TaskCompensated", "CompensationFailed", "TaskCompleted"
    before = [event for event in clean.events if event in closings]
    _same("events", before, [event for event in crashed.events if event in closings])


def _same(what: str, expected: object, actual: object) -> None:
    assert expected == actual, f"{what} should be {expected}\n{what} is {actual}"


def _deeds(ending: Ending) -> Counter[tuple[str, str, str]]:
    """How often what was done; that an undoing has another number in another life is no matter."""
    return Counter(
        (deed.what, deed.key.partition("/undo ")[0], deed.detail) for deed in ending.ledger
    )


def _undone(ending: Ending) -> list[str]:
    """What was undone, in order. What was under way at a crash may be there twice in a row."""
    found: list[str] = []
    numbers: list[int] = []
    for deed in ending.ledger:
        if "/undo " not in deed.key or deed.key.endswith("at once"):
            continue
        number = int(deed.key.rpartition(" ")[2])
        if not numbers or numbers[-1] != number:
            numbers.append(number)
            found.append(f"{deed.what} {deed.detail}")
    assert sorted(numbers, reverse=True) == numbers, f"undone in the order {numbers}"
    assert len(set(numbers)) == len(numbers), f"undone again: {numbers}"
    return found


def points(ending: Ending) -> list[Crash]:
    """Every crash point of a first life."""
    return [(when, n) for n in range(1, ending.writes + 1) for when in ("before", "after")]


def everywhere(scenario: Scenario) -> int:
    """One crash, at every point; how many there were."""
    clean = scenario.clean()
    for crash in points(clean):
        check(scenario, crash, clean=clean)
    return len(points(clean))


def twice(scenario: Scenario, sample: int | None = None, seed: int = 1) -> int:
    """A crash at every point, and another at every point of the life after; or *sample* of them."""
    clean = scenario.clean()
    pairs = [(first, second) for first in points(clean) for second in points(clean)]
    if sample is not None and sample < len(pairs):
        pairs = Random(f"{seed} {scenario.name}").sample(pairs, sample)  # noqa: S311 -- seeded on purpose
    for pair in pairs:
        check(scenario, *pair, clean=clean)
    return len(pairs)
