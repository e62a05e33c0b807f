"""A person decides: a run that waits for days, and for nobody's attention.

An expense over 100 waits for an approval. Inside ``async with flow`` a waiting run holds no task: it
is a row in the store, and goes on when the signal comes, from whatever process, or when its time is
over, which `otherwise` leads to a state of its own. Signals are kept: one that comes early is not
lost, and one that is sent twice with the same key counts once.

The time is virtual here, so that three days pass at once; drop `cano.testing` and they are days.

Prints:
    lunch: 12, no need to ask
    lunch -> PAID
    laptop waits for a signal, held by nobody
    laptop: approved by ada
    laptop -> PAID
    yacht: refused by bob (too wet)
    yacht -> REFUSED
    chair: nobody decided within 3 days
    chair -> REFUSED
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import ClassVar, Literal

from cano import Context, MemoryCheckpoints, Signal, SignalTask, SignalTimeoutError, Workflow
from cano.testing import run


class Step(StrEnum):
    FILE = auto()
    ASK = auto()
    EXPIRED = auto()
    PAID = auto()
    REFUSED = auto()


@dataclass
class Expense:
    what: str = ""
    amount: int = 0


@dataclass
class Decision:
    by: str
    reason: str = ""


async def file(ctx: Context[Expense]) -> Literal[Step.ASK, Step.PAID]:
    if ctx.data.amount > 100:
        return Step.ASK
    print(f"{ctx.data.what}: {ctx.data.amount}, no need to ask")
    return Step.PAID


class Approval(SignalTask[Step]):
    signals: ClassVar = {"approve": Decision, "refuse": Decision}
    timeout = 3 * 24 * 3600

    async def on_signal(
        self, ctx: Context[Expense], signal: Signal[Decision]
    ) -> Literal[Step.PAID, Step.REFUSED]:
        by, reason = signal.value.by, signal.value.reason
        if signal.name == "approve":
            print(f"{ctx.data.what}: approved by {by}")
            return Step.PAID
        print(f"{ctx.data.what}: refused by {by} ({reason})")
        return Step.REFUSED


async def expired(ctx: Context[Expense]) -> Literal[Step.REFUSED]:
    print(f"{ctx.data.what}: nobody decided within 3 days")
    return Step.REFUSED


def expenses() -> Workflow[Step, Expense]:
    store = MemoryCheckpoints()
    # A lease of an hour only spares this example the heartbeats of three days.
    flow = Workflow(Step, data=Expense, start=Step.FILE, checkpoints=store, lease=3600)
    flow.exits(Step.PAID, Step.REFUSED)
    flow.register(Step.FILE, file)
    flow.register(Step.ASK, Approval(), otherwise={SignalTimeoutError: Step.EXPIRED})
    return flow.register(Step.EXPIRED, expired)


async def main() -> None:
    async with expenses() as flow:
        for what, amount in {"lunch": 12, "laptop": 1800, "yacht": 90_000, "chair": 140}.items():
            handle = await flow.start_run(data=Expense(what, amount), run_id=what)
            if what == "lunch":
                print("lunch ->", (await handle.result()).name)

        await asyncio.sleep(24 * 3600)
        summary = await flow.handle("laptop").summary()
        print("laptop waits for a signal, held by", summary.owner or "nobody")

        # Whoever decides needs the name of the run, and nothing else: another process would do.
        for _ in range(2):
            await flow.handle("laptop").signal("approve", Decision("ada"), key="click-1")
        print("laptop ->", (await flow.handle("laptop").result()).name)
        await flow.handle("yacht").signal("refuse", Decision("bob", "too wet"))
        print("yacht ->", (await flow.handle("yacht").result()).name)
        print("chair ->", (await flow.handle("chair").result()).name)


if __name__ == "__main__":
    run(main())
