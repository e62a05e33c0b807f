"""What every join strategy promises, whatever the branches do; a new one is picked up here."""

from __future__ import annotations

from fractions import Fraction
from typing import Any as Anything
from typing import get_type_hints

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cano import join as joins
from cano.join import Join, Tally, Verdict

WAIT, PROCEED, FAIL = Verdict.WAIT, Verdict.PROCEED, Verdict.FAIL
ORDER = {FAIL: 0, WAIT: 1, PROCEED: 2}
STRATEGIES = [
    kind
    for kind in (getattr(joins, name) for name in joins.__all__)
    if hasattr(kind, "verdict") and kind is not Join
]
BRANCHES = 7
SETTINGS: dict[Anything, st.SearchStrategy[Anything]] = {
    bool: st.booleans(),
    int: st.integers(0, BRANCHES),
    float: st.integers(0, 100).map(lambda percent: percent / 100),
    int | None: st.none() | st.integers(0, BRANCHES),
    float | None: st.none() | st.integers(0, 99).map(lambda percent: percent / 100),
}
thorough = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Anything, int]:
    """A strategy and a number of branches that it may be met by."""
    kind = draw(st.sampled_from(STRATEGIES))
    hints = get_type_hints(kind)
    total = draw(st.integers(1, BRANCHES))
    join = kind(**{name: draw(SETTINGS[hints[name]]) for name in kind.__struct_fields__})
    assume(join.problem(total, 1.0) is None)
    return join, total


@st.composite
def running(draw: st.DrawFn) -> tuple[Anything, Tally]:
    """A split in the middle: at least one branch has not finished, and there is time left."""
    join, total = draw(splits())
    succeeded = draw(st.integers(0, total - 1))
    return join, Tally(total, succeeded, draw(st.integers(0, total - 1 - succeeded)))


@st.composite
def ended(draw: st.DrawFn) -> tuple[Anything, Tally]:
    """A split at its end: every branch has finished, or the deadline has passed."""
    join, total = draw(splits())
    succeeded = draw(st.integers(0, total))
    expired = draw(st.booleans())
    failed = draw(st.integers(0, total - succeeded)) if expired else total - succeeded
    return join, Tally(total, succeeded, failed, expired)


def met(join: Anything, total: int, succeeded: int) -> bool:
    """Whether a split that came to *succeeded* of *total* branches is satisfied, by its words."""
    match join:
        case joins.All():
            return succeeded == total
        case joins.Any():
            return succeeded >= 1
        case joins.Quorum():
            return succeeded >= join.needed
        case joins.Percentage():
            return Fraction(succeeded, total) >= Fraction(round(join.share * 100), 100)
        case joins.PartialTimeout():
            return succeeded >= join.minimum
        case joins.Tolerate():
            lost = total - succeeded
            allowed = (
                lost <= join.failures
                if join.failures is not None
                else Fraction(lost, total) <= Fraction(round(join.share * 100), 100)
            )
            return allowed and succeeded >= join.minimum
        case joins.Settled():
            return True
    raise NotImplementedError(f"say here when {join} is met")


def patient(join: Anything) -> bool:
    """Whether a strategy hears everybody out, although it is bound to be satisfied."""
    return isinstance(join, joins.Settled | joins.PartialTimeout | joins.Tolerate)


def test_every_strategy_is_tried() -> None:
    """The properties below hold for all that `cano.join` exports, by name."""
    names = {kind.__name__ for kind in STRATEGIES}
    assert {"All", "Any", "Quorum", "Percentage", "PartialTimeout", "Tolerate"} <= names
    assert "Join" not in names


@thorough
@given(ended())
def test_the_end_is_judged_by_what_succeeded(split: tuple[Anything, Tally]) -> None:
    """At the end, or at the deadline, no strategy waits, and the satisfied one proceeds."""
    join, tally = split
    expected = PROCEED if met(join, tally.total, tally.succeeded) else FAIL
    assert expected is join.verdict(tally)


@thorough
@given(splits(), st.lists(st.booleans(), min_size=BRANCHES, max_size=BRANCHES))
def test_a_verdict_is_final(split: tuple[Anything, int], outcomes: list[bool]) -> None:
    """After PROCEED or FAIL neither further results nor the deadline change anything."""
    join, total = split
    tally = Tally(total)
    seen = [join.verdict(tally)]
    for succeeded in outcomes[:total]:
        tally.succeeded += succeeded
        tally.failed += not succeeded
        seen.append(join.verdict(tally))
        if seen[-1] is not WAIT:
            late = Tally(total, tally.succeeded, tally.failed, expired=True)
            assert seen[-1] is join.verdict(late)
    decided = [verdict for verdict in seen if verdict is not WAIT]
    assert 1 == len(set(decided))
    assert decided == seen[-len(decided) :]


@thorough
@given(st.one_of(running(), ended()))
def test_a_success_is_never_worse_than_a_failure(split: tuple[Anything, Tally]) -> None:
    """Had one of the failed branches succeeded instead, the verdict would be as good or better."""
    join, tally = split
    assume(tally.failed)
    luckier = Tally(tally.total, tally.succeeded + 1, tally.failed - 1, tally.expired)
    assert ORDER[join.verdict(tally)] <= ORDER[join.verdict(luckier)]


@thorough
@given(running())
def test_a_strategy_stops_exactly_when_the_end_is_certain(split: tuple[Anything, Tally]) -> None:
    """It stops once every way to go on ends alike, unless it was asked to hear everybody."""
    join, tally = split
    left = tally.total - tally.finished
    ends = {met(join, tally.total, tally.succeeded + more) for more in range(left + 1)}
    if ends == {True}:
        expected = WAIT if patient(join) else PROCEED
    elif ends == {False}:
        expected = WAIT if join == joins.All(fail_fast=False) else FAIL
    else:
        expected = WAIT
    assert expected is join.verdict(tally)
