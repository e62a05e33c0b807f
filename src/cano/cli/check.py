"""`cano check`: is this workflow right?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cano import Graph
from cano.cli import show, target
from cano.cli.outcome import INVALID, OK
from cano.errors import DefinitionError


@click.command("check")
@target.argument
@target.start
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str, start: str | None, as_json: bool) -> int:
    """Find everything that is wrong with a workflow, without running it.

    Each problem is one line with its remedy; the exit code is 4 if there is any.
    """
    try:
        workflow = target.load(name)
        graph = workflow.check(target.state_of(workflow, start))
    except DefinitionError as error:
        _tell_problems(name, error.problems, as_json)
        return INVALID
    if as_json:
        show.print_json({"target": name, "ok": True, "problems": [], **show.graph_dict(graph)})
        return OK
    click.echo(f"{click.style('OK', fg='green', bold=True)} {name}")
    for line in _summary(graph, workflow.data, workflow.timeout):
        click.echo(f"   {line}")
    return OK


def _tell_problems(name: str, problems: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        show.print_json({"target": name, "ok": False, "problems": problems})
        return
    for problem in problems:
        click.echo(f"{click.style('✗', fg='red')} {problem}")
    click.echo(f"{show.counted(len(problems), 'problem')} in {name}")


def _summary(graph: Graph[Any], data: type | None, timeout: float | None) -> Iterator[str]:
    yield ", ".join(
        (
            f"{graph.name}: {show.counted(len(graph.states), 'state')}",
            show.counted(len(graph.labels), "task"),
            show.counted(len(graph.edges), "edge"),
            show.counted(len(graph.exits), "exit"),
        )
    )
    details = [f"starts in {graph.start.name}"] if graph.start else []
    details += [f"run data is {data.__name__}"] if data else []
    details += [f"a run has {timeout:g} s"] if timeout else []
    if details:
        yield ", ".join(details)
    if graph.start is None:
        yield "not checked: what can be reached; pass --start, or start= to the workflow"
    if graph.anywhere:
        vague = ", ".join(state.name for state in graph.anywhere)
        yield f"not checked: where {vague} may lead; annotate the task, such as -> Literal[...]"
