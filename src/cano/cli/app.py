"""The command line as a whole: which commands there are, and how each of their ends is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from cano import __version__
from cano.cli.outcome import INTERRUPTED, INVALID, OK, USAGE, CommandError
from cano.errors import DefinitionError, MissingExtraError

COMMANDS = ("check", "db", "demo", "graph", "run", "runs", "upgrade-check")


class _Commands(click.Group):
    """Imports a command's file when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            close = get_close_matches(cmd_name, COMMANDS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {cmd_name!r}; {hint}", ctx)
        file = cmd_name.replace("-", "_")
        command: click.Command = import_module(f"cano.cli.{file}").command
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="MODULE:ATTR names a Workflow, or a function without parameters that returns one: "
    "orders:flow, shop.orders:make_flow, examples/quickstart.py:flow.",
)
@click.version_option(__version__, message="cano %(version)s")
@click.pass_context
def app(ctx: click.Context) -> None:
    """A typed, durable, async workflow engine."""
    ctx.color = _color()


def call(arguments: Sequence[str]) -> int:
    """Carry out *arguments*, tell how it ended, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):  # what an old terminal cannot show is no failure
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
    try:
        return app.main(list(arguments), "cano", standalone_mode=False) or OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _fail("interrupted", INTERRUPTED)
    except CommandError as error:
        return _fail(str(error), error.code)
    except DefinitionError as error:
        return _fail(str(error), INVALID)
    except MissingExtraError as error:
        return _fail(str(error), USAGE)


def _fail(message: str, code: int) -> int:
    click.echo(click.style("cano: ", fg="red") + message, err=True, color=_color())
    return code


def _color() -> bool | None:
    """Whether to colour: as the user says, else (None) where the output is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None
