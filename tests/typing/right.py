"""What type checkers must accept. Only they read this file; it is not run."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, assert_type

from cano import (
    Branch,
    Bulkhead,
    Context,
    Event,
    Resources,
    Retry,
    RouterTask,
    RunFailed,
    RunHandle,
    Split,
    StateEntered,
    Task,
    TaskFailed,
    Timeout,
    Workflow,
    on,
)
from cano.join import Quorum, SplitResult
from cano.memory import Key, MemoryStore


class Step(Enum):
    FETCH = 1
    PARSE = 2
    DONE = 3


@dataclass
class Order:
    total: int = 0


class Db:
    async def save(self, order: Order) -> None: ...


async def fetch(ctx: Context[Order]) -> Literal[Step.PARSE]:
    ctx.data.total += 1
    assert_type(ctx.data, Order)
    return Step.PARSE


async def plain(ctx: Context) -> Step:
    return Step.DONE


async def with_resource(ctx: Context[Order], db: Db) -> Literal[Step.DONE]:
    await db.save(ctx.data)
    assert_type(ctx.get(Db), Db)
    return Step.DONE


class Parse(Task[Step]):
    policies = (Retry(), Timeout(5))

    async def run(self, ctx: Context[Order], db: Db) -> Literal[Step.DONE]:
        return Step.DONE


class Route(RouterTask[Step]):
    async def route(self, ctx: Context[Order]) -> Literal[Step.PARSE, Step.DONE]:
        return Step.PARSE if ctx.data.total else Step.DONE


async def branch(ctx: Context[Order]) -> int:
    return ctx.data.total


async def per_item(ctx: Context[Order], item: str) -> int:
    return len(item)


def words(order: Order) -> list[str]:
    return ["a"] * order.total


flow = Workflow(Step, data=Order, resources=Resources(db=Db()))
assert_type(flow, Workflow[Step, Order])
flow.register(Step.FETCH, fetch, Retry(), Timeout(1), otherwise=Step.DONE)
flow.register(Step.FETCH, plain, otherwise={ValueError: Step.DONE, TimeoutError: Step.PARSE})
flow.register(Step.FETCH, with_resource)
flow.register(Step.PARSE, Parse()).register(Step.FETCH, Route()).exits(Step.DONE)
flow.register(
    Step.PARSE,
    Split([branch, Branch(branch, Bulkhead(2), name="eu")], join=Quorum(2), then=Step.DONE),
)
flow.register(Step.PARSE, Split.over(words, run=per_item, then=Step.DONE))


@flow.task(Step.FETCH, Retry())
async def decorated(ctx: Context[Order]) -> Literal[Step.PARSE]:
    return Step.PARSE


@on(RunFailed, TaskFailed)
def alarm(event: RunFailed | TaskFailed) -> None:
    print(event.error)


def everything(event: Event) -> None:
    print(event.run_id)


bare = Workflow(Step, observers=[alarm, everything, on(StateEntered)(print)])
assert_type(bare, Workflow[Step, None])


async def main() -> None:
    assert_type(await flow.run(Step.FETCH, data=Order()), Step)
    handle = await flow.start_run(Step.FETCH)
    assert_type(handle, RunHandle[Step, Order])
    assert_type(await handle.result(), Step)
    assert_type(await handle.data(), Order)
    async for event in handle.events():
        assert_type(event, Event)


def look(result: SplitResult[int]) -> None:
    assert_type(result.values, tuple[int, ...])
    assert_type(result[0].value, int | None)


COUNT = Key("count", int)


def remember(store: MemoryStore) -> None:
    store.put(COUNT, 1)
    assert_type(store.get(COUNT), int)
    assert_type(store.get("names", list), list[Any])
