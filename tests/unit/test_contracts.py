"""The contract test of checkpoint stores: what keeps the contract passes, what breaks it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, get_args

import msgspec
import pytest

from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CheckpointStore, Claim, Due, Message, NewRun, RunQuery, Status
from cano.errors import RunLostError, RunNotFoundError
from cano.events import KEPT, Event, StateEntered
from cano.testing import run
from cano.testing._contract_kit import samples
from cano.testing.contracts import _RULES, BrokenContractError, check_checkpoint_store


def broken_by(make: Callable[[], Any], **more: Any) -> tuple[str, ...]:
    """The names of the rules that a store breaks."""
    try:
        run(check_checkpoint_store(make, **more))
    except BrokenContractError as error:
        return error.rules
    return ()


class Overwrites(MemoryCheckpoints):
    """Takes an event whose number is taken, in its place."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        run = self._runs.get(run_id)
        if run and run.epoch == epoch and events and events[0].sequence <= len(run.events):
            del run.events[events[0].sequence - 1 :]
        return super().append(run_id, epoch, events, status)


class NeverFences(MemoryCheckpoints):
    """Does not look at the epoch."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        run = self._runs.get(run_id)
        return super().append(run_id, run.epoch if run else 0, events, status)


class ReleasesForOthers(MemoryCheckpoints):
    """Lets a run go whoever asks."""

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        await super().release(run_id, self._runs[run_id].epoch, status, wake, seen)


class WakesTheDead(MemoryCheckpoints):
    """Lets a run go that has ended."""

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        await super().release(run_id, epoch, status, wake, seen)
        self._runs[run_id].status = status


class OneByOne(MemoryCheckpoints):
    """Writes several events one after the other, so that some may be written and some not."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        for event in events[:-1]:
            super().append(run_id, epoch, [event])
        return super().append(run_id, epoch, events[-1:], status)


class TakesPlaceLate(MemoryCheckpoints):
    """Writes when it is awaited, not when it is called."""

    def append(  # type: ignore[override]
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> Any:
        class Later:
            def __await__(me) -> Any:  # noqa: N805
                return super(TakesPlaceLate, self).append(run_id, epoch, events, status).__await__()

            def cancel(me) -> bool:  # noqa: N805
                return False

        return Later()


class Cancellable(MemoryCheckpoints):
    """Returns a task, which is cancelled with whoever awaits it, before anything is written."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        async def write() -> None:
            await asyncio.sleep(0.001 * events[0].sequence)
            await super(Cancellable, self).append(run_id, epoch, events, status)

        return asyncio.ensure_future(write())


class CreatesTwice(MemoryCheckpoints):
    """Begins a run that exists anew."""

    def create(self, run: NewRun, events: Sequence[Event], /) -> asyncio.Future[None]:
        self._runs.pop(run.run_id, None)
        return super().create(run, events)


class KeepsObjects(MemoryCheckpoints):
    """Gives back the very objects it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, int], Event] = {}

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        self.objects.update({(run_id, event.sequence): event for event in events})
        return super().append(run_id, epoch, events, status)

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        loaded = await super().load(run_id, after, limit)
        return [self.objects.get((run_id, event.sequence), event) for event in loaded]


class Truncates(MemoryCheckpoints):
    """Keeps the first million bytes of a patch."""

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        return [
            msgspec.structs.replace(event, patch={})
            if isinstance(event, StateEntered) and len(msgspec.json.encode(event)) > 1_000_000
            else event
            for event in await super().load(run_id, after, limit)
        ]


class EmptyIsAbsent(MemoryCheckpoints):
    """Does not tell an empty patch from none."""

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        return [
            msgspec.structs.replace(event, patch=event.patch or None)
            if isinstance(event, StateEntered)
            else event
            for event in await super().load(run_id, after, limit)
        ]


class Backwards(MemoryCheckpoints):
    """Loads the newest event first."""

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        return (await super().load(run_id, after, limit))[::-1]


