"""The rules of the store contract about messages, being told, and the store itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from cano.checkpoints.store import CheckpointStore, Message, RunQuery, Status
from cano.errors import RunEndedError
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
)

MESSAGES: list[Rule] = []
LATER = NOW + 100


@rule(MESSAGES)
async def sending(store: CheckpointStore) -> None:
    """Messages are numbered from 1 in the order they came, and stay in the inbox."""
    await begin(store)
    await begin(store, "other")
    values = [b"1", b'{"by":"\xc3\x9c"}', b"null", b'"' + b"x" * 100_000 + b'"']
    expected = [Message(n, f"m{n}", value, NOW + n) for n, value in enumerate(values, 1)]
    for message in expected:
        number = await store.send("run", message.name, message.value, message.time)
        expect(message.number, number, "the number of a message")

    expect(1, await store.send("other", "m", b"0", NOW), "the first number of another run")
    expect(expected, list(await store.inbox("run")), "the inbox")
    expect(expected[2:], list(await store.inbox("run", 2)), "the inbox after number 2")
    expect([], list(await store.inbox("run", 4)), "the inbox after the last one")
    expect([], list(await store.inbox("nobody")), "the inbox of an unknown run")
    await store.append("run", 1, [entered(2)], Status.FINISHED)
    expect(expected, list(await store.inbox("run")), "the inbox after the end")


@rule(MESSAGES)
async def sending_twice(store: CheckpointStore) -> None:
    """A message with a key that was used is the first one; an empty key is no key."""
    await begin(store)
    await begin(store, "other")
    expect(1, await store.send("run", "go", b"1", NOW, "k"), "the first message")
    expect(2, await store.send("run", "go", b"2", NOW), "one without a key")
    expect(1, await store.send("run", "go", b"3", NOW + 1, "k"), "the first one's key again")
    expect(3, await store.send("run", "go", b"4", NOW), "another without a key")
    expect(4, await store.send("run", "go", b"5", NOW, "K"), "another key")
    expect(1, await store.send("other", "go", b"6", NOW, "k"), "the key in another run")

    found = [(message.value, message.key) for message in await store.inbox("run")]
    expect([(b"1", "k"), (b"2", ""), (b"4", ""), (b"5", "K")], found, "the inbox")


@rule(MESSAGES)
async def sending_at_once(store: CheckpointStore) -> None:
    """Messages sent at the same time have a number each; with the same key they are one."""
    await begin(store)
    plain = [store.send("run", f"m{n}", b"1", NOW) for n in range(20)]
    numbers = await asyncio.gather(*plain)
    expect(list(range(1, 21)), sorted(numbers), "twenty numbers")
    keyed = [store.send("run", "go", b"1", NOW, "k") for _ in range(10)]
    expect([21] * 10, await asyncio.gather(*keyed), "ten times the same")

    inbox = await store.inbox("run")
    expect(list(range(1, 22)), [message.number for message in inbox], "the inbox")
    named = {message.name: message.number for message in inbox}
    expect(list(numbers), [named[f"m{n}"] for n in range(20)], "whose number is whose")


@rule(MESSAGES)
async def sending_to_the_dead(store: CheckpointStore) -> None:
    """A run that has ended takes no more messages."""
    for status in (Status.FINISHED, Status.FAILED, Status.CANCELLED):
        await begin(store, status.name)
        await store.append(status.name, 1, [entered(2, status.name)], status)
        send = store.send(status.name, "go", b"1", NOW)
        await refused(RunEndedError, send, f"a message to a run that is {status}")

        expect([], list(await store.inbox(status.name)), "its inbox")


@rule(MESSAGES)
async def waking(store: CheckpointStore) -> None:
    """A message wakes a run that waits."""
    for run_id, status, wake in [
        ("signal", Status.WAITING, inf),
        ("timer", Status.WAITING, LATER + 100),
        ("doubt", Status.IN_DOUBT, inf),
    ]:
        await begin(store, run_id)
        await store.release(run_id, 1, status, wake)
        expect((), (await store.due("flow", LATER, 10, 5)).runs, "due before the message")
        await store.send(run_id, "go", b"1", LATER)
        expect((run_id,), (await store.due("flow", LATER, 10, 5)).runs, "due after the message")
        expect(2, (await store.claim(run_id, BEN.id, LATER)).epoch, "the claim")
        await store.append(run_id, 2, [entered(3, run_id)], Status.FINISHED)


@rule(MESSAGES)
async def seen_and_unseen(store: CheckpointStore) -> None:
    """Who lets go of a run says which message was seen last; a later one wakes the run at once."""
    await begin(store)
    await store.send("run", "one", b"1", NOW)
    await store.send("run", "two", b"1", NOW)
    await store.release("run", 1, Status.WAITING, inf, 1)
    expect(("run",), (await store.due("flow", NOW, 10, 5)).runs, "due, with message 1 of 2 seen")

    await store.claim("run", ANN.id, NOW)
    await store.release("run", 2, Status.WAITING, inf, 2)
    expect((), (await store.due("flow", LATER, 10, 5)).runs, "due, with both messages seen")
    expect(inf, (await store.summary("run")).wake, "until when it waits")


@rule(MESSAGES)
async def no_lost_wake_up(store: CheckpointStore) -> None:
    """A message that comes while the run is let go of is not slept through."""
    runs = [f"run-{number}" for number in range(30)]
    for number, run_id in enumerate(runs):
        await begin(store, run_id)
        release = store.release(run_id, 1, Status.WAITING, inf)
        send = store.send(run_id, "go", b"1", NOW)
        if number % 2:
            await asyncio.gather(release, send)
        else:
            await asyncio.gather(send, release)

    due = await store.due("flow", NOW, 100, 5)
    expect(set(runs), set(due.runs), "due after a release and a message at the same time")


@rule(MESSAGES)
async def listening(store: CheckpointStore) -> None:
    """Who listens is told within a second of a message, an end, and a run that is let go."""
    told: list[tuple[str, object]] = []

    def tell(run_id: str) -> None:
        told.append((run_id, asyncio.get_running_loop()))

    for run_id in ("sent", "ended", "free"):
        await begin(store, run_id)
    stop = store.listen(tell)
    await store.send("sent", "go", b"1", NOW)
    await store.append("ended", 1, [entered(2, "ended")], Status.FINISHED)
    await store.release("free", 1, Status.WAITING, inf)
    wanted = {"sent", "ended", "free"}
    await _within_a_second(lambda: wanted <= {run_id for run_id, _ in told})

    expect(wanted, {run_id for run_id, _ in told if run_id}, "the runs it was told of")
    here = asyncio.get_running_loop()
    expect(True, all(loop is here for _, loop in told), "told on the loop that listens")
    stop()
    await asyncio.sleep(0.05)
    told.clear()
    await store.send("free", "go", b"1", NOW)
    await asyncio.sleep(0.05)
    expect([], told, "told after it stopped listening")
    stop()


@rule(MESSAGES)
async def definitions(store: CheckpointStore) -> None:
    """The description of a workflow is kept by its fingerprint."""
    expect(None, await store.definition("f1"), "what nobody defined")
    await store.define("f1", b'{"states":["A"]}')
    await store.define("f1", b'{"states":["A"]}')
    await store.define("f2", b"{}")

    expect(b'{"states":["A"]}', await store.definition("f1"), "the first definition")
    expect(b"{}", await store.definition("f2"), "the second definition")


@rule(MESSAGES)
async def notes(store: CheckpointStore) -> None:
    """A note is changed only by who knows what it says: of several at once exactly one is."""
    expect(None, await store.noted("k"), "what nobody noted")
    expect(False, await store.note("k", b"2", b"1"), "changing what is not there")
    expect(True, await store.note("k", b"1", None), "the first note")
    expect(False, await store.note("k", b"2", None), "a first note where there is one")
    tries = [store.note("k", b"%d" % number, b"1") for number in range(10, 18)]
    changed = await asyncio.gather(*tries)

    expect(1, sum(changed), "how many of those who change it at once do")
    expect(b"%d" % (10 + changed.index(True)), await store.noted("k"), "the note")
    expect(None, await store.noted("other"), "another note")


@rule(MESSAGES)
async def nothing_wrong(store: CheckpointStore) -> None:
    """`check` finds nothing wrong with a store that is well."""
    expect([], list(await store.check()), "the problems of an empty store")
    await begin(store)
    await store.append("run", 1, [entered(2), entered(3)], Status.FINISHED)
    await begin(store, "other")
    await store.send("other", "go", b"1", NOW)
    await store.claim("other", BEN.id, LATER)
    await store.define("f1", b"{}")
    await store.delete(["run"])

    expect([], list(await store.check()), "the problems of a store in use")


@rule(MESSAGES)
async def closing(store: CheckpointStore) -> None:
    """A store that was closed can be closed again, and used again."""
    await begin(store)
    await store.close()
    await store.close()
    await begin(store, "another")
    await store.append("another", 1, [entered(2, "another")])

    await expect_events(
        store, "another", [started("another"), entered(2, "another")], "the history"
    )


@rule(MESSAGES)
async def closing_finishes(store: CheckpointStore) -> None:
    """`close` finishes what was begun: an append that was not awaited is done."""
    await begin(store)
    future = store.append("run", 1, [entered(2)])
    await store.close()
    await asyncio.sleep(0)
    expect(True, future.done(), "the append is done when close returns")
    await future


@rule(MESSAGES, persistent=True)
async def everything_persists(store: CheckpointStore) -> None:
    """What was written before `close` is there after it."""
    events = samples()
    await begin(store)
    await store.append("run", 1, events[1:-1])
    last = store.append("run", 1, events[-1:])
    await begin(store, "lost", tags=("eu",))
    await store.claim("lost", "nobody", LATER)
    await store.renew(BEN, NOW, NOW + LEASE)
    await store.release("run", 1, Status.WAITING, inf)
    await store.send("run", "go", b"1", NOW, "k")
    await store.define("f1", b"{}")
    await store.note("k", b"1", None)
    before = list(await store.runs(RunQuery())), await store.due("flow", LATER, 10, 5)
    await store.close()

    await last
    await expect_events(store, "run", [started(), *events[1:]], "the history")
    expect(before[0], list(await store.runs(RunQuery())), "the runs")
    expect(before[1], await store.due("flow", LATER, 10, 5), "what is due")
    expect([Message(1, "go", b"1", NOW, "k")], list(await store.inbox("run")), "the inbox")
    expect(1, await store.send("run", "go", b"1", NOW, "k"), "the same message again")
    expect([ANN, BEN], sorted(await store.owners("here", NOW), key=_id), "the owners")
    expect(b"{}", await store.definition("f1"), "the definition")
    expect(b"1", await store.noted("k"), "the note")


def _id(owner: object) -> str:
    return str(getattr(owner, "id", ""))


async def _within_a_second(happened: Callable[[], bool]) -> None:
    for _ in range(20):
        if happened():
            return
        await asyncio.sleep(0.05)
