"""Edges read from annotations, what they prove, and how a graph is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Never, NewType, NoReturn, Optional, TypeVar, Union

import pytest
from typing_extensions import TypeAliasType

from cano import Context, Edge, Split, Workflow
from cano._graph import Edges, reachable, stuck, targets_of


class Step(Enum):
    A = 1
    B = 2
    C = 3


class Base(Enum):
    """An enum without members, as a base for others."""


@dataclass
class Config:
    """Compares by value and so has no hash; an enum of such values inherits that."""

    size: int


class Sized(Config, Enum):
    SMALL = 1


Next = Literal[Step.A, Step.B]
Any_step = TypeVar("Any_step", bound=Step)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Literal[Step.A], {Step.A}),
        (Next, {Step.A, Step.B}),
        (Literal[Next, Step.C], {Step.A, Step.B, Step.C}),
        (Union[Literal[Step.A], Literal[Step.B]], {Step.A, Step.B}),  # noqa: UP007
        (Literal[Step.A] | Literal[Step.B], {Step.A, Step.B}),
        (Literal[Step.A], {Step.A}),
        (Annotated[Literal[Step.A], "a note"], {Step.A}),
        (Annotated[Literal[Step.A], 1] | Literal[Step.B], {Step.A, Step.B}),
        (Awaitable[Literal[Step.A]], {Step.A}),
        (Coroutine[Any, Any, Literal[Step.A]], {Step.A}),
        (asyncio.Future[Literal[Step.A]], {Step.A}),
        (Never, set()),
        (NoReturn, set()),
    ],
)
def test_named_states(hint: Any, expected: set[Step]) -> None:
    """A `Literal` is the edge set, in whatever it is wrapped; `Never` is the empty one."""
    assert frozenset(expected) == targets_of(hint)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Step, Step),
        (Base, Base),
        (Annotated[Step, "a note"], Step),
        (Literal[Step.A] | Step, Step),
        (Step | Base, None),
        (Any, None),
        (object, None),
        (Any_step, None),
        (Awaitable, None),
        (asyncio.Future, None),
        (NewType("Named", Step), None),
        (Literal[Sized.SMALL], None),
    ],
)
def test_anywhere(hint: Any, expected: object) -> None:
    """What names no members proves nothing, but an enum by itself is remembered."""
    assert expected == targets_of(hint)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, "int"),
        (str, "str"),
        (None, "None"),
        (type(None), "None"),
        (Step | None, "None"),
        (Optional[Literal[Step.A]], "None"),  # noqa: UP045
        (Literal[Step.A, None], "None"),
        (Literal["A"], "'A'"),
        (list[Step], "list"),
        (tuple[Step, int], "tuple"),
        (Step | int, "int"),
        (Awaitable[int], "int"),
    ],
)
def test_no_state(hint: Any, expected: str) -> None:
    """An annotation that admits something that is no state is named, for the error message."""
    assert expected in str(targets_of(hint))
    assert isinstance(targets_of(hint), str)


def test_type_statement() -> None:
    """`type Next = Literal[...]` is read like the assignment."""
    following = TypeAliasType("following", Literal[Step.A])
    later = TypeAliasType("later", following | Literal[Step.B])  # type: ignore[valid-type]

    assert frozenset({Step.A, Step.B}) == targets_of(later)


def named(**edges: str | None) -> Edges:
    return {
        name: None if targets is None else frozenset(targets) for name, targets in edges.items()
    }


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        (named(A="B", B="C"), {"A", "B", "C"}),
        (named(A="A", B="C"), {"A"}),
        (named(A="BC", B="A", C="A"), {"A", "B", "C"}),
        (named(A="B", B=None), None),
        (named(A="B", C=None), {"A", "B"}),
        (named(), {"A"}),
    ],
)
def test_reachable(edges: Edges, expected: set[str] | None) -> None:
    """Reachable is what a chain of edges leads to; unknown if one of the chain is."""
    assert expected == reachable("A", edges)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        (named(A="B", B="X"), []),
        (named(A="A"), ["A"]),
        (named(A="AX"), []),
        (named(A="B", B="A", C="X"), ["A", "B"]),
        (named(A="B", B=None), []),
        (named(A="B", B=""), []),
        (named(C="B", B="A", A="A"), ["C", "B", "A"]),
    ],
)
def test_stuck(edges: Edges, expected: list[str]) -> None:
    """Stuck is what can never come to an end, in order; always raising is an end."""
    assert expected == stuck(edges, ["X"])


def test_long_chain() -> None:
    """Soundness takes time in proportion to the edges: ten thousand states are no matter."""
    chain = {str(i): frozenset({str(i + 1)}) for i in range(10_000)}

    assert [] == stuck(chain, ["10000"])
    assert 10_001 == len(reachable("0", chain) or ())


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def anywhere(ctx: Context[Any]) -> Step:
    return Step.C


def drawn() -> Workflow[Step, None]:
    return (
        Workflow(Step, start=Step.A, name="Orders")
        .register(Step.A, to_b, otherwise=Step.C)
        .register(Step.B, anywhere)
        .exits(Step.C)
    )


def test_graph_says_what_was_defined() -> None:
    """`check()` returns states, exits, labels and edges as they were registered."""
    graph = drawn().check()

    assert (Edge(Step.A, Step.B), Edge(Step.A, Step.C, "otherwise")) == graph.edges
    assert (Step.A, Step.B, Step.C) == graph.states
    assert (Step.A, (Step.C,), (Step.B,)) == (graph.start, graph.exits, graph.anywhere)
    assert {"A": "to_b", "B": "anywhere"} == graph.labels


def test_graph_as_text() -> None:
    """Printed, a graph is one line per state."""
    expected = """
