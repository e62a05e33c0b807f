"""The contract of a policy, as a test that any policy must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from cano._data import DataType, data_type
from cano.context import Context
from cano.policies.guarded import Nobody, place
from cano.policies.policy import Call, Policy
from cano.testing._contract_kit import expect
from cano.testing._verdict import silent, verdict
from cano.testing.contracts import BrokenContractError

MakePolicy: TypeAlias = Callable[[], Policy]
_Check: TypeAlias = Callable[[Policy, int], Coroutine[Any, Any, None]]


async def check_policy(
    make: MakePolicy,
    /,
    *,
    replaces_errors: bool = False,
    calls: int = 20,
    only: Sequence[str] = (),
    patience: float = 60.0,
) -> None:
    """Try every rule of the contract on a policy of its own; `BrokenContractError` lists the broken.

    A test in any framework, in virtual time::

        def test_my_policy():
            cano.testing.run(check_policy(lambda: MyPolicy(limit=3)))

    What *make* raises goes through, and what it gives that is no policy is a `TypeError`.

    Args:
        make: Gives a new policy each time, one that lets *calls* calls through one after the
            other, whether they fail or not: a breaker with a threshold above that.
        replaces_errors: Whether errors of the call do not come out as they are, on purpose.
        calls: How many calls are made where one is not enough.
        only: The names of some rules, to try these alone.
        patience: After so many seconds of silence a rule is broken.
    """
    broken: list[AssertionError] = []
    for rule in _RULES:
        if (rule.about_errors and replaces_errors) or (only and rule.name not in only):
            continue
        error = await _tried(rule, _made(make), calls, patience)
        if error is not None:
            broken.append(error)
    if broken:
        listed = "\n".join(f"- {error}" for error in broken)
        raise BrokenContractError(f"{len(broken)} broken rules of Policy:\n{listed}\n", broken)


async def _tried(rule: _Rule, policy: Policy, calls: int, patience: float) -> AssertionError | None:
    """What is wrong, if something is. The rule is tried in a task, which can be given up."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(rule.check(policy, calls))
    done, _ = await asyncio.wait({task}, timeout=patience)
    if not done:
        await _end({task, *asyncio.all_tasks() - before})
        return silent(rule, patience)
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    left = asyncio.all_tasks() - before - {task}
    await _end(left)
    if error is None and left:
        error = AssertionError(f"{len(left)} asyncio tasks were left running")
    return verdict(rule, error)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


def _made(make: MakePolicy) -> Policy:
    policy = make()
    if isinstance(policy, type) or not isinstance(policy, Policy):
        raise TypeError(f"{policy!r} is no policy: make() is to give an object with wrap(call)")
    return policy


class _Rule(NamedTuple):
    """One rule of the contract, and how it is tried."""

    name: str
    sentence: str
    check: _Check
    about_errors: bool


_RULES: list[_Rule] = []


def _rule(*, about_errors: bool = False) -> Callable[[_Check], _Check]:
    """Add a check; its docstring is the rule."""

    def add(check: _Check) -> _Check:
        sentence = " ".join((check.__doc__ or "").split())
        name: str = getattr(check, "__name__", "?")
        _RULES.append(_Rule(name, sentence, check, about_errors))
        return check

    return add


@dataclass
class Data:
    """What the calls of the rules work on."""

    number: int = 0


class _Stop(Exception):  # noqa: N818 -- stands for any error after which a run must stop
    """An error after which the run has to stop where it is."""

    retryable = False


class _End(BaseException):
    """Ends the program, as KeyboardInterrupt does."""


class _Host(Nobody):
    data_type: DataType[Any] | None = data_type(Data)

    def stops(self, error: Exception, /) -> bool:
        return isinstance(error, _Stop)


def _context(number: int = 0) -> Context[Any]:
    """The context of one call, in a run of its own."""
    host: Any = _Host()
    ctx: Context[Any] = Context(host, [place(check_policy)], Data(number))
    ctx.item = number
    return ctx


