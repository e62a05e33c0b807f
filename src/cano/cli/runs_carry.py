"""`cano runs resume`, `retry` and `fork`: carrying a stored run on, in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import click
import msgspec

from cano import RunHandle
from cano._clock import wall_offset
from cano._data import data_type
from cano._history import History, replay
from cano.checkpoints.store import CheckpointStore, RunSummary
from cano.cli import show, store, target
from cano.cli.outcome import FAILED, INVALID, OK, USAGE, CommandError
from cano.cli.path import PathTeller
from cano.cli.runs_show import object_json
from cano.cli.runs_tell import json_of
from cano.cli.runs_words import painted, plain
from cano.cli.target import AnyWorkflow
from cano.errors import CheckpointError, DataError, RunNotFoundError, RunOwnedError
from cano.events import RunStarted

LOOK = 1.0
"""How many seconds at most pass between two looks at a run that somebody else has."""

target_option: Callable[[Any], Any] = click.option(
    "--target",
    "name",
    metavar="MODULE:ATTR",
    required=True,
    help="The workflow of the run. --store may be left out if it has one.",
)


class End(NamedTuple):
    """What became of a run that was carried on."""

    run: RunSummary
    history: History
    error: Exception | None
    seconds: float


Carry: TypeAlias = Callable[
    [AnyWorkflow, CheckpointStore, RunSummary], Awaitable[tuple[str, Coroutine[Any, Any, object]]]
]
"""The name of the run to carry on, and what does it."""


@click.command("resume", short_help="Carry on a run that stopped.")
@store.run_argument
@target_option
@store.option
@click.option("--wait", is_flag=True, help="If somebody carries the run out, wait for that to end.")
@store.as_json
def resume(run: str, name: str, url: str | None, wait: bool, as_json: bool) -> int:
    """Carry on a run where it stopped, here, to its end.

    That goes for runs that are stuck, too. A run that waits for a signal is waited for; Ctrl-C
    lets go of it again.
    """

    async def carry(
        workflow: AnyWorkflow, _kept: CheckpointStore, found: RunSummary
    ) -> tuple[str, Coroutine[Any, Any, object]]:
        return found.run_id, _resume(workflow, found.run_id, wait=wait)

    return _carried(run, name, url, carry, as_json)


@click.command("retry", short_help="Reopen a run that failed or was cancelled.")
@store.run_argument
@target_option
@store.option
@store.as_json
def retry(run: str, name: str, url: str | None, as_json: bool) -> int:
    """Reopen a run that failed or was cancelled, in the state it ended in, and carry it on here.

    A run whose work was undone cannot go on: fork it.
    """

    async def carry(
        workflow: AnyWorkflow, _kept: CheckpointStore, found: RunSummary
    ) -> tuple[str, Coroutine[Any, Any, object]]:
        return found.run_id, workflow.retry(found.run_id)

    return _carried(run, name, url, carry, as_json)


@click.command("fork", short_help="Start a new run from the middle of an old one.")
@store.run_argument
@click.option(
    "--at",
    type=click.IntRange(1),
    required=True,
    metavar="SEQUENCE",
    help="The event after which the new run begins: cano runs show RUN --events numbers them.",
)
@target_option
@click.option("--run-id", metavar="NEW", help="The name of the new run; made up without it.")
@click.option(
    "--set", "changes", metavar="FIELD=JSON", multiple=True, help="Change a field of the run data."
)
@store.option
@store.as_json
def fork(  # noqa: PLR0917 -- click passes them by name
    run: str,
    at: int,
    name: str,
    run_id: str | None,
    changes: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> int:
    """Start a new run from where an old one was after an event, and carry it out here.

    The old run stays as it is, and what it has done belongs to it: the new one never undoes it.
    """

    async def carry(
        workflow: AnyWorkflow, kept: CheckpointStore, found: RunSummary
    ) -> tuple[str, Coroutine[Any, Any, object]]:
        if run_id is not None:
            await _refuse_known(kept, run_id)
        data = await _changed(workflow, kept, found.run_id, at, changes) if changes else None
        handle = await workflow.fork(found.run_id, at=at, new_id=run_id, data=data)
        return handle.run_id, _end_of(workflow, handle)

    return _carried(run, name, url, carry, as_json)


def _carried(run: str, name: str, url: str | None, carry: Carry, as_json: bool) -> int:
    """Carry out *carry* for the run and the workflow named, and tell what came of it."""
    workflow = target.load(name)
    kept = _store_of(workflow, name, url)
    workflow = workflow.copy()  # which may still be changed
    workflow.checkpoints = kept
    teller = PathTeller()
    if sys.stderr.isatty():
        workflow._observers = (*workflow._observers, teller)

    async def carried(kept: CheckpointStore, now: float) -> End:
        found = await store.find(kept, run)
        teller(RunStarted(time=now))  # from now on it counts
        loop = asyncio.get_running_loop()
        began, error = loop.time(), None
        run_id, work = await carry(workflow, kept, found)
        try:
            await work
        except (CheckpointError, CommandError):
            raise
        except Exception as raised:  # noqa: BLE001 -- the task's own: told below
            error = raised
        seconds = loop.time() - began
        history = replay(await kept.load(run_id))
        return End(await kept.summary(run_id), history, error, seconds)

    end = store.working(kept, carried, "the run was let go, and can be resumed")
    if end.error is not None and not end.run.over:
        why = "\n".join(show.error_lines(end.error))
        raise CommandError(f"run {end.run.run_id} could not be carried on: {why}", FAILED)
    return _tell_json(end) if as_json else _tell(end)


async def _resume(workflow: AnyWorkflow, run_id: str, *, wait: bool) -> None:
    while True:
        try:
            await workflow.resume(run_id, even_if_stuck=True)
        except RunOwnedError as error:
            if not wait:
                raise CommandError(f"{error}; --wait waits for its end", FAILED) from None
            loop = asyncio.get_running_loop()
            left = error.until - loop.time() - wall_offset(loop)
            await asyncio.sleep(min(max(left, 0.05), LOOK))
        else:
            return


async def _end_of(workflow: AnyWorkflow, handle: RunHandle[Any, Any]) -> None:
    try:
        await handle.result()
    except asyncio.CancelledError:
        await workflow._end_runs()  # lets go of it while the store is still open
        raise


async def _refuse_known(kept: CheckpointStore, run_id: str) -> None:
    try:
        await kept.summary(run_id)
    except RunNotFoundError:
        return
    raise CommandError(f"there is a run {run_id!r} already; give another --run-id", USAGE)


async def _changed(
    workflow: AnyWorkflow, kept: CheckpointStore, run_id: str, at: int, changes: Sequence[str]
) -> Any:
    """The data that the run had at event *at*, with *changes* made. Raises `CommandError`."""
    if workflow.data is None:
        raise CommandError(f"{workflow.name} has no run data, so --set changes nothing", INVALID)
    kind = data_type(workflow.data)
    saved = replay(await kept.load(run_id, 0, at)).data
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals:
            raise CommandError(f"--set {change}: write FIELD=JSON, such as --set total=12", USAGE)
        if field not in kind.fields:
            close = get_close_matches(field, kind.fields, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(kind.fields)}"
            raise CommandError(f"--set: {kind.kind.__name__} has no {field!r}; {hint}", INVALID)
        saved[field] = json_of(value, f"--set {field}")
    try:
        return kind.rebuild(saved)
    except DataError as error:
        raise CommandError(f"--set: {error}", INVALID) from None


def _store_of(workflow: AnyWorkflow, name: str, url: str | None) -> CheckpointStore:
    """The workflow's own store, else the one at *url*. Raises `CommandError` if they differ."""
    own = workflow.checkpoints
    if own is None:
        if not url:
            raise CommandError(f"{name} has no store; pass --store PATH, or set CANO_STORE", USAGE)
        return store.open_store(url)
    if url and _file(store.open_store(url)) != _file(own):
        raise CommandError(
            f"{name} keeps its runs in {own!r}, not in {url}; leave --store out, and unset "
            "CANO_STORE",
            USAGE,
        )
    return own


def _file(kept: CheckpointStore) -> Path | None:
    path: Path | None = getattr(kept, "path", None)
    return path and path.resolve()


def _tell(end: End) -> int:
    run = end.run
    if end.error is None:
        click.echo(click.style(plain(run.state), fg="green", bold=True))
        if end.history.data:
            click.echo(msgspec.json.format(object_json(end.history.data), indent=2))
        return OK
    word = painted(run.status.value)
    show.say(f"{plain(run.run_id)} {word} after {end.seconds:.3g} s in {plain(run.state)}:")
    for line in show.error_lines(end.error, "  "):
        show.say(line)
    return FAILED


def _tell_json(end: End) -> int:
    told: dict[str, object] = {
        "run_id": end.run.run_id,
        "workflow": end.run.workflow,
        "status": end.run.status.value,
        "state": end.run.state,
        "seconds": round(end.seconds, 6),
        "data": msgspec.Raw(object_json(end.history.data)),
    }
    if end.error is not None:
        told["error"] = show.error_dict(end.error)
    show.print_json(told)
    return OK if end.error is None else FAILED
