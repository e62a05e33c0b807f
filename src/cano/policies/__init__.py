"""How carefully a call is made: one file per policy, composed outermost first."""

from cano.policies.bulkhead import Bulkhead
from cano.policies.policy import Call, Decorating, Policy, compose
from cano.policies.retry import Retry
from cano.policies.timeout import Timeout

__all__ = ["Bulkhead", "Call", "Decorating", "Policy", "Retry", "Timeout", "compose"]
