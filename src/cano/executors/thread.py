"""Ordinary functions in threads, a bounded number at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ClassVar, TypeVar

from cano.executors.offload import Offloaded, P, name_of

T = TypeVar("T")

LIMIT = 32
"""How many functions without a limit of their own run in threads at once, all together."""


def thread(
    function: Callable[P, T], /, *, limit: int | None = None
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make *function* an async one that runs in a thread: for work that waits or releases the GIL.

    Usable as a task, as a branch of a split, as a decorator, and by itself::

        flow.register(Step.READ, thread(read))
        text = await thread(path.read_text)()

    At most 32 such calls run at once in the whole program, the others wait in line; with *limit*,
    the function has threads of its own, so many, however often it is called. (So wrap it once,
    not per call.) Context variables are copied.

    A thread cannot be stopped. A timeout or a cancellation *abandons* a call that has begun: it
    goes on, what it returns or raises is dropped, and it keeps its place in the limit until it
    returns. What it does meanwhile, to `ctx.data` for instance, is still done, and a retry may run
    beside it. One that has not begun never will. Where that will not do, use `process`.

    In the thread, `ctx` is there to read, and its data to change; announcing and recording belong
    to the event loop. Raises `DefinitionError` for a function that is async already.
    """
    return _Thread(function, limit)


class _Thread(Offloaded[P, T]):
    where: ClassVar[str] = "thread"

    def __init__(self, function: Callable[P, T], limit: int | None) -> None:
        super().__init__(function, limit)
        self._threads = _SHARED if limit is None else _Threads(limit)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        function = self.__wrapped__
        context = copy_context()
        # `run_in_executor` and nothing else, because virtual time stands still for it.
        return await asyncio.get_running_loop().run_in_executor(
            self._threads.executor,
            lambda: context.run(lambda: _call(function, *args, **kwargs)),
        )


class _Threads:
    """An executor made when it is first needed, and made anew in a forked process."""

    __slots__ = ("_executor", "_pid", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0

    @property
    def executor(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork, but an executor believes that they do.
        if self._executor is None or self._pid != os.getpid():
            self._executor = ThreadPoolExecutor(self.limit, thread_name_prefix="cano-thread")
            self._pid = os.getpid()
        return self._executor


_SHARED = _Threads(LIMIT)


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:  # a future refuses it, and whoever waits would wait for ever
        raise RuntimeError(f"{name_of(function)} raised StopIteration") from stop
