"""Tools for testing workflows, and what workflows stand on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded when first asked for, by `__getattr__`: pytest loads this for its plugin
    from cano.testing._coverage import Coverage
    from cano.testing._leaks import VirtualTime
    from cano.testing.builders import After, Hang, Scripted, override
    from cano.testing.clock import VirtualLoop, advance, jump, now, run
    from cano.testing.contracts import BrokenContractError, check_checkpoint_store
    from cano.testing.crash import Crash, CrashFoundError, CrashReport, World, crash_everywhere
    from cano.testing.faults import FailTimes, FaultyStore, SimulatedCrash
    from cano.testing.observers import check_observer
    from cano.testing.policies import check_policy
    from cano.testing.recorder import Recorder
    from cano.testing.tasks import check_task

__all__ = [
    "After",
    "BrokenContractError",
    "Coverage",
    "Crash",
    "CrashFoundError",
    "CrashReport",
    "FailTimes",
    "FaultyStore",
    "Hang",
    "Recorder",
    "Scripted",
    "SimulatedCrash",
    "VirtualLoop",
    "VirtualTime",
    "World",
    "advance",
    "check_checkpoint_store",
    "check_observer",
    "check_policy",
    "check_task",
    "crash_everywhere",
    "jump",
    "now",
    "override",
    "run",
]

_HOMES = {
    "crash_everywhere": "crash",
    "World": "crash",
    "Crash": "crash",
    "CrashReport": "crash",
    "CrashFoundError": "crash",
    "After": "builders",
    "BrokenContractError": "contracts",
    "Coverage": "_coverage",
    "FailTimes": "faults",
    "FaultyStore": "faults",
    "Hang": "builders",
    "Recorder": "recorder",
    "Scripted": "builders",
    "SimulatedCrash": "faults",
    "VirtualLoop": "clock",
    "VirtualTime": "_leaks",
    "advance": "clock",
    "check_checkpoint_store": "contracts",
    "check_observer": "observers",
    "check_policy": "policies",
    "check_task": "tasks",
    "jump": "clock",
    "now": "clock",
    "override": "builders",
    "run": "clock",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    from importlib import import_module  # noqa: PLC0415 -- see above

    if name not in _HOMES:
        raise AttributeError(f"module 'cano.testing' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"cano.testing.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