class ClaimsOwned(MemoryCheckpoints):
    """Hands out runs that somebody owns."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        return await super().claim(run_id, owner, inf)


class ClaimsOwn(MemoryCheckpoints):
    """Lets an owner claim its own run again."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        run = self._runs.get(run_id)
        return await super().claim(run_id, owner, inf if run and run.owner == owner else now)


class KeepsEpoch(MemoryCheckpoints):
    """Claims without raising the epoch."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        claim = await super().claim(run_id, owner, now)
        self._runs[run_id].epoch = claim.epoch - 1
        return Claim(claim.epoch - 1, claim.sequence)


class ClaimsSilently(MemoryCheckpoints):
    """Claims without an event."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        claim = await super().claim(run_id, owner, now)
        self._runs[run_id].events.pop()
        return Claim(claim.epoch, claim.sequence - 1)


class ClaimsByTwo(MemoryCheckpoints):
    """Looks whether a run is free, and takes it a moment later."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        run = self._runs.get(run_id)
        free = run is None or run.status.over or not run.owner or self._lease(run.owner) <= now
        await asyncio.sleep(0)
        return await super().claim(run_id, owner, inf if free else now)


class NeverCounts(MemoryCheckpoints):
    """Forgets crashes."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        claim = await super().claim(run_id, owner, now)
        self._runs[run_id].crashes = 0
        return claim


class NeverForgets(MemoryCheckpoints):
    """Counts crashes for ever."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        before = self._runs[run_id].crashes if run_id in self._runs else 0
        future = super().append(run_id, epoch, events, status)
        if run_id in self._runs:
            self._runs[run_id].crashes = before
        return future


class CountsReleases(MemoryCheckpoints):
    """Counts every claim as a crash."""

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        if (run := self._runs.get(run_id)) and not run.owner and not run.status.over:
            run.owner = "somebody"
        return await super().claim(run_id, owner, now)


class ReopensAnything(MemoryCheckpoints):
    """Reopens runs that finished."""

    async def reopen(self, run_id: str, owner: str, now: float, /) -> Claim:
        if (run := self._runs.get(run_id)) and run.status.over:
            run.status = Status.FAILED
        return await super().reopen(run_id, owner, now)


class HoldsTheEnded(MemoryCheckpoints):
    """Does not let go of a run that ends."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        owner = self._runs[run_id].owner if run_id in self._runs else ""
        future = super().append(run_id, epoch, events, status)
        if run_id in self._runs:
            self._runs[run_id].owner = owner
        return future


class RenewsAlways(MemoryCheckpoints):
    """Says of every lease that it was held."""

    async def renew(self, owner: Any, now: float, until: float, /) -> bool:
        await super().renew(owner, now, until)
        return True


class SleepsThrough(MemoryCheckpoints):
    """Does not look into the inbox when a run is let go."""

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        await super().release(run_id, epoch, status, wake, 1_000_000)


class WakesNobody(MemoryCheckpoints):
    """Leaves messages without waking anybody."""

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        wake = self._runs[run_id].wake if run_id in self._runs else 0.0
        try:
            return await super().send(run_id, name, value, now, key)
        finally:
            if run_id in self._runs:
                self._runs[run_id].wake = wake


class IgnoresKeys(MemoryCheckpoints):
    """Takes every message for a new one."""

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        number = await super().send(run_id, name, value, now)
        self._runs[run_id].inbox[-1] = Message(number, name, value, now, key)
        return number


class EmptyKeyIsKey(MemoryCheckpoints):
    """Takes messages without a key for the same one."""

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        return await super().send(run_id, name, value, now, key or "none")


class NumbersForAll(MemoryCheckpoints):
    """Looks for the next number of a message, and takes it a moment later."""

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        number = len(self._runs[run_id].inbox) + 1 if run_id in self._runs else 0
        await asyncio.sleep(0)
        await super().send(run_id, name, value, now, key)
        return number


