"""`cano demo --crash`: the survey of `cano.demo`, whose process is killed half way.

Three processes share a store. The first runs the survey and is killed, the second resumes the run.
The third is the command itself: it watches, kills, and reads in the store what was saved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.cli import show
from cano.cli.outcome import FAILED, CommandError
from cano.demo import Step, Survey, workflow
from cano.events import (
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Event,
    SplitStarted,
    StateEntered,
    TaskRetried,
)

if TYPE_CHECKING:
    from cano.cli.demo_progress import Teller  # it draws with rich, and `--json` does without

RUN = "demo"
SHARE = 3
"""The first process is killed when one branch in so many is finished."""


@dataclass
class Crash:
    """What the crash came to: chunks by their names, which are those of their first files."""

    killed: int = 0
    """The process that was killed, and the one that went on."""
    resumed: int = 0
    chunks: int = 0
    saved: list[str] = field(default_factory=list[str])
    """What was finished when the process died."""
    read_after: list[str] = field(default_factory=list[str])
    """What the second process read."""

    @property
    def read_twice(self) -> int:
        """How many of the finished ones were read again."""
        return len(set(self.saved) & set(self.read_after))

    @property
    def told(self) -> str:
        """What became of the work, in a sentence."""
        of = f"{len(self.saved):,} of {show.counted(self.chunks, 'chunk')}"
        were = "was" if len(self.saved) == 1 else "were"
        again = f"{self.read_twice:,} of them" if self.read_twice else "not"
        return f"{of} {were} finished before the crash, and {again} read again"


async def crash_and_resume(survey: Survey, workers: int, teller: Teller | None) -> Crash:
    """Fill *survey* in spite of a crash. Raises `CommandError`.

    Nothing is left behind, neither files nor processes.
    """
    crash = Crash()
    with TemporaryDirectory(prefix="cano-demo-") as folder:
        path = Path(folder, "demo.db")
        watch = _Watch(teller)
        first = await _start("run", path, survey.root, workers)
        crash.killed = first.pid
        await watch.follow(first)
        async with SqliteCheckpoints(path) as store:
            reached = workflow(workers, checkpoints=store).handle(RUN)
            if watch.end is None:
                events = await store.load(RUN)
                saved = [event for event in events if isinstance(event, BranchFinished)]
                crash.saved = [event.branch for event in saved]
                chunks = (await reached.data()).chunks
                watch.catch_up(sum(len(chunks[event.index]) for event in saved))
                crash.chunks = max(len(e.names) for e in events if isinstance(e, SplitStarted))
                watch.say(
                    f"process {first.pid} was killed: {len(crash.saved)} of "
                    f"{show.counted(crash.chunks, 'chunk')} finished, and saved in demo.db"
                )
                second = await _start("resume", path, survey.root, workers)
                crash.resumed = second.pid
                watch.say(f"process {second.pid} resumes the run")
                await watch.follow(second)
                crash.read_after = watch.began
            found = await reached.data()
        vars(survey).update(vars(found))
    return crash


async def _start(how: str, path: Path, root: str, workers: int) -> Process:
    """Start a process that carries the run out, and tells what it does on its stdout."""
    modules = [entry or str(Path.cwd()) for entry in sys.path]
    code = f"import sys; sys.path[:] = {modules!r}\nfrom cano.cli.demo_crash import work; work()"
    # A group of its own: a Ctrl-C is for the command, which ends it.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", code, how, str(path), root, str(workers),
        stdin=PIPE, stdout=PIPE, process_group=0 if os.name == "posix" else None,
    )  # fmt: skip


class _Watch:
    """Follows the processes, one after the other."""

    def __init__(self, teller: Teller | None) -> None:
        self.end: str | None = None
        """The exit that the run reached."""
        self.began: list[str] = []
        """The branches that the process began."""
        self._teller = teller
        self._files = self._done = 0

    def say(self, text: str) -> None:
        if self._teller is not None:
            self._teller.complain(text)

    def catch_up(self, files: int) -> None:
        """So many files are read: a process may have died before it told of its last ones."""
        self._done = files
        if self._teller is not None:
            self._teller.advance(files, self._files)

    async def follow(self, process: Process) -> None:
        """Show what *process* does, to its end; kill it when it asks. Raises `CommandError`."""
        self.began = []
        killed = False
        try:
            async for kind, value in _messages(process):
                if kind == "kill":
                    killed = True
                    process.kill()
                else:
                    self._take(kind, value)
        except BaseException:
            if not killed:
                process.kill()
            raise
        finally:
            await process.wait()
        if self.end is None and not killed:
            raise CommandError(
                f"process {process.pid} ended with {process.returncode} in the middle of the run",
                FAILED,
            )

    def _take(self, kind: str, value: Any) -> None:
        teller = self._teller
        if kind == "failed":
            raise CommandError(value, FAILED)
        if kind == "end":
            self.end = value
        elif kind == "branch":
            self.began.append(value)
        if teller is None:
            return
        if kind == "files" and not self._files:
            self._files = value
            teller.begin(value)
        elif kind == "done":
            self._done += value
            teller.advance(self._done, self._files)
        elif kind in ("now", "branch"):
            teller.now(value)
        elif kind == "retried":
            teller.complain(value)


async def _messages(process: Process) -> AsyncIterator[tuple[str, Any]]:
    assert process.stdout is not None  # noqa: S101 -- `_start` asks for it
    async for line in process.stdout:
        if line.endswith(b"\n"):  # a last one may be cut off
            kind, value = json.loads(line)
            yield kind, value


def work() -> None:
    """The first process, and the second: carry the run out, and tell what happens."""
    how, path, root, workers = sys.argv[1:]
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end = asyncio.run(_work(how, path, root, int(workers)))
    except Exception as error:  # noqa: BLE001 -- the command tells it
        _tell("failed", "\n".join(show.error_lines(error)))
    else:
        _tell("end", end.name)


async def _work(how: str, path: str, root: str, workers: int) -> Step:
    survey = Survey(root=root)
    watch = _Relay(survey, mortal=how == "run")
    async with SqliteCheckpoints(path) as store:
        flow = workflow(workers, observers=[watch], checkpoints=store)
        if how == "run":
            return await flow.run(data=survey, run_id=RUN)
        watch.survey = await flow.handle(RUN).data()
        return await flow.resume(RUN)


class _Relay:
    """An observer in one process that tells another one."""

    events: ClassVar[tuple[type[Event], ...]] = (
        BranchFailed,
        BranchFinished,
        BranchStarted,
        StateEntered,
        TaskRetried,
    )

    def __init__(self, survey: Survey, *, mortal: bool) -> None:
        self.survey = survey
        self._mortal = mortal
        self._finished = 0

    def __call__(self, event: Event, /) -> None:
        """Tell of *event*; and when there is something to lose, wait for death."""
        chunks = self.survey.chunks
        match event:
            case StateEntered(state=Step.FIND.name):
                _tell("now", f"looking for source in {self.survey.root}")
            case StateEntered(state=Step.READ.name):
                _tell("files", sum(map(len, chunks)))
            case BranchStarted():
                _tell("branch", event.branch)
            case BranchFinished() | BranchFailed():
                _tell("done", len(chunks[event.index]))
                self._finished += isinstance(event, BranchFinished)
                if self._mortal and self._finished >= max(len(chunks) // SHARE, 1):
                    _tell("kill", os.getpid())
                    sys.stdin.buffer.read()
                    os._exit(FAILED)  # nobody is left to kill it
            case TaskRetried():
                _tell("retried", f"{event.branch}: {event.error}; trying again")
            case _:
                pass


def _tell(kind: str, value: object) -> None:
    try:
        print(json.dumps([kind, value]), flush=True)
    except OSError:  # the command is gone
        os._exit(FAILED)
