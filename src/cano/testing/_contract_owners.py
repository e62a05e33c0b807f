"""The rules of the store contract about owners: who may write, and who may take over."""

from __future__ import annotations

import asyncio
from math import inf

from cano.checkpoints.store import CheckpointStore, Claim, NewRun, Owner, Status
from cano.errors import RunEndedError, RunLostError, RunOwnedError
from cano.events import RunClaimed, RunFailed, RunReopened
from cano.testing._contract_kit import (
    ANN,
    BEN,
    EVE,
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
    written,
)

OWNERS: list[Rule] = []
LATER = NOW + 100
ENDS = (Status.FINISHED, Status.FAILED, Status.CANCELLED)


@rule(OWNERS)
async def claim_a_free_run(store: CheckpointStore) -> None:
    """Claiming a run raises its epoch, appends RunClaimed, and makes its status RUNNING."""
    for status in (Status.RUNNING, Status.WAITING, Status.IN_DOUBT):
        run_id = status.name
        await begin(store, run_id)
        await store.release(run_id, 1, status, inf)
        await store.renew(BEN, LATER, LATER + LEASE)
        claim = await store.claim(run_id, BEN.id, LATER)

        expect(Claim(2, 2), claim, f"the claim of a run that was {status}")
        first, last = await store.load(run_id)
        expect(written([started(run_id)]), written([first]), "the first event")
        expect(True, isinstance(last, RunClaimed), f"{type(last).__name__} is RunClaimed")
        if isinstance(last, RunClaimed):
            said = (last.sequence, last.time, last.owner, last.epoch)
            expect((2, LATER, BEN.id, 2), said, "what RunClaimed says")
        found = await store.summary(run_id)
        expect(
            (Status.RUNNING, BEN.id, 2, LATER + LEASE, 0.0, "START", 2),
            (found.status, found.owner, found.epoch, found.lease, found.wake, found.state,
             found.sequence),
            "status, owner, epoch, lease, wake, state and sequence",
        )  # fmt: skip
        await store.append(run_id, 2, [entered(3, run_id)])


@rule(OWNERS)
async def claim_an_owned_run(store: CheckpointStore) -> None:
    """A run whose owner's lease is not over is refused to everyone, its owner included."""
    await begin(store)
    for owner in (BEN, ANN):
        error = await refused(
            RunOwnedError, store.claim("run", owner.id, NOW + LEASE - 1), f"a claim by {owner.id}"
        )
        expect((ANN.id, NOW + LEASE), (error.owner, error.until), "owner and until of the error")

    await expect_events(store, "run", [started()], "the history")
    expect(1, (await store.summary("run")).epoch, "the epoch")


@rule(OWNERS)
async def claim_a_lost_run(store: CheckpointStore) -> None:
    """A run whose owner's lease is over, or was ended, or never was, may be claimed."""
    await begin(store)
    expect(Claim(2, 2), await store.claim("run", BEN.id, NOW + LEASE + 1), "when the lease is over")

    await begin(store, "expired")
    await store.expire(ANN.id)
    expect(Claim(2, 2), await store.claim("expired", BEN.id, NOW + 1), "after expire")

    await store.create(NewRun("never", "flow", "nobody", NOW), [started("never")])
    expect(Claim(2, 2), await store.claim("never", BEN.id, NOW + 1), "of an owner without a lease")


@rule(OWNERS)
async def claim_an_ended_run(store: CheckpointStore) -> None:
    """A run that has ended cannot be claimed."""
    for status in ENDS:
        await begin(store, status.name)
        await store.append(status.name, 1, [entered(2, status.name)], status)
        claim = store.claim(status.name, BEN.id, LATER)
        await refused(RunEndedError, claim, f"the claim of a run that is {status}")
        expect(status, (await store.summary(status.name)).status, "its status afterwards")


@rule(OWNERS)
async def claim_race(store: CheckpointStore) -> None:
    """Of those who claim a run at the same moment exactly one gets it."""
    owners = [Owner(f"owner-{number}", "here", number) for number in range(12)]
    for owner in owners:
        await store.renew(owner, LATER, LATER + LEASE)
    for run_id in ("lost", "free"):
        await begin(store, run_id)
        if run_id == "free":
            await store.release(run_id, 1, Status.RUNNING)
        claims = [store.claim(run_id, owner.id, LATER) for owner in owners]
        answers = await asyncio.gather(*claims, return_exceptions=True)
        winners = [n for n, answer in enumerate(answers) if isinstance(answer, Claim)]
        losers = [answer for answer in answers if isinstance(answer, RunOwnedError)]

        expect((1, 11), (len(winners), len(losers)), "how many got it and how many were refused")
        found = await store.summary(run_id)
        expect((owners[winners[0]].id, 2, 2), (found.owner, found.epoch, found.sequence), "the run")


