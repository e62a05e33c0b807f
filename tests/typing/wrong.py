"""What type checkers must refuse: every line marked `# error`, and no other."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from cano import Branch, Context, RouterTask, RunFailed, Split, Task, TaskRetried, Workflow, on
from cano.memory import Key, MemoryStore


class Step(Enum):
    FETCH = 1
    DONE = 2


class Other(Enum):
    X = 1


@dataclass
class Order:
    total: int = 0


@dataclass
class Invoice:
    number: int = 0


async def fine(ctx: Context[Order]) -> Literal[Step.DONE]:
    return Step.DONE


async def foreign(ctx: Context[Order]) -> Other:
    return Other.X


async def wrong_edge(ctx: Context[Order]) -> Literal[Step.DONE]:
    return Step.FETCH  # error


async def wrong_data(ctx: Context[Invoice]) -> Literal[Step.DONE]:
    return Step.DONE


def blocking(ctx: Context[Order]) -> Step:
    return Step.DONE


async def no_context() -> Step:
    return Step.DONE


class OtherTask(Task[Other]):
    async def run(self, ctx: Context[Order]) -> Other:
        return Other.X


class WrongRouter(RouterTask[Step]):
    async def route(self, ctx: Context[Order]) -> Other:  # error
        return Other.X


flow = Workflow(Step, data=Order)
flow.register(Other.X, fine)  # error
flow.register(Step.FETCH, foreign)  # error
flow.register(Step.FETCH, wrong_data)  # error
flow.register(Step.FETCH, blocking)  # error
flow.register(Step.FETCH, no_context)  # error
flow.register(Step.FETCH, OtherTask())  # error
flow.register(Step.FETCH, fine, otherwise=Other.X)  # error
flow.register(Step.FETCH, fine, 3)  # error
flow.register(Step.FETCH, Split([fine], then=Other.X))  # error
flow.exits(Other.X)  # error
flow.check(Other.X)  # error
Branch(blocking)  # error
Workflow(Order)  # error


@flow.task(Step.FETCH)  # error
async def decorated(ctx: Context[Order]) -> Other:
    return Other.X


@on(RunFailed)  # error
def alarm(event: TaskRetried) -> None: ...


async def main(store: MemoryStore) -> None:
    await flow.run(Other.X)  # error
    await flow.run(Step.FETCH, data=Invoice())  # error
    flow.run(Step.FETCH)  # error
    store.put(Key("count", int), "one")  # error
