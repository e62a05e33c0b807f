"""`cano runs list`: which runs there are, newest first."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from math import inf

import click
from msgspec.structs import replace

from cano.checkpoints.store import CheckpointStore, RunQuery, RunSummary, Status
from cano.cli import show, store
from cano.cli.outcome import OK
from cano.cli.runs import GIVEN
from cano.cli.runs_table import table
from cano.cli.runs_words import MAX_CRASHES, Moment, condition, moment

OPEN = "open"
_STATUSES: dict[str, tuple[Status, ...]] = {
    status.value.replace(" ", "-"): (status,) for status in Status
}
_STATUSES[OPEN] = tuple(status for status in Status if not status.over)
_HELD = "owner", "lease"
"""What only says something of open runs."""


@click.command("list")
@store.option
@click.option("--workflow", "-w", metavar="W", help="Only runs of this workflow.")
@click.option(
    "--status",
    "-s",
    "statuses",
    type=click.Choice(list(_STATUSES)),
    multiple=True,
    help="Only runs of this status, or these; open is all that have not ended.",
)
@click.option("--tag", metavar="T", help="Only runs with this tag.")
@click.option(
    "--since",
    callback=moment,
    metavar="WHEN",
    help="Only runs created then or later: 2h (ago), 2030-05-01T14:00.",
)
@click.option("--before", callback=moment, metavar="WHEN", help="Only runs created earlier.")
@click.option("--stuck", is_flag=True, help="Only runs that killed their process again and again.")
@click.option("--limit", "-n", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--after", metavar="RUN", help="Go on behind this run: the next page.")
@store.as_json
@click.argument("rest", nargs=-1, metavar="")
def command(  # noqa: PLR0917 -- click passes them by name
    url: str | None,
    workflow: str | None,
    statuses: tuple[str, ...],
    tag: str | None,
    since: Moment | None,
    before: Moment | None,
    stuck: bool,
    limit: int,
    after: str | None,
    as_json: bool,
    rest: tuple[str, ...],
) -> int:
    """List the runs in a store, newest first.

    Besides its status a run can be abandoned (its owner is gone), let go (in a shutdown; anyone
    may go on with it) or stuck (it killed its process again and again).
    """
    if rest:
        options = "its options go behind it: cano runs show RUN --store PATH"
        raise click.UsageError(f"what is {rest[0]!r}? If it is a command, {options}")
    query = RunQuery(
        workflow=workflow,
        statuses=tuple(status for word in statuses for status in _STATUSES[word]),
        tag=tag,
        stuck=MAX_CRASHES if stuck else None,
        limit=limit + 1,  # whether there is more
    )

    async def found(kept: CheckpointStore, now: float) -> tuple[Sequence[RunSummary], float]:
        behind = None if after is None else (await store.find(kept, after)).run_id
        start = since.at(now) if since else None
        end = before.at(now) if before else None
        runs = await kept.runs(replace(query, since=start, before=end, after=behind))
        return await store.told_truly(kept, runs, now), now

    runs, now = store.using(url, found)
    page, more = runs[:limit], len(runs) > limit
    if as_json:
        last = page[-1].run_id if more else None
        show.print_json({"runs": [summary_dict(run, now) for run in page], "next": last})
        return OK
    if not page:
        narrowed = any((workflow, statuses, tag, since, before, stuck, after))
        show.say("there are no such runs" if narrowed else "there are no runs yet")
        return OK
    for line in table(page, now, terminal_width()):
        click.echo(line)
    if more:
        show.say(click.style(f"more: {_next_page(page[-1].run_id)}", dim=True))
    return OK


def terminal_width() -> int | None:
    """How wide the terminal is; None where the output goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    from shutil import get_terminal_size  # noqa: PLC0415 -- a pipe does without

    return get_terminal_size().columns


def summary_dict(run: RunSummary, now: float) -> dict[str, object]:
    """A run for programs: its fields, and what `condition` makes of them."""
    told: dict[str, object] = {
        name: getattr(run, name)
        for name in run.__struct_fields__
        if not (run.over and name in _HELD)
    }
    told["status"] = run.status.value
    told["condition"] = condition(run, now)
    told["wake"] = run.wake if 0 < run.wake < inf else None
    return told


def _next_page(last: str) -> str:
    """The command line that was given, for the page behind the run *last*."""
    given: Iterator[str] = iter(click.get_current_context().meta[GIVEN])
    kept: list[str] = []
    for argument in given:
        if argument == "--after":
            next(given, None)
        elif not argument.startswith("--after="):
            kept.append(argument)
    return shlex.join(["cano", "runs", *kept, "--after", last])
