"""`cano db`: the store itself."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cano.checkpoints.store import CheckpointStore
from cano.cli import show, store
from cano.cli.outcome import FAILED, OK
from cano.cli.runs_words import plain
from cano.errors import CheckpointError


@click.group("db")
def command() -> None:
    """Look after a store of runs."""


@command.command("check")
@store.option
@store.as_json
def check(url: str | None, as_json: bool) -> int:
    """Look at everything in a store, thoroughly. The exit code is 1 if anything is wrong.

    It reads the whole store, which takes a while for a large one; runs go on meanwhile.
    """

    async def checked(kept: CheckpointStore, now: float) -> Sequence[str]:
        try:
            return await kept.check()
        except CheckpointError as error:  # so damaged that it cannot even be looked at
            return [str(error)]

    findings = store.using(url, checked)
    if as_json:
        show.print_json({"store": url, "ok": not findings, "findings": findings})
        return FAILED if findings else OK
    if not findings:
        click.echo(f"{click.style('OK', fg='green', bold=True)} {url}")
        return OK
    for finding in findings:
        click.echo(f"{click.style('✗', fg='red')} {plain(finding)}")
    click.echo(f"{show.counted(len(findings), 'finding')} in {url}")
    return FAILED
