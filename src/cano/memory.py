"""What tasks keep in memory: values by key, typed where they are taken out.

Rule 1: whoever touches the map holds its lock; user code runs under it only where a whole
operation has to be one step (`update`, `compare_and_set`).
Rule 2: an object that somebody else may hold is never changed by the store, only replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import (
    Any,
    Final,
    Generic,
    Protocol,
    Self,
    TypeVar,
    cast,
    get_args,
    overload,
    runtime_checkable,
)

import msgspec

from cano._kinds import did_you_mean, fits, kind_name
from cano.errors import KeyNotFoundError, ValueTypeError

__all__ = ["Key", "KeyValueStore", "MemoryStore"]

T = TypeVar("T")
D = TypeVar("D")

_MISSING: Final = object()
_NEVER_COPIED: Final = frozenset({bool, bytes, complex, float, int, str, type(None)})
_SHOWN: Final = 10  # keys in a repr


class Key(msgspec.Struct, Generic[T], frozen=True):
    """A key that knows the type of its value, accepted wherever a text is.

    Spelling and type are then said once, and type checkers see both:
    with `COUNT = Key("count", int)`, `store.get(COUNT)` is an `int`.
    """

    name: str
    kind: type[T]

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {kind_name(self.kind)})"


@runtime_checkable
class KeyValueStore(Protocol):
    """What a task may ask of any key-value store: the part to implement for another backend."""

    def get(self, key: str, kind: type[T], /) -> T:
        """Return what is under *key*, which must be a *kind*."""
        ...

    def put(self, key: str, value: object, /) -> None:
        """Keep *value* under *key*, in place of what was there."""
        ...

    def append(self, key: str, item: object, /) -> None:
        """Add *item* to the list under *key*, in one step."""
        ...

    def remove(self, key: str, /) -> None:
        """Forget *key*, if it is there."""
        ...

    def keys(self) -> Sequence[str]:
        """Return the keys there are now."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def __contains__(self, key: str, /) -> bool: ...

    def __len__(self) -> int: ...