Orders
  → A  to_b  ⟶  B, C (otherwise)
    B  anywhere  ⟶  anywhere
  ■ C  exit
"""
    assert expected.strip() == str(drawn().check())


def test_mermaid() -> None:
    """Mermaid text has a node per state and an arrow per edge, of a kind that shows its kind."""
    expected = """
flowchart TD
    _start(( )) --> A
    A["A<br/>to_b"]
    B["B<br/>anywhere"]
    C(["C"])
    A --> B
    A -. otherwise .-> C
    B -.-> _any0[anywhere]
"""
    assert expected.lstrip() == drawn().check().mermaid()


def test_dot() -> None:
    """DOT text has a node per state, with its name as id, and an arrow per edge."""
    expected = """
digraph "Orders" {
    node [fontname="sans-serif" shape=box];
    _start [shape=point];
    _start -> A;
    A [id="A" label="A\\nto_b" style=rounded];
    B [id="B" label="B\\nanywhere" style=rounded];
    C [id="C" label="C" peripheries=2];
    A -> B;
    A -> C [style=dashed label="otherwise"];
    _anywhere [label="anywhere" shape=none];
    B -> _anywhere [style=dotted];
}
"""
    assert expected.lstrip() == drawn().check().dot()


def test_joins_are_drawn_as_such() -> None:
    """The edge behind a split is of the kind `joins`, in both languages."""
    flow = Workflow(Step).register(Step.A, Split([to_b], then=Step.B))
    graph = flow.register(Step.B, anywhere).exits(Step.C).check()

    assert (Edge(Step.A, Step.B, "joins"),) == graph.edges
    assert "A == joins ==> B" in graph.mermaid()
    assert 'A -> B [penwidth=2 label="joins"];' in graph.dot()


def test_reserved_names_are_not_taken_for_syntax() -> None:
    """States called like a word of Mermaid or DOT, or like no identifier, get another id."""
    states = Enum("states", {"end": 1, "node": 2, 'says "hi"': 3, "großartig": 4})  # type: ignore[misc]
    end, node, says, last = states

    async def go(ctx: Context[Any]) -> Any:
        return last

    flow = Workflow(states, start=end, name='a "b"')
    for state in (end, node, says):
        flow.register(state, go)
    graph = flow.exits(last).check()

    assert 'state0["end<br/>' in graph.mermaid()
    assert 'state2["says &quot;hi&quot;<br/>' in graph.mermaid()
    assert 'digraph "a \\"b\\"" {' in graph.dot()
    assert 'state1 [id="node" label=' in graph.dot()
    assert 'state2 [id="says \\"hi\\""' in graph.dot()
    assert "_start -> state0;" in graph.dot()


def test_labels_are_escaped() -> None:
    """What a function is called cannot break the drawing."""

    async def task(ctx: Context[Any]) -> Literal[Step.B]:
        return Step.B

    task.__qualname__ = "<a & b>"
    flow = Workflow(Step).register(Step.A, task).exits(Step.B, Step.C)

    assert 'A["A<br/>&lt;a &amp; b>"]' in flow.check().mermaid()
