"""MemoryStore: typed values by key, copies on reading, atomic changes, many threads."""

# The house writes `expected == actual`, which this rule takes for a slip.

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cano._kinds import fits, kind_name
from cano.errors import CanoError, KeyNotFoundError, StoreError, ValueTypeError
from cano.memory import Key, KeyValueStore, MemoryStore

COUNT = Key("count", int)
TAGS = Key("tags", list[str])


def together(n: int, f: Callable[[int], object]) -> None:
    """Call *f* in *n* threads at once, and raise what it raises."""
    barrier = threading.Barrier(n)

    def call(i: int) -> None:
        barrier.wait()
        f(i)

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(call, range(n)))


def test_what_is_put_is_got() -> None:
    """Values of every type come back under their key."""
    store = MemoryStore()
    store.put("n", 7)
    store.put("text", "seven")
    store.put("items", [7])
    store.put("nothing", None)

    assert 7 == store.get("n", int)
    assert "seven" == store.get("text", str)
    assert [7] == store.get("items", list)
    assert store.get("nothing", type(None)) is None


def test_a_new_value_may_have_another_type() -> None:
    """`put` replaces whatever was there."""
    store = MemoryStore()
    store.put("k", 7)
    store.put("k", "seven")

    assert "seven" == store.get("k", str)
    assert 1 == len(store)


def test_a_missing_key_is_an_error_with_a_hint() -> None:
    """The error names the key, the type wanted, the nearest key and the remedy."""
    store = MemoryStore()
    store.put("count", 1)

    with pytest.raises(KeyNotFoundError) as caught:
        store.get("cuont", int)

    assert (
        "there is no key 'cuont' (wanted: int); did you mean 'count'?; "
        "put a value there, or give a default" == str(caught.value)
    )
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, StoreError)
    assert isinstance(caught.value, CanoError)


def test_another_type_is_another_error() -> None:
    """A value of the wrong type is not the same as none, and both types are named."""
    store = MemoryStore()
    store.put("count", "one")

    for read in (store.get, store.get_shared):
        with pytest.raises(ValueTypeError) as caught:
            read("count", int)
        assert "key 'count' holds a value of type str, not int" == str(caught.value)


def test_a_default_stands_in_for_a_missing_key_only() -> None:
    """A default is handed out as it is, and hides no value of the wrong type."""
    store = MemoryStore()
    store.put("text", "one")
    fallback: list[int] = []

    assert fallback is store.get("none", list, fallback)
    assert store.get("none", int, default=None) is None
    assert "one" == store.get("text", str, "two")
    assert 0 == store.get(COUNT, default=0)
    with pytest.raises(ValueTypeError):
        store.get("text", int, 0)


def test_reading_gives_a_copy() -> None:
    """What a reader does to what it got changes nothing in the store."""
    store = MemoryStore()
    store.put("deep", {"a": [1]})

    got = store.get("deep", dict)
    got["a"].append(2)

    assert {"a": [1]} == store.get("deep", dict)


def test_what_cannot_change_is_not_copied() -> None:
    """Copying a large text would cost time and bring nothing."""
    store = MemoryStore()
    text = "x" * 1000
    store.put("text", text)

    assert text is store.get("text", str)


def test_what_cannot_be_copied_says_so() -> None:
    """The error of the value itself passes through, with the key and the way out."""
    store = MemoryStore()
    lock = threading.Lock()
    store.put("lock", lock)

    with pytest.raises(TypeError) as caught:
        store.get("lock", object)

    assert "under key 'lock'; get_shared()" in caught.value.__notes__[0]
    assert lock is store.get_shared("lock", object)


def test_shared_is_the_object_itself() -> None:
    """Two readers get the identical object; a later put does not touch it."""
    store = MemoryStore()
    value = {"a": 1}
    store.put("k", value)

    assert value is store.get_shared("k", dict)
    assert value is store.get_shared("k", dict)
    store.put("k", {"b": 2})
    assert {"a": 1} == value
    with pytest.raises(KeyNotFoundError):
        store.get_shared("none", dict)


def test_append_starts_a_list_and_goes_on() -> None:
    """The first append makes a list of one element."""
    store = MemoryStore()
    store.append("items", 1)
    store.append("items", "two")

    assert [1, "two"] == store.get("items", list)


def test_append_to_something_else_leaves_it_alone() -> None:
    """Only lists grow; a refused append destroys nothing."""
    store = MemoryStore()
    store.put("k", (1, 2))

    with pytest.raises(
        ValueTypeError, match=r"cannot append to key 'k': .* of type tuple, not list"
    ):
        store.append("k", 3)

    assert (1, 2) == store.get("k", tuple)


