"""Resources: lookup by name and type, lifecycle shared by reference count, health."""

# The house writes `expected == actual`, which this rule takes for a slip.

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, Self

import msgspec
import pytest

from cano import Workflow
from cano.errors import (
    CanoError,
    DuplicateResourceError,
    ResourceError,
    ResourceNotFoundError,
    ResourceTypeError,
    StrayCancelledError,
)
from cano.health import Degraded, Health, Healthy, Unhealthy
from cano.resources import Resource, Resources


class Name(Enum):
    DB = "db"
    CACHE = "cache"


class Db:
    pass


class Cache:
    pass


class Logged(Resource):
    """Says what happens to it; can fail, or wait until it is let go."""

    def __init__(self, name: str, log: list[str], **trouble: BaseException) -> None:
        self.name = name
        self.log = log
        self.trouble = trouble
        self.gates: dict[str, asyncio.Event] = {}

    async def _do(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if gate := self.gates.get(what):
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.log.append(f"{what} {self.name} cancelled")
                raise
        if error := self.trouble.get(what):
            raise error

    async def setup(self) -> None:
        await self._do("setup")

    async def teardown(self) -> None:
        await self._do("teardown")


class Managed:
    """An async context manager that says which task entered and left it."""

    def __init__(self, log: list[str], name: str = "managed") -> None:
        self.log = log
        self.name = name
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.gate: asyncio.Event | None = None

    async def __aenter__(self) -> Db:
        self.log.append(f"enter {self.name}")
        self.tasks.append(asyncio.current_task())
        if self.gate:
            await self.gate.wait()
        return Db()

    async def __aexit__(self, *exc_info: object) -> None:
        self.log.append(f"exit {self.name} {exc_info[0]}")
        self.tasks.append(asyncio.current_task())


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_resource_is_found_by_name_and_is_always_the_same_object() -> None:
    """What goes in comes out: the object itself, each time."""
    db = Db()
    resources = Resources(db=db, cache=Cache())

    assert db is resources.get(Db, "db")
    assert db is resources.get(Db, "db")
    assert db is resources["db"]


def test_names_may_be_enum_members_and_order_is_kept() -> None:
    """A name is any hashable, and iterating gives names in the order they were added."""
    db, cache = Db(), Cache()
    resources = Resources({Name.DB: db, 7: "seven"}, text="t").add(Name.CACHE, cache)

    assert db is resources.get(Db, Name.DB)
    assert cache is resources.get(Cache, Name.CACHE)
    assert [Name.DB, 7, "text", Name.CACHE] == list(resources)
    assert 4 == len(resources)
    assert Name.DB in resources
    assert "db" not in resources


def test_the_only_one_of_its_type_needs_no_name() -> None:
    """Without a name the type decides, subclasses included."""

    class Special(Db):
        pass

    special = Special()

    assert special is Resources(a=special, b=Cache()).get(Db)


def test_one_object_under_two_names_is_no_ambiguity() -> None:
    """A lookup by type counts objects, not names."""
    db = Db()

    assert db is Resources(main=db, replica=db).get(Db)


def test_several_of_a_type_ask_for_a_name() -> None:
    """The error of an ambiguous lookup names the candidates and the remedy."""
    resources = Resources(main=Db(), replica=Db(), cache=Cache())

    with pytest.raises(ResourceNotFoundError, match="pass a name, one of 'main', 'replica'"):
        resources.get(Db)


def test_a_missing_name_says_what_there_is_and_what_was_meant() -> None:
    """A lookup error names the key, the inventory and the nearest name."""
    resources = Resources({"database": Db(), Name.CACHE: Cache()})

    with pytest.raises(ResourceNotFoundError) as caught:
        resources.get(Db, "databse")

    assert (
        "no resource 'databse' in <Resources database: Db, Name.CACHE: Cache; down>; "
        "did you mean 'database'?" == str(caught.value)
    )


def test_a_missing_type_says_what_there_is() -> None:
    """A failing lookup by type names the type wanted and the types there are."""
    with pytest.raises(ResourceNotFoundError, match="type Db in <Resources cache: Cache; down>"):
        Resources(cache=Cache()).get(Db)
    with pytest.raises(ResourceNotFoundError, match="type Db in <Resources empty; down>"):
        Resources().get(Db)


def test_another_type_is_another_error() -> None:
    """A resource of another type is not the same as none, and the error names both types."""
    resources = Resources(db=Cache())

    with pytest.raises(ResourceTypeError, match="'db' is of type Cache, not Db") as caught:
        resources.get(Db, "db")

    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, CanoError)
    assert not isinstance(caught.value, ResourceNotFoundError)


