"""From MODULE:ATTR on the command line to a workflow, with help for whoever mistyped it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeAlias, TypeGuard

import click

from cano import Workflow
from cano.cli.outcome import INVALID, NOT_FOUND, USAGE, CommandError
from cano.errors import DefinitionError

AnyWorkflow: TypeAlias = Workflow[Any, Any]

argument: Callable[[Any], Any] = click.argument("name", metavar="MODULE:ATTR")
start: Callable[[Any], Any] = click.option("--start", metavar="STATE", help="Where the run starts.")


def load(target: str) -> AnyWorkflow:
    """The workflow that *target* names.

    Raises `CommandError`; and `DefinitionError` if building the workflow does.
    """
    source, colon, path = target.rpartition(":")
    if not (source and colon and path):
        raise CommandError(
            f"{target!r} does not say which workflow; write MODULE:ATTR, such as orders:flow", USAGE
        )
    module = _module(source)
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            hint = _hint(name, dir(found), "there is " + (_workflows(module) or "no Workflow"))
            raise CommandError(f"{source} has no {path!r}; {hint}", NOT_FOUND) from None
    return _workflow(found, target)


def state_of(workflow: AnyWorkflow, name: str | None) -> Any:
    """The state called *name*, None for None. Raises `CommandError`."""
    states: dict[str, Any] = dict(workflow.states.__members__)
    if name is None or name in states:
        return None if name is None else states[name]
    hint = _hint(name.upper(), states, f"the states are {', '.join(states)}")
    raise CommandError(f"--start: {workflow.states.__name__} has no {name!r}; {hint}", USAGE)


def _workflow(found: Any, target: str) -> AnyWorkflow:
    if _is_workflow(found):
        return found
    import inspect  # noqa: PLC0415 -- `cano --help` does without

    wanted = "name a Workflow, or a function without parameters that returns one"
    if not callable(found) or isinstance(found, type):
        raise CommandError(f"{target} is {_a(found)}; {wanted}", INVALID)
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise CommandError(f"{target} takes arguments: {error}; {wanted}", INVALID) from None
    try:
        made = found()
    except DefinitionError:
        raise
    except Exception as error:
        raise CommandError(f"{target}() raised {_where(error)}", INVALID) from error
    if _is_workflow(made):
        return made
    if inspect.iscoroutine(made):
        made.close()
        raise CommandError(f"{target} is async; the function must be an ordinary one", INVALID)
    raise CommandError(f"{target}() returned {_a(made)}, not a Workflow", INVALID)


def _is_workflow(value: object) -> TypeGuard[AnyWorkflow]:
    return isinstance(value, Workflow)


def _module(source: str) -> ModuleType:
    """The module called *source*, or at that path. The current directory comes first."""
    if source.endswith(".py") or "/" in source or "\\" in source:
        return _file(Path(source))
    if not sys.path or sys.path[0] not in ("", str(Path.cwd())):
        sys.path.insert(0, str(Path.cwd()))
    return _import(source)


def _file(path: Path) -> ModuleType:
    """Import the file at *path* by name, so that worker processes can import it, too."""
    path = path.resolve()
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = _hint(path.name, near, "give the path of a file")
        raise CommandError(f"there is no file {path}; {hint}", NOT_FOUND)
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    sys.path.insert(0, str(root))
    module = _import(name)
    if Path(module.__file__ or "").resolve() != path:
        raise CommandError(
            f"{path.name} cannot be imported as {name}: {module.__file__ or 'a built-in module'} "
            "has that name already; rename the file",
            INVALID,
        )
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DefinitionError:
        raise
    except ModuleNotFoundError as error:
        lacking: str = getattr(error, "name", None) or ""
        if name != lacking and not name.startswith(f"{lacking}."):
            raise CommandError(f"{name} cannot be imported: {_where(error)}", INVALID) from error
        hint = _hint(name, _siblings(name), f"looked in {Path.cwd()} and where Python looks")
        raise CommandError(f"there is no module {name!r}; {hint}", NOT_FOUND) from None
    except (Exception, SystemExit) as error:
        raise CommandError(f"{name} cannot be imported: {_where(error)}", INVALID) from error


def _siblings(name: str) -> Iterable[str]:
    """The modules that might have been meant by *name*."""
    import pkgutil  # noqa: PLC0415 -- only whoever mistyped waits for it

    parent, dot, _ = name.rpartition(".")
    if not dot:
        return [module.name for module in pkgutil.iter_modules()]
    try:
        package = importlib.import_module(parent)
    except ImportError:
        return _siblings(parent)
    paths = getattr(package, "__path__", [])
    return [f"{parent}.{module.name}" for module in pkgutil.iter_modules(paths)]


def _workflows(module: ModuleType) -> str:
    return ", ".join(name for name, value in vars(module).items() if isinstance(value, Workflow))


def _hint(name: str, known: Iterable[str], otherwise: str) -> str:
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else otherwise


def _a(found: object) -> str:
    kind = type(found).__name__
    return f"a{'n' * (kind[0] in 'AEIOUaeiou')} {kind}"


def _where(error: BaseException) -> str:
    """The error, and the line of the user's code that it comes from."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    line = _last_line(error.__traceback__)
    return f"{type(error).__name__}: {error}" + (f" ({line})" if line else "")


def _last_line(trace: TracebackType | None) -> str:
    """The last line that is neither ours nor the import system's."""
    found = ""
    own = str(Path(__file__).parent.parent)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<frozen", own)) and "importlib" not in file:
            found = f"{file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
