"""SqliteCheckpoints in several processes at once, some of which are killed."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, RunQuery
from cano.events import RunStarted, StateEntered

WRITER = """
import asyncio, sys
from cano.checkpoints import _sqlite_writer
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun
from cano.errors import RunExistsError
from cano.events import RunStarted, StateEntered

path, level, names, most = sys.argv[1:5]
_sqlite_writer.CHECKPOINT_PAGES = 40  # so that there are many

async def work(store, name):
    try:
        await store.create(NewRun(name, "flow", "me", 1.0), [RunStarted(sequence=1, state="A")])
        number = 1
    except RunExistsError:
        number = (await store.claim(name, str(id(store)), 9.0)).sequence
    epoch = (await store.summary(name)).epoch
    print(name, number, flush=True)
    while number < int(most):
        number += 1
        await store.append(name, epoch, [StateEntered(sequence=number, state="A")])
        print(name, number, flush=True)

async def main():
    async with SqliteCheckpoints(path, synchronous=level) as store:
        await asyncio.gather(*(work(store, name) for name in names.split(",")))

asyncio.run(main())
"""


def start(path: Path, level: str, names: str, most: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), level, names, str(most)],
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged(said: str) -> dict[str, int]:
    """The last number that was said for each run; a line cut off by the kill does not count."""
    lines = said[: said.rfind("\n") + 1].splitlines()
    return {name: int(number) for name, number in map(str.split, lines)}


async def lengths(path: Path) -> dict[str, int]:
    async with SqliteCheckpoints(path) as store:
        assert [] == await store.check()
        return {
            run.run_id: len(await store.load(run.run_id)) for run in await store.runs(RunQuery())
        }


@pytest.mark.parametrize("level", ["full", "normal"])
def test_killed_again_and_again(tmp_path: Path, level: str) -> None:
    """Whatever a process was told is kept is there after it was killed, at whatever moment."""
    chance = random.Random(level)  # noqa: S311 -- the same every time
    path = tmp_path / "x.db"
    promised: dict[str, int] = {}
    for _ in range(8):
        child = start(path, level, "a,b,c,d", 1_000_000)
        assert child.stdout is not None
        first = child.stdout.readline()  # it has begun
        sleep(chance.uniform(0.0, 0.15))
        child.kill()
        promised |= acknowledged(first + child.communicate()[0])
        found = asyncio.run(lengths(path))
        assert promised == {name: min(found[name], number) for name, number in promised.items()}


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    """Processes that write to one file at the same time lose nothing and take turns."""
    path = tmp_path / "x.db"
    children = [start(path, "full", names, 150) for names in ("a,b", "c,d", "e,f")]
    said = [child.communicate(timeout=50)[0] for child in children]

    assert [0, 0, 0] == [child.returncode for child in children]
    assert dict.fromkeys("abcdef", 150) == asyncio.run(lengths(path))
    assert {"a": 150, "b": 150} == acknowledged(said[0])


def test_two_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Of processes that begin with a new file together, one makes its tables, and none fails."""
    for n in range(2):
        children = [start(tmp_path / f"{n}.db", "normal", name, 3) for name in "abc"]
        for child in children:
            child.communicate(timeout=50)
        assert [0, 0, 0] == [child.returncode for child in children]


def test_news_from_another_process(tmp_path: Path) -> None:
    """Who listens is told within a second what another process sent, and that it wrote."""
    path = tmp_path / "x.db"
    code = (
        "import asyncio, sys\n"
        "from cano.checkpoints.sqlite import SqliteCheckpoints\n"
        "async def main():\n"
        "    async with SqliteCheckpoints(sys.argv[1]) as store:\n"
        "        await store.send('r', 'go', b'1', 2.0)\n"
        "asyncio.run(main())\n"
    )

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            await store.create(
                NewRun("r", "flow", "me", 1.0), [RunStarted(sequence=1), StateEntered(sequence=2)]
            )
            told: list[str] = []
            stop = store.listen(told.append)
            await asyncio.sleep(0.3)
            told.clear()
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path))
            assert 0 == await child.wait()
            for _ in range(50):  # a busy machine may take longer than the second that is promised
                if told:
                    break
                await asyncio.sleep(0.1)
            stop()
            assert {"", "r"} == set(told)
            told.clear()
            await store.send("r", "go", b"2", 3.0)
            assert [] == told

    asyncio.run(main())
