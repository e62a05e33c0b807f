"""`Hedge`: a second call beside a slow one, the first success counts, and nothing is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from math import inf, nan
from typing import Any

import pytest

from cano import DefinitionError, Hedge, Timeout
from cano.errors import AttemptTimeoutError
from cano.testing import run


class Calls:
    """Calls that each do what the script says: how long, and then what."""

    def __init__(self, *script: tuple[float, object]) -> None:
        self.script = script
        self.log: list[str] = []
        self.made = 0
        self.inside = 0

    async def __call__(self) -> object:
        number = self.made
        self.made += 1
        seconds, end = self.script[number]
        self.log.append(f"{number + 1} at {now():g}")
        self.inside += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.log.append(f"{number + 1} cancelled at {now():g}")
            raise
        finally:
            self.inside -= 1
        if isinstance(end, BaseException):
            raise end
        return end


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


def ends(call: Callable[[], Awaitable[object]]) -> tuple[object, float]:
    """What *call* returns or raises, and when."""

    async def main() -> tuple[object, float]:
        try:
            end = await call()
        except Exception as error:
            end = error
        assert {asyncio.current_task()} == asyncio.all_tasks(), "something is left running"
        return end, now()

    return run(main())


def test_makes_one_call_if_it_answers_in_time() -> None:
    """A call that answers within *after* seconds is made once."""
    calls = Calls((2, "a"))
    assert ("a", 2) == ends(Hedge(3)(calls))
    assert ["1 at 0"] == calls.log


def test_makes_a_second_call_beside_a_slow_one() -> None:
    """The second call starts *after* seconds; it answers first, and the first is cancelled."""
    calls = Calls((60, "a"), (2, "b"))
    assert ("b", 5) == ends(Hedge(3)(calls))
    assert ["1 at 0", "2 at 3", "1 cancelled at 5"] == calls.log


def test_the_first_call_may_still_win() -> None:
    """Whoever answers first wins, whichever it is."""
    calls = Calls((5, "a"), (9, "b"))
    assert ("a", 5) == ends(Hedge(3)(calls))
    assert ["1 at 0", "2 at 3", "2 cancelled at 5"] == calls.log


def test_makes_as_many_calls_as_it_may() -> None:
    """One more every *after* seconds, *attempts* in all."""
    calls = Calls(*[(10, number) for number in range(1, 5)])
    assert (1, 10) == ends(Hedge(2, attempts=4)(calls))
    assert ["1 at 0", "2 at 2", "3 at 4", "4 at 6"] == calls.log[:4]
    calls = Calls(*[(10, number) for number in range(1, 3)])
    assert (1, 10) == ends(Hedge(2)(calls))
    assert 2 == calls.made


def test_a_failure_starts_the_next_at_once() -> None:
    """Who fails is followed without waiting, and the time to the one after counts from then."""
    calls = Calls((1, ValueError()), (60, "b"), (1, "c"))
    assert ("c", 1 + 3 + 1) == ends(Hedge(3, attempts=3)(calls))
    assert ["1 at 0", "2 at 1", "3 at 4", "2 cancelled at 5"] == calls.log


def test_a_failure_beside_another_call_does_not_matter() -> None:
    """As long as one of them may still succeed, nobody is told of failures."""
    calls = Calls((5, ValueError()), (4, "b"))
    assert ("b", 7) == ends(Hedge(3)(calls))
    assert ["1 at 0", "2 at 3"] == calls.log


def test_when_all_fail_the_last_error_is_raised_with_a_note_of_the_others() -> None:
    """The last failure is what the caller sees; a note says which it was and what the others were."""
    calls = Calls((9, ValueError("one")), (1, KeyError("two")), (1, OSError("three")))
    error, when = ends(Hedge(3, attempts=3)(calls))
    assert isinstance(error, ValueError)
    assert 9 == when
    assert [
        "cano: hedged attempt 1 of 3; failed before: 2 with KeyError('two'), "
        "3 with OSError('three')"
    ] == error.__notes__


@pytest.mark.parametrize("after", [0, 1])
def test_calls_that_do_not_suspend(after: float) -> None:
    """A call that answers, or fails, without ever waiting is like any other."""
    made: list[int] = []

    async def fail_twice() -> int:
        made.append(len(made) + 1)
        if len(made) < 3:
            raise ValueError(len(made))
        return len(made)

    assert (3, 0) == ends(Hedge(after, attempts=5)(fail_twice))
    assert [1, 2, 3] == made
    made.clear()
    error, when = ends(Hedge(after)(fail_twice))
    assert ("2", 0, [1, 2]) == (str(error), when, made)


def test_all_at_once() -> None:
    """With after=0 all calls are made together."""
    calls = Calls((3, "a"), (1, "b"), (2, "c"))
    assert ("b", 1) == ends(Hedge(0, attempts=3)(calls))
    assert ["1 at 0", "2 at 0", "3 at 0"] == calls.log[:3]


def test_two_successes_in_one_moment_are_one() -> None:
    """What comes in the same round as the winner is dropped."""
    calls = Calls((4, "a"), (1, "b"))
    assert 4 == ends(Hedge(3)(calls))[1]


def test_a_success_in_the_moment_the_next_starts() -> None:
    """Success and the time for the next in one round: nothing is left running either way."""
    calls = Calls((3, "a"), (60, "b"))
    assert ("a", 3) == ends(Hedge(3)(calls))


def test_a_call_that_has_not_begun_when_another_wins_never_does() -> None:
    """Between the start of a call and its first step another one may win; it is not made then."""
    made: list[str] = []

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(3, gate.set_result, "first")

        @Hedge(3)
        async def call() -> str:
            made.append("call")
            answer: str = await gate
            return answer

        assert ("first", 3) == (await call(), now())
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())
    assert len(made) <= 2


def test_the_losers_are_awaited() -> None:
    """The winner's answer comes when the losers have cleaned up."""

    class Slow(Calls):
        async def __call__(self) -> object:
            try:
                return await super().__call__()
            finally:
                await asyncio.sleep(0.02)

    assert ("b", 5.04) == ends(Hedge(3)(Slow((60, "a"), (2, "b"))))


