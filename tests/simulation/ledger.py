"""What really happened, as nobody in the simulated world can know it; and the first thing that should not have.

Decides nothing: it writes down what the taps see and asks `checks`. A broken invariant halts the run where it broke.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from app.clock import ms_of
from regions.wire import ids
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.keeping import opening
from regions.wire.snapshot import Turn, bounded, read_tail
from tests.simulation import checks
from tests.simulation.fixtures import CONTENT, FLEET_KEYS
from tests.simulation.loop import SimLoop
from tests.simulation.tables import Row

_opened = opening(lambda: FLEET_KEYS)


@dataclass(frozen=True, slots=True)
class Written:
    """An event as an owner numbered it. `origin_owner`: the process that saw it happen."""

    call: UUID
    epoch: int
    n: int
    uuid: UUID
    type: str
    data: bytes
    origin_owner: str


@dataclass(frozen=True, slots=True)
class Violation:
    check: str
    what: str
    call: str
    at_s: float


class Ledger:
    def __init__(self, loop: SimLoop, *, drift: float) -> None:
        self.loop = loop
        self.drift = drift
        self.violation: Violation | None = None
        self.written: dict[UUID, Written] = {}
        self.by_outbox: dict[tuple[UUID, int, str], list[Written]] = {}
        self.owners: dict[tuple[UUID, int], str] = {}
        self.durable: dict[tuple[UUID, int], Row] = {}
        self.durable_ids: dict[UUID, tuple[UUID, int]] = {}
        self.durable_tools: set[tuple[UUID, str]] = set()
        self.origins: dict[tuple[UUID, int, int], int] = {}
        self.keys: set[tuple[UUID, str]] = set()
        self.newest: dict[UUID, Row] = {}
        self.renewed: dict[tuple[UUID, int], float] = {}
        self.effects: Counter[tuple[UUID, str]] = Counter()
        self.memories: list[tuple[UUID, list[tuple[str, str]]]] = []
        """What each resumed backend was told of its call: the turns' sides and words, or a tool's id, in order; without those
        that were cut short, for two of them may have the same words."""
        self.read_seq: dict[UUID, int] = {}
        self.hooked: Counter[tuple[UUID, int]] = Counter()
        self.calls: dict[UUID, str] = {}
        """Every call that a create was acknowledged for, and a name for people."""
        self.counts: Counter[str] = Counter()
        self.on_moment: Callable[[str], None] = lambda _: None
        self.on_word: Callable[[str], None] = lambda _: None
        """Told of all that is sent to a caller, audio or not."""
        self.living: Callable[[], set[str]] = set
        """The owners whose process has not ended."""
        self._opened: dict[UUID, bytes] = {}
        self._folds: dict[UUID, tuple[list[Turn], int, dict[int, bytes]]] = {}
        self._tails: set[tuple[bytes, bytes]] = set()
        self.trace: list[str] | None = None
        self.closed = False

    # ------------------------------------------------------------------------------------------------- what broke

    def check(self, check: Callable[..., str | None], call: UUID | None, *args: Any) -> None:
        what = check(self, *args)
        if what is not None:
            self.broken(check.__name__, what, call)

    def broken(self, name: str, what: str, call: UUID | None = None) -> None:
        if self.violation is None and not self.closed:
            self.violation = Violation(name, what, self.name_of(call), self.loop.now)
            self.say("BROKEN", f"{name}: {what} ({self.name_of(call)})")
            self.loop.halted = True

    def name_of(self, call: UUID | None) -> str:
        return "" if call is None else self.calls.get(call, str(call)[-6:])

    def say(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.loop.now:8.4f}  {who:14} {what}")

    def moment(self, kind: str) -> None:
        self.on_moment(kind)

    # ------------------------------------------------------------------------------------------------- the edges

    def wrote(self, call: str, epoch: int, owner: str, event: Any) -> None:
        """An owner has numbered an event."""
        call_id, event_id = ids.decode(ids.CALL, call), ids.decode(ids.EVENT, event.id)
        known = self.written.get(event_id)
        origin_owner = known.origin_owner if known is not None else owner
        written = Written(call_id, epoch, event.n, event_id, event.type, bytes(event.data), origin_owner)
        self.written.setdefault(event_id, written)
        self.by_outbox.setdefault((call_id, epoch, owner), []).append(written)
        self.say(owner, f"writes {self.name_of(call_id)} e{epoch} n{event.n} {event.type}")
        if event.type == "tool.called":
            self.moment("tool")
        elif event.type == checks.FINAL:
            self.moment("ended")

    def acknowledged(self, call: str, epoch: int, owner: str, above: int, upto: int) -> None:
        call_id = ids.decode(ids.CALL, call)
        events = self.by_outbox.get((call_id, epoch, owner), [])
        self.check(
            checks.i3_acknowledged_is_durable,
            call_id,
            call_id,
            epoch,
            [e for e in events if above < e.n <= upto],
        )
        self.say(owner, f"hears that {self.name_of(call_id)} e{epoch} is durable to n{upto}")

    def speaks(self, call: UUID, epoch: int, what: str) -> None:
        self.check(checks.i8_speaks_only_under_its_lease, call, call, epoch, self.loop.now, what)

    def renews(self, call: UUID, epoch: int) -> None:
        self.renewed[(call, epoch)] = self.loop.now

    # --------------------------------------------------------------------------------------------------- the log

    def committed(self, commit: Any) -> None:
        """A commit has been acknowledged by a quorum."""
        for table, _, row in commit.writes:
            if table == "events":
                self._stored(row)
            elif table == "calls" and row is not None and row["seq"] == 1:
                self.calls.setdefault(row["id"], f"call {len(self.calls)}")

    def _stored(self, row: Row) -> None:
        call = row["call_id"]
        for check in (
            checks.i2_sequence_is_dense,
            checks.i11_nothing_follows_the_end,
            checks.i1_a_higher_epoch_fences_the_lower,
            checks.i1_one_owner_per_epoch,
            checks.i5_stored_once,
            checks.i5_content_is_what_was_written,
        ):
            self.check(check, call, row)
        self.durable[(call, row["seq"])] = row
        self.durable_ids[row["id"]] = (call, row["seq"])
        self.newest[call] = row
        if row["origin_n"] is not None:
            self.origins[(call, row["origin_epoch"], row["origin_n"])] = row["seq"]
        if row["source_key"] is not None:
            self.keys.add((call, row["source_key"]))
        if row["type"] == "tool.called":
            self.durable_tools.add((call, msgspec.json.decode(self.opened(row))["id"]))
        self.counts["events"] += 1
        self.say("log", f"{self.name_of(call)} seq {row['seq']} {row['type']} (e{row['epoch']}) is durable")

    def promoted(self, member: Any) -> None:
        kept = {(c, seq) for c, numbers in member.tables.of_call.items() for seq in numbers}
        self.check(checks.i3_acknowledged_survives, None, kept, self.durable.keys())
        self.say(member.machine.name, f"is promoted, with {len(member.log)} commits")
        self.moment("promoted")

    def may_be_given_up(self, row: Row) -> str | None:
        """Only what nobody can fill any more: the owner's process has ended, and nothing of the range was acknowledged."""
        call, epoch = row["call_id"], row["origin_epoch"]
        owner = next((o for c, e, o in self.by_outbox if (c, e) == (call, epoch)), None)
        if owner is None or owner in self.living():
            return f"seq {row['seq']} gives up numbers of epoch {epoch}, whose owner {owner} may still deliver them"
        lost = msgspec.json.decode(row["data"])
        stored = [n for n in range(lost["from_n"], lost["to_n"] + 1) if (call, epoch, n) in self.origins]
        return f"seq {row['seq']} gives up n {stored}, which are stored" if stored else None

    def opened(self, row: Row) -> bytes:
        """Once for each event."""
        known = self._opened.get(row["id"])
        if known is None:
            sealed: bytes | None = row["content"]
            data: str | None = row["data"]
            known = (data or "{}").encode() if sealed is None else CONTENT.open(sealed, row["id"])
            self._opened[row["id"]] = known
        return known

    def folded(self, call: UUID, seq: int) -> bytes | None:
        """The turns that the durable log gives up to `seq`, encoded; None where it does not reach so far."""
        turns, at, kept = self._folds.setdefault(call, ([], 0, {0: b"[]"}))
        while at < seq and (row := self.durable.get((call, at + 1))) is not None:
            at += 1
            kept[at] = kept[at - 1]
            if row["type"] in FOLDED_TYPES:
                fold(turns, row["type"], self.opened(row), ms_of(row["at"]), seq=at)
                kept[at] = msgspec.json.encode(bounded(turns))
        self._folds[call] = (turns, at, kept)
        return kept.get(seq)

    def rows_of(self, call: UUID) -> list[Row]:
        rows = []
        while (row := self.durable.get((call, len(rows) + 1))) is not None:
            rows.append(row)
        return rows

    def tail(self, head: bytes, turns: bytes) -> None:
        if (head, turns) in self._tails:
            return
        self._tails.add((head, turns))
        tail = read_tail(head, turns, _opened)
        call = ids.decode(ids.CALL, tail.call)
        self.check(checks.tail_is_the_fold, call, call, tail.seq, tail.turns)

    # ----------------------------------------------------------------------------------------------- the customer

    def has_run(self, call: str, tool: str) -> bool:
        """As the customer's own system knows it."""
        return self.effects[(ids.decode(ids.CALL, call), tool)] > 0

    def tool_ran(self, call: str, tool: str) -> None:
        call_id = ids.decode(ids.CALL, call)
        self.effects[(call_id, tool)] += 1
        self.check(checks.i6_tool_runs_after_its_event, call_id, call_id, tool)
        self.say("backend", f"runs the tool {tool}")

    def told(self, call: str, turns: list[dict[str, Any]]) -> None:
        """A resumed backend has been told the conversation."""
        told = [(t["role"], t.get("id") or t.get("text", "")) for t in turns if not t.get("interrupted")]
        self.memories.append((ids.decode(ids.CALL, call), told))
        self.say("backend", f"is told {[words for _, words in told]}")

    def hooked_event(self, call: str, seq: int, event: str) -> None:
        key = (ids.decode(ids.CALL, call), seq)
        self.hooked[key] += 1
        self.check(
            checks.i6_speaks_of_what_is_durable, key[0], "a webhook", key, ids.decode(ids.EVENT, event)
        )

    def read_event(self, call: str, seq: int, event: str) -> None:
        call_id = ids.decode(ids.CALL, call)
        self.check(checks.i4_reader_gets_the_next, call_id, call_id, seq, ids.decode(ids.EVENT, event))
        self.read_seq[call_id] = seq
