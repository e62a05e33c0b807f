"""The other end of `process`: a program that makes one call after the other.

Rule 1: it imports nothing of cano, so that it starts in the time Python itself needs.
Rule 2: requests come in through what was stdin, answers go out through what was stdout. Both are
        moved out of reach: user code reads an empty stdin, and what it prints goes to stderr.
Rule 3: every request gets one answer. Whatever is no `Exception` ends the process instead, which
        the caller sees as a crash.
Rule 4: it does not outlive the program, even if that is killed in the middle of a call.
"""

from __future__ import annotations

import _thread
import importlib
import os
import pickle
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType, ModuleType
from typing import Any

LENGTH = struct.Struct("!Q")
"""Comes before every request and answer."""

loading_main = False
"""Whether the program's main module is being loaded; it must not start work meanwhile."""


def main() -> None:
    """Answer until there is nobody to answer to."""
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # a program without a stderr
        os.dup2(nothing, 1)
    if hasattr(os, "register_at_fork"):
        # A process forked by user code would keep the channel open after this one has died.
        os.register_at_fork(after_in_child=partial(_close, inbox, outbox))
    # A Ctrl-C is for the program, which ends this process if it has to; other than ignoring it,
    # a handler is not inherited by programs that user code runs.
    signal.signal(signal.SIGINT, _ignore)
    if hasattr(select, "poll"):
        _thread.start_new_thread(_die_with_the_program, (outbox,))
    # Never closed by this process, so that their end is its end. Buffered: one read per request.
    requests = os.fdopen(inbox, "rb", closefd=False)
    answers = os.fdopen(outbox, "wb", closefd=False)
    if not (setup := _receive(requests)):  # the program died at once
        return
    sys.path[:], sys.argv[:] = pickle.loads(setup)  # noqa: S301 -- from our parent
    while body := _receive(requests):
        answer = pickle.dumps(_answer(body))
        try:
            answers.write(LENGTH.pack(len(answer)))
            answers.write(answer)
            answers.flush()
        except BrokenPipeError:
            _die()


def _die() -> None:
    """Be gone, with all that user code started: nobody is there to answer to."""
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _die_with_the_program(outbox: int) -> None:
    """Wait until nobody can read the answers any more, which is when the program is dead."""
    watch = select.poll()
    watch.register(outbox, 0)  # no events but the end
    watch.poll()
    _die()


def _receive(requests: Any) -> bytes:
    head = requests.read(LENGTH.size)
    body: bytes = requests.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    return body


def _answer(body: bytes) -> tuple[Any, ...]:
    """Make the call: ``("value", ...)``, ``("error", ...)`` or ``("fault", what, why)``."""
    target, arguments, program, fields = pickle.loads(body)  # noqa: S301 -- from our parent
    what = "main module"
    try:
        if program is not None:
            _load_main(*program)
        what = "function"
        function = _find(target)
        what = "arguments"
        args, kwargs = pickle.loads(arguments)  # noqa: S301 -- from our parent
        before = {name: pickle.dumps(getattr(args[0].data, name)) for name in fields}
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer
        return "fault", what, _brief(error)
    try:
        value = function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 -- likewise
        return _raised(error)
    what = "result"
    try:
        result = pickle.dumps(value)
        changed: dict[str, bytes] = {}
        for name in fields:
            what = f"ctx.data.{name}"
            after = pickle.dumps(getattr(args[0].data, name))
            if after != before[name]:
                changed[name] = after
    except Exception as error:  # noqa: BLE001 -- likewise
        return "fault", what, _brief(error)
    return "value", result, changed


def _raised(error: Exception) -> tuple[Any, ...]:
    """The exception itself if it can travel, and in any case what it says and where it was."""
    behind = error.__traceback__ and error.__traceback__.tb_next  # without the frame of this file
    text = "".join(traceback.format_exception(type(error), error, behind)).rstrip()
    try:
        itself = pickle.dumps(error)
        if type(pickle.loads(itself)) is not type(error):  # noqa: S301 -- our own
            itself = b""
    except Exception:  # noqa: BLE001 -- then as text
        itself = b""
    return "error", itself, type(error).__qualname__, str(error), text


def _find(target: bytes | tuple[str, str]) -> Callable[..., Any]:
    """The function behind a name or a pickle; undressed, if `process` was its decorator."""
    found: Any
    if isinstance(target, bytes):
        found = pickle.loads(target)  # noqa: S301 -- from our parent
    else:
        module, path = target
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    dressed = getattr(found, "where", None) == "process" and hasattr(found, "__wrapped__")
    function: Callable[..., Any] = found.__wrapped__ if dressed else found
    return function


def _load_main(how: str, where: str) -> None:
    """Load the program's main module, under a name that keeps it from running as a program."""
    import runpy  # noqa: PLC0415 -- few programs need it, and every process would wait for it

    global loading_main  # noqa: PLW0603 -- a process has one main module
    if "__mp_main__" in sys.modules:  # the name that multiprocessing gives it
        return
    loading_main = True
    try:
        if how == "module":
            content = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
        else:
            content = runpy.run_path(where, run_name="__mp_main__")
    finally:
        loading_main = False
    module = ModuleType("__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _brief(error: Exception) -> str:
    lines: Sequence[str] = traceback.format_exception_only(type(error), error)
    return lines[-1].strip()


if __name__ == "__main__":
    main()
