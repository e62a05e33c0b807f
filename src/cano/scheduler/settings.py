"""What can be said about a flow when it is added to a scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cano.errors import DefinitionError
from cano.schedules import Schedule

if TYPE_CHECKING:
    from cano.workflow import Workflow

MOST_QUEUED = 1000
"""How many ticks may be made up for at most."""


@dataclass(frozen=True)
class Allow:
    """Let *n* runs of a flow be under way at once; a tick that finds so many is skipped."""

    n: int

    def __post_init__(self) -> None:
        _whole("Allow", self.n)


@dataclass(frozen=True)
class CatchUp:
    """Make up for missed ticks, the latest *n* at most, one after the other."""

    n: int

    def __post_init__(self) -> None:
        _whole("CatchUp", self.n, MOST_QUEUED)


@dataclass(frozen=True)
class Backoff:
    """How long a flow rests after failures: *delay* seconds after the first.

    After each further one in a row it is *factor* times as long, at most *max_delay* seconds, and
    spread to both sides by the share *jitter*.
    """

    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        found = [
            f"Backoff: {name}={getattr(self, name)!r}; pass a number, {low:g} or more"
            for name, low in (("delay", 0), ("factor", 1), ("max_delay", 0))
            if not low <= getattr(self, name) < inf
        ]
        if not 0 <= self.jitter <= 1:
            found.append(f"Backoff: jitter={self.jitter!r} is a share of the delay, from 0 to 1")
        if found:
            raise DefinitionError(found)

    def pause(self, streak: int, chance: float = 0.5) -> float:
        """Seconds to rest after *streak* failures in a row; *chance* in [0, 1) places the jitter."""
        try:
            planned = self.delay * float(self.factor) ** (max(streak, 1) - 1)
        except OverflowError:
            planned = inf
        planned = min(planned, self.max_delay)
        return min(planned * (1 + self.jitter * (2 * chance - 1)), self.max_delay)


Overlap: TypeAlias = Literal["skip", "queue", "cancel"] | Allow
Misfire: TypeAlias = Literal["skip", "once"] | CatchUp
Unfinished: TypeAlias = Literal["resume", "supersede"]


@dataclass(frozen=True, eq=False)
class FlowSettings:
    """What was given to `Scheduler.add`. Raises `DefinitionError`."""

    name: str
    workflow: Workflow[Any, Any]
    schedule: Schedule
    start: Any
    """The state to start from, if it is not the workflow's own."""
    data: Any
    overlap: Overlap
    misfire: Misfire
    backoff: Backoff
    trip: int | None
    until: datetime | None
    jitter: float
    tags: Sequence[str]
    unfinished: Unfinished
    fresh_data: Callable[[float], Any] | None = field(init=False)
    """Makes the data of the run for a tick."""
    last_moment: float = field(init=False)
    """No tick after it is run."""

    def __post_init__(self) -> None:
        if found := [f"flow {self.name!r}: {problem}" for problem in self._problems()]:
            raise DefinitionError(found)
        self.workflow._begin(self.start)  # raises every definition error
        end = inf if self.until is None else self.until.timestamp()
        object.__setattr__(self, "last_moment", end)
        object.__setattr__(self, "fresh_data", _maker(self.data))

    def _problems(self) -> Iterator[str]:
        given: Any = self
        if not isinstance(given.name, str) or not given.name:
            yield "that is no name; pass a text that is not empty"
        if not hasattr(given.workflow, "start_run"):
            yield f"{given.workflow!r} is no workflow; pass Workflow(...)"
        if isinstance(given.schedule, type) or not isinstance(given.schedule, Schedule):
            yield f"{given.schedule!r} is no schedule; pass Every(60), Cron('@daily'), ..."
        if given.data is not None and not callable(given.data):
            yield (
                f"data={given.data!r} would be shared by all runs; pass what makes it, such as "
                "data=Order, or data=lambda: Order(...)"
            )
        if inspect.iscoroutinefunction(given.data):
            yield f"data={given.data!r} is async; make it a plain function, and wait in a task"
        yield from self._more_problems(given)

    def _more_problems(self, given: Any) -> Iterator[str]:
        if not (isinstance(given.overlap, Allow) or given.overlap in ("skip", "queue", "cancel")):
            yield f'overlap={given.overlap!r}; pass "skip", "queue", "cancel" or Allow(n)'
        if not (isinstance(given.misfire, CatchUp) or given.misfire in ("skip", "once")):
            yield f'misfire={given.misfire!r}; pass "skip", "once" or CatchUp(n)'
        if not isinstance(given.backoff, Backoff):
            yield f"backoff={given.backoff!r}; pass Backoff(...)"
        if given.trip is not None and not (isinstance(given.trip, int) and given.trip >= 1):
            yield f"trip={given.trip!r}; pass a number of failures, 1 or more, or None"
        if given.until is not None and getattr(given.until, "tzinfo", None) is None:
            yield f"until={given.until!r}; pass a datetime with a time zone"
        if not (isinstance(given.jitter, int | float) and 0 <= given.jitter < inf):
            yield f"jitter={given.jitter!r}; pass seconds, 0 or more"
        if isinstance(given.tags, str) or not isinstance(given.tags, Sequence):
            yield f"tags={given.tags!r} is no list; pass a list of texts"
        if given.unfinished not in ("resume", "supersede"):
            yield f'unfinished={given.unfinished!r}; pass "resume" or "supersede"'


def _maker(given: Any) -> Callable[[float], Any] | None:
    """What makes the data of a run for a tick."""
    if given is None:
        return None
    try:
        inspect.signature(given).bind()
    except TypeError:  # it asks for the time
        return lambda due: given(datetime.fromtimestamp(due, UTC))
    except ValueError:  # it does not tell
        pass
    return lambda due: given()


def _whole(what: str, n: Any, most: float = inf) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= most:
        limit = f" to {most:g}" if most < inf else " or more"
        raise DefinitionError(f"{what}({n!r}): pass a whole number, 1{limit}")
