"""Exceptions, written down and brought back."""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import Context, MemoryCheckpoints, RecordedError, SignalTimeoutError, Workflow
from cano._causes import LONGEST, cause_of, revive
from cano.checkpoints.store import Status
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


class PlainError(Exception):
    pass


class PickyError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


class LyingError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"something else than {text}")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:
        return found


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), PlainError("ä"), KeyError("key"), SignalTimeoutError("late"), OSError("x")],
)
def test_a_class_that_takes_one_text_comes_back(error: Exception) -> None:
    """The error is rebuilt as its own class, with its text, so that `except` still works."""
    back = revive(cause_of(raised(error)))
    assert type(error) is type(back)
    assert str(error) == str(back)


@pytest.mark.parametrize("error", [PickyError(1, "x"), LyingError("x")])
def test_a_class_that_does_not_is_recorded(error: Exception) -> None:
    """What one text does not make is a RecordedError that says what it was."""
    back = revive(cause_of(raised(error)))
    assert isinstance(back, RecordedError)
    assert type(error).__qualname__.rpartition(".")[2] in back.kind
    assert str(error) == back.message


def test_a_local_class_is_recorded() -> None:
    """A class that cannot be imported is recorded by its name."""

    class HereError(Exception):
        pass

    back = revive(cause_of(raised(HereError("x"))))
    assert isinstance(back, RecordedError)
    assert back.kind.endswith("HereError")


def test_a_group_is_recorded() -> None:
    """The members of a group are in the traceback only."""
    back = revive(cause_of(raised(ExceptionGroup("two", [ValueError("x"), KeyError("y")]))))
    assert isinstance(back, RecordedError)
    assert "ValueError: x" in "".join(back.__notes__)


def test_notes_and_traceback_are_kept() -> None:
    """Notes come back as notes, the traceback in one of its own."""
    error = raised(ValueError("no"))
    error.add_note("cano: run 'r'")
    back = revive(cause_of(error))
    assert "cano: run 'r'" == back.__notes__[0]
    assert "recorded in an earlier process" in back.__notes__[1]
    assert "in raised" in back.__notes__[1]


def test_a_long_story_is_cut_in_the_middle() -> None:
    """Messages and tracebacks keep their ends."""
    cause = cause_of(raised(ValueError("a" * LONGEST + "b" * LONGEST)))
    assert LONGEST + 60 > len(cause.message)
    assert ("a", "b") == (cause.message[0], cause.message[-1])
    assert "characters left out" in cause.traceback


@pytest.mark.parametrize("error", [MuteError(), ValueError("\udcff.txt"), PlainError(object())])
def test_whatever_an_error_is_the_run_has_its_end(error: Exception) -> None:
    """An error that cannot say what it is, or says what UTF-8 cannot, is recorded all the same."""

    async def main() -> tuple[Status, str]:
        flow = Workflow(Step, checkpoints=(store := MemoryCheckpoints())).exits(Step.END)

        @flow.task(Step.A)
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            raise error

        with pytest.raises(type(error)):
            await flow.run(Step.A, run_id="r")
        end: Any = (await store.load("r"))[-1]
        return (await store.summary("r")).status, end.kind

    assert (Status.FAILED, type(error).__name__) == run(main())
