"""A workflow that cannot be right says so before its first task runs: everything at once.

The annotations are the graph, so a state without a task, a loop without a way out, a vote that
cannot be won are found by looking. `check` raises with a remedy for each of them, or returns the
graph: here as text, and as Mermaid, which GitHub draws.

Prints:
    7 problems:
    - REJECTED has no task and is not an exit; register a task or pass it to exits()
    - REVISE can never reach an exit (it leads to REVISE); return a state that does
    - WRITE: Timeout(...60) outlasts the 30 s a whole run has; ...
    - REVIEW: Quorum(...4) can never be met by 3 branches; lower it or add branches
    - TYPESET: typeset wants a resource named 'press'; pass Resources(press=...) to the workflow...
    - REVISE cannot be reached from WRITE; lead some task to it, or remove it
    - REJECTED cannot be reached from WRITE; lead some task to it, or remove it
    article
    → WRITE write ⟶ REVIEW
    ...
    ■ PUBLISHED exit
    flowchart TD
    ...
    REVIEW -. otherwise .-> REVISE
    ...
"""

from enum import StrEnum, auto
from typing import Literal

from cano import Context, DefinitionError, Resources, Split, Timeout, Workflow
from cano.join import Quorum


class Step(StrEnum):
    WRITE = auto()
    REVIEW = auto()
    REVISE = auto()
    TYPESET = auto()
    PUBLISHED = auto()
    REJECTED = auto()


class Press: ...


async def write(ctx: Context[None]) -> Literal[Step.REVIEW]:
    return Step.REVIEW


async def ada(ctx: Context[None]) -> bool:
    return True


async def bob(ctx: Context[None]) -> bool:
    return True


async def cyd(ctx: Context[None]) -> bool:
    return False


async def revise(ctx: Context[None]) -> Literal[Step.REVISE]:
    return Step.REVISE


async def typeset(ctx: Context[None], press: Press) -> Literal[Step.PUBLISHED]:
    return Step.PUBLISHED


def broken() -> Workflow[Step, None]:
    return (
        Workflow(Step, start=Step.WRITE, timeout=30, name="article")
        .register(Step.WRITE, write, Timeout(60))
        .register(Step.REVIEW, Split([ada, bob, cyd], join=Quorum(4), then=Step.TYPESET))
        .register(Step.REVISE, revise)
        .register(Step.TYPESET, typeset)
        .exits(Step.PUBLISHED)
    )


async def improve(ctx: Context[None]) -> Literal[Step.REVIEW, Step.REJECTED]:
    return Step.REVIEW if len(ctx.path) < 9 else Step.REJECTED


def mended() -> Workflow[Step, None]:
    votes = Split([ada, bob, cyd], join=Quorum(2), then=Step.TYPESET)
    return (
        Workflow(
            Step, start=Step.WRITE, timeout=30, name="article", resources=Resources(press=Press())
        )
        .register(Step.WRITE, write, Timeout(20))
        .register(Step.REVIEW, votes, otherwise=Step.REVISE)
        .register(Step.REVISE, improve)
        .register(Step.TYPESET, typeset)
        .exits(Step.PUBLISHED, Step.REJECTED)
    )


def main() -> None:
    try:
        broken().check()
    except DefinitionError as error:
        print(error)
    graph = mended().check()
    print(f"\n{graph}\n\n{graph.mermaid()}")


if __name__ == "__main__":
    main()
