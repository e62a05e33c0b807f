"""Everything else that is written: who owns a run, what was sent to it, and when it is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from cano.checkpoints._rows import encode, state_of
from cano.checkpoints._sqlite_appends import Appends, Known
from cano.checkpoints._sqlite_schema import NUMBERS
from cano.checkpoints.store import Claim, Owner, Status
from cano.errors import RunEndedError, RunNotFoundError, RunOwnedError
from cano.events import RunClaimed, RunReopened

_MESSAGE = "INSERT INTO messages (run, number, name, value, time, key) VALUES (?, ?, ?, ?, ?, ?)"


class Changes(Appends):
    """Every change a store makes. Each flushes first, and looks before it writes."""

    # Owners.

    def claim(self, run_id: str, owner: str, now: float) -> Claim:
        """See `CheckpointStore.claim`."""
        self.flush()
        run, status, holder, until = self._held(run_id)
        if status.over:
            raise RunEndedError(f"run {run_id!r} is {status.value}; there is nothing to take over")
        if holder and until > now:
            raise RunOwnedError(
                f"run {run_id!r} is carried out by {holder!r}, whose lease ends at {until:.3f}",
                holder,
                until,
            )
        claimed = RunClaimed(owner=owner, epoch=run.epoch + 1, time=now)
        return self._take(run_id, run, claimed)

    def reopen(self, run_id: str, owner: str, now: float, finished: bool) -> Claim:
        """See `CheckpointStore.reopen`."""
        self.flush()
        run, status, holder, until = self._held(run_id)
        if not status.over:
            text = f"run {run_id!r} has not ended ({status.value}); resume it instead"
            raise RunOwnedError(text, holder, until)
        if (status is Status.FINISHED) is not finished:
            raise RunEndedError(f"run {run_id!r} has {status}; it never moves again")
        seen = self._newest(run)
        reopened = RunReopened(owner=owner, epoch=run.epoch + 1, seen=seen, time=now)
        return self._take(run_id, run, reopened)

    def _take(self, run_id: str, run: Known, event: RunClaimed | RunReopened) -> Claim:
        ask = "SELECT owner, crashes, claimed FROM runs WHERE id = ?"
        holder, crashes, claimed = self._db.execute(ask, (run.id,)).fetchone()
        if run.last > claimed:  # it made progress
            crashes = 0
        if holder is not None:  # and its owner is lost
            crashes += 1
        event = replace(event, sequence=run.last + 1, state=self._state(run))
        taken = replace(run, epoch=event.epoch, owner=self._owner(event.owner))
        rows = self._rows(run_id, taken, [event], [encode(event)])
        self._db.execute(
            "UPDATE runs SET status = 0, ended = NULL, wake = 0, epoch = ?, owner = ?, "
            "crashes = ?, claimed = ? WHERE id = ?",
            (taken.epoch, taken.owner, crashes, event.sequence, run.id),
        )
        self._add(taken, rows)
        self._be(taken, Status.RUNNING)
        self._known[run_id] = taken
        return Claim(taken.epoch, taken.last)

    def release(self, run_id: str, epoch: int, status: Status, wake: float, seen: int) -> None:
        """See `CheckpointStore.release`."""
        self.flush()
        run = self._find(run_id)
        if run is None or run.epoch != epoch or run.status.over:
            return
        if self._newest(run) > seen:
            wake = 0.0
        self._be(run, status)
        self._db.execute(
            "UPDATE runs SET status = ?, owner = NULL, wake = ? WHERE id = ?",
            (NUMBERS[status], wake, run.id),
        )
        self._over.append(run_id)
        self._news.append(run_id)

    def renew(self, owner: Owner, now: float, until: float) -> bool:
        """See `CheckpointStore.renew`."""
        ask = "SELECT until FROM owners WHERE number = ?"
        number = self._owner(owner.id)
        held = self._db.execute(ask, (number,)).fetchone()[0] > now
        self._db.execute(
            "UPDATE owners SET host = ?, pid = ?, started = ?, until = ? WHERE number = ?",
            (owner.host, owner.pid, owner.started, until, number),
        )
        return bool(held)

    def expire(self, owner: str) -> None:
        """See `CheckpointStore.expire`."""
        self._db.execute("UPDATE owners SET until = 0 WHERE id = ?", (owner,))

    # Messages, and the rest.

    def send(self, run_id: str, name: str, value: bytes, now: float, key: str) -> int:
        """See `CheckpointStore.send`."""
        self.flush()
        run = self._find(run_id)
        if run is None:
            raise _unknown(run_id)
        if run.status.over:
            raise RunEndedError(f"run {run_id!r} is {run.status.value}, and takes no more messages")
        ask = "SELECT number FROM messages WHERE run = ? AND key = ? AND key <> ''"
        if (found := self._db.execute(ask, (run.id, key)).fetchone()) is not None:
            return int(found[0])
        number = self._newest(run) + 1
        stored = value if self._codec is None else self._codec.encode(value)
        row = (run.id, number, name, stored, now, key)
        self._db.execute(_MESSAGE, row)
        self._db.execute("UPDATE runs SET wake = 0 WHERE id = ? AND wake <> 0", (run.id,))
        self._news.append(run_id)
        return number

    def heard(self) -> int:
        """How many messages were ever sent to any run."""
        ask = "SELECT coalesce(max(id), 0) FROM messages"
        return int(self._db.execute(ask).fetchone()[0])

    def addressed(self, after: int) -> list[str]:
        """The runs that messages were sent to since `heard` was *after*."""
        ask = "SELECT DISTINCT r.run_id FROM messages m JOIN runs r ON r.id = m.run WHERE m.id > ?"
        return [run_id for (run_id,) in self._db.execute(ask, (after,))]

    def define(self, fingerprint: str, shape: bytes) -> None:
        """See `CheckpointStore.define`."""
        self._db.execute("INSERT OR IGNORE INTO shapes VALUES (?, ?)", (fingerprint, shape))

    def note(self, key: str, value: bytes, was: bytes | None) -> bool:
        """See `CheckpointStore.note`."""
        if was is None:
            change = self._db.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (key, value))
        else:
            ask = "UPDATE notes SET value = ? WHERE key = ? AND value = ?"
            change = self._db.execute(ask, (value, key, was))
        return change.rowcount == 1

    def delete(self, run_ids: Sequence[str]) -> int:
        """See `CheckpointStore.delete`."""
        self.flush()
        count = 0
        for run_id in dict.fromkeys(run_ids):
            run = self._find(run_id)
            if run is None or not run.status.over:
                continue
            del self._known[run_id]
            ask = "SELECT blob FROM uses WHERE run = ?"
            used = self._db.execute(ask, (run.id,)).fetchall()
            for table in ("events", "messages", "tags", "uses"):
                self._db.execute(f"DELETE FROM {table} WHERE run = ?", (run.id,))  # noqa: S608
            self._db.execute("DELETE FROM runs WHERE id = ?", (run.id,))
            self._db.executemany(
                "DELETE FROM blobs WHERE number = ? "
                "AND NOT EXISTS (SELECT 1 FROM uses WHERE blob = number)",
                used,
            )
            self.weight += 4 + run.last
            count += 1
        return count

    # Looking.

    def _held(self, run_id: str) -> tuple[Known, Status, str, float]:
        """The run, how it is, who holds it and until when."""
        run = self._find(run_id)
        if run is None:
            raise _unknown(run_id)
        ask = "SELECT o.id, o.until FROM runs r JOIN owners o ON o.number = r.owner WHERE r.id = ?"
        holder, until = self._db.execute(ask, (run.id,)).fetchone() or ("", 0.0)
        return run, run.status, holder, until

    def _newest(self, run: Known) -> int:
        """The number of its last message."""
        ask = "SELECT coalesce(max(number), 0) FROM messages WHERE run = ?"
        return int(self._db.execute(ask, (run.id,)).fetchone()[0])

    def _state(self, run: Known) -> str:
        ask = "SELECT body FROM events WHERE run = ? AND sequence = ?"
        row = self._db.execute(ask, (run.id, run.last)).fetchone()
        return state_of(row[0], self._codec) if row else ""


Change = Callable[[Changes], Any]


def _unknown(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id!r} in the store; see `cano runs`")
