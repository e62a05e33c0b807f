"""`Bulkhead` beyond a policy: as a block, by name, with a limit to the patience."""

from __future__ import annotations

import asyncio
import copy
import gc
import re
from enum import StrEnum, auto
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import (
    Bulkhead,
    BulkheadFullError,
    CallDelayed,
    CallRefused,
    Context,
    DefinitionError,
    Event,
    Timeout,
    Workflow,
)
from cano.errors import AttemptTimeoutError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


def now() -> float:
    return asyncio.get_running_loop().time()


async def stay(narrow: Bulkhead, seconds: float = 10) -> str:
    """Be inside for a while; say what came of it, and when."""
    try:
        async with narrow:
            await asyncio.sleep(seconds)
    except BulkheadFullError:
        return f"refused at {now():g}"
    return f"done at {now():g}"


async def nap() -> None:
    await asyncio.sleep(1)


async def stay_all(narrow: Bulkhead, number: int) -> list[str]:
    return await asyncio.gather(*(stay(narrow) for _ in range(number)))


def test_bounds_a_block() -> None:
    """`async with` lets as many in as the limit says, and everybody in the end."""
    ends = run(stay_all(Bulkhead(2), 5))
    assert ["done at 10", "done at 10", "done at 20", "done at 20", "done at 30"] == ends


def test_a_block_that_fails_frees_its_place() -> None:
    """However a block ends, its place is free again."""

    async def main() -> None:
        narrow = Bulkhead(1)
        for _ in range(3):
            with pytest.raises(ValueError):
                async with narrow:
                    raise ValueError
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


def test_refuses_at_once_with_no_patience() -> None:
    """With max_wait=0 who finds no place is refused, who finds one is not."""
    narrow = Bulkhead(1, max_wait=0)
    assert ["done at 10", "refused at 0", "refused at 0"] == run(stay_all(narrow, 3))
    assert ["done at 10"] == run(stay_all(narrow, 1))


def test_refuses_who_waited_for_too_long() -> None:
    """After max_wait seconds in line the call is refused, and the line closes up."""

    async def main() -> list[str]:
        narrow = Bulkhead(1, max_wait=15)
        return await stay_all(narrow, 4)

    assert ["done at 10", "done at 20", "refused at 15", "refused at 15"] == run(main())


@pytest.mark.parametrize("seconds", [10, 10.001])
def test_a_place_that_comes_at_the_last_moment(seconds: float) -> None:
    """Place and end of patience in one moment: either comes first, and no place is lost."""

    async def main() -> None:
        narrow = Bulkhead(1, max_wait=10)
        ends = await asyncio.gather(stay(narrow, seconds), stay(narrow), stay(narrow))
        assert f"done at {seconds:g}" == ends[0]
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)
        assert "done at" in await stay(narrow)

    run(main())


def test_a_cancellation_in_the_moment_of_the_refusal_passes() -> None:
    """Refused and cancelled in one round: the cancellation counts, and no place is made up."""

    async def main() -> None:
        narrow = Bulkhead(1, max_wait=5)
        first, second = (asyncio.ensure_future(stay(narrow)) for _ in range(2))
        asyncio.get_running_loop().call_later(5, second.cancel)
        await asyncio.wait({first, second})
        assert second.cancelled() or second.result() == "refused at 5"
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


