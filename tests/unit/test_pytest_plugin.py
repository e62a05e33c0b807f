"""The pytest plugin: virtual time for tests that ask for it, fixtures, leaked tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import cano

SOURCE = str(Path(cano.__file__).parents[1])
HEAD = """
import asyncio
from datetime import datetime
from enum import Enum
from typing import Literal
import pytest
from cano import *

class Step(Enum):
    WORK = 1
    DONE = 2

async def work(ctx: Context) -> Literal[Step.DONE]:
    await ctx.sleep(86_400)
    return Step.DONE

def flow(**settings):
    return Workflow(Step, start=Step.WORK, **settings).register(Step.WORK, work).exits(Step.DONE)

"""


class Done:
    """What a pytest session of its own came to."""

    def __init__(self, tmp_path: Path, code: str, *options: str, head: str = HEAD) -> None:
        (tmp_path / "test_it.py").write_text(head + code)
        named = entry_points(group="pytest11", name="cano")  # pytest loads that by itself
        plugins = [] if "no:cano" in options or named else ["-p", "pytest_cano"]
        if find_spec("pytest_asyncio"):  # which complains where that is not said
            plugins += ["-o", "asyncio_default_fixture_loop_scope=function"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers"]
        ended = subprocess.run(
            [*command, "-W", "error", *plugins, *options, "test_it.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": SOURCE, "PYTEST_ADDOPTS": ""},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        self.output: str = ended.stdout + ended.stderr
        self.code: int = ended.returncode

    def passes(self, count: int) -> None:
        assert f" {count} passed in " in self.output, self.output
        assert 0 == self.code, self.output

    def fails_with(self, *texts: str) -> None:
        assert 1 == self.code, self.output
        for text in texts:
            assert text in self.output, self.output


def test_virtual_time(tmp_path: Path) -> None:
    """A marked async test runs in virtual time, from where it is told on; fixtures are at hand."""
    code = """
@pytest.mark.cano
async def test_a_day():
    await flow().run()
    assert 86_400 == asyncio.get_running_loop().time()

@pytest.mark.cano(at="2027-01-01T00:00+01:00", limit=90_000)
@pytest.mark.parametrize("hours", [1, 2])
async def test_where_it_begins(virtual, hours):
    await virtual.advance(hours * 3600)
    assert (22 + hours + 1) % 24 == virtual.now().hour
    virtual.jump(-3600)
    assert (22 + hours) % 24 == virtual.now().hour
    assert hours * 3600 == virtual.elapsed

async def test_by_the_fixture_alone(virtual, recorder, checkpoints):
    await flow(observers=[recorder], checkpoints=checkpoints).run(run_id="a7")
    recorder.assert_path(Step.WORK, Step.DONE)
    assert 1 == len(await checkpoints.runs(RunQuery()))

class TestInAClass:
    pytestmark = pytest.mark.cano

    async def test_method(self, sqlite_checkpoints, tmp_path):
        async with flow(checkpoints=sqlite_checkpoints, lease=90_000) as open:
            await open.run()
        assert (tmp_path / "runs.db").exists()

    async def test_not_closed(self, sqlite_checkpoints):
        await flow(checkpoints=sqlite_checkpoints, lease=90_000).run()

    async def test_faults(self, faulty_store, checkpoints):
        faulty_store.fail_at = 1
        with pytest.raises(CheckpointError):
            await flow(checkpoints=faulty_store).run()
        assert checkpoints is faulty_store.store

    def test_plain(self):
        pass
"""
    Done(tmp_path, code).passes(8)


def test_failures(tmp_path: Path) -> None:
    """A failing test fails as usual, and shows what its recorder saw; a deadlock says who waits."""
    code = """
@pytest.mark.cano
async def test_wrong(recorder):
    await flow(observers=[recorder]).run(run_id="a7")
    recorder.assert_path(Step.DONE)

@pytest.mark.cano
async def test_stuck():
    await asyncio.Event().wait()

@pytest.mark.cano(limit=60)
async def test_endless():
    while True:
        await asyncio.sleep(1)
"""
    done = Done(tmp_path, code)
    done.fails_with(
        "3 failed",
        "Run 'a7' took another path",
        "  expected: DONE",
        "recorded events",
        " 86400.000  a7  RunFinished  DONE",
        "test_stuck: deadlock: every task waits",
        "waits in test_stuck, ",
        "test_endless: not over after its limit of 60 virtual seconds",
    )
    assert "base_events.py" not in done.output  # what asyncio did in between helps nobody


def test_leaked_tasks(tmp_path: Path) -> None:
    """A test that leaks tasks fails with their names, where they were created and where they wait."""
    code = """