class MemoryStore:
    """A key-value store in the memory of this process, safe to use from several threads.

    **It is not durable**: a crash loses it, and a resumed run finds it empty. What a run must
    not lose belongs in its data (`Workflow(Step, data=Order)`, then `ctx.data`), which is
    written down with every step. Nor has it a limit: what is put in stays until it is removed.

    Keys are texts, and then reading says the type (`store.get("count", int)`), or typed keys
    (`store.get(COUNT)` with `COUNT = Key("count", int)`). `put` hands a value over: it is not
    copied, so do not change it afterwards. `copy.copy(store)` is another handle on the same
    values.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._values: dict[str, object] = {}
        # The lists that nobody else can hold: appending to them need not copy them first.
        self._owned: set[str] = set()
        self._prefix = ""

    @overload
    def put(self, key: Key[T], value: T, /) -> None: ...
    @overload
    def put(self, key: str, value: object, /) -> None: ...
    def put(self, key: Key[Any] | str, value: object, /) -> None:
        """Keep *value* under *key*, in place of what was there, whatever its type was."""
        text, kind = _parts(key)
        _check_new(text, value, kind)
        with self._lock:
            self._replace(text, value)

    @overload
    def get(self, key: Key[T], /) -> T: ...
    @overload
    def get(self, key: Key[T], /, *, default: D) -> T | D: ...
    @overload
    def get(self, key: str, kind: type[T], /) -> T: ...
    @overload
    def get(self, key: str, kind: type[T], /, default: D) -> T | D: ...
    def get(self, key: Key[Any] | str, kind: Any = None, /, default: Any = _MISSING) -> Any:
        """Return a copy of the value under *key*: changing it leaves the store alone.

        Args:
            key: A text, or a `Key`.
            kind: What the value under a text key must be. A `float` may be an int, and of a
                `list[int]` only the list is checked.
            default: Returned, as it is, if there is no such key.

        Raises:
            KeyNotFoundError: There is no such key, and no default.
            ValueTypeError: The value is of another type.
        """
        text, kind = _parts(key, kind)
        with self._lock:
            if default is not _MISSING and text not in self:
                return default
            value = self._find(text, kind)
        return _copied(text, value)  # may take long, so not under the lock

    @overload
    def get_shared(self, key: Key[T], /) -> T: ...
    @overload
    def get_shared(self, key: str, kind: type[T], /) -> T: ...
    def get_shared(self, key: Key[Any] | str, kind: Any = None, /) -> Any:
        """Return the very object under *key*, the same one each time.

        The store leaves it as it is when the key gets another value or a list is appended to.
        """
        text, kind = _parts(key, kind)
        with self._lock:
            return self._find(text, kind)

    @overload
    def append(self, key: Key[list[T]], item: T, /) -> None: ...
    @overload
    def append(self, key: str, item: object, /) -> None: ...
    def append(self, key: Key[Any] | str, item: object, /) -> None:
        """Add *item* to the list under *key*; without such a key, start one.

        Raises `ValueTypeError`, and leaves the value alone, if it is not a list.
        """
        text, kind = _parts(key)
        _check_item(text, item, kind)
        name = self._prefix + text
        with self._lock:
            found = self._values.get(name, _MISSING)
            if found is not _MISSING and not isinstance(found, list):
                raise ValueTypeError(
                    f"cannot append to key {text!r}: it holds a value of type "
                    f"{kind_name(type(found))}, not list"
                )
            items = cast("list[object]", [] if found is _MISSING else found)
            if name not in self._owned:
                items = copy(items)
            items.append(item)
            self._values[name] = items
            self._owned.add(name)

    @overload
    def update(self, key: Key[T], f: Callable[[T], T], /, *, default: T = ...) -> T: ...
    @overload
    def update(self, key: str, kind: type[T], f: Callable[[T], T], /, *, default: T = ...) -> T: ...
    def update(self, key: Key[Any] | str, /, *how: Any, default: Any = _MISSING) -> Any:
        """Replace the value under *key* by what *f* makes of it, in one step; return that.

        *f* gets a copy, or *default* if there is no such key. Nobody else can use the store
        until it returns, so keep it short. If it raises, the value stays as it was.
        """
        *kinds, f = how  # the type comes first, unless the key has it
        text, kind = _parts(key, *kinds)
        with self._lock:
            value = f(self.get(text, kind, default=default))
            _check_new(text, value, kind)
            self._replace(text, value)
        return value

    @overload
    def compare_and_set(self, key: Key[T], expected: T, new: T, /) -> bool: ...
    @overload
    def compare_and_set(self, key: str, expected: object, new: object, /) -> bool: ...
    def compare_and_set(self, key: Key[Any] | str, expected: object, new: object, /) -> bool:
        """Put *new* under *key* if the value there equals *expected*; say whether it did.

        Without such a key there is nothing to compare: it says False.
        """
        text, kind = _parts(key)
        _check_new(text, new, kind)
        with self._lock:
            if text not in self:
                return False
            current = self._values[self._prefix + text]
            same = current is expected or current == expected
            if same:
                self._replace(text, new)
            return same

    def remove(self, key: Key[Any] | str, /) -> None:
        """Forget *key*, if it is there."""
        name = self._prefix + _parts(key)[0]
        with self._lock:
            self._values.pop(name, None)
            self._owned.discard(name)

    def clear(self) -> None:
        """Forget everything; in a namespace, everything in it."""
        with self._lock:
            for key in self.keys():
                self.remove(key)

    def keys(self) -> list[str]:
        """Return the keys there are now, oldest first."""
        with self._lock:
            start = len(self._prefix)
            return [name[start:] for name in self._values if name.startswith(self._prefix)]

    def contains_key(self, key: Key[Any] | str, /) -> bool:
        """Whether there is a value under *key*, of whatever type; the same as ``key in store``."""
        with self._lock:
            return self._prefix + _parts(key)[0] in self._values

    def snapshot(self) -> dict[str, object]:
        """Return a copy of everything as it was at one moment."""
        with self._lock:
            held = {key: self._find(key, object) for key in self.keys()}
        return {key: _copied(key, value) for key, value in held.items()}

    def namespace(self, prefix: str, /) -> Self:
        """Return a view of this store in which every key silently begins with *prefix*.

        ``store.namespace("eu/").put("total", 1)`` is ``store.put("eu/total", 1)``. A view
        holds no values of its own, and can be divided again.
        """
        view = copy(self)
        view._prefix += prefix
        return view

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        return len(self) == 0

    def __contains__(self, key: Key[Any] | str, /) -> bool:
        return self.contains_key(key)

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        with self._lock:
            keys = self.keys()
            held = [
                f"{key}: {kind_name(type(self._values[self._prefix + key]))}"
                for key in keys[:_SHOWN]
            ]
        if len(keys) > _SHOWN:
            held.append(f"{len(keys) - _SHOWN} more")
        place = f" {self._prefix!r}" if self._prefix else ""
        return f"<{type(self).__name__}{place} {', '.join(held) or 'empty'}>"

    def _replace(self, text: str, value: object) -> None:
        self._owned.discard(self._prefix + text)
        self._values[self._prefix + text] = value

    def _find(self, text: str, kind: Any) -> object:
        """Return what is under that key; from now on somebody else may hold it."""
        if kind is None:
            raise TypeError(f"the type is missing: get({text!r}, int) for an int, or use a Key")
        name = self._prefix + text
        if name not in self._values:
            raise KeyNotFoundError(
                f"there is no key {text!r} (wanted: {kind_name(kind)})"
                f"{did_you_mean(text, self.keys())}; put a value there, or give a default"
            )
        value = self._values[name]
        if not fits(value, kind):
            raise ValueTypeError(
                f"key {text!r} holds a value of type {kind_name(type(value))}, "
                f"not {kind_name(kind)}"
            )
        self._owned.discard(name)
        return value


def _parts(key: Key[Any] | str, kind: Any = object) -> tuple[str, Any]:
    """Return a key's text and type, which for a mere text is *kind*."""
    return (key, kind) if isinstance(key, str) else (key.name, key.kind)


def _check_new(text: str, value: object, kind: Any) -> None:
    if not fits(value, kind):
        raise ValueTypeError(
            f"cannot put a value of type {kind_name(type(value))} under key {text!r}, "
            f"which is for {kind_name(kind)}"
        )


def _check_item(text: str, item: object, kind: Any) -> None:
    _check_new(text, [], kind)
    for item_kind in get_args(kind):
        if not fits(item, item_kind):
            raise ValueTypeError(
                f"cannot append an item of type {kind_name(type(item))} to key {text!r}, "
                f"which is for {kind_name(kind)}"
            )


def _copied(text: str, value: object) -> object:
    if type(value) in _NEVER_COPIED:
        return value
    try:
        return deepcopy(value)
    except Exception as error:
        error.add_note(
            f"cano: copying the value under key {text!r}; get_shared() hands it out uncopied"
        )
        raise
