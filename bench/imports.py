"""What `from cano import Workflow` adds to a program that has imported asyncio.

CPU time of whole interpreters, each a fresh one, with the bytecode cached. A whole interpreter is
easily disturbed, so each figure is the best of three.
"""

from __future__ import annotations

from bench.harness import Batch, Line, in_fresh_process

ROUNDS = 11
SPENT = "from time import process_time; print(process_time())"
FOREIGN = """
import msgspec, sys  # which takes typing_extensions along where that is installed
before = set(sys.modules)
from cano import Workflow
known = sys.stdlib_module_names | {"cano"}
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - known))
"""


def spent(statements: str) -> Batch:
    """The CPU time of an interpreter that does this and ends."""
    program = f"{statements}; {SPENT}"
    return lambda: min(float(in_fresh_process("-c", program)) for _ in range(3))


def foreign() -> list[str]:
    """The third-party packages that come along, apart from msgspec."""
    return in_fresh_process("-c", FOREIGN).split()


def lines() -> list[Line]:
    asyncio_alone = spent("import asyncio")
    return [
        Line(
            "from cano import Workflow, over import asyncio",
            spent("import asyncio; from cano import Workflow"),
            asyncio_alone, must=40, unit="ms", by="difference", rounds=ROUNDS,
        ),
        Line(
            "of that, import msgspec",
            spent("import asyncio, msgspec"),
            asyncio_alone, unit="ms", by="difference", rounds=ROUNDS,
        ),
        Line(
            "third-party packages but msgspec",
            lambda: float(len(foreign())), lambda: 0.0,
            must=0, unit="", by="difference", rounds=1,
        ),
    ]  # fmt: skip


def notes() -> list[str]:
    """Which modules take the time, by themselves, in microseconds."""
    asyncio_alone = {name for name, _ in _times("import asyncio")}
    ours = [(name, us) for name, us in _times("import asyncio, cano") if name not in asyncio_alone]
    dearest = sorted(ours, key=lambda entry: -entry[1])[:12]
    found = foreign()
    return [
        f"{len(ours)} modules; the dearest, in µs: "
        + ", ".join(f"{name} {us}" for name, us in dearest),
        *([f"third-party: {', '.join(found)}"] if found else []),
    ]


def _times(statement: str) -> list[tuple[str, int]]:
    report = in_fresh_process("-X", "importtime", "-c", statement, errors=True)
    rows = [line.removeprefix("import time:").split("|") for line in report.splitlines()[1:]]
    return [(name.strip(), int(alone)) for alone, _, name in rows]