async def other():
    await asyncio.sleep(3600)

@pytest.mark.cano
async def test_leaky():
    asyncio.create_task(other(), name="the leak")

@pytest.mark.cano
async def test_leaks_a_run():
    await flow().start_run()

@pytest.mark.cano
async def test_tidy():
    asyncio.create_task(asyncio.sleep(0))

closed = []

async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(1)
        closed.append(1)

@pytest.mark.cano
async def test_generator_left_in_the_middle():
    async for _ in numbers():
        break

def test_it_was_closed():
    assert [1] == closed

@pytest.mark.cano
async def test_failing_anyway():
    asyncio.create_task(other())
    assert 1 == 2
"""
    done = Done(tmp_path, code)
    leaky = HEAD.count("\n") + code[: code.index("    asyncio.create_task(other(), n")].count("\n")
    done.fails_with(
        "3 failed, 3 passed",
        "test_leaky left 1 asyncio task running: await or cancel what it starts",
        "  the leak (other), created in test_leaky, ",
        f"test_it.py:{leaky + 1}, waits in other, ",
        "test_leaks_a_run left 1 asyncio task running",
        "created in test_leaks_a_run, ",
        "waits in work, ",
        "assert 1 == 2",
    )
    assert "test_failing_anyway left" not in done.output


def test_settings_are_checked(tmp_path: Path) -> None:
    """A marker with settings that are none says so in the test that has it."""
    code = """
@pytest.mark.cano(att=3)
async def test_unknown(): ...

@pytest.mark.cano(at="yesterday")
async def test_no_date(): ...

@pytest.mark.cano(at=datetime(2027, 1, 1))
async def test_no_zone(): ...
"""
    Done(tmp_path, code).fails_with(
        "3 failed",
        "@pytest.mark.cano of test_unknown: ",
        "unexpected keyword argument 'att'",
        "Invalid isoformat string: 'yesterday'",
        "has no time zone; pass an aware datetime",
    )


def test_others_are_left_alone(tmp_path: Path) -> None:
    """Tests that ask for nothing are neither run nor changed, and nothing is imported for them."""
    code = """
import sys

def test_plain():
    assert "cano.testing._leaks" not in sys.modules
    assert "cano.testing.recorder" not in sys.modules
"""
    Done(tmp_path, code, head="").passes(1)


def test_without_the_plugin(tmp_path: Path) -> None:
    """Left out, it brings neither the marker nor the fixtures."""
    code = "def test_it(recorder): ..."
    done = Done(tmp_path, code, "-p", "no:cano")
    done.fails_with("fixture 'recorder' not found")


def test_hypothesis(tmp_path: Path) -> None:
    """Each example of a property runs in a virtual time of its own."""
    code = """
from hypothesis import given, strategies as st

@pytest.mark.cano
@given(st.integers(1, 5))
async def test_property(hours):
    await asyncio.sleep(hours * 3600)
    assert hours * 3600 == asyncio.get_running_loop().time()
"""
    Done(tmp_path, code).passes(1)


ANYIO = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_theirs(anyio_backend):
    import cano.testing.clock
    assert not isinstance(asyncio.get_running_loop(), cano.testing.clock.VirtualLoop)

@pytest.mark.cano
async def test_ours(virtual):
    await virtual.advance(3600)
"""


@pytest.mark.skipif(find_spec("anyio") is None, reason="anyio is not installed")
def test_beside_anyio(tmp_path: Path) -> None:
    """anyio's tests stay anyio's."""
    Done(tmp_path, ANYIO).passes(2)


ASYNCIO = """
@pytest.mark.asyncio
async def test_theirs():
    import cano.testing.clock
    assert not isinstance(asyncio.get_running_loop(), cano.testing.clock.VirtualLoop)

@pytest.mark.cano
@pytest.mark.parametrize("hours", [1, 2])
async def test_ours(virtual, hours):
    await virtual.advance(hours * 3600)

class TestOurs:
    async def test_by_fixture(self, virtual):
        assert isinstance(self, TestOurs)
        await virtual.advance(3600)
"""


@pytest.mark.skipif(find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    """pytest-asyncio's tests stay its own, and ours stay ours, even if it is to take them all."""
    Done(tmp_path, ASYNCIO, "-o", f"asyncio_mode={mode}").passes(4)


@pytest.mark.skipif(find_spec("anyio") is None, reason="anyio is not installed")
def test_two_masters(tmp_path: Path) -> None:
    """A test that is given to two plugins fails and says which."""
    code = """
@pytest.mark.cano
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_both(anyio_backend): ...
"""
    Done(tmp_path, code).fails_with(
        "test_both[asyncio] is marked cano and anyio; drop one of the two"
    )
