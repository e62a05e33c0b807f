"""Every way in which a definition can be wrong, found before the first task runs. Pure.

A workflow may be built anew for every request, out of the same functions: what only depends on
names and edges is therefore worked out once per shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from cano._graph import Edge, Graph, reachable, stuck
from cano._plan import Registration
from cano.tasks.task import S

Registrations: TypeAlias = Mapping[str, Registration[S]]

Leads: TypeAlias = tuple[tuple[str, frozenset[Enum] | None, tuple[str, ...]], ...]
"""Where each state that has a task may lead: by what it returns, None is anywhere, and the names
of where its failures go. Hashable."""


def edges_of(registrations: Registrations[S]) -> Leads:
    """The edges of a workflow, as its tasks declare them."""
    return tuple(
        [
            (name, targets, () if otherwise is None else _names(otherwise.values()))
            for name, (_, _, _, otherwise, targets) in registrations.items()
        ]
    )


def _strangers(states: type[Enum], leads: Leads) -> list[tuple[str, Enum]]:
    """What tasks say that they return, but is no state."""
    return [
        (name, target)
        for name, targets, _ in leads
        if targets is not None
        for target in targets
        if not isinstance(target, states)
    ]


def _names(states: Iterable[object]) -> tuple[str, ...]:
    return tuple(state._name_ for state in states if isinstance(state, Enum))


def problems(
    states: type[S],
    registrations: Registrations[S],
    exits: Mapping[str, S],
    leads: Leads,
    total: float | None,
) -> Iterator[str]:
    """What is wrong whatever state a run starts from."""
    if not registrations:
        yield f"no state of {states.__name__} has a task; register at least one"
        return
    for name, state in exits.items():
        if not isinstance(state, states):
            yield f"exit {name} {_foreign(state, states)}"
    strangers = _strangers(states, leads)
    for name, target in strangers:
        yield f"{name} leads to {target!r}, which {_foreign(target, states)}"
    # Members of two enums may be equal, so strangers must not find their way into the cache.
    unsound = _unsound.__wrapped__ if strangers else _unsound
    yield from unsound(states, leads, tuple(exits))
    for name, registration in registrations.items():
        if found := _of_one(registration, states, total):
            yield from [f"{name}: {text}" for text in found]


@lru_cache(maxsize=256)
def _unsound(states: type[Enum], leads: Leads, exits: tuple[str, ...]) -> tuple[str, ...]:
    """What is wrong with the names and edges, states being what they are."""
    found: list[str] = []
    if not exits:
        found.append("no state ends a run; pass the ones that do to exits()")
    registered = {name for name, _, _ in leads}
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


def _by_name(leads: Leads) -> dict[str, frozenset[str] | None]:
    return {
        name: None if targets is None else frozenset((*_names(targets), *otherwise))
        for name, targets, otherwise in leads
    }


def _of_one(registration: Registration[S], states: type[S], total: float | None) -> list[str]:
    """What is wrong with one state's registration alone."""
    state, task, policies, otherwise, targets = registration
    found = [*task.problems(total)]
    if not isinstance(state, states):
        found.append(f"{state!r} {_foreign(state, states)}")
    anything = task.returns if targets is None else None
    if isinstance(anything, type) and not issubclass(states, anything):
        found.append(
            f"{task.label} is annotated to return {anything.__name__}, "
            f"but the states are {states.__name__}"
        )
    for policy in policies or task.policies:
        found += _of_policy(policy, total)
    for target in () if otherwise is None else otherwise.values():
        if not isinstance(target, states):
            found.append(f"otherwise leads to {target!r}, which {_foreign(target, states)}")
    return found


def _of_policy(policy: Any, total: float | None) -> Iterable[str]:
    if isinstance(policy, type):
        return (f"{policy.__name__} is a class; pass an instance, {policy.__name__}(...)",)
    if not hasattr(policy, "wrap"):
        return (f"{policy!r} is no policy; pass Retry(...), Timeout(...) or another with wrap()",)
    problem = getattr(policy, "problem", None)
    found = None if problem is None else problem(total)
    return () if found is None else (found,)


def _foreign(state: object, states: type[Enum]) -> str:
    twin = states.__members__.get(getattr(state, "name", ""))
    remedy = "use its members" if twin is None else f"use {twin}"
    return f"is no member of {states.__name__}; {remedy}"


def unreachable(states: type[Enum], leads: Leads, start: str) -> tuple[str, ...]:
    """States that no run from *start* can come to; silent where an edge is unknown."""
    return () if _strangers(states, leads) else _unreachable(states, leads, start)


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


def graph(
    name: str,
    states: type[S],
    registrations: Registrations[S],
    exits: Mapping[str, S],
    start: S | None,
) -> Graph[S]:
    """The workflow as its annotations describe it."""
    edges: list[Edge[S]] = []
    for registration in registrations.values():
        source = registration.state
        edges += [
            Edge(source, target, registration.task.edge)
            for target in _in_order(states, registration.targets or ())
        ]
        routed = (registration.otherwise or {}).values()
        edges += [Edge(source, target, "otherwise") for target in _in_order(states, routed)]
    return Graph(
        name=name,
        states=tuple(states),
        start=start,
        exits=tuple(exits.values()),
        labels={name: registration.task.label for name, registration in registrations.items()},
        edges=tuple(edges),
        anywhere=tuple(r.state for r in registrations.values() if r.targets is None),
    )


def _in_order(states: type[S], targets: Iterable[S]) -> list[S]:
    wanted = {target._name_ for target in targets}
    return [state for state in states if state._name_ in wanted]