class Deaf(MemoryCheckpoints):
    """Tells nobody anything."""

    def _tell(self, run_id: str) -> None:
        pass


class NeverStopsTelling(MemoryCheckpoints):
    """Goes on telling whoever stopped listening."""

    def listen(self, tell: Callable[[str], None], /) -> Callable[[], None]:
        super().listen(tell)
        return lambda: None


class DueAtRandom(MemoryCheckpoints):
    """Gives what is due in the order of its ids."""

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        due = await super().due(workflow, now, 1_000, crashes)
        return Due(tuple(sorted(due.runs))[:limit], due.next)


class DueStuck(MemoryCheckpoints):
    """Gives runs that crash again and again."""

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        return await super().due(workflow, now, limit, 1_000)


class ForgetsDoubts(MemoryCheckpoints):
    """Never gives runs that are in doubt."""

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        due = await super().due(workflow, now, limit, crashes)
        runs = [id_ for id_ in due.runs if self._runs[id_].status is not Status.IN_DOUBT]
        return Due(tuple(runs), due.next)


class NeverAgain(MemoryCheckpoints):
    """Does not say when to ask again."""

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        return Due((await super().due(workflow, now, limit, crashes)).runs)


class OldestFirst(MemoryCheckpoints):
    """Lists runs the wrong way round."""

    async def runs(self, query: RunQuery, /) -> Sequence[Any]:
        return (await super().runs(query))[::-1]


class PagesByAge(MemoryCheckpoints):
    """Goes on after a run with those that are younger by the clock alone."""

    async def runs(self, query: RunQuery, /) -> Sequence[Any]:
        last = self._runs.get(query.after or "")
        rest = await super().runs(msgspec.structs.replace(query, after=None, limit=1_000))
        rest = [run for run in rest if last is None or run.created < last.new.time]
        return rest[: query.limit]


class PagesByCount(MemoryCheckpoints):
    """Remembers how far somebody read as a number of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, int] = {}

    async def runs(self, query: RunQuery, /) -> Sequence[Any]:
        start = self.places.get(query.after or "", 0)
        page = msgspec.structs.replace(query, after=None, limit=start + query.limit)
        found = (await super().runs(page))[start:]
        self.places.update({run.run_id: start + n for n, run in enumerate(found, 1)})
        return found


class TagsByPart(MemoryCheckpoints):
    """Finds a tag in the middle of another."""

    async def runs(self, query: RunQuery, /) -> Sequence[Any]:
        everything = await super().runs(msgspec.structs.replace(query, tag=None))
        return [run for run in everything if (query.tag or "") in ",".join(run.tags)]


class DeletesOpen(MemoryCheckpoints):
    """Deletes runs that are open."""

    async def delete(self, run_ids: Sequence[str], /) -> int:
        return sum(self._runs.pop(run_id, None) is not None for run_id in run_ids)


class KeepsTooFew(MemoryCheckpoints):
    """Counts one run too many among those to go."""

    async def ended(
        self, workflow: str | None, before: float, keep: int, limit: int, /
    ) -> list[str]:
        return await super().ended(workflow, before, max(keep - 1, 0), limit)


class SharesLargeValues(MemoryCheckpoints):
    """Keeps large values once, and deletes them with the first run that had them."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    async def delete(self, run_ids: Sequence[str], /) -> int:
        self.lost |= self._runs.keys() if await super().delete(run_ids) else set()
        return 1

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        loaded = await super().load(run_id, after, limit)
        return loaded[:1] if run_id in self.lost else loaded


class ForgetsStatus(MemoryCheckpoints):
    """Notes a status only where it is an end."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        kept = status if status is None or status.over else None
        return super().append(run_id, epoch, events, kept)


class DatesByStart(MemoryCheckpoints):
    """Dates the end of a run by its first event of the last append."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        future = super().append(run_id, epoch, events, status)
        if (run := self._runs.get(run_id)) and run.ended is not None and events:
            run.ended = events[0].time
        return future


