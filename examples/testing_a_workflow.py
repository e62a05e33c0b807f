"""Testing your own workflow: fakes in its definition, virtual time, and what should have happened.

The workflow below heats a sauna: it lights the stove, asks the thermometer every ten minutes, and
lets the guest in. Nobody tests that with a stove. `override` puts fakes into a copy of the workflow,
`Recorder` watches, `run` makes the hours pass at once. At the end the recorder is asked what the
tests have left out.

Prints:
    it heats for two hours, and then the guest is let in
        0 h 00 LIGHT → HEAT
        2 h 00 HEAT → BATHE
        2 h 00 BATHE → OPEN
    wet matches are tried three times
        LIGHT took 3 attempts
    a stove that went out closes the sauna
        Run 'monday' took another path
          expected: LIGHT → HEAT → BATHE → OPEN
          actual:   LIGHT → HEAT → CLOSED
          they differ at 3
    all of that together
        Sauna: 3 of 3 states, 4 of 4 edges
"""

from collections.abc import Callable
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Pending, PollExhaustedError, PollTask, Ready, Resources, Retry, Workflow
from cano.testing import FailTimes, Recorder, override, run


class Sauna(StrEnum):
    LIGHT = auto()
    HEAT = auto()
    BATHE = auto()
    OPEN = auto()
    CLOSED = auto()


class Thermometer:
    def degrees(self) -> float:
        raise OSError("it is screwed to a wall, far from here")


class Heat(PollTask[Sauna]):
    delay = max_delay = 600.0
    deadline = 6 * 3600.0

    async def poll(
        self, ctx: Context[None], thermometer: Thermometer
    ) -> Ready[Literal[Sauna.BATHE]] | Pending:
        return Ready(Sauna.BATHE) if thermometer.degrees() >= 80 else Pending()


# The workflow, as it is used.

flow = Workflow(Sauna, start=Sauna.LIGHT, resources=Resources(thermometer=Thermometer()))
flow.exits(Sauna.OPEN, Sauna.CLOSED)
flow.register(Sauna.HEAT, Heat(), otherwise={PollExhaustedError: Sauna.CLOSED})


@flow.task(Sauna.LIGHT, Retry.fixed(3, 60))
async def light(ctx: Context[None]) -> Literal[Sauna.HEAT]:
    return Sauna.HEAT


@flow.task(Sauna.BATHE)
async def bathe(ctx: Context[None]) -> Literal[Sauna.OPEN]:
    return Sauna.OPEN


# Its tests.

recorder = Recorder()


class FakeThermometer(Thermometer):
    """Shows so many degrees more each time one looks."""

    def __init__(self, more: float) -> None:
        self.more = more
        self.shown = 20.0

    def degrees(self) -> float:
        shown, self.shown = self.shown, self.shown + self.more
        return shown


def it_heats_for_two_hours_and_then_the_guest_is_let_in() -> None:
    sauna = override(flow, thermometer=FakeThermometer(5), observers=[recorder])
    run(sauna.run(run_id="saturday"))
    recorder.assert_path(Sauna.LIGHT, Sauna.HEAT, Sauna.BATHE, Sauna.OPEN, run_id="saturday")
    begin = recorder.events[0].time
    for event in recorder.events:
        if next_ := getattr(event, "next", None):
            minutes = round((event.time - begin) / 60)
            print(f"    {minutes // 60} h {minutes % 60:02}  {event.state} → {next_}")


def wet_matches_are_tried_three_times() -> None:
    wet = FailTimes(2, OSError("it hisses"), then=Sauna.HEAT)
    sauna = override(
        flow, replace={Sauna.LIGHT: wet}, thermometer=FakeThermometer(50), observers=[recorder]
    )
    run(sauna.run(run_id="sunday"))
    recorder.assert_attempts(Sauna.LIGHT, 3, run_id="sunday")
    print(f"    LIGHT took {recorder.attempts(Sauna.LIGHT, 'sunday')[0]} attempts")


def a_stove_that_went_out_closes_the_sauna() -> None:
    sauna = override(flow, thermometer=FakeThermometer(0), observers=[recorder])
    run(sauna.run(run_id="monday"))
    recorder.assert_finished(Sauna.CLOSED, run_id="monday")
    try:  # what it says to whoever expects something else
        recorder.assert_path(Sauna.LIGHT, Sauna.HEAT, Sauna.BATHE, Sauna.OPEN, run_id="monday")
    except AssertionError as error:
        print("   ", str(error).replace("\n", "\n    "))


def all_of_that_together() -> None:
    recorder.assert_covered(flow, edges=True)
    print(f"    {recorder.coverage(flow)}")


TESTS: dict[str, Callable[[], None]] = {
    "it heats for two hours, and then the guest is let in": (
        it_heats_for_two_hours_and_then_the_guest_is_let_in
    ),
    "wet matches are tried three times": wet_matches_are_tried_three_times,
    "a stove that went out closes the sauna": a_stove_that_went_out_closes_the_sauna,
    "all of that together": all_of_that_together,
}


if __name__ == "__main__":
    for name, test in TESTS.items():
        print(name)
        test()
