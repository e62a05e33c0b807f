"""Edges from annotations, and what they prove about a workflow before it runs. Pure.

Rule 1: a return annotation `Literal[Step.A, Step.B]` is the edge set; a bare `Step` (or none)
        means anywhere, and proves nothing.
Rule 2: only what is certain is an error. Where any edge is unknown, reachability stays silent.
Rule 3: `Never` is an end like an exit: the task says that it always raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from enum import Enum
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    Never,
    NoReturn,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import msgspec

S = TypeVar("S", bound=Enum)

Edges: TypeAlias = Mapping[str, frozenset[str] | None]
"""Where each state that has a task may lead, by name; None is anywhere."""

Targets: TypeAlias = frozenset[Enum] | type[Enum] | str | None
"""What a return annotation says: these states; any of that enum; no state at all but what the
text says; or nothing."""


def targets_of(hint: Any) -> Targets:
    """Read a return annotation."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _members(parts)
    if hint is Never or hint is NoReturn:
        return frozenset()
    if origin is Union or origin is UnionType:
        return _together([targets_of(part) for part in parts])
    if origin is Annotated:
        return targets_of(parts[0])
    if hasattr(hint, "__value__"):  # `type Next = ...`
        return targets_of(hint.__value__)
    return _class(hint, origin, parts)


def _class(hint: Any, origin: Any, parts: tuple[Any, ...]) -> Targets:
    kind = type(None) if hint is None else origin or hint
    if not isinstance(kind, type) or kind is Any or kind is object:
        return None  # also a TypeVar, or a name that could not be read
    if issubclass(kind, Awaitable):
        return targets_of(parts[-1]) if parts else None
    if issubclass(kind, Enum):
        return kind
    return str(hint) if parts else "None" if kind is type(None) else kind.__name__


def _members(values: tuple[Any, ...]) -> Targets:
    for value in values:
        if not isinstance(value, Enum):
            return repr(value)
    try:
        return frozenset(values)
    except TypeError:  # an enum that defines __eq__ alone cannot be put into a set
        return None


def _together(parts: list[Targets]) -> Targets:
    """A union of annotations. What is wrong in one part is wrong whatever the others are."""
    members: set[Enum] = set()
    known = True
    for part in parts:
        if isinstance(part, str):
            return part
        if isinstance(part, frozenset):
            members |= part
        else:
            known = False
    if known:
        return frozenset(members)
    enums = {part for part in parts if isinstance(part, type)}
    return enums.pop() if len(enums) == 1 else None


def reachable(start: str, edges: Edges) -> set[str] | None:
    """The states a run from *start* can come to; None if an edge on the way is unknown."""
    seen = {start}
    waiting = [start]
    while waiting:
        targets = edges.get(waiting.pop(), frozenset())
        if targets is None:
            return None
        new = targets - seen
        seen |= new
        waiting += new
    return seen


def stuck(edges: Edges, ends: Iterable[str]) -> list[str]:
    """The states from which none of *ends* can be reached, whatever the tasks return."""
    before: dict[str, list[str]] = {}
    hopeful = set(ends)
    for state, targets in edges.items():
        if not targets:  # anywhere, or always raising
            hopeful.add(state)
            continue
        for target in targets:
            before.setdefault(target, []).append(state)
    waiting = list(hopeful)
    while waiting:
        for state in before.pop(waiting.pop(), ()):
            if state not in hopeful:
                hopeful.add(state)
                waiting.append(state)
    return [state for state in edges if state not in hopeful]


class Edge(msgspec.Struct, Generic[S], frozen=True):
    """One way a run may go. *kind* is `returns`, `joins` or `otherwise`."""

    source: S
    target: S
    kind: str = "returns"


class Graph(msgspec.Struct, Generic[S], frozen=True):
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
        ids = {state.name: _id(state.name, i) for i, state in enumerate(self.states)}
        lines = ["flowchart TD"]
        if self.start is not None:
            lines.append(f"    _start(( )) --> {ids[self.start.name]}")
        for state in self.states:
            text, label = _html(state.name), self.labels.get(state.name)
            shape = f'(["{text}"])' if label is None else f'["{text}<br/>{_html(label)}"]'
            lines.append(f"    {ids[state.name]}{shape}")
        for edge in self.edges:
            arrow = {"otherwise": "-. otherwise .->", "joins": "== joins ==>"}.get(edge.kind, "-->")
            lines.append(f"    {ids[edge.source.name]} {arrow} {ids[edge.target.name]}")
        lines += [
            f"    {ids[state.name]} -.-> _any{i}[anywhere]" for i, state in enumerate(self.anywhere)
        ]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """The graph as Graphviz DOT text."""
        ids = {state.name: _id(state.name, i) for i, state in enumerate(self.states)}
        lines = [f"digraph {_quoted(self.name)} {{", '    node [fontname="sans-serif" shape=box];']
        if self.start is not None:
            lines += ["    _start [shape=point];", f"    _start -> {ids[self.start.name]};"]
        for state in self.states:
            name, label = state.name, self.labels.get(state.name)
            text = _quoted(name if label is None else name + "\n" + label)
            look = "peripheries=2" if label is None else "style=rounded"
            lines.append(f"    {ids[name]} [id={_quoted(name)} label={text} {look}];")
        for edge in self.edges:
            look = {
                "otherwise": ' [style=dashed label="otherwise"]',
                "joins": ' [penwidth=2 label="joins"]',
            }.get(edge.kind, "")
            lines.append(f"    {ids[edge.source.name]} -> {ids[edge.target.name]}{look};")
        if self.anywhere:
            lines.append('    _anywhere [label="anywhere" shape=none];')
        lines += [f"    {ids[state.name]} -> _anywhere [style=dotted];" for state in self.anywhere]
        return "\n".join([*lines, "}"]) + "\n"


_RESERVED = {
    "class", "classdef", "click", "default", "digraph", "direction", "edge", "end", "flowchart",
    "graph", "linkstyle", "node", "strict", "style", "subgraph",
}  # fmt: skip
"""What Mermaid or DOT take for a word of their own."""


def _id(name: str, index: int) -> str:
    plain = name.isascii() and name.isidentifier()
    return name if plain and name.lower() not in _RESERVED else f"state{index}"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
