"""Kills the processes of `programs.errands` again and again, and looks what became of the runs.

    python -m tests.end_to_end.soak --kills 2000

Two processes at a time share one SQLite file. Each is killed with SIGKILL after a random while, and
another one takes its place; at the end one process brings everything to its end. Then the histories
are compared with the ledger of what was really done.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from cano import RunQuery, RunSummary, Status
from cano.events import (
    BranchFinished,
    CursorSaved,
    EffectDone,
    Event,
    RunClaimed,
    StateEntered,
    TaskCompensated,
    TaskCompleted,
)
from tests.end_to_end.programs.errands import (
    BRANCHES,
    STEPS,
    Errand,
    Line,
    errands,
    refused,
    work,
)

LANES = 2
LONGEST = 0.35
"""Seconds that a process has to live, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, carry on, compare; 0 if everything is as it must be."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to leave the store, ledger and log")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(work(Path(temporary), None, person=False))  # imports what its forks will need
        began = time.perf_counter()
        kill_again_and_again(folder, asked.kills, Random(asked.seed))  # noqa: S311
        killed = time.perf_counter() - began
        end(start(folder, None, person=True), expected=0)
        seconds = time.perf_counter() - began
        report = asyncio.run(examine(folder))
        complaints = (folder / "log").read_text() if (folder / "log").exists() else ""
    told = {"kills": asked.kills, "seed": asked.seed, "seconds": round(seconds, 1)}
    told["kills_per_second"] = round(asked.kills / killed, 1)
    print(msgspec.json.format(msgspec.json.encode(told | report.figures)).decode())
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(complaints, end="", file=sys.stderr)
    return 1 if report.problems or complaints else 0


def kill_again_and_again(folder: Path, kills: int, chance: Random) -> None:
    """Let processes come and go."""
    lanes: list[tuple[float, int, int]] = []
    for kill in range(kills + LANES):
        if kill >= LANES:  # then every process that starts takes the place of one that is killed
            lanes.sort()
            due, process, lane = lanes.pop(0)
            time.sleep(max(due - time.perf_counter(), 0))
            os.kill(process, signal.SIGKILL)
            end(process, expected=-signal.SIGKILL)
        else:
            lane = kill
        if kill < kills:
            process = start(folder, 1 + kill * 1000, person=lane == 0)
            lanes.append((time.perf_counter() + chance.uniform(0, LONGEST), process, lane))


