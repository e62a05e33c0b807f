"""How a rule of a contract was broken, in words. Shared by all contract checks."""

from __future__ import annotations

from typing import Protocol


class Named(Protocol):
    """A rule."""

    @property
    def name(self) -> str: ...
    @property
    def sentence(self) -> str: ...


def silent(rule: Named, patience: float) -> AssertionError:
    """Trying it took too long."""
    return AssertionError(f"{rule.name}: {rule.sentence} No answer within {patience:g} seconds")


def verdict(rule: Named, error: BaseException | None) -> AssertionError | None:
    """What *error*, met when it was tried, says about it; None if there was none."""
    if error is None:
        return None
    what = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
    problem = AssertionError(f"{rule.name}: {rule.sentence} But {what}")
    problem.__cause__ = error
    return problem
