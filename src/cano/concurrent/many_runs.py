"""Many runs of one workflow at once: one per input, under a strategy that says when it is enough.

Rule 1: an outcome belongs to its input, by index, in whatever order the runs end.
Rule 2: what was begun is waited for, whatever ends the call; nothing runs on behind its back.
Rule 3: an input is asked for when there is room for its run, and not before.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Sequence, Sized
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, overload

from cano._clock import loop_time
from cano._deadline import AGAIN
from cano.concurrent._inputs import Inputs
from cano.concurrent._instance import Instance, RunOutcome, end
from cano.concurrent.waits import Forever, ManyStatus, Wait
from cano.errors import DefinitionError, StrayCancelledError, note
from cano.handle import RunHandle
from cano.tasks.task import S

if TYPE_CHECKING:
    from cano.workflow import Workflow

D = TypeVar("D")
_log = logging.getLogger("cano.concurrent")


class ManyRuns(Sequence[RunOutcome[S, D]]):
    """One outcome per input, in the order of the inputs, and what they add up to.

    Inputs that were never asked for have an outcome too, `not started`, if they have a `len`.
    """

    def __init__(self, begun: Sequence[RunOutcome[S, D]], status: ManyStatus) -> None:
        self._begun = begun
        self.status: ManyStatus = status

    def __repr__(self) -> str:
        return f"<ManyRuns {_in_words(self.status)}>"

    def __len__(self) -> int:
        return self.status.total

    @overload
    def __getitem__(self, index: int) -> RunOutcome[S, D]: ...
    @overload
    def __getitem__(self, index: slice) -> list[RunOutcome[S, D]]: ...
    def __getitem__(self, index: int | slice) -> RunOutcome[S, D] | list[RunOutcome[S, D]]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]  # raises IndexError, and counts from the end
        return self._begun[place] if place < len(self._begun) else RunOutcome(place)

    @property
    def successes(self) -> list[RunOutcome[S, D]]:
        """The runs that came to an exit, by index."""
        return [outcome for outcome in self._begun if outcome.status == "succeeded"]

    @property
    def errors(self) -> list[RunOutcome[S, D]]:
        """The runs that failed, by index; each with its own exception."""
        return [outcome for outcome in self._begun if outcome.status == "failed"]


async def run_many(
    workflow: Workflow[S, D],
    inputs: Iterable[D] | AsyncIterable[D],
    *,
    start: S | None = None,
    wait: Wait = Forever(),  # noqa: B008 -- it is frozen
    concurrency: int | None = None,
    run_ids: Callable[[int, D], str] | None = None,
    tags: Sequence[str] = (),
    on_change: Callable[[ManyStatus], None] | None = None,
) -> ManyRuns[S, D]:
    """Run *workflow* once per input, all at once or as many as *concurrency* allows.

    An input is the data of its run. What a run raises is in its outcome: this raises only
    `DefinitionError`, before anything is started, what the resources raise, and what asking for
    the inputs does. Then, as when whoever awaits this is cancelled, the runs under way are let go
    of: with a store anybody may resume them, without one they are rolled back.

    Args:
        workflow: what to run; its resources stay up during the whole call.
        inputs: the data of each run, asked for one by one when there is room; an async generator
            is closed at the end. Without *concurrency* there is always room, so an endless source
            needs it.
        start: the state to start from, if it is not the workflow's own.
        wait: when it is enough: `Forever()` by default, `Quota`, `Duration`, `QuotaOrDuration`.
            Runs still under way then are cancelled, with a store durably, and waited for.
        concurrency: how many may run at once; None is no limit.
        run_ids: names each run, by index and input. With a store a name is an idempotency key:
            called again, what is over gives its recorded end, and what is not is carried on.
        tags: for finding the runs in lists of a store.
        on_change: told how many runs stand where, at each start and end, and at last. If it
            raises, that is logged, and it is told no more.
    """
    async with many(
        workflow, inputs, start=start, wait=wait, concurrency=concurrency, run_ids=run_ids,
        tags=tags, on_change=on_change,
    ) as runs:  # fmt: skip
        begun = [outcome async for outcome in runs]
    begun.sort(key=lambda outcome: outcome.index)
    return ManyRuns(begun, runs.status)


class many(Generic[S, D]):  # noqa: N801 -- used as a function
    """`run_many`, with the outcomes as the runs end, and none of them kept.

    Example::

        async with many(flow, orders, concurrency=10) as runs:
            async for outcome in runs:
                print(outcome.index, outcome.status)

    A run keeps its place among *concurrency* until its outcome is taken, so whoever takes them
    slowly is not flooded. Leaving the block early is enough, as a `Quota` may be: what runs is
    cancelled. Leaving it with an exception lets go of the runs, as cancelling `run_many` does.
    """

    def __init__(
        self,
        workflow: Workflow[S, D],
        inputs: Iterable[D] | AsyncIterable[D],
        *,
        start: S | None = None,
        wait: Wait = Forever(),  # noqa: B008 -- it is frozen
        concurrency: int | None = None,
        run_ids: Callable[[int, D], str] | None = None,
        tags: Sequence[str] = (),
        on_change: Callable[[ManyStatus], None] | None = None,
    ) -> None:
        _check(inputs, wait, concurrency, run_ids, tags)
        workflow._begin(start)  # raises every definition error, once
        self._workflow = workflow
        self._wait = wait
        self._inputs = Inputs(inputs)
        self._exhausted = False
        self._start = start
        self._run_ids = run_ids
        self._tags = tags
        self._on_change = on_change
        self._places = None if concurrency is None else asyncio.Semaphore(concurrency)
        self._length = len(inputs) if isinstance(inputs, Sized) else 0
        self._begun = 0
        self._running: dict[int, Instance[S, D]] = {}
        self._ended = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self._untaken: deque[RunOutcome[S, D]] = deque()
        self._news = asyncio.Event()
        self._letting_go = False
        self._raised: BaseException | None = None
        self._conductor: asyncio.Task[None] | None = None
        self._clock: Callable[[], float] = float  # no time has passed
        self._zero = 0.0
        self._over: float | None = None
        """How many seconds it took, once it is over."""

    def __repr__(self) -> str:
        return f"<many runs of {self._workflow.name}: {_in_words(self.status)}>"

    @property
    def status(self) -> ManyStatus:
        """How many runs stand where."""
        total = max(self._length, self._begun)
        return ManyStatus(
            total=total,
            not_started=total - self._begun,
            running=len(self._running),
            seconds=self._clock() - self._zero if self._over is None else self._over,
            complete=self._over is not None,
            **self._ended,
        )

    async def __aenter__(self) -> Self:
        """Set the resources up, and begin."""
        if self._conductor is not None:
            raise DefinitionError("many(...) can be entered once; make another one")
        await self._workflow.resources.acquire(self._workflow._hear)
        loop = asyncio.get_running_loop()
        self._clock = loop_time(loop)
        self._zero = self._clock()
        self._enough: asyncio.Future[None] = loop.create_future()
        self._conductor = conductor = loop.create_task(self._conduct(), name="cano: many runs")
        conductor.add_done_callback(lambda _: self._news.set())
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunOutcome[S, D]:
        """The next run to end. Raises what asking for the inputs raised, at last."""
        conductor = self._entered()
        while not self._untaken:
            if conductor.done():
                conductor.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self._places is not None:
            self._places.release()
        return self._untaken.popleft()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for all that was begun: cancelled if the block was left early, or let go of."""
        conductor = self._entered()
        try:
            if kind is None:
                self._stop()
                await asyncio.wait((conductor,))
        finally:
            await self._end(conductor)
        if kind is None:
            conductor.result()

    async def _end(self, conductor: asyncio.Task[None]) -> None:
        """Let go of what still runs, however often we are cancelled meanwhile."""
        self._letting_go = True
        cancelled = await end(conductor)
        left = [*self._running.values()]
        while pending := [instance.let_go() for instance in left if not instance.task.done()]:
            try:
                await asyncio.wait(pending, timeout=AGAIN)
            except CancelledError:
                cancelled = True
        self._close()
        await self._workflow.resources.release(self._workflow._hear)
        if cancelled:
            raise CancelledError

    def _entered(self) -> asyncio.Task[None]:
        if self._conductor is None:
            raise DefinitionError(
                "many(...) is not entered, so nothing runs; say: async with many(...) as runs"
            )
        return self._conductor

    async def _conduct(self) -> None:
        """Start runs until that is all of them, or enough; then cancel what still runs."""
        self._judge()
        limit = None if self._wait.seconds == inf else self._wait.seconds
        feeding = asyncio.get_running_loop().create_task(self._feed())
        try:
            await asyncio.wait((self._enough,), timeout=limit)
        finally:
            self._stop()
            await self._inputs.end(feeding)
        if self._raised is not None:
            raise self._raised
        left = [*self._running.values()]
        await asyncio.gather(*[instance.cancel() for instance in left])
        while self._running:
            await asyncio.wait([instance.task for instance in self._running.values()])
        self._close()

    async def _feed(self) -> None:
        """Start a run per input, when there is room."""
        loop = asyncio.get_running_loop()
        try:
            async for given in self._inputs.each(self._room):
                instance = self._running[self._begun] = Instance(self, self._begun, given)
                self._begun += 1
                instance.task = loop.create_task(instance.live())
                self._tell()
        except CancelledError as error:
            if not self._decided():
                why = f"asking for input {self._begun} raised CancelledError of its own accord"
                self._fail(StrayCancelledError(why).with_traceback(error.__traceback__))
        except BaseException as error:  # noqa: BLE001 -- raised where the outcomes are taken
            note(error, f"cano: asking for input {self._begun} of {self._workflow.name}")
            self._fail(error)
        self._exhausted = True
        self._judge()

    async def _room(self) -> bool:
        """Wait until one more may run; whether it is to."""
        if self._places is not None:
            await self._places.acquire()
        return not self._decided()

    async def _start_run(self, index: int, given: D) -> RunHandle[S, D]:
        """Start the run of an input."""
        run_id = None if self._run_ids is None else self._run_ids(index, given)
        return await self._workflow.start_run(
            self._start, data=given, run_id=run_id, tags=self._tags
        )

    def _decided(self) -> bool:
        """Whether no more runs are wanted."""
        return self._enough.done()

    def _add(self, outcome: RunOutcome[S, D]) -> None:
        """Count a run that ended, and judge whether that is enough."""
        del self._running[outcome.index]
        self._ended[outcome.status] += 1
        self._untaken.append(outcome)
        self._news.set()
        self._tell()
        self._judge()

    def _judge(self) -> None:
        try:
            if self._wait.enough(self.status) or (self._exhausted and not self._running):
                self._stop()
        except Exception as error:  # noqa: BLE001 -- a strategy of the user's own: passed on
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Pass on what no run may keep to itself, such as `SystemExit`."""
        self._raised = error
        self._stop()

    def _stop(self) -> None:
        if not self._enough.done():
            self._enough.set_result(None)
            if self._places is not None:
                self._places.release()  # for whoever waits to ask for an input: see `_room`

    def _tell(self) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(self.status)
        except Exception:  # noqa: BLE001 -- as an observer, it never changes a run
            _log.exception("on_change failed, and is told no more")
            self._on_change = None

    def _close(self) -> None:
        """Say, once, that it is over."""
        if self._over is None:
            self._over = self._clock() - self._zero
            self._tell()


def _check(
    inputs: object, wait: object, concurrency: object, run_ids: object, tags: object
) -> None:
    """Refuse what can never work. Raises `DefinitionError`."""
    found: list[str] = []
    if not isinstance(inputs, Iterable | AsyncIterable):
        found.append(f"inputs={inputs!r} cannot be gone through; pass a list, or any iterable")
    if isinstance(wait, type) or not hasattr(wait, "enough"):
        found.append(f"wait={wait!r} is no strategy; pass one such as Forever() or Quota(3)")
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        found.append(
            f"concurrency={concurrency!r} is no number of runs; pass a whole number, 1 or more, or "
            "None for no limit"
        )
    if run_ids is not None and not callable(run_ids):
        found.append(f"run_ids={run_ids!r} names nothing; pass a function of index and input")
    if isinstance(tags, str):
        found.append(f"tags={tags!r} is one text; pass a list of them")
    if found:
        raise DefinitionError(found)


def _in_words(status: ManyStatus) -> str:
    counts = ("running", "succeeded", "failed", "cancelled", "not_started")
    said = [f"{n} {name.replace('_', ' ')}" for name in counts if (n := getattr(status, name))]
    return f"{status.total} inputs: {', '.join(said) or 'none'}"
