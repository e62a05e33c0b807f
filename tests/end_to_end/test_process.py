"""`process`: what goes to another process, what comes back, and what cannot."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cano import Resources, Split, Workflow, process
from cano.errors import (
    DataError,
    DefinitionError,
    DetachedContextError,
    JoinFailedError,
    RemoteError,
)
from cano.tasks.verb import describe
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

import offloaded as jobs
from offloaded import FrozenOrder, Order, Step, StructOrder
from offloaded_model import ModelOrder


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Make one call in a process, in an event loop of its own."""

    async def main() -> Any:
        return await process(function)(*args, **kwargs)

    return asyncio.run(main())


def single(function: Any, data: type[Any] | None = Order, **resources: Any) -> Workflow[Any, Any]:
    """A workflow of one state, whose task is *function* in a process."""
    flow: Any = Workflow(Step, data=data, resources=Resources(**resources))
    return flow.register(Step.WORK, process(function)).exits(Step.DONE, Step.REPORT)


def test_describes_like_the_function() -> None:
    """Name, edges and resources are read through the wrapper, and it counts as async."""
    verb = describe(process(jobs.with_resource))

    assert "with_resource" == verb.name
    assert frozenset({Step.DONE}) == verb.targets
    assert ["db"] == [want.name for want in verb.wants]
    assert verb.problem is None


def test_runs_by_itself() -> None:
    """Called outside a workflow it passes arguments on and hands the result back."""
    assert {"a": [1, 2.5]} == call(jobs.same, value={"a": [1, 2.5]})
    assert os.getpid() != call(jobs.pid)
    assert 5 == call(abs, -5)
    assert 7 == call(partial(max, 3), 7)


def test_large_values_travel() -> None:
    """Arguments and results larger than a pipe's buffer arrive whole."""
    value = bytes(range(256)) * 20_000

    assert value == call(jobs.same, value)


def test_decorates_functions_and_methods() -> None:
    """As a decorator it replaces the function, which other processes find all the same."""

    async def main() -> tuple[int, Any]:
        flow = Workflow(Step).register(Step.WORK, jobs.Parse()).exits(Step.DONE, Step.REPORT)
        return await jobs.decorated(1), await flow.run(Step.WORK)

    assert (2, Step.DONE) == asyncio.run(main())


def test_keeps_its_process() -> None:
    """Calls one after the other are made by one process, over several event loops."""
    pid = process(jobs.pid, limit=1)

    async def main() -> set[int]:
        return {await pid(), await pid()}

    assert 1 == len(asyncio.run(main()) | asyncio.run(main()))


def test_holds_virtual_time() -> None:
    """Virtual time stands still while a process works."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        sleeper = asyncio.ensure_future(asyncio.sleep(10))
        await process(jobs.nap)(0.05)
        now = loop.time()
        await sleeper
        return now

    assert 0.0 == run(main())


@pytest.mark.parametrize("kind", [Order, StructOrder, ModelOrder])
def test_changes_of_data_come_back(kind: type[Any]) -> None:
    """What a state's own task changes in `ctx.data` is put into the run's object."""
    data = kind()
    end = asyncio.run(single(jobs.add, kind).run(Step.WORK, data=data))

    assert end is Step.DONE
    assert (2, ["first", "second"]) == (data.total, data.lines)


def test_frozen_data_is_replaced() -> None:
    """Data that cannot be changed comes back as another object, as it would at home."""

    async def main() -> tuple[Any, Any]:
        data = FrozenOrder()
        handle = await single(jobs.add, FrozenOrder).start_run(Step.WORK, data=data)
        await handle.result()
        return data, await handle.data()

    assert (FrozenOrder(), FrozenOrder(2, ("first", "second"))) == asyncio.run(main())


def test_unchanged_fields_are_left_alone() -> None:
    """Only changed fields come back: the objects in the others stay the ones they are."""
    data = Order(anything=["kept"])
    kept = data.anything
    asyncio.run(single(jobs.add).run(Step.WORK, data=data))

    assert kept is data.anything


def test_changes_of_a_failure_do_not_come_back() -> None:
    """A call that raises leaves the run's data as it was."""
    data = Order()
    with pytest.raises(ValueError, match="after the change"):
        asyncio.run(single(jobs.add_and_fail).run(Step.WORK, data=data))

    assert Order() == data


