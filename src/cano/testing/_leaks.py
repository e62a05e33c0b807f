"""A test in virtual time, and the asyncio tasks that it leaves behind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import cano
from cano.testing.clock import VirtualLoop, advance, jump, now, waits_at

SHOWN = 20
"""How many leaked tasks are listed."""

CLOSING = 60.0
"""Virtual seconds that an async generator may take to close."""


class LeakedTasksError(AssertionError):
    """A test was over, and asyncio tasks that it had begun were not."""


class Settings(NamedTuple):
    """What `VirtualLoop` is made with."""

    at: datetime | None = None
    limit: float | None = None

    @classmethod
    def of(cls, at: datetime | str | None = None, limit: float | None = None) -> Self:
        """The settings, *at* being written as text too; checked by the loop that they make."""
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        VirtualLoop(moment, limit).close()
        return cls(moment, limit)


class VirtualTime:
    """The virtual time of a test."""

    @property
    def elapsed(self) -> float:
        """Seconds since the test began."""
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """See `cano.testing.now`."""
        return now()

    async def advance(self, seconds: float = 0.0) -> None:
        """See `cano.testing.advance`."""
        await advance(seconds)

    def jump(self, seconds: float) -> None:
        """See `cano.testing.jump`."""
        jump(seconds)


def run_watched(main: Coroutine[Any, Any, object], settings: Settings) -> None:
    """Run *main* in virtual time. Raises `LeakedTasksError` if it leaves tasks behind."""
    with asyncio.Runner(loop_factory=partial(VirtualLoop, *settings)) as runner:
        births: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()

        def make(
            loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any
        ) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
            births[task] = _created()
            return task

        runner.get_loop().set_task_factory(make)  # type: ignore[arg-type]
        runner.run(_watched(main, births))


async def _watched(
    main: Coroutine[Any, Any, object], births: WeakKeyDictionary[asyncio.Task[Any], str]
) -> None:
    await main
    await advance()  # what only has to come to its end comes to it
    left = asyncio.all_tasks() - {asyncio.current_task()}
    closing = {task for task in left if _closes_a_generator(task)}
    if closing:  # which the test has left in the middle: asyncio's own work, not the test's
        await asyncio.wait(closing, timeout=CLOSING)
    if left := left - closing:
        tasks = sorted(left, key=lambda task: task.get_name())
        lines = [f"  {_described(task, births)}" for task in tasks[:SHOWN]]
        if len(tasks) > SHOWN:
            lines.append(f"  and {len(tasks) - SHOWN} more")
        count = f"{len(tasks)} asyncio task{'s' if len(tasks) > 1 else ''}"
        listed = "\n".join(lines)
        raise LeakedTasksError(f"left {count} running: await or cancel what it starts\n{listed}")


def _closes_a_generator(task: asyncio.Task[Any]) -> bool:
    return type(task.get_coro()).__name__ == "async_generator_athrow"


def _described(task: asyncio.Task[Any], births: WeakKeyDictionary[asyncio.Task[Any], str]) -> str:
    name = getattr(task.get_coro(), "__qualname__", "?")
    born = births.get(task, "somewhere")
    return f"{task.get_name()} ({name}), created {born}, waits {waits_at(task)}"


def _created() -> str:
    """Where the task that is being made was asked for: the user's own line, if there is one."""
    frame: FrameType | None = sys._getframe(2)
    fallback = ""
    while frame is not None:
        code = frame.f_code
        where = f"in {code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        if not code.co_filename.startswith(_ASYNCIO):
            if not code.co_filename.startswith(_CANO):
                return where
            fallback = fallback or where
        frame = frame.f_back
    return fallback or "somewhere"


_ASYNCIO, _CANO = (
    os.path.dirname(module.__file__ or "") + os.sep  # noqa: PTH120 -- compared with file names
    for module in (asyncio, cano)
)
