"""Tools for testing workflows."""

from cano.testing.clock import VirtualLoop, run

__all__ = ["VirtualLoop", "run"]