class Mumbles(MemoryCheckpoints):
    """Raises the wrong error for a run that is not there."""

    def _find(self, run_id: str) -> Any:
        try:
            return super()._find(run_id)
        except RunNotFoundError as error:
            raise RunLostError(str(error)) from None


class ForgetsOnClose(MemoryCheckpoints):
    """Loses everything when it is closed."""

    async def close(self) -> None:
        self.__init__()  # type: ignore[misc]


class FindsFault(MemoryCheckpoints):
    """Complains of a healthy store."""

    async def check(self) -> Sequence[str]:
        return ["something is wrong"]


class Hangs(MemoryCheckpoints):
    """Never answers for descriptions."""

    async def definition(self, fingerprint: str, /) -> bytes | None:
        await asyncio.Event().wait()
        return None


class TiedToOneLoop(MemoryCheckpoints):
    """Works only on the loop it was used on first."""

    def append(
        self, run_id: str, epoch: int, events: Sequence[Event], status: Status | None = None, /
    ) -> asyncio.Future[None]:
        self.loop = getattr(self, "loop", asyncio.get_running_loop())
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        return super().append(run_id, epoch, events, status)


BUGS: list[tuple[type[MemoryCheckpoints], str]] = [
    (Overwrites, "taken_number"),
    (NeverFences, "old_epoch"),
    (NeverFences, "fencing"),
    (ReleasesForOthers, "fencing"),
    (WakesTheDead, "letting_go_of_what_ended"),
    (OneByOne, "all_or_none"),
    (TakesPlaceLate, "order_of_calls"),
    (Cancellable, "cancelled_waiter"),
    (Cancellable, "no_cancelling"),
    (CreatesTwice, "create_twice"),
    (CreatesTwice, "create_race"),
    (KeepsObjects, "nothing_shared"),
    (Truncates, "large_values"),
    (EmptyIsAbsent, "absent_and_empty"),
    (Backwards, "load_a_part"),
    (ClaimsOwned, "claim_an_owned_run"),
    (ClaimsOwn, "claim_an_owned_run"),
    (KeepsEpoch, "claim_a_free_run"),
    (KeepsEpoch, "fencing"),
    (ClaimsSilently, "claim_a_free_run"),
    (ClaimsByTwo, "claim_race"),
    (NeverCounts, "counting_crashes"),
    (NeverForgets, "forgetting_crashes"),
    (CountsReleases, "letting_go_is_no_crash"),
    (ReopensAnything, "reopening"),
    (HoldsTheEnded, "the_end"),
    (RenewsAlways, "renewing"),
    (SleepsThrough, "seen_and_unseen"),
    (SleepsThrough, "no_lost_wake_up"),
    (WakesNobody, "waking"),
    (IgnoresKeys, "sending_twice"),
    (EmptyKeyIsKey, "sending"),
    (NumbersForAll, "sending_at_once"),
    (Deaf, "listening"),
    (NeverStopsTelling, "listening"),
    (DueAtRandom, "longest_overdue_first"),
    (DueStuck, "what_is_due"),
    (ForgetsDoubts, "what_is_due"),
    (ForgetsDoubts, "waking"),
    (NeverAgain, "when_to_ask_again"),
    (OldestFirst, "newest_first"),
    (PagesByAge, "paging"),
    (PagesByCount, "paging_while_runs_begin"),
    (TagsByPart, "filters"),
    (DeletesOpen, "deleting"),
    (SharesLargeValues, "deleting_what_is_shared"),
    (KeepsTooFew, "retention"),
    (ForgetsStatus, "status_with_events"),
    (DatesByStart, "the_end"),
    (Mumbles, "unknown_run"),
    (ForgetsOnClose, "everything_persists"),
    (FindsFault, "nothing_wrong"),
    (Hangs, "definitions"),
    (TiedToOneLoop, "several_loops"),
]


