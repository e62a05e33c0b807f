"""Migrations: what they may be, what they may do, and what becomes of the run."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from cano._history import History, Standing, Visit, evolve
from cano._lifecycle import Phase
from cano._migrations import Migrations, Saved
from cano.errors import VersionMismatchError
from cano.events import EffectDone, RunMigrated


class Step(StrEnum):
    PAY = "pay"


def history(**other: Any) -> History:
    settings: dict[str, Any] = {
        "phase": Phase.RUNNING,
        "sequence": 7,
        "state": "CHARGE",
        "entered": True,
        "visit": Visit(3, "CHARGE"),
        "data": {"total": b"12.50", "tags": b'["a", "b"]'},
        "standing": [Standing("BOOK", "", b'"b1"', 3), Standing("FETCH", "eu", b"2", 5)],
        "version": 1,
        "fingerprint": "old",
    }
    given = {**settings, **other}
    fields = {name: msgspec.Raw(raw) for name, raw in given.pop("data").items()}
    return History(**given, fields=fields)


def migrated(*ups: Callable[[Saved], Saved], given: History | None = None) -> RunMigrated:
    """What *ups*, from version 1 on, make of a history."""
    migrations = Migrations()
    for version, up in enumerate(ups, 1):
        migrations.add(version, up)
    return migrations.carry_out(given or history(), len(ups) + 1, "new")


def folded(event: RunMigrated, given: History | None = None) -> History:
    """The history after *event*."""
    after = given or history()
    evolve(after, event)
    return after


def same(saved: Saved) -> Saved:
    return saved


def refusal(up: Callable[[Any], Any]) -> str:
    with pytest.raises(VersionMismatchError) as caught:
        migrated(up)
    return str(caught.value)


def test_a_migration_sees_what_is_stored() -> None:
    """State, data as plain values, and the states with standing work are handed over."""
    seen: list[Saved] = []

    def look(saved: Saved) -> Saved:
        seen.append(saved)
        return saved

    migrated(look)

    assert [Saved("CHARGE", {"total": 12.5, "tags": ["a", "b"]}, ("BOOK", "FETCH"))] == seen


def test_nothing_changed() -> None:
    """A migration that returns what it is given changes the version alone, and no byte of data."""
    event = migrated(same)
    after = folded(event)

    assert (1, 2, "new") == (event.before, after.version, after.fingerprint)
    assert history(version=2, fingerprint="new", sequence=8) == after


def test_data_is_what_the_migration_said() -> None:
    """Folding the event gives the fields that were returned, and no others."""

    def up(saved: Saved) -> Saved:
        saved.data["cents"] = round(saved.data.pop("total") * 100)
        return saved

    assert {"tags": b'["a", "b"]', "cents": b"1250"} == folded(migrated(up)).data


def test_trying_changes_nothing() -> None:
    """A migration may change its copy at will: the history it was made from stays as it is."""

    def up(saved: Saved) -> Saved:
        saved.data["tags"].append("c")
        saved.data.clear()
        return saved.rename("BOOK", "RESERVE")

    given = history()
    migrated(up, given=given)

    assert history() == given


def test_values_that_look_alike_are_told_apart() -> None:
    """True is not 1 is not 1.0: what was replaced by an equal value of another type is changed."""

    def up(saved: Saved) -> Saved:
        saved.data["flag"] = 1
        saved.data["total"] = 12
        return saved

    given = history(data={"flag": b"true", "total": b"12.0"})

    assert {"flag": b"1", "total": b"12"} == folded(migrated(up, given=given), given).data


def test_numbers_of_any_size_pass_through() -> None:
    """A number that fits no machine word comes through a migration as it was."""
    given = history(data={"big": b"123456789012345678901234567890"})

    assert {"big": b"123456789012345678901234567890"} == folded(
        migrated(same, given=given), given
    ).data


def test_standing_work_is_renamed() -> None:
    """A rename reaches completed work, which keeps its branch and its output."""
    after = folded(migrated(lambda saved: saved.rename("FETCH", "LOAD")))

    assert [
        Standing("BOOK", "", b'"b1"', 3),
        Standing("LOAD", "eu", b"2", 5),
    ] == after.standing


def test_a_renamed_state_is_where_the_run_is() -> None:
    """A rename of the present state takes the run along."""
    assert "PAY" == folded(migrated(lambda saved: saved.rename("CHARGE", "PAY"))).state


def test_what_was_done_in_a_renamed_state_counts() -> None:
    """A visit under a new name is the same visit, so that no effect of it is repeated."""
    done = EffectDone(state="CHARGE", name="charge card")
    given = history(visit=Visit(3, "CHARGE", {("effect", "", "charge card"): done}))
    after = folded(migrated(lambda saved: saved.rename("CHARGE", "PAY"), given=given), given)

    assert (True, 3, "PAY") == (after.entered, after.visit.number, after.visit.state)
    assert done is after.visit.of("effect", name="charge card")


def test_moving_begins_anew() -> None:
    """In the state a run was moved to it has not done anything yet."""
    after = folded(migrated(lambda saved: saved.move("REVIEW")))

    assert ("REVIEW", False) == (after.state, after.entered)


def test_renames_follow_one_another() -> None:
    """Names can be swapped, within a migration and across several."""

    def swap(saved: Saved) -> Saved:
        return saved.rename("BOOK", "x").rename("FETCH", "BOOK").rename("x", "FETCH")

    once = folded(migrated(swap))
    twice = folded(migrated(swap, swap))

    assert ["FETCH", "BOOK"] == [work.state for work in once.standing]
    assert ["BOOK", "FETCH"] == [work.state for work in twice.standing]


def test_a_name_that_was_given_away_is_free() -> None:
    """What was renamed once is not reached by its old name any more."""
    twice = migrated(lambda saved: saved.rename("BOOK", "LOAN").rename("BOOK", "BUY"))

    assert ["LOAN", "FETCH"] == [work.state for work in folded(twice).standing]


def test_no_new_name() -> None:
    """Renaming a state to itself leaves nothing to be recorded."""
    assert migrated(lambda saved: saved.rename("BOOK", "BOOK")).renamed is None


def test_a_chain_goes_step_by_step() -> None:
    """Each migration gets what the one before returned, as it would come out of the store."""
    seen: list[Any] = []

    def first(saved: Saved) -> Saved:
        saved.data["total"] = (1, 2)
        return saved.rename("CHARGE", "PAY")

    def second(saved: Saved) -> Saved:
        seen.extend((saved.state, saved.data["total"], saved.renamed))
        return saved.rename("PAY", "SETTLE").rename("BOOK", "RESERVE")

    event = migrated(first, second)

    assert ["PAY", [1, 2], {}] == seen
    assert (1, 3, "SETTLE") == (event.before, event.version, event.state)
    assert {"BOOK": "RESERVE", "CHARGE": "SETTLE", "PAY": "SETTLE"} == event.renamed


def test_a_chain_begins_where_the_run_is() -> None:
    """Migrations from versions before that of the run are left out."""
    event = migrated(lambda saved: 1 / 0, same, given=history(version=2))  # type: ignore[arg-type,return-value]

    assert (2, 3) == (event.before, event.version)


def test_the_event_survives_the_store() -> None:
    """Written down and read again, the event adds up to the same history."""
    event = migrated(lambda saved: saved.rename("BOOK", "RESERVE").move("REVIEW"))
    stored = msgspec.json.decode(msgspec.json.encode(event), type=RunMigrated)

    assert folded(event) == folded(stored)


def broken(saved: Saved) -> Saved:
    raise ValueError("no rate")


def returns(make: Callable[[Saved], Any]) -> Callable[[Saved], Any]:
    def up(saved: Saved) -> Any:
        return make(saved)

    return up


REFUSED: list[tuple[str, Callable[[Saved], Any], str]] = [
    ("raises", broken, "the migration broken from version 1 raised ValueError: no rate"),
    ("none", returns(lambda saved: None), "returned None; return the Saved"),
    ("other", returns(lambda saved: {}), "returned a value of type dict; return the Saved"),
    (
        "data",
        returns(lambda s: Saved(s.state, None, s.standing)),
        "data is of type NoneType, not dict",
    ),  # type: ignore[arg-type]
    (
        "key",
        returns(lambda s: Saved(s.state, {1: 1}, s.standing)),
        "a field 1, which is of type int",
    ),  # type: ignore[dict-item]
    ("state", returns(lambda s: s.move(None)), "None is of type NoneType"),  # type: ignore[arg-type]
    ("member", returns(lambda s: s.move(Step.PAY)), "<Step.PAY: 'pay'> is of type Step"),
    ("new name", returns(lambda s: s.rename("X", 2)), "2 is of type int"),  # type: ignore[arg-type]
    (
        "dropped",
        returns(lambda s: Saved(s.state, s.data)),
        "left nothing standing where BOOK, FETCH stood; completed work cannot be dropped",
    ),
    (
        "added",
        returns(lambda s: msgspec.structs.replace(s, standing=("PAY", *s.standing))),
        "left PAY, BOOK, FETCH standing where BOOK, FETCH stood",
    ),
    (
        "by hand",
        returns(lambda s: msgspec.structs.replace(s, standing=("A", "B"))),
        "return saved.rename(old, new)",
    ),
    (
        "unwritable",
        returns(lambda s: msgspec.structs.replace(s, data={"f": object()})),
        "left data['f'] as a value of type object, which cannot be written down",
    ),
]


@pytest.mark.parametrize(
    ("up", "told"), [(up, told) for _, up, told in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_migration_is_held_to_its_contract(up: Callable[[Any], Any], told: str) -> None:
    """What raises, or returns what cannot be, is refused with its name, version and remedy."""
    assert told in refusal(up)
    assert f"the migration {up.__qualname__} from version 1" in refusal(up)


async def later(saved: Saved) -> Saved:
    return saved


WRONG: list[tuple[str, list[tuple[Any, Any]], list[str]]] = [
    ("none", [], []),
    ("all", [(0, same), (1, same), (2, same)], []),
    ("the last ones", [(1, same), (2, same)], []),
    (
        "twice",
        [(2, same), (2, broken)],
        [
            "the migration broken from version 2 is not the only one: there is the migration same "
            "from version 2; drop one"
        ],
    ),
    (
        "too far",
        [(3, same)],
        [
            "the migration same from version 3 leads beyond the workflow's own version 3; pass "
            "version=4 to the workflow"
        ],
    ),
    (
        "a gap",
        [(0, same), (2, same)],
        [
            "the migration same from version 0 leads to version 1, and none leads on to version 2; "
            "write it with migrate(from_=1)"
        ],
    ),
    (
        "no version",
        [("1", same), (True, same), (-1, same)],
        [
            f"the migration same from version {start} starts from no version; pass a whole number "
            "from 0 on, such as from_=1"
            for start in ("1", True, -1)
        ],
    ),
    (
        "async",
        [(2, later)],
        [
            "the migration later from version 2 is async; it must be an ordinary function of what "
            "is stored"
        ],
    ),
    (
        "no function",
        [(2, 5)],
        [
            "the migration 5 from version 2 is no function; write one that takes a Saved and "
            "returns one"
        ],
    ),
]


@pytest.mark.parametrize(
    ("registered", "told"), [(r, told) for _, r, told in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_can_be_wrong_with_migrations(
    registered: list[tuple[Any, Any]], told: list[str]
) -> None:
    """Every problem of the migrations of a workflow is found when it is compiled."""
    migrations = Migrations()
    for start, up in registered:
        migrations.add(start, up)

    assert told == migrations.problems(3)


def test_the_way_is_complete_or_not() -> None:
    """The first version that nothing leads on from is named."""
    migrations = Migrations()
    migrations.add(2, same)
    migrations.add(3, same)

    assert [0, 1, None, None, None] == [migrations.lacking(v, 4) for v in range(5)]


def test_a_copy_is_independent() -> None:
    """Migrations added to a copy are not added to the original."""
    migrations = Migrations()
    migrations.add(0, same)
    migrations.copy().add(1, same)

    assert (None, 1) == (migrations.lacking(0, 1), migrations.lacking(0, 2))
