"""`cano runs prune`: forgetting runs that ended long ago."""

from __future__ import annotations

import sys

import click

from cano.checkpoints.store import CheckpointStore
from cano.cli import show, store
from cano.cli.outcome import OK
from cano.cli.runs_words import span

BATCH = 500
"""How many runs are deleted at a time: others write to the store in between."""
AT_ONCE = 100_000
"""How many names are held in memory."""


@click.command("prune")
@click.option(
    "--older-than", callback=span, metavar="AGE", help="Forget runs that ended so long ago: 30d."
)
@click.option(
    "--keep", type=click.IntRange(0), metavar="N", help="Forget all but the latest N that ended."
)
@click.option("--workflow", "-w", metavar="W", help="Only runs of this workflow.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@store.option
@store.as_json
def command(  # noqa: PLR0917 -- click passes them by name
    older_than: float | None,
    keep: int | None,
    workflow: str | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Forget runs that have ended, with their events and data. Runs under way stay.

    With both --older-than and --keep, a run goes when either says so.
    """
    if older_than is None and keep is None:
        raise click.UsageError("which runs? Say --older-than 30d, --keep 1000, or both")
    latest = sys.maxsize if keep is None else keep

    async def pruned(kept: CheckpointStore, now: float) -> int:
        before = 0.0 if older_than is None else now - older_than
        if dry_run:
            return len(await kept.ended(workflow, before, latest, sys.maxsize))
        gone = 0
        while ids := await kept.ended(workflow, before, latest, AT_ONCE):
            deleted = await _delete(kept, ids)
            gone += deleted
            if not deleted:  # somebody else was faster, or reopened them
                break
        return gone

    number = store.using(url, pruned)
    if as_json:
        show.print_json({"runs": number, "deleted": not dry_run})
    else:
        runs = show.counted(number, "run")
        click.echo(f"{runs} would be forgotten" if dry_run else f"forgot {runs}")
    return OK


async def _delete(kept: CheckpointStore, ids: list[str]) -> int:
    gone, out = 0, sys.stderr
    with click.progressbar(
        length=len(ids), label="forgetting", file=out, show_pos=True, hidden=not out.isatty()
    ) as bar:
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            gone += await kept.delete(batch)
            bar.update(len(batch))
    return gone
