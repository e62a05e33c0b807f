"""Every way in which a definition can be wrong, found before the first task runs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from cano._graph import Edge, Edges, Graph, reachable, stuck
from cano._plan import Registration
from cano.tasks.task import S

Registrations = Mapping[str, Registration[S]]


def edges_of(registrations: Registrations[S]) -> dict[str, frozenset[str] | None]:
    """Where each state may lead, by name; None is anywhere."""
    edges: dict[str, frozenset[str] | None] = {}
    for name, (_, _, _, otherwise, targets) in registrations.items():
        if targets is None:
            edges[name] = None
        else:
            leads = [target._name_ for target in targets]
            if otherwise is not None:
                leads += [target._name_ for target in otherwise.values()]
            edges[name] = frozenset(leads)
    return edges


def problems(
    states: type[S],
    registrations: Registrations[S],
    exits: Collection[str],
    edges: Edges,
    total: float | None,
) -> Iterator[str]:
    """What is wrong whatever state a run starts from."""
    if not registrations:
        yield f"no state of {states.__name__} has a task; register at least one"
        return
    if not exits:
        yield "no state ends a run; pass the ones that do to exits()"
    for name in states._member_names_:
        if name not in registrations and name not in exits:
            yield f"{name} has no task and is not an exit; register a task or pass it to exits()"
    for name, registration in registrations.items():
        if name in exits:
            yield f"{name} has a task and is an exit, which never runs one; drop one of the two"
        for text in _of_one(registration, states, total):
            yield f"{name}: {text}"
    if exits:
        for name in stuck(edges, exits):
            leads = ", ".join(sorted(edges[name] or ())) or "nowhere"
            yield f"{name} can never reach an exit (it leads to {leads}); return a state that does"


def _of_one(registration: Registration[S], states: type[S], total: float | None) -> Iterator[str]:
    """What is wrong with one state's registration alone."""
    _, task, policies, otherwise, targets = registration
    yield from task.problems(total)
    for policy in policies or task.policies:
        problem = getattr(policy, "problem", None)
        if problem is not None and (found := problem(total)) is not None:
            yield found
    for target in targets or ():
        if not isinstance(target, states):
            yield _foreign(target, states)
    for target in (otherwise or {}).values():
        if not isinstance(target, states):
            yield _foreign(target, states)


def _foreign(target: object, states: type[S]) -> str:
    return f"leads to {target!r}, which is no member of {states.__name__}; use its members"


def unreachable(states: type[S], edges: Edges, start: str) -> Iterator[str]:
    """States that no run from *start* can come to; silent where an edge is unknown."""
    seen = reachable(start, edges)
    if seen is None or len(seen) == len(states._member_names_):
        return
    for name in states._member_names_:
        if name not in seen:
            yield f"{name} cannot be reached from {start}; lead some task to it, or remove it"


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
