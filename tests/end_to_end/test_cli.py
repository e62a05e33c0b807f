"""The commands, as processes of their own: exit codes, what goes to stdout, what to stderr."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cano import __version__
from cano.cli import main

CANO = (sys.executable, "-W", "error", "-m", "cano")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with workflows in it, as a user has one."""
    return shutil.copytree(
        Path(__file__).parent / "project", tmp_path_factory.mktemp("cli") / "project"
    )


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in the project, without leaving a trace of its modules in this process."""
    before = set(sys.modules)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"orders", "parcels", "shop", "lacking"}:
            del sys.modules[name]


def cano(
    project: Path, *arguments: str, given: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CANO, *arguments],
        cwd=project,
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_version_and_help_are_on_stdout(project: Path) -> None:
    """`--version` names the version, `--help` every command; neither complains."""
    version, usage = cano(project, "--version"), cano(project, "--help")
    assert (f"cano {__version__}\n", "", 0) == (version.stdout, version.stderr, version.returncode)
    assert (0, "") == (usage.returncode, usage.stderr)
    for command in ("check", "demo", "graph", "run"):
        assert f"\n  {command} " in usage.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["chekc"], 2, "did you mean check?"),
        (["check"], 2, "Missing argument 'MODULE:ATTR'"),
        (["check", "orders"], 2, "write MODULE:ATTR, such as orders:flow"),
        (["check", "orders:flow", "--start", "pack"], 2, "did you mean PACK?"),
        (["run", "orders:slow"], 2, "pass --start, one of FETCH, PACK, DONE"),
        (["run", "orders:flow", "--timeout", "-1"], 2, "--timeout"),
        (["check", "order:flow"], 3, "did you mean orders?"),
        (["check", "shop.return:flow"], 3, "did you mean shop.returns?"),
        (["check", "order.py:flow"], 3, "did you mean orders.py?"),
        (["check", "orders:flwo"], 3, "did you mean flow?"),
        (["run", "orders:flow", "--data", "@nowhere.json"], 3, "nowhere.json: No such file"),
        (["demo", "--path", "nowhere"], 3, "there is no directory nowhere"),
        (["demo", "--path", "shop/none"], 3, "there is no directory shop/none"),
        (["check", "lacking:flow"], 4, "No module named 'surely_not_installed'"),
        (["check", "orders:Order"], 4, "orders:Order is a type; name a Workflow"),
        (["check", "orders:takes"], 4, "takes arguments"),
        (["check", "orders:explodes"], 4, "RuntimeError: no such luck"),
        (["graph", "orders:broken"], 4, "DONE has no task and is not an exit"),
        (["run", "orders:broken"], 4, "no state ends a run"),
        (["run", "orders:slow", "--start", "FETCH", "--data", "{}"], 4, "has no run data"),
        (["run", "orders:flow", "--data", "{"], 4, "--data is no JSON"),
        (["run", "orders:flow", "--data", '{"total": "x"}'], 4, "at `$.total`"),
        (["run", "orders:flow", "--data", '{"totla": 1}'], 4, "did you mean total?"),
        (["run", "parcels:flow", "--data", '{"weight": []}'], 4, "weight"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_on_stderr(
    here: None, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """A mistake leaves stdout empty, names the remedy on stderr, and has its own exit code."""
    ended = main(arguments)
    out, err = capsys.readouterr()
    assert (code, "") == (ended, out)
    assert said in err


@pytest.mark.parametrize(
    ("target", "code"), [("orders", 2), ("order:flow", 3), ("orders:broken", 4)]
)
def test_exit_codes_reach_the_shell(project: Path, target: str, code: int) -> None:
    """What `main` returns is what the process exits with; no traceback, nothing on stdout."""
    ended = cano(project, "graph", target)
    assert (code, "") == (ended.returncode, ended.stdout)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "target",
    ["orders:flow", "orders:make", "orders.py:flow", "shop.returns:flow", "shop/returns.py:flow"],
)
def test_check_finds_workflows(here: None, capsys: pytest.CaptureFixture[str], target: str) -> None:
    """A target is a module or a file, and a workflow or a function that makes one."""
    ended = main(["check", target])
    out, err = capsys.readouterr()
    assert (0, "") == (ended, err)
    assert [f"OK {target}", "orders: 3 states, 2 tasks, 2 edges, 1 exit"] == [
        line.strip() for line in out.splitlines()[:2]
    ]


def test_check_prints_every_problem(project: Path) -> None:
    """The problems are the result of a check: on stdout, one per line, exit code 4."""
    ended = cano(project, "check", "orders:broken")
    assert (4, "") == (ended.returncode, ended.stderr)
    *problems, total = ended.stdout.splitlines()
    assert f"{len(problems)} problems in orders:broken" == total
    assert (
        "✗ PACK has no task and is not an exit; register a task or pass it to exits()" in problems
    )


def test_check_as_json(here: None, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json`, stdout is one object whether the workflow is right or not."""
    assert 0 == main(["check", "orders:flow", "--json"])
    assert {
        "target": "orders:flow",
        "ok": True,
        "problems": [],
        "workflow": "orders",
        "start": "FETCH",
        "states": ["FETCH", "PACK", "DONE"],
        "exits": ["DONE"],
        "tasks": {"FETCH": "fetch", "PACK": "pack"},
        "edges": [
            {"source": "FETCH", "target": "PACK", "kind": "returns"},
            {"source": "PACK", "target": "DONE", "kind": "returns"},
        ],
        "anywhere": [],
    } == json.loads(capsys.readouterr().out)
    assert 4 == main(["check", "orders:broken", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (False, ["ok", "problems", "target"]) == (told["ok"], sorted(told))


@pytest.mark.parametrize(
    ("form", "first"),
    [("text", "orders"), ("mermaid", "flowchart TD"), ("dot", 'digraph "orders" {')],
)
def test_graph_draws(here: None, capsys: pytest.CaptureFixture[str], form: str, first: str) -> None:
    """Each format starts as its readers expect, names every edge, and is all there is on stdout."""
    ended = main(["graph", "orders:flow", "--format", form])
    out, err = capsys.readouterr()
    assert (0, "", first) == (ended, err, out.splitlines()[0])
    assert all(state in out for state in ("FETCH", "PACK", "DONE"))


def test_run_prints_exit_and_data(project: Path) -> None:
    """Piped, a run says nothing but its result: the exit state, and the data it ended with."""
    ended = cano(project, "run", "orders:flow", "--data", '{"total": 3}')
    assert (0, "") == (ended.returncode, ended.stderr)
    state, _, data = ended.stdout.partition("\n")
    assert ("DONE", {"total": 3, "note": "packed"}) == (state, json.loads(data))


def test_run_reads_data_from_a_file_and_from_stdin(project: Path) -> None:
    """`@FILE` and `-` are read instead of the argument; pydantic models are understood."""
    (project / "order.json").write_text('{"total": 7}')
    file = cano(project, "run", "orders:flow", "--data", "@order.json", "--json")
    pipe = cano(
        project, "run", "parcels:flow", "--data", "-", "--json",
        given='{"weight": 2.5}',
    )  # fmt: skip
    assert {"total": 7, "note": "packed"} == json.loads(file.stdout)["data"]
    assert {"weight": 5.0} == json.loads(pipe.stdout)["data"]


def test_failed_run(project: Path) -> None:
    """A failure is exit code 1; the error and its notes are on stderr, a traceback on request."""
    arguments = ("run", "orders:flow", "--start", "PACK", "--data", '{"total": -1}')
    ended = cano(project, *arguments)
    assert (1, "") == (ended.returncode, ended.stdout)
    assert "ValueError: negative total" in ended.stderr
    assert "of orders: PACK" in ended.stderr
    assert "Traceback" not in ended.stderr
    told = cano(project, *arguments, "--json", "--traceback")
    report = json.loads(told.stdout)
    assert (1, "failed", "PACK") == (told.returncode, report["status"], report["state"])
    assert ("ValueError", "negative total") == (report["error"]["type"], report["error"]["message"])
    assert "Traceback" in told.stderr
    assert "raise ValueError" in told.stderr


@pytest.mark.parametrize(
    "arguments", [("orders:slow", "--timeout", "0.05"), ("orders:brief",)], ids=["option", "own"]
)
def test_late_run(project: Path, arguments: tuple[str, ...]) -> None:
    """Out of time is exit code 124, by `--timeout` or by the workflow's own; resources are let go."""
    ended = cano(project, "run", *arguments, "--start", "FETCH", "--json")
    told = json.loads(ended.stdout)
    assert (124, "timed out", "FETCH") == (ended.returncode, told["status"], told["state"])
    assert ["waiting", "door closed"] == ended.stderr.splitlines()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["ctrl-c", "sigterm"],
)
def test_signal_cancels_the_run(project: Path, number: int, code: int, said: str) -> None:
    """A signal ends the run as cancelled: resources are let go, one calm line, nothing on stdout."""
    with subprocess.Popen(
        [*CANO, "run", "orders:slow", "--start", "FETCH"],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert "waiting\n" == running.stderr.readline()
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=30)
    assert (code, "") == (running.returncode, out)
    assert ["door closed", f"cano: {said}; the run was cancelled"] == err.splitlines()


def test_terminal_sees_the_path(project: Path) -> None:
    """On a terminal, stderr tells states and retries as they come; stdout stays the result."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CANO, "run", "orders:flow"],
        cwd=project, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "NO_COLOR": "1"},
    ) as running:  # fmt: skip
        os.close(theirs)
        assert running.stdout is not None
        out = running.stdout.read().decode()
        told = read_terminal(ours)
    assert (0, "DONE") == (running.returncode, out.splitlines()[0])
    assert ["FETCH", "attempt 1 failed: OSError('no line'); again in 0 s", "PACK", "DONE"] == [
        line.partition(" s ")[2].strip() for line in told.splitlines()
    ]


def read_terminal(number: int) -> str:
    """All that was written to a pseudo-terminal, until its other end is closed."""
    read = b""
    try:
        while part := os.read(number, 65536):
            read += part
    except OSError:  # Linux says so instead of returning nothing
        pass
    finally:
        os.close(number)
    return read.decode()


def test_colours_are_for_terminals(project: Path) -> None:
    """Piped output is plain; `FORCE_COLOR` colours it all the same; `NO_COLOR` has the last word."""
    arguments = ("check", "orders:flow")
    plain = cano(project, *arguments, TERM="xterm")
    forced = cano(project, *arguments, FORCE_COLOR="1")
    denied = cano(project, *arguments, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[" not in plain.stdout
    assert "\x1b[32m" in forced.stdout
    assert plain.stdout == denied.stdout


def test_old_terminal(project: Path) -> None:
    """Characters that the output's encoding lacks are replaced, and nothing fails."""
    ended = cano(project, "graph", "orders:flow", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (0, "") == (ended.returncode, ended.stderr)
    assert "FETCH" in ended.stdout


def modules_after(project: Path, *arguments: str) -> set[str]:
    """The modules that a command imports."""
    script = (
        "import sys; from cano.cli import main; code = main(); "
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=project, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    return set(ended.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("run", "orders:flow", "--json"),
        ("demo", "--path", "shop", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_heavy_is_imported(project: Path, arguments: tuple[str, ...]) -> None:
    """Starting up is quick: rich is for what draws, the demo for `cano demo`, anyio for nobody."""
    found = modules_after(project, *arguments)
    heavy = {"rich", "anyio", "multiprocessing", "sqlite3", "pkgutil"}
    if arguments[0] != "demo":
        heavy.add("cano.demo")
    if arguments == ("--version",):
        heavy.add("click")
    assert set() == found & heavy


@pytest.mark.parametrize("library", ["click", "rich"])
def test_missing_extra(project: Path, library: str) -> None:
    """Without the extra, one line says how to get it; the exit code is 2."""
    script = (
        f"import sys; sys.modules[{library!r}] = None; "
        "from cano.cli import main; sys.exit(main(['demo', '--path', 'shop']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (2, "", 1) == (ended.returncode, ended.stdout, len(ended.stderr.splitlines()))
    assert "pip install 'cano[cli]'" in ended.stderr