def test_a_loser_that_heeds_no_cancellation_is_told_again() -> None:
    """Every 50 ms, until it ends."""
    told: list[float] = []

    async def stubborn() -> str:
        if told:
            return "second"
        told.append(0)
        while len(told) < 5:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append(now())
        return "first"

    assert ("second", 3.15) == ends(Hedge(3)(stubborn))
    assert [3, 3.05, 3.1, 3.15] == told[1:]


def test_a_cancellation_takes_all_along() -> None:
    """Cancelled from outside, every call is cancelled and awaited, and the cancellation goes on."""
    calls = Calls((60, "a"), (60, "b"))

    async def main() -> None:
        task = asyncio.ensure_future(Hedge(3)(calls)())
        await asyncio.sleep(5)
        task.cancel("go")
        with pytest.raises(asyncio.CancelledError, match="go"):
            await task
        assert (0, 5) == (calls.inside, now())
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())
    assert {"1 cancelled at 5", "2 cancelled at 5"} == set(calls.log[2:])


@pytest.mark.parametrize("rounds", range(6))
def test_a_cancellation_at_any_moment(rounds: int) -> None:
    """However early the cancellation comes, nothing is left running and nobody hangs."""

    async def main() -> None:
        for seconds in (0, 3):
            calls = Calls(*[(seconds, "a")] * 3)
            task = asyncio.ensure_future(Hedge(0, attempts=3)(calls)())
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            assert task.done()
            assert 0 == calls.inside
            assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())


def test_a_timeout_outside_bounds_all_of_them() -> None:
    """Timeout(Hedge(f)): one time for all calls."""
    calls = Calls((60, "a"), (60, "b"))
    error, when = ends(Timeout(5)(Hedge(3)(calls)))
    assert (AttemptTimeoutError, 5, 0) == (type(error), when, calls.inside)


def test_a_timeout_inside_bounds_each() -> None:
    """Hedge(Timeout(f)): each call has its own time, and a late one is a failed one."""
    calls = Calls((60, "a"), (60, "b"))
    error, when = ends(Hedge(3)(Timeout(5)(calls)))
    assert (AttemptTimeoutError, 8) == (type(error), when)
    assert ["1 at 0", "2 at 3", "1 cancelled at 5", "2 cancelled at 8"] == calls.log


def test_a_cancellation_of_ones_own_goes_on() -> None:
    """A call that raises CancelledError although nobody sent one ends the whole, as without."""
    calls = Calls((1, asyncio.CancelledError("mine")), (1, "b"))

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await Hedge(3)(calls)()
        assert 1 == calls.made

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_the_program_ends_the_race(error: BaseException) -> None:
    """It is raised where the call is awaited, after the other calls were cancelled."""
    calls = Calls((60, "a"), (1, error))

    async def main() -> None:
        with pytest.raises(type(error)):
            await Hedge(3)(calls)()
        assert ({asyncio.current_task()}, 4) == (asyncio.all_tasks(), now())

    run(main())


def test_calls_see_the_context_variables_of_the_caller() -> None:
    """Each call begins with the caller's context variables, and not with another call's."""
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[str] = []

    async def call() -> None:
        seen.append(variable.get())
        variable.set("changed")
        raise ValueError

    async def main() -> None:
        variable.set("caller's")
        with pytest.raises(ValueError):
            await Hedge(3)(call)()
        assert "caller's" == variable.get()

    run(main())
    assert ["caller's", "caller's"] == seen


def test_a_thousand_at_once() -> None:
    """One policy serves any number of calls at the same time; they do not mix."""

    async def main() -> None:
        made: list[int] = []

        @Hedge(2.5)
        async def call(number: int) -> int:
            made.append(number)
            await asyncio.sleep(number % 7)
            return number

        answers = await asyncio.gather(*(call(number) for number in range(1000)))
        assert list(range(1000)) == answers
        slow = [number for number in range(1000) if number % 7 >= 3]
        assert sorted([*range(1000), *slow]) == sorted(made)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())


@pytest.mark.parametrize("after", [-1, nan, inf, "3", None])
def test_refuses_what_is_no_time(after: Any) -> None:
    """Negative, endless or no number is a definition error."""
    with pytest.raises(DefinitionError, match="no time to wait for an answer"):
        Hedge(after)


@pytest.mark.parametrize("attempts", [1, 0, -1, 2.5, inf, nan, "2"])
def test_refuses_what_is_no_number_of_attempts(attempts: Any) -> None:
    """Fewer than two, or no whole number, is a definition error."""
    with pytest.raises(DefinitionError, match="hedges nothing"):
        Hedge(1, attempts)
