"""The pytest plugin: tests in virtual time, and fixtures. Does nothing for tests that ask for nothing.

Everything is imported when a test first needs it, so that loading the plugin costs next to nothing.
``-p no:cano`` leaves it out.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cano.checkpoints import MemoryCheckpoints, SqliteCheckpoints
    from cano.testing._leaks import Settings, VirtualTime
    from cano.testing.faults import FaultyStore
    from cano.testing.recorder import Recorder

LINES = 200
"""How many lines of a recorder are shown below a failed test: the last ones."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "cano(at=None, limit=None): run this async test in virtual time, from the aware datetime "
        "*at* on, for *limit* virtual seconds at most. It fails if it leaks asyncio tasks.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take back the tests that another plugin, told to run all async ones, made its own."""
    for index, item in enumerate(items):
        if not isinstance(item, pytest.Function) or type(item) is pytest.Function:
            continue
        if _is_ours(item) and _inner(item.obj) and not _clashes(item):
            plain: Any = pytest.Function
            items[index] = plain.from_parent(
                item.parent,
                name=item.name,
                callspec=getattr(item, "callspec", None),
                callobj=item.obj,
                fixtureinfo=item._fixtureinfo,
                keywords=item.keywords,
                originalname=item.originalname,
            )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Run an async test of ours: as a plain function, in which no other plugin is interested."""
    written = pyfuncitem.obj
    if not _is_ours(pyfuncitem) or not (inner := _inner(written)):
        return (yield)
    if clash := _clashes(pyfuncitem):
        pytest.fail(f"{pyfuncitem.name} is marked cano and {clash}; drop one of the two", False)
    plain = _in_virtual_time(inner, _settings(pyfuncitem), pyfuncitem.name)
    if inner is written:
        pyfuncitem.obj = plain
    else:
        written.hypothesis.inner_test = plain
    try:
        return (yield)
    finally:
        pyfuncitem.obj = written


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show below a failed test what its recorder saw."""
    report = yield
    module = sys.modules.get("cano.testing.recorder")
    if report.failed and module and isinstance(item, pytest.Function):
        found: Any = item.funcargs.get("recorder")
        if isinstance(found, module.Recorder) and found.events:
            lines = str(found).splitlines()
            left = [f"… {len(lines) - LINES} before"] if len(lines) > LINES else []
            report.sections.append(("recorded events", "\n".join([*left, *lines[-LINES:]])))
    return report


@pytest.fixture
def virtual() -> VirtualTime:
    """The virtual time of the test, which is thereby run in it: advance, now, jump, elapsed."""
    from cano.testing._leaks import VirtualTime  # noqa: PLC0415 -- see the head of this file

    return VirtualTime()


@pytest.fixture
def recorder() -> Recorder:
    """An observer that records everything; shown if the test fails."""
    from cano.testing.recorder import Recorder  # noqa: PLC0415

    return Recorder()


@pytest.fixture
def checkpoints() -> MemoryCheckpoints:
    """An empty store in memory."""
    from cano.checkpoints import MemoryCheckpoints  # noqa: PLC0415

    return MemoryCheckpoints()


@pytest.fixture
def sqlite_checkpoints(tmp_path: Path) -> Iterator[SqliteCheckpoints]:
    """An empty store on disk, closed after the test."""
    from cano.checkpoints import SqliteCheckpoints  # noqa: PLC0415
    from cano.testing.clock import run  # noqa: PLC0415

    store = SqliteCheckpoints(tmp_path / "runs.db")
    yield store
    run(store.close())


@pytest.fixture
def faulty_store(checkpoints: MemoryCheckpoints) -> FaultyStore:
    """A store around that of `checkpoints`; set what shall go wrong: `faulty_store.fail_at = 3`."""
    from cano.testing.faults import FaultyStore  # noqa: PLC0415

    return FaultyStore(checkpoints)


def _is_ours(item: pytest.Function) -> bool:
    return item.get_closest_marker("cano") is not None or "virtual" in item.fixturenames


def _inner(function: Any) -> Any:
    """The async function to be run, if there is one: with Hypothesis it is inside another."""
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inner if inspect.iscoroutinefunction(inner) else None


def _clashes(item: pytest.Function) -> str:
    """The mark by which the test was expressly given to another plugin as well."""
    if item.get_closest_marker("cano") is None:
        return ""
    function: Any = getattr(item, "function", None)
    own = {mark.name for mark in getattr(function, "pytestmark", ())}
    return next((name for name in ("asyncio", "anyio", "trio") if name in own), "")


def _settings(item: pytest.Function) -> Settings:
    from cano.testing._leaks import Settings  # noqa: PLC0415

    mark = item.get_closest_marker("cano")
    try:
        return Settings.of(*mark.args, **mark.kwargs) if mark else Settings()
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.cano of {item.name}: {error}", pytrace=False)


def _in_virtual_time(
    function: Callable[..., Any], settings: Settings, name: str
) -> Callable[..., None]:
    from cano.testing._leaks import LeakedTasksError, run_watched  # noqa: PLC0415

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        said = None
        try:
            run_watched(function(*args, **kwargs), settings)
        except LeakedTasksError as error:
            said = f"{name} {error}"
        except BaseException as error:  # noqa: BLE001 -- raised again, or failed for
            trace = _own(error.__traceback__, function)
            if trace is not None or not isinstance(error, RuntimeError):
                raise error.with_traceback(trace or error.__traceback__)  # noqa: B904
            said = f"{name}: {error}"  # a deadlock, or the limit: nobody's line raised it
        if said:
            pytest.fail(said, pytrace=False)

    return plain


def _own(trace: TracebackType | None, function: Any) -> TracebackType | None:
    """The part of *trace* from *function* on: what asyncio did before helps nobody."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    while trace is not None and trace.tb_frame.f_code is not code:
        trace = trace.tb_next
    return trace
