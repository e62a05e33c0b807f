"""How one state's work is carried out: one file per processing model."""

from cano.tasks.router import RouterTask
from cano.tasks.split import Branch, Split
from cano.tasks.task import Guard, Runner, Task, Undoer

__all__ = ["Branch", "Guard", "RouterTask", "Runner", "Split", "Task", "Undoer"]
