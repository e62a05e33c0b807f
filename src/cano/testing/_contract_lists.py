"""The rules of the store contract about many runs: listing, what is due, retention."""

from __future__ import annotations

from math import inf

import msgspec

from cano.checkpoints.store import CheckpointStore, NewRun, RunQuery, RunSummary, Status
from cano.errors import RunNotFoundError
from cano.testing._contract_kit import (
    ANN,
    BEN,
    LEASE,
    NOW,
    Rule,
    begin,
    entered,
    expect,
    expect_events,
    refused,
    rule,
    started,
)

LISTS: list[Rule] = []
LATER = NOW + 100


@rule(LISTS)
async def summary(store: CheckpointStore) -> None:
    """A run's summary says all that was said of it, and how far it has come."""
    await store.renew(ANN, NOW, NOW + LEASE)
    new = NewRun("run", "orders", ANN.id, NOW + 0.5, 3, "f1", ("eu", "vip"))
    await store.create(new, [started(), entered(2)])
    await store.append("run", 1, [entered(3, state="SHIP")])

    expected = RunSummary(
        run_id="run", workflow="orders", status=Status.RUNNING, state="SHIP", sequence=3,
        created=NOW + 0.5, version=3, fingerprint="f1", tags=("eu", "vip"), epoch=1,
        owner=ANN.id, lease=NOW + LEASE,
    )  # fmt: skip
    expect(expected, await store.summary("run"), "the summary")
    expect([expected], list(await store.runs(RunQuery())), "the only run in the list")


@rule(LISTS)
async def newest_first(store: CheckpointStore) -> None:
    """Runs are listed newest first; of the same age by their ids, the last first."""
    for run_id, age in [("b", 2), ("d", 1), ("a", 1), ("c", 3), ("e", 1), ("B", 1)]:
        await begin(store, run_id, time=NOW + age)

    expect(["c", "b", "e", "d", "a", "B"], await _listed(store, RunQuery()), "the list")
    expect(["c", "b"], await _listed(store, RunQuery(limit=2)), "with limit=2")


@rule(LISTS)
async def filters(store: CheckpointStore) -> None:
    """A query finds the runs that fit everything it asks for, and no others."""
    await begin(store, "a", time=NOW + 1, tags=("eu", "vip"))
    await begin(store, "b", time=NOW + 2, tags=("eu-west",))
    await begin(store, "c", time=NOW + 3, workflow="other", tags=("vip",))
    await begin(store, "d", time=NOW + 4)
    await store.append("b", 1, [entered(2)], Status.FAILED)
    await store.release("c", 1, Status.WAITING, inf)
    for _ in range(3):
        await store.claim("d", "lost", LATER)
    await store.claim("a", "lost", LATER)

    for query, expected in [
        (RunQuery(workflow="flow"), "dba"),
        (RunQuery(workflow="nothing"), ""),
        (RunQuery(statuses=(Status.FAILED,)), "b"),
        (RunQuery(statuses=(Status.FAILED, Status.WAITING)), "cb"),
        (RunQuery(tag="vip"), "ca"),
        (RunQuery(tag="eu"), "a"),
        (RunQuery(since=NOW + 2), "dcb"),
        (RunQuery(before=NOW + 3), "ba"),
        (RunQuery(since=NOW + 2, before=NOW + 4), "cb"),
        (RunQuery(stuck=1), "da"),
        (RunQuery(stuck=3), "d"),
        (RunQuery(stuck=0), "dca"),
        (RunQuery(workflow="flow", statuses=(Status.RUNNING,), tag="vip", before=NOW + 2), "a"),
        (RunQuery(workflow="other", statuses=(Status.RUNNING,)), ""),
    ]:
        asked = {name: value for name, value in msgspec.structs.asdict(query).items() if value}
        expect(list(expected), await _listed(store, query), f"the runs with {asked}")


@rule(LISTS)
async def tags_follow(store: CheckpointStore) -> None:
    """A run is found by its tag in whatever status it is, all its life."""

    async def is_in(status: Status) -> None:
        for other in Status:
            found = await _listed(store, RunQuery(tag="vip", statuses=(other,)))
            expect(["run"] * (other is status), found, f"{other.value} runs of that tag")

    await begin(store, "run", tags=("eu", "vip"))
    await begin(store, "other")
    await is_in(Status.RUNNING)
    await store.release("run", 1, Status.WAITING, inf)
    await is_in(Status.WAITING)
    await store.claim("run", BEN.id, NOW)
    await is_in(Status.RUNNING)
    await store.append("run", 2, [entered(3)], Status.FAILED)
    await is_in(Status.FAILED)
    await store.reopen("run", BEN.id, NOW)
    await is_in(Status.RUNNING)
    await store.append("run", 3, [entered(5)], Status.FINISHED)
    await is_in(Status.FINISHED)


