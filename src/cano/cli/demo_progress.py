"""How far `cano demo` has come, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.theme import Theme

from cano.cli.show import counted
from cano.demo import Step, Survey
from cano.events import (
    BranchFailed,
    BranchFinished,
    BranchStarted,
    Event,
    StateEntered,
    TaskRetried,
)

PLAIN = Theme({"progress.elapsed": "default", "bar.back": "bright_black", "bar.pulse": "cyan"})
"""Rich's own colours are for dark terminals."""
SHARE = 0.25
"""How often a plain line is due."""


class Teller(Protocol):
    """How what happens is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def begin(self, files: int) -> None: ...
    def advance(self, done: int, files: int) -> None: ...
    def now(self, what: str) -> None: ...
    def complain(self, text: str) -> None: ...


class Watch(AbstractContextManager["Watch"]):
    """An observer that adds up what the branches have done and has it shown."""

    events: ClassVar[tuple[type[Event], ...]] = (
        BranchFailed,
        BranchFinished,
        BranchStarted,
        StateEntered,
        TaskRetried,
    )

    def __init__(self, survey: Survey) -> None:
        console = Console(stderr=True, highlight=False, theme=PLAIN)
        self._survey = survey
        self._teller: Teller = _Bar(console) if console.is_terminal else _Lines(console)
        self._done = self._files = 0

    def __enter__(self) -> Self:
        self._teller.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._teller.__exit__(*exc)

    def __call__(self, event: Event, /) -> None:
        """Show *event*."""
        match event:
            case StateEntered(state=Step.FIND.name):
                self._teller.now(f"looking for source in {self._survey.root}")
            case StateEntered(state=Step.READ.name):
                self._files = sum(len(files) for files in self._survey.chunks)
                self._teller.begin(self._files)
            case BranchStarted():
                self._teller.now(event.branch)
            case BranchFinished() | BranchFailed():
                self._done += len(self._survey.chunks[event.index])
                self._teller.advance(self._done, self._files)
            case TaskRetried():
                self._teller.complain(f"{event.branch}: {event.error}; trying again")
            case _:
                pass


class _Bar:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  [bold]{task.fields[state]}"),
            BarColumn(40, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, state="FIND", count="", now="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def begin(self, files: int) -> None:
        self._progress.update(self._task, total=files, state="READ", count=f"0/{files:,}")

    def advance(self, done: int, files: int) -> None:
        self._progress.update(self._task, completed=done, count=f"{done:,}/{files:,}")

    def now(self, what: str) -> None:
        self._progress.update(self._task, now=escape(what))

    def complain(self, text: str) -> None:
        self._progress.refresh()  # or it is drawn below as it was up to a tenth of a second ago
        self._progress.console.print(f"[yellow]{escape(text)}")


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = SHARE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def begin(self, files: int) -> None:
        self.complain(f"reading {counted(files, 'file')}")

    def advance(self, done: int, files: int) -> None:
        if done >= self._due * files:
            self.complain(f"{done:,} of {counted(files, 'file')} read")
            while done >= self._due * files:
                self._due += SHARE

    def now(self, what: str) -> None:
        """A line for each would be too many."""

    def complain(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