def test_a_name_is_given_once() -> None:
    """Duplicates are refused, in `add` and between mapping and keywords."""
    with pytest.raises(DuplicateResourceError, match="'db' is in <Resources db: Db; down> already"):
        Resources({"db": Db()}, db=Db())
    with pytest.raises(DuplicateResourceError):
        Resources().add(Name.DB, Db()).add(Name.DB, Db())


def test_the_empty_name_is_refused() -> None:
    """'' stands for a lookup by type, so nothing can be found under it."""
    with pytest.raises(ResourceError, match="needs a name"):
        Resources({"": Db()})


def test_nothing_is_added_while_up() -> None:
    """What was not set up must not appear among what is."""

    async def main() -> None:
        resources = Resources(db=Db())
        async with resources:
            with pytest.raises(ResourceError, match="before the first use"):
                resources.add("late", Db())
        assert "late" in resources.add("late", Db())

    asyncio.run(main())


def test_repr_is_the_state() -> None:
    """Names, types, phase and users are visible at a glance."""

    async def main() -> None:
        resources = Resources({Name.DB: Db()}, cache=Cache())
        shown = [repr(resources)]
        async with resources:
            shown.append(repr(resources))
            async with resources:
                shown.append(repr(resources))

        held = "Name.DB: Db, cache: Cache"
        assert [
            f"<Resources {held}; down>",
            f"<Resources {held}; up, 1 user>",
            f"<Resources {held}; up, 2 users>",
        ] == shown

    asyncio.run(main())


@pytest.fixture(params=["inline", "keeper"])
def besides(request: pytest.FixtureRequest) -> dict[str, object]:
    """What else there is: with a context manager all hooks run in a task of their own."""
    return {"zz": Managed([])} if request.param == "keeper" else {}


def test_setup_in_order_and_teardown_in_reverse(besides: dict[str, object]) -> None:
    """First in, last out."""
    log: list[str] = []

    async def main() -> None:
        resources = Resources(**{n: Logged(n, log) for n in "abc"}, **besides)
        assert not resources.up
        async with resources as same:
            assert same is resources
            assert resources.up
            log.append("work")
        assert not resources.up

    asyncio.run(main())

    expected = ["setup a", "setup b", "setup c", "work", "teardown c", "teardown b", "teardown a"]
    assert expected == log


def test_a_failing_setup_undoes_those_before_it_and_only_those(besides: dict[str, object]) -> None:
    """R0, R1, R2 fails: R1, R0 are torn down; R2 and R3 are not; the error is R2's own."""
    log: list[str] = []
    error = ValueError("no disk")

    async def main() -> None:
        resources = Resources(
            a=Logged("a", log),
            b=Logged("b", log),
            c=Logged("c", log, setup=error),
            d=Logged("d", log),
            **besides,
        )
        with pytest.raises(ValueError, match="no disk") as caught:
            await resources.acquire()
        assert error is caught.value
        assert ["cano: setting up resource 'c'"] == error.__notes__
        assert "down>" in repr(resources)

    asyncio.run(main())

    assert ["setup a", "setup b", "setup c", "teardown b", "teardown a"] == log


