"""Real processes with the same flow over the same file: each tick is run once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cano import RunQuery, SqliteCheckpoints

PROGRAM = """
import asyncio, os, sys
from enum import Enum
from typing import Literal
from cano import Context, SqliteCheckpoints, Workflow
from cano.scheduler import Every, Scheduler

class Step(Enum):
    WORK = 1
    DONE = 2

async def work(ctx: Context) -> Literal[Step.DONE]:
    with open(sys.argv[2], "a") as log:
        log.write(f"{ctx.run_id} {os.getpid()} begun\\n")
    await asyncio.sleep(0.1)
    with open(sys.argv[2], "a") as log:
        log.write(f"{ctx.run_id} {os.getpid()} done\\n")
    return Step.DONE

async def main():
    async with SqliteCheckpoints(sys.argv[1]) as store:
        flow = Workflow(Step, start=Step.WORK, name="job", checkpoints=store)
        flow.register(Step.WORK, work).exits(Step.DONE)
        scheduler = Scheduler(store=store, grace=5)
        scheduler.add("tick", flow, Every(0.25), overlap="queue")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(15, lambda: stops.append(asyncio.ensure_future(scheduler.stop())))
        stops = []
        print("open", flush=True)
        await scheduler.run()
        print(scheduler.status("tick").runs, flush=True)

asyncio.run(main())
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder / "runs.db"), str(folder / "log")],
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


async def until(folder: Path, count: int) -> None:
    """Wait until so many runs were begun."""
    async with asyncio.timeout(30):
        while len(lines(folder)) < count:
            await asyncio.sleep(0.02)


async def statuses(folder: Path) -> dict[str, str]:
    async with SqliteCheckpoints(folder / "runs.db") as store:
        assert [] == await store.check()
        return {run.run_id: str(run.status) for run in await store.runs(RunQuery(limit=1000))}


def test_one_is_killed_and_the_other_goes_on(tmp_path: Path) -> None:
    """Two processes run each tick once; when one is killed the other goes on, and leaves nothing."""
    children = [start(tmp_path), start(tmp_path)]
    assert ["open\n"] * 2 == [child.stdout.readline() for child in children if child.stdout]
    asyncio.run(until(tmp_path, 12))
    children[0].kill()
    children[0].communicate(timeout=10)
    killed_at = len(lines(tmp_path))
    asyncio.run(until(tmp_path, killed_at + 12))
    children[1].send_signal(signal.SIGTERM)
    said, _ = children[1].communicate(timeout=20)

    assert (-signal.SIGKILL, 0) == (children[0].returncode, children[1].returncode)
    found = asyncio.run(statuses(tmp_path))
    assert {"finished"} == set(found.values())
    assert len(found) == int(said)
    done = Counter(run for run, _, what in lines(tmp_path) if what == "done")
    assert set(found) == set(done)
    assert sum(done.values()) - len(done) <= 1  # one that had ended, but not on record
    begun = Counter(run for run, _, what in lines(tmp_path) if what == "begun")
    assert sum(begun.values()) - len(begun) <= 1  # the one that was broken off, if any
