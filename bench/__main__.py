"""Measure how near we are to the limit: `python -m bench [subject ...]`; see README.md here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]  # this checkout, whatever is installed

SUBJECTS = (
    "transitions",
    "per_request",
    "split",
    "memory",
    "imports",
    "cancel",
    "cycle",
    "durable",
    "policies",
    "batch",
    "stream",
    "observers",
    "scheduler",
)


def main() -> int:
    """Measure, print, and with `--check` say by the exit code whether all that must be is."""
    asked = _arguments()
    from bench.harness import Result, measure, table  # noqa: PLC0415 -- after the path is set

    everything: dict[str, list[Result]] = {}
    for subject in asked.subjects or SUBJECTS:
        module: Any = import_module(f"bench.{subject}")
        results = everything[subject] = measure(module.lines(), asked.rounds)
        if not asked.json:
            notes: list[str] = module.notes() if hasattr(module, "notes") else []
            print(table(subject, results), *(f"  {note}" for note in notes), "", sep="\n")
    if asked.json:
        print(json.dumps(_plain(everything), indent=2, ensure_ascii=False))
    missed = [
        f"{subject}: {result.name}"
        for subject, results in everything.items()
        for result in results
        if result.met is False
    ]
    if asked.check and missed:
        print("missed:", *missed, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (15)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is missed")
    asked = parser.parse_args()
    if unknown := set(asked.subjects) - set(SUBJECTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    return asked


def _plain(everything: Mapping[str, Sequence[Any]]) -> object:
    return {
        "python": sys.version.split()[0],
        "subjects": {
            subject: [{**asdict(result), "met": result.met} for result in results]
            for subject, results in everything.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
