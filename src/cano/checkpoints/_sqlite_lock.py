"""One lock between all processes that write to a file: a file beside it.

The operating system lets go of it when its holder ends, however it ends; what the file says is
only to name the holder. It may lie there for ever, and must not be deleted while it is in use.

Whoever waits leaves a mark, and whoever had the lock last and finds the mark steps back for a
moment: a process that writes without pause would keep the others waiting.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path
from time import sleep

from cano.errors import CheckpointError

if sys.platform == "win32":
    import msvcrt

    def _take(fd: int) -> None:
        os.lseek(fd, 1 << 20, os.SEEK_SET)  # behind the name, which others must be able to read
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _give(fd: int) -> None:
        os.lseek(fd, 1 << 20, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def _read(fd: int) -> bytes:
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, _WIDTH + 1)

    def _write(fd: int, text: bytes, at: int) -> None:
        os.lseek(fd, at, os.SEEK_SET)
        os.write(fd, text)
else:
    import fcntl

    def _take(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def _read(fd: int) -> bytes:
        return os.pread(fd, _WIDTH + 1, 0)

    def _write(fd: int, text: bytes, at: int) -> None:
        os.pwrite(fd, text, at)


_WIDTH = 32
_FIRST_PAUSE, _LONGEST_PAUSE, _STEP_BACK = 0.0005, 0.01, 0.003


class FileLock:
    """Held with ``with``, by one thread at a time; waiting for it ends after *patience* seconds."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._name = f"process {os.getpid()}".ljust(_WIDTH).encode()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        _locks.add(self)

    def __enter__(self) -> None:
        fd = self._fd
        said = _read(fd)
        if len(said) > _WIDTH and said.startswith(self._name):
            sleep(_STEP_BACK)  # it was ours last, and somebody waits
        try:
            _take(fd)
        except OSError:
            self._wait()
        if said != self._name:
            os.truncate(fd, 0) if len(said) > _WIDTH else None
            _write(fd, self._name, 0)

    def __exit__(self, *exc: object) -> None:
        _give(self._fd)

    def close(self) -> None:
        """Let go of the lock, if it is held, and of its file."""
        _locks.discard(self)
        os.close(self._fd)

    def _wait(self) -> None:
        waited, pause = 0.0, _FIRST_PAUSE
        while waited < self._patience:
            _write(self._fd, b"w", _WIDTH)
            sleep(pause)
            waited += pause
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            with contextlib.suppress(OSError):
                return _take(self._fd)
        holder = _read(self._fd)[:_WIDTH].decode(errors="replace").strip() or "another process"
        raise CheckpointError(
            f"{self._path} was held by {holder} for {self._patience:g} s; see what it is doing, "
            "or allow more with busy_timeout"
        )


_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forked() -> None:
    """Let go of the parent's locks: they would outlive the parent in us."""
    for lock in list(_locks):
        with contextlib.suppress(OSError):
            lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
