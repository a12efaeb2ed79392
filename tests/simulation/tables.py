"""The rows of the modelled PostgreSQL, and one transaction's view and wishes. No time passes in here, and nothing waits.

Rows are dicts that are never changed in place. A statement reads the visible rows, takes locks and notes its writes; the
cluster decides when the writes become visible, durable, or lost.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

Key = Any
Row = dict[str, Any]
Write = tuple[str, Key, Row | None]
OPEN_DELIVERIES = ("queued", "pending", "parked", "in_flight")


class Blocked(Exception):
    """Another transaction holds the row: the statement is tried again when it lets go."""

    def __init__(self, lock: tuple[str, Key]) -> None:
        super().__init__(str(lock))
        self.lock = lock


@dataclass(slots=True, eq=False)
class Txn:
    """`xid` is drawn when the statement begins. `locks`: rows that nobody else changes before it has ended."""

    xid: int
    now: datetime
    writes: list[Write] = field(default_factory=list)
    locks: list[tuple[str, Key]] = field(default_factory=list)


class Tables:
    """What is visible on one member."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Key, Row]] = {
            name: {}
            for name in (
                "calls", "events", "by_origin", "by_key", "late", "deliveries", "idempotency", "edges", "desired", "horizon",
                "webhooks", "regions", "attempts", "overdue", "denials", "drains", "moves",
            )
        }  # fmt: skip
        self.feed: list[tuple[int, int, int]] = []
        """(feed_xid, call, seq) of every event, in the order of the feed."""
        self.of_call: dict[UUID, list[int]] = {}
        self.due: dict[Key, None] = {}
        """Deliveries that are not done."""
        self.locks: dict[tuple[str, Key], Txn] = {}
        self.running: dict[Txn, None] = {}
        self.next_xid = 1_000

    def begin(self, now: datetime) -> Txn:
        txn = Txn(self.next_xid, now)
        self.next_xid += 1
        self.running[txn] = None
        return txn

    def xmin(self) -> int:
        return min((txn.xid for txn in self.running), default=self.next_xid)

    def lock(self, txn: Txn, table: str, key: Key) -> None:
        """Raises `Blocked`."""
        if not self.try_lock(txn, table, key):
            raise Blocked((table, key))

    def try_lock(self, txn: Txn, table: str, key: Key) -> bool:
        holder = self.locks.get((table, key))
        if holder is txn:
            return True
        if holder is not None:
            return False
        self.locks[(table, key)] = txn
        txn.locks.append((table, key))
        return True

    def end(self, txn: Txn) -> list[tuple[str, Key]]:
        """Lets go; the locks that are free now."""
        self.running.pop(txn, None)
        for lock in txn.locks:
            self.locks.pop(lock, None)
        return txn.locks

    def apply(self, writes: list[Write]) -> None:
        for table, key, row in writes:
            rows = self.rows[table]
            if row is None:
                rows.pop(key, None)
                continue
            if table == "events" and key not in rows:
                insort(self.feed, (row["feed_xid"], row["call_id"].int, row["seq"]))
                insort(self.of_call.setdefault(row["call_id"], []), row["seq"])
            elif table == "deliveries":
                if row["state"] in OPEN_DELIVERIES:
                    self.due[key] = None
                else:
                    self.due.pop(key, None)
            rows[key] = row

    def feed_after(self, position: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        at = bisect_left(self.feed, position)
        found = self.feed[at:]
        return found[1:] if found and found[0] == position else found

    def events_of(self, call: UUID) -> list[Row]:
        events = self.rows["events"]
        return [events[(call, seq)] for seq in self.of_call.get(call, ())]
