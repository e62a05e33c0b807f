"""Join strategies: what the counts mean, counted exactly, and what can never be met."""

from __future__ import annotations

from decimal import Decimal
from math import inf, nan
from typing import Any as Anything

import pytest

from cano.join import (
    All,
    Any,
    BranchResult,
    PartialResults,
    PartialTimeout,
    Percentage,
    Quorum,
    Settled,
    SplitResult,
    Tally,
    Tolerate,
    Verdict,
)

WAIT, PROCEED, FAIL = Verdict.WAIT, Verdict.PROCEED, Verdict.FAIL
Row = tuple[Anything, int, int, int, Verdict]

RUNNING: list[Row] = [  # join, total, succeeded, failed, verdict
    (All(), 3, 0, 0, WAIT),
    (All(), 3, 2, 0, WAIT),
    (All(), 3, 3, 0, PROCEED),
    (All(), 3, 0, 1, FAIL),
    (All(), 3, 2, 1, FAIL),
    (All(), 0, 0, 0, PROCEED),
    (All(fail_fast=False), 3, 0, 1, WAIT),
    (All(fail_fast=False), 3, 2, 1, FAIL),
    (All(fail_fast=False), 3, 3, 0, PROCEED),
    (Any(), 3, 0, 2, WAIT),
    (Any(), 3, 1, 0, PROCEED),
    (Any(), 3, 1, 2, PROCEED),
    (Any(), 3, 0, 3, FAIL),
    (Any(), 0, 0, 0, FAIL),
    (Quorum(2), 3, 1, 1, WAIT),
    (Quorum(2), 3, 2, 0, PROCEED),
    (Quorum(2), 3, 2, 1, PROCEED),
    (Quorum(2), 3, 0, 2, FAIL),
    (Quorum(2), 3, 1, 2, FAIL),
    (Quorum(4), 3, 0, 0, FAIL),
    (Percentage(0.5), 3, 1, 1, WAIT),
    (Percentage(0.5), 3, 2, 0, PROCEED),
    (Percentage(0.5), 3, 0, 2, FAIL),
    (Percentage(0.75), 4, 2, 1, WAIT),
    (Percentage(0.75), 4, 3, 0, PROCEED),
    (Percentage(1.0), 3, 2, 0, WAIT),
    (Percentage(1.0), 3, 2, 1, FAIL),
    (Percentage(0.1), 0, 0, 0, PROCEED),
    (PartialResults(2), 4, 1, 2, WAIT),
    (PartialResults(2), 4, 2, 0, PROCEED),
    (PartialResults(2), 4, 1, 3, FAIL),
    (PartialTimeout(), 4, 3, 0, WAIT),
    (PartialTimeout(), 4, 0, 3, WAIT),
    (PartialTimeout(), 4, 4, 0, PROCEED),
    (PartialTimeout(), 4, 1, 3, PROCEED),
    (PartialTimeout(), 4, 0, 4, FAIL),
    (PartialTimeout(), 0, 0, 0, FAIL),
    (PartialTimeout(minimum=2), 4, 2, 1, WAIT),
    (PartialTimeout(minimum=2), 4, 1, 3, FAIL),
    (PartialTimeout(minimum=2), 4, 0, 3, FAIL),
    (PartialTimeout(minimum=0), 4, 0, 4, PROCEED),
    (PartialTimeout(minimum=0), 0, 0, 0, FAIL),
    (Tolerate(failures=1), 3, 2, 0, WAIT),
    (Tolerate(failures=1), 3, 1, 1, WAIT),
    (Tolerate(failures=1), 3, 2, 1, PROCEED),
    (Tolerate(failures=1), 3, 0, 2, FAIL),
    (Tolerate(failures=0), 3, 0, 1, FAIL),
    (Tolerate(failures=3), 3, 0, 3, PROCEED),
    (Tolerate(failures=3, minimum=1), 3, 0, 3, FAIL),
    (Tolerate(failures=3, minimum=2), 3, 0, 2, FAIL),
    (Tolerate(share=0.2), 10, 7, 2, WAIT),
    (Tolerate(share=0.2), 10, 8, 2, PROCEED),
    (Tolerate(share=0.2), 10, 0, 3, FAIL),
    (Tolerate(share=0.2), 4, 0, 1, FAIL),
    (Tolerate(share=0.2), 0, 0, 0, PROCEED),
    (Settled(), 3, 2, 0, WAIT),
    (Settled(), 3, 0, 2, WAIT),
    (Settled(), 3, 0, 3, PROCEED),
    (Settled(), 0, 0, 0, PROCEED),
]

