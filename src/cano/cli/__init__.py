"""The `cano` command.

`main` is its entry point. Nothing here is imported by the engine, and click and rich only when
a command needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line (by default the process's own) and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        from cano import __version__  # noqa: PLC0415

        print(f"cano {__version__}")
        return 0
    try:
        import click  # noqa: F401, PLC0415 -- only to see whether it is there
    except ModuleNotFoundError:
        from cano.cli.outcome import USAGE, missing  # noqa: PLC0415

        print(missing("click"), file=sys.stderr)
        return USAGE
    from cano.cli.app import call  # noqa: PLC0415

    return call(arguments)
