"""Workflows for the tests of the commands: a right one, a wrong one, a slow one."""

import asyncio
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from cano import Context, Resources, Retry, Workflow


class Step(Enum):
    FETCH = 1
    PACK = 2
    DONE = 3


@dataclass
class Order:
    total: int = 0
    note: str = ""


failures = iter([OSError("no line")])


async def fetch(ctx: Context[Order]) -> Literal[Step.PACK]:
    for failure in failures:
        raise failure
    return Step.PACK


async def pack(ctx: Context[Order]) -> Literal[Step.DONE]:
    if ctx.data.total < 0:
        raise ValueError("negative total")
    ctx.data.note = "packed"
    return Step.DONE


async def wait(ctx: Context[None]) -> Literal[Step.DONE]:
    print("waiting", file=sys.stderr, flush=True)
    await asyncio.sleep(600)
    return Step.DONE


class Door:
    async def setup(self):
        pass

    async def teardown(self):
        print("door closed", file=sys.stderr, flush=True)


def make() -> Workflow[Step, Order]:
    return (
        Workflow(Step, data=Order, start=Step.FETCH, name="orders")
        .register(Step.FETCH, fetch, Retry.fixed(2, 0.0))
        .register(Step.PACK, pack)
        .exits(Step.DONE)
    )


flow = make()
broken = Workflow(Step, start=Step.FETCH).register(Step.FETCH, fetch)
slow = (
    Workflow(Step, resources=Resources(door=Door()))
    .register(Step.FETCH, wait)
    .exits(Step.PACK, Step.DONE)
)
brief = slow.copy()
brief.timeout = 0.05


def takes(url):
    return flow


def explodes():
    raise RuntimeError("no such luck")