EXPIRED: list[Row] = [
    (All(), 3, 2, 0, FAIL),
    (All(), 3, 3, 0, PROCEED),
    (All(fail_fast=False), 3, 2, 0, FAIL),
    (Any(), 3, 0, 2, FAIL),
    (Any(), 3, 1, 0, PROCEED),
    (Quorum(2), 3, 1, 0, FAIL),
    (Quorum(2), 3, 2, 0, PROCEED),
    (Percentage(0.5), 4, 1, 0, FAIL),
    (Percentage(0.5), 4, 2, 0, PROCEED),
    (PartialResults(3), 4, 2, 0, FAIL),
    (PartialResults(3), 4, 3, 0, PROCEED),
    (PartialTimeout(), 4, 1, 0, PROCEED),
    (PartialTimeout(), 4, 1, 2, PROCEED),
    (PartialTimeout(), 4, 0, 3, FAIL),
    (PartialTimeout(), 4, 0, 0, FAIL),
    (PartialTimeout(minimum=2), 4, 1, 0, FAIL),
    (PartialTimeout(minimum=2), 4, 2, 0, PROCEED),
    (PartialTimeout(minimum=0), 4, 0, 0, PROCEED),
    (Tolerate(failures=1), 3, 2, 0, PROCEED),
    (Tolerate(failures=1), 3, 1, 1, FAIL),
    (Tolerate(failures=1), 3, 1, 0, FAIL),
    (Tolerate(failures=3, minimum=2), 3, 1, 0, FAIL),
    (Tolerate(failures=3, minimum=2), 3, 2, 0, PROCEED),
    (Settled(), 3, 0, 0, PROCEED),
    (Settled(), 3, 1, 1, PROCEED),
]


def _name(value: object) -> str:
    return value.name if isinstance(value, Verdict) else str(value)


@pytest.mark.parametrize(("join", "total", "succeeded", "failed", "verdict"), RUNNING, ids=_name)
def test_verdict_before_the_deadline(
    join: Anything, total: int, succeeded: int, failed: int, verdict: Verdict
) -> None:
    """A strategy stops as soon as it is satisfied or cannot be any more, and waits until then."""
    assert verdict is join.verdict(Tally(total, succeeded, failed))


@pytest.mark.parametrize(("join", "total", "succeeded", "failed", "verdict"), EXPIRED, ids=_name)
def test_verdict_at_the_deadline(
    join: Anything, total: int, succeeded: int, failed: int, verdict: Verdict
) -> None:
    """At the deadline a satisfied strategy proceeds, and what has not finished counts as lost."""
    assert verdict is join.verdict(Tally(total, succeeded, failed, expired=True))


@pytest.mark.parametrize(
    ("share", "total", "needed"),
    [
        (0.07, 100, 7), (0.14, 100, 14), (0.28, 100, 28), (0.55, 100, 55), (0.56, 100, 56),
        (0.5, 3, 2), (0.75, 4, 3), (0.1, 30, 3), (0.3, 10, 3), (0.9, 11, 10),
        (1.0, 7, 7), (1, 7, 7), (1e-300, 10, 1), (5e-324, 1, 1), (0.999999, 10, 10),
        (0.5, 0, 0), (1 / 3, 3, 1), (2 / 3, 3, 2), (Decimal("0.07"), 100, 7),
        (0.07, 10**30, 7 * 10**28),
    ],
)  # fmt: skip
def test_percentage_is_counted_exactly(share: float, total: int, needed: int) -> None:
    """A share is the decimal that was written, and only a true remainder rounds up."""
    assert needed == Percentage(share).needed(total)


@pytest.mark.parametrize("percent", range(1, 101))
def test_every_whole_percentage_of_a_hundred_is_itself(percent: int) -> None:
    """p % of 100 is p, for every p."""
    assert percent == Percentage(percent / 100).needed(100)


@pytest.mark.parametrize(
    ("share", "total", "allowed"),
    [(0.2, 10, 2), (0.2, 9, 1), (0.2, 4, 0), (0.29, 100, 29), (0.57, 100, 57), (0, 10, 0),
     (0.999, 10, 9), (0.5, 0, 0)],
)  # fmt: skip
def test_tolerated_share_is_counted_exactly(share: float, total: int, allowed: int) -> None:
    """A tolerated share rounds down, and exactly."""
    assert allowed == Tolerate(share=share).allowed(total)


