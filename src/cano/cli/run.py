"""`cano run`: one run of a workflow, from the command line."""

from __future__ import annotations

import asyncio
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from cano import RunHandle
from cano._data import data_type
from cano.cli import show, target
from cano.cli.drive import drive
from cano.cli.input import decode
from cano.cli.outcome import FAILED, INVALID, OK, TIMED_OUT, CommandError
from cano.cli.path import PathTeller
from cano.cli.target import AnyWorkflow
from cano.errors import DataError, DefinitionError, RunCancelledError, RunTimeoutError


@dataclass
class End:
    """How a run ended: in a state, or with an error."""

    handle: RunHandle[Any, Any]
    seconds: float
    data: Any
    state: Any
    error: Exception | None
    overdue: bool


@click.command("run")
@target.argument
@target.start
@click.option(
    "--data",
    metavar="JSON",
    help="The run data: JSON text, @FILE, or - for standard input. Fresh data without it.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Cancel the run after so long, and exit with 124.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also of a failure.")
@click.option("--traceback", "traced", is_flag=True, help="Show where in the code it failed.")
def command(  # noqa: PLR0917 -- click passes them by name
    name: str,
    start: str | None,
    data: str | None,
    timeout: float | None,
    as_json: bool,
    traced: bool,
) -> int:
    """Run a workflow, and print the exit it reached and its data.

    On a terminal, the states are shown as they are visited.
    """
    workflow = target.load(name)
    first = target.state_of(workflow, start) or workflow.start
    if first is None:
        states = ", ".join(workflow.states.__members__)
        raise click.UsageError(f"{name} does not say where to start; pass --start, one of {states}")
    given = None if data is None else decode(workflow, data)
    watched = sys.stderr.isatty()
    try:
        end = drive(_run(workflow, first, given, timeout, watched), "the run was cancelled")
    except (DefinitionError, DataError) as error:
        if as_json:
            show.print_json({"status": "invalid", "error": show.error_dict(error)})
        raise CommandError(str(error), INVALID) from error
    if end.error is not None and traced:
        traceback.print_exception(end.error)
    return _tell_json(workflow, end) if as_json else _tell(workflow, end)


async def _run(
    workflow: AnyWorkflow, first: Any, data: Any, timeout: float | None, watched: bool
) -> End:
    loop = asyncio.get_running_loop()
    began = loop.time()
    handle = await workflow.start_run(first, data=data)
    if watched:
        handle.watch(PathTeller())
    ending = asyncio.ensure_future(handle.result())
    overdue = False
    try:
        await asyncio.wait((ending,), timeout=timeout)
        if not ending.done():
            overdue = True
            await handle.cancel()
            await asyncio.wait((ending,))
    except asyncio.CancelledError:
        await handle.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        raise
    error: Any = ending.exception()
    state = ending.result() if error is None else None
    return End(handle, loop.time() - began, await handle.data(), state, error, overdue)


def _tell(workflow: AnyWorkflow, end: End) -> int:
    if end.error is None:
        data = _data_json(workflow, end)
        click.echo(click.style(end.state.name, fg="green", bold=True))
        if data != b"null":
            click.echo(msgspec.json.format(data, indent=2))
        return OK
    if _timed_out(end):
        show.say(f"{click.style('timed out', fg='red')} {_after(end)}: {_reason(end)}")
        return TIMED_OUT
    show.say(f"{click.style('failed', fg='red')} {_after(end)}:")
    for line in show.error_lines(end.error, "  "):
        show.say(line)
    return FAILED


def _tell_json(workflow: AnyWorkflow, end: End) -> int:
    code = OK if end.error is None else TIMED_OUT if _timed_out(end) else FAILED
    state = end.handle.state
    told = {
        "run_id": end.handle.run_id,
        "workflow": workflow.name,
        "status": {OK: "finished", TIMED_OUT: "timed out"}.get(code, "failed"),
        "state": state.name if state else None,
        "seconds": round(end.seconds, 6),
        "data": msgspec.Raw(_data_json(workflow, end)),
    }
    if end.error is not None:
        told["error"] = show.error_dict(end.error)
    show.print_json(told)
    return code


def _timed_out(end: End) -> bool:
    return isinstance(end.error, RunTimeoutError) or (
        end.overdue and isinstance(end.error, RunCancelledError)
    )


def _after(end: End) -> str:
    state = end.handle.state
    return f"after {end.seconds:.3g} s" + (f" in {state.name}" if state else "")


def _reason(end: End) -> str:
    return "the run was cancelled" if end.overdue else str(end.error)


def _data_json(workflow: AnyWorkflow, end: End) -> bytes:
    """The run's data as it ended, as JSON. Raises `CommandError` if it cannot be written."""
    if workflow.data is None:
        return b"null"
    kind: Any = workflow.data
    try:
        fields = data_type(kind).snapshot(end.data)
    except DataError as error:
        if end.error is None:
            why = f"the run ended in {end.state.name}, but: {error}"
            raise CommandError(why, INVALID) from None
        return b"null"
    return msgspec.json.encode({name: msgspec.Raw(raw) for name, raw in fields.items()})
