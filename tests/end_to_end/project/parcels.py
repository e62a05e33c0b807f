"""A workflow whose run data is a pydantic model."""

from enum import Enum
from typing import Literal

from pydantic import BaseModel

from cano import Context, Workflow


class Step(Enum):
    WEIGH = 1
    DONE = 2


class Parcel(BaseModel):
    weight: float = 1.0


async def weigh(ctx: Context[Parcel]) -> Literal[Step.DONE]:
    ctx.data.weight *= 2
    return Step.DONE


flow = Workflow(Step, data=Parcel, start=Step.WEIGH).register(Step.WEIGH, weigh).exits(Step.DONE)
