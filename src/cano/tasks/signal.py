"""Wait for something from outside: a person's approval, a webhook, another run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from cano import _progress
from cano._progress import Signal
from cano.context import Context
from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe


class SignalTask(Task[S]):
    """Wait for one of *signals*, then decide where to go.

    With a store any process can send them, a signal that came before it was waited for is kept, a
    resumed run waits only for what is left of *timeout*, and inside ``async with workflow:`` a run
    in the background holds no asyncio task while it waits. After the timeout the task fails with
    `SignalTimeoutError`, which `register(..., otherwise=...)` can lead to a state. Example::

        class Approval(SignalTask[Step]):
            signals = {"approved": str, "rejected": str}
            timeout = 3 * 24 * 3600

            async def on_signal(
                self, ctx: Context[Order], signal: Signal[str]
            ) -> Literal[Step.SHIP, Step.REFUSED]:
                ctx.data.decided_by = signal.value
                return Step.SHIP if signal.name == "approved" else Step.REFUSED

        await flow.handle(run_id).signal("approved", "ada")
    """

    verb: ClassVar[str] = "on_signal"
    signals: ClassVar[Mapping[str, Any]] = {}
    """The names of the signals, and what each is sent with."""
    timeout: ClassVar[float | None] = None
    """Seconds to wait at most; None waits for ever."""

    async def on_signal(self, ctx: Context[Any], signal: Signal[Any], /, *a: Any, **k: Any) -> S:
        """Return the next state."""
        raise NotImplementedError

    def bind(self, guard: Guard, /) -> Runner[S]:
        react = guard(self.on_signal, item=True)
        wanted = {
            name: guard.value(kind, f"signal {name!r}", needed=True)
            for name, kind in self.signals.items()
        }

        async def run(ctx: Context[Any]) -> S:
            ctx.item = await _progress.wait(ctx, wanted, self.timeout, "", park=True)
            state = await react(ctx)
            ctx.item = None
            return state

        return run

    def problems(self, total: float | None, /) -> Iterable[str]:
        if getattr(type(self), self.verb) is vars(SignalTask)[self.verb]:
            yield f"{self.label} has no on_signal(); write `async def on_signal(self, ctx, signal)`"
        yield from describe(self._work, 2).no_state
        if not self.signals:
            yield f'{self.label} waits for nothing; say signals = {{"name": type}}'
        if self.timeout is not None and not self.timeout > 0:
            yield f"timeout={self.timeout} leaves no time; pass seconds > 0, or None"
