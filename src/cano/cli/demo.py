"""`cano demo`: the workflow of `cano.demo`, with a progress display and a table."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from cano.cli import show
from cano.cli.drive import drive
from cano.cli.outcome import FAILED, NOT_FOUND, OK, CommandError, missing

if TYPE_CHECKING:  # `cano --help` does without
    from cano import Workflow
    from cano.cli.demo_crash import Crash
    from cano.cli.demo_progress import Watch
    from cano.demo import Step, Survey


@click.command("demo")
@click.option("--path", metavar="DIR", help="Read the Python source below DIR instead.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="How many processes read; one per core by default.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    metavar="N",
    default=5,
    show_default=True,
    help="How many of the longest, largest, ... are shown.",
)
@click.option("--graph", "drawn", is_flag=True, help="Show the workflow first.")
@click.option("--crash", "crashing", is_flag=True, help="Kill it half way, and resume.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(  # noqa: PLR0917 -- click passes them by name
    path: str | None, workers: int | None, top: int, drawn: bool, crashing: bool, as_json: bool
) -> int:
    """Tell what is in Python's standard library, having read all of it.

    A real workflow at work: it looks for source files, fans the parsing out over processes,
    joins, and adds up. cano/demo.py is all of it, and the first example to read.

    With --crash the process that does it is killed in the middle of the reading, and another one
    resumes its run, without reading again what was read.
    """
    if not as_json and find_spec("rich") is None:
        raise missing("rich")
    from cano.demo import Survey, workflow  # noqa: PLC0415 -- `cano --help` does without

    survey = Survey() if path is None else Survey(root=path)
    if not Path(survey.root).is_dir():
        raise CommandError(f"there is no directory {survey.root}", NOT_FOUND)
    workers = workers or os.cpu_count() or 2
    if drawn:
        click.echo(f"{workflow(workers).check()}\n", err=as_json)
    began = perf_counter()
    crash = None
    with _watch(survey, as_json) as watch:
        if crashing:
            crash = _crash(survey, workers, watch)
        else:
            _read(workflow(workers, observers=[watch] if watch else []), survey)
    seconds = perf_counter() - began
    if as_json:
        show.print_json(_report(survey, top, seconds) | _crash_report(crash))
    else:
        chunks = show.counted(len(survey.chunks), "chunk")
        processes = show.counted(workers, "process", "processes")
        cost = f"{chunks} on {processes} in {seconds:.1f} s; how: cano graph cano.demo:workflow"
        if crash is not None:
            cost = f"{chunks} on {processes} in {seconds:.1f} s; {crash.told}"
        _print_view(survey, path, top, cost)
    return OK


@contextmanager
def _watch(survey: Survey, quiet: bool) -> Generator[Watch | None]:
    if quiet:
        yield None
    else:
        from cano.cli.demo_progress import Watch  # noqa: PLC0415 -- it draws with rich

        with Watch(survey) as watch:
            yield watch


def _read(flow: Workflow[Step, Survey], survey: Survey) -> None:
    """Run *flow* on *survey*. Raises `CommandError` if that comes to nothing."""
    from cano.demo import Step  # noqa: PLC0415 -- `cano --help` does without

    try:
        state = drive(flow.run(data=survey), "the workers are gone")
    except CommandError:
        raise
    except Exception as error:
        raise CommandError("\n".join(show.error_lines(error)), FAILED) from error
    if state is Step.EMPTY:
        raise _nothing_below(survey)


def _crash(survey: Survey, workers: int, watch: Watch | None) -> Crash:
    """The same with a crash on the way."""
    from cano.cli.demo_crash import crash_and_resume  # noqa: PLC0415 -- it loads the store

    teller = None if watch is None else watch._teller
    crash = drive(crash_and_resume(survey, workers, teller), "the workers are gone")
    if not survey.chunks:
        raise _nothing_below(survey)
    return crash


def _nothing_below(survey: Survey) -> CommandError:
    unread = f" ({len(survey.counts.unread)} unreadable)" if survey.counts.unread else ""
    return CommandError(f"there is no Python source below {survey.root}{unread}", NOT_FOUND)


def _print_view(survey: Survey, path: str | None, top: int, cost: str) -> None:
    from rich.console import Console  # noqa: PLC0415 -- `--json` does without

    from cano.cli.demo_view import view  # noqa: PLC0415 -- likewise

    console = Console(highlight=False)
    if path is None:
        title = f"The standard library of Python {platform.python_version()}"
    else:
        title = str(Path(survey.root).resolve())
    console.print(view(title, survey, top, console.width, cost))


def _report(survey: Survey, top: int, seconds: float) -> dict[str, object]:
    """Everything that the table shows, for programs; and every file that could not be read."""
    from cano.demo import PLACES, RANKINGS  # noqa: PLC0415 -- `cano --help` does without

    counts = survey.counts
    rankings = {
        name: [{"name": key, "number": number} for key, number in show.most(ranking, top)]
        for name, ranking in ((name, getattr(counts, name)) for name in RANKINGS)
    }
    places = {
        name: [place._asdict() for place in getattr(counts, name)[:top] if place.size]
        for name in PLACES
    }
    return {
        "root": survey.root,
        "python": platform.python_version(),
        "bytes": survey.bytes,
        "chunks": len(survey.chunks),
        **vars(counts),
        **rankings,
        **places,
        "code": counts.code,
        "unread": [{"file": name, "reason": why} for name, why in counts.unread],
        "seconds": round(seconds, 3),
        "work_seconds": round(counts.seconds, 3),
    }


def _crash_report(crash: Crash | None) -> dict[str, object]:
    if crash is None:
        return {}
    told = {
        "killed": crash.killed,
        "resumed": crash.resumed,
        "finished_before": len(crash.saved),
        "read_after": len(crash.read_after),
        "read_twice": crash.read_twice,
    }
    return {"crash": told}
