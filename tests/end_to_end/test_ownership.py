"""Several real processes and one run: who has it, who gets it, who has lost it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cano import RunClaimed, SqliteCheckpoints, Status
from cano.events import Event

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.end_to_end.programs.errands import Ledger
from tests.end_to_end.programs.trips import open_gate, trips

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses signals of POSIX")


class Process:
    """A process of `programs.trips`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.end_to_end.programs.trips",
             str(folder), *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def line(self) -> str:
        """The next thing it says."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def say(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{text}\n")
        self.popen.stdin.flush()

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said last."""
        out, _ = self.popen.communicate(timeout=30)
        return self.popen.returncode, out.strip()


class Place:
    """A folder with a store, in which processes meet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []

    def start(self, *arguments: str) -> Process:
        self.processes.append(Process(self.folder, *arguments))
        return self.processes[-1]

    def ended(self, *arguments: str) -> str:
        """What a process says that comes to its end."""
        code, said = self.start(*arguments).end()
        assert 0 == code
        return said

    def ask(self, question: Callable[[SqliteCheckpoints], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with SqliteCheckpoints(self.folder / "runs.db") as store:
                return await question(store)

        return asyncio.run(asked())

    def summary(self, run: str) -> Any:
        return self.ask(lambda store: store.summary(run))

    def events(self, run: str) -> list[Event]:
        return self.ask(lambda store: store.load(run))

    def kinds(self, run: str) -> list[str]:
        return [type(event).__name__ for event in self.events(run)]

    def done(self, run: str) -> list[tuple[str, int]]:
        """What was done for a run, and by which of its owners."""
        ledger = Ledger(self.folder / "ledger")
        lines = ledger.lines(run)
        ledger.close()
        return [(line.what, line.fence) for line in lines]

    def open(self, gate: str) -> None:
        open_gate(self.folder, gate)

    def cano(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, about this store."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "cano", *arguments,
             "--store", str(self.folder / "runs.db")],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip


def until(right: Callable[[], bool]) -> None:
    """Wait until something is so, which it will be before long."""
    end = time.perf_counter() + 20
    while not right():
        assert time.perf_counter() < end
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for process in place.processes:
        process.popen.kill()
        process.popen.communicate()


@pytest.mark.parametrize("how", ["run", "resume"])
def test_race(place: Place, how: str) -> None:
    """Of two processes that want the same run at the same time, exactly one carries it out."""
    if how == "resume":
        place.open("abandon")
        abandoning = place.start("start", "r", "--turn", "MARK", "--many", "100")
        assert "started" == abandoning.line()
        abandoning.send(signal.SIGKILL)
        abandoning.end()
    racers = [place.start("race"), place.start("race")]
    assert ["ready", "ready"] == [racer.line() for racer in racers]

    outcomes: list[list[str]] = []
    for number in range(100):
        for racer in racers if number % 2 else reversed(racers):
            racer.say(f"{how} r{number}")
        outcomes.append(sorted(racer.line() for racer in racers))

    assert {"DONE"} == {first for first, _ in outcomes}
    assert {"DONE", "RunOwnedError"} >= {second for _, second in outcomes}
    owner = 2 if how == "resume" else 1
    for number in range(100):
        assert [("mark", owner)] == [done for done in place.done(f"r{number}") if done[0] == "mark"]
        assert how == "resume" or "RunClaimed" not in place.kinds(f"r{number}")
        assert place.kinds(f"r{number}").count("RunClaimed") <= 1


def test_a_frozen_owner_is_refused(place: Place) -> None:
    """Who wakes up after its lease learns at its next append that the run is another's, and stops."""
    frozen = place.start("run", "r", "--lease", "2")
    assert "HOLD held 1" == frozen.line()
    time.sleep(0.2)  # not when it renews its lease: it would stand still with the file locked
    frozen.send(signal.SIGSTOP)
    heir = place.start("run", "r", "--wait", "--lease", "60")
    assert "HOLD held 2" == heir.line()

    before = place.events("r")
    frozen.send(signal.SIGCONT)
    assert (0, "RunLostError") == frozen.end()
    assert "running" == place.summary("r").status
    until(lambda: place.done("r")[-1][1] == 2)
    place.open("held")
    assert (0, "DONE") == heir.end()

    events = place.events("r")
    assert before == events[: len(before)]
    assert list(range(1, len(events) + 1)) == [event.sequence for event in events]
    assert [2] == [event.epoch for event in events if isinstance(event, RunClaimed)]
    done = place.done("r")
    assert [] == [what for what, _ in done if what.startswith("un")]
    late = done[[fence for _, fence in done].index(2) :]
    assert [fence for _, fence in late].count(1) <= 1  # what it was in the middle of


def test_a_silent_owner_keeps_its_lease(place: Place) -> None:
    """A process that does not answer has its runs until the lease is over: it may be at work."""
    silent = place.start("run", "r", "--lease", "3600")
    assert "HOLD held 1" == silent.line()
    silent.send(signal.SIGSTOP)
    assert "RunOwnedError" == place.ended("resume", "r")
    assert "RunOwnedError" == place.ended("run", "r")
    assert "recovered 0" == place.ended("recover")
    silent.send(signal.SIGCONT)
    place.open("held")
    assert (0, "DONE") == silent.end()
    assert "RunClaimed" not in place.kinds("r")


