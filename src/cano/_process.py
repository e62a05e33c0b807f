"""Which process this is, and whether another one still lives: on this machine that can be known."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from cano._clock import time_ordered_id
from cano.checkpoints.store import Owner


def new_owner() -> Owner:
    """An owner of this process that never was before."""
    from platform import node  # noqa: PLC0415 -- only who has a store pays for it

    pid = os.getpid()
    return Owner(f"{node()}:{pid}:{time_ordered_id()[-8:]}", here(), pid, started(pid))


@cache
def here() -> str:
    """The machine, its boot, and the namespace in which process numbers count.

    Containers may share a machine's name, and its disk, but not its process numbers.
    """
    from platform import node  # noqa: PLC0415 -- only who has a store pays for it

    parts = [node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def started(pid: int) -> str:
    """When the process started, in ticks since boot; empty where that cannot be known."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name before, in brackets, may hold anything


def dead(owner: Owner) -> bool:
    """Whether it is certain that the process of *owner*, on this machine, is gone."""
    if owner.host != here() or sys.platform == "win32":
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, but not ours
        pass
    fields = _stat(owner.pid)
    if not fields:
        return False
    zombie = fields[0] == "Z"  # ended, though its parent has not asked how
    return zombie or bool(owner.started and fields[19] != owner.started)
