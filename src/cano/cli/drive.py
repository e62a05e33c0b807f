"""Running an event loop inside a command, so that a signal ends it cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from cano.cli.outcome import INTERRUPTED, TERMINATED, CommandError

T = TypeVar("T")


def drive(work: Coroutine[Any, Any, T], stopped: str) -> T:
    """`asyncio.run`, ended by Ctrl-C and by SIGTERM: *work* is cancelled and may clean up.

    Raises `CommandError` saying *stopped* then.
    """
    terminated = False

    async def watched() -> T:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        with suppress(NotImplementedError):  # Windows has no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(watched())
    except KeyboardInterrupt:
        raise CommandError(f"interrupted; {stopped}", INTERRUPTED) from None
    except asyncio.CancelledError:
        if not terminated:
            raise
        raise CommandError(f"terminated; {stopped}", TERMINATED) from None
