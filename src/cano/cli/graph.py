"""`cano graph`: what does this workflow look like?"""

from __future__ import annotations

from typing import Literal

import click

from cano.cli import show, target
from cano.cli.outcome import OK


@click.command("graph")
@target.argument
@target.start
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot"]),
    default="text",
    show_default=True,
    help="Mermaid is what GitHub draws, DOT what Graphviz does.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(
    name: str, start: str | None, form: Literal["text", "mermaid", "dot"], as_json: bool
) -> int:
    """Draw a workflow as its annotations describe it."""
    workflow = target.load(name)
    graph = workflow.check(target.state_of(workflow, start))
    if as_json:
        show.print_json(show.graph_dict(graph))
    elif form == "text":
        click.echo(str(graph))
    else:
        click.echo(graph.mermaid() if form == "mermaid" else graph.dot(), nl=False)
    return OK
