"""Runs workflows when their schedules say so."""

from cano.errors import FlowRefusedError
from cano.scheduler._entries import FlowPhase, FlowStatus
from cano.scheduler.scheduler import Scheduler
from cano.scheduler.settings import Allow, Backoff, CatchUp
from cano.schedules import Cron, Every, Manual, Once, Schedule, upcoming

__all__ = [
    "Allow",
    "Backoff",
    "CatchUp",
    "Cron",
    "Every",
    "FlowPhase",
    "FlowRefusedError",
    "FlowStatus",
    "Manual",
    "Once",
    "Schedule",
    "Scheduler",
    "upcoming",
]
