"""What to say of a task that returned something that is no state to go to."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Any

from cano._plan import Plan
from cano.errors import RoutingError


def astray(plan: Plan[Any], here: str, returned: object) -> RoutingError:
    """The error, saying what may have been meant."""
    label = plan.registrations[here].task.label
    states: type[Enum] = plan.states
    if isinstance(returned, states):
        why = f"{returned._name_} has no task and is not an exit; register a task for it"
    else:
        why = f"that is no member of {states.__name__}; {_meant(returned, states)}"
    shown = _short(returned)
    return RoutingError(f"{label}, the task of {here}, returned {shown}; {why}")


def _meant(returned: object, states: type[Enum]) -> str:
    """Which member may have been meant by something that is none."""
    names = list(states.__members__)
    asked = getattr(returned, "_name_", returned)
    if isinstance(asked, str):
        from difflib import get_close_matches  # noqa: PLC0415 -- only a mistake pays for it

        folded = {name.casefold(): name for name in names[:200]}
        if close := get_close_matches(asked[:100].casefold(), folded, 1):
            return f"did you mean {states.__name__}.{folded[close[0]]}?"
    with suppress(Exception):
        return f"did you mean {states.__name__}.{states(returned)._name_}?"
    known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    forgot = ". A task without a return statement returns None" if returned is None else ""
    return f"return one of its members: {known}{forgot}"


def _short(value: object) -> str:
    """The repr of *value*, even if that is long, or raises."""
    from reprlib import Repr  # noqa: PLC0415 -- only a mistake pays for it

    shown = Repr()
    shown.maxstring = shown.maxother = 200
    return shown.repr(value)
