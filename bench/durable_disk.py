"""The disk that is measured: that of the checkout, and how to make it slower."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.harness import ROOT

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

static void wait_first(void) {
    struct timespec left = {0, NANOSECONDS};
    while (nanosleep(&left, &left) == -1 && errno == EINTR);
}

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return real(file);
}
"""


@cache
def _held() -> TemporaryDirectory[str]:
    """Beside the sources, because a system's temporary directory may be in memory."""
    (ROOT / "build").mkdir(exist_ok=True)
    return TemporaryDirectory(prefix="bench-", dir=ROOT / "build")  # removed at exit


def directory() -> Path:
    """Where this process keeps its files."""
    return Path(_held().name)


@contextmanager
def new_file() -> Generator[Path]:
    """A path for a database, which is gone afterwards."""
    with TemporaryDirectory(dir=directory()) as here:
        yield Path(here) / "runs.db"


def filesystem() -> str:
    """The type of the filesystem below `directory`."""
    here, found = str(directory()), ("", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if here.startswith(place) and len(place) >= len(found[0]):
            found = place, kind
    return found[1]


def sync_time() -> float:
    """The seconds that appending a little and syncing it takes: the median of many."""
    taken: list[float] = []
    with new_file() as path, path.open("ab", buffering=0) as file:
        for _ in range(200):
            before = perf_counter()
            file.write(b"x" * 256)
            os.fdatasync(file.fileno())
            taken.append(perf_counter() - before)
    return median(taken)


@cache
def compiler() -> str | None:
    """What compiles the shim, if there is one, and a linker that heeds LD_PRELOAD."""
    return (shutil.which("gcc") or shutil.which("cc")) if sys.platform == "linux" else None


@cache
def _shim(nanoseconds: int) -> Path:
    source, library = directory() / "slow.c", directory() / "slow.so"
    source.write_text(SHIM, encoding="ascii")
    define = f"-DNANOSECONDS={nanoseconds}"
    subprocess.run(
        [compiler() or "cc", define, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    return library


def on_slow_disk(added: float, *arguments: str) -> str:
    """What a process of its own prints, where every sync takes *added* seconds longer."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    preload = str(_shim(int(added * 1e9)))
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "LD_PRELOAD": preload},
    )  # fmt: skip
    return done.stdout
