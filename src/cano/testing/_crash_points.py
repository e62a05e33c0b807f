"""Where and how a process of `crash_everywhere` is troubled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from cano.errors import DefinitionError

Fault: TypeAlias = Literal[
    "before", "after", "torn", "duplicate", "frozen", "unavailable", "unanswered", "shutdown",
    "forward", "backward",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = get_args(Fault)
"""All there are:

- `before`, `after`: the process dies before a write, or when it is on disk and nobody knows yet.
- `torn`: several writes are under way at once; those after this one are lost, and the process dies.
- `duplicate`: it dies after the write, and two others resume the run at the same moment.
- `frozen`: it stands still before the write until its lease is over and somebody else has carried
  the run on; then it wakes up.
- `unavailable`, `unanswered`: the store fails for 30 seconds; of the write that was under way
  nothing is kept, or it is kept and nobody is told. The process lives, and tries again then.
- `shutdown`: the process is asked to stop after the write, and lets go of the run.
- `forward`, `backward`: it dies after the write, and the next one's clock is ahead, or behind, by
  twice the lease and a second.
"""

LONELY: frozenset[Fault] = frozenset(("duplicate", "frozen"))
"""Those that end a story: two processes are at work already."""


class Crash(NamedTuple):
    """What happens to a process at one of its durable writes, counted from 1."""

    fault: Fault
    at: int

    def __repr__(self) -> str:
        return f'Crash("{self.fault}", {self.at})'


Story: TypeAlias = tuple[Crash, ...]
"""What happens to the first process, to the second, and so on; the last one is spared."""


def all_points(faults: Sequence[Fault], writes: int, shared: Iterable[int]) -> list[Story]:
    """One trouble at every write; *shared* are those that others of the same turn follow."""
    torn = frozenset(shared)
    return [
        (Crash(fault, at),)
        for at in range(1, writes + 1)
        for fault in faults
        if fault != "torn" or at in torn
    ]


def sampled(stories: list[Story], most: int | None, seed: int) -> list[Story]:
    """At most so many of them, in order."""
    if most is None or most >= len(stories):
        return stories
    chosen = Random(seed).sample(range(len(stories)), most)  # noqa: S311 -- seeded on purpose
    return [stories[number] for number in sorted(chosen)]


def some_pairs(points: list[Story], count: int, seed: int) -> list[Story]:
    """So many pairs: something happens to the first process, and to the one after it."""
    first = [point for (point,) in points if point.fault not in LONELY]
    second = [point for (point,) in points if point.fault != "torn"]
    if not first or not second:
        return []
    random = Random(f"pairs {seed}")  # noqa: S311 -- seeded on purpose
    pairs = {(random.choice(first), random.choice(second)): None for _ in range(count)}
    return list(pairs)


def checked_faults(faults: Iterable[str]) -> tuple[Fault, ...]:
    """*faults*, each once, in our order. Raises `DefinitionError`."""
    wanted = [faults] if isinstance(faults, str) else list(faults)
    unknown = [name for name in wanted if name not in FAULTS]
    if unknown or not wanted:
        what = f"{unknown[0]!r} is no fault" if unknown else "faults=() leaves nothing to try"
        raise DefinitionError(f"{what}; there are: {', '.join(FAULTS)}")
    return tuple(fault for fault in FAULTS if fault in wanted)


def checked_stories(only: Iterable[Crash | Sequence[Crash]]) -> list[Story]:
    """What `only=` names: crashes, or sequences of them. Raises `DefinitionError`."""
    stories = [(one,) if isinstance(one, Crash) else tuple(one) for one in only]
    given: list[Any] = [crash for story in stories for crash in story]
    for crash in given:
        if not isinstance(crash, Crash) or crash.fault not in FAULTS or crash.at < 1:
            raise DefinitionError(
                f'only={crash!r} is no crash; write Crash("after", 7): one of {", ".join(FAULTS)}, '
                "and the number of a write, from 1 on"
            )
    for story in stories:
        if any(crash.fault in LONELY for crash in story[:-1]):
            raise DefinitionError(f"{story!r}: nothing can follow a duplicate or a frozen process")
    return stories