PROBLEMS = [
    (Any(), 0, None, "Any needs at least one branch; add one"),
    (Quorum(0), 3, None,
     "Quorum(needed=0) needs at least 1 success; pass 1 or more, or join with Settled()"),
    (Quorum(-1), None, None,
     "Quorum(needed=-1) needs at least 1 success; pass 1 or more, or join with Settled()"),
    (Quorum(4), 3, None,
     "Quorum(needed=4) can never be met by 3 branches; lower it or add branches"),
    (PartialResults(4), 3, None,
     "PartialResults(needed=4) can never be met by 3 branches; lower it or add branches"),
    (PartialResults(0), 3, None,
     "PartialResults(needed=0) needs at least 1 success; pass 1 or more, or join with Settled()"),
    (PartialTimeout(), 3, None,
     "PartialTimeout() requires a timeout; pass timeout= to the Split"),
    (PartialTimeout(minimum=-1), 3, 1.0,
     "PartialTimeout(minimum=-1) cannot have a negative minimum; pass 0 or more"),
    (PartialTimeout(minimum=4), 3, 1.0,
     "PartialTimeout(minimum=4) can never be met by 3 branches; lower it or add branches"),
    (Tolerate(), 3, None,
     "Tolerate() needs either failures= or share=; "
     "pass exactly one"),
    (Tolerate(failures=1, share=0.1), 3, None,
     "Tolerate(failures=1, share=0.1) needs either failures= or share=; "
     "pass exactly one"),
    (Tolerate(failures=-1), 3, None,
     "Tolerate(failures=-1) cannot tolerate a negative number; "
     "pass 0 or more"),
    (Tolerate(share=1.0), 3, None,
     "Tolerate(share=1.0) is no share; "
     "pass a number from 0 to below 1, such as 0.2"),
    (Tolerate(failures=1, minimum=4), 3, None,
     "Tolerate(failures=1, minimum=4) can never be met by 3 branches; "
     "lower it or add branches"),
]  # fmt: skip


@pytest.mark.parametrize(("join", "total", "timeout", "text"), PROBLEMS)
def test_problem_says_what_is_wrong_and_what_to_do(
    join: Anything, total: int | None, timeout: float | None, text: str
) -> None:
    """What can never be met is named, with its remedy."""
    assert text == join.problem(total, timeout)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0001, 1.5, nan, inf, -inf])
def test_percentage_outside_its_range_is_a_problem(share: float) -> None:
    """A percentage is above 0 and at most 1; the message echoes what was given."""
    expected = (
        f"Percentage(share={share!r}) is no share; pass a number above 0 and up to 1, such as 0.75"
    )
    assert expected == Percentage(share).problem(10, None)


@pytest.mark.parametrize("share", [-0.1, 1.5, nan, inf])
def test_tolerated_share_outside_its_range_is_a_problem(share: float) -> None:
    """A tolerated share is at least 0 and below 1."""
    assert "is no share" in (Tolerate(share=share).problem(10, None) or "")


@pytest.mark.parametrize(
    "join",
    [All(), Any(), Quorum(3), Percentage(0.01), PartialResults(1), PartialTimeout(),
     PartialTimeout(minimum=0), Tolerate(failures=0), Tolerate(share=0.0, minimum=3), Settled()],
    ids=str,
)  # fmt: skip
def test_what_can_be_met_has_no_problem(join: Anything) -> None:
    """A strategy that the branches can satisfy is no problem, their number known or not."""
    assert (None, None) == (join.problem(3, 1.0), join.problem(None, 1.0))


def test_strategies_are_values() -> None:
    """Strategies of the same kind and settings are equal and hash alike; other kinds differ."""
    assert Percentage(0.5) == Percentage(0.5)
    assert hash(Tolerate(share=0.5)) == hash(Tolerate(share=0.5))
    assert Quorum(2) != PartialResults(2)


def ok(index: int, value: object = None) -> BranchResult[Anything]:
    return BranchResult(index, f"b{index}", value)


def bad(index: int) -> BranchResult[Anything]:
    return BranchResult(index, f"b{index}", None, ValueError(index))


def test_results_are_found_by_index_and_by_name() -> None:
    """Every finished branch is found both ways, successes and errors alike."""
    first, second = ok(0, "a"), bad(2)
    result = SplitResult((first,), (second,), (1,), (3,), "enough")
    assert (first, first) == (result[0], result["b0"])
    assert (second, second) == (result[2], result["b2"])


def test_a_branch_without_a_result_is_a_key_error_that_names_the_finished() -> None:
    """Asking for a branch that did not finish names the ones that did, not all of a thousand."""
    few = SplitResult((ok(0),), (bad(2),), (1,))
    with pytest.raises(KeyError) as caught:
        few[1]
    assert "branch 1 has no result; finished are: 0 'b0', 2 'b2'" == caught.value.args[0]
    with pytest.raises(KeyError, match="branch 'x' has no result; finished are: none"):
        SplitResult[Anything]()["x"]
    with pytest.raises(KeyError, match="9 'b9', …"):
        SplitResult(tuple(ok(i) for i in range(1000)))["x"]


def test_a_result_knows_which_branches_finished() -> None:
    """`in` asks whether a branch finished, by index or by name."""
    result = SplitResult((ok(0),), (bad(2),), (1,))
    assert [True, True, True, False, False] == [key in result for key in (0, "b0", 2, 1, "b1")]


def test_a_result_counts_and_lists_in_order() -> None:
    """Values and iteration go by index, and every branch is counted once."""
    result = SplitResult((ok(0, "a"), ok(3, "d")), (bad(1),), (2,), (4, 5))
    assert ("a", "d") == result.values
    assert [0, 1, 3] == [branch.index for branch in result]
    assert (3, 6) == (result.completed, result.total)
