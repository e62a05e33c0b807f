"""What users import, and what it costs them."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import cano

SOURCE = Path(cano.__file__).parent
MODULES = [
    "cano.join",
    "cano.memory",
    "cano.resources",
    "cano.health",
    "cano.errors",
    "cano.observers",
    "cano.concurrent",
    "cano.testing",
]


def test_all_is_sorted_and_true() -> None:
    """Every public name is there, and `__all__` is in order."""
    assert sorted(cano.__all__) == list(cano.__all__)
    assert [] == [name for name in cano.__all__ if not hasattr(cano, name)]


def test_every_public_thing_says_what_it_is() -> None:
    """Every public class and function has a docstring, and so has every module."""
    silent = [
        f"{module}.{name}"
        for module in ["cano", *MODULES]
        for name in dir(importlib.import_module(module))
        if not name.startswith("_")
        and (thing := getattr(importlib.import_module(module), name)) is not None
        and getattr(thing, "__module__", "").startswith("cano")
        and (isinstance(thing, type) or callable(thing))
        and not thing.__doc__
    ]
    bare = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert [] == silent
    assert [] == bare


def loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_brings_nothing_along() -> None:
    """Importing cano loads msgspec and nothing else of others, and nothing heavy of Python's."""
    ours = loaded_by("from cano import Workflow")
    brought = ours - loaded_by("import asyncio, msgspec")

    assert {"cano"} == brought - set(sys.stdlib_module_names)
    assert set() == brought & {
        "sqlite3",
        "multiprocessing",
        "zoneinfo",
        "decimal",
        "random",
        "uuid",
    }
