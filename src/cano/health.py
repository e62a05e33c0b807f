"""How a resource is, and how to ask it in a given time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import ClassVar, Final

import msgspec

__all__ = ["Degraded", "Health", "Healthy", "Unhealthy"]

_GRACE: Final = 1.0  # seconds that a health check gets to end after it was cancelled


class Health(msgspec.Struct, frozen=True, tag=True):
    """How a resource is: `Healthy`, `Degraded` or `Unhealthy`, ordered by severity."""

    severity: ClassVar[int] = 0

    @property
    def ok(self) -> bool:
        """Whether there is nothing to complain about."""
        return self.severity == 0

    def __lt__(self, other: Health) -> bool:
        return self.severity < other.severity

    def __le__(self, other: Health) -> bool:
        return self.severity <= other.severity

    def __str__(self) -> str:
        reason = getattr(self, "reason", "")
        return type(self).__name__.lower() + (f": {reason}" if reason else "")


class Healthy(Health, frozen=True, tag=True):
    """It works."""


class Degraded(Health, frozen=True, tag=True):
    """It works, but not as it should."""

    severity: ClassVar[int] = 1
    reason: str


class Unhealthy(Health, frozen=True, tag=True):
    """It does not work."""

    severity: ClassVar[int] = 2
    reason: str


async def called(hook: Callable[[], object]) -> object:
    """Call a hook, which may be async or not."""
    answer = hook()
    return await answer if isawaitable(answer) else answer


async def ask(hook: Callable[[], object] | None, timeout: float) -> Health:
    """Call a health hook; end it when it is late, but do not wait for that forever."""
    if hook is None:
        return Healthy()
    check = asyncio.create_task(called(hook))
    try:
        _, late = await asyncio.wait([check], timeout=timeout)
    finally:
        check.cancel()
        await asyncio.wait([check], timeout=min(timeout, _GRACE))
        # Somebody has to look at the error it may still end with, or asyncio complains.
        check.add_done_callback(lambda task: task.cancelled() or task.exception())
    if late:
        stuck = "" if check.done() else "; it ignores its cancellation and was left alone"
        return Unhealthy(f"no answer within {timeout:g} s{stuck}")
    if check.cancelled():
        return Unhealthy("the check was cancelled")
    if (error := check.exception()) is not None:
        return Unhealthy(f"{type(error).__name__}: {error}".removesuffix(": "))
    answer = check.result()
    if answer is None or answer is True:
        return Healthy()
    return answer if isinstance(answer, Health) else Unhealthy(f"the check said {answer!r:.100}")