class _Failing:
    """A call that always raises the same error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.made = 0

    async def __call__(self, ctx: Context[Any]) -> None:
        self.made += 1
        raise self.error


class _Hanging:
    """A call that waits for its cancellation; `inside` are those that do."""

    def __init__(self) -> None:
        self.made = 0
        self.inside = 0

    async def __call__(self, ctx: Context[Any]) -> None:
        self.made += 1
        self.inside += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.inside -= 1


async def _number(ctx: Context[Any]) -> int:
    await asyncio.sleep(0)
    number: int = ctx.item
    return number


async def _ended(call: Call[Any], error: BaseException) -> BaseException | None:
    """What comes out of a call that raises *error*."""
    try:
        await call(_context())
    except (Exception, _End) as raised:  # noqa: BLE001 -- whatever it is, the rules judge it
        return raised
    return None


async def _in_flight(call: Call[Any], number: int = 1) -> list[asyncio.Task[Any]]:
    """So many calls, begun; those that are let in have come to their first wait."""

    async def made(index: int) -> Any:
        return await call(_context(index))

    tasks = [asyncio.create_task(made(index)) for index in range(number)]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@_rule()
async def makes_no_call_of_its_own(policy: Policy, calls: int) -> None:
    """`wrap` makes no call: it gives a function of the context that does."""
    made = 0

    def call(ctx: Context[Any]) -> Awaitable[None]:
        nonlocal made
        made += 1
        return asyncio.sleep(0)

    wrapped = policy.wrap(call)
    expect(True, callable(wrapped), f"wrap() gave {wrapped!r}, callable")
    expect(0, made, "calls made by wrap()")


@_rule()
async def passes_the_result_through(policy: Policy, calls: int) -> None:
    """What the call returns comes out as it is, and the call is made once."""
    result, made = object(), 0

    async def call(ctx: Context[Any]) -> object:
        nonlocal made
        made += 1
        return result

    expect(True, await policy.wrap(call)(_context()) is result, "the result is the very same")
    expect(1, made, "calls made for one that succeeds")


@_rule()
async def gives_the_call_its_context(policy: Policy, calls: int) -> None:
    """The call gets the context of the run: the same state, item, branch and data."""
    ctx = _context(7)

    async def call(seen: Context[Any]) -> None:
        expect((ctx.state, 7, None), (seen.state, seen.item, seen.branch), "state, item, branch")
        expect(Data(7), seen.data, "the run data")
        seen.data.number = 8

    await policy.wrap(call)(ctx)
    expect(Data(8), ctx.data, "the run data after a call that changed them")


@_rule(about_errors=True)
async def passes_errors_through(policy: Policy, calls: int) -> None:
    """The error of the call comes out as it is, not another one in its place."""
    error = ConnectionError("no answer")
    raised = await _ended(policy.wrap(_Failing(error)), error)
    expect(True, raised is error, f"{raised!r} came out for {error!r}, the very same")


@_rule()
async def lets_errors_out_that_stop_the_run(policy: Policy, calls: int) -> None:
    """After an error for which `ctx.host.stops` says so, that error comes out at once."""
    call = _Failing(_Stop("lost the run"))
    raised = await _ended(policy.wrap(call), call.error)
    expect(True, raised is call.error, f"{raised!r} came out for {call.error!r}, the very same")


@_rule()
async def lets_base_exceptions_out(policy: Policy, calls: int) -> None:
    """What is no `Exception`, such as KeyboardInterrupt, comes out; the call is not repeated."""
    call = _Failing(_End())
    raised = await _ended(policy.wrap(call), call.error)
    expect(True, raised is call.error, f"{raised!r} came out for {call.error!r}, the very same")
    expect(1, call.made, "calls made")


@_rule()
async def lets_cancellations_out(policy: Policy, calls: int) -> None:
    """A cancellation reaches the call, ends it, and comes out as one; the call is not repeated."""
    call = _Hanging()
    tasks = await _in_flight(policy.wrap(call))
    made = call.made
    expect(True, made > 0, "the call had begun")
    await _cancel(tasks)
    expect(True, tasks[0].cancelled(), "the cancellation came out")
    expect((made, 0), (call.made, call.inside), "calls made, and still running")


@_rule()
async def leaves_nothing_running(policy: Policy, calls: int) -> None:
    """When a call is over, no asyncio task is left of it."""
    before = asyncio.all_tasks()
    await policy.wrap(_number)(_context())
    expect(set[Any](), asyncio.all_tasks() - before, "left after a success")
    error = ConnectionError()
    await _ended(policy.wrap(_Failing(error)), error)
    expect(set[Any](), asyncio.all_tasks() - before, "left after a failure")
    await _cancel(await _in_flight(policy.wrap(_Hanging())))
    expect(set[Any](), asyncio.all_tasks() - before, "left after a cancellation")


@_rule()
async def closes_its_deadlines(policy: Policy, calls: int) -> None:
    """A deadline that is opened for a call is closed after it, however it ends."""
    for call in (_number, _Failing(ConnectionError())):
        ctx = _context()
        with suppress(Exception):
            await policy.wrap(call)(ctx)
        expect(float("inf"), ctx.deadline, "ctx.deadline after the call")


@_rule()
async def admits_calls_after_failed_ones(policy: Policy, calls: int) -> None:
    """What is held during a call is given back when it fails."""
    error = ConnectionError()
    failing, working = policy.wrap(_Failing(error)), policy.wrap(_number)
    for _ in range(calls):
        await _ended(failing, error)
    expect(5, await working(_context(5)), f"the result of a call after {calls} failed ones")


@_rule()
async def admits_calls_after_cancelled_ones(policy: Policy, calls: int) -> None:
    """What is held during a call is given back when it is cancelled, inside or in line."""
    hanging, working = policy.wrap(_Hanging()), policy.wrap(_number)
    for _ in range(calls):
        await _cancel(await _in_flight(hanging))
    expect(5, await working(_context(5)), f"the result of a call after {calls} cancelled ones")
    await _cancel(await _in_flight(hanging, calls))
    expect(6, await working(_context(6)), f"the result after {calls} cancelled at a time")


@_rule()
async def serves_many_calls_at_a_time(policy: Policy, calls: int) -> None:
    """Calls at the same time do not mix: each gets its own result."""
    results = await asyncio.gather(*await _in_flight(policy.wrap(_number), calls))
    expect(list(range(calls)), results, "the results")


@_rule()
async def serves_many_places(policy: Policy, calls: int) -> None:
    """One policy may be put around several calls, and does not mix them up."""

    async def other(ctx: Context[Any]) -> str:
        return "other"

    first, second = policy.wrap(_number), policy.wrap(other)
    expect(1, await first(_context(1)), "the first call's result")
    expect("other", await second(_context(2)), "the second call's result")
    expect(3, await first(_context(3)), "the first call's result, once more")


@_rule()
async def leaves_attempts_of_others_alone(policy: Policy, calls: int) -> None:
    """`ctx.attempt` of one call says nothing of another one that runs or comes later."""
    seen: list[int] = []

    async def counting(ctx: Context[Any]) -> None:
        await asyncio.sleep(0)
        seen.append(ctx.attempt)

    failing, working = policy.wrap(_Failing(ConnectionError())), policy.wrap(counting)
    tasks = await _in_flight(failing, 2)
    await working(_context())
    await asyncio.gather(*tasks, return_exceptions=True)
    await working(_context())
    expect([1, 1], seen, "attempts of calls beside and after failing ones")
