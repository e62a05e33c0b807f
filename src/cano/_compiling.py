"""A workflow's definition, checked and compiled into a plan."""

from __future__ import annotations

from typing import Any

from cano import _audience, _check
from cano._audience import NOBODY, Audience
from cano._data import DataType, data_type
from cano._plan import Plan
from cano._values import ValueType
from cano.errors import DataError
from cano.tasks.task import S


def compiled(plan: Plan[S], kind: type[Any] | None, leads: _check.Leads) -> list[str]:
    """Compile *plan*, whose run data is of *kind*; every problem there is."""
    found: list[str] = []
    if kind is not None:
        plan.data_type = _data_type(kind, found)
    observers = plan.audience.observers
    found += _check.problems(plan.states, plan.registrations, plan.exits, leads, plan.timeout)
    if observers:
        found += _audience.problems(observers)
    try:
        plan.compile()
    except Exception:
        if not found:  # else what was found is why
            raise
    if plan.problems:
        found += dict.fromkeys(plan.problems)  # what is bound twice is found twice
    if plan.durable and not found:
        found += _describe(plan, leads)
    return found


def audience(observers: Any) -> Audience:
    """Who is told of what; shared where that is nobody."""
    return Audience(observers) if observers else NOBODY


def _data_type(kind: type[Any], found: list[str]) -> DataType[Any] | None:
    try:
        anything: Any = kind
        return data_type(anything)
    except DataError as error:
        found.append(str(error))
        return None


def _describe(plan: Plan[S], leads: _check.Leads) -> list[str]:
    """Note what stored runs depend on; what is wrong with the migrations to it."""
    from cano._migrations import Migrations  # noqa: PLC0415 -- only who has a store pays for it
    from cano._shape import fingerprint, shape_of  # noqa: PLC0415
    from cano._upgrade import Present  # noqa: PLC0415

    undoers = plan.undoers
    models = {name: each.task.verb for name, each in plan.registrations.items()}
    shape = shape_of(
        plan.version,
        leads,
        exits=plan.exits,
        models={name: "" if verb in ("call", "run") else verb for name, verb in models.items()},
        undoable=undoers.__contains__,
        data=plan.data_type,
    )

    def output(state: str, branch: str) -> ValueType | None:
        undoer = plan.undoer(state, branch)
        return undoer.value if undoer else None

    plan.fingerprint = fingerprint(shape)
    migrations = plan.migrations or Migrations()
    plan.present = Present(shape, plan.fingerprint, plan.data_type, output, migrations)
    return migrations.problems(plan.version)
