"""Random workflows, randomly edited, and runs of the old ones: nothing is lost unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import event as seen
from hypothesis import given, settings
from hypothesis import strategies as st

from cano._data import DataType, data_type
from cano._history import History, Standing, Visit, evolve
from cano._lifecycle import Phase
from cano._migrations import Migrations, Saved
from cano._shape import FieldShape, Shape, StateShape, changes, fields_of, fingerprint, read
from cano._upgrade import Fitness, Present
from cano._values import ValueType, value_type
from cano.errors import DataError

thorough = settings(max_examples=100, deadline=None, database=None)

STATES = ("A", "B", "C", "D")
FIELDS = ("w", "x", "y", "z")
TYPES: dict[str, Any] = {"int": int, "str": str, "int | None": int | None, "list[int]": list[int]}
DEFAULTS: dict[str, Any] = {"int": 7, "str": "seven", "int | None": None, "list[int]": []}
OUTPUTS = [value_type(kind, "some work") for kind in (int, str, Any)]
JSON = [b"1", b'"one"', b"null", b"[1,2]", b"true"]

some_states = st.lists(st.sampled_from(STATES), unique=True).map(lambda names: tuple(sorted(names)))
fields = st.builds(FieldShape, st.sampled_from(sorted(TYPES)), st.booleans())
tasks = st.builds(
    StateShape,
    st.sampled_from(["run", "step"]),
    st.booleans(),
    st.none() | some_states,
    some_states,
)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    roles = {name: draw(st.sampled_from(["task", "task", "exit", "none"])) for name in STATES}
    return Shape(
        draw(st.integers(0, 2)),
        {name: draw(tasks) for name, role in roles.items() if role == "task"},
        tuple(name for name, role in roles.items() if role == "exit"),
        draw(st.dictionaries(st.sampled_from(FIELDS), fields, max_size=3)),
    )


@st.composite
def edited(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """A workflow, and what it became by a few edits."""
    old = draw(shapes())
    new, other = old, draw(shapes())
    for part in draw(st.lists(st.sampled_from(["version", "state", "exits", "field"]), max_size=3)):
        if part == "version":
            new = msgspec.structs.replace(new, version=other.version)
        elif part == "field":
            name = draw(st.sampled_from(FIELDS))
            new = msgspec.structs.replace(new, data=_like(new.data, other.data, name))
        else:
            name = draw(st.sampled_from(STATES))
            exits = {*new.exits} - {name} | ({*other.exits} & {name})
            new = msgspec.structs.replace(
                new,
                states=_like(new.states, other.states, name),
                exits=tuple(sorted(exits)),
            )
    return old, new


def _like(mine: dict[str, Any], other: dict[str, Any], name: str) -> dict[str, Any]:
    """*mine*, but with the *name* of *other*, or without if it has none."""
    rest = {key: value for key, value in mine.items() if key != name}
    return {**rest, name: other[name]} if name in other else rest


@thorough
@given(edited())
def test_one_and_the_same(pair: tuple[Shape, Shape]) -> None:
    """Shapes are equal if and only if their fingerprints are, and if no change is told."""
    old, new = pair

    assert (old == new) == (fingerprint(old) == fingerprint(new)) == (not changes(old, new))


@thorough
@given(shapes(), st.randoms(use_true_random=False))
def test_order_is_no_matter(shape: Shape, random: Any) -> None:
    """However a shape was put together, it has one fingerprint, also after it was stored."""

    def shuffled(whole: dict[str, Any]) -> dict[str, Any]:
        return dict(random.sample(sorted(whole.items(), key=lambda item: item[0]), len(whole)))

    again = msgspec.structs.replace(shape, states=shuffled(shape.states), data=shuffled(shape.data))

    assert fingerprint(shape) == fingerprint(again)
    assert read(again.written()) == shape


def _expected(old: Shape, new: Shape) -> set[str]:
    """The words that must be told of, found out in another way than `changes` does."""
    words = {"version"} if old.version != new.version else set()
    for name in STATES:
        before, after = old.states.get(name), new.states.get(name)
        if (before is None, name in old.exits) != (after is None, name in new.exits):
            words.add(f" {name} " if name not in old or name not in new else f"{name} was")
        if before is None or after is None:
            continue
        words |= {f"task of {name}"} if before.model != after.model else set()
        words |= {f"work of {name}"} if before.undoable != after.undoable else set()
        if (before.targets is None) != (after.targets is None):
            words.add("anywhere")
        elif before.targets is not None and after.targets is not None:
            words |= {f"{name} → {to} was" for to in {*before.targets} ^ {*after.targets}}
        words |= {
            f"{name} → {to} (otherwise) was" for to in {*before.otherwise} ^ {*after.otherwise}
        }
    return words | {f"field {n} " for n in FIELDS if old.data.get(n) != new.data.get(n)}


@thorough
@given(edited())
def test_every_edit_is_named(pair: tuple[Shape, Shape]) -> None:
    """Each state, edge and field that was added, removed or changed is in some sentence."""
    told = changes(*pair)

    assert set() == {word for word in _expected(*pair) if not any(word in line for line in told)}


class Case(msgspec.Struct):
    """A run, and the workflow that is to go on with it."""

    history: History
    present: Present
    outputs: dict[tuple[str, str], ValueType]


def _data(drawn: dict[str, FieldShape]) -> DataType[Any]:
    described = [
        (name, TYPES[each.type], DEFAULTS[each.type]) if each.default else (name, TYPES[each.type])
        for name, each in drawn.items()
    ]
    kind: Any = msgspec.defstruct("Data", described, kw_only=True)
    return data_type(kind)


def _up(kind: str, first: str, second: str, raw: bytes) -> Callable[[Saved], Any]:
    """A migration that does one of the things migrations do."""

    def up(saved: Saved) -> Any:
        if kind == "rename":
            return saved.rename(first, second)
        if kind == "move":
            return saved.move(first)
        if kind == "drop":
            saved.data.pop(FIELDS[STATES.index(first)], None)
        elif kind == "put":
            saved.data[FIELDS[STATES.index(first)]] = msgspec.json.decode(raw)
        elif kind == "forget":
            return Saved(saved.state, saved.data)
        elif kind == "raise":
            raise ValueError(first)
        return saved

    return up


ups = st.builds(
    _up,
    st.sampled_from(["rename", "rename", "move", "drop", "put", "same", "forget", "raise"]),
    st.sampled_from(STATES),
    st.sampled_from(STATES),
    st.sampled_from(JSON),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(shapes())
    kind = _data(shape.data)
    outputs = {
        (name, branch): draw(st.sampled_from(OUTPUTS))
        for name in shape.states
        for branch in ("", "eu")
        if draw(st.sampled_from([True, True, False]))
    }
    migrations = Migrations()
    for version in range(shape.version):
        if draw(st.sampled_from([True, True, False])):
            migrations.add(version, draw(ups))
    works = st.builds(
        Standing,
        st.sampled_from(STATES),
        st.sampled_from(["", "eu"]),
        st.sampled_from(JSON),
        st.integers(1, 9),
    )
    history = History(
        draw(st.sampled_from([phase for phase in Phase if phase is not Phase.NEW])),
        10,
        draw(st.sampled_from(STATES)),
        draw(st.booleans()),
        Visit(2, "A"),
        fields={name: msgspec.Raw(raw) for name, raw in draw(_saved(shape)).items()},
        standing=draw(st.lists(works, max_size=2)),
        version=draw(st.integers(max(0, shape.version - 1), 2)),
    )
    present = Present(
        msgspec.structs.replace(shape, data=fields_of(kind)),
        fingerprint(shape),
        kind,
        lambda *of: outputs.get(of),
        migrations,
    )
    return Case(history, present, outputs)


def _saved(shape: Shape) -> st.SearchStrategy[dict[str, bytes]]:
    """Run data, often such as the workflow has it."""
    fitting = {"int": b"1", "str": b'"one"', "int | None": b"null", "list[int]": b"[1,2]"}
    right = {name: fitting[each.type] for name, each in shape.data.items()}
    wrong = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(JSON), max_size=1)
    less = st.sets(st.sampled_from(FIELDS), max_size=1)
    return st.builds(
        lambda other, lacking: {n: v for n, v in {**right, **other}.items() if n not in lacking},
        st.just({}) | wrong,
        st.just(set()) | less,
    )


def _fits(history: History, case: Case) -> bool:
    """Whether everything the run holds has its place, found out by using it."""
    shape, kind = case.present.shape, case.present.data
    assert kind is not None
    try:
        for work in history.standing:
            case.outputs[work.state, work.branch].read(work.value)
        data = kind.rebuild(history.data)
    except (KeyError, DataError):
        return False
    here = history.state in shape.states or history.state in shape.exits
    kept = {name: getattr(data, name) for name in history.data if hasattr(data, name)}
    return (
        here
        and history.version == shape.version
        and all(work.state in shape.states for work in history.standing)
        and kept == {name: msgspec.json.decode(raw) for name, raw in history.data.items()}
    )


@settings(thorough, max_examples=300)
@given(cases())
def test_nothing_unknown_is_safe(case: Case) -> None:
    """A run found safe has, migrated or not, no state, work or data that the workflow has not."""
    verdict = case.present.verdict(case.history)
    seen(f"{verdict.fitness}, migrated: {verdict.migration is not None}")
    after = case.history
    if verdict.migration is not None:
        after = msgspec.structs.replace(
            after,
            phase=Phase.RUNNING,
            fields=dict(after.fields),
            standing=list(after.standing),
            visit=msgspec.structs.replace(after.visit),
        )
        evolve(after, verdict.migration)

    assert _fits(after, case) or verdict.fitness is not Fitness.SAFE
    assert (not verdict.reasons) == (verdict.fitness is Fitness.SAFE)


@settings(thorough, max_examples=300)
@given(cases())
def test_what_fits_is_not_refused(case: Case) -> None:
    """A run of the same version that fits is safe, whatever else has changed."""
    verdict = case.present.verdict(case.history)
    fits = _fits(case.history, case)
    seen(f"fits: {fits}")

    assert verdict.fitness is Fitness.SAFE or not fits


@thorough
@given(cases())
def test_judging_is_repeatable(case: Case) -> None:
    """A verdict changes nothing, so a second one is the same."""
    before = _plain(case.history)

    assert case.present.verdict(case.history) == case.present.verdict(case.history)
    assert before == _plain(case.history)


def _plain(history: History) -> Any:
    return history.data, msgspec.to_builtins(msgspec.structs.replace(history, fields={}))
