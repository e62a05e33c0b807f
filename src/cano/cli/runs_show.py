"""`cano runs show`: everything there is to know about one run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress

import click
import msgspec

from cano._history import History, Standing, evolve, replay
from cano.checkpoints.store import CheckpointStore, Message, RunSummary, Status
from cano.cli import show, store
from cano.cli.outcome import FAILED, OK
from cano.cli.runs_events import lines, value
from cano.cli.runs_list import summary_dict, terminal_width
from cano.cli.runs_table import took
from cano.cli.runs_verdict import Story, actions, told, verdict
from cano.cli.runs_words import clock, condition, local, painted, plain, relative
from cano.errors import CorruptHistoryError
from cano.events import Cause, Event, RunStarted

WIDEST = 100
"""Running text is not set wider than this."""
CODEC = "(If its workflow's store has a codec, say --store MODULE:ATTR.)"
LONGEST = 2_000
"""How much of the data, and of each line of a traceback, is shown."""


@click.command("show", short_help="Show one run.")
@store.run_argument
@store.option
@click.option("--events", "listed", is_flag=True, help="List every event, too.")
@store.as_json
def command(run: str, url: str | None, listed: bool, as_json: bool) -> int:
    """Show one run: what it waits for or why it does not move, its data, its error.

    RUN is the name of the run, or how it begins.
    """

    async def looked(kept: CheckpointStore, now: float) -> tuple[Story, float]:
        story = await _story(kept, run)
        (truth,) = await store.told_truly(kept, [story.run], now)
        return story._replace(run=truth), now

    story, now = store.using(url, looked)
    if as_json:
        show.print_json(_report(story, listed, now))
    else:
        for line in _view(story, listed, now, terminal_width()):
            click.echo(line)
    return FAILED if story.trouble else OK


async def _story(kept: CheckpointStore, given: str) -> Story:
    """All there is of the run that *given* names, however damaged."""
    run = await store.find(kept, given)
    inbox = await kept.inbox(run.run_id)
    try:
        events = await kept.load(run.run_id)
        return Story(run, events, replay(events), inbox)
    except CorruptHistoryError as error:
        trouble = str(error)
    events, history = await _readable(kept, run), History()
    with suppress(CorruptHistoryError):
        for event in events:
            if event.sequence == history.sequence + 1:
                evolve(history, event)
    return Story(run, events, history, inbox, trouble)


async def _readable(kept: CheckpointStore, run: RunSummary) -> list[Event]:
    """Each of its events that can be read."""
    events: list[Event] = []
    for before in range(run.sequence):
        with suppress(CorruptHistoryError):
            events += [
                e for e in await kept.load(run.run_id, before, 1) if e.sequence == before + 1
            ]
    return events


def _view(story: Story, listed: bool, now: float, width: int | None) -> Iterator[str]:
    run, history = story.run, story.history
    word = condition(run, now)
    place = plain(f"{run.workflow}, in {run.state}" if run.state else run.workflow)
    yield f"{click.style(plain(run.run_id), bold=True)}  {painted(word)}  {place}"
    yield ""
    yield from _wrapped(verdict(story, now), width)
    if story.trouble:
        why = f"Not all of its history can be read: {plain(story.trouble)}. {CODEC}"
        for line in _wrapped(why, width):
            yield click.style(line, fg="red")
    for action in actions(story, now):
        yield f"  {click.style('→', dim=True)} {action}"
    yield ""
    for name, text in _facts(story, now):
        yield f"  {click.style(f'{name:<9}', dim=True)} {text}"
    if run.status is not Status.FINISHED:
        left = "left standing" if run.over else "completed work; a rollback undoes it from the top"
        yield from _work(left, history.standing[::-1])
    yield from _work("could not be undone", history.failures)
    yield from _mail(story.inbox, now)
    if history.cause is not None:
        yield from _error(history.cause)
    if history.data:
        yield from _headed("data")
        yield from _data(history)
    if listed:
        yield from _headed("events")
        yield from lines(story.events, width)


def _facts(story: Story, now: float) -> Iterator[tuple[str, str]]:
    run = story.run
    yield "created", f"{local(run.created):%Y-%m-%d %H:%M:%S} ({relative(run.created, now)})"
    if run.ended is not None:
        ended = f"{local(run.ended):%Y-%m-%d %H:%M:%S} ({relative(run.ended, now)})"
        yield "ended", f"{ended}, after {took(run, now)}"
    last = f", the last {relative(story.events[-1].time, now)}" if story.events else ""
    yield "events", f"{run.sequence:,}{last}"
    if run.owner and not run.over:
        until = f"until {clock(run.lease, now)}, {relative(run.lease, now)}; " if run.lease else ""
        yield "owner", f"{plain(run.owner)} ({until}epoch {run.epoch})"
    if run.crashes:
        yield "crashes", f"{run.crashes} in a row"
    if run.version or run.fingerprint:
        yield (
            "version",
            plain(f"{run.version} ({run.fingerprint})" if run.fingerprint else str(run.version)),
        )
    if run.tags:
        yield "tags", plain(", ".join(run.tags))
    first = story.events[0] if story.events else None
    if isinstance(first, RunStarted) and first.forked_from:
        yield "forked", f"from {plain(first.forked_from)} at event {first.forked_at}"


def _work(title: str, work: Sequence[Standing]) -> Iterator[str]:
    if not work:
        return
    yield from _headed(title)
    for done in work:
        where = plain(f"{done.state}/{done.branch}" if done.branch else done.state)
        why = click.style(f"  {told(done.error)}", fg="red") if done.error else ""
        yield f"  {click.style(f'#{done.sequence}', dim=True)}  {where}  {value(done.value)}{why}"


def _mail(inbox: Sequence[Message], now: float) -> Iterator[str]:
    if not inbox:
        return
    yield from _headed("messages")
    for message in inbox:
        number = click.style(f"#{message.number}", dim=True)
        sent = click.style(clock(message.time, now), dim=True)
        yield f"  {number}  {sent}  {plain(message.name)}  {value(message.value)}"


def _error(cause: Cause) -> Iterator[str]:
    yield from _headed("error")
    yield f"  {click.style(told(cause), fg='red')}"
    for text in cause.notes:
        yield from _indented(text, "    ")
    if cause.traceback:
        yield ""
        yield from _indented(cause.traceback, "  ")


def _data(history: History) -> Iterator[str]:
    text = msgspec.json.format(object_json(history.data), indent=2).decode()
    shown = text[:LONGEST]
    yield from _indented(shown, "  ")
    if len(text) > len(shown):
        yield click.style(
            f"  … {len(text) - len(shown):,} more characters; all of it: --json", dim=True
        )


def _headed(title: str) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)


def _indented(text: str, indent: str) -> Iterator[str]:
    for line in text.splitlines():
        yield indent + plain(line.replace("\t", "    "))[:LONGEST]


def _wrapped(text: str, width: int | None) -> Iterator[str]:
    yield from textwrap.wrap(
        text, min(width or WIDEST, WIDEST), break_on_hyphens=False, break_long_words=False
    )


def _report(story: Story, listed: bool, now: float) -> dict[str, object]:
    history = story.history
    report: dict[str, object] = {
        **summary_dict(story.run, now),
        "explanation": verdict(story, now),
        "actions": actions(story, now),
        "phase": history.phase.value,
        "data": msgspec.Raw(object_json(history.data)),
        "error": history.cause,
        "standing": [_work_dict(work) for work in history.standing],
        "not_undone": [_work_dict(work) for work in history.failures],
        "messages": [
            {"number": message.number, "name": message.name, "time": message.time, "key": message.key,
             "value": _json(message.value)}
            for message in story.inbox
        ],
    }  # fmt: skip
    if story.trouble:
        report["trouble"] = story.trouble
    if listed:
        report["events"] = story.events
    return report


def _work_dict(work: Standing) -> dict[str, object]:
    place = {"sequence": work.sequence, "state": work.state, "branch": work.branch}
    return {**place, "value": _json(work.value), "error": work.error}


def object_json(fields: dict[str, bytes]) -> bytes:
    """The run data as JSON."""
    return msgspec.json.encode({name: _json(raw) for name, raw in fields.items()})


def _json(raw: bytes) -> object:
    """What is said to be JSON, as such; as text, should it be none."""
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw.decode(errors="replace")
    return msgspec.Raw(raw)
