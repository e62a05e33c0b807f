"""Every ordered pair of policies, read as nested calls: when calls are made, and who sees what.

Each row is one scenario: the policies, outermost first; what the calls do, one after the other, the
last one over and over; how many callers there are, together or one after the other; when calls were
made; and what each caller got, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from cano import (
    AttemptTimeoutError,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Hedge,
    Policy,
    RateLimitedError,
    RateLimiter,
    Retry,
    Timeout,
    guarded,
)
from cano.testing import run

MAKE: dict[str, Callable[[], Policy]] = {
    "Retry": lambda: Retry.fixed(2, 1),
    "Timeout": lambda: Timeout(5),
    "CircuitBreaker": lambda: CircuitBreaker(1, reset=100),
    "RateLimiter": lambda: RateLimiter(1, per=10),
    "RateLimiter, no wait": lambda: RateLimiter(1, per=10, max_wait=0),
    "Bulkhead": lambda: Bulkhead(1),
    "Bulkhead, no wait": lambda: Bulkhead(1, max_wait=0),
    "Hedge": lambda: Hedge(3),
    "Fallback": lambda: Fallback("instead"),
    "Fallback, inner": lambda: Fallback("inner"),
}
KINDS = list(dict.fromkeys(name.partition(",")[0] for name in MAKE))

Script = list[tuple[float, object]]
Ends = list[tuple[object, float]]

OK: Script = [(9, "ok")]
QUICK: Script = [(1, "ok")]
FAILS: Script = [(2, ValueError)]
FAILS_ONCE: Script = [(2, ValueError), (2, "ok")]
LATE = AttemptTimeoutError
OPEN = CircuitOpenError
FULL = BulkheadFullError
LIMITED = RateLimitedError

ONE, TWO, THREE = (1, "together"), (2, "together"), (3, "together")
TWICE, THRICE = (2, "in a row"), (3, "in a row")

Row = tuple[str, str, Script, tuple[int, str], list[float], Ends]

ROWS: list[Row] = [
    # The attempts multiply.
    ("Retry", "Retry", FAILS, ONE, [0, 3, 6, 9], [(ValueError, 11)]),
    # Every attempt has its own time.
    ("Retry", "Timeout", OK, ONE, [0, 6], [(LATE, 11)]),
    # Attempts count, and an open circuit ends them, before a pause that would be in vain.
    ("Retry", "CircuitBreaker", FAILS, ONE, [0], [(ValueError, 2)]),
    # Every attempt takes from the limit.
    ("Retry", "RateLimiter", FAILS_ONCE, ONE, [0, 10], [("ok", 12)]),
    # Who pauses makes room, and stands in line again.
    ("Retry", "Bulkhead", FAILS_ONCE, TWO, [0, 2, 4], [("ok", 6), ("ok", 4)]),
    # Every attempt is hedged.
    ("Retry", "Hedge", FAILS, ONE, [0, 2, 5, 7], [(ValueError, 9)]),
    # Nothing is left to try again after.
    ("Retry", "Fallback", FAILS, ONE, [0], [("instead", 2)]),
    # One time for all attempts and pauses.
    ("Timeout", "Retry", [(3, ValueError)], ONE, [0, 4], [(LATE, 5)]),
    # The nearer one strikes.
    ("Timeout", "Timeout", OK, ONE, [0], [(LATE, 5)]),
    # Whom the outer one cancels does not count for the breaker.
    ("Timeout", "CircuitBreaker", OK, TWICE, [0, 5], [(LATE, 5), (LATE, 10)]),
    # A wait that the timeout would cut off is not begun.
    ("Timeout", "RateLimiter", QUICK, TWO, [0], [("ok", 1), (LIMITED, 0)]),
    # The time in line counts.
    ("Timeout", "Bulkhead", [(3, "ok")], TWO, [0, 3], [("ok", 3), (LATE, 5)]),
    # One time for all calls side by side.
    ("Timeout", "Hedge", OK, ONE, [0, 3], [(LATE, 5)]),
    # What comes too late cannot be replaced from inside.
    ("Timeout", "Fallback", OK, ONE, [0], [(LATE, 5)]),
    # All attempts together are one failure.
    ("CircuitBreaker", "Retry", FAILS, TWICE, [0, 3], [(ValueError, 5), (OPEN, 5)]),
    # Who is late has failed.
    ("CircuitBreaker", "Timeout", OK, TWICE, [0], [(LATE, 5), (OPEN, 5)]),
    # The outer one refuses first.
    ("CircuitBreaker", "CircuitBreaker", FAILS, TWICE, [0], [(ValueError, 2), (OPEN, 2)]),
    # Who was refused inside has not failed.
    (
        "CircuitBreaker",
        "RateLimiter, no wait",
        QUICK,
        THRICE,
        [0],
        [("ok", 1), (LIMITED, 1), (LIMITED, 1)],
    ),
    ("CircuitBreaker", "Bulkhead, no wait", OK, THREE, [0], [("ok", 9), (FULL, 0), (FULL, 0)]),
    # All calls side by side are one failure.
    ("CircuitBreaker", "Hedge", FAILS, TWICE, [0, 2], [(ValueError, 4), (OPEN, 4)]),
    # What was replaced has not failed.
    ("CircuitBreaker", "Fallback", FAILS, TWICE, [0, 2], [("instead", 2), ("instead", 4)]),
    # All attempts are one of the limit.
    ("RateLimiter", "Retry", FAILS, TWICE, [0, 3, 10, 13], [(ValueError, 5), (ValueError, 15)]),
    # The wait costs no time.
    ("RateLimiter", "Timeout", OK, TWICE, [0, 10], [(LATE, 5), (LATE, 15)]),
    # What the breaker refuses has taken from the limit.
    ("RateLimiter", "CircuitBreaker", FAILS, TWICE, [0], [(ValueError, 2), (OPEN, 10)]),
    # The stricter one counts.
    ("RateLimiter", "RateLimiter", QUICK, TWICE, [0, 10], [("ok", 1), ("ok", 11)]),
    # Let through one by one, they still wait for room.
    (
        "RateLimiter",
        "Bulkhead",
        [(15, "ok")],
        THREE,
        [0, 15, 30],
        [("ok", 15), ("ok", 30), ("ok", 45)],
    ),
    # All calls side by side are one of the limit.
    ("RateLimiter", "Hedge", OK, ONE, [0, 3], [("ok", 9)]),
    # A refusal outside is not replaced.
    ("RateLimiter, no wait", "Fallback", QUICK, TWICE, [0], [("ok", 1), (LIMITED, 1)]),
    # Who pauses keeps the place.
    ("Bulkhead", "Retry", FAILS_ONCE, TWO, [0, 3, 5], [("ok", 5), ("ok", 7)]),
    # The time in line does not count.
    ("Bulkhead", "Timeout", OK, TWO, [0, 5], [(LATE, 5), (LATE, 10)]),
    # Who waited finds the circuit open.
    ("Bulkhead", "CircuitBreaker", FAILS, TWO, [0], [(ValueError, 2), (OPEN, 2)]),
    # Who waits for the limit keeps the place.
    ("Bulkhead", "RateLimiter", QUICK, TWO, [0, 10], [("ok", 1), ("ok", 11)]),
    # The narrower one counts.
    ("Bulkhead", "Bulkhead", QUICK, TWO, [0, 1], [("ok", 1), ("ok", 2)]),
    # One place for all calls side by side.
    ("Bulkhead", "Hedge", OK, TWO, [0, 3, 9, 12], [("ok", 9), ("ok", 18)]),
    # A refusal outside is not replaced.
    ("Bulkhead, no wait", "Fallback", FAILS, TWO, [0], [("instead", 2), (FULL, 0)]),
    # Each of the calls side by side has attempts of its own.
    ("Hedge", "Retry", FAILS_ONCE, ONE, [0, 3, 3], [("ok", 5)]),
    # Each of the calls side by side has its own time.
    ("Hedge", "Timeout", OK, ONE, [0, 3], [(LATE, 8)]),
    # Each call counts; the second finds the circuit open.
    ("Hedge", "CircuitBreaker", FAILS, ONE, [0], [(OPEN, 2)]),
    # Each call takes from the limit.
    ("Hedge", "RateLimiter", OK, ONE, [0], [("ok", 9)]),
    # Each call needs a place.
    ("Hedge", "Bulkhead", OK, ONE, [0], [("ok", 9)]),
    # The calls multiply.
    ("Hedge", "Hedge", OK, ONE, [0, 3, 3, 6], [("ok", 9)]),
    # What was replaced has succeeded, and wins.
    ("Hedge", "Fallback", FAILS, ONE, [0], [("instead", 2)]),
    # After the last attempt.
    ("Fallback", "Retry", FAILS, ONE, [0, 3], [("instead", 5)]),
    # Who is late is replaced.
    ("Fallback", "Timeout", OK, ONE, [0], [("instead", 5)]),
    # So is who finds the circuit open,
    ("Fallback", "CircuitBreaker", FAILS, TWICE, [0], [("instead", 2), ("instead", 2)]),
    # whom the limit refuses,
    ("Fallback", "RateLimiter, no wait", QUICK, TWICE, [0], [("ok", 1), ("instead", 1)]),
    # and who finds no room.
    ("Fallback", "Bulkhead, no wait", OK, TWO, [0], [("ok", 9), ("instead", 0)]),
    # When all calls have failed.
    ("Fallback", "Hedge", FAILS, ONE, [0, 2], [("instead", 4)]),
    # The inner one is asked.
    ("Fallback", "Fallback, inner", FAILS, ONE, [0], [("inner", 2)]),
]


def name_of(row: Row) -> str:
    return f"{row[0]}({row[1]}(f))".replace(" ", "_")


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_pair(row: Row) -> None:
    """A(B(f)) makes its calls when nested calls would, and gives what they would."""
    outer, inner, script, (callers, how), made, ends = row
    assert (made, ends) == played([MAKE[outer](), MAKE[inner]()], script, callers, how)


def test_every_pair_is_there() -> None:
    """No ordered pair is left out, and none is there twice."""
    pairs = [tuple(name.partition(",")[0] for name in row[:2]) for row in ROWS]
    assert sorted(product(KINDS, repeat=2)) == sorted(pairs)


def test_the_usual_order() -> None:
    """Retry(CircuitBreaker(RateLimiter(Bulkhead(Timeout(f))))): each where it does its work.

    Each attempt counts for the breaker, takes from the limit, waits for room, and has its own time
    from then on. The third late one opens the circuit: nobody tries again. Who is past the breaker
    by then, and waits for the limit, still makes the call.
    """
    policies: list[Policy] = [
        Retry.fixed(3, 1),
        CircuitBreaker(3, reset=100),
        RateLimiter(1, per=10),
        Bulkhead(1),
        Timeout(5),
    ]
    made, ends = played(policies, OK, 2, "together")
    assert [0, 10, 20, 30] == made
    assert [(LATE, 25), (LATE, 35)] == ends


def played(
    policies: list[Policy], script: Script, callers: int, how: str
) -> tuple[list[float], Ends]:
    """When calls were made, and what each caller got."""
    made: list[float] = []

    @guarded(*policies)
    async def call() -> object:
        seconds, end = script[min(len(made), len(script) - 1)]
        made.append(now())
        await asyncio.sleep(seconds)
        if isinstance(end, type):
            raise end()
        return end

    async def one() -> tuple[object, float]:
        end: Any
        try:
            end = await call()
        except Exception as error:
            end = type(error)
        return end, now()

    async def main() -> Ends:
        if how == "together":
            return [*await asyncio.gather(*(one() for _ in range(callers)))]
        return [await one() for _ in range(callers)]

    ends = run(main())
    return made, ends


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)
