"""One workflow for many inputs: when it is enough, and what became of each."""

from cano.concurrent._instance import RunOutcome
from cano.concurrent.many_runs import ManyRuns, many, run_many
from cano.concurrent.waits import Duration, Forever, ManyStatus, Quota, QuotaOrDuration, Wait

__all__ = [
    "Duration",
    "Forever",
    "ManyRuns",
    "ManyStatus",
    "Quota",
    "QuotaOrDuration",
    "RunOutcome",
    "Wait",
    "many",
    "run_many",
]
