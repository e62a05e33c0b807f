"""Crash a workflow everywhere, and see that it ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import Any, Literal

import msgspec

from cano.errors import DefinitionError, note
from cano.testing._crash_check import Outline, compare_deeds, compare_runs, outline, same
from cano.testing._crash_life import Setup, TroubleError
from cano.testing._crash_points import (
    FAULTS,
    Crash,
    Fault,
    Story,
    all_points,
    checked_faults,
    checked_stories,
    sampled,
    some_pairs,
)
from cano.testing._crash_report import CrashFoundError, found, reproducer
from cano.testing._crash_story import Play
from cano.testing._crash_world import Deed, World
from cano.workflow import Workflow

__all__ = ["FAULTS", "Crash", "CrashFoundError", "CrashReport", "Deed", "Fault", "World",
           "crash_everywhere"]  # fmt: skip

PATIENCE = 2.0
"""Seconds after which a terminal is told how far it is."""


@dataclass(frozen=True)
class CrashReport:
    """What `crash_everywhere` tried, when it found nothing."""

    points: int
    """How many times the workflow was run, each time with other troubles."""
    lives: int
    """How many processes took part."""
    writes: int
    """Durable writes of the run without troubles."""
    seconds: float
    """Real ones."""
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each was tried."""
    missed: int = 0
    """How often a second trouble was to come after the run was over."""

    def __str__(self) -> str:
        each = ", ".join(f"{name} {count}" for name, count in self.faults.items())
        return (
            f"{self.points} points in {self.seconds:.1f} s: {self.lives} processes, "
            f"{self.writes} writes; {each}"
        )


