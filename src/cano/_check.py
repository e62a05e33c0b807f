"""Every way in which a definition can be wrong, found before the first task runs. Pure.

A workflow may be built anew for every request, out of the same functions: what only depends on
names and edges is therefore worked out once per shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from cano._graph import Edge, Graph, reachable, stuck
from cano._plan import Registration
from cano.policies.policy import problems_of
from cano.tasks.task import S

Registrations: TypeAlias = Mapping[str, Registration[S]]


Leads: TypeAlias = tuple[
    tuple[str, ...], tuple[frozenset[Enum] | None, ...], tuple[tuple[str, ...], ...]
]
"""The states that have a task, and where each may lead: by what it returns, None is anywhere, and
by failing. Hashable."""


def edges_of(registrations: Registrations[S]) -> Leads:
    """The edges of a workflow, as its tasks declare them."""
    returned: list[frozenset[S] | None] = []
    routed: list[tuple[str, ...]] = []
    for each in registrations.values():
        returned.append(each.targets)
        routed.append(() if each.otherwise is None else _names(each.otherwise))
    return tuple(registrations), tuple(returned), tuple(routed)


def _names(otherwise: Mapping[type[Exception], object]) -> tuple[str, ...]:
    return tuple(state._name_ for state in otherwise.values() if isinstance(state, Enum))


def problems(
    states: type[S],
    registrations: Registrations[S],
    exits: Mapping[str, S],
    leads: Leads,
    total: float | None,
) -> list[str]:
    """What is wrong whatever state a run starts from."""
    if not registrations:
        return [f"no state of {states.__name__} has a task; register at least one"]
    found = [
        f"exit {name} {_foreign(state, states)}"
        for name, state in exits.items()
        if type(state) is not states
    ]
    unsound = _unsound if _distinct(states, leads) else _unsound.__wrapped__
    found += unsound(states, leads, tuple(exits))
    for name, registration in registrations.items():
        for text in _of_one(registration, states, total):
            found.append(f"{name}: {text}")
    return found


def unreachable(states: type[Enum], leads: Leads, start: str) -> tuple[str, ...]:
    """States that no run from *start* can come to; silent where an edge is unknown."""
    found = _unreachable if _distinct(states, leads) else _unreachable.__wrapped__
    return found(states, leads, start)


def _distinct(states: type[Enum], leads: Leads) -> bool:
    """Whether *leads* are equal to others only where they are the same.

    Members of two enums may be equal if they are texts or numbers too; what was worked out for
    the one must then not be remembered for the other.
    """
    return states.__eq__ is object.__eq__ or not any(_strangers(states, leads))


def _strangers(states: type[Enum], leads: Leads) -> Iterator[tuple[str, Enum]]:
    """What tasks say that they return, but is no state."""
    for name, targets in zip(leads[0], leads[1], strict=True):
        for target in targets or ():
            if type(target) is not states:  # an enum that has members has no subclasses
                yield name, target


@lru_cache(maxsize=256)
def _unsound(states: type[Enum], leads: Leads, exits: tuple[str, ...]) -> tuple[str, ...]:
    """What is wrong with the names and edges, states being what they are."""
    found = [
        f"{name} leads to {target!r}, which {_foreign(target, states)}"
        for name, target in _strangers(states, leads)
    ]
    if not exits:
        found.append("no state ends a run; pass the ones that do to exits()")
    registered = leads[0]
    missing = [n for n in states._member_names_ if n not in registered and n not in exits]
    found += [
        f"{name} has no task and is not an exit; register a task or pass it to exits()"
        for name in missing
    ]
    found += [
        f"{name} has a task and is an exit, which never runs one; drop one of the two"
        for name in exits
        if name in registered
    ]
    if exits:
        edges = _by_name(leads)
        # Whoever leads to a state without a task may be right once it has one: one error is enough.
        for name in stuck(edges, {*exits, *missing}):
            leading = ", ".join(sorted(edges[name] or ())) or "nowhere"
            found.append(
                f"{name} can never reach an exit (it leads to {leading}); return a state that does"
            )
    return tuple(found)


@lru_cache(maxsize=256)
def _unreachable(states: type[Enum], leads: Leads, start: str) -> tuple[str, ...]:
    seen = reachable(start, _by_name(leads))
    if seen is None:
        return ()
    return tuple(
        f"{name} cannot be reached from {start}; lead some task to it, or remove it"
        for name in states._member_names_
        if name not in seen
    )


def _by_name(leads: Leads) -> dict[str, frozenset[str] | None]:
    return {
        name: None if targets is None else frozenset((*map(_name, targets), *otherwise))
        for name, targets, otherwise in zip(*leads, strict=True)
    }


def _name(target: object) -> str:
    """The name of a state, or of what was given instead, such as ``then="END"``."""
    return getattr(target, "_name_", repr(target))


def _of_one(registration: Registration[S], states: type[S], total: float | None) -> Iterable[str]:
    """What is wrong with one state's registration alone."""
    state, task, targets = registration.state, registration.task, registration.targets
    policies, otherwise = registration.policies, registration.otherwise
    found = task.problems(total)
    policies = policies or task.policies
    if type(state) is states and targets is not None and not policies and otherwise is None:
        return found
    found = [*found]
    if type(state) is not states:
        found.append(f"{state!r} {_foreign(state, states)}")
    anything = task.returns if targets is None else None
    if isinstance(anything, type) and not issubclass(states, anything):
        found.append(
            f"{task.label} is annotated to return {anything.__name__}, "
            f"but the states are {states.__name__}"
        )
    found += problems_of(policies, total, once=task.once or task.undoable)
    for target in () if otherwise is None else otherwise.values():
        if type(target) is not states:
            found.append(f"otherwise leads to {target!r}, which {_foreign(target, states)}")
    return found


def _foreign(state: object, states: type[Enum]) -> str:
    twin = states.__members__.get(getattr(state, "name", ""))
    remedy = "use its members" if twin is None else f"use {twin}"
    return f"is no member of {states.__name__}; {remedy}"


def graph(
    name: str,
    states: type[S],
    registrations: Registrations[S],
    exits: Mapping[str, S],
    start: S | None,
) -> Graph[S]:
    """The workflow as its annotations describe it."""
    order = {name: position for position, name in enumerate(states._member_names_)}

    def edges(source: S, targets: Iterable[S], kind: str) -> list[Edge[S]]:
        known = {target._name_: target for target in targets if target._name_ in order}
        return [Edge(source, known[name], kind) for name in sorted(known, key=order.__getitem__)]

    found: list[Edge[S]] = []
    for each in registrations.values():
        found += edges(each.state, each.targets or (), each.task.edge)
        found += edges(each.state, (each.otherwise or {}).values(), "otherwise")
    return Graph(
        name=name,
        states=tuple(states),
        start=start,
        exits=tuple(exits.values()),
        labels={name: registration.task.label for name, registration in registrations.items()},
        edges=tuple(found),
        anywhere=tuple(r.state for r in registrations.values() if r.targets is None),
    )
