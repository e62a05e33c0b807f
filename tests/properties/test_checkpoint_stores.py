"""Every store answers like every other, whatever is asked of it in whatever order."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CheckpointStore, NewRun, Owner, RunQuery, Status
from cano.errors import CheckpointError
from cano.events import Event, RunStarted, StateEntered, TaskCompleted
from cano.testing.faults import FaultyStore

LARGE = b'"' + b"x" * 40_000 + b'"'
OWNERS = [Owner("ann", "here", 1, "mon"), Owner("ben", "here", 2, "tue"), Owner("eve", "there", 1)]

run_ids = st.sampled_from(["a", "b", "c"])
workflows = st.sampled_from(["flow", "flow", "flow", "other"])
owners = st.sampled_from(OWNERS)
seconds = st.integers(0, 20).map(float)
open_statuses = st.sampled_from([Status.RUNNING, Status.WAITING, Status.IN_DOUBT])
values = st.sampled_from([b"null", b"1", b'"\xc3\xbc"', LARGE, LARGE.replace(b"x", b"y")])


class StoreMachine(RuleBasedStateMachine):
    """Does the same to every store, and compares what they say."""

    makers: tuple[Callable[[Path], CheckpointStore], ...] = (
        lambda _: MemoryCheckpoints(),
        lambda _: FaultyStore(MemoryCheckpoints()),
    )

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.stores = [make(Path(self.place.name)) for make in self.makers]
        self.now = 0.0
        self.lengths: dict[str, int] = {}
        self.epochs: dict[str, int] = {}

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.runner.close()
        self.place.cleanup()

    def ask(self, name: str, *arguments: Any) -> Any:
        """What all stores answer; they must agree."""
        answers = [self.runner.run(_answer(store, name, arguments)) for store in self.stores]
        for store, answer in zip(self.stores[1:], answers[1:], strict=True):
            assert answers[0] == answer, f"{name}{arguments}: {self.stores[0]!r} and {store!r}"
        return answers[0]

    def known(self, run_id: str) -> None:
        """Remember how long the run is and what its epoch is, to say something that fits."""
        found = self.ask("summary", run_id)
        if found is not RunMissing:
            self.lengths[run_id], self.epochs[run_id] = found.sequence, found.epoch

    @initialize()
    def begin(self) -> None:
        for run_id, owner in zip("ab", OWNERS, strict=False):
            self.create(run_id, "flow", owner, ("x",), LARGE)

    @rule(passed=st.sampled_from([0.5, 1.0, 5.0, 30.0]))
    def wait(self, passed: float) -> None:
        self.now += passed

    @rule(
        run_id=run_ids,
        workflow=workflows,
        owner=owners,
        tags=st.sets(st.sampled_from(["x", "xx"])).map(lambda tags: tuple(sorted(tags))),
        value=values,
    )
    def create(
        self, run_id: str, workflow: str, owner: Owner, tags: tuple[str, ...], value: bytes
    ) -> None:
        self.ask("renew", owner, self.now, self.now + 3)
        first = RunStarted(
            sequence=1, state="START", time=self.now, patch={"x": msgspec.Raw(value)}
        )
        new = NewRun(run_id, workflow, owner.id, self.now, 1, "f", tags)
        self.ask("create", new, [first])
        self.known(run_id)

    @rule(
        run_id=run_ids,
        count=st.integers(0, 3),
        status=st.sampled_from([None, None, None, None, *Status]),
        off=st.sampled_from([0, 0, 0, 0, 0, -1, 1]),
        late=st.sampled_from([0, 0, 0, 0, -1, 1]),
        value=values,
    )
    def append(
        self, run_id: str, count: int, status: Status | None, off: int, late: int, value: bytes
    ) -> None:
        found = self.ask("summary", run_id)
        if found is not RunMissing and found.over:
            return  # a store may take it or leave it: whoever ended a run says no more
        number = self.lengths.get(run_id, 0) + 1 + off
        events: list[Event] = [
            (StateEntered if n % 2 else TaskCompleted)(
                sequence=number + n, state=f"S{number + n}", time=self.now + n / 8,
                patch={"x": msgspec.Raw(value), "n": msgspec.Raw(str(n).encode())},
            )
            for n in range(count)
        ]  # fmt: skip
        if not events:
            status = None
        self.ask("append", run_id, self.epochs.get(run_id, 1) + late, events, status)
        self.known(run_id)

    @rule(run_id=run_ids, owner=owners, again=st.booleans())
    def take(self, run_id: str, owner: Owner, again: bool) -> None:
        self.ask("renew", owner, self.now, self.now + 3)
        self.ask("claim", run_id, owner.id, self.now)
        if again:
            self.ask("reopen", run_id, owner.id, self.now)
        self.known(run_id)

    @rule(run_id=run_ids, owner=owners, times=st.integers(1, 3))
    def crash(self, run_id: str, owner: Owner, times: int) -> None:
        for _ in range(times):
            self.take(run_id, owner, False)
            self.now += 4

    @rule(run_id=run_ids, owner=owners, status=open_statuses)
    def visit(self, run_id: str, owner: Owner, status: Status) -> None:
        self.take(run_id, owner, False)
        self.append(run_id, 1, None, 0, 0, b"1")
        self.release(run_id, status, inf, 0, 0)

    @rule(
        run_id=run_ids,
        status=open_statuses,
        wait=st.sampled_from([0.0, 1.0, 10.0, inf]),
        seen=st.integers(0, 2),
        late=st.sampled_from([0, 0, 0, -1]),
    )
    def release(self, run_id: str, status: Status, wait: float, seen: int, late: int) -> None:
        epoch = self.epochs.get(run_id, 1) + late
        self.ask("release", run_id, epoch, status, self.now + wait if wait else 0.0, seen)
        self.known(run_id)

    @rule(owner=owners, lease=st.sampled_from([1.0, 3.0, 20.0]))
    def renew(self, owner: Owner, lease: float) -> None:
        self.ask("renew", owner, self.now, self.now + lease)

    @rule(owner=owners)
    def expire(self, owner: Owner) -> None:
        self.ask("expire", owner.id)

    @rule(run_id=run_ids, key=st.sampled_from(["", "", "k", "l"]), value=values)
    def send(self, run_id: str, key: str, value: bytes) -> None:
        self.ask("send", run_id, "go", value, self.now, key)

    @rule(run_id=run_ids)
    def delete(self, run_id: str) -> None:
        if self.ask("delete", [run_id, run_id, "nobody"]) == 1:
            self.lengths.pop(run_id)
            self.epochs.pop(run_id)

    @rule()
    def close(self) -> None:
        self.ask("close")

    @rule(
        query=st.builds(
            RunQuery,
            workflow=st.none() | workflows,
            statuses=st.sets(st.sampled_from(Status), max_size=2).map(lambda s: tuple(sorted(s))),
            tag=st.sampled_from([None, None, "x", "xx", "y"]),
            since=st.none() | seconds,
            before=st.none() | seconds,
            stuck=st.none() | st.integers(0, 2),
            after=st.none() | run_ids,
            limit=st.integers(1, 3),
        ),
        after=st.integers(0, 3),
        limit=st.none() | st.integers(0, 3),
    )
    def look(self, query: RunQuery, after: int, limit: int | None) -> None:
        self.ask("runs", query)
        self.ask("owners", "here", self.now)
        assert [] == self.ask("check")
        for run_id in "abc":
            self.ask("load", run_id)
            self.ask("load", run_id, after, limit)
            self.ask("inbox", run_id, after)

    @invariant()
    def all_see_the_same(self) -> None:
        assert len(self.lengths) == len(self.ask("runs", RunQuery()))
        self.ask("due", "flow", self.now, 10, 2)
        self.ask("due", "other", self.now + 2, 10, 3)
        self.ask("runs", RunQuery(after="a"))
        self.ask("runs", RunQuery(tag="x", limit=2))
        self.ask("ended", None, -1.0, 1, 2)
        self.ask("ended", "flow", self.now - 10, 1, 2)


class RunMissing:
    """Stands for the summary of a run that is not there."""


async def _answer(store: CheckpointStore, name: str, arguments: tuple[Any, ...]) -> Any:
    """What a store says, in a form that can be compared; errors by their kind."""
    try:
        answer = await getattr(store, name)(*arguments)
    except CheckpointError as error:
        return RunMissing if name == "summary" else type(error)
    if name == "load":
        # Whether a claim repeats whose run it is, is the store's affair.
        events = [msgspec.structs.replace(event, run_id="", workflow="") for event in answer]
        return [msgspec.json.encode(event, order="deterministic") for event in events]
    if name == "due":
        return set(answer.runs), answer.next
    if name == "owners":
        return sorted(answer, key=lambda owner: owner.id)
    return list(answer) if isinstance(answer, list | tuple) else answer


often = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class InMemory(StoreMachine):
    """The store in memory, and the same through a store that could fail."""


TestMemory = InMemory.TestCase
TestMemory.settings = often

if importlib.util.find_spec("cano.checkpoints.sqlite"):
    from cano.checkpoints.sqlite import SqliteCheckpoints

    class OnDisk(StoreMachine):
        """The store in memory, and the one in a file."""

        makers = (lambda _: MemoryCheckpoints(), lambda path: SqliteCheckpoints(path / "runs.db"))

    TestSqlite = OnDisk.TestCase
    TestSqlite.settings = settings(often, max_examples=20, stateful_step_count=25)