@rule(OWNERS)
async def fencing(store: CheckpointStore) -> None:
    """An owner who lost a run can neither append to it, nor end it, nor let go of it."""
    await begin(store)
    await store.renew(BEN, LATER, LATER + LEASE)
    claim = await store.claim("run", BEN.id, LATER)
    before = await store.load("run"), await store.summary("run")

    end = RunFailed(run_id="run", sequence=claim.sequence + 1, time=LATER)
    await refused(RunLostError, store.append("run", 1, [end], Status.FAILED), "its end")
    await refused(RunLostError, store.append("run", 1, [entered(2)]), "an event it had begun")
    await store.release("run", 1, Status.WAITING, inf)
    await store.renew(ANN, LATER, LATER + LEASE)

    await expect_events(store, "run", before[0], "the history")
    expect(before[1], await store.summary("run"), "the summary")
    await store.append("run", claim.epoch, [entered(claim.sequence + 1)])


@rule(OWNERS)
async def renewing(store: CheckpointStore) -> None:
    """One `renew` holds all runs of an owner, and says whether it had held them until then."""
    expect(False, await store.renew(ANN, NOW, NOW + LEASE), "the first renew")
    await begin(store, "one")
    await begin(store, "two")
    await begin(store, "other", owner=BEN)
    renewed = await store.renew(ANN, NOW + LEASE - 1, NOW + 2 * LEASE)
    expect(True, renewed, "a renew in time")
    for run_id in ("one", "two"):
        expect(NOW + 2 * LEASE, (await store.summary(run_id)).lease, f"the lease of {run_id!r}")
        claim = store.claim(run_id, BEN.id, NOW + LEASE + 1)
        await refused(RunOwnedError, claim, "a claim after a renew")
    expect(NOW + LEASE, (await store.summary("other")).lease, "the lease of another owner's run")

    renewed = await store.renew(ANN, NOW + 2 * LEASE + 1, LATER)
    expect(False, renewed, "a renew that comes too late")
    expect(True, await store.renew(ANN, LATER - 1, LATER + LEASE), "the renew after that")
    await store.expire(ANN.id)
    expect(False, await store.renew(ANN, LATER, LATER + LEASE), "a renew after expire")


@rule(OWNERS)
async def owners_of_a_host(store: CheckpointStore) -> None:
    """`owners` gives those on a host whose lease is not over, as they were renewed."""
    expect([], list(await store.owners("here", NOW)), "at first")
    await store.renew(ANN, NOW, NOW + LEASE)
    await store.renew(BEN, NOW, NOW + 2 * LEASE)
    await store.renew(EVE, NOW, NOW + LEASE)

    for host, now, expected in [
        ("here", NOW + 1, [ANN, BEN]),
        ("there", NOW + 1, [EVE]),
        ("here", NOW + LEASE + 1, [BEN]),
        ("nowhere", NOW, []),
    ]:
        found = sorted(await store.owners(host, now), key=lambda owner: owner.id)
        expect(expected, found, f"owners({host!r}) at NOW + {now - NOW:g}")
    await store.expire(BEN.id)
    expect([ANN], list(await store.owners("here", NOW + 1)), "after expire")


@rule(OWNERS)
async def letting_go(store: CheckpointStore) -> None:
    """A run that is let go has no owner and no lease; its status and wake are noted."""
    for status, wake in [(Status.WAITING, inf), (Status.RUNNING, 0.0), (Status.IN_DOUBT, LATER)]:
        await begin(store, status.name)
        await store.release(status.name, 1, status, wake)
        found = await store.summary(status.name)
        expect(
            (status, "", 0.0, wake, None, 1),
            (found.status, found.owner, found.lease, found.wake, found.ended, found.sequence),
            "status, owner, lease, wake, ended and sequence",
        )


@rule(OWNERS)
async def letting_go_of_what_ended(store: CheckpointStore) -> None:
    """Letting go of a run that has ended changes nothing."""
    for status in ENDS:
        await begin(store, status.name)
        await store.append(status.name, 1, [entered(2, status.name)], status)
        before = await store.summary(status.name)
        await store.release(status.name, 1, Status.WAITING, LATER)
        expect(before, await store.summary(status.name), "the summary")


@rule(OWNERS)
async def status_with_events(store: CheckpointStore) -> None:
    """A status is noted with its events; without one the run keeps the status it has."""
    await begin(store)
    await store.append("run", 1, [entered(2)], Status.IN_DOUBT)
    expect(Status.IN_DOUBT, (await store.summary("run")).status, "the status, given with event 2")
    await store.append("run", 1, [entered(3)])
    expect(Status.IN_DOUBT, (await store.summary("run")).status, "the status after event 3")
    expect(ANN.id, (await store.summary("run")).owner, "the owner")
    await store.append("run", 1, [entered(4)], Status.RUNNING)
    expect(Status.RUNNING, (await store.summary("run")).status, "the status, given with event 4")


