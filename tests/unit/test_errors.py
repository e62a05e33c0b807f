"""What cano raises: one tree, with the classes that Python users expect to catch."""

import pytest

from cano import errors
from cano.errors import CanoError, DefinitionError, JoinFailedError

OURS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BaseException)
    and kind.__module__ == "cano.errors"
]  # fmt: skip


@pytest.mark.parametrize("kind", OURS)
def test_one_root(kind: type[Exception]) -> None:
    """Whatever cano raises of its own is a `CanoError`, and says what it is."""
    assert issubclass(kind, CanoError)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("DefinitionError", ValueError),
        ("AttemptTimeoutError", TimeoutError),
        ("RunTimeoutError", TimeoutError),
        ("SplitTimeoutError", TimeoutError),
        ("PollExhaustedError", TimeoutError),
        ("TooManyFailuresError", ExceptionGroup),
        ("CostError", ValueError),
        ("JoinFailedError", ExceptionGroup),
        ("NotJoinedError", LookupError),
        ("ResourceNotFoundError", LookupError),
        ("ResourceTypeError", TypeError),
        ("DuplicateResourceError", ValueError),
        ("KeyNotFoundError", KeyError),
        ("ValueTypeError", TypeError),
        ("MissingExtraError", ImportError),
    ],
)
def test_caught_as_python_users_expect(name: str, builtin: type[Exception]) -> None:
    """Each is also the builtin error that its kind of trouble has in Python."""
    assert issubclass(getattr(errors, name), builtin)


def test_what_trying_again_may_mend() -> None:
    """Of cano's own errors these alone are worth another attempt."""
    worth = {kind.__name__ for kind in OURS if kind.retryable}

    assert {
        "AttemptTimeoutError", "BulkheadFullError", "CallRefusedError", "CanoError",
        "JoinFailedError", "RateLimitedError", "RecordedError", "RemoteError", "SplitTimeoutError",
        "StrayCancelledError", "WorkerCrashedError",
    } == worth  # fmt: skip


def test_problems_are_listed() -> None:
    """One problem is the message itself; several are counted and listed."""
    assert "a" == str(DefinitionError("a"))
    assert "2 problems:\n- a\n- b" == str(DefinitionError(["a", "b"]))
    assert ("a", "b") == DefinitionError(["a", "b"]).problems


def test_a_group_keeps_its_result_when_split() -> None:
    """`except*` hands out groups that still know what the split came to."""
    group = JoinFailedError("no", [ValueError(), KeyError()])
    group.result = object()  # type: ignore[assignment]
    values = group.subgroup(ValueError)

    assert isinstance(values, JoinFailedError)
    assert group.result is values.result
