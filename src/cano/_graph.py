"""Edges from annotations, and what they prove about a workflow before it runs. Pure.

Rule 1: a return annotation `Literal[Step.A, Step.B]` is the edge set; a bare `Step` (or none)
        means anywhere, and proves nothing.
Rule 2: only what is certain is an error. Where any edge is unknown, reachability stays silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, Never, NoReturn, TypeVar, Union, get_args, get_origin

S = TypeVar("S", bound=Enum)

Edges = Mapping[str, frozenset[str] | None]
"""Where each state that has a task may lead, by name; None is anywhere."""


def targets_of(hint: Any) -> frozenset[Enum] | str | None:
    """The states a return annotation names; None for anywhere; a text if it is no state at all."""
    if hint is None or hint is Any or isinstance(hint, TypeVar):
        return None if hint is not None else "None"
    if hint in (Never, NoReturn):
        return frozenset()
    if get_origin(hint) is Literal:
        members = get_args(hint)
        stray = [value for value in members if not isinstance(value, Enum)]
        return repr(stray[0]) if stray else frozenset(members)
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        parts = [targets_of(part) for part in get_args(hint)]
        if any(part is None for part in parts):
            return None
        texts = [part for part in parts if isinstance(part, str)]
        return texts[0] if texts else frozenset().union(*parts)  # type: ignore[arg-type]
    if isinstance(hint, type) and not issubclass(hint, Enum):
        return hint.__name__
    return None


def reachable(start: str, edges: Edges) -> set[str] | None:
    """The states a run from *start* can come to; None if an edge on the way is unknown."""
    seen = {start}
    waiting = [start]
    while waiting:
        targets = edges.get(waiting.pop(), ())
        if targets is None:
            return None
        new = targets - seen if targets else ()
        seen.update(new)
        waiting.extend(new)
    return seen


def stuck(edges: Edges, exits: Iterable[str]) -> list[str]:
    """The states from which no exit can be reached, whatever the tasks return."""
    hopeful = set(exits)
    open_states = dict(edges)
    while True:
        found = [
            state
            for state, targets in open_states.items()
            if targets is None or not targets.isdisjoint(hopeful)
        ]
        if not found:
            return list(open_states)
        hopeful.update(found)
        for state in found:
            del open_states[state]


@dataclass(frozen=True, slots=True)
class Edge(Generic[S]):
    """One way a run may go. *kind* is `returns`, `joins` or `otherwise`."""

    source: S
    target: S
    kind: str = "returns"


@dataclass(frozen=True, slots=True)
class Graph(Generic[S]):
    """A workflow as its annotations describe it."""

    name: str
    states: tuple[S, ...]
    start: S | None
    exits: tuple[S, ...]
    labels: Mapping[str, str]
    """What each state runs, by its name."""
    edges: tuple[Edge[S], ...]
    anywhere: tuple[S, ...]
    """The states whose tasks do not say where they lead."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.name
        for state in self.states:
            mark = "→" if state is self.start else "■" if state in self.exits else " "
            targets = [
                edge.target.name + {"returns": ""}.get(edge.kind, f" ({edge.kind})")
                for edge in self.edges
                if edge.source is state
            ]
            if state in self.anywhere:
                targets.append("anywhere")
            label = self.labels.get(state.name, "exit")
            yield f"  {mark} {state.name}  {label}" + (
                f"  ⟶  {', '.join(targets)}" if targets else ""
            )

    def mermaid(self) -> str:
        """The graph as Mermaid text, as GitHub and many editors draw it."""
        lines = ["flowchart TD"]
        if self.start is not None:
            lines.append(f"    _start(( )) --> {self.start.name}")
        for state in self.states:
            label = self.labels.get(state.name)
            shape = f'(["{state.name}"])' if label is None else f'["{state.name}<br/>{label}"]'
            lines.append(f"    {state.name}{shape}")
        for edge in self.edges:
            arrow = {"otherwise": "-. otherwise .->", "joins": "== joins ==>"}.get(edge.kind, "-->")
            lines.append(f"    {edge.source.name} {arrow} {edge.target.name}")
        lines += [
            f"    {state.name} -.-> _any{i}[anywhere]" for i, state in enumerate(self.anywhere)
        ]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """The graph as Graphviz DOT text."""
        lines = [f'digraph "{self.name}" {{', '    node [fontname="sans-serif" shape=box];']
        if self.start is not None:
            lines += ["    _start [shape=point];", f"    _start -> {self.start.name};"]
        for state in self.states:
            label = self.labels.get(state.name)
            look = (
                f'label="{state.name}\\n{label}" style=rounded'
                if label is not None
                else f'label="{state.name}" peripheries=2'
            )
            lines.append(f'    {state.name} [id="{state.name}" {look}];')
        for edge in self.edges:
            look = {
                "otherwise": ' [style=dashed label="otherwise"]',
                "joins": ' [penwidth=2 label="joins"]',
            }.get(edge.kind, "")
            lines.append(f"    {edge.source.name} -> {edge.target.name}{look};")
        if self.anywhere:
            lines.append('    _anywhere [label="anywhere" shape=none];')
        lines += [f"    {state.name} -> _anywhere [style=dotted];" for state in self.anywhere]
        return "\n".join([*lines, "}"]) + "\n"
