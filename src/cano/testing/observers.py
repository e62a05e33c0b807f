"""The contract of an observer, as a test that any observer must pass."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import msgspec

from cano import _audience, announced, events
from cano._subscribe import Observer
from cano.context import Context
from cano.events import Event
from cano.policies.retry import Retry
from cano.tasks.compensatable import CompensatableTask
from cano.tasks.split import Split
from cano.testing._contract_kit import expect
from cano.testing._contract_kit import samples as kept_samples
from cano.testing._verdict import verdict
from cano.testing.contracts import BrokenContractError
from cano.workflow import Workflow

MakeObserver: TypeAlias = Callable[[], Observer]


class Trial(NamedTuple):
    """An observer to be tried, and how many seconds it may take per event."""

    observer: Any
    seconds: float

    def tell(self, event: Event) -> object:
        """What the observer returns on *event*."""
        answer: object = self.observer(event)
        if inspect.iscoroutine(answer):
            answer.close()  # or Python complains that nobody awaited it
        return answer


_Check: TypeAlias = Callable[[Trial], Any]


async def check_observer(
    make: MakeObserver, /, *, seconds: float = 0.001, only: Sequence[str] = ()
) -> None:
    """Try every rule of the contract on an observer of its own; an error lists the broken ones.

    A test in any framework::

        def test_my_observer():
            cano.testing.run(check_observer(lambda: MyObserver(path)))

    Raises `BrokenContractError`. What *make* raises goes through, and what it gives that cannot
    be called is a `TypeError`.

    Args:
        make: Gives a new observer each time.
        seconds: The time it may take per event on average, by the real clock.
        only: The names of some rules, to try these alone.
    """
    broken: list[AssertionError] = []
    for rule in _RULES:
        if only and rule.name not in only:
            continue
        error = await _tried(rule, Trial(_made(make), seconds))
        if error is not None:
            broken.append(error)
    if broken:
        listed = "\n".join(f"- {error}" for error in broken)
        raise BrokenContractError(f"{len(broken)} broken rules of Observer:\n{listed}\n", broken)


def samples() -> list[Event]:
    """One of every kind of event there is, with all that it can hold, and one of no known kind."""
    known: dict[type[Event], Event] = {type(event): event for event in kept_samples()}
    for module in (events, announced):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Event) and kind.__name__ != "Progress":
                known.setdefault(kind, _filled(kind))
    del known[Event]
    return [*known.values(), _OfTheUser(run_id="run", workflow="flow", state="START", note="new")]


class _OfTheUser(Event, frozen=True):
    """A kind that no observer has heard of."""

    note: str = ""


def _filled(kind: type[Event]) -> Event:
    """An event with something in every field."""
    values: dict[str, Any] = {"str": "text", "int": 3, "float": 0.5, "bool": True}
    fields = {
        field.name: values.get(getattr(field.type, "__name__", ""), field.default)
        for field in msgspec.structs.fields(kind)
    }
    make: Any = kind
    event: Event = make(
        **fields | {"run_id": "run", "workflow": "flow", "state": "START", "branch": ""}
    )
    return event


async def _tried(rule: _Rule, trial: Trial) -> AssertionError | None:
    before = asyncio.all_tasks()
    try:
        answer = rule.check(trial)
        if inspect.isawaitable(answer):
            await answer
        left = asyncio.all_tasks() - before
        expect(0, len(left), "asyncio tasks left running")
    except Exception as error:  # noqa: BLE001 -- whatever an observer raises is judged
        return verdict(rule, error)
    finally:
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.sleep(0)
    return None


def _made(make: MakeObserver) -> Observer:
    observer = make()
    if isinstance(observer, type) or not callable(observer):
        raise TypeError(f"{observer!r} is no observer: make() is to give a callable of one event")
    return observer


class _Rule(NamedTuple):
    """One rule of the contract, and how it is tried."""

    name: str
    sentence: str
    check: _Check


_RULES: list[_Rule] = []


def _rule(check: _Check) -> _Check:
    """Add a check; its docstring is the rule."""
    name: str = getattr(check, "__name__", "?")
    _RULES.append(_Rule(name, " ".join((check.__doc__ or "").split()), check))
    return check


def _wanted(trial: Trial) -> Iterator[Event]:
    """The samples of the kinds that the observer is told of."""
    kinds = _audience._wanted(trial.observer)
    return (event for event in samples() if isinstance(event, kinds))


@_rule
def is_fit_to_be_told(trial: Trial) -> None:
    """It is called with one event, and is no `async def`."""
    expect([], list(_audience.problems([trial.observer])), "problems found by a workflow")


@_rule
def subscribes_to_events(trial: Trial) -> None:
    """`events`, where there is such an attribute, lists classes of events, the same every time."""
    first: Any = getattr(trial.observer, "events", None)
    second: Any = getattr(trial.observer, "events", None)
    if isinstance(first, Sequence):
        asked, again = cast("Sequence[object]", first), cast("Sequence[object]", second)
        if any(isinstance(kind, type) for kind in asked):
            kinds = [kind for kind in asked if isinstance(kind, type) and issubclass(kind, Event)]
            expect(list(asked), kinds, "its events")
            expect(list(asked), list(again), "its events, asked again")


@_rule
def answers_nothing(trial: Trial) -> None:
    """It returns None: nobody awaits, or looks at, what an observer returns."""
    for event in _wanted(trial):
        expect(None, trial.tell(event), f"what it returned on {type(event).__name__}")


@_rule
def takes_every_kind(trial: Trial) -> None:
    """It raises on no kind of event that it is told of, one that it has never heard of included."""
    failed: list[str] = []
    for event in _wanted(trial):
        try:
            trial.tell(event)
        except Exception as error:  # noqa: BLE001 -- all of them are listed
            failed.append(f"{type(event).__name__} ({type(error).__name__}: {error})")
    expect("none", ", ".join(failed) or "none", "kinds on which it raised")


@_rule
def takes_empty_events(trial: Trial) -> None:
    """It makes do with what a field holds by default: no state, no branch, no error, no time."""
    for event in _wanted(trial):
        trial.tell(type(event)(run_id="run", workflow="flow"))


@_rule
def takes_events_in_any_order(trial: Trial) -> None:
    """It may begin to watch in the middle of a run: ends without a beginning, and runs side by side."""
    told = list(_wanted(trial))
    for event in (*reversed(told), *told, *told):
        for run_id in ("a7", "b8"):
            trial.tell(msgspec.structs.replace(event, run_id=run_id))


@_rule
def leaves_events_alone(trial: Trial) -> None:
    """It changes nothing of an event, nor of what the event holds."""
    for event in _wanted(trial):
        before = _written(event)
        trial.tell(event)
        expect(before, _written(event), f"{type(event).__name__} afterwards")


@_rule
def is_quick(trial: Trial) -> None:
    """It does not hold up the run: no waiting for a disk, a network or a lock."""
    told = list(_wanted(trial))
    if not told:
        return
    spent: list[float] = []
    for _ in range(3):  # the best of three: somebody else may have had the processor
        gc.collect()
        before = perf_counter()
        for event in told:
            trial.tell(event)
        spent.append((perf_counter() - before) / len(told))
    if min(spent) > trial.seconds:
        raise AssertionError(
            f"it takes {min(spent) * 1000:.3g} ms per event, more than {trial.seconds * 1000:g}; "
            "put events into a queue, or ask for more in check_observer(seconds=...)"
        )


@_rule
async def watches_runs_to_their_end(trial: Trial) -> None:
    """Told of whole runs, with retries, splits, failures and rollbacks, it never raises."""
    for fails in (False, True):
        flow = _eventful(fails).copy()
        raised: list[str] = []
        flow._observers = [_listening(trial, raised)]
        await asyncio.gather(flow.run(), flow.run(), return_exceptions=True)
        expect([], raised, "what it raised")


def _listening(trial: Trial, raised: list[str]) -> Observer:
    kinds = _audience._wanted(trial.observer)

    def listen(event: Event) -> None:
        if isinstance(event, kinds):
            try:
                trial.tell(event)
            except Exception as error:  # noqa: BLE001 -- see above
                raised.append(f"{type(error).__name__}: {error}, on {type(event).__name__}")

    return listen


class _Step(Enum):
    BOOK = 1
    SPLIT = 2
    WORK = 3
    END = 4


class _Book(CompensatableTask[_Step, int]):
    async def run(self, ctx: Context[Any]) -> tuple[Literal[_Step.SPLIT], int]:
        return _Step.SPLIT, 1

    async def compensate(self, ctx: Context[Any], output: int) -> None: ...


def _eventful(fails: bool) -> Workflow[_Step, None]:
    async def branch(ctx: Context[Any]) -> int:
        return 1

    async def work(ctx: Context[Any]) -> Literal[_Step.END]:
        if fails or ctx.attempt < 2:
            raise ConnectionError("because a test says so")
        return _Step.END

    flow = Workflow(_Step, start=_Step.BOOK).register(_Step.BOOK, _Book())
    flow.register(_Step.SPLIT, Split([branch, branch], then=_Step.WORK))
    return flow.register(_Step.WORK, work, Retry.fixed(2, 0)).exits(_Step.END)


def _written(event: Event) -> bytes:
    return msgspec.json.encode(event, order="deterministic")