@rule(OWNERS)
async def the_end(store: CheckpointStore) -> None:
    """An end lets go of the run, and is dated by its last event."""
    for status in ENDS:
        await begin(store, status.name)
        events = [entered(2, status.name), entered(3, status.name, time=NOW + 7.25)]
        await store.append(status.name, 1, events, status)
        found = await store.summary(status.name)
        expect(
            (status, "", 0.0, 0.0, NOW + 7.25, 3, "S3", True),
            (found.status, found.owner, found.lease, found.wake, found.ended, found.sequence,
             found.state, found.over),
            "status, owner, lease, wake, ended, sequence, state and over",
        )  # fmt: skip


@rule(OWNERS)
async def reopening(store: CheckpointStore) -> None:
    """Runs that are over can be reopened, one that finished only where that is asked for."""
    await store.renew(BEN, LATER, LATER + LEASE)
    for status in ENDS:
        await begin(store, status.name)
        await store.send(status.name, "cancel", b"null", NOW)
        await store.append(status.name, 1, [entered(2, status.name)], status)
        finished = status is Status.FINISHED
        wrongly = store.reopen(status.name, BEN.id, LATER, finished=not finished)
        await refused(RunEndedError, wrongly, f"reopening a run that was {status}, as another")
        claim = await store.reopen(status.name, BEN.id, LATER, finished=finished)
        found = await store.summary(status.name)
        events = await store.load(status.name)
        expect(
            (Status.RUNNING, BEN.id, 2, None, 0, "S2"),
            (found.status, found.owner, found.epoch, found.ended, found.crashes, found.state),
            f"status, owner, epoch, ended, crashes and state of a run that was {status}",
        )
        expect(Claim(2, len(events)), claim, "the claim")
        said = [(e.owner, e.epoch, e.seen, e.time) for e in events if isinstance(e, RunReopened)]
        expect([(BEN.id, 2, 1, LATER)], said, "owner, epoch, seen and time of RunReopened")
        await refused(RunLostError, store.append(status.name, 1, [entered(3)]), "the old owner")
        await store.append(status.name, 2, [entered(claim.sequence + 1, status.name)])
        again = store.reopen(status.name, ANN.id, LATER)
        error = await refused(RunOwnedError, again, "reopening a run that is open")
        expect((BEN.id, LATER + LEASE), (error.owner, error.until), "owner and until of the error")


@rule(OWNERS)
async def reopen_race(store: CheckpointStore) -> None:
    """Of those who reopen a run at the same moment exactly one gets it."""
    await begin(store)
    await store.append("run", 1, [entered(2)], Status.FAILED)
    calls = [store.reopen("run", f"owner-{number}", LATER) for number in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)

    won = sum(isinstance(answer, Claim) for answer in answers)
    lost = sum(isinstance(answer, RunOwnedError) for answer in answers)
    expect((1, 7), (won, lost), "how many got it and how many were refused")
    expect(2, (await store.summary("run")).epoch, "the epoch")


@rule(OWNERS)
async def counting_crashes(store: CheckpointStore) -> None:
    """Claims from lost owners are counted, as long as no other event comes between."""
    await begin(store)
    for crashes in (1, 2, 3):
        await store.claim("run", "lost", LATER)
        expect(crashes, (await store.summary("run")).crashes, "crashes without progress")
    await store.append("run", 4, [entered(5)])
    await store.claim("run", "lost", LATER)
    expect(1, (await store.summary("run")).crashes, "crashes, the first after progress")


@rule(OWNERS)
async def forgetting_crashes(store: CheckpointStore) -> None:
    """An event makes earlier crashes forgotten, at once."""
    await begin(store)
    for _ in range(3):
        await store.claim("run", "lost", LATER)
    await store.append("run", 4, [entered(5)])

    expect(0, (await store.summary("run")).crashes, "crashes after progress")
    expect(("run",), (await store.due("flow", LATER, 10, 3)).runs, "due, with fewer than 3 crashes")


@rule(OWNERS)
async def letting_go_is_no_crash(store: CheckpointStore) -> None:
    """Claiming a run that was let go counts no crash; it keeps its count until it gets on."""
    await begin(store)
    await store.claim("run", "lost", LATER)
    await store.claim("run", "lost", LATER)
    await store.release("run", 3, Status.RUNNING)
    await store.claim("run", "lost", LATER)
    expect(2, (await store.summary("run")).crashes, "crashes after letting go")

    await store.append("run", 4, [entered(5)])
    await store.release("run", 4, Status.RUNNING)
    await store.claim("run", "lost", LATER)
    expect(0, (await store.summary("run")).crashes, "crashes after an event and letting go")
