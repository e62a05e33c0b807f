"""Functions for `test_process` and `test_process_ends`: worker processes import them from here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, Literal

import msgspec

from cano import Context, Task, process


class Step(Enum):
    WORK = auto()
    REPORT = auto()
    DONE = auto()


@dataclass
class Order:
    total: int = 1
    lines: list[str] = field(default_factory=lambda: ["first"])
    anything: Any = None


@dataclass(frozen=True)
class FrozenOrder:
    total: int = 1
    lines: tuple[str, ...] = ("first",)


class StructOrder(msgspec.Struct):
    total: int = 1
    lines: list[str] = msgspec.field(default_factory=lambda: ["first"])


def add(ctx: Context[Any]) -> Literal[Step.DONE]:
    """Change every field of the run's data, in place where it can be."""
    if isinstance(ctx.data, FrozenOrder):
        ctx.data = replace(ctx.data, total=2, lines=("first", "second"))
    else:
        ctx.data.total += 1
        ctx.data.lines.append("second")
    return Step.DONE


def add_and_fail(ctx: Context[Order]) -> Literal[Step.DONE]:
    add(ctx)
    raise ValueError("after the change")


def add_in_a_branch(ctx: Context[Order]) -> int:
    add(ctx)
    return ctx.data.total


def known(ctx: Context[Order]) -> tuple[Any, ...]:
    return ctx.run_id, ctx.state, ctx.data, ctx.attempt, ctx.branch and ctx.branch.name, ctx.item


def ask(ctx: Context[Order], what: str) -> Any:
    return getattr(ctx, what)


def add_up(ctx: Context[Order]) -> Literal[Step.DONE]:
    assert ctx.split is not None
    ctx.data.total = sum(ctx.split.values)
    return Step.DONE


def double(ctx: Context[Any], item: int) -> int:
    return 2 * item


def same(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def tell_pid(file: Path) -> None:
    """Write this process's number down, whole or not at all."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(str(os.getpid()))
    draft.replace(file)


def hang(file: Path) -> None:
    tell_pid(file)
    time.sleep(60)


def spin(file: Path) -> None:
    tell_pid(file)
    while True:
        pass


def start_another(file: Path) -> None:
    """Hang with a program started, whose number is written down instead."""
    program = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.run([sys.executable, "-S", "-c", program, str(file)], check=False)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def meet(folder: Path, number: int, wanted: int) -> int:
    """Wait until so many calls are here at once, and return how many there were at most."""
    here = folder / f"{number}"
    here.touch()
    most = 0
    for _ in range(5 if wanted == 1 else 1000):  # longer than it takes, for more to come in
        most = max(most, len([*folder.iterdir()]))
        time.sleep(0.01)
        if most >= wanted > 1:
            break
    here.unlink()
    return most


def racer(ctx: Context[Any], file: Path) -> str:
    """Hang, but for the one whose file is named so."""
    tell_pid(file)
    if file.name != "winner":
        time.sleep(60)
    while len([*file.parent.glob("loser?")]) < 2:  # until it is a race
        time.sleep(0.01)
    return file.name


def leave(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "sys.exit":
        sys.exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_once(ctx: Context[Any], file: Path) -> Literal[Step.DONE]:
    if not file.exists():
        file.touch()
        os._exit(1)
    return Step.DONE


class OrderError(Exception):
    def __init__(self, order: int, reason: str) -> None:
        super().__init__(f"order {order}: {reason}")
        self.order = order

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderError, (self.order, "kept"), None


class StubbornError(Exception):
    """Can be pickled, but not brought back."""

    def __init__(self, order: int, reason: str) -> None:
        super().__init__(f"order {order}: {reason}")


def fail(kind: str) -> None:
    if kind == "its own":
        raise OrderError(5, "kept")
    if kind == "stubborn":
        raise StubbornError(5, "stubborn")
    raise ValueError(kind)


def a_lock() -> Any:
    return threading.Lock()


def put_a_lock(ctx: Context[Order]) -> Literal[Step.DONE]:
    ctx.data.anything = threading.Lock()
    return Step.DONE


def with_resource(ctx: Context[Any], db: Any) -> Literal[Step.DONE]:
    return Step.DONE


def chatter() -> str:
    """Be loud, as a program started by a function may be."""
    print("to stdout")
    program = "import sys; sys.stderr.write('x' * 300_000)"
    subprocess.run([sys.executable, "-S", "-c", program], check=True)
    return sys.stdin.read()


@process
def decorated(value: int) -> int:
    return value + 1


class Parse(Task[Step]):
    @process
    def run(self, ctx: Context[Any]) -> Literal[Step.DONE]:
        return Step.DONE
