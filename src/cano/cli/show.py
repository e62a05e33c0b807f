"""What commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from cano import Graph
from cano.errors import DefinitionError

SHOWN = 10
"""How many exceptions of a group are listed."""


def say(text: str) -> None:
    """Tell the user something that is not the result."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """Print *value* on one line, for programs."""
    click.echo(msgspec.json.encode(value))


def most(numbers: Mapping[str, int], top: int) -> list[tuple[str, int]]:
    """The *top* largest of *numbers*; the alphabet decides between equals."""
    return sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:top]


def counted(number: int, what: str, plural: str = "") -> str:
    """`1 state`, `2 states`."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def graph_dict(graph: Graph[Any]) -> Mapping[str, object]:
    """A graph for programs: states by name, in the order of their definition."""
    return {
        "workflow": graph.name,
        "start": graph.start.name if graph.start else None,
        "states": [state.name for state in graph.states],
        "exits": [state.name for state in graph.exits],
        "tasks": dict(graph.labels),
        "edges": [
            {"source": edge.source.name, "target": edge.target.name, "kind": edge.kind}
            for edge in graph.edges
        ],
        "anywhere": [state.name for state in graph.anywhere],
    }


def error_dict(error: BaseException) -> dict[str, object]:
    """An exception for programs, with those inside it if it is a group."""
    told: dict[str, object] = {
        "type": type(error).__name__,
        "message": str(error),
        "notes": list(getattr(error, "__notes__", ())),
    }
    if isinstance(error, DefinitionError):
        told["problems"] = error.problems
    if inside := _inside(error):
        told["errors"] = [error_dict(inner) for inner in inside]
    return told


def error_lines(error: BaseException, indent: str = "") -> Iterator[str]:
    """An exception for people: what, its notes, and those inside it if it is a group."""
    yield f"{indent}{type(error).__name__}: {error}".rstrip(": ")
    for note in getattr(error, "__notes__", ()):
        yield f"{indent}  {note}"
    inside = _inside(error)
    for inner in inside[:SHOWN]:
        yield from error_lines(inner, indent + "  ")
    if len(inside) > SHOWN:
        yield f"{indent}  and {len(inside) - SHOWN:,} more"


def _inside(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group; none for any other."""
    group: Any = error
    return group.exceptions if isinstance(error, BaseExceptionGroup) else ()
