"""Polling: ask until it is there, with a back-off, a deadline and some patience for hiccups.

`Delivered` asks a carrier where a parcel is: after 1 s, then 2 s, 4 s, and so on, at most every
10 s. Up to two failures in a row are nothing to worry about. The waits are kept in the store, so a
process that is restarted goes on waiting where the last one stopped. `signed` is the short form: a
function that says yes or no.

Prints:
       0 s: at the depot
       1 s: the carrier does not answer
       3 s: on the road
       7 s: on the road
      15 s: delivered
      15 s: not signed
      45 s: not signed
      75 s: signed
    -> DONE
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from cano import (
    Context,
    MemoryCheckpoints,
    Pending,
    PollTask,
    Ready,
    Resources,
    Timeout,
    Workflow,
    poll,
)
from cano.testing import run  # asyncio.run in virtual time; a real program has no need of it


class Step(StrEnum):
    DELIVERY = auto()
    SIGNATURE = auto()
    DONE = auto()


class Carrier:
    """Stands for a service on the network."""

    answers = ("at the depot", "", "on the road", "on the road", "delivered")
    asked = 0

    async def where(self, parcel: str) -> str:
        answer = self.answers[self.asked]
        self.asked += 1
        if not answer:
            raise ConnectionError("the carrier does not answer")
        return answer


class Delivered(PollTask[Step]):
    delay, factor, max_delay = 1.0, 2.0, 10.0
    deadline = 24 * 3600
    errors = 2
    policies = (Timeout(5),)  # bounds each poll

    async def poll(
        self, ctx: Context, carrier: Carrier
    ) -> Ready[Literal[Step.SIGNATURE]] | Pending:
        try:
            where = await carrier.where("parcel 7")
        except ConnectionError as error:
            say(str(error))
            raise
        say(where)
        return Ready(Step.SIGNATURE) if where == "delivered" else Pending(save=True)


async def signed(ctx: Context) -> bool:
    done = asyncio.get_running_loop().time() > 60
    say("signed" if done else "not signed")
    return done


def say(text: str) -> None:
    print(f"{asyncio.get_running_loop().time():4.0f} s: {text}")


flow = Workflow(Step, checkpoints=MemoryCheckpoints(), resources=Resources(carrier=Carrier()))
flow.register(Step.DELIVERY, Delivered())
flow.register(Step.SIGNATURE, poll(signed, then=Step.DONE, delay=30.0, limit=10))
flow.exits(Step.DONE)


def main() -> None:
    state = run(flow.run(Step.DELIVERY, run_id="parcel 7"))
    print(f"-> {state.name}")


if __name__ == "__main__":
    main()
