"""The rules of the store contract about events: what is written, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from cano.checkpoints.store import CheckpointStore, NewRun, RunQuery, Status
from cano.errors import CheckpointError, RunExistsError, RunLostError, RunNotFoundError
from cano.events import CursorSaved, Event, RunStarted, StateEntered, TaskCompleted
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
    samples,
    started,
    written,
)

EVENTS: list[Rule] = []
KB = 1024


@rule(EVENTS)
async def every_kind(store: CheckpointStore) -> None:
    """An event of every kind that is kept comes back as it was."""
    events = samples()
    await store.create(NewRun("run", "flow", ANN.id, NOW), events[:2])
    await store.append("run", 1, events[2:5])
    for event in events[5:]:
        await store.append("run", 1, [event])

    for event, back in zip(events, await store.load("run"), strict=False):
        expect(written([event]), written([back]), type(event).__name__)
    await expect_events(store, "run", events, "the whole history")


@rule(EVENTS)
async def absent_and_empty(store: CheckpointStore) -> None:
    """What is absent, null and empty stays different: values, patches and their fields."""
    values = [b'""', b"{}", b"[]", b"0", b"false"]
    events: list[Event] = [
        started(),
        TaskCompleted(sequence=2),
        StateEntered(sequence=3, patch={}),
        StateEntered(sequence=4, patch={"a": msgspec.Raw(b"null"), "": msgspec.Raw(b'""')}),
    ]
    events += [
        TaskCompleted(sequence=number, value=msgspec.Raw(value))
        for number, value in enumerate(values, len(events) + 1)
    ]
    await begin(store)
    await store.append("run", 1, events[1:])

    await expect_events(store, "run", events, "the history")


@rule(EVENTS)
async def plain_fields(store: CheckpointStore) -> None:
    """Texts, whole numbers and truth values come in a patch as they are, and come back as JSON."""
    plain: Any = {"text": 'say "ß"', "number": -(2**63), "great": 2**64 - 1, "flag": True}
    raw = msgspec.Raw
    as_json = {
        "text": raw('"say \\"ß\\""'.encode()),
        "number": raw(b"-9223372036854775808"),
        "great": raw(b"18446744073709551615"),
        "flag": raw(b"true"),
    }
    await begin(store)
    await store.append("run", 1, [StateEntered(sequence=2, patch=plain)])

    events = [started(), StateEntered(sequence=2, patch=as_json)]
    await expect_events(store, "run", events, "the history")


@rule(EVENTS)
async def large_values(store: CheckpointStore) -> None:
    """A value of 5 MiB comes back whole."""
    text: Any = "0123456789abcdef" * (5 * 64 * KB)
    large = msgspec.Raw(b'"' + text.encode() + b'"')
    events = [
        started(),
        CursorSaved(sequence=2, value=large),
        StateEntered(sequence=3, patch={"all": large}),
        StateEntered(sequence=4, patch={"all": large}),
    ]
    await begin(store)
    plain = StateEntered(sequence=4, patch={"all": text})
    await store.append("run", 1, [*events[1:3], plain])

    await expect_events(store, "run", events, "the history")


@rule(EVENTS)
async def repeated_values(store: CheckpointStore) -> None:
    """Values of 32 kB and more come back, whether repeated, changed or changed back."""
    sizes = [32 * KB - 1, 32 * KB, 32 * KB + 1, 100_000, 32 * KB, 100_000]
    values = [_text("a", size) for size in sizes]
    values += [_text("a", 99_999, "b"), values[-1], _text("a", 99_999, "c"), values[-1]]
    histories: dict[str, list[Event]] = {}
    for run_id in ("run", "other"):
        events: list[Event] = [started(run_id)]
        for value in values:
            number = len(events) + 1
            events += [
                entered(number, run_id, patch={"x": value, "y": value, "z": msgspec.Raw(b"1")}),
                TaskCompleted(run_id=run_id, sequence=number + 1, value=value),
            ]
        histories[run_id] = events
        await begin(store, run_id)
        await store.append(run_id, 1, events[1:7])
        for event in events[7:]:
            await store.append(run_id, 1, [event])

    for run_id, events in histories.items():
        await expect_events(store, run_id, events, f"the history of {run_id!r}")


@rule(EVENTS)
async def unicode(store: CheckpointStore) -> None:
    """Text of any language comes back: in ids, names, keys and values."""
    for run_id in ("Ωμέγα-注文-🧾", 'it\'s "quoted" \\ 100%_', " a/b?c#d\n"):
        events = [
            started(run_id),
            entered(2, run_id, state="ÄNDERN", patch={"größe": msgspec.Raw('"ß 漢 🦉"'.encode())}),
        ]
        new = NewRun(run_id, "流れ 🌊", ANN.id, NOW, fingerprint="é", tags=("städt'isch", "ü%"))
        await store.create(new, events[:1])
        await store.append(run_id, 1, events[1:])

        await expect_events(store, run_id, events, f"the history of {run_id!r}")
        found = await store.summary(run_id)
        expect("流れ 🌊", found.workflow, "the workflow")
        expect(("städt'isch", "ü%"), found.tags, "the tags")
        expect("ÄNDERN", found.state, "the state")


@rule(EVENTS)
async def nothing_shared(store: CheckpointStore) -> None:
    """A history is nobody's to change: neither by what was appended nor by what was loaded."""
    patch = {"a": msgspec.Raw(b"1")}
    events = [started(), entered(2, patch=dict(patch))]
    await begin(store)
    await store.append("run", 1, [entered(2, patch=patch)])
    patch["a"] = msgspec.Raw(b"2")
    await expect_events(store, "run", events, "after what was appended changed")

    loaded = (await store.load("run"))[1]
    if isinstance(loaded, StateEntered) and loaded.patch:
        loaded.patch.clear()
    await expect_events(store, "run", events, "after what was loaded changed")