@rule(LISTS)
async def paging(store: CheckpointStore) -> None:
    """Page by page one comes to the end: no run is missing and none comes twice."""
    for number in range(20):
        await begin(store, f"run-{number:02}", time=NOW + number // 4, tags=("x",) * (number % 2))
    for tag, size in [(None, 3), (None, 20), (None, 7), ("x", 3), ("x", 5)]:
        whole = await _listed(store, RunQuery(tag=tag, limit=100))
        paged: list[str] = []
        page = await _listed(store, RunQuery(tag=tag, limit=size))
        while page and len(paged) < 100:
            paged += page
            page = await _listed(store, RunQuery(tag=tag, limit=size, after=page[-1]))

        expect(20 if tag is None else 10, len(whole), "runs in one page")
        expect(whole, paged, f"all pages of {size} together")


@rule(LISTS)
async def paging_while_runs_begin(store: CheckpointStore) -> None:
    """A run that begins while one turns pages repeats none and hides none."""
    for number in range(6):
        await begin(store, f"run-{number}", time=NOW + number)
    first = await _listed(store, RunQuery(limit=3))
    await begin(store, "new", time=LATER)
    second = await _listed(store, RunQuery(limit=5, after=first[-1]))

    expect([f"run-{number}" for number in (5, 4, 3, 2, 1, 0)], first + second, "both pages")


@rule(LISTS)
async def what_is_due(store: CheckpointStore) -> None:
    """Due are open runs, IN_DOUBT or not, that nobody holds, that wait no longer, nor are stuck."""
    for run_id in ("free", "wakes", "sleeps", "signal", "doubt", "told", "ended", "stuck"):
        await begin(store, run_id)
    await begin(store, "other", workflow="other")
    await store.release("free", 1, Status.RUNNING)
    await store.release("other", 1, Status.RUNNING)
    await store.release("wakes", 1, Status.WAITING, NOW + 50)
    await store.release("sleeps", 1, Status.WAITING, LATER + 50)
    await store.release("signal", 1, Status.WAITING, inf)
    await store.release("doubt", 1, Status.IN_DOUBT, inf)
    await store.release("told", 1, Status.IN_DOUBT)
    await store.append("ended", 1, [entered(2)], Status.FAILED)
    for _ in range(5):
        await store.claim("stuck", "lost", LATER)
    await store.renew(BEN, LATER, LATER + LEASE)
    await begin(store, "held", owner=BEN)
    await store.renew(BEN, LATER, LATER + LEASE)
    await begin(store, "lost")

    due = await store.due("flow", LATER, 100, 5)
    expect({"free", "wakes", "told", "lost"}, set(due.runs), "due, with fewer than 5 crashes")
    due = await store.due("flow", LATER, 100, 6)
    expect(
        {"free", "wakes", "told", "lost", "stuck"}, set(due.runs), "due, with fewer than 6 crashes"
    )
    due = await store.due("flow", LATER + 60, 100, 5)
    expect({"free", "wakes", "told", "lost", "sleeps", "held"}, set(due.runs), "due a minute later")
    expect(("other",), (await store.due("other", LATER, 100, 5)).runs, "due of another workflow")
    expect((), (await store.due("unknown", LATER, 100, 5)).runs, "due of an unknown workflow")


@rule(LISTS)
async def longest_overdue_first(store: CheckpointStore) -> None:
    """What is due comes in the order in which it became so, and at most so much as asked for."""
    for run_id, wake in [("c", 30), ("a", 10), ("d", 40), ("b", 20)]:
        await begin(store, run_id)
        await store.release(run_id, 1, Status.WAITING, NOW + wake)
    await begin(store, "lost")  # its owner's lease ends at NOW + 15

    due = await store.due("flow", LATER, 100, 5)
    expect(("a", "lost", "b", "c", "d"), due.runs, "due")
    due = await store.due("flow", LATER, 2, 5)
    expect(("a", "lost"), due.runs, "due, with limit=2")


@rule(LISTS)
async def when_to_ask_again(store: CheckpointStore) -> None:
    """`due` says when the next wait or lease ends; never, if none does."""
    expect(inf, (await store.due("flow", NOW, 10, 5)).next, "without runs")
    await begin(store, "signal")
    await store.release("signal", 1, Status.WAITING, inf)
    expect(inf, (await store.due("flow", NOW, 10, 5)).next, "with one that waits for a signal")
    await begin(store, "far")
    await store.release("far", 1, Status.WAITING, LATER)
    expect(LATER, (await store.due("flow", NOW, 10, 5)).next, "with one that waits until LATER")
    await begin(store, "held")
    expect(NOW + LEASE, (await store.due("flow", NOW, 10, 5)).next, "with a lease before that")
    await begin(store, "near")
    await store.release("near", 1, Status.WAITING, NOW + 5)
    expect(NOW + 5, (await store.due("flow", NOW, 10, 5)).next, "with a wait before that")
    await begin(store, "other", workflow="other")
    await store.release("other", 1, Status.WAITING, NOW + 1)
    expect(NOW + 5, (await store.due("flow", NOW, 10, 5)).next, "with another workflow's wait")


@rule(LISTS)
async def deleting(store: CheckpointStore) -> None:
    """`delete` forgets runs that have ended with all of theirs, leaves open ones, and counts."""
    for run_id in ("ended", "open", "waiting", "kept"):
        await begin(store, run_id)
        await store.send(run_id, "hello", b"1", NOW, "k")
    await store.append("ended", 1, [entered(2)], Status.FINISHED)
    await store.append("kept", 1, [entered(2)], Status.FAILED)
    await store.release("waiting", 1, Status.WAITING, inf)

    gone = await store.delete(["ended", "open", "waiting", "nobody"])
    expect(1, gone, "how many were deleted")
    expect(["waiting", "open", "kept"], await _listed(store, RunQuery()), "what is left")
    expect([], await store.load("ended"), "the events of a deleted run")
    await refused(RunNotFoundError, store.summary("ended"), "the summary of a deleted run")
    expect([], list(await store.ended(None, inf, 0, 9))[1:], "ended runs besides 'kept'")

    await begin(store, "ended")
    await expect_events(store, "ended", [started("ended")], "a new run of the same id")
    expect([], list(await store.inbox("ended")), "its inbox")
    expect(1, await store.send("ended", "hello", b"2", NOW, "k"), "its first message")


@rule(LISTS)
async def deleting_what_is_shared(store: CheckpointStore) -> None:
    """Deleting a run leaves the large values of other runs alone."""
    large = msgspec.Raw(b'"' + b"x" * 100_000 + b'"')
    for run_id in ("one", "two"):
        await begin(store, run_id)
        await store.append(run_id, 1, [entered(2, run_id, patch={"all": large})], Status.FINISHED)
    expect(1, await store.delete(["one"]), "how many were deleted")

    events = [started("two"), entered(2, "two", patch={"all": large})]
    await expect_events(store, "two", events, "the history of the other")
    await begin(store, "three")
    await store.append("three", 1, [entered(2, "three", patch={"all": large})])
    events = [started("three"), entered(2, "three", patch={"all": large})]
    await expect_events(store, "three", events, "the history of one that came later")


@rule(LISTS)
async def retention(store: CheckpointStore) -> None:
    """`ended` gives runs that ended too long ago or are too many, the oldest first."""
    await begin(store, "open")
    for run_id, end, workflow in [
        ("c", 3, "flow"), ("a", 1, "flow"), ("d", 4, "other"), ("b", 2, "flow"), ("e", 5, "flow"),
    ]:  # fmt: skip
        await begin(store, run_id, workflow=workflow)
        await store.append(run_id, 1, [entered(2, run_id, time=NOW + end)], Status.FAILED)

    for flow, before, keep, limit, expected in [
        (None, NOW, 100, 100, ""),
        (None, NOW + 3, 100, 100, "ab"),
        ("flow", NOW + 3.5, 100, 100, "abc"),
        (None, inf, 100, 100, "abcde"),
        (None, inf, 100, 2, "ab"),
        (None, 0.0, 2, 100, "abc"),
        ("flow", 0.0, 2, 100, "ab"),
        ("flow", NOW + 4, 3, 100, "abc"),
        ("other", inf, 0, 100, "d"),
        (None, 0.0, 0, 3, "abc"),
    ]:
        found = await store.ended(flow, before, keep, limit)
        asked = f"ended({flow!r}, NOW + {before - NOW:g}, keep={keep}, limit={limit})"
        expect(list(expected), list(found), asked)


async def _listed(store: CheckpointStore, query: RunQuery) -> list[str]:
    return [run.run_id for run in await store.runs(query)]
