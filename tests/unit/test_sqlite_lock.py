"""The lock beside the file: one holder, bounded waiting, no one left out, none left behind."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep

import pytest

from cano.checkpoints._sqlite_lock import FileLock
from cano.errors import CheckpointError


def test_one_holder(tmp_path: Path) -> None:
    """Of two who want the lock the second waits, and is told who has it when it waits in vain."""
    first, second = FileLock(tmp_path / "l", 1.0), FileLock(tmp_path / "l", 0.05)
    with first, pytest.raises(CheckpointError, match=f"held by process {os.getpid()} for 0.05 s"):
        second.__enter__()
    with second:
        pass
    first.close()
    second.close()


def test_nobody_is_left_out(tmp_path: Path) -> None:
    """A holder that takes the lock again and again lets the one who waits have it soon."""
    stop = threading.Event()
    greedy, patient = FileLock(tmp_path / "l", 9.0), FileLock(tmp_path / "l", 9.0)

    def hold() -> None:
        while not stop.is_set():
            with greedy:
                sleep(0.001)

    thread = threading.Thread(target=hold)
    thread.start()
    start = perf_counter()
    for _ in range(20):
        with patient:
            pass
    took = perf_counter() - start
    stop.set()
    thread.join()
    greedy.close()
    patient.close()

    assert took < 4.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("child", [lambda: None, lambda: sleep(30)], ids=["ends", "stays"])
def test_a_fork_does_not_keep_the_lock(tmp_path: Path, child: Callable[[], None]) -> None:
    """A child forked while the lock was held does not hold it when its parent closed it."""
    held, other = FileLock(tmp_path / "l", 1.0), FileLock(tmp_path / "l", 1.0)
    held.__enter__()
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    held.close()
    try:
        with other:
            pass
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        other.close()