def test_append_leaves_lists_alone_that_others_hold() -> None:
    """A list that was handed out, or in, keeps its content; the store goes on with a copy."""
    store = MemoryStore()
    given = [1]
    store.put("items", given)
    store.append("items", 2)
    first = store.get_shared("items", list)
    store.append("items", 3)
    store.append("items", 4)
    second = store.get_shared("items", list)
    updated = store.update("items", list, lambda items: [*items, 5])
    store.append("items", 6)

    assert [1] == given
    assert [1, 2] == first
    assert [1, 2, 3, 4] == second
    assert [1, 2, 3, 4, 5] == updated
    assert [1, 2, 3, 4, 5, 6] == store.get("items", list)


def test_append_keeps_the_kind_of_list() -> None:
    """Copying before an append makes no plain list out of a special one."""

    class Special(list[int]):
        pass

    store = MemoryStore()
    store.put("items", Special([1]))
    store.append("items", 2)

    assert Special([1, 2]) == store.get("items", Special)


def test_many_appends_make_a_long_list() -> None:
    """Ten thousand elements are no burden: a list nobody holds is not copied."""
    store = MemoryStore()
    for i in range(10_000):
        store.append("items", i)

    assert list(range(10_000)) == store.get("items", list)


def test_remove_and_clear() -> None:
    """Removing what is not there is no error."""
    store = MemoryStore()
    store.put("a", 1)
    store.put("b", 2)
    store.remove("a")
    store.remove("a")

    assert ["b"] == store.keys()
    assert store.contains_key("b")
    assert "b" in store
    assert "a" not in store
    assert not store.is_empty
    store.clear()
    assert store.is_empty
    assert 0 == len(store)


def test_keys_are_a_list_of_their_own() -> None:
    """The keys got do not follow later changes."""
    store = MemoryStore()
    store.put("b", 1)
    store.put("a", 2)
    keys = store.keys()
    store.clear()

    assert ["b", "a"] == keys


def test_update_is_one_step() -> None:
    """What was read is what is replaced, whoever else tries; the new value comes back."""
    store = MemoryStore()
    store.put("n", 0)

    together(20, lambda _: store.update("n", int, lambda n: n + 1))

    assert 20 == store.get("n", int)
    assert 21 == store.update("n", int, lambda n: n + 1)


def test_update_may_start_from_a_default() -> None:
    """Without the key and without a default there is nothing to update."""
    store = MemoryStore()

    assert 1 == store.update("n", int, lambda n: n + 1, default=0)
    assert 2 == store.update("n", int, lambda n: n + 1, default=0)
    assert 6 == store.update(COUNT, lambda n: n + 1, default=5)
    with pytest.raises(KeyNotFoundError):
        store.update("none", int, lambda n: n)


def test_a_failed_update_changes_nothing() -> None:
    """An error in the function, or a result of the wrong type, leaves the value as it was."""
    store = MemoryStore()
    store.put("items", [1])

    def spoil(items: list[int]) -> list[int]:
        items.append(2)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.update("items", list, spoil)
    wrong: Callable[[Any], Any] = str
    with pytest.raises(ValueTypeError, match=r"value of type str under key 'items', .* for list"):
        store.update("items", list, wrong)

    assert [1] == store.get("items", list)


def test_update_may_use_the_store() -> None:
    """The lock is for others, not for the function that runs under it."""
    store = MemoryStore()
    store.put("a", 1)
    store.put("b", 2)

    assert 3 == store.update("a", int, lambda a: a + store.get("b", int))


def test_compare_and_set() -> None:
    """The new value goes in if the old one is what was expected, and not otherwise."""
    store = MemoryStore()
    store.put("k", "old")

    assert not store.compare_and_set("k", "other", "new")
    assert "old" == store.get("k", str)
    assert store.compare_and_set("k", "old", "new")
    assert "new" == store.get("k", str)
    assert not store.compare_and_set("none", None, "new")
    assert "none" not in store


def test_compare_and_set_has_one_winner() -> None:
    """Of many who expect the same, one gets its value in."""
    store = MemoryStore()
    store.put("owner", "")
    wins: list[int] = []

    def claim(i: int) -> None:
        if store.compare_and_set("owner", "", str(i)):
            wins.append(i)

    together(20, claim)

    assert [store.get("owner", str)] == [str(i) for i in wins]


