"""The contract of a checkpoint store, as a test that any store must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias

from cano.checkpoints.store import CheckpointStore
from cano.testing._contract_events import EVENTS
from cano.testing._contract_kit import Rule
from cano.testing._contract_lists import LISTS
from cano.testing._contract_messages import MESSAGES
from cano.testing._contract_owners import OWNERS
from cano.testing._verdict import silent, verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MakeStore: TypeAlias = Callable[
    [],
    CheckpointStore | Awaitable[CheckpointStore] | AbstractAsyncContextManager[CheckpointStore],
]

_RULES: Sequence[Rule] = (*EVENTS, *OWNERS, *LISTS, *MESSAGES)


class BrokenContractError(AssertionError, ExceptionGroup[AssertionError]):
    """What was tried breaks rules of its contract. Holds one `AssertionError` for each of them."""

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the broken rules, in the order in which they were tried."""
        return tuple(str(error).partition(":")[0] for error in self.exceptions)

    def derive(self, excs: Sequence[AssertionError], /) -> BrokenContractError:  # type: ignore[override]
        return BrokenContractError(self.message, excs)


async def check_checkpoint_store(
    make: MakeStore,
    /,
    *,
    persistent: bool = False,
    only: Sequence[str] = (),
    patience: float = 60.0,
) -> None:
    """Try every rule of the contract on a store of its own; `BrokenContractError` lists the broken.

    A test in any framework, without a loop of its own::

        def test_my_store(tmp_path):
            numbers = count()
            asyncio.run(check_checkpoint_store(lambda: MyStore(tmp_path / f"{next(numbers)}.db")))

    Args:
        make: Gives an empty store each time: the class itself if it needs no argument, or a
            function returning a store, an awaitable of one, or a context manager around one.
            Every store is closed after use.
        persistent: Whether what was written must be there after the store was closed.
        only: The names of some rules, to try these alone.
        patience: After so many seconds of silence a rule is broken.
    """
    broken: list[AssertionError] = []
    for rule in _RULES:
        if (rule.persistent and not persistent) or (only and rule.name not in only):
            continue
        error = await _tried(rule, make, patience)
        if error is not None:
            broken.append(error)
    if broken:
        listed = "\n".join(f"- {error}" for error in broken)
        raise BrokenContractError(
            f"{len(broken)} broken rules of CheckpointStore:\n{listed}\n", broken
        )


async def _tried(rule: Rule, make: MakeStore, patience: float) -> AssertionError | None:
    """What is wrong, if something is. The rule is tried in a task, which can be given up."""
    task = asyncio.create_task(_try(rule, make))
    done, _ = await asyncio.wait({task}, timeout=patience)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        return silent(rule, patience)
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return verdict(rule, error)


async def _try(rule: Rule, make: MakeStore) -> None:
    async with _made(make) as store:
        await rule.check(store)


@asynccontextmanager
async def _made(make: MakeStore) -> AsyncGenerator[CheckpointStore]:
    """A store, however *make* gives it, to be closed afterwards."""
    made = make()
    if isawaitable(made):
        made = await made
    if isinstance(made, CheckpointStore):
        try:
            yield made
        finally:
            await made.close()
    elif isinstance(made, AbstractAsyncContextManager):
        async with made as store:
            yield store
    else:
        raise TypeError(_no_store(made))


def _no_store(made: object) -> str:
    wanted = [name for name in vars(CheckpointStore) if not name.startswith("_")]
    missing = [name for name in wanted if not hasattr(made, name)]
    return f"{type(made).__name__} is no CheckpointStore: it has no {', '.join(missing)}"
