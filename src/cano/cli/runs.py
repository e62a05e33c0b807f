"""`cano runs`: what is in a store, and what can be done about it."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

import click

GIVEN = "cano.cli.runs"
"""Where click's context keeps what was written behind `cano runs`."""
COMMANDS = {
    "list": "runs_list:command",
    "show": "runs_show:command",
    "cancel": "runs_tell:cancel",
    "signal": "runs_tell:signal",
    "resolve": "runs_tell:resolve",
    "resume": "runs_carry:resume",
    "retry": "runs_carry:retry",
    "fork": "runs_carry:fork",
    "prune": "runs_prune:command",
}


class _Runs(click.Group):
    """Imports a command's file when it is asked for; without a command it lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[GIVEN] = tuple(args)
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            close = get_close_matches(cmd_name, COMMANDS, 1)
            there = f"there are {', '.join(COMMANDS)}; to look at a run: cano runs show RUN"
            hint = f"did you mean {close[0]}?" if close else there
            raise click.UsageError(f"there is no command {cmd_name!r}; {hint}", ctx)
        file, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"cano.cli.{file}"), name)
        return command


@click.command("runs", cls=_Runs, options_metavar="", subcommand_metavar="[COMMAND] [OPTIONS]")
def command() -> None:
    """List the runs in a store, look at one, and tell it what to do.

    Without a command, `cano runs` lists: `cano runs --status failed --since 2h`. RUN is the name
    of a run, or how it begins where only one of the newest does.
    """