def test_the_refusal_says_what_was_full() -> None:
    """The error names the bulkhead, its limit, the line and what to do."""

    async def main() -> None:
        narrow = Bulkhead(2, max_wait=5, name="db")
        tasks = [asyncio.ensure_future(stay(narrow)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BulkheadFullError) as caught:
            await narrow(nap)()
        assert (
            "Bulkhead 'db' was full for its max_wait of 5 s: 2 calls at once, 0 more in line; try "
            "again later, or raise its limit or max_wait"
        ) == str(caught.value)
        await asyncio.wait(tasks)

    run(main())


def test_tells_observers_who_waited_and_who_was_refused() -> None:
    """A call that waited is announced with its seconds, a refused one as refused."""
    told: list[tuple[str, str, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, CallDelayed):
            told.append(("delayed", event.by, event.seconds))
        elif isinstance(event, CallRefused):
            told.append(("refused", event.by, event.retry_after))

    async def work(ctx: Context) -> Literal[Step.DONE]:
        await asyncio.sleep(10)
        return Step.DONE

    flow = Workflow(Step, observers=[note]).exits(Step.DONE)
    flow.register(Step.WORK, work, Bulkhead(1, max_wait=15, name="db"))

    async def main() -> list[object]:
        runs = (flow.run(Step.WORK) for _ in range(3))
        return [*await asyncio.gather(*runs, return_exceptions=True)]

    ends = run(main())
    assert [Step.DONE, Step.DONE, BulkheadFullError] == [*ends[:2], type(ends[2])]
    assert [("delayed", "db", 10), ("refused", "db", 0)] == told


def test_a_nearer_timeout_ends_the_wait_with_its_own_error() -> None:
    """The patience of the bulkhead does not outlast that of the caller."""

    async def main() -> None:
        narrow = Bulkhead(1, max_wait=60)
        first = asyncio.ensure_future(stay(narrow))
        await asyncio.sleep(0)
        with pytest.raises(AttemptTimeoutError):
            await Timeout(3)(narrow(nap))()
        assert (3, "<Bulkhead 1/1, 0 waiting>") == (now(), repr(narrow))
        await first

    run(main())


def test_one_for_each_name() -> None:
    """The same name is the same bulkhead, another name another."""
    one = Bulkhead.shared("db", 10)
    assert one is Bulkhead.shared("db", 10)
    assert one is not Bulkhead.shared("mail", 10)
    assert "<Bulkhead 'db' 0/10, 0 waiting>" == repr(one)


def test_other_numbers_under_the_same_name_are_an_error() -> None:
    """Who asks for another limit under a name that is taken is told of both."""
    narrow = Bulkhead.shared("db", 10)
    with pytest.raises(DefinitionError, match=r"'db'.*limit=10, max_wait=inf.*limit=20"):
        Bulkhead.shared("db", 20)
    with pytest.raises(DefinitionError, match=r"'db'.*max_wait=inf.*max_wait=3"):
        Bulkhead.shared("db", 10, max_wait=3)
    assert 10 == narrow.limit


def test_a_name_that_nobody_uses_any_more_is_free() -> None:
    """Shared bulkheads live as long as somebody has them."""
    narrow = Bulkhead.shared("gone", 1)
    del narrow
    gc.collect()
    assert 2 == Bulkhead.shared("gone", 2).limit


def test_a_function_keeps_its_shared_bulkhead_alive() -> None:
    """A name stays taken as long as a function is decorated with it."""

    @Bulkhead.shared("kept", 1)
    async def work() -> None: ...

    gc.collect()
    with pytest.raises(DefinitionError, match="'kept'"):
        Bulkhead.shared("kept", 2)
    run(work())


def test_copies_are_the_same_bulkhead() -> None:
    """A copy of what holds a bulkhead holds the same one: the limit is one limit."""
    narrow = Bulkhead(1)
    assert [narrow, narrow, narrow] == [copy.copy(narrow), *copy.deepcopy([narrow, narrow])]


@pytest.mark.parametrize("max_wait", [-1, nan, -inf, "5", None])
def test_refuses_what_is_no_time_to_wait(max_wait: Any) -> None:
    """A patience that is negative or no number is a definition error."""
    message = f"Bulkhead(max_wait={max_wait!r}) is no time"
    with pytest.raises(DefinitionError, match=re.escape(message)):
        Bulkhead(1, max_wait=max_wait)


def test_a_shared_one_needs_a_name() -> None:
    """No name is no name to share under."""
    with pytest.raises(DefinitionError, match="needs a name"):
        Bulkhead.shared("", 1)
