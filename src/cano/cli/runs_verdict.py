"""Why a stored run is where it is, in a sentence or two for whoever was woken by it; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

from cano._history import History
from cano._lifecycle import Phase
from cano.checkpoints.store import CANCEL, RESOLVE, Message, RunSummary, Status
from cano.cli.runs_table import took
from cano.cli.runs_words import clock, condition, plain, relative
from cano.cli.show import counted
from cano.events import (
    Cause,
    EffectIntended,
    Event,
    RunReopened,
    TaskRetried,
    TimerSet,
    WaitStarted,
)

GOES_ON = "It goes on when a process that has this workflow recovers it."
_TARGET = "--target MODULE:ATTR"


class Story(NamedTuple):
    """All there is to know about a run."""

    run: RunSummary
    events: Sequence[Event]
    history: History
    inbox: Sequence[Message]
    trouble: str = ""
    """Why not all of it could be read: *history* then ends before that."""


def verdict(story: Story, now: float) -> str:
    """What the run waits for, or why it does not move, or how it ended."""
    return " ".join(_ended(story, now) if story.run.over else _open(story, now))


def actions(story: Story, now: float) -> list[str]:
    """The commands that may help now."""
    return [f"cano runs {words}" for words in _actions(story, now)]


def _actions(story: Story, now: float) -> Sequence[str]:
    run, history = story.run, story.history
    word, name = condition(run, now), shlex.quote(plain(run.run_id))
    if story.trouble or word in ("running", "finished"):
        return []
    if run.over:
        undone = history.undone or history.failures
        return [f"fork {name} --at SEQUENCE {_TARGET}" if undone else f"retry {name} {_TARGET}"]
    effects = in_doubt(history)
    if word == "in doubt" and effects and not _resolved(story):
        effect = shlex.quote(plain(effects[0])) if len(effects) == 1 else "EFFECT"
        return [f"resolve {name} {effect} --done JSON", f"resolve {name} {effect} --again"]
    if word == "waiting" and run.wake > now:
        return [f"signal {name} NAME JSON"] if run.wake == inf else []
    return [f"resume {name} {_TARGET}"]


def in_doubt(history: History) -> list[str]:
    """The effects of the present visit that were begun and not finished, as the run calls them."""
    return [
        f"{progress.branch}/{progress.name}" if progress.branch else progress.name
        for progress in history.visit.progress.values()
        if isinstance(progress, EffectIntended)
    ]


def told(cause: Cause) -> str:
    """An exception that was written down, in a line."""
    kind = cause.kind.rpartition(":")[-1]
    return plain(f"{kind}: {cause.message}" if cause.message else kind)


def _ended(story: Story, now: float) -> Iterator[str]:
    run, history = story.run, story.history
    state, after = plain(run.state), took(run, now)
    if run.status is Status.FINISHED:
        yield f"It finished in {state} after {after}."
        return
    verb = "was cancelled" if run.status is Status.CANCELLED else "failed"
    why = f": {told(history.cause)}" if history.cause and verb == "failed" else ""
    yield f"It {verb} in {state} after {after}{why}" + ("" if why.endswith(".") else ".")
    if history.undone:
        yield f"{counted(history.undone, 'completed task')} undone."
    if history.failures:
        yield f"{counted(len(history.failures), 'completed task')} could not be undone."


def _open(story: Story, now: float) -> Iterator[str]:
    history = story.history
    if history.phase is Phase.ROLLING_BACK:
        why = f" ({told(history.cause)})" if history.cause else ""
        yield f"It is rolling back{why}: {history.undone:,} undone, {len(history.standing):,} to go."
    yield from _position(story, now)
    asked = _messages(story, CANCEL, _reopened(story.events))
    if asked and not history.cancelled:
        yield f"It was asked to cancel {relative(asked[-1].time, now)}."


def _position(story: Story, now: float) -> Iterator[str]:
    run = story.run
    match condition(run, now):
        case "stuck":
            yield (
                f"It killed its process {run.crashes} times in a row in {plain(run.state)}, and is "
                "set aside until a person says so."
            )
        case "abandoned":
            how = f"the lease ended {relative(run.lease, now)}" if run.lease else "its process died"
            yield f"Its owner {plain(run.owner)} is gone: {how}. {GOES_ON}"
        case "let go":
            yield f"Nobody holds it: it was let go, as in a shutdown. {GOES_ON}"
        case "running":
            retried: TaskRetried | None = story.history.visit.of("attempt")
            if retried is not None:
                yield f"Attempt {retried.attempt} failed: {plain(retried.error)}."
            yield f"{plain(run.owner)} carries it out; its lease ends {relative(run.lease, now)}."
        case "in doubt":
            yield _doubt(story, now)
        case _:
            yield _waiting(story, now)


def _doubt(story: Story, now: float) -> str:
    if resolved := _resolved(story):
        told_when = relative(resolved[-1].time, now)
        return f"It was in doubt, and was told {told_when} what to do. {GOES_ON}"
    effects = in_doubt(story.history)
    named = " and ".join(repr(plain(name)) for name in effects)
    if not effects:
        return (
            "Whoever took it up last could not carry it on, and left it for a person. Resume it to "
            "see why."
        )
    return (
        f"It is in doubt about {named}: its process died in the middle, so it may have happened or "
        "not. Find out, and say so."
    )


def _resolved(story: Story) -> list[Message]:
    """What the run was told since it came to be in doubt."""
    return _messages(story, RESOLVE, story.events[-1].time if story.events else 0.0)


def _waiting(story: Story, now: float) -> str:
    wake = story.run.wake
    if wake <= now:
        since = f" since {clock(wake, now)}" if wake else ""
        return f"Its wait is over{since}, but nobody has taken it up yet. {GOES_ON}"
    what = _awaited(story.history, wake)
    if wake == inf:
        return f"It waits for {what}, without a limit; nobody holds it meanwhile."
    return f"It waits for {what} until {clock(wake, now)} ({relative(wake, now)})."


def _awaited(history: History, wake: float) -> str:
    """What the present visit waits for; timers and waits without a name are numbered."""
    for progress in reversed(history.visit.progress.values()):
        if isinstance(progress, WaitStarted):
            return "signal " + " or ".join(repr(plain(name)) for name in progress.signals)
        if isinstance(progress, TimerSet) and abs(progress.until - wake) < 1e-3:
            named = "" if progress.name[:1].isdigit() else f" {plain(progress.name)!r}"
            return f"the timer{named}"
    return "a signal" if wake == inf else "a moment or a signal"


def _messages(story: Story, name: str, since: float) -> list[Message]:
    return [message for message in story.inbox if message.name == name and message.time >= since]


def _reopened(events: Sequence[Event]) -> float:
    """When the run was last reopened; 0 if never."""
    return max((event.time for event in events if isinstance(event, RunReopened)), default=0.0)
