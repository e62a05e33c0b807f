"""Imports go down the layers only, and decisions decide without a clock, a loop or chance."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cano"

LAYERS = [
    ["errors", "events", "_subscribe", "announced"],
    [
        "_patch",
        "_lifecycle",
        "_history",
        "_data",
        "_values",
        "_causes",
        "_graph",
        "_kinds",
        "_shape",
        "_migrations",
        "_upgrade",
        "join",
        "_cron",
        "schedules",
    ],
    ["checkpoints"],
    [
        "_clock",
        "_process",
        "_deadline",
        "_mailbox",
        "_host",
        "_progress",
        "context",
        "_detached",
        "_shield",
        "health",
        "resources",
        "memory",
    ],
    ["policies"],
    ["tasks"],
    [
        "_audience",
        "_wrapping",
        "_plan",
        "_check",
        "_compiling",
        "_definition",
        "_rollback",
        "_astray",
        "_run",
        "_cancel",
        "_ends",
        "_journal",
        "_recorded",
        "_durable",
        "_keeper",
        "_lives",
        "_stored",
        "handle",
        "workflow",
        "_nested",
    ],
    ["observers", "scheduler", "concurrent", "executors", "testing", "demo", "cli", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
IMPURE = {"asyncio", "time", "random", "threading", "sqlite3"}
ENGINE = [name for name in LAYERS[6] if name != "_nested"]  # which is a task model itself


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def home(path: Path) -> str:
    """The top-level name a file belongs to, such as `policies` or `_run`."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """What *path* imports when it is loaded or run; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_every_module_has_a_layer() -> None:
    """A new top-level module must be given its place."""
    assert set() == {home(path) for path in modules()} - set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    """A module imports from its own layer or those below, never from above."""
    mine = home(path)
    above = {
        name
        for name in imported(path)
        if name.startswith("cano.")
        and (target := name.split(".")[1]) in RANK
        and RANK[target] > RANK[mine]
    }

    assert set() == above


@pytest.mark.parametrize("layer", [0, 1])
def test_decisions_are_pure(layer: int) -> None:
    """Vocabulary and decisions never import a loop, a clock, chance or a store."""
    for name in LAYERS[layer]:
        tops = {module.split(".")[0] for module in imported(SOURCE / f"{name}.py")}

        assert set() == tops & IMPURE, name


@pytest.mark.parametrize(
    "path",
    [
        "concurrent/waits.py",
        "policies/_circuit.py",
        "scheduler/_flows.py",
        "scheduler/settings.py",
        "policies/_meters.py",
        "tasks/_polling.py",
        "tasks/_windows.py",
    ],
)
def test_so_are_those_of_policies_and_models(path: str) -> None:
    """What decides within a policy, a task model or a call is apart from what carries it out."""
    assert set() == {module.split(".")[0] for module in imported(SOURCE / path)} & IMPURE


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_knows_contracts_only(name: str) -> None:
    """No engine module imports a task model or a policy, only their contracts."""
    known = {"cano.policies.policy", "cano.tasks.task", "cano.tasks.verb", "cano.tasks.function"}
    named = {
        module
        for module in imported(SOURCE / f"{name}.py")
        if module.startswith(("cano.policies", "cano.tasks"))
        and not any(module == k or module.startswith(k + ".") for k in known)
    }

    assert set() == named