def test_memory_keeps_the_contract() -> None:
    """The store in memory breaks no rule, and keeps what it has when it is closed."""
    assert () == broken_by(MemoryCheckpoints, persistent=True)


@pytest.mark.parametrize(("bug", "rule"), BUGS, ids=lambda part: getattr(part, "__name__", part))
def test_a_bug_is_found(bug: type[MemoryCheckpoints], rule: str) -> None:
    """A store with one bug is told which rule it breaks."""
    assert (rule,) == broken_by(bug, persistent=True, only=[rule])


def test_every_rule_is_a_sentence() -> None:
    """Each rule has a name of its own and says in a sentence what it demands."""
    names = [rule.name for rule in _RULES]

    assert sorted(set(names)) == sorted(names)
    assert [] == [rule.name for rule in _RULES if not rule.sentence.endswith(".")]


def test_a_failure_says_the_rule() -> None:
    """The error names the rule, says it in words, and shows what was expected and what came."""
    with pytest.raises(BrokenContractError) as caught:
        run(check_checkpoint_store(OldestFirst, only=["newest_first"]))

    (error,) = caught.value.exceptions
    assert str(error).startswith(
        "newest_first: Runs are listed newest first; of the same age by their ids, the last first. "
        "But the list: expected ['c', 'b', 'e', 'd', 'a', 'B'], got ['B', 'a', 'd', 'e', 'b', 'c']"
    )
    assert "1 broken rules of CheckpointStore" in str(caught.value)
    assert isinstance(caught.value, AssertionError)


def test_all_broken_rules_are_told() -> None:
    """A store with several bugs is told all of them at once, in a group that can be split."""

    class Worse(OldestFirst, FindsFault, RenewsAlways):
        pass

    with pytest.raises(BrokenContractError) as caught:
        run(check_checkpoint_store(Worse))
    assert {"newest_first", "nothing_wrong", "renewing"} <= set(caught.value.rules)
    part, rest = caught.value.split(lambda error: str(error).startswith("renewing"))
    assert part is not None
    assert rest is not None
    assert ("renewing",) == part.rules
    assert "renewing" not in rest.rules


def test_silence_breaks_a_rule() -> None:
    """A store that does not answer is given up, and the others rules are tried all the same."""
    with pytest.raises(BrokenContractError, match="No answer within 5 seconds") as caught:
        run(check_checkpoint_store(Hangs, patience=5))

    assert ("definitions",) == caught.value.rules


def test_persistence_is_asked_for() -> None:
    """Whether a store outlives its closing is tried only where that is promised."""
    assert () == broken_by(ForgetsOnClose)


def test_every_kind_of_factory() -> None:
    """A store may come from a class, an async function, or an async context manager."""
    closed: list[str] = []

    class Closing(MemoryCheckpoints):
        async def close(self) -> None:
            closed.append("closed")

    async def made() -> CheckpointStore:
        await asyncio.sleep(1)
        return Closing()

    @asynccontextmanager
    async def around() -> AsyncGenerator[CheckpointStore]:
        yield MemoryCheckpoints()
        closed.append("left")

    for make in (Closing, made, around):
        assert () == broken_by(make, only=["summary"])
    assert ["closed", "closed", "left"] == closed


def test_no_store_at_all() -> None:
    """What is no store is told what it lacks."""

    class Half:
        create = append = claim = reopen = release = None

    with pytest.raises(BrokenContractError, match="Half is no CheckpointStore: it has no renew"):
        run(check_checkpoint_store(Half, only=["summary"]))  # type: ignore[arg-type]


def test_samples_are_complete() -> None:
    """Every kind of event that is kept is tried, and every field of it is filled."""
    assert set(get_args(KEPT)) == {type(event) for event in samples()}
    for event in samples():
        for field in msgspec.structs.fields(event):
            where = f"{type(event).__name__}.{field.name}"
            assert getattr(event, field.name) != field.default, where
