"""Prepare, do, decide: work in three phases, of which only the middle one is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Literal, TypeVar

from cano._graph import Targets
from cano.context import Context
from cano.tasks.task import Guard, Model, Runner, S
from cano.tasks.verb import describe

P = TypeVar("P")
E = TypeVar("E")


class Node(Model[S], Generic[S, P, E]):
    """Work in three phases: `prep` gathers what `exec` works on, `post` decides on its result.

    The state's policies go around `exec` alone: a `Retry` repeats it with the same *prepared*,
    which it should leave as it is, and the run data as `prep` left it. ``repeat = "all"`` puts them
    around the three phases together instead, which are then all repeated. Example::

        class Summarise(Node[Step, str, str]):
            async def prep(self, ctx: Context[Page]) -> str:
                return ctx.data.text

            async def exec(self, ctx: Context[Page], prepared: str, llm: Model) -> str:
                return await llm.ask(f"Summarise: {prepared}")

            async def post(self, ctx: Context[Page], result: str) -> Literal[Step.PUBLISH]:
                ctx.data.summary = result
                return Step.PUBLISH

    All three take resources. Without `prep`, *prepared* is None; without `post`, what `exec`
    returns is the next state. A visit that is resumed after a crash runs all three again: what must
    not happen twice belongs into `Context.effect`, and long work into a `SteppedTask`.
    """

    verb: ClassVar[str] = "post"
    repeat: ClassVar[Literal["exec", "all"]] = "exec"
    """What the policies of the state go around."""

    async def prep(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> P:
        """Gather what `exec` works on; None, unless it is written."""
        nothing: Any = None
        return nothing  # type: ignore[no-any-return]

    async def exec(self, ctx: Context[Any], prepared: P, /, *args: Any, **kwargs: Any) -> E:
        """Do the work on what `prep` returned."""
        raise NotImplementedError

    async def post(self, ctx: Context[Any], result: E, /, *args: Any, **kwargs: Any) -> S:
        """Decide, on what `exec` returned, where to go; unless it is written, that is the state."""
        state: Any = result
        return state  # type: ignore[no-any-return]

    def bind(self, guard: Guard, /) -> Runner[S]:
        only = self.repeat == "exec"
        prep = guard(self.prep, alone=True)
        exec_ = guard(self.exec, item=True, alone=not only)
        post = guard(self.post, item=True, alone=True)

        async def run(ctx: Context[Any]) -> S:
            outer = ctx.item
            try:
                ctx.item = await prep(ctx)
                ctx.item = await exec_(ctx)
                return await post(ctx)
            finally:
                ctx.item = outer

        return run if only else guard(run)

    @property
    def returns(self) -> Targets:
        return describe(self._decides, 2).targets

    def problems(self, total: float | None, /) -> Iterable[str]:
        if not self._writes("exec"):
            yield f"{self.label} has no exec(); write `async def exec(self, ctx, prepared)`"
        elif not self._writes("post") and isinstance(found := self.returns, str):
            yield (
                f"{self.label} has no post(), and what its exec() returns, {found}, is no state; "
                "write `async def post(self, ctx, result) -> Literal[Step.A]`"
            )
        if self._writes("post"):
            yield from describe(self.post, 2).no_state
        if self.repeat not in ("exec", "all"):
            yield f'{self.label} has repeat={self.repeat!r}; say "exec" or "all"'

    @property
    def _decides(self) -> Any:
        """The phase whose result is the next state."""
        return self.post if self._writes("post") or not self._writes("exec") else self.exec

    def _writes(self, phase: str) -> bool:
        return getattr(type(self), phase) is not vars(Node)[phase]
