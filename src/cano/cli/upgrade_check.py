"""`cano upgrade-check`: can the runs in a store go on with this version of their workflow?"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import click

from cano._history import replay
from cano._shape import Shape, read
from cano._upgrade import Fitness, Present, Verdict
from cano.checkpoints.store import CheckpointStore, RunQuery, Status
from cano.cli import show, store, target
from cano.cli.outcome import FAILED, OK
from cano.cli.runs_words import plain
from cano.cli.target import AnyWorkflow
from cano.errors import CorruptHistoryError

PAGE = 200
"""How many runs are asked for at once."""
_OPEN = tuple(status for status in Status if not status.over)
_COLOURS = {Fitness.SAFE: "green", Fitness.NEEDS_MIGRATION: "yellow", Fitness.BLOCKED: "red"}


class Judged(NamedTuple):
    """A live run, and what became of judging it."""

    run_id: str
    state: str
    version: int
    verdict: Verdict


@click.command("upgrade-check")
@target.argument
@store.option
@store.as_json
def command(name: str, url: str | None, as_json: bool) -> int:
    """Say of every live run in a store whether this version of its workflow can go on with it.

    Run it where the new code is, before the old is stopped: nothing is changed or claimed, and
    migrations are tried on copies. The exit code is 1 if any run needs a migration or is blocked.
    """
    workflow = target.load(name)

    async def judged(kept: CheckpointStore, now: float) -> list[Judged]:
        present = _present(workflow, kept)
        return [run async for run in _judged(kept, workflow.name, present)]

    runs = store.using(url, judged)
    fit = all(run.verdict.fitness is Fitness.SAFE for run in runs)
    if as_json:
        show.print_json({"target": name, "store": url, **_dict(workflow, runs)})
    else:
        for line in _lines(workflow, runs):
            click.echo(line)
    return OK if fit else FAILED


def _present(workflow: AnyWorkflow, kept: CheckpointStore) -> Present:
    """What stored runs are held against. Raises `DefinitionError`."""
    durable = workflow.copy()  # whatever store it has of its own is left alone
    durable.checkpoints = kept
    present = durable._compile(durable.start).present
    assert present is not None  # noqa: S101 -- a plan with a store has one
    return present


async def _judged(kept: CheckpointStore, workflow: str, present: Present) -> AsyncIterator[Judged]:
    """The live runs of *workflow*, newest first."""
    shapes: dict[str, Shape | None] = {}
    after: str | None = None
    while page := await kept.runs(
        RunQuery(workflow=workflow, statuses=_OPEN, after=after, limit=PAGE)
    ):
        for run in page:
            try:
                history = replay(await kept.load(run.run_id))
            except CorruptHistoryError as error:
                broken = Verdict(Fitness.BLOCKED, (str(error),))
                yield Judged(run.run_id, run.state, run.version, broken)
                continue
            if history.over or not history.sequence:  # it has ended, or gone, meanwhile
                continue
            mark = history.fingerprint
            if mark not in shapes:
                shapes[mark] = read(await kept.definition(mark))
            verdict = present.verdict(history, shapes[mark])
            yield Judged(run.run_id, history.state, history.version, verdict)
        after = page[-1].run_id


def _lines(workflow: AnyWorkflow, runs: Sequence[Judged]) -> Iterator[str]:
    width = max((len(run.verdict.fitness) for run in runs), default=0)
    for run in runs:
        word = run.verdict.fitness
        migrated = f", migrated from version {run.version}" if run.verdict.migration else ""
        yield (
            click.style(word.ljust(width), fg=_COLOURS[word], bold=word is not Fitness.SAFE)
            + f"  {plain(run.run_id)}  in {plain(run.state)}{migrated}"
        )
        for reason in run.verdict.reasons:
            yield f"{' ' * width}    {plain(reason)}"
    for changes, number in Counter(run.verdict.changes for run in runs).items():
        if changes:
            yield f"changed since {show.counted(number, 'of these runs', 'of these runs')} began:"
            yield from (f"    {plain(change)}" for change in changes)
    counts = ", ".join(f"{number:,} {word}" for word, number in _counts(runs).items() if number)
    live = show.counted(len(runs), "live run")
    yield f"{live} of {workflow.name}, version {workflow.version}" + (counts and f": {counts}")


def _dict(workflow: AnyWorkflow, runs: Sequence[Judged]) -> dict[str, Any]:
    counts = _counts(runs)
    return {
        "workflow": workflow.name,
        "version": workflow.version,
        "ok": counts[Fitness.SAFE] == len(runs),
        "counts": counts,
        "runs": [
            {
                "run_id": run.run_id,
                "state": run.state,
                "version": run.version,
                "fitness": run.verdict.fitness,
                "migrated": run.verdict.migration is not None,
                "reasons": run.verdict.reasons,
                "changes": run.verdict.changes,
            }
            for run in runs
        ],
    }


def _counts(runs: Sequence[Judged]) -> dict[Fitness, int]:
    found = Counter(run.verdict.fitness for run in runs)
    return {fitness: found[fitness] for fitness in Fitness}
