"""How a scheduler stops, in a time that is known beforehand."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from cano._deadline import AGAIN
from cano.errors import CheckpointError
from cano.scheduler._entries import Entry
from cano.scheduler._fires import Fires, log
from cano.workflow import Workflow

Mode: TypeAlias = Literal["finish", "cancel", "release"]

AT_LEAST = 1.0
"""Seconds that what was cancelled is given to end, however little *grace* there is."""

_left_alone: set[asyncio.Task[Any]] = set()
"""What did not end in time. asyncio itself would not keep it from being collected."""


class Scopes:
    """The workflows whose resources are up, and whose abandoned runs are carried on."""

    def __init__(self) -> None:
        self._entered: list[Workflow[Any, Any]] = []

    async def enter(self, workflow: Workflow[Any, Any]) -> None:
        """Open the scope of *workflow*, once."""
        if any(workflow is other for other in self._entered):
            return
        self._entered.append(workflow)
        try:
            await workflow.__aenter__()
        except BaseException:
            self._entered.remove(workflow)
            raise

    async def stop_sweeping(self) -> None:
        """Carry on no more abandoned runs, or what is let go of would be taken up again here."""
        for workflow in self._entered:
            if workflow._stored is not None:
                await workflow._stored.stop_sweeping()

    async def leave(self, wait: float, end: float) -> None:
        """Close the scopes, the last one first: wait for runs until *wait*, then end them.

        What has not ended at *end* is left alone, and its resources go down when it has.
        """
        for workflow in reversed(self._entered):
            task: asyncio.Task[Any] = asyncio.ensure_future(workflow.__aexit__(None, None, None))
            await asyncio.sleep(0)  # it has to have begun to be cancelled
            await _done((task,), wait)
            if not task.done():
                task.cancel()
                await _done((task,), end)
            if not task.done():
                log.warning("%s has runs that do not end; its resources stay up", workflow.name)
                _left_alone.add(task)
                task.add_done_callback(_left_alone.discard)
            task.add_done_callback(_complain)
        self._entered.clear()


class Shutdown:
    """The end of a scheduler, once however often it is asked for."""

    def __init__(
        self, fires: Fires, entries: Sequence[Entry], scopes: Scopes, mode: Mode, grace: float
    ) -> None:
        self._fires = fires
        self._entries = entries
        self._scopes = scopes
        self._mode: Mode = mode
        self._grace = grace
        self._hurry = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        fires.close()
        self._task: asyncio.Task[tuple[str, ...]] = self._loop.create_task(self._shut())

    @property
    def over(self) -> bool:
        """Whether everything that could be ended has ended."""
        return self._task.done()

    def hurry(self, mode: Mode) -> None:
        """Wait no longer for runs to finish."""
        self._mode = mode
        self._hurry.set()

    async def wait(self) -> tuple[str, ...]:
        """Wait for the end; the runs that did not. Cancelling this makes it hurry."""
        cancelled = False
        while not self._task.done():
            try:
                await asyncio.wait((self._task,))
            except CancelledError:
                cancelled = True
                self.hurry("release")
        if cancelled:
            raise CancelledError
        return self._task.result()

    async def _shut(self) -> tuple[str, ...]:
        finish = self._loop.time()
        if self._mode != "cancel":  # what waits is woken to be cancelled
            await self._scopes.stop_sweeping()
        if self._mode == "finish":
            finish += self._grace
            await self._let_finish(finish)
        end = self._loop.time() + max(self._grace, AT_LEAST)
        await self._end_runs(end)
        wait = finish if self._mode == "finish" else 0.0
        await self._scopes.leave(wait, end)
        left = tuple(run_id for entry in self._entries for run_id in entry.carried)
        if left:
            log.warning("runs that do not end: %s", ", ".join(left))
        await self._drop(task for entry in self._entries for task in entry.tasks)
        return left

    async def _let_finish(self, until: float) -> None:
        hurry = self._loop.create_task(self._hurry.wait())
        try:
            while (work := self._work()) and not hurry.done() and self._loop.time() < until:
                await _done((*work, hurry), until, asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()

    async def _end_runs(self, until: float) -> None:
        """End what runs, again and again until it has or the time is up."""
        asked: set[str] = set()
        while (work := self._work()) and self._loop.time() < until:
            for entry in self._entries:
                for run_id in list(entry.carried):
                    self._end(entry, run_id, asked)
            await _done(work, min(until, self._loop.time() + AGAIN))

    def _end(self, entry: Entry, run_id: str, asked: set[str]) -> None:
        handle, stored = entry.held.get(run_id), entry.flow.workflow.checkpoints is not None
        if stored and self._mode != "cancel":
            if handle is None or handle._task.done():
                entry.carried[run_id].cancel()  # else it would wait for whoever carries it on
            else:
                handle._task.cancel()
        elif handle is not None and run_id not in asked:
            asked.add(run_id)
            entry.spawn(self._cancel(entry, run_id))

    async def _cancel(self, entry: Entry, run_id: str) -> None:
        try:
            await entry.held[run_id].cancel()
        except CheckpointError as error:
            log.warning("run %r was not cancelled, only let go of: %s", run_id, error)
            self._mode = "release"

    def _work(self) -> list[asyncio.Task[Any]]:
        return [task for entry in self._entries for task in entry.carried.values()]

    async def _drop(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """End what only waits."""
        waiting = [task for task in tasks if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await _done(waiting, self._loop.time() + AT_LEAST)


async def _done(
    tasks: Sequence[asyncio.Task[Any]], until: float, when: str = asyncio.ALL_COMPLETED
) -> None:
    """Wait until *tasks* are done, or it is *until*."""
    if tasks:
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait(tasks, timeout=max(left, 0.0), return_when=when)


def _complain(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a workflow did not close as it should", exc_info=error)