def test_a_frozen_rollback_is_refused(place: Place) -> None:
    """Who loses a run while undoing it undoes nothing more; its heir undoes what still stands."""
    frozen = place.start("run", "r", "--turn", "FAIL", "--lease", "2")
    assert "PAY unpaid 1" == frozen.line()
    frozen.send(signal.SIGSTOP)
    heir = place.start("run", "r", "--wait", "--lease", "60", "--turn", "FAIL")
    assert "PAY unpaid 2" == heir.line()

    place.open("unpaid")
    assert (0, "RunFailedError") == heir.end()
    ended = place.events("r")
    frozen.send(signal.SIGCONT)
    assert (0, "RunLostError") == frozen.end()

    assert [("book", 1), ("pay", 1), ("unpay", 1), ("unpay", 2), ("unbook", 2)] == place.done("r")
    assert ended == place.events("r")
    assert ("failed", 2) == (place.summary("r").status, place.summary("r").epoch)


def test_a_restart_waits_for_no_lease(place: Place) -> None:
    """The lease of a process of this machine that is gone holds nobody up."""
    first = place.start("run", "r", "--lease", "3600")
    assert "HOLD held 1" == first.line()
    first.send(signal.SIGKILL)
    first.end()
    held = place.summary("r")
    assert held.lease > held.created + 3000

    place.open("held")
    began = time.perf_counter()
    assert "HOLD held 2\nDONE" == place.ended("resume", "r")
    assert time.perf_counter() - began < 10


def test_a_shutdown_lets_go(place: Place) -> None:
    """A run whose process is told to stop is let go at once, undone in no part, for anybody."""
    first = place.start("run", "r", "--lease", "3600")
    assert "HOLD held 1" == first.line()
    first.send(signal.SIGTERM)
    assert (0, "cancelled") == first.end()

    left = place.summary("r")
    assert ("running", "", 0.0, 0) == (left.status, left.owner, left.lease, left.crashes)
    assert {"StateEntered", "EffectIntended", "EffectDone"} >= set(place.kinds("r")[-1:])
    place.open("held")
    assert "HOLD held 2\nDONE" == place.ended("run", "r")
    assert [] == [what for what, _ in place.done("r") if what.startswith("un")]
    assert 0 == place.summary("r").crashes


def test_a_run_that_kills_its_process_is_set_aside(place: Place) -> None:
    """After so many crashes nobody takes the run up, everybody can see it, and a person may."""
    assert -signal.SIGKILL == place.start("run", "r", "--turn", "DIE").end()[0]
    codes = [place.start("recover").end()[0] for _ in range(6)]
    assert [*[-signal.SIGKILL] * 5, 0] == codes
    assert "recovered 0" == place.ended("recover")
    assert "RunStuckError" == place.ended("resume", "r")
    assert "RunStuckError" == place.ended("run", "r", "--turn", "DIE")
    listed = json.loads(place.cano("runs", "--stuck", "--json").stdout)["runs"]
    assert [("r", "stuck", 5)] == [
        (run["run_id"], run["condition"], run["crashes"]) for run in listed
    ]
    assert "stuck" in place.cano("runs").stdout
    assert "cano runs resume r" in place.cano("runs", "show", "r").stdout

    place.open("cured")
    assert "DONE" == place.ended("resume", "r", "--even-if-stuck")
    assert Status.FINISHED is place.summary("r").status


def test_a_signal_wakes_a_parked_run(place: Place) -> None:
    """A run that waits is held by nobody, and goes on when another process sends it a signal."""
    serving = place.start("serve", "r", "--turn", "WAIT")
    assert "serving" == serving.line()
    until(lambda: place.summary("r").status is Status.WAITING)
    assert "" == place.summary("r").owner

    assert 0 == place.cano("runs", "signal", "r", "go", '"ada"').returncode
    began = time.perf_counter()
    until(lambda: place.summary("r").over)
    assert time.perf_counter() - began < 3
    serving.send(signal.SIGTERM)
    assert (0, "cancelled") == serving.end()
    assert Status.FINISHED is place.summary("r").status
    flow, store = trips(place.folder)
    assert "ada" == asyncio.run(heard(flow, store))


async def heard(flow: Any, store: SqliteCheckpoints) -> str:
    async with store:
        return str((await flow.handle("r").data()).heard)


def test_a_parked_run_outlives_every_process(place: Place) -> None:
    """A signal that comes while no process lives is there for the next one that does."""
    serving = place.start("serve", "r", "--turn", "WAIT")
    assert "serving" == serving.line()
    until(lambda: place.summary("r").status is Status.WAITING)
    serving.send(signal.SIGKILL)
    serving.end()

    assert "recovered 0" == place.ended("recover")
    assert 0 == place.cano("runs", "signal", "r", "go", '"bob"').returncode
    assert "recovered 1\nDONE" == place.ended("recover")
    assert 0 == place.summary("r").crashes


def test_cancelled_by_another_process(place: Place) -> None:
    """A request to end a run reaches whoever carries it out, who undoes it and says it is cancelled."""
    running = place.start("run", "r")
    assert "HOLD held 1" == running.line()

    began = time.perf_counter()
    assert 0 == place.cano("runs", "cancel", "r").returncode
    assert (0, "RunCancelledError") == running.end()
    assert time.perf_counter() - began < 10

    assert ["unpay", "unbook"] == [what for what, _ in place.done("r") if what.startswith("un")]
    assert Status.CANCELLED is place.summary("r").status
    assert "RunCancelledError" == place.ended("resume", "r")


def test_cancelled_while_nobody_has_it(place: Place) -> None:
    """A request to end a run whose process is gone is heeded by the next that takes it up."""
    first = place.start("run", "r")
    assert "HOLD held 1" == first.line()
    first.send(signal.SIGKILL)
    first.end()

    assert 0 == place.cano("runs", "cancel", "r").returncode
    assert "recovered 1\nRunCancelledError" == place.ended("recover")
    assert [("unpay", 2), ("unbook", 2)] == place.done("r")[-2:]
    assert Status.CANCELLED is place.summary("r").status
