"""Worker processes: started when needed, kept while they are, killed when told.

Rule 1: one thread per worker process speaks with it, blocking. So a call is `run_in_executor` like
        any other: on every event loop, on several one after the other, and in virtual time.
Rule 2: ending a call is killing its process, with all that it has started. The thread then finds
        the channel closed and cleans up, and the call is over when that is done, not before.
Rule 3: a process that died costs the call it was making, and nothing else.
Rule 4: the threads are daemons, and what still runs is killed at exit: a program never hangs on a
        call, and leaves none behind.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import IO, Any, TypeAlias
from weakref import WeakSet

from cano.errors import WorkerCrashedError
from cano.executors import _worker
from cano.executors._worker import LENGTH

IDLE = 60.0
"""Seconds after which a worker process without work is let go."""

Queued: TypeAlias = "tuple[Future[bytes], Callable[[Worker], bytes]]"

_POOLS: WeakSet[Pool] = WeakSet()
_RUNNING: set[Worker] = set()
"""The workers to end when the program does: at most the limits of all pools together."""


class Pool(Executor):
    """At most *limit* worker processes, and a queue of calls for them: first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._changed = Condition()
        self._calls: deque[Queued] = deque()
        self._threads = 0
        self._busy = 0

    async def call(self, request: bytes, name: str) -> bytes:
        """Have *request* answered. Cancelled, end what was begun, wait until it is gone.

        Raises `WorkerCrashedError`.
        """
        call = Call(request, name)
        make: Any = call.make  # the worker, which is its argument, is given by the thread
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().run_in_executor(self, make)
        cancelled: asyncio.CancelledError | None = None
        while not answer.done():
            try:
                await asyncio.wait((answer,))
            except asyncio.CancelledError as again:  # as often as somebody feels like it
                if not call.end():
                    answer.cancel()  # it waits in line, or for its process to start
                if cancelled is not None and again is not cancelled:
                    again.__context__ = cancelled  # whose it was is asked of all of them
                cancelled = again
            except GeneratorExit:  # the event loop was dropped with the call in flight
                call.end()
                raise
        if cancelled is None:
            return answer.result()
        if not answer.cancelled():
            answer.exception()  # seen, and not wanted any more
        raise cancelled

    def submit(self, make: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """For `run_in_executor`: queue `Call.make`, and see that there is a thread for it."""
        future: Future[bytes] = Future()
        with self._changed:
            self._calls.append((future, make))
            if len(self._calls) > self._threads - self._busy and self._threads < self.limit:
                self._threads += 1
                Thread(target=self._serve, name="cano-process", daemon=True).start()
            self._changed.notify()
        return future

    def _serve(self) -> None:
        """A thread: make calls in a process of its own until there are none for a while."""
        worker = Worker()
        while (found := self._next()) is not None:
            future, make = found
            error: BaseException | None = None
            answer = b""
            if wanted := future.set_running_or_notify_cancel():
                try:
                    answer = make(worker)
                except BaseException as raised:  # noqa: BLE001 -- it belongs to whoever waits
                    error = raised
            with self._changed:  # before anybody knows, who would start a process for the next call
                self._busy -= 1
            if error is not None:
                future.set_exception(error)
            elif wanted:
                future.set_result(answer)
        worker.end()

    def _next(self) -> Queued | None:
        """The next call; None if there was none for too long, and the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls, IDLE)
            if self._calls:
                self._busy += 1
                return self._calls.popleft()
            self._threads -= 1
            return None


class Call:
    """One call, from the event loop's side and from the thread's."""

    __slots__ = ("_ended", "_lock", "_name", "_request", "_worker")

    def __init__(self, request: bytes, name: str) -> None:
        self._request = request
        self._name = name
        self._lock = Lock()
        self._worker: Worker | None = None
        self._ended = False

    def make(self, worker: Worker) -> bytes:
        """In the thread: make the call. Raises `WorkerCrashedError`."""
        worker.start()
        with self._lock:
            if self._ended:
                raise WorkerCrashedError(f"{self._name} was ended before it began")
            self._worker = worker
        try:
            return worker.exchange(self._request)
        except (OSError, EOFError):
            raise WorkerCrashedError(
                f"{self._name}: worker process {worker.pid} {worker.end()} before it could answer"
            ) from None
        finally:
            with self._lock:  # from here on the process is somebody else's
                self._worker = None

    def end(self) -> bool:
        """In the loop: kill the process that makes the call. False if there is none to wait for."""
        with self._lock:
            if self._worker is not None and not self._ended:
                self._worker.kill()
            self._ended = True
            return self._worker is not None


class Worker:
    """A worker process. All but `kill` is for its thread alone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """See that there is a living process. Raises `WorkerCrashedError`."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.end()  # it died without work, which is no call's fault
        # A group of its own: what user code starts ends with it, and a Ctrl-C is not for it.
        program = str(Path(_worker.__file__).resolve())
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- this very Python
                [sys.executable, "-u", "-P", program],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0 if os.name == "posix" else None,
            )
        except OSError as error:
            raise WorkerCrashedError(f"no worker process could be started: {error}") from error
        _RUNNING.add(self)
        path = [entry or str(Path.cwd()) for entry in sys.path]
        with suppress(OSError):  # `exchange` will notice, too
            self._send(pickle.dumps((path, sys.argv)))

    def exchange(self, request: bytes) -> bytes:
        """Send, wait, receive. Raises `OSError` or `EOFError` when the process is no more."""
        self._send(request)
        (length,) = LENGTH.unpack(self._receive(LENGTH.size))
        return self._receive(length)

    def kill(self) -> None:
        """End the process and what it has started, whatever they do. From any thread."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    def end(self) -> str:
        """Have no process any more, and say how the last one ended."""
        process = self._process
        if process is None:
            return "was not started"
        # Where the channel is closed the process is dying already, and this changes no exit code.
        # But it may have started others, which go before its number may be used again.
        self.kill()
        code = process.wait()
        for channel in (process.stdin, process.stdout):
            assert channel is not None  # noqa: S101 -- asked for as pipes
            channel.close()
        self._process = None
        _RUNNING.discard(self)
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def _send(self, body: bytes) -> None:
        channel = self._channel("stdin")
        rest = memoryview(LENGTH.pack(len(body)) + body)
        while rest:
            rest = rest[channel.write(rest) :]

    def _receive(self, length: int) -> bytes:
        channel = self._channel("stdout")
        parts: list[bytes] = []
        while length:
            part = channel.read(length)
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _channel(self, name: str) -> IO[bytes]:
        channel: IO[bytes] = getattr(self._process, name)
        return channel


def _end_all() -> None:
    workers = _RUNNING.copy()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.end()


def _forget() -> None:
    """In a forked process: the workers are the parent's, and the threads are gone."""
    _RUNNING.clear()
    for pool in _POOLS:
        pool._reset()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
