"""`process`: how calls end before they are done, and what is left of them, which is nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cano import Retry, Split, Timeout, Workflow, process
from cano.errors import AttemptTimeoutError, WorkerCrashedError
from cano.executors import _workers
from cano.join import Any as First

sys.path.insert(0, str(Path(__file__).parent))

import offloaded as jobs
from offloaded import Step

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks for processes by number")


def alive(pid: int) -> bool:
    """Whether that process runs; one that nobody has buried does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # a system that tells nothing more
    except ProcessLookupError:
        return False


def gone(pid: int) -> bool:
    """Whether that process is gone very soon: the system may still be at it."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


async def told(file: Path) -> int:
    """Wait for a process to write its number down."""
    while not file.exists() or not file.read_text():
        await asyncio.sleep(0.005)
    return int(file.read_text())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No call is left behind; one ended early may still be about to have its process started."""
    yield
    while any(pool._busy for pool in _workers._POOLS):
        time.sleep(0.01)


@pytest.mark.parametrize("function", [jobs.hang, jobs.spin, jobs.start_another])
def test_a_cancelled_call_is_really_ended(function: Any, tmp_path: Path) -> None:
    """Whether it sleeps, computes or waits for a program: cancelled, it and the program are gone."""
    file = tmp_path / "pid"

    async def main() -> tuple[int, bool]:
        task = asyncio.ensure_future(process(function)(file))
        pid = await told(file)
        task.cancel()
        await asyncio.wait({task})
        return pid, task.cancelled()

    pid, cancelled = asyncio.run(main())

    assert cancelled
    assert gone(pid) if function is jobs.start_another else not alive(pid)


def test_cancelled_again_and_again(tmp_path: Path) -> None:
    """However often it is cancelled, and however early, the call ends once and cleanly."""

    async def main() -> list[bool]:
        ended = []
        for delay in (0.0, 0.001, 0.01, 0.03, 0.1):
            task = asyncio.ensure_future(process(jobs.hang)(tmp_path / "pid"))
            await asyncio.sleep(delay)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            ended.append(task.cancelled())
        return ended

    assert [True] * 5 == asyncio.run(main())


def test_timeouts_one_after_the_other(tmp_path: Path) -> None:
    """Every attempt that times out is ended in time, and its process is gone with it."""
    pids: list[int] = []

    async def task(ctx: Any) -> Any:
        (tmp_path / "pid").unlink(missing_ok=True)
        try:
            await process(jobs.spin)(tmp_path / "pid")
        finally:
            if (tmp_path / "pid").exists():
                pids.append(int((tmp_path / "pid").read_text()))

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        flow = Workflow(Step).register(
            Step.WORK, task, Retry.fixed(3, 0.0, on=AttemptTimeoutError), Timeout(0.2)
        )
        with pytest.raises(AttemptTimeoutError):
            await flow.exits(Step.DONE, Step.REPORT).run(Step.WORK)
        return loop.time() - began

    assert asyncio.run(main()) < 5
    assert [] == [pid for pid in pids if alive(pid)]


def test_a_timeout_before_the_process_is_up() -> None:
    """A call may time out while its process is being started: nothing is left of it either."""

    async def main() -> None:
        hang = process(jobs.hang, limit=1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await hang(Path("never"))

    asyncio.run(main())

    assert not Path("never").exists()


def test_losers_are_ended(tmp_path: Path) -> None:
    """The branches that lose a race are gone when the run is over."""
    names = ["loser1", "winner", "loser2"]
    flow = (
        Workflow(Step)
        .register(
            Step.WORK,
            Split.over(
                lambda _: [tmp_path / name for name in names],
                run=process(jobs.racer, limit=3),
                join=First(),
                then=Step.DONE,
            ),
        )
        .exits(Step.DONE, Step.REPORT)
    )
    assert asyncio.run(flow.run(Step.WORK)) is Step.DONE

    losers = [int((tmp_path / name).read_text()) for name in names if name != "winner"]
    assert [False, False] == [alive(pid) for pid in losers]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "ended with exit code 7"),
        ("sys.exit", "ended with exit code 3"),
        ("kill", "was killed by SIGKILL"),
    ],
)
def test_a_crash_fails_one_call(how: str, said: str) -> None:
    """A process that dies fails the call it was making, and the next call has another."""
    leave, same = process(jobs.leave, limit=1), process(jobs.same)

    async def main() -> str:
        with pytest.raises(WorkerCrashedError, match="leave: worker process") as caught:
            await leave(how)
        assert caught.value.retryable
        assert "next" == await same("next")
        return str(caught.value)

    assert said in asyncio.run(main())