def test_changes_of_a_branch_do_not_come_back() -> None:
    """Branches return values and leave the run's data alone, whatever they do to their copy."""
    data = Order()
    branch = process(jobs.add_in_a_branch)
    flow = (
        Workflow(Step, data=Order)
        .register(Step.WORK, Split([branch, branch], then=Step.REPORT))
        .register(Step.REPORT, process(jobs.add_up))
        .exits(Step.DONE)
    )
    asyncio.run(flow.run(Step.WORK, data=data))

    assert Order(total=4) == data


def test_items_travel() -> None:
    """`Split.over` gives each branch its item, and the next state finds the results in order."""
    data = Order()
    flow = (
        Workflow(Step, data=Order)
        .register(
            Step.WORK,
            Split.over(lambda _: [1, 2, 3], run=process(jobs.double), then=Step.REPORT),
        )
        .register(Step.REPORT, process(jobs.add_up))
        .exits(Step.DONE)
    )
    asyncio.run(flow.run(Step.WORK, data=data))

    assert 12 == data.total


def test_context_travels() -> None:
    """The context arrives with what can be read there."""
    seen: list[Any] = []

    async def look(ctx: Any) -> Any:
        seen.extend([ctx.run_id, await process(jobs.known)(ctx)])
        return Step.DONE

    flow = Workflow(Step, data=Order).register(Step.WORK, look).exits(Step.DONE, Step.REPORT)
    asyncio.run(flow.run(Step.WORK, run_id="a7"))

    assert ["a7", ("a7", Step.WORK, Order(), 1, None, None)] == seen


@pytest.mark.parametrize("what", ["resources", "path_"])
def test_the_rest_of_the_context_stays(what: str) -> None:
    """What a context lacks in another process is an error that says so."""

    async def look(ctx: Any) -> Any:
        await process(jobs.ask)(ctx, what)

    flow = Workflow(Step, data=Order).register(Step.WORK, look).exits(Step.DONE, Step.REPORT)
    wanted = DetachedContextError if what == "resources" else AttributeError
    with pytest.raises(wanted):
        asyncio.run(flow.run(Step.WORK))


def test_exceptions_come_back() -> None:
    """An exception is raised as itself, with the traceback from over there as a note."""
    with pytest.raises(jobs.OrderError) as caught:
        call(jobs.fail, "its own")

    assert 5 == caught.value.order
    note = caught.value.__notes__[0]
    assert note.startswith("cano: in a worker process:\nTraceback")
    assert 'raise OrderError(5, "kept")' in note


def test_exceptions_that_cannot_come_back_are_told() -> None:
    """An exception that cannot be unpickled is a `RemoteError` of the same words."""
    with pytest.raises(RemoteError) as caught:
        call(jobs.fail, "stubborn")

    assert "StubbornError: order 5: stubborn" == str(caught.value)
    assert ("StubbornError", "order 5: stubborn") == (caught.value.kind, caught.value.message)
    assert 'raise StubbornError(5, "stubborn")' in caught.value.__notes__[0]


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("flow", "data", "said"),
    [
        (single(jobs.with_resource, db=LOCK), Order(), "with_resource: argument 'db' cannot be"),
        (single(jobs.add), Order(anything=LOCK), "add: ctx.data.anything cannot be sent to ano"),
        (single(jobs.put_a_lock), Order(), "put_a_lock: ctx.data.anything cannot be sent back"),
    ],
    ids=["argument", "data", "changed data"],
)
def test_says_what_cannot_travel(flow: Workflow[Any, Any], data: Order, said: str) -> None:
    """A value that cannot be pickled is an error naming it, on the way there and back."""
    with pytest.raises(DataError, match=r"cannot pickle '_thread\.lock' object") as caught:
        asyncio.run(flow.run(Step.WORK, data=data))

    assert str(caught.value).startswith(said)


def test_says_that_the_result_cannot_travel() -> None:
    """A result that cannot be pickled is an error saying so."""
    with pytest.raises(DataError, match="a_lock: its result cannot be sent back: TypeError"):
        call(jobs.a_lock)


