"""Which parts of a workflow were gone through, as its events tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from cano import _check
from cano.events import Event, FailureRouted, StateEntered
from cano.testing._shown import some
from cano.workflow import Workflow

EdgeName: TypeAlias = tuple[str, str]
"""From where to where."""


class Coverage(msgspec.Struct, frozen=True):
    """What recorded runs went through of a workflow, and what they left out, by name.

    Edges are those that the return annotations and `otherwise` draw. What a task that does not say
    where it leads might have returned is in none of the lists.
    """

    workflow: str
    states: tuple[str, ...]
    """The states with a task that were entered, in the order of the enum."""
    missing_states: tuple[str, ...]
    edges: tuple[EdgeName, ...]
    missing_edges: tuple[EdgeName, ...]

    def __str__(self) -> str:
        every, edges = (*self.states, *self.missing_states), (*self.edges, *self.missing_edges)
        return (
            f"{self.workflow}: {len(self.states)} of {len(every)} states, "
            f"{len(self.edges)} of {len(edges)} edges"
        )

    def complaint(self, *, edges: bool) -> str:
        """What is missing, in words."""
        lines = [f"not everything was gone through: {self}"]
        if self.missing_states:
            lines.append(f"  states never entered: {some(self.missing_states)}")
        if edges and self.missing_edges:
            lines.append(f"  edges never taken: {some(map(_arrow, self.missing_edges))}")
        return "\n".join(lines)


def cover(workflow: Workflow[Any, Any], events: Iterable[Event]) -> Coverage:
    """Hold *events* of runs of *workflow* against its graph."""
    mine = [event for event in events if event.workflow == workflow.name]
    entered = {event.state for event in mine if isinstance(event, StateEntered)}
    taken = _taken(mine)
    graph = _check.graph(
        workflow.name, workflow.states, workflow._registrations, workflow._exits, workflow.start
    )
    registered = {state._name_ for state in workflow.registered}
    states = [state._name_ for state in graph.states if state._name_ in registered]
    edges = [
        ((edge.source._name_, edge.target._name_), edge.kind == "otherwise") for edge in graph.edges
    ]
    return Coverage(
        workflow=workflow.name,
        states=tuple(state for state in states if state in entered),
        missing_states=tuple(state for state in states if state not in entered),
        edges=_unique(edge for edge, routed in edges if (*edge, routed) in taken),
        missing_edges=_unique(edge for edge, routed in edges if (*edge, routed) not in taken),
    )


def _taken(events: Sequence[Event]) -> set[tuple[str, str, bool]]:
    """The edges that were taken, and whether a failure led there."""
    found: set[tuple[str, str, bool]] = set()
    latest: dict[str, tuple[str, bool]] = {}
    for event in events:
        if isinstance(event, FailureRouted):
            latest[event.run_id] = event.state, True
        elif isinstance(event, StateEntered):
            if before := latest.get(event.run_id):
                source, routed = before
                found.add((source, event.state, routed))
            latest[event.run_id] = event.state, False
    return found


def _unique(edges: Iterable[EdgeName]) -> tuple[EdgeName, ...]:
    return tuple(dict.fromkeys(edges))


def _arrow(edge: EdgeName) -> str:
    return " → ".join(edge)
