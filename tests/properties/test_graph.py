"""What the edges prove, against walking them: nothing else may be said, and all of that."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cano._graph import Edges, reachable, stuck

NAMES = "ABCDEFG"
thorough = settings(max_examples=200, deadline=None, database=None)

targets = st.none() | st.frozensets(st.sampled_from(NAMES), max_size=4)
graphs = st.dictionaries(st.sampled_from(NAMES), targets, max_size=len(NAMES))


def walked(start: str, edges: Edges) -> set[str]:
    """Everywhere a walk of any length from *start* can come to."""
    found = {start}
    for _ in NAMES:
        for state in list(found):
            leads = edges.get(state, frozenset())
            found |= set(NAMES) if leads is None else leads
    return found


@thorough
@given(graphs, st.sampled_from(NAMES))
def test_reachable_is_what_walks_come_to(edges: Edges, start: str) -> None:
    """Unknown exactly if a walk meets an unknown edge; else all that walks come to."""
    met = walked(start, {name: leads or frozenset() for name, leads in edges.items()})
    unknown = any(edges.get(state, frozenset()) is None for state in met)

    assert (None if unknown else met) == reachable(start, edges)


@thorough
@given(graphs, st.frozensets(st.sampled_from(NAMES)))
def test_stuck_is_what_no_walk_leads_out_of(edges: Edges, exits: frozenset[str]) -> None:
    """A state is stuck exactly if no walk from it meets an exit, the unknown, or a way to raise."""
    ends = exits | {state for state, leads in edges.items() if not leads}
    expected = [state for state in edges if not walked(state, edges) & ends]

    assert expected == stuck(edges, exits)


@thorough
@given(graphs, st.frozensets(st.sampled_from(NAMES)), st.sampled_from(NAMES))
def test_an_exit_more_frees_states_and_never_catches_any(
    edges: Edges, exits: frozenset[str], another: str
) -> None:
    """Soundness is monotone in the exits."""
    assert set(stuck(edges, exits)) >= set(stuck(edges, exits | {another}))


@thorough
@given(graphs, st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_an_edge_more_reaches_at_least_as_much(
    edges: dict[str, frozenset[str] | None], start: str, source: str, target: str
) -> None:
    """Reachability is monotone in the edges, until one is unknown."""
    before = reachable(start, edges)
    known = edges.get(source, frozenset())
    after = reachable(start, {**edges, source: None if known is None else known | {target}})

    assert before is None or after is None or before <= after