def start(folder: Path, first: int | None, *, person: bool) -> int:
    """Start a process that works; a fork, because that spares it the imports."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        logging.basicConfig(filename=folder / "log", level=logging.ERROR)
        logging.captureWarnings(True)
        asyncio.run(work(folder, first, person=person))
        code = 0
    except BaseException:
        with (folder / "log").open("a") as log:
            traceback.print_exc(file=log)
    finally:
        os._exit(code)


def end(process: int, expected: int) -> None:
    """Wait for a process to be gone, in the way it should be."""
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != expected:
        print(f"process {process} ended with {code}, not with {expected}", file=sys.stderr)


class Report(msgspec.Struct):
    problems: list[str]
    figures: dict[str, int]


async def examine(folder: Path) -> Report:
    """Compare what the store says of each run with what was done."""
    flow, store, ledger = errands(folder)
    lines: dict[str, list[Line]] = {}
    for line in ledger.lines():
        lines.setdefault(line.run, []).append(line)
    runs: list[RunSummary] = []
    while page := await store.runs(RunQuery(limit=500, after=runs[-1].run_id if runs else None)):
        runs += page
    problems = list(await store.check())
    lost = lines.keys() - {run.run_id for run in runs}
    problems += [f"{name} was begun, and is not there" for name in lost]
    claims = doubts = 0
    for run in runs:
        events = await store.load(run.run_id)
        data = await flow.handle(run.run_id).data()
        problems += [
            f"{run.run_id}: {problem}"
            for problem in Examined(run, events, data, lines.get(run.run_id, [])).problems()
        ]
        claims += sum(isinstance(event, RunClaimed) for event in events)
        doubts += len([m for m in await store.inbox(run.run_id) if m.name == "cano.resolve"])
    done = Counter(line.what.split()[0] for group in lines.values() for line in group)
    figures = {
        "runs": len(runs),
        "failed": sum(run.status is Status.FAILED for run in runs),
        "claims": claims,
        "decided_by_a_person": doubts,
        "events": sum(run.sequence for run in runs),
        "done": sum(done.values()) - done["told"],
        "undone": done["undo"],
    }
    await store.close()
    return Report(problems, figures)


class Examined:
    """One run: its history, and what was done for it."""

    def __init__(
        self, run: RunSummary, events: list[Event], data: Errand, lines: list[Line]
    ) -> None:
        self.run = run
        self.events = events
        self.data = data
        self.lines = lines
        self.fails = refused(data.number)

    def problems(self) -> Iterator[str]:
        expected = Status.FAILED if self.fails else Status.FINISHED
        if self.run.status is not expected:
            yield f"it is {self.run.status}, not {expected}"
        if [event.sequence for event in self.events] != list(range(1, self.run.sequence + 1)):
            yield "its events are not numbered one by one"
        if len(self.lines) != len(set(self.lines)):
            yield "an owner did something twice"
        yield from self.odd_data()
        yield from self.odd_records()
        yield from self.odd_effects()
        yield from self.odd_compensations()
        yield from self.odd_keys()
        yield from self.broken_promises()

    def odd_data(self) -> Iterator[str]:
        """Data and position agree, however often the run was taken over."""
        number = self.data.number
        expected = Errand(
            number=number,
            began=1,
            gathered=[number + index for index in range(BRANCHES)],
            counted=sum(range(1, STEPS + 1)) + 100,
            seat=f"reserve of {self.run.run_id}",
        )
        if self.data != expected:
            yield f"its data is {self.data}, not {expected}"

    def odd_records(self) -> Iterator[str]:
        """What is recorded as done was done by the owner who recorded it, and by none after it."""
        recorded: dict[str, int] = {}
        for event, fence in self.owned():
            if (what := recorded_work(event)) is None:
                continue
            if what in recorded:
                yield f"{what} is recorded twice"
            recorded[what] = fence
            fences = sorted(line.fence for line in self.lines if line.what == what)
            if fence not in fences:
                yield f"{what} was recorded by owner {fence}, but done by {fences}"
            elif fences[-1] > fence:
                yield f"{what} was recorded by owner {fence}, and done again by {fences[-1]}"
        missing = {line.what for line in self.lines} - recorded.keys()
        yield from (f"{what} is not recorded" for what in missing if not what.startswith(FREE))

    def odd_effects(self) -> Iterator[str]:
        """What cannot be repeated happened once."""
        for name in ("reserve", "pay"):
            times = sum(line.what == f"effect {name}" for line in self.lines)
            if times != 1:
                yield f"effect {name} happened {times} times"

    def odd_compensations(self) -> Iterator[str]:
        """A run that failed is undone in order, newest first, and no other is."""
        undone = [
            f"{event.state} {event.branch}".strip()
            for event in self.events
            if isinstance(event, TaskCompensated)
        ]
        expected = ["PAY", "RESERVE", f"GATHER {BRANCHES - 1}"] if self.fails else []
        if undone != expected:
            yield f"{undone} was undone, not {expected}"
        words = [line.what.split() for line in self.lines if " " in line.what]
        done = list(dict.fromkeys(what for kind, what, *_ in words if kind == "undo"))
        if done != [what.split()[0] for what in expected]:
            yield f"undoing happened in the order {done}"

    def odd_keys(self) -> Iterator[str]:
        """To the outside world the same work has the same key, whoever does it."""
        for what in {line.what for line in self.lines if line.key}:
            keys = {line.key for line in self.lines if line.what == what}
            if len(keys) != 1:
                yield f"{what} was done under the keys {keys}"

    def broken_promises(self) -> Iterator[str]:
        """What a process was told is so for ever."""
        done = {event.name for event in self.events if isinstance(event, EffectDone)}
        ends = ("RefusedError", "RunFailedError") if self.fails else ("DONE",)
        for line in self.lines:
            match line.what.split():
                case ["told", "end", end] if end not in (*ends, "EffectInDoubtError"):
                    yield f"its process was told of the end {end}"
                case ["told", ("reserve" | "pay" | "mail") as name] if name not in done:
                    yield f"its process was told that effect {name} is done"
                case _:
                    pass

    def owned(self) -> Iterator[tuple[Event, int]]:
        """The events, and the epoch of who recorded each."""
        epoch = 1
        for event in self.events:
            if isinstance(event, RunClaimed):
                epoch = event.epoch
            yield event, epoch


FREE = ("told ", "undo ", "effect ")
"""What `Examined.odd_records` leaves to others, in part."""


def recorded_work(event: Event) -> str | None:
    """What *event* says was done, in the words of the ledger."""
    match event:
        case StateEntered(state="GATHER"):
            return "begin"
        case BranchFinished():
            return f"branch {event.branch}"
        case CursorSaved():
            return f"count {int(event.value)}"
        case StateEntered(state="RESERVE"):
            return f"count {STEPS}"
        case TaskCompleted():
            return f"work {event.state}"
        case EffectDone(name="mail"):
            return "effect mail"
        case _:
            return None


if __name__ == "__main__":
    sys.exit(main())
