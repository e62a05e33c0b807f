"""One process under `crash_everywhere`: an event loop of its own, and what its run came to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from cano._history import History
from cano._lifecycle import Phase
from cano.checkpoints.store import Status
from cano.errors import (
    CheckpointError,
    CompensationFailedError,
    DefinitionError,
    EffectInDoubtError,
    RecordedError,
    RunCancelledError,
    RunFailedError,
    RunLostError,
)
from cano.events import EffectDone, EffectIntended, Event
from cano.testing._crash_points import Crash
from cano.testing._crash_store import CrashStore
from cano.testing._crash_world import Outside, World
from cano.testing.clock import VirtualLoop
from cano.workflow import Workflow


class Stop(Enum):
    """How a process ended that did not bring its run to an end."""

    CRASHED = auto()
    FROZEN = auto()
    STOPPED = auto()
    """It was asked to, and let go of the run."""
    LOST = auto()
    """It was told that somebody else has the run."""


Outcome: TypeAlias = Any
"""A `Stop`, or how the run ended: ``("exit", "DONE")``, or the kind and message of an error."""


class TroubleError(AssertionError):
    """What is wrong, without where."""


@dataclass(frozen=True)
class Setup:
    """What is tried."""

    make: Callable[[World], Workflow[Any, Any]]
    start: Any
    data: Any
    run_id: str
    outside: Callable[[World], Awaitable[None]] | None
    resolve: Callable[[World, str], Any] | None
    timeout: float


class Process:
    """One process, over what the ones before it left behind."""

    def __init__(
        self,
        setup: Setup,
        outside: Outside,
        life: int,
        crash: Crash | None,
        clock: float | VirtualLoop,
    ) -> None:
        self.setup = setup
        self.outside = outside
        if isinstance(clock, VirtualLoop):  # another process is in it too, so that both go on
            self.loop = clock
        else:
            self.loop = VirtualLoop()
            self.loop.wall_offset = clock
        self.store = CrashStore(outside.store, crash, self._struck, self._shut_down)
        self.world = World(outside, life, self.store, setup.run_id)
        self.flow: Workflow[Any, Any] | None = None
        self.history: History | None = None
        """The run's, as this process knew it at the end."""
        self.timeout: float = setup.timeout
        self.taken_up: list[int] = []
        """After which of its events the run was taken up again when the store was back."""
        self.decided: int = 0
        """How often a person was asked."""
        self._handle: Any = None
        self._carrying: asyncio.Task[Outcome] | None = None
        self._main: asyncio.Task[Outcome] | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<Process {self.world.life}: {self.store!r}>"

    @property
    def wall(self) -> float:
        """What its clock says, in seconds since the epoch."""
        return self.loop.wall_offset + self.loop.now

    @property
    def lease(self) -> float:
        return self.flow.lease if self.flow is not None else 0.0

    def begin(self) -> asyncio.Task[Outcome]:
        """Start the process, in its loop, which does not run yet."""
        if self._main is None:
            self._main = self.loop.create_task(self._live())
            self._main.add_done_callback(self._stop)
        return self._main

    def go(self) -> Outcome:
        """Run until the run is over, or the process is. Raises `TroubleError`."""
        main = self.begin()
        if not main.done():
            self.turn()
        if self.store.dead:
            return Stop.CRASHED  # nobody hears what the dead say
        if not main.done():
            return Stop.FROZEN
        outcome = main.result()
        self.loop.run_until_complete(_look_for_leaks())
        self._look_for_runs()
        return outcome

    def turn(self) -> None:
        """Let the loop run until something stops it."""
        try:
            self.loop.run_forever()
        except RuntimeError as error:
            if "deadlock" not in str(error):
                raise
            raise TroubleError(
                f"the run hangs: every task waits, and no timer is set{self._where}"
            ) from None

    def wake_up(self, wall: float) -> Outcome:
        """Go on after having stood still until *wall*."""
        self.world._late = True
        self.loop.now = max(self.loop.now, wall - self.loop.wall_offset)
        self.store.thaw()
        return self.go()

    def bury(self) -> None:
        """End what is left of it; what that says is of no interest."""
        loop = self.loop
        self._over = True
        self.store.bury()
        loop.set_exception_handler(_ignore)
        for _ in range(100):
            if not (left := asyncio.all_tasks(loop)):
                break
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    @property
    def path(self) -> list[str]:
        """The latest states that the run visited in this process and had to record."""
        if self._handle is None or self.flow is None:
            return []
        known = self.flow._registrations
        gone = [state.name for state in self._handle._run.path]
        return [name for name in gone if name in known and known[name].task.recorded]

    @property
    def unrecorded(self) -> list[str]:
        """Fields of the final data that are not what is on record; of a failure nothing is."""
        history, plan = self.history, self.flow._plan if self.flow is not None else None
        if history is None or plan is None or plan.data_type is None:
            return []
        if history.phase is not Phase.FINISHED and not history.undone:
            return []
        return sorted(plan.data_type.changes(self._handle._context.data, history.fields) or ())

    def _struck(self) -> None:
        """It is dead, or stands still, from this very moment on."""
        if self.store.dead:
            self.outside.save()
        self._stop()

    def _stop(self, _: object = None) -> None:
        if not self._over:
            self.loop.stop()

    @property
    def _where(self) -> str:
        return f": {self._handle!r}" if self._handle is not None else ""

    async def _live(self) -> Outcome:
        flow = self.flow = self.setup.make(self.world)
        _check_workflow(flow, self.store)
        around = asyncio.ensure_future(self._around())
        carrying = self._carrying = asyncio.ensure_future(self._carry_out(flow))
        await asyncio.wait((carrying,), timeout=self.timeout)
        if around.done():
            around.result()
        if not carrying.done():
            raise TroubleError(
                f"the run hangs: it did not end within {self.timeout:g} s{self._where}"
            )
        around.cancel()
        await asyncio.wait((around,))
        if carrying.cancelled():  # asked to stop before the run was under way
            while flow._scope:
                await asyncio.wait(flow._scope)
            return Stop.STOPPED
        if self._handle is not None:
            self.history = self._handle._run.history
        return carrying.result()

    async def _around(self) -> None:
        """What goes on around the run, from when there is one."""
        if self.setup.outside is None:
            return
        while not await self.outside.store.load(self.setup.run_id, 0, 1):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await self.setup.outside(self.world)

    async def _carry_out(self, flow: Workflow[Any, Any]) -> Outcome:
        """Carry the run to its end, however often the store fails or a person has to be asked."""
        setup = self.setup
        for _ in range(100):
            self._handle = handle = await flow.start_run(
                setup.start, data=deepcopy(setup.data), run_id=setup.run_id, wait=True
            )
            try:
                await asyncio.wait((handle._task,))
                if handle._task.cancelled() and not handle._run.cancelled:
                    return Stop.STOPPED
                return "exit", (await handle.result()).name
            except EffectInDoubtError as error:
                await self._decide(flow, error)
            except RunLostError:
                return Stop.LOST
            except Exception as error:  # noqa: BLE001 -- how the run ended
                if not isinstance(error, CheckpointError) or not self.store.failing:
                    return told(error)
                await asyncio.sleep(self.store.back())
                self.taken_up.append(len(await self.outside.store.load(setup.run_id)))
        raise TroubleError(f"the run gets nowhere: it was taken up 100 times{self._where}")

    async def _decide(self, flow: Workflow[Any, Any], error: EffectInDoubtError) -> None:
        """Play the person who looks whether an effect happened, and says so."""
        if self.setup.resolve is None:
            raise TroubleError(
                f"the run waits for a person: {error}; or say what one would find out, with "
                "crash_everywhere(resolve=...)"
            )
        self.decided += 1
        run = flow.handle(self.setup.run_id)
        for _ in range(20):  # a twin may have it, and will be in doubt as well
            if (await run.summary()).status is Status.IN_DOUBT:
                break
            await asyncio.sleep(0.05)
        for name in _in_doubt(await self.outside.store.load(self.setup.run_id)):
            value = self.setup.resolve(self.world, name.rpartition("/")[2])
            said = run.resolve(name, again=True) if value is None else run.resolve(name, value)
            with suppress(CheckpointError):  # somebody has taken it up meanwhile
                await said

    def _shut_down(self) -> None:
        """Ask the process to stop, as a deployment would."""
        if self._handle is not None:
            self._handle._task.cancel()
        elif self._carrying is not None:
            self._carrying.cancel()

    def _look_for_runs(self) -> None:
        stored = self.flow._stored if self.flow is not None else None
        if stored is not None and stored.lives.keeper.held:
            raise TroubleError(f"the process still holds the runs {[*stored.lives.keeper.held]}")


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody hears what the dead say."""


async def _look_for_leaks() -> None:
    """Whatever was begun is over when the run is. Raises `TroubleError`."""
    left: set[asyncio.Task[Any]] = set()
    for seconds in (*[0.0] * 8, 1.0, 0.0):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(seconds)
    names = ", ".join(sorted(_named(task) for task in left))
    raise TroubleError(f"tasks are left behind when the run is over: {names}")


def _in_doubt(events: list[Event]) -> list[str]:
    """The effects whose intent is the last that is known of them."""
    doubt: dict[str, None] = {}
    for event in events:
        if isinstance(event, EffectIntended | EffectDone):
            name = f"{event.branch}/{event.name}" if event.branch else event.name
            doubt.pop(name, None)
            if isinstance(event, EffectIntended):
                doubt[name] = None
    return [*doubt]


def _check_workflow(flow: object, store: CrashStore) -> None:
    if not isinstance(flow, Workflow):
        raise DefinitionError(f"make(world) returned {flow!r}; return a new Workflow")
    if flow.checkpoints is not store:
        raise DefinitionError(
            f"make(world) returned {flow!r}, whose store is another one; say "
            "Workflow(..., checkpoints=world.store)"
        )


def _named(task: asyncio.Task[Any]) -> str:
    return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', task.get_coro())})"


def told(error: BaseException) -> Outcome:
    """What an error comes to, whether it is raised as itself or told from the store."""
    if isinstance(error, CompensationFailedError):
        return "not undone", tuple(told(one) for one in error.exceptions)
    if isinstance(error, RunFailedError | RecordedError):
        return error.kind, error.message
    if isinstance(error, RunCancelledError):
        return "cancelled", ""
    return type(error).__qualname__, str(error)