@rule(EVENTS)
async def unknown_run(store: CheckpointStore) -> None:
    """A run that is not there has no events, and everything else says that it is not there."""
    expect([], await store.load("nobody"), "its events")
    await refused(RunNotFoundError, store.summary("nobody"), "summary")
    await refused(RunNotFoundError, store.claim("nobody", ANN.id, NOW), "claim")
    await refused(RunNotFoundError, store.reopen("nobody", ANN.id, NOW), "reopen")
    await refused(RunNotFoundError, store.send("nobody", "go", b"1", NOW), "send")
    await refused(CheckpointError, store.append("nobody", 1, [entered(1, "nobody")]), "append")

    expect([], await store.load("nobody"), "its events afterwards")
    expect([], list(await store.runs(RunQuery())), "the runs afterwards")


@rule(EVENTS)
async def load_a_part(store: CheckpointStore) -> None:
    """`load` gives the events above a number, in order, and at most as many as asked for."""
    events = [started(), *(entered(number) for number in range(2, 11))]
    await begin(store)
    await store.append("run", 1, events[1:])

    for after, limit in [(0, None), (3, None), (3, 2), (0, 4), (9, 5), (10, None), (99, 1)]:
        part = events[after:] if limit is None else events[after : after + limit]
        loaded = await store.load("run", after, limit)
        expect(written(part), written(loaded), f"load(after={after}, limit={limit})")


@rule(EVENTS)
async def taken_number(store: CheckpointStore) -> None:
    """A number that is taken is refused; what has it stays, and the next one is free."""
    await begin(store)
    await store.append("run", 1, [entered(2)])
    again = store.append("run", 1, [entered(2, state="AGAIN")], Status.FINISHED)
    await refused(RunLostError, again, "event 2, appended again")

    await expect_events(store, "run", [started(), entered(2)], "the history")
    expect(Status.RUNNING, (await store.summary("run")).status, "the status")
    await store.append("run", 1, [entered(3)])
    await expect_events(store, "run", [started(), entered(2), entered(3)], "one event later")


@rule(EVENTS)
async def old_epoch(store: CheckpointStore) -> None:
    """An old epoch, or one that is yet to come, is refused, and nothing is written."""
    await begin(store)
    await store.expire(ANN.id)
    claim = await store.claim("run", BEN.id, NOW)
    before = await store.load("run"), await store.summary("run")
    for epoch in (claim.epoch - 1, claim.epoch + 1, 0):
        late = store.append("run", epoch, [entered(claim.sequence + 1)], Status.FAILED)
        await refused(RunLostError, late, f"an append at epoch {epoch}, when it is {claim.epoch}")

    await expect_events(store, "run", before[0], "the history")
    expect(before[1], await store.summary("run"), "the summary")


@rule(EVENTS)
async def all_or_none(store: CheckpointStore) -> None:
    """Of several events in one append all are written, or none."""
    await begin(store)
    await store.append("run", 1, [entered(2), entered(3)])
    mixed = [entered(4), entered(2, state="AGAIN")]
    await refused(RunLostError, store.append("run", 1, mixed, Status.FINISHED), "events 4 and 2")

    await expect_events(store, "run", [started(), entered(2), entered(3)], "the history")
    expect(Status.RUNNING, (await store.summary("run")).status, "the status")
    await store.append("run", 1, [entered(4), entered(5)])
    expect(5, len(await store.load("run")), "events, two more at once")


@rule(EVENTS)
async def order_of_calls(store: CheckpointStore) -> None:
    """The place in the order is taken by the call, of `create` too, not by awaiting it."""
    await store.renew(ANN, NOW, NOW + LEASE)
    events = [started(), *(entered(number) for number in range(2, 8))]
    futures = [store.create(NewRun("run", "flow", ANN.id, NOW), events[:1])]
    futures += [store.append("run", 1, [event]) for event in events[1:]]
    for future in reversed(futures):
        await future

    await expect_events(store, "run", events, "the history")


