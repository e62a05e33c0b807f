"""Ends the work of a run from outside, as often as it takes."""

from __future__ import annotations

import asyncio
from typing import Any

from cano._deadline import AGAIN
from cano._lifecycle import OVER, Phase
from cano._run import Run


class Canceller:
    """Cancels the asyncio task that carries a run out, every 50 ms until the run heeds it."""

    __slots__ = ("_again", "_run", "_sent", "_task")

    def __init__(self, run: Run[Any], task: asyncio.Task[Any]) -> None:
        self._run = run
        self._task = task
        self._again: asyncio.Handle | None = None
        self._sent = 0

    @property
    def over(self) -> bool:
        """Whether there is nothing to cancel any more; resources then go down undisturbed."""
        return self._task.done() or self._run.phase in OVER

    def begin(self) -> None:
        """Cancel, once however often this is called."""
        if self._again is not None or self.over:
            return
        loop = self._task.get_loop()
        self._task.add_done_callback(self._let_go)
        if self._run.phase is Phase.NEW:
            # Not begun, or setting resources up: told once, and then left alone to take them down.
            self._send()
            self._again = loop.call_later(AGAIN, self._cancel)
        else:
            # Not at once: a task that is just returning would be cancelled with its result in hand.
            self._again = loop.call_soon(self._cancel)

    def end(self) -> None:
        """Stop, and take back what was sent: the task may have more to do than this run."""
        if self._again is not None:
            self._again.cancel()
        while self._sent:
            self._sent -= 1
            self._task.uncancel()

    def _send(self) -> None:
        self._sent += 1
        self._task.cancel()

    def _cancel(self) -> None:
        if self.over:
            return
        if self._run.phase is Phase.RUNNING:
            self._send()
        self._again = self._task.get_loop().call_later(AGAIN, self._cancel)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        if self._again is not None:
            self._again.cancel()