def test_failing_teardowns_are_logged_and_stop_nothing(
    besides: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """All are torn down, and whoever used them does not hear of the failure."""
    log: list[str] = []

    async def main() -> None:
        resources = Resources(
            a=Logged("a", log),
            b=Logged("b", log, teardown=ValueError("stuck")),
            **besides,
        )
        async with resources:
            pass

    with caplog.at_level(logging.ERROR, "cano.resources"):
        asyncio.run(main())

    assert ["setup a", "setup b", "teardown b", "teardown a"] == log
    (record,) = caplog.records
    assert "cano.resources" == record.name
    assert "tearing down resource 'b' failed" == record.getMessage()
    assert record.exc_info is not None
    assert "stuck" == str(record.exc_info[1])


def test_a_stray_cancellation_in_a_teardown_is_an_error_like_any_other(
    besides: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """A teardown that awaits its own cancelled task must not cancel the run."""
    log: list[str] = []

    async def main() -> str:
        resources = Resources(
            a=Logged("a", log), b=Logged("b", log, teardown=asyncio.CancelledError()), **besides
        )
        async with resources:
            pass
        return "goes on"

    assert "goes on" == asyncio.run(main())
    assert "teardown a" == log[-1]
    assert 1 == len(caplog.records)


def test_a_stray_cancellation_in_a_setup_is_an_error_and_no_cancellation(
    besides: dict[str, object],
) -> None:
    """Nobody cancelled the run, so it must not look cancelled."""

    async def main() -> None:
        resources = Resources(a=Logged("a", [], setup=asyncio.CancelledError()), **besides)
        with pytest.raises(StrayCancelledError) as caught:
            await resources.acquire()
        assert caught.value.__cause__ is not None
        assert ["cano: setting up resource 'a'"] == caught.value.__cause__.__notes__

    asyncio.run(main())


def test_an_order_to_exit_waits_for_the_other_teardowns() -> None:
    """SystemExit and KeyboardInterrupt finish the sequence and then go on."""
    log: list[str] = []

    async def main() -> None:
        async with Resources(
            a=Logged("a", log), b=Logged("b", log, teardown=SystemExit(3)), c=Logged("c", log)
        ):
            pass

    with pytest.raises(SystemExit, match="3"):
        asyncio.run(main())

    assert ["teardown c", "teardown b", "teardown a"] == log[3:]


def test_a_cancelled_setup_undoes_what_is_up(besides: dict[str, object]) -> None:
    """Cancelling in the middle of a setup leaves nothing up and nobody counted."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("b", log)
        slow.gates["setup"] = asyncio.Event()
        resources = Resources(a=Logged("a", log), b=slow, c=Logged("c", log), **besides)
        user = asyncio.create_task(resources.acquire())
        await settle()
        assert "setting up" in repr(resources)
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        assert "down>" in repr(resources)

    asyncio.run(main())

    assert ["setup a", "setup b", "setup b cancelled", "teardown a"] == log


def test_a_setup_that_swallows_its_cancellation_is_undone_all_the_same() -> None:
    """With hooks in a task of their own, a swallowed cancellation must not leave that behind."""
    log: list[str] = []

    class Stubborn(Managed):
        async def __aenter__(self) -> Db:
            try:
                return await super().__aenter__()
            except asyncio.CancelledError:
                return Db()

    async def main() -> None:
        stubborn = Stubborn(log)
        stubborn.gate = asyncio.Event()
        resources = Resources(db=stubborn)
        user = asyncio.create_task(resources.acquire())
        await settle()
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        assert not resources.up
        assert 1 == len(asyncio.all_tasks())

    asyncio.run(main())

    assert ["enter managed", "exit managed None"] == log


def test_a_setup_that_fails_on_cancellation_does_not_hide_the_cancellation() -> None:
    """Whoever is cancelled while another task sets up ends as cancelled."""

    class Sour(Managed):
        async def __aenter__(self) -> Db:
            try:
                return await super().__aenter__()
            except asyncio.CancelledError:
                raise ValueError("sour") from None

    async def main() -> None:
        sour = Sour([])
        sour.gate = asyncio.Event()
        user = asyncio.create_task(Resources(db=sour).acquire())
        await settle()
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user

    asyncio.run(main())


def test_a_cancelled_teardown_does_not_spare_the_others(besides: dict[str, object]) -> None:
    """A cancellation ends the teardown it meets; the others run, and then it goes on."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("b", log)
        slow.gates["teardown"] = asyncio.Event()
        resources = Resources(a=Logged("a", log), b=slow, **besides)
        await resources.acquire()
        user = asyncio.create_task(resources.release())
        await settle()
        assert "tearing down" in repr(resources)
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        assert "down>" in repr(resources)

    asyncio.run(main())

    assert ["teardown b", "teardown b cancelled", "teardown a"] == log[2:]


def test_cancelling_again_and_again_ends_each_teardown_but_skips_none(
    besides: dict[str, object],
) -> None:
    """However impatient the caller, every teardown gets its turn."""
    log: list[str] = []

    async def main() -> None:
        slow = {name: Logged(name, log) for name in "abc"}
        for each in slow.values():
            each.gates["teardown"] = asyncio.Event()
        resources = Resources(**slow, **besides)
        await resources.acquire()
        user = asyncio.create_task(resources.release())
        while not user.done():
            await settle()
            user.cancel()
        assert user.cancelled()

    asyncio.run(main())

    assert [f"teardown {x}{end}" for x in "cba" for end in ("", " cancelled")] == log[3:]


def test_overlapping_users_share(besides: dict[str, object]) -> None:
    """The first one in sets up, the last one out tears down."""
    log: list[str] = []

    async def main() -> None:
        resources = Resources(a=Logged("a", log), **besides)
        await resources.acquire()
        await resources.acquire()
        await resources.release()
        assert resources.up
        log.append("still up")
        await resources.release()

    asyncio.run(main())

    assert ["setup a", "still up", "teardown a"] == log


def test_who_comes_during_a_setup_waits_for_it(besides: dict[str, object]) -> None:
    """Nobody gets at resources that are half set up, and nobody sets them up again."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("a", log)
        gate = slow.gates["setup"] = asyncio.Event()
        resources = Resources(a=slow, **besides)
        users = [asyncio.create_task(resources.acquire()) for _ in range(3)]
        await settle()
        assert [False] * 3 == [user.done() for user in users]
        gate.set()
        await asyncio.gather(*users)
        assert "3 users" in repr(resources)
        for _ in users:
            await resources.release()

    asyncio.run(main())

    assert ["setup a", "teardown a"] == log


def test_who_waits_for_a_setup_that_fails_tries_itself() -> None:
    """Each waiting user makes its own attempt and gets its own error, or no error at all."""
    log: list[str] = []

    class Flaky(Logged):
        async def setup(self) -> None:
            await super().setup()
            if log.count("setup a") < 3:
                raise ValueError(f"attempt {log.count('setup a')}")

    async def main() -> None:
        flaky = Flaky("a", log)
        gate = flaky.gates["setup"] = asyncio.Event()
        resources = Resources(a=flaky)
        users = [asyncio.create_task(resources.acquire()) for _ in range(4)]
        await settle()
        gate.set()
        ends = await asyncio.gather(*users, return_exceptions=True)
        assert ["attempt 1", "attempt 2", "None", "None"] == [str(end) for end in ends]
        assert "2 users" in repr(resources)
        await resources.release()
        await resources.release()

    asyncio.run(main())


def test_who_comes_during_a_teardown_sets_up_afresh(besides: dict[str, object]) -> None:
    """A new user waits for the end of the old life and begins a new one."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("a", log)
        gate = slow.gates["teardown"] = asyncio.Event()
        resources = Resources(a=slow, **besides)
        await resources.acquire()
        last = asyncio.create_task(resources.release())
        await settle()
        fresh = asyncio.create_task(resources.acquire())
        await settle()
        assert ["setup a", "teardown a"] == log
        gate.set()
        await asyncio.gather(last, fresh)
        assert resources.up
        await resources.release()

    asyncio.run(main())

    assert ["setup a", "teardown a"] * 2 == log


def test_a_user_cancelled_while_waiting_is_not_counted(besides: dict[str, object]) -> None:
    """Cancelling one who waits disturbs neither the setup nor the count."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("a", log)
        gate = slow.gates["setup"] = asyncio.Event()
        resources = Resources(a=slow, **besides)
        first, second = (asyncio.create_task(resources.acquire()) for _ in range(2))
        await settle()
        second.cancel()
        await settle()
        gate.set()
        await first
        assert second.cancelled()
        assert "1 user>" in repr(resources)
        await resources.release()
        assert not resources.up

    asyncio.run(main())

    assert ["setup a", "teardown a"] == log


def test_when_the_one_who_sets_up_is_cancelled_the_next_takes_over(
    besides: dict[str, object],
) -> None:
    """A cancellation is a matter of the one it was meant for."""
    log: list[str] = []

    async def main() -> None:
        slow = Logged("a", log)
        gate = slow.gates["setup"] = asyncio.Event()
        resources = Resources(a=slow, **besides)
        first, second = (asyncio.create_task(resources.acquire()) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        gate.set()
        await second
        assert first.cancelled()
        assert resources.up
        await resources.release()

    asyncio.run(main())

    assert ["setup a", "setup a cancelled", "setup a", "teardown a"] == log


def test_a_cancellation_just_after_the_setup_leaves_nothing_up() -> None:
    """Between the end of the setup and its user waking up there is no gap to fall into."""
    log: list[str] = []

    async def main() -> None:
        managed = Managed(log)
        managed.gate = asyncio.Event()
        resources = Resources(db=managed)
        user = asyncio.create_task(resources.acquire())
        await settle()
        managed.gate.set()
        await asyncio.sleep(0)  # the keeper is ready now, its user not yet awake
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        assert "<Resources db: Managed; down>" == repr(resources)

    asyncio.run(main())

    assert ["enter managed", "exit managed None"] == log


def test_one_resources_serves_one_loop_after_another(besides: dict[str, object]) -> None:
    """Nothing of an event loop is kept when nothing is up."""
    log: list[str] = []
    resources = Resources(a=Logged("a", log), **besides)

    async def main() -> None:
        async with resources:
            pass

    asyncio.run(main())
    asyncio.run(main())

    assert ["setup a", "teardown a"] * 2 == log


class Life:
    """Checks that it begins and ends in turn, taking some time for it and failing now and then."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.alive = False

    async def begin(self) -> None:
        await self.hesitate("begin")
        assert not self.alive
        self.alive = True

    async def end(self) -> None:
        assert self.alive
        self.alive = False
        await self.hesitate("end")

    async def hesitate(self, what: str) -> None:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.chance.random() < 0.1:
            raise ValueError(what)


class Hooked(Life):
    async def setup(self) -> None:
        await self.begin()

    async def teardown(self) -> None:
        await self.end()


class Entered(Life):
    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end()


@pytest.mark.parametrize("kinds", [(Hooked, Hooked), (Entered, Hooked, Entered)])
def test_however_users_come_go_and_are_cancelled_nothing_leaks(
    kinds: Sequence[type[Life]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is inside finds all alive; when all are gone nothing is, and no task is left."""

    async def use(resources: Resources, chance: random.Random, lives: list[Life]) -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        with suppress(ValueError):
            async with resources:
                for _ in range(chance.randrange(4)):
                    assert resources.up
                    assert all(life.alive for life in lives)
                    await asyncio.sleep(0)

    async def main() -> None:
        for seed in range(300):
            chance = random.Random(seed)  # noqa: S311 - chance, not secrets
            lives = [kind(chance) for kind in kinds]
            resources = Resources(dict(enumerate(lives)))
            users = [asyncio.create_task(use(resources, chance, lives)) for _ in range(4)]
            while not all(user.done() for user in users):
                await asyncio.sleep(0)
                if chance.random() < 0.2:
                    chance.choice(users).cancel()
            assert [] == [user for user in users if not user.cancelled() and user.exception()]
            assert repr(resources).endswith("; down>")
            assert not any(life.alive for life in lives)
            assert 1 == len(asyncio.all_tasks())

    with caplog.at_level(logging.CRITICAL, "cano.resources"):
        asyncio.run(main())


def test_a_release_too_many_is_an_error() -> None:
    """A count that went below zero would tear down what others use."""
    with pytest.raises(ResourceError, match="without acquire"):
        asyncio.run(Resources(a=Db()).release())


def test_an_object_under_two_names_is_set_up_once() -> None:
    """Names are many, lives are one: in the place of the first name."""
    log: list[str] = []

    async def main() -> None:
        shared = Logged("shared", log)
        async with Resources(a=shared, b=Logged("b", log), c=shared):
            pass

    asyncio.run(main())

    assert ["setup shared", "setup b", "teardown b", "teardown shared"] == log


def test_hooks_may_be_plain_functions_and_any_may_be_missing() -> None:
    """No base class is needed, no `async` and no complete set."""
    log: list[str] = []

    class OnlySetup:
        def setup(self) -> None:
            log.append("setup")

    class OnlyTeardown:
        async def teardown(self) -> None:
            log.append("teardown")

    async def main() -> None:
        resources = Resources(a=OnlySetup(), b=OnlyTeardown(), c=Resource(), d=object())
        async with resources:
            assert Healthy() == await resources.worst_health()

    asyncio.run(main())

    assert ["setup", "teardown"] == log


def test_hooks_belong_to_the_class() -> None:
    """Clients that make up attributes, and classes used as resources, are plain objects."""

    class Client:
        def __getattr__(self, name: str) -> Callable[[], object]:
            raise AssertionError(f"asked for {name}")

    async def main() -> None:
        resources = Resources(client=Client(), kind=Logged)
        async with resources:
            assert Logged is resources["kind"]
        assert {"client": Healthy(), "kind": Healthy()} == await resources.health()

    asyncio.run(main())


def test_a_context_manager_hands_out_what_it_returned() -> None:
    """Tasks get the opened thing, by name and by type; afterwards it is gone."""
    log: list[str] = []

    async def main() -> None:
        managed = Managed(log)
        resources = Resources(db=managed, again=managed)
        assert managed is resources["db"]
        with pytest.raises(ResourceNotFoundError, match="'db' is a context manager and not"):
            resources.get(Db, "db")
        with pytest.raises(ResourceNotFoundError, match="no resources are of type Db"):
            resources.get(Db)
        async with resources:
            db = resources.get(Db, "db")
            assert db is resources.get(Db)
            assert db is resources["db"]
            assert db is resources["again"]
            assert "<Resources db: Db, again: Db; up, 1 user>" == repr(resources)
        with pytest.raises(ResourceNotFoundError):
            resources.get(Db, "db")

    asyncio.run(main())

    assert ["enter managed", "exit managed None"] == log


def test_context_managers_are_entered_and_left_by_the_same_task() -> None:
    """Whoever comes first and whoever leaves last: cancel scopes see one task only."""

    async def main() -> None:
        managed = Managed([])
        resources = Resources(db=managed)
        await asyncio.create_task(resources.acquire())
        await asyncio.create_task(resources.acquire())
        await asyncio.create_task(resources.release())
        await asyncio.create_task(resources.release())
        entered, left = managed.tasks
        assert entered is left
        assert entered is not asyncio.current_task()

    asyncio.run(main())


def test_context_managers_and_hooks_take_turns_in_one_order() -> None:
    """What comes later may rely on what comes before, of whatever sort."""
    log: list[str] = []

    async def main() -> None:
        async with Resources(a=Logged("a", log), m=Managed(log, "m"), b=Logged("b", log)):
            log.append("work")

    asyncio.run(main())

    assert [
        "setup a",
        "enter m",
        "setup b",
        "work",
        "teardown b",
        "exit m None",
        "teardown a",
    ] == log


def test_a_generator_context_manager_is_made_afresh_for_each_setup() -> None:
    """@asynccontextmanager objects can be entered once; runs come one after another."""
    log: list[str] = []

    @asynccontextmanager
    async def open_db(url: str) -> AsyncIterator[Db]:
        log.append(f"open {url}")
        yield Db()
        log.append("close")

    async def main() -> None:
        resources = Resources(db=open_db("here"))
        async with resources:
            first = resources.get(Db)
        async with resources:
            assert first is not resources.get(Db)

    asyncio.run(main())

    assert ["open here", "close"] * 2 == log


def test_setup_goes_before_entering() -> None:
    """An object that is both is set up, not entered, and handed out itself."""
    log: list[str] = []

    class Both(Logged):
        async def __aenter__(self) -> object:
            raise AssertionError("entered")

        async def __aexit__(self, *exc_info: object) -> None:
            raise AssertionError("left")

    async def main() -> None:
        both = Both("both", log)
        resources = Resources(both=both)
        async with resources:
            assert both is resources.get(Both)

    asyncio.run(main())

    assert ["setup both", "teardown both"] == log


def test_locks_are_handed_out_unlocked() -> None:
    """A lock is a context manager, but entering it for good would be a deadlock."""

    async def main() -> None:
        resources = Resources(lock=asyncio.Lock(), slots=asyncio.Semaphore(1))
        async with resources:
            assert not resources.get(asyncio.Lock).locked()
            assert not resources.get(asyncio.Semaphore).locked()

    asyncio.run(main())


def test_a_context_manager_that_fails_to_exit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Leaving is a teardown like any other."""

    @asynccontextmanager
    async def bad() -> AsyncIterator[Db]:
        yield Db()
        raise ValueError("cannot close")

    async def main() -> None:
        async with Resources(bad=bad()):
            pass

    asyncio.run(main())

    assert ["tearing down resource 'bad' failed"] == [r.getMessage() for r in caplog.records]


def test_a_task_group_that_breaks_takes_the_others_down_and_can_come_up_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cancelled from inside, everything is torn down at once; the next user starts afresh."""
    log: list[str] = []

    @asynccontextmanager
    async def group() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as tasks:
            yield tasks

    async def fail() -> None:
        raise ValueError("background")

    async def main() -> None:
        resources = Resources(a=Logged("a", log), group=group())
        async with resources:
            resources.get(asyncio.TaskGroup).create_task(fail())
            await settle()
            assert not resources.up
            async with resources:
                assert resources.up
            log.append("one left")
        assert not resources.up

    asyncio.run(main())

    assert ["setup a", "teardown a", "setup a", "one left", "teardown a"] == log
    assert ["tearing down resource 'group' failed"] == [r.getMessage() for r in caplog.records]


def test_the_end_of_the_loop_tears_down_what_somebody_forgot() -> None:
    """A keeper that is cancelled with everything else leaves what it has entered."""
    log: list[str] = []
    resources = Resources(db=Managed(log))

    asyncio.run(resources.acquire())

    assert ["enter managed", "exit managed None"] == log
    assert not resources.up


def test_contextvars_of_a_context_manager_stay_with_it() -> None:
    """What a context manager sets is seen where it was entered: not by its users."""
    seen: list[str] = []
    where = contextvars.ContextVar("where", default="outside")

    @asynccontextmanager
    async def marking() -> AsyncIterator[None]:
        token = where.set("inside")
        yield
        seen.append(where.get())
        where.reset(token)

    async def main() -> None:
        async with Resources(marking=marking()):
            seen.append(where.get())

    asyncio.run(main())

    assert ["outside", "inside"] == seen


class Check:
    """Answers with what it was made with."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def health(self) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (Healthy(), Healthy()),
        (Healthy(), None),
        (Healthy(), True),
        (Degraded("slow"), Degraded("slow")),
        (Unhealthy("gone"), Unhealthy("gone")),
        (Unhealthy("the check said False"), False),
        (Unhealthy("the check said 'fine'"), "fine"),
        (Unhealthy("ValueError: broken"), ValueError("broken")),
        (Unhealthy("TimeoutError"), TimeoutError()),
        (Unhealthy("the check was cancelled"), asyncio.CancelledError()),
    ],
)
def test_a_check_may_answer_in_many_ways(expected: Health, answer: object) -> None:
    """Each answer means one health, and no answer breaks the others' checks."""
    resources = Resources({Name.DB: Check(answer), "plain": object()})

    health = asyncio.run(resources.health())

    assert {Name.DB: expected, "plain": Healthy()} == health


def test_a_plain_check_and_one_object_under_two_names() -> None:
    """A check need not be async, and is made once for each object."""
    calls: list[int] = []

    class Plain:
        def health(self) -> bool:
            calls.append(1)
            return True

    plain = Plain()

    assert {"a": Healthy(), "b": Healthy()} == asyncio.run(Resources(a=plain, b=plain).health())
    assert [1] == calls


def test_what_was_entered_is_asked() -> None:
    """The health of a context manager is the health of what it returned."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Check]:
        yield Check(Degraded("busy"))

    async def main() -> None:
        resources = Resources(db=opened())
        assert Healthy() == await resources.worst_health()
        async with resources:
            assert Degraded("busy") == await resources.worst_health()

    asyncio.run(main())


def test_checks_run_at_the_same_time() -> None:
    """Checks that need one another to finish all finish."""

    class Meeting:
        def __init__(self, barrier: asyncio.Barrier) -> None:
            self.barrier = barrier

        async def health(self) -> None:
            await self.barrier.wait()

    async def main() -> None:
        barrier = asyncio.Barrier(3)
        resources = Resources({n: Meeting(barrier) for n in range(3)})
        assert {n: Healthy() for n in range(3)} == await resources.health()

    asyncio.run(main())


def test_a_check_that_does_not_answer_is_unhealthy_and_ended() -> None:
    """A hung probe costs its time limit, blocks nobody else, and does not go on."""

    class Hung:
        async def health(self) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        health = await Resources(hung=Hung(), fine=Check(None)).health(timeout=0.01)
        assert {"hung": Unhealthy("no answer within 0.01 s"), "fine": Healthy()} == health
        assert 1 == len(asyncio.all_tasks())

    asyncio.run(main())


def test_a_check_that_ignores_its_cancellation_is_left_alone() -> None:
    """Giving up has a bound of its own, and says so; a later error of the check is not ours."""
    gate: list[asyncio.Event] = []

    class Stubborn:
        async def health(self) -> None:
            gate.append(asyncio.Event())
            while not gate[0].is_set():
                try:
                    await gate[0].wait()
                except asyncio.CancelledError:
                    continue
            raise ValueError("too late")

    async def main() -> Health:
        health = await Resources(stubborn=Stubborn()).worst_health(timeout=0.01)
        gate[0].set()
        await settle()
        return health

    expected = "no answer within 0.01 s; it ignores its cancellation and was left alone"
    assert Unhealthy(expected) == asyncio.run(main())


def test_a_cancelled_health_check_ends_its_probes() -> None:
    """Whoever asks may be cancelled, and leaves nothing running."""

    class Hung:
        async def health(self) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        asking = asyncio.create_task(Resources(hung=Hung()).health())
        await settle()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert 1 == len(asyncio.all_tasks())

    asyncio.run(main())


def test_the_worst_counts_and_the_first_of_equals() -> None:
    """Aggregation is by severity; ties keep the first; of nobody, healthy."""

    async def main() -> None:
        assert Healthy() == await Resources().worst_health()
        two = Resources(a=Check(None), b=Check(Degraded("one")), c=Check(Degraded("two")))
        assert Degraded("one") == await two.worst_health()
        assert Unhealthy("x") == await two.add("d", Check(Unhealthy("x"))).worst_health()

    asyncio.run(main())


def test_health_is_ordered_by_severity() -> None:
    """Comparing tells worse from better; reasons do not count, except for equality."""
    assert Healthy() < Degraded("a") < Unhealthy("a")
    assert Unhealthy("a") > Degraded("z") >= Degraded("a") >= Degraded("z")
    assert Degraded("a") <= Degraded("b")
    assert not Degraded("a") < Degraded("b")
    assert Degraded("a") != Degraded("b")


def test_health_says_what_it_is() -> None:
    """Only healthy is ok; as text and as JSON all are readable."""
    every: list[Health] = [Healthy(), Degraded("slow"), Unhealthy("gone")]

    assert [True, False, False] == [health.ok for health in every]
    assert ["healthy", "degraded: slow", "unhealthy: gone"] == [str(health) for health in every]
    encoded = msgspec.json.encode(every)
    assert every == msgspec.json.decode(encoded, type=list[Healthy | Degraded | Unhealthy])


def test_a_workflow_without_resources_gets_none_afterwards() -> None:
    """What was made without resources shares its nothing with others, and refuses additions."""

    class State(Enum):
        DONE = 1

    flow = Workflow(State)
    with pytest.raises(ResourceError, match=r"'db' cannot be added; pass resources=Resources"):
        flow.resources.add("db", 1)

    assert 0 == len(Workflow(State).resources)