@rule(EVENTS)
async def many_at_once(store: CheckpointStore) -> None:
    """Twenty appends to one run at the same time are all written, once, in order."""
    events = [started(), *(entered(number) for number in range(2, 22))]
    await begin(store)
    await asyncio.gather(*(store.append("run", 1, [event]) for event in events[1:]))

    await expect_events(store, "run", events, "the history")


@rule(EVENTS)
async def many_runs_at_once(store: CheckpointStore) -> None:
    """Sixteen runs that are written at the same time do not mix."""

    async def one(run_id: str, events: Sequence[Event]) -> None:
        await begin(store, run_id)
        for event in events[1:]:
            await store.append(run_id, 1, [event])
            await asyncio.sleep(0)

    histories = {
        run_id: [started(run_id), *(entered(number, run_id) for number in range(2, 14))]
        for run_id in (f"run-{number}" for number in range(16))
    }
    await asyncio.gather(*(one(run_id, events) for run_id, events in histories.items()))

    for run_id, events in histories.items():
        await expect_events(store, run_id, events, f"the history of {run_id!r}")


@rule(EVENTS)
async def create_twice(store: CheckpointStore) -> None:
    """A run that exists is not begun again, and stays as it is."""
    await begin(store)
    again = RunStarted(sequence=1, run_id="run", state="AGAIN")
    create = store.create(NewRun("run", "another", BEN.id, NOW + 1), [again])
    await refused(RunExistsError, create, "the second create")

    await expect_events(store, "run", [started()], "the history")
    found = await store.summary("run")
    expect(("flow", ANN.id, 1), (found.workflow, found.owner, found.epoch), "the summary")


@rule(EVENTS)
async def create_race(store: CheckpointStore) -> None:
    """Of several who begin the same run at once exactly one succeeds, and it is theirs."""
    futures = [
        store.create(
            NewRun("run", "flow", f"owner-{n}", NOW),
            [started(), entered(2, state=f"MINE-{n}")],
        )
        for n in range(10)
    ]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    winners = [n for n, answer in enumerate(answers) if answer is None]
    losers = [answer for answer in answers if isinstance(answer, RunExistsError)]

    expect((1, 9), (len(winners), len(losers)), "how many succeeded and how many were refused")
    found = await store.summary("run")
    expect((f"owner-{winners[0]}", f"MINE-{winners[0]}"), (found.owner, found.state), "whose it is")
    expect(2, len(await store.load("run")), "events")


@rule(EVENTS)
async def cancelled_waiter(store: CheckpointStore) -> None:
    """Who is cancelled while awaiting an append learns of it afterwards; the event is written."""
    order: list[str] = []

    async def work() -> None:
        future = store.append("run", 1, [entered(2)])
        try:
            await future
            await asyncio.Event().wait()  # where it is told, if the append was done at once
        except asyncio.CancelledError:
            order.append("done" if future.done() and not future.cancelled() else "not done")
            raise

    await begin(store)
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await refused(asyncio.CancelledError, task, "the cancelled task")

    expect(["done"], order, "the append, when the cancellation arrived, was")
    await expect_events(store, "run", [started(), entered(2)], "the history")


@rule(EVENTS)
async def no_cancelling(store: CheckpointStore) -> None:
    """What `create` and `append` return cannot be cancelled."""
    create = store.create(NewRun("run", "flow", ANN.id, NOW), [started()])
    expect(False, create.cancel(), "cancel() of what create returned")
    await create
    append = store.append("run", 1, [entered(2)])
    expect(False, append.cancel(), "cancel() of what append returned")
    await append

    await expect_events(store, "run", [started(), entered(2)], "the history")


@rule(EVENTS)
async def several_loops(store: CheckpointStore) -> None:
    """One store serves several event loops, in threads of their own."""

    async def work(run_id: str) -> None:
        await begin(store, run_id)
        for number in range(2, 12):
            await store.append(run_id, 1, [entered(number, run_id)])

    def elsewhere(run_id: str) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(work(run_id))

    await asyncio.gather(
        *(asyncio.to_thread(elsewhere, f"there-{n}") for n in range(3)), work("run")
    )
    for run_id in ("run", "there-0", "there-1", "there-2"):
        expect(list(range(1, 12)), [e.sequence for e in await store.load(run_id)], run_id)


def _text(letter: str, size: int, end: str = "") -> msgspec.Raw:
    """A JSON string of *size* bytes, quotes included."""
    return msgspec.Raw(f'"{letter * (size - 2 - len(end))}{end}"'.encode())
