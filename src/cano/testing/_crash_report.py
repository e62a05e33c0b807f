"""What `crash_everywhere` says of what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from cano.events import Event
from cano.testing._crash_check import alike, counted
from cano.testing._crash_points import Story
from cano.testing._crash_story import Play

AROUND = 6
"""How many events are shown before and after each crash."""
DEEDS = 20
"""How many deeds are shown."""


class CrashFoundError(AssertionError):
    """A run that was crashed came to something else than one that was not.

    Its text says what is different, what is on record around the crash, what was done outside, and
    how to try the very same again.
    """

    def __init__(self, text: str, story: Story) -> None:
        super().__init__(text)
        self.story: Story = story
        """What happened: pass it as ``only=[error.story]``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.story)


def found(play: Play, clean: Play, trouble: str, arguments: Mapping[str, Any]) -> CrashFoundError:
    """The error for what is wrong with *play*, which should have been like *clean*."""
    deeds = [*_deeds(play, clean)]
    parts = [
        f"{_said(play.story)}: {trouble}",
        f"run {play.setup.run_id!r} on record:",
        *_indented(_history(play)),
        *(("done outside more or less often than without it:", *_indented(deeds)) if deeds else ()),
        "again:",
        *_indented([reproducer(play.story, arguments)]),
    ]
    return CrashFoundError("\n".join(parts), play.story)


def _said(story: Story) -> str:
    return "after " + " and ".join(map(repr, story)) if story else "without any crash"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines] or ["    nothing"]


def _history(play: Play) -> Iterator[str]:
    """The events around each crash."""
    events = play.events().get(play.setup.run_id, [])
    breaks: dict[int, list[str]] = {}
    for number, why in play.begun[1:]:
        breaks.setdefault(number, []).append(why)
    near = {
        number
        for at in (*breaks, len(events))
        for number in range(at - AROUND + 1, at + AROUND + 1)
    }
    hidden = 0
    for event in events:
        if event.sequence in near:
            if hidden:
                yield f"     ... {hidden} events"
                hidden = 0
            yield f"{event.sequence:4} {shown(event)}"
        else:
            hidden += 1
        yield from map(_break, breaks.pop(event.sequence, ()))
    for number in sorted(breaks):
        yield from map(_break, breaks[number])


def _break(why: str) -> str:
    return f" --- {why} ---"


def shown(event: Event) -> str:
    """An event in a few words."""
    words = [type(event).__name__, event.state]
    if event.branch:
        words.append(f"branch {event.branch}")
    words += [str(getattr(event, name)) for name in ("name", "signal") if getattr(event, name, "")]
    if following := getattr(event, "next", ""):
        words.append(f"→ {following}")
    if value := bytes(getattr(event, "value", b"")):
        text = value.decode(errors="replace")
        if text != "null":
            words.append(text if len(text) <= 40 else f"{text[:40]}...")
    if error := getattr(event, "error", ""):
        words.append(error if len(error) <= 60 else f"{error[:60]}...")
    return " ".join(filter(None, words))


def _deeds(play: Play, clean: Play) -> Iterator[str]:
    """What was done in another number than without a crash."""
    usual, now = counted(clean.ledger), counted(play.ledger)
    odd = [deed for deed in play.ledger if deed.late or usual[alike(deed)] != now[alike(deed)]]
    yield from map(str, odd[:DEEDS])
    if len(odd) > DEEDS:
        yield f"... {len(odd) - DEEDS} more"
    for what, key, _ in (usual - now).keys() - now.keys():
        yield f"{what} {key}".rstrip() + " (never)"


def reproducer(story: Story, arguments: Mapping[str, Any]) -> str:
    """The call that does it again."""
    given = [f"{name}={_written(value)}" for name, value in arguments.items() if name != "make"]
    one = repr(story[0]) if len(story) == 1 else repr(story)
    only = f"only=[{one}]" if story else "only=[()]"
    return f"crash_everywhere({', '.join([_written(arguments['make']), *given, only])})"


def _written(value: Any) -> str:
    """*value* as somebody would write it, as far as that can be known."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if (name := getattr(value, "__qualname__", None)) is not None:
        return "..." if "<lambda>" in name else str(name).rpartition(".")[2]
    text = f'"{value}"' if isinstance(value, str) and '"' not in value else repr(value)
    return text if len(text) <= 60 else "..."
