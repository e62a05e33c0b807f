"""What tasks share: found by name and type, set up once for all who use it, asked for its health.

Rule 1: what was set up is torn down, newest first, whatever happens in between.
Rule 2: setups and teardowns never overlap; who comes during one waits for its end.
Rule 3: nothing that belongs to an event loop is kept while nothing is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Literal, Self, TypeAlias, TypeGuard, TypeVar, cast

from cano._clock import loop_time
from cano._kinds import did_you_mean, fits, kind_name, shown
from cano.announced import ResourceFailed, ResourceReady, ResourceReleased
from cano.errors import (
    DuplicateResourceError,
    ResourceError,
    ResourceNotFoundError,
    ResourceTypeError,
    StrayCancelledError,
)
from cano.events import Event
from cano.health import Health, Healthy, ask, called

__all__ = ["Resource", "Resources"]

T = TypeVar("T")
Tell: TypeAlias = Callable[..., None]
"""Called with the class of an event, and its fields."""
_Phase = Literal["down", "setting up", "up", "tearing down"]
logger: Final = logging.getLogger(__name__)
_LOCKS: Final = (asyncio.Lock, asyncio.Semaphore, asyncio.Condition)


class Resource:
    """Something to open before use and to close after it; override the hooks you need.

    Any other object whose class has one of the three methods, plain or async, is treated the
    same. Hooks run on the event loop, so what blocks belongs in a thread.
    """

    async def setup(self) -> None:
        """Open it. If this raises, `teardown` is not called."""

    async def teardown(self) -> None:
        """Close it. What this raises is logged and goes no further."""

    async def health(self) -> Health | bool | None:
        """Say how it is; True and None mean healthy, False and an exception unhealthy."""
        return Healthy()


class Resources:
    """What tasks share, by name: `Resources(db=Db(), config=config)`.

    A name is any hashable, such as a text or an enum member. A resource is one of

    - an object whose class has any of the methods of `Resource`;
    - an async context manager: tasks get what entering it returned;
    - any other object, handed out as it is. So are asyncio's locks and semaphores, and policies
      such as circuit breakers, although they are context managers: entering one would lock
      everybody else out, or be one call as long as the resources are up.

    ``async with resources:`` sets everything up in the order given, an object under two names
    once. Overlapping users share what is up, and the last one out tears it down, in reverse.
    With a context manager among them all hooks run in one background task, because many must
    be left by the task that entered them; so tasks do not see contextvars that hooks set.
    One `Resources` serves one event loop at a time.
    """

    def __init__(self, mapping: Mapping[Any, object] | None = None, /, **named: object) -> None:
        self._given: dict[Hashable, object] = {}
        self._values: dict[Hashable, object] = {}  # the same, but what entering returned
        self._outside: set[Hashable] = set()  # context managers not entered
        self._living: list[tuple[Hashable, object]] = []  # what has to be set up, each once
        self._standing: list[tuple[Hashable, Callable[[], object]]] = []  # and how to undo it
        self._users = 0
        self._phase: _Phase = "down"
        self._change: asyncio.Future[None] | None = None
        self._keeper: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self._tell: Tell | None = None
        if mapping or named:
            for name, resource in [*(mapping or {}).items(), *named.items()]:
                self.add(name, resource)

    def add(self, name: Hashable, resource: object, /) -> Self:
        """Put *resource* under *name*; possible only while nothing is up."""
        if self._phase != "down":
            raise ResourceError(f"cannot add {shown(name)} to {self}; add it before the first use")
        if name == "":
            raise ResourceError("a resource needs a name: '' stands for a lookup by type")
        if name in self._given:
            raise DuplicateResourceError(f"{shown(name)} is in {self} already; take another name")
        self._given[name] = self._values[name] = resource
        if _to_enter(resource):
            self._outside.add(name)
        hooks = _to_enter(resource) or _hook(resource, "setup") or _hook(resource, "teardown")
        if hooks and all(resource is not other for _, other in self._living):
            self._living.append((name, resource))
        return self

    def get(self, kind: type[T], name: Hashable = "", /) -> T:
        """Return the resource called *name*, or without a name the only one that is a *kind*.

        Raises `ResourceNotFoundError` if there is none, or several without a name, or it is a
        context manager not entered yet; `ResourceTypeError` if it is of another type.
        """
        if name == "":
            name = self._only(kind)
        value = self[name]
        if name in self._outside:
            raise ResourceNotFoundError(
                f"resource {shown(name)} is a context manager and not entered yet; "
                "look it up inside `async with resources:`"
            )
        if not fits(value, kind):
            raise ResourceTypeError(
                f"{shown(name)} is of type {kind_name(type(value))}, not {kind_name(kind)}: {self}"
            )
        return cast("T", value)

    @property
    def up(self) -> bool:
        """Whether everything is set up and may be used."""
        return self._phase == "up"

    async def acquire(self, tell: Tell | None = None) -> None:
        """Become a user of the resources, setting them up if nobody has; *tell* hears of that.

        If that fails or is cancelled, what was up already is torn down first. Who comes during
        a setup or teardown waits for its end, and tries anew if the setup failed: so everybody
        raises an error of its own, to which its run can add its own note.
        """
        while self._change is not None:
            await asyncio.wait([self._change])  # `await` would cancel what others wait for too
        if self._phase == "down":
            self._tell = tell
            with self._changing("setting up", "up"):
                await self._set_up()
        self._users += 1

    async def release(self, tell: Tell | None = None) -> None:
        """Stop using the resources; the last user tears them down, and *tell* hears of that.

        A cancellation meanwhile ends the teardown that is running; the others follow all the same.
        """
        if not self._users:
            raise ResourceError("release() without acquire(); `async with resources:` pairs them")
        self._users -= 1
        if self._users or self._phase != "up":
            return
        self._tell = tell
        with self._changing("tearing down", "down"):
            if self._keeper is None:
                await self._stop_all()
            else:
                keeper, stop = self._keeper
                stop.set()
                await keeper  # hands our cancellation on to it, and still waits for its end

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.release()

    async def health(self, timeout: float = 5.0) -> dict[Hashable, Health]:
        """Ask all resources how they are, at once, each for at most *timeout* seconds.

        No answer in time and an exception are `Unhealthy`; who has nothing to say is `Healthy`.
        """
        hooks = {
            id(given): _hook(self._values[name], "health") or _hook(given, "health")
            for name, given in self._given.items()
        }
        answers = await asyncio.gather(*(ask(hook, timeout) for hook in hooks.values()))
        said = dict(zip(hooks, answers, strict=True))
        return {name: said[id(given)] for name, given in self._given.items()}

    async def worst_health(self, timeout: float = 5.0) -> Health:
        """Return the worst answer of `health`, the first of equals; of nobody, `Healthy`."""
        return max((await self.health(timeout)).values(), default=Healthy())

    def __contains__(self, name: Hashable) -> bool:
        return name in self._given

    def __len__(self) -> int:
        return len(self._given)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._given)

    def __getitem__(self, name: Hashable) -> object:
        """Return the resource called *name*; a context manager itself while it is not entered."""
        try:
            return self._values[name]
        except KeyError:
            hint = did_you_mean(name, self)
            raise ResourceNotFoundError(f"no resource {shown(name)} in {self}{hint}") from None

    def __repr__(self) -> str:
        held = ", ".join(
            f"{name if isinstance(name, str) else shown(name)}: {kind_name(type(value))}"
            for name, value in self._values.items()
        )
        users = f", {self._users} user{'s' * (self._users != 1)}" if self._users else ""
        return f"<Resources {held or 'empty'}; {self._phase}{users}>"

    def _only(self, kind: type[Any]) -> Hashable:
        """Return the name of the one resource that is a *kind*; one under two names is one."""
        inside = (name for name in self if name not in self._outside)
        found = [name for name in inside if fits(self._values[name], kind)]
        if len({id(self._given[name]) for name in found}) == 1:
            return found[0]
        remedy = f"; pass a name, one of {', '.join(map(shown, found))}" if found else ""
        raise ResourceNotFoundError(
            f"{len(found) or 'no'} resources are of type {kind_name(kind)} in {self}{remedy}"
        )

    @contextlib.contextmanager
    def _changing(self, during: _Phase, after: _Phase) -> Generator[None]:
        """Hold everybody off until the phase is *after*, or down if that was not reached."""
        change = asyncio.get_running_loop().create_future()
        self._phase, self._change = during, change
        reached: _Phase = "down"
        try:
            yield
            reached = after
        finally:
            self._phase, self._change = reached, None
            change.set_result(None)

    async def _set_up(self) -> None:
        try:
            await (self._start_keeper() if self._outside else self._start_all())
        except asyncio.CancelledError as error:
            if not _is_stray(error):
                raise
            # Passed on it would end our caller as if somebody had wanted that.
            raise StrayCancelledError("a setup raised CancelledError of its own accord") from error

    async def _start_keeper(self) -> None:
        """Leave everything to a task that enters, stays, and leaves again."""
        ready, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
        keeper = asyncio.create_task(self._keep(ready, stop), name="cano: resources")
        try:
            await asyncio.wait([ready, keeper], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            stop.set()  # in case a hook swallows the cancellation
            keeper.cancel()
            with contextlib.suppress(Exception):
                await keeper
            raise
        if self._keeper is None:
            await keeper  # raises why

    async def _keep(self, ready: asyncio.Future[None], stop: asyncio.Event) -> None:
        await self._start_all()
        self._keeper = cast("asyncio.Task[None]", asyncio.current_task()), stop
        ready.set_result(None)
        try:
            await stop.wait()
        finally:
            self._keeper = None
            # Nobody asked for it: cancelled by the end of the loop, or by a task group among the
            # resources. Waiting for the users could be waiting forever.
            alone = self._change is None
            with self._changing("tearing down", "down") if alone else contextlib.nullcontext():
                await self._stop_all()

    async def _start_all(self) -> None:
        clock = loop_time(asyncio.get_running_loop())
        for name, given in self._living:
            began = clock()
            try:
                undo = await self._start(given)
            except BaseException as error:
                error.add_note(f"cano: setting up resource {shown(name)}")
                self._say(ResourceFailed, name, error=repr(error))
                await self._stop_all()
                raise
            self._say(ResourceReady, name, seconds=clock() - began)
            if undo is not None:
                self._standing.append((name, undo))

    async def _start(self, given: object) -> Callable[[], object] | None:
        """Set one resource up and return what tears it down."""
        if _to_enter(given):
            names = [name for name in self if self._given[name] is given]
            # What @asynccontextmanager returns can be entered once only. Used as a decorator it
            # makes a fresh one for each call, and so do we for each setup.
            if isinstance(given, contextlib.AsyncContextDecorator):
                given = given._recreate_cm()
            self._values |= dict.fromkeys(names, await given.__aenter__())
            self._outside.difference_update(names)
            return partial(given.__aexit__, None, None, None)
        if setup := _hook(given, "setup"):
            await called(setup)
        return _hook(given, "teardown")

    async def _stop_all(self) -> None:
        """Undo what stands, newest first; an order to stop is obeyed when all of it is done."""
        order: BaseException | None = None
        while self._standing:
            name, undo = self._standing.pop()
            try:
                await called(undo)
            except BaseException as error:
                self._say(ResourceFailed, name, error=repr(error))
                if isinstance(error, Exception) or _is_stray(error):
                    logger.exception("tearing down resource %s failed", shown(name))
                elif order is None or not isinstance(error, asyncio.CancelledError):
                    order = error
            else:
                self._say(ResourceReleased, name)
        self._values = dict(self._given)
        self._outside = {name for name, value in self._given.items() if _to_enter(value)}
        if order is not None:
            raise order

    def _say(self, kind: type[Event], name: Hashable, **fields: Any) -> None:
        if self._tell is not None:
            self._tell(kind, name=name if isinstance(name, str) else shown(name), **fields)


class Using:
    """Resources, used by a workflow whose observers want to hear of it."""

    def __init__(self, resources: Resources, tell: Tell) -> None:
        self._resources = resources
        self._tell = tell

    async def __aenter__(self) -> None:
        await self._resources.acquire(self._tell)

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.release(self._tell)


class NoResources(Resources):
    """What a workflow without resources has. One for all of them, so nothing can be added."""

    def add(self, name: Hashable, resource: object, /) -> Self:
        """Refuse."""
        raise ResourceError(
            f"the workflow was made without resources, so {shown(name)} cannot be added; "
            "pass resources=Resources(...) to it"
        )

    async def acquire(self, tell: Tell | None = None) -> None:
        """Do nothing."""

    async def release(self, tell: Tell | None = None) -> None:
        """Do nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass


NO_RESOURCES: Final = NoResources()


def _to_enter(resource: object) -> TypeGuard[contextlib.AbstractAsyncContextManager[object]]:
    if not isinstance(resource, contextlib.AbstractAsyncContextManager):
        return False
    if isinstance(resource, _LOCKS):
        return False
    given = cast("object", resource)
    return _hook(given, "setup") is None and _hook(given, "wrap") is None  # nor is it a policy


def _hook(resource: object, name: str) -> Callable[[], object] | None:
    """Return a method by name, if the class has it: some clients make up any attribute asked for."""
    return getattr(resource, name) if callable(getattr(type(resource), name, None)) else None


def _is_stray(error: BaseException) -> bool:
    """Whether *error* is a cancellation that nobody asked for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and bool(task and not task.cancelling())
