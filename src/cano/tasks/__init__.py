"""How the work of a state is carried out."""

from cano._progress import Signal
from cano.tasks.compensatable import CompensatableTask
from cano.tasks.function import FunctionTask
from cano.tasks.router import RouterTask
from cano.tasks.signal import SignalTask
from cano.tasks.split import Branch, Split
from cano.tasks.stepped import Done, More, SteppedTask
from cano.tasks.task import Guard, Runner, Task, Undoer
from cano.tasks.timer import TimerTask

__all__ = [
    "Branch",
    "CompensatableTask",
    "Done",
    "FunctionTask",
    "Guard",
    "More",
    "RouterTask",
    "Runner",
    "Signal",
    "SignalTask",
    "Split",
    "SteppedTask",
    "Task",
    "TimerTask",
    "Undoer",
]
