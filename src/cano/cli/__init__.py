"""The `cano` command.

`main` is its entry point; one file per command holds the rest. The engine imports nothing from
here, and here click and rich are imported only by what needs them.
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
        from cano.cli.app import call  # noqa: PLC0415 -- click may not be there
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        from cano.cli.outcome import USAGE, missing  # noqa: PLC0415

        print(missing("click"), file=sys.stderr)
        return USAGE
    return call(arguments)
