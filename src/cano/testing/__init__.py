"""Tools for testing workflows, and what workflows stand on."""

from cano.testing.clock import VirtualLoop, run
from cano.testing.contracts import BrokenContractError, check_checkpoint_store
from cano.testing.faults import FailTimes, FaultyStore, SimulatedCrash
from cano.testing.policies import check_policy

__all__ = [
    "BrokenContractError",
    "FailTimes",
    "FaultyStore",
    "SimulatedCrash",
    "VirtualLoop",
    "check_checkpoint_store",
    "check_policy",
    "run",
]