def test_one_branch_that_cannot_travel_fails_alone() -> None:
    """What cannot be sent is the failure of its branch."""
    data = Order(total=0)
    branches = [process(jobs.add_in_a_branch), process(jobs.with_resource)]
    flow = (
        Workflow(Step, data=Order, resources=Resources(db=LOCK))
        .register(Step.WORK, Split(branches, then=Step.DONE))
        .exits(Step.DONE, Step.REPORT)
    )
    with pytest.raises(JoinFailedError) as caught:
        asyncio.run(flow.run(Step.WORK, data=data))

    assert [DataError] == [type(error) for error in caught.value.exceptions]


def local(value: Any) -> Any:
    def inner() -> Any:
        return value

    return inner


async def asynchronous() -> None: ...


@pytest.mark.parametrize(
    ("wrong", "limit", "said"),
    [
        (lambda: 1, None, "a lambda has no name to find it by in another process"),
        (local(1), None, "local.inner): another process cannot find a function defined in a func"),
        (partial(local(1)), None, "it cannot be sent to another process"),
        (asynchronous, None, "asynchronous is async already and needs no process"),
        (process(jobs.same), None, "same is async already"),
        ("same", None, "process('same'): pass a function"),
        (jobs.same, 0, "process(same, limit=0) lets nothing run; pass 1 or more"),
    ],
)
def test_refuses(wrong: Any, limit: int | None, said: str) -> None:
    """What another process could not find, or needs none, is refused when it is wrapped."""
    with pytest.raises(DefinitionError) as caught:
        process(wrong, limit=limit)

    assert said in str(caught.value)


def test_refuses_a_function_under_another_s_name() -> None:
    """A function that is not what its name leads to is refused, before the wrong one is called."""
    original = jobs.nap
    jobs.nap = jobs.same
    try:
        with pytest.raises(DefinitionError, match=r"looks for offloaded\.nap and finds <function"):
            process(original)
    finally:
        jobs.nap = original


def in_program(code: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments] if arguments else [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **settings)


def test_refuses_what_was_typed_into_a_prompt() -> None:
    """A function of a program without a file is refused, with the remedy."""
    done = in_program("import cano\ndef f(): pass\ncano.process(f)")

    assert "DefinitionError: process(f): another process cannot find what was typed" in done.stderr


SCRIPT = """
import asyncio, enum, sys
from typing import Literal
from cano import Context, Workflow, process
{more}
class Step(enum.Enum):
    WORK = 1
    DONE = 2
class OwnError(Exception): ...
def work(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE
def fail():
    raise OwnError("caught")
async def main():
    flow = Workflow(Step).register(Step.WORK, process(work)).exits(Step.DONE)
    print(await flow.run(Step.WORK) is Step.DONE)
    try:
        await process(fail)()
    except OwnError as error:
        print(error)
"""
START = 'if __name__ == "__main__":\n    asyncio.run(main())\n'


def test_a_script_s_own_functions_and_types(tmp_path: Path) -> None:
    """Functions, states and errors that a script defines itself go there and back."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(more="") + START)

    done = in_program("", str(script))

    assert ("True\ncaught\n", "") == (done.stdout, done.stderr)


def test_a_package_s_main_module(tmp_path: Path) -> None:
    """The same holds for `python -m package`, relative imports included."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").touch()
    (package / "__main__.py").write_text(SCRIPT.format(more="from . import other") + START)

    done = in_program("", "-m", "package", cwd=tmp_path)

    assert ("True\ncaught\n", "") == (done.stdout, done.stderr)


def test_an_unguarded_script_is_told(tmp_path: Path) -> None:
    """A script that would start itself again in every process gets an error, not a flood."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(more="") + "asyncio.run(main())\n")

    done = in_program("", str(script))

    assert 'put what starts the program under `if __name__ == "__main__":`' in done.stderr
    assert "" == done.stdout


def test_output_goes_to_stderr(tmp_path: Path) -> None:
    """Stdin is empty, and whatever is printed in a process goes to stderr, however much."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import asyncio, sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        "from cano import process\nfrom offloaded import chatter\n"
        "async def main(): print(repr(await process(chatter)()))\n" + START
    )
    done = in_program("", str(script), input="not for the function")

    assert "''\n" == done.stdout
    assert "to stdout\n" + "x" * 300_000 == done.stderr
