"""A node: prepare, do, decide; only the middle phase is tried again.

`Summarise` gathers the text once, asks a language model that is busy at first, and decides on its
answer. `Retry` goes around `exec` alone: neither `prep` nor `post` runs twice.

Prints:
    prep: 2 documents
    exec, attempt 1: busy
    exec, attempt 2: busy
    exec, attempt 3
    post: 'Cats sleep. Dogs bark.'
    -> PUBLISH
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Node, Resources, Retry, Workflow


class Step(StrEnum):
    SUMMARISE = auto()
    PUBLISH = auto()
    DISCARD = auto()


@dataclass
class Press:
    documents: list[str] = field(
        default_factory=lambda: ["Cats sleep all day long.", "Dogs bark at night."]
    )
    summary: str = ""


class LanguageModel:
    """Stands for a service on the network."""

    async def ask(self, texts: list[str]) -> str:
        return " ".join(" ".join(text.split()[:2]) + "." for text in texts)


class Summarise(Node[Step, list[str], str]):
    async def prep(self, ctx: Context[Press]) -> list[str]:
        print(f"prep: {len(ctx.data.documents)} documents")
        return ctx.data.documents

    async def exec(self, ctx: Context[Press], prepared: list[str], model: LanguageModel) -> str:
        busy = ctx.attempt < 3
        print(f"exec, attempt {ctx.attempt}" + ": busy" * busy)
        if busy:
            raise ConnectionError("busy")
        return await model.ask(prepared)

    async def post(self, ctx: Context[Press], result: str) -> Literal[Step.PUBLISH, Step.DISCARD]:
        print(f"post: {result!r}")
        ctx.data.summary = result
        return Step.PUBLISH if result else Step.DISCARD


flow = Workflow(Step, data=Press, resources=Resources(model=LanguageModel()))
flow.register(Step.SUMMARISE, Summarise(), Retry(delay=0.01)).exits(Step.PUBLISH, Step.DISCARD)


def main() -> None:
    state = asyncio.run(flow.run(Step.SUMMARISE))
    print(f"-> {state.name}")


if __name__ == "__main__":
    main()
