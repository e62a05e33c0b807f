"""Schedules, whatever they are asked."""

from datetime import datetime
from enum import Enum
from math import inf
from typing import Any, Literal
from zoneinfo import ZoneInfo

from hypothesis import assume, given
from hypothesis import strategies as st

from cano import Context, Workflow
from cano.scheduler import Allow, Backoff, CatchUp
from cano.scheduler._flows import Begin, Flow, FlowState, Stop
from cano.schedules import Cron, Every, latest

MOMENTS = st.floats(0, 4e9)
ZONES = st.sampled_from(
    ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo"]
)
FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/15", "5,55", "*"]),
    st.sampled_from(["0", "1", "2", "3", "*/6", "*", "1-3"]),
    st.sampled_from(["*", "1", "L", "8-14"]),
    st.sampled_from(["*", "3,11", "APR-OCT"]),
    st.sampled_from(["*", "SUN", "MON#2", "5L"]),
)
CRONS = st.builds(lambda fields, zone: Cron(" ".join(fields), zone), FIELDS, ZONES)
INTERVALS = st.builds(
    Every, st.floats(0.001, 1e6), fixed=st.sampled_from(["rate", "delay"]), delay=st.floats(0, 1e6)
)


@given(st.one_of(CRONS, INTERVALS), MOMENTS, MOMENTS, st.none() | MOMENTS)
def test_the_next_time_is_later(
    schedule: Cron | Every, after: float, start: float, ended: float | None
) -> None:
    """A clock that is put back never makes a tick come twice: the next is later than the last."""
    tick = schedule.next(after, start, ended)
    assert tick is not None
    assert tick > after


@given(CRONS, MOMENTS, st.floats(0, 0.99))
def test_whoever_asks_in_between_hears_of_the_same_tick(
    schedule: Cron, after: float, share: float
) -> None:
    """No tick is left out: asked anywhere before one, that one is the answer."""
    tick = schedule.next(after)
    assert tick is not None
    between = after + share * (tick - after)
    assume(between < tick)
    assert tick == schedule.next(between)


@given(FIELDS, st.sampled_from(["", "*/20 ", "5,50 "]), ZONES, MOMENTS, st.integers(1, 40))
def test_asked_in_a_row_it_says_the_same(
    fields: tuple[str, ...], second: str, zone: str, after: float, count: int
) -> None:
    """What it remembers of the last answer never changes the next one."""
    text = second + " ".join(fields)
    schedule = Cron(text, zone)
    for _ in range(count):
        tick = schedule.next(after)
        assert tick is not None
        assert tick == Cron(text, zone).next(after)
        after = tick


@given(
    st.sampled_from(["30 1 * * *", "15 2 * * *", "0 3 * * *", "45 30 2 * * *"]),
    ZONES,
    st.integers(0, 40_000),
)
def test_a_named_time_comes_once_a_day(text: str, zone: str, day: int) -> None:
    """Whatever the clocks do: one tick each day of the calendar."""
    schedule, clocks = Cron(text, zone), ZoneInfo(zone)
    tick = schedule.next(day * 86400.0)
    assert tick is not None
    following = schedule.next(tick)
    assert following is not None
    first, second = (datetime.fromtimestamp(moment, clocks).date() for moment in (tick, following))
    assert 1 == (second - first).days


@given(st.floats(0.1, 1e4), MOMENTS, st.floats(0, 1e5), st.integers(1, 5))
def test_the_latest_are_the_last(period: float, start: float, gone: float, count: int) -> None:
    """The latest ticks are the last of all that came."""
    schedule, now = Every(period), start + gone
    assume(gone / period < 2000)
    ticks = [start]
    while (tick := schedule.next(ticks[-1], start)) is not None and tick <= now:
        ticks.append(tick)
    assert ticks[-count:] == latest(schedule, start, now, start, count)


@given(INTERVALS, MOMENTS)
def test_the_first_tick_is_where_it_belongs(schedule: Every, start: float) -> None:
    """The first tick of an interval comes after its start delay, and no later."""
    assert start + schedule._delay == schedule.next(-inf, start, None)


class Step(Enum):
    WORK = 1
    DONE = 2


async def work(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


WORKFLOW = Workflow(Step, start=Step.WORK).register(Step.WORK, work).exits(Step.DONE)
FLOWS = st.builds(
    lambda schedule, overlap, misfire, trip, jitter: Flow(
        "x", WORKFLOW, schedule, None, None, overlap, misfire, Backoff(delay=20), trip, None, jitter,
        (), "resume",
    ),
    st.sampled_from([Every(7), Every(30, fixed="delay"), Every(5, delay=60), Cron("*/3 * * * *")]),
    st.sampled_from(["skip", "queue", "cancel", Allow(3)]),
    st.sampled_from(["skip", "once", CatchUp(4)]),
    st.none() | st.integers(1, 4),
    st.sampled_from([0.0, 3.0]),
)  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "finished", "failed", "cancelled", "pause", "resume", "reset"]),
        st.floats(-4000, 400),
    ),
    max_size=60,
)


@given(FLOWS, STEPS)
def test_what_a_flow_decides(flow: Flow, steps: list[tuple[str, float]]) -> None:
    """Whatever happens, and whenever: no tick begins twice, no more runs than allowed, a queue with
    an end, and what is running is what was begun and has not ended.
    """
    now = 1_000_000.0
    state: FlowState = flow.fresh(now)
    begun: list[float] = []
    running: list[str] = []
    for what, by in steps:
        now = max(now + by, 1_000_000.0)
        actions: Any = []
        last = state.last
        if what in ("look", "pause", "resume", "reset"):
            actions = getattr(flow, what)(state, now)
        elif running:
            actions = flow.end(state, running.pop(0), what, "no", now)
        for action in actions:
            if isinstance(action, Begin):
                begun.append(action.due)
                running.append(action.run_id)
            elif isinstance(action, Stop):
                assert action.run_id in running
        assert list(state.running) == running
        assert len(running) <= flow.limit
        assert len(state.queued) <= 5
        assert last is None or (state.last is not None and state.last >= last)
        assert not (state.paused and any(isinstance(action, Begin) for action in actions))
        wake = flow.wake(state)
        assert wake is None or not (state.paused or state.tripped)
    assert len(begun) == len(set(begun)) == state.runs
