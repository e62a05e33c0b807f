"""Work in steps: after a crash the next process goes on from the last page.

`Copy` reads a book page by page. Each step returns how far it got, and that cursor is on disk, with
what the step changed of the run data, before the next step begins. The process dies in the middle
(here: an exception that nobody handles), the next one opens the same file and resumes the run: the
page that was being copied is copied again, those before are not.

Prints:
    process 1: page 1
    process 1: page 2
    process 1: page 3, and the power fails
    process 2: page 3
    process 2: page 4
    -> DONE, 4 pages, 1234 words
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cano import Context, Done, More, SqliteCheckpoints, SteppedTask, Workflow

BOOK = {1: 301, 2: 422, 3: 198, 4: 313}
"""Words by page."""


class Step(StrEnum):
    COPY = auto()
    DONE = auto()


@dataclass
class Copied:
    pages: int = 0
    words: int = 0


class PowerFailure(BaseException):
    """Ends the process, as far as the run is concerned."""


class Copy(SteppedTask[Step, int]):
    def __init__(self, process: int) -> None:
        self.process = process

    async def step(
        self, ctx: Context[Copied], cursor: int | None
    ) -> More[int] | Done[Literal[Step.DONE]]:
        page = (cursor or 0) + 1
        if page not in BOOK:
            return Done(Step.DONE)
        fails = self.process == 1 and page == 3
        print(f"process {self.process}: page {page}" + ", and the power fails" * fails)
        if fails:
            raise PowerFailure
        ctx.data.pages += 1
        ctx.data.words += BOOK[page]
        return More(page)


async def process(number: int, path: Path) -> None:
    """One life: whatever is left of the one before is in the file."""
    async with SqliteCheckpoints(path) as store:
        # A real process that died holds no lease; this one only plays dead, so its lease is short.
        flow = Workflow(Step, data=Copied, checkpoints=store, lease=0.1).exits(Step.DONE)
        flow.register(Step.COPY, Copy(number))
        state = await flow.run(Step.COPY, run_id="moby-dick", wait=True)
        copied = await flow.handle("moby-dick").data()
        print(f"-> {state.name}, {copied.pages} pages, {copied.words} words")


def main() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with suppress(PowerFailure):
            asyncio.run(process(1, path))
        asyncio.run(process(2, path))


if __name__ == "__main__":
    main()