def test_a_snapshot_is_a_copy_of_everything() -> None:
    """A snapshot follows nothing that happens later, and changes nothing."""
    store = MemoryStore()
    store.put("n", 1)
    store.append("items", [1])
    snapshot = store.snapshot()
    store.append("items", 2)
    assert {"n": 1, "items": [[1]]} == snapshot

    snapshot["items"][0].append(9)  # type: ignore[index]
    assert [[1], 2] == store.get("items", list)


def test_a_namespace_is_a_view() -> None:
    """A namespace sees its own keys only, without their beginning; the store sees all."""
    store = MemoryStore()
    eu, us = store.namespace("eu/"), store.namespace("us/")
    eu.put("total", 1)
    eu.append("orders", "a")
    us.put(Key("total", int), 2)

    assert ["eu/total", "eu/orders", "us/total"] == store.keys()
    assert ["total", "orders"] == eu.keys()
    assert {"total": 2} == us.snapshot()
    assert 1 == store.get("eu/total", int)
    assert "total" in us
    assert 2 == len(eu)
    with pytest.raises(KeyNotFoundError, match="did you mean 'orders'"):
        eu.get("order", list)
    eu.clear()
    assert eu.is_empty
    assert ["us/total"] == store.keys()
    us.remove("total")
    assert store.is_empty


def test_a_namespace_can_be_divided() -> None:
    """Prefixes add up, and append does not mistake one view's list for another's."""
    store = MemoryStore()
    inner = store.namespace("a/").namespace("b/")
    inner.append("k", 1)
    shared = store.get_shared("a/b/k", list)
    inner.append("k", 2)

    assert [1] == shared
    assert [1, 2] == store.get("a/b/k", list)


def test_a_copy_is_another_handle() -> None:
    """Copying the store shares its values."""
    store = MemoryStore()
    handle = copy.copy(store)
    handle.put("k", 1)

    assert 1 == store.get("k", int)


def test_a_typed_key_needs_no_type() -> None:
    """Wherever a text is accepted a typed key is, and it brings its type."""
    store = MemoryStore()
    store.put(COUNT, 1)
    store.append(TAGS, "a")

    count: int = store.get(COUNT)
    tags: list[str] = store.get_shared(TAGS)
    assert 1 == count
    assert ["a"] == tags
    assert COUNT in store
    assert 2 == store.update(COUNT, lambda n: n + 1)
    assert store.compare_and_set(COUNT, 2, 3)
    assert 3 == store.get("count", int)
    store.remove(COUNT)
    assert not store.contains_key(COUNT)


def test_a_typed_key_refuses_other_types() -> None:
    """What type checkers find is an error at run time too, and leaves the store alone."""
    store: Any = MemoryStore()

    for wrong in (
        lambda: store.put(COUNT, "x"),
        lambda: store.append(COUNT, 1),
        lambda: store.append(TAGS, 1),
        lambda: store.compare_and_set(COUNT, None, "x"),
        lambda: store.update(COUNT, str, default=1),
    ):
        with pytest.raises(ValueTypeError, match=r"'count', which is for int|list\[str\]"):
            wrong()

    assert store.is_empty


def test_a_text_key_needs_a_type() -> None:
    """Untyped reading is refused, with the remedy."""
    store: Any = MemoryStore()
    store.put("k", 1)

    with pytest.raises(TypeError, match=r"get\('k', int\)"):
        store.get("k")


def test_a_str_enum_member_is_a_text() -> None:
    """Keys may be kept in a StrEnum."""

    class Name(StrEnum):
        COUNT = "count"

    store = MemoryStore()
    store.put(Name.COUNT, 1)

    assert 1 == store.get("count", int)


def test_keys_and_stores_show_what_they_are() -> None:
    """A repr is the state, cut short if it is long."""
    store = MemoryStore()
    assert "<MemoryStore empty>" == repr(store)
    store.put("n", 1)
    store.namespace("eu/").put("t", "x")

    assert "<MemoryStore n: int, eu/t: str>" == repr(store)
    assert "<MemoryStore 'eu/' t: str>" == repr(store.namespace("eu/"))
    for i in range(10):
        store.put(str(i), i)
    assert repr(store).endswith("7: int, 2 more>")
    assert ["Key('count', int)", "Key('tags', list[str])"] == [repr(COUNT), repr(TAGS)]
    assert Key("count", int) == COUNT
    assert 1 == len({COUNT, Key("count", int)})


def test_it_is_a_key_value_store() -> None:
    """Code written for the protocol takes a MemoryStore, or a backend of one's own."""

    def use(store: KeyValueStore) -> Sequence[str]:
        store.put("a", 1)
        store.append("b", store.get("a", int))
        return store.keys()

    store = MemoryStore()

    assert isinstance(store, KeyValueStore)
    assert not isinstance({}, KeyValueStore)
    assert ["a", "b"] == use(store)


