"""Observers that come with the engine: hooks to override, logs, traces, metrics.

An observer is any callable of one event; these are some of them. `TracingObserver` needs
``pip install 'cano[otel]'``, `MetricsObserver` ``pip install 'cano[prometheus]'``.
"""

from typing import TYPE_CHECKING, Any

from cano.observers.hooks import WorkflowObserver

if TYPE_CHECKING:
    from cano.observers.logging import JsonFormatter, LoggingObserver, RunContext
    from cano.observers.metrics import MetricsObserver
    from cano.observers.tracing import TracingObserver

__all__ = [
    "JsonFormatter",
    "LoggingObserver",
    "MetricsObserver",
    "RunContext",
    "TracingObserver",
    "WorkflowObserver",
]

_HOMES = {
    "JsonFormatter": "logging",
    "LoggingObserver": "logging",
    "MetricsObserver": "metrics",
    "RunContext": "logging",
    "TracingObserver": "tracing",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: it may need another library."""
    from importlib import import_module  # noqa: PLC0415 -- see above

    if name not in _HOMES:
        raise AttributeError(f"module 'cano.observers' has no attribute {name!r}")
    return getattr(import_module(f"cano.observers.{_HOMES[name]}"), name)