def crash_everywhere(
    make: Callable[[World], Workflow[Any, Any]],
    *,
    start: Enum | None = None,
    data: Any = None,
    run_id: str = "r",
    outside: Callable[[World], Awaitable[None]] | None = None,
    resolve: Callable[[World, str], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    check: Callable[[World], object] | None = None,
    points: int | Literal["all"] = "all",
    pairs: int = 0,
    seed: int = 0,
    faults: Iterable[Fault] = FAULTS,
    only: Iterable[Crash | Sequence[Crash]] | None = None,
    timeout: float = 3600.0,
    progress: Callable[[int, int], object] | None = None,
) -> CrashReport:
    """Run a workflow once for every way in which its process can be troubled, and compare.

    First it is run twice without trouble. Then once for every fault at every durable write, each
    time through as many processes as it takes, in virtual time. Each run must come to the same end
    with the same data, along the same states; what is recorded once must be recorded once, and
    what completed must be undone newest first or not at all; nothing may be left behind. Example::

        def make(world: World) -> Workflow[Step, Order]:
            bank = world.keep(Bank)

            async def pay(ctx: Context[Order]) -> Literal[Step.DONE]:
                async def charge() -> None:
                    world.did("charge", ctx.run_id)
                    bank.charge(ctx.run_id, ctx.data.total)

                await ctx.effect("charge", charge, verify=...)
                return Step.DONE

            return Workflow(Step, data=Order, checkpoints=world.store)...

        def test_survives_crashes() -> None:
            crash_everywhere(make, start=Step.PAY)

    Args:
        make: builds the workflow of one process. It must use `world.store`, and everything it uses
            must be new, but for what `world.keep` holds: the fakes of outside systems.
        start: where the run begins, if not at the workflow's own start.
        data: what the run begins with; every process gets a copy of it.
        run_id: the name of the run.
        outside: goes on beside every process once the run is on record: sends signals, or cancels,
            through the world, which do not count twice.
        resolve: plays the person who looks whether an effect in doubt happened: its value, or None
            if it did not. Without it, a run that needs a person is a failure.
        observe: takes the final data, and returns what is to be compared of it, if not all of it.
        check: looks at the world at the end of every run, and raises if something is wrong.
        points: how many of all points to try, chosen at random; or "all".
        pairs: how many pairs to try besides: a fault, and another one in the next process.
        seed: chooses the same points, and the same pairs, again.
        faults: which ones to try; see `FAULTS`.
        only: try nothing but these: crashes, or sequences of them for one process after the other.
        timeout: virtual seconds after which a process counts as hanging.
        progress: called with how many points are done, and how many there are. Without it, a
            terminal is told.

    Raises `CrashFoundError` for the first difference, and `DefinitionError` for a wrong argument.
    """
    arguments = {"make": make, **_given(
        start=start, data=data, run_id=None if run_id == "r" else run_id, outside=outside,
        resolve=resolve, observe=observe, check=check, timeout=None if timeout == 3600.0 else timeout,
    )}  # fmt: skip
    given: object = make  # whatever its annotation says
    if not callable(given):
        raise DefinitionError(
            f"crash_everywhere({given!r}) needs a function that builds the workflow anew for each "
            "process: `def make(world): return Workflow(..., checkpoints=world.store)...`"
        )
    wanted = checked_faults(faults)
    _check_numbers(points, pairs, timeout)
    chosen = None if only is None else checked_stories(only)
    trial = Trial(Setup(make, start, data, run_id, outside, resolve, timeout), observe, check)
    trial.arguments = arguments
    began = perf_counter()
    with _quiet():
        clean = trial.begin()
        if chosen is None:
            every = all_points(wanted, clean.writes, clean.shared)
            most = None if points == "all" else points
            chosen = sampled(every, most, seed) + some_pairs(every, pairs, seed)
        tell = progress or _progress_on_terminal()
        for number, story in enumerate(chosen, 1):
            trial.against(story)
            tell(number, len(chosen))
    counts = Counter(crash.fault for story in chosen for crash in story)
    tried: dict[str, int] = {fault: counts[fault] for fault in FAULTS if counts[fault]}
    return CrashReport(
        len(chosen), trial.lives, clean.writes, perf_counter() - began, tried, trial.missed
    )


@dataclass(frozen=True)
class Expected:
    """What is on record of the run that nothing troubled."""

    record: dict[str, Outline]
    data: dict[str, Any]


class Trial:
    """A workflow, the run of it that nothing troubled, and what is held against that."""

    def __init__(
        self,
        setup: Setup,
        observe: Callable[[Any], Any] | None,
        check: Callable[[World], object] | None,
    ) -> None:
        self.setup = setup
        self.observe = observe
        self.check = check
        self.arguments: dict[str, Any] = {}
        self.lives: int = 0
        self.missed: int = 0
        self._clean: Play | None = None
        self._expected: Expected | None = None

    def begin(self) -> Play:
        """Run it twice without trouble: what differs then is not for crashes to blame."""
        clean = self._clean = self._played(())
        with self._blaming(clean):
            self._expected = Expected(self._record(clean), self._data(clean))
        self._compare(self._played(()))
        return clean

    def against(self, story: Story) -> None:
        """Run it with troubles, and compare. Raises `CrashFoundError`."""
        self._compare(self._played(story))

    def _played(self, story: Story) -> Play:
        play = Play(self.setup, story)
        with self._blaming(play):
            play.run()
            self._examine(play.witness())
        self.lives += play.lives
        self.missed += sum(not one for one in play.happened)
        return play

    def _examine(self, world: World) -> None:
        if self.check is not None:
            try:
                self.check(world)
            except AssertionError as error:
                raise TroubleError(f"check() says: {str(error) or 'no'}") from error

    def _compare(self, play: Play) -> None:
        clean, expected = self._clean, self._expected
        assert clean is not None  # noqa: S101 -- begun
        assert expected is not None  # noqa: S101
        with self._blaming(play):
            same("the end", clean.outcome, play.outcome)
            compare_runs(expected.record, self._record(play), clean.loose)
            data = self._data(play)
            for name in {**expected.data, **data}:
                same(name, expected.data.get(name), data.get(name))
            compare_deeds(clean.ledger, play.ledger, play.troubles)

    def _record(self, play: Play) -> dict[str, Outline]:
        return {name: outline(*known) for name, known in play.known.items()}

    def _data(self, play: Play) -> dict[str, Any]:
        """The final data, or what is to be compared of it, by name."""
        stored = play.known[self.setup.run_id][0].data
        flow = play.flow
        kind: Any = flow._plan.data_type if flow is not None and flow._plan is not None else None
        if self.observe is not None:
            return {"what observe() returned": self.observe(kind and kind.rebuild(stored))}
        return {f"data.{name}": msgspec.json.decode(value) for name, value in stored.items()}

    @contextmanager
    def _blaming(self, play: Play) -> Generator[None]:
        """Say of what is wrong where it is wrong."""
        try:
            yield
        except TroubleError as trouble:
            text = str(trouble)
            if not play.story and self._clean is not play and self._clean is not None:
                text = (
                    "two runs without a crash differ already, so nothing can be compared; make it "
                    f"deterministic, or say observe=...: {text}"
                )
            raise found(play, self._clean or play, text, self.arguments) from trouble.__cause__
        except Exception as error:  # of make(), outside() or check() themselves
            note(error, f"cano: again: {reproducer(play.story, self.arguments)}")
            raise


def _given(**arguments: Any) -> dict[str, Any]:
    """Those arguments that were given."""
    return {name: value for name, value in arguments.items() if value is not None}


def _check_numbers(points: object, pairs: object, timeout: float) -> None:
    problems = [
        f"{name}={value!r} is no number of runs; pass a whole number"
        for name, value in (("points", points), ("pairs", pairs))
        if value != "all" and (not isinstance(value, int) or isinstance(value, bool) or value < 0)
    ]
    if not timeout > 0:
        problems.append(f"timeout={timeout!r} leaves a process no time; pass seconds > 0")
    if problems:
        raise DefinitionError(problems)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise DefinitionError(
        "crash_everywhere runs event loops of its own; call it from a plain function, not from a "
        "coroutine"
    )


@contextmanager
def _quiet() -> Generator[None]:
    """What goes wrong on purpose is not worth a line in the log."""
    logger = logging.getLogger("cano")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _progress_on_terminal() -> Callable[[int, int], object]:
    """Tell a terminal how far it is, once it takes long; nothing else is told."""
    began, terminal = perf_counter(), sys.stderr

    def tell(done: int, total: int) -> None:
        if perf_counter() - began > PATIENCE and (done % 10 == 0 or done == total):
            end = "\n" if done == total else ""
            terminal.write(f"\rcrash_everywhere: {done} of {total}{end}")
            terminal.flush()

    return tell if terminal.isatty() else lambda done, total: None