def test_a_crash_is_one_failed_attempt(tmp_path: Path) -> None:
    """`Retry` tries again after a crash, in another process of the same pool."""

    async def task(ctx: Any) -> Any:
        return await once(ctx, tmp_path / "been here")

    once = process(jobs.leave_once, limit=1)
    flow = Workflow(Step).register(Step.WORK, task, Retry.fixed(2, 0.0))

    assert asyncio.run(flow.exits(Step.DONE, Step.REPORT).run(Step.WORK)) is Step.DONE


def test_a_death_without_work_is_nobody_s_failure() -> None:
    """A process that died while it had nothing to do is replaced, and no call fails for it."""
    pid = process(jobs.pid, limit=1)

    async def main() -> bool:
        first = await pid()
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        return first != await pid()

    assert asyncio.run(main())


def test_bound(tmp_path: Path) -> None:
    """As many processes as *limit* work at once, and no more; the other calls wait in line."""
    meet = process(jobs.meet, limit=2)

    async def main() -> list[int]:
        wanted = [2, 2, 1, 1, 1]
        return await asyncio.gather(*[meet(tmp_path, *call) for call in enumerate(wanted)])

    assert 2 == max(asyncio.run(main()))


def test_what_waits_in_line_is_never_called(tmp_path: Path) -> None:
    """Cancelled while it waits for a process, a call is not made."""
    do = process(jobs.tell_pid, limit=1)

    async def main() -> None:
        first = asyncio.ensure_future(do(tmp_path / "first"))
        second = asyncio.ensure_future(do(tmp_path / "second"))
        await asyncio.sleep(0)
        second.cancel()
        await first
        await do(tmp_path / "third")

    asyncio.run(main())

    assert ["first", "third"] == sorted(file.name for file in tmp_path.iterdir())


def test_idle_processes_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without work for long enough ends."""
    monkeypatch.setattr(_workers, "IDLE", 0.05)

    async def main() -> int:
        return await process(jobs.pid, limit=1)()

    assert gone(asyncio.run(main()))


PROGRAM = f"""
import asyncio, os, sys
sys.path.append({str(Path(__file__).parent)!r})
from pathlib import Path
from cano import process
import offloaded as jobs
file = Path(sys.argv[1])
async def main():
    task = asyncio.ensure_future(process(jobs.spin)(file))
    while not file.exists():
        await asyncio.sleep(0.005)
    print("spinning", flush=True)
    {{then}}
"""


def start(tmp_path: Path, then: str, last: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    guard = f'if __name__ == "__main__":\n    {last}\n'
    script.write_text(PROGRAM.format(then=then) + guard)
    program = subprocess.Popen(
        [sys.executable, "-W", "error", str(script), str(tmp_path / "pid")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert "spinning\n" == program.stdout.readline()
    return program


@pytest.mark.parametrize(
    ("then", "last", "sent", "code"),
    [
        ("return", "asyncio.run(main())", None, 0),
        ("return", "asyncio.new_event_loop().run_until_complete(main())", None, 0),
        ("await task", "asyncio.run(main())", signal.SIGINT, -signal.SIGINT),
        ("await task", "asyncio.run(main())", signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["left running", "loop dropped", "interrupted", "killed"],
)
def test_a_program_s_end(
    then: str, last: str, sent: signal.Signals | None, code: int, tmp_path: Path
) -> None:
    """A program ends without waiting for its calls, and its processes end with it."""
    program = start(tmp_path, then, last)
    if sent is not None:
        program.send_signal(sent)
    try:
        _, errors = program.communicate(timeout=10)  # it is the process's stderr, too
    finally:
        program.kill()

    assert code == program.returncode
    assert errors == "" or sent is signal.SIGINT
    assert gone(int((tmp_path / "pid").read_text()))


FORKING = """
import asyncio, os, warnings
from cano import process
warnings.simplefilter("ignore")
length = process(len)
async def main(): return await length("four")
asyncio.run(main())
if (child := os.fork()) == 0:
    os._exit(asyncio.run(main()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), asyncio.run(main()))
"""


def test_survives_a_fork() -> None:
    """A forked process starts workers of its own, and the parent keeps those it has."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30, check=False
    )

    assert ("4 4\n", "") == (done.stdout, done.stderr)
