"""Where a call is made, if not on the event loop."""

from cano.executors.process import process
from cano.executors.thread import thread

__all__ = ["process", "thread"]
