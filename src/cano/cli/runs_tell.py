"""`cano runs cancel`, `signal` and `resolve`: messages to a run, whoever carries it out."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from difflib import get_close_matches

import click
import msgspec

from cano._history import replay
from cano.checkpoints.store import CANCEL, RESOLVE, CheckpointStore, RunSummary, Status
from cano.cli import show, store
from cano.cli.outcome import FAILED, INVALID, NOT_FOUND, OK, USAGE, CommandError
from cano.cli.runs_verdict import in_doubt
from cano.cli.runs_words import condition, plain

RESERVED = "cano."
"""How the names of our own messages begin."""


@click.command("cancel", short_help="Ask a run to end.")
@store.run_argument
@store.option
@store.as_json
def cancel(run: str, url: str | None, as_json: bool) -> int:
    """Ask a run to end: what it has done is undone, then it is cancelled.

    The request is kept in the store. Whoever carries the run out heeds it within a second; a run
    that nobody holds ends when it is next resumed.
    """
    return _send(run, url, CANCEL, lambda _kept, _run: _done(b"null"), "asked to cancel", as_json)


@click.command("signal", short_help="Send a run a signal.")
@store.run_argument
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="[JSON]", default="null")
@click.option(
    "--key", metavar="K", default="", help="A second signal with the same key is dropped."
)
@store.option
@store.as_json
def signal(  # noqa: PLR0917 -- click passes them by name
    run: str, name: str, value: str, key: str, url: str | None, as_json: bool
) -> int:
    """Send a run the signal NAME, with a value if it wants one.

    It is kept in the store until the run takes it, also if it does not wait for it yet. Text is
    JSON in quotes: cano runs signal RUN approve '"by Ann"'.
    """
    if name.startswith(RESERVED) or not name:
        raise CommandError(
            f"no signal can be called {name!r}: what begins with {RESERVED} is the engine's own; "
            "there are cano runs cancel and cano runs resolve",
            USAGE,
        )
    raw = json_of(value, "the value")
    said = f"sent signal {plain(name)!r}"
    return _send(run, url, name, lambda _kept, _run: _done(raw), said, as_json, key)


@click.command("resolve", short_help="Say whether an effect happened.")
@store.run_argument
@click.argument("effect", metavar="EFFECT")
@click.option("--done", metavar="JSON", help="It did happen, and this is what it returned.")
@click.option("--again", is_flag=True, help="It did not happen: make the call again.")
@store.option
@store.as_json
def resolve(  # noqa: PLR0917 -- click passes them by name
    run: str, effect: str, done: str | None, again: bool, url: str | None, as_json: bool
) -> int:
    """Say whether an effect happened that was cut short by a crash.

    Only a person can know. `cano runs show RUN` names the EFFECT; the run goes on afterwards as
    if nothing had been.
    """
    if again == (done is not None):
        raise click.UsageError("say either --done JSON, if EFFECT happened, or --again, if not")
    answer: dict[str, object] = {"effect": effect}
    if done is None:
        answer["again"] = True
    else:
        answer["done"] = msgspec.Raw(json_of(done, "--done"))

    async def decided(kept: CheckpointStore, found: RunSummary) -> bytes:
        if found.status is not Status.IN_DOUBT:
            raise CommandError(
                f"run {found.run_id} is not in doubt, it is {found.status.value}: cano runs show "
                f"{shlex.quote(found.run_id)} tells what it does",
                FAILED,
            )
        effects = in_doubt(replay(await kept.load(found.run_id)))
        if effects and effect not in effects:
            close = get_close_matches(effect, effects, 1)
            hint = f"did you mean {close[0]}?" if close else f"it is about {', '.join(effects)}"
            raise CommandError(f"run {found.run_id} has no {effect!r} in doubt; {hint}", NOT_FOUND)
        return msgspec.json.encode(answer | {"seen": found.sequence})

    said = f"told that {plain(effect)!r} is " + ("to be done again" if again else "done")
    return _send(run, url, RESOLVE, decided, said, as_json)


def _send(  # noqa: PLR0917 -- called from here alone
    run: str,
    url: str | None,
    name: str,
    value: Callable[[CheckpointStore, RunSummary], Awaitable[bytes]],
    said: str,
    as_json: bool,
    key: str = "",
) -> int:
    async def sent(kept: CheckpointStore, now: float) -> tuple[RunSummary, int, float]:
        found = await store.find(kept, run)
        if found.over:
            raise CommandError(
                f"run {found.run_id} has ended ({found.status.value}) and takes no more messages",
                FAILED,
            )
        raw = await value(kept, found)
        number = await kept.send(found.run_id, name, raw, now, key)
        (truth,) = await store.told_truly(kept, [found], now)
        return truth, number, now

    found, number, now = store.using(url, sent)
    if as_json:
        show.print_json({"run_id": found.run_id, "name": name, "message": number})
    else:
        click.echo(f"{plain(found.run_id)}: {said} (message {number})")
        show.say(click.style(_follows(found, now), dim=True))
    return OK


def _follows(run: RunSummary, now: float) -> str:
    word = condition(run, now)
    if word == "running":
        return f"{plain(run.owner)} carries it out, and is told within a second"
    if word == "stuck":
        return "it is stuck and nobody takes it up; to have it read: cano runs resume"
    return "nobody holds it: a process that has this workflow recovers it, or cano runs resume"


async def _done(raw: bytes) -> bytes:
    return raw


def json_of(text: str, what: str) -> bytes:
    """*text*, which must be JSON. Raises `CommandError`."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        hint = f"; text needs quotes: {shlex.quote(msgspec.json.encode(text).decode())}"
        raise CommandError(f"{what} is no JSON: {error}{hint}", INVALID) from None
    return text.encode()
