"""From `--store` on the command line to a store of runs, and to a run in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec.structs import replace

from cano._clock import wall_offset
from cano.checkpoints.store import CheckpointStore, RunQuery, RunSummary
from cano.cli.drive import drive
from cano.cli.outcome import FAILED, NOT_FOUND, USAGE, CommandError
from cano.errors import CheckpointError, CorruptHistoryError, RunNotFoundError

T = TypeVar("T")

_TARGET = re.compile(r"[\w./\\-]{2,}:[A-Za-z_][\w.]*")
"""MODULE:ATTR; a single letter in front is a drive."""

SEARCHED = 1_000
"""Among how many of the newest runs the beginning of a name is looked for."""
ALIKE = 0.8
"""How much alike names must be for one to be a slip for the other: those made up are all alike."""
NAMED = 5
"""How many runs are named where a name could mean several."""

option: Callable[[Any], Any] = click.option(
    "--store",
    "url",
    metavar="PATH",
    envvar="CANO_STORE",
    show_envvar=True,
    help="Where the runs are kept: the path of an SQLite file, or MODULE:ATTR, a workflow that has "
    "a store.",
)
run_argument: Callable[[Any], Any] = click.argument("run", metavar="RUN")
as_json: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object."
)


def open_store(url: str) -> CheckpointStore:
    """The store at *url*. Nothing is created: raises `CommandError` if there is none."""
    if _TARGET.fullmatch(url) and not url.startswith(("sqlite:", "memory:")) and not _there(url):
        return _own_store(url)
    path = Path(_path(url))
    _refuse_missing(path)
    from cano.checkpoints.sqlite import SqliteCheckpoints  # noqa: PLC0415 -- sqlite3 may be lacking

    return SqliteCheckpoints(path)


def using(url: str | None, work: Callable[[CheckpointStore, float], Awaitable[T]]) -> T:
    """What *work* makes of the store at *url*, which is closed afterwards, and of the time.

    Raises `CommandError`, also for what is wrong with the store or with the run asked for.
    """
    if not url:
        raise CommandError(
            "which store? Pass --store PATH, or set CANO_STORE to the path of its SQLite file",
            USAGE,
        )
    return working(open_store(url), work, "what was done before is kept")


def working(
    store: CheckpointStore, work: Callable[[CheckpointStore, float], Awaitable[T]], stopped: str
) -> T:
    """`using` for a store that is open; an interrupted command says *stopped*."""

    async def worked() -> T:
        loop = asyncio.get_running_loop()
        try:
            return await work(store, loop.time() + wall_offset(loop))
        finally:
            await store.close()

    try:
        return drive(worked(), stopped)
    except RunNotFoundError as error:
        raise CommandError(str(error), NOT_FOUND) from error
    except (CheckpointError, CorruptHistoryError) as error:
        raise CommandError(str(error), FAILED) from error


async def find(store: CheckpointStore, given: str) -> RunSummary:
    """The run called *given*, or the only one of the newest whose name begins like that.

    Raises `CommandError`, with what might have been meant.
    """
    if not given:
        raise CommandError("RUN is empty; give the name of a run, or how it begins", USAGE)
    try:
        return await store.summary(given)
    except RunNotFoundError:
        newest = await store.runs(RunQuery(limit=SEARCHED))
    begun = [run for run in newest if run.run_id.startswith(given)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        named = ", ".join(run.run_id for run in begun[:NAMED])
        more = ", …" if len(begun) > NAMED else ""
        raise CommandError(
            f"{len(begun)} runs begin with {given!r}: {named}{more}; give more of the name", USAGE
        )
    near = get_close_matches(given, [run.run_id for run in newest], 1, ALIKE)
    hint = f"did you mean {near[0]}?" if near else "cano runs lists those there are"
    raise CommandError(f"there is no run {given!r}; {hint}", NOT_FOUND)


async def told_truly(
    store: CheckpointStore, runs: Sequence[RunSummary], now: float
) -> list[RunSummary]:
    """*runs*, with no lease where the owner is a process of this machine that is gone."""
    if not any(run.lease > now for run in runs):
        return list(runs)
    from cano._process import dead, here  # noqa: PLC0415 -- not every command asks

    gone = {owner.id for owner in await store.owners(here(), now) if dead(owner)}
    return [replace(run, lease=0.0) if run.owner in gone else run for run in runs]


def _own_store(name: str) -> CheckpointStore:
    """The store of the workflow that *name* names: it knows how it is written, and read."""
    from cano.cli import target  # noqa: PLC0415 -- a path does without

    own = target.load(name).checkpoints
    if own is None:
        raise CommandError(f"--store {name}: this workflow has no store; name its file", USAGE)
    path: Path | None = getattr(own, "path", None)
    if path is not None:
        _refuse_missing(path)
    return own


def _refuse_missing(path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{path} is a directory; name the SQLite file in it", NOT_FOUND)
    try:
        if not path.is_file():
            near = get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
            hint = f"did you mean {path.parent / near[0]}?" if near else "nothing was created"
            raise CommandError(f"there is no store {path}; {hint}", NOT_FOUND)
    except OSError as error:
        raise CommandError(f"there is no store {path}: {error.strerror}", NOT_FOUND) from None


def _there(url: str) -> bool:
    return Path(url).exists()


def _path(url: str) -> str:
    """The path in *url*, as SQLAlchemy writes it: `sqlite:///x` is relative, `sqlite:////x` not."""
    if url == "memory:" or url.endswith(":memory:"):
        raise CommandError(
            f"--store {url}: a store in memory dies with its process, so there is nothing in it "
            "to look at; name the SQLite file that the workflow uses",
            USAGE,
        )
    scheme, colon, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return rest[1:]
    if colon or url.startswith("sqlite:"):
        raise CommandError(
            f"--store {url}: there is no such kind of store; write sqlite:///PATH, or just the "
            "path, or MODULE:ATTR for that of a workflow",
            USAGE,
        )
    return url
