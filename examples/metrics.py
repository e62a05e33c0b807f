"""Metrics: fifty orders go through a shop, and Prometheus is told.

`MetricsObserver` counts and times without being asked anything in the workflow itself. A real
program would say `prometheus_client.start_http_server(8000)` and be scraped; here the registry is
printed the way it would be served, and then read for a small report.

Prints:
    cano_runs_total{outcome="failed",workflow="Order"} 10.0
    cano_runs_total{outcome="finished",workflow="Order"} 40.0
    cano_runs_active{workflow="Order"} 0.0
    cano_state_visits_total{state="PAY",workflow="Order"} 50.0
    cano_state_visits_total{state="SHIP",workflow="Order"} 40.0
    cano_retries_total{state="PAY",workflow="Order"} 35.0
    orders shipped   80 %
    PAY    50 visits, 1.7 attempts each, ... ms ==...
    SHIP   40 visits, 1.0 attempts each, ... ms ==...
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest

from cano import Context, Retry, Workflow
from cano.observers import MetricsObserver


class Step(StrEnum):
    PAY = auto()
    SHIP = auto()
    DONE = auto()


@dataclass
class Order:
    number: int = 0


registry = CollectorRegistry()
flow = Workflow(Step, data=Order, name="Order", observers=[MetricsObserver(registry)])
flow.exits(Step.DONE)


@flow.task(Step.PAY, Retry.fixed(3, 0.01))
async def pay(ctx: Context[Order]) -> Literal[Step.SHIP]:
    """One card in five is refused for good, and as many banks are busy at first."""
    kind = ctx.data.number % 10
    if kind < 2 or (kind < 5 and ctx.attempt == 1):
        raise ConnectionError("the bank")
    return Step.SHIP


@flow.task(Step.SHIP)
async def ship(ctx: Context[Order]) -> Literal[Step.DONE]:
    await asyncio.sleep(0.05)
    return Step.DONE


def value(name: str, **labels: str) -> float:
    return registry.get_sample_value(f"cano_{name}", {"workflow": "Order", **labels}) or 0


def report() -> None:
    told = ("cano_runs_total", "cano_runs_active", "cano_state_visits", "cano_retries_total")
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith(told):
            print(line)
    print()
    runs = value("runs_started_total")
    print(f"orders shipped   {100 * value('runs_total', outcome='finished') / runs:.0f} %")
    for state in ("PAY", "SHIP"):
        visits = value("state_visits_total", state=state)
        attempts = 1 + value("retries_total", state=state) / visits
        shown = value("state_seconds_count", state=state, outcome="succeeded")
        taken = 1000 * value("state_seconds_sum", state=state, outcome="succeeded") / shown
        bar = "=" * round(taken)
        print(f"{state:6} {visits:.0f} visits, {attempts:.1f} attempts each, {taken:3.0f} ms {bar}")


async def main() -> None:
    async def order(number: int) -> None:
        with suppress(ConnectionError):
            await flow.run(Step.PAY, data=Order(number))

    await asyncio.gather(*(order(number) for number in range(50)))
    report()


if __name__ == "__main__":
    asyncio.run(main())