def test_fifty_concurrent_appends_are_all_there() -> None:
    """No append is lost, and none is done twice."""
    store = MemoryStore()

    together(50, lambda i: store.append("items", i))

    assert list(range(50)) == sorted(store.get("items", list))


def test_readers_and_writers_do_not_disturb_each_other() -> None:
    """A hundred keys written while ten threads read, copy and look around."""
    store = MemoryStore()

    def work(i: int) -> None:
        if i < 10:
            for j in range(10):
                store.put(f"{i}-{j}", [i, j])
                store.append("log", (i, j))
        else:
            for _ in range(5):
                keys = store.keys()
                assert all(key in store for key in keys)
                before = len(store.get("log", list, []))
                assert before <= len(store.get("log", list, []))
                assert set(keys) <= set(store.snapshot())

    together(20, work)

    assert 101 == len(store)
    assert 100 == len(store.get("log", list))


def test_types_are_told_as_far_as_run_time_can() -> None:
    """Unions, generics and the numeric tower mean what they mean to type checkers."""
    assert fits(1, float)
    assert fits(1.5, complex)
    assert not fits("1", float)
    assert fits([1], list[str])
    assert fits(None, int | None)
    assert not fits("x", int | None)
    assert fits({}, dict[str, int] | None)
    assert fits(object(), Any)
    assert ["int", "list[int]", "Any"] == [kind_name(kind) for kind in (int, list[int], Any)]


class Model(RuleBasedStateMachine):
    """A MemoryStore does what a dict of lists does, and never changes what it handed out."""

    keys = st.sampled_from(["a", "b", "x/a", "x/b"])
    values = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=3))

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.model: dict[str, Any] = {}
        self.out: list[tuple[object, object]] = []  # what was handed out, and what it was then

    def at(self, key: str) -> tuple[MemoryStore, str]:
        """Use the view for half of the keys: it has to make no difference."""
        view = self.store.namespace("x/")
        return (view, key.removeprefix("x/")) if key.startswith("x/") else (self.store, key)

    @rule(key=keys, value=values)
    def put(self, key: str, value: Any) -> None:
        store, name = self.at(key)
        store.put(name, value)
        self.model[key] = copy.deepcopy(value)
        self.out.append((value, copy.deepcopy(value)))

    @rule(key=keys, item=st.integers())
    def append(self, key: str, item: int) -> None:
        store, name = self.at(key)
        if isinstance(self.model.get(key, []), list):
            store.append(name, item)
            self.model.setdefault(key, []).append(item)
        else:
            with pytest.raises(ValueTypeError):
                store.append(name, item)

    @rule(key=keys)
    def get_shared(self, key: str) -> None:
        store, name = self.at(key)
        if key in self.model:
            found = store.get_shared(name, object)
            assert self.model[key] == found
            self.out.append((found, copy.deepcopy(found)))
        else:
            with pytest.raises(KeyNotFoundError):
                store.get_shared(name, object)

    @rule(key=keys)
    def get_and_spoil(self, key: str) -> None:
        store, name = self.at(key)
        found = store.get(name, list, None) if isinstance(self.model.get(key), list) else None
        if found is not None:
            found.append("spoilt")

    @rule(key=keys, item=st.integers())
    def update(self, key: str, item: int) -> None:
        store, name = self.at(key)
        if isinstance(self.model.get(key, []), list):
            found = store.update(name, list, lambda items: [*items, item], default=[])
            self.model[key] = [*self.model.get(key, []), item]
            self.out.append((found, copy.deepcopy(found)))

    @rule(key=keys, expected=values, new=values)
    def compare_and_set(self, key: str, expected: Any, new: Any) -> None:
        store, name = self.at(key)
        same = key in self.model and self.model[key] == expected
        assert same == store.compare_and_set(name, expected, new)
        if same:
            self.model[key] = copy.deepcopy(new)

    @rule(key=keys)
    def remove(self, key: str) -> None:
        store, name = self.at(key)
        store.remove(name)
        self.model.pop(key, None)

    @rule()
    def clear_namespace(self) -> None:
        self.store.namespace("x/").clear()
        self.model = {key: v for key, v in self.model.items() if not key.startswith("x/")}

    @invariant()
    def same(self) -> None:
        assert self.model == self.store.snapshot()
        assert sorted(self.model) == sorted(self.store.keys())
        assert len(self.model) == len(self.store)

    @invariant()
    def untouched(self) -> None:
        assert all(then == now for now, then in self.out)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
