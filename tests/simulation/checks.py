"""The invariants of the architecture page, one function each: None where it holds, else a sentence that says what is broken.

Pure. They look at the `Ledger`, which has seen what happened from above; none of them asks production code whether it did well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from regions.wire.events import LOST_TYPE
from regions.wire.media import LEASE_MS
from regions.wire.snapshot import Turn
from tests.simulation.fixtures import HOOK_TYPES

if TYPE_CHECKING:
    from tests.simulation.ledger import Ledger
    from tests.simulation.tables import Row

Broken = str | None
FINAL = "call.ended"
LEASE_SLACK_S = 0.03
SETTLED_WITHIN_S = 12.0


def i1_a_higher_epoch_fences_the_lower(ledger: Ledger, row: Row) -> Broken:
    """After an event at epoch e' is durable, none with a sequence number follows it at a lower epoch."""
    before = ledger.newest.get(row["call_id"])
    if before is not None and row["epoch"] < before["epoch"]:
        return f"seq {row['seq']} of epoch {row['epoch']} follows one of epoch {before['epoch']}"
    return None


def i1_one_owner_per_epoch(ledger: Ledger, row: Row) -> Broken:
    """What an edge wrote was written by the one process that owned the call at the event's epoch, and as it was written."""
    if row["source"] != "edge":
        return None
    written = ledger.written.get(row["id"])
    if written is None and row["type"] == LOST_TYPE:
        return ledger.may_be_given_up(row)
    if written is None:
        return f"seq {row['seq']} ({row['type']}) was written by no owner of the call"
    if (written.type, written.call) != (row["type"], row["call_id"]):
        return f"seq {row['seq']} is {row['type']}, and its owner wrote {written.type}"
    owners = ledger.owners.setdefault((row["call_id"], row["origin_epoch"]), written.origin_owner)
    if owners != written.origin_owner:
        return f"epoch {row['origin_epoch']} has two owners, {owners} and {written.origin_owner}"
    return None


def i2_sequence_is_dense(ledger: Ledger, row: Row) -> Broken:
    """A call's durable events are numbered 1..k, and a number never has two contents."""
    before = ledger.newest.get(row["call_id"])
    expected = before["seq"] + 1 if before is not None else 1
    if row["seq"] != expected:
        return f"seq {row['seq']} became durable where {expected} was due"
    return None


def i3_acknowledged_survives(
    ledger: Ledger, kept: set[tuple[UUID, int]], known: set[tuple[UUID, int]]
) -> Broken:
    """A member that takes over has everything that was ever acknowledged."""
    lost = known - kept
    return f"{len(lost)} acknowledged events are gone" if lost else None


def i3_acknowledged_is_durable(ledger: Ledger, call: UUID, epoch: int, events: list[Any]) -> Broken:
    """What an edge is told is durable is on two copies by then, under its own or its origin's number."""
    for event in events:
        if event.uuid not in ledger.durable_ids:
            return f"epoch {epoch} n {event.n} ({event.type}) was acknowledged and is not durable"
    return None


def i4_reader_gets_the_next(ledger: Ledger, call: UUID, seq: int, event: UUID) -> Broken:
    """A reader gets each call's events in order, each once, whatever instance it resumes from, and only durable ones."""
    expected = ledger.read_seq.get(call, 0) + 1
    if seq != expected:
        return f"the reader got seq {seq} where {expected} was due"
    if ledger.durable_ids.get(event) != (call, seq):
        return f"the reader got seq {seq}, which is not durable"
    return None


def i5_stored_once(ledger: Ledger, row: Row) -> Broken:
    """One occurrence is stored once: by its id, by (call, epoch, n) or its origin, by its deterministic key."""
    known = ledger.durable_ids.get(row["id"])
    if known is not None:
        return f"seq {row['seq']} ({row['type']}) is stored already as seq {known[1]}"
    if row["source_key"] is not None and (row["call_id"], row["source_key"]) in ledger.keys:
        return f"the key {row['source_key']} is stored twice"
    origin = (row["call_id"], row["origin_epoch"], row["origin_n"])
    if row["origin_n"] is not None and origin in ledger.origins:
        return f"epoch {origin[1]} n {origin[2]} is stored twice"
    return None


def i5_content_is_what_was_written(ledger: Ledger, row: Row) -> Broken:
    """The content under a number is what its owner wrote there."""
    written = ledger.written.get(row["id"]) if row["source"] == "edge" else None
    if written is not None and ledger.opened(row) != written.data:
        return f"seq {row['seq']} ({row['type']}) has another content than its owner wrote"
    return None


def i6_speaks_of_what_is_durable(ledger: Ledger, what: str, key: tuple[UUID, int], event: UUID) -> Broken:
    """Nothing leaves for the customer before the event it speaks of is durable."""
    return (
        None
        if ledger.durable_ids.get(event) == key
        else f"{what} speaks of seq {key[1]}, which is not durable"
    )


def i6_tool_runs_after_its_event(ledger: Ledger, call: UUID, tool: str) -> Broken:
    """A tool runs once, and after `tool.called` is durable."""
    if ledger.effects[(call, tool)] > 1:
        return f"the tool {tool} ran {ledger.effects[(call, tool)]} times"
    if (call, tool) not in ledger.durable_tools:
        return f"the tool {tool} ran before its event was durable"
    return None


def i7_goes_on_without_control_plane(ledger: Ledger, call: UUID, silent_s: float) -> Broken:
    """A call whose caller and one untried grant on a sound edge live is served, whatever the control plane does."""
    return (
        f"the caller has been without an edge for {silent_s:.1f} s, and one of its grants is on a sound edge"
    )


def i8_speaks_only_under_its_lease(ledger: Ledger, call: UUID, epoch: int, now_s: float, what: str) -> Broken:
    """An owner sends audio and acknowledges tools at most 3 s after its caller last spoke to it, by any clock."""
    renewed_s = ledger.renewed.get((call, epoch))
    limit_s = LEASE_MS / 1000 * (1 + ledger.drift) + LEASE_SLACK_S
    if renewed_s is None or now_s - renewed_s > limit_s:
        since = "never" if renewed_s is None else f"{now_s - renewed_s:.2f} s ago"
        return f"epoch {epoch} sent {what}, and its caller last spoke to it {since}"
    return None


def i10_waits_are_bounded(ledger: Ledger, waiting: list[str]) -> Broken:
    """Once the faults are over, what every call, endpoint and reader waits for comes within a stated time."""
    return f"nothing moves for {SETTLED_WITHIN_S:g} s: {'; '.join(waiting[:4])}" if waiting else None


def i11_nothing_follows_the_end(ledger: Ledger, row: Row) -> Broken:
    """A final event is the last one, and above every grant."""
    before = ledger.newest.get(row["call_id"])
    if before is not None and before["type"] == FINAL:
        return f"seq {row['seq']} ({row['type']}) follows the end"
    return None


def i11_lost_contact_ends_no_call(ledger: Ledger, call: UUID, reason: str, owners: list[str]) -> Broken:
    """A call that a process still owns, with its caller, is not ended for lost contact."""
    return f"the call was ended as {reason} while {', '.join(owners)} served its caller" if owners else None


def i11_exactly_one_final(ledger: Ledger, call: UUID, rows: list[Row]) -> Broken:
    """Once time has passed every call has one final event, and it is the last."""
    finals = [r for r in rows if r["type"] == FINAL]
    if len(finals) != 1 or rows[-1]["type"] != FINAL:
        return f"the call has {len(finals)} final events of {len(rows)}"
    return None


def tail_is_the_fold(ledger: Ledger, call: UUID, seq: int, turns: list[Turn]) -> Broken:
    """A tail says what the durable log says up to its number, and nothing else."""
    folded = ledger.folded(call, seq)
    if folded is None:
        return f"a tail of seq {seq} was written, and the durable log does not reach so far"
    if folded != msgspec.json.encode(turns):
        return f"the tail of seq {seq} has other turns than the log"
    return None


def i3_callers_were_told_the_truth(ledger: Ledger, call: UUID, epoch: int, n: int) -> Broken:
    """What a caller was told is durable, of an owner's numbers, is."""
    for (of, at, _), events in ledger.by_outbox.items():
        if (of, at) != (call, epoch):
            continue
        missing = [e.n for e in events if e.n <= n and e.uuid not in ledger.durable_ids]
        if missing:
            return f"the caller was told that epoch {epoch} is durable to n {n}, and n {missing} is not"
    return None


def i5_every_endpoint_hears(ledger: Ledger, due: set[tuple[UUID, int]]) -> Broken:
    """Every durable event that an endpoint wants has reached it, or is still being tried."""
    wanted = [key for key, row in ledger.durable.items() if row["type"] in HOOK_TYPES]
    unheard = [key for key in wanted if not ledger.hooked[key] and key not in due]
    return f"{len(unheard)} events reached no endpoint, the first is seq {unheard[0][1]}" if unheard else None


def memory_is_in_the_order_of_the_log(ledger: Ledger, call: UUID, told: list[tuple[str, str]]) -> Broken:
    """A resumed backend is told each turn once, in the order in which the log has them."""
    places: dict[tuple[str, str], list[int]] = {}
    for row in ledger.rows_of(call):
        if row["type"] in ("turn.ended", "tool.called"):
            data = msgspec.json.decode(ledger.opened(row))
            said = ("tool", data["id"]) if row["type"] == "tool.called" else (data["role"], data["text"])
            places.setdefault(said, []).append(row["seq"])
    twice = [t for t in told if told.count(t) > len(places.get(t, [])) > 0]
    if twice:
        return f"a resumed backend was told {twice[0]} {told.count(twice[0])} times"
    at = 0
    for t in told:
        # the same words may have been said twice: a backend that was dialled again heard the last of them again
        later = [seq for seq in places.get(t, ()) if seq > at]
        if t in places and not later:
            return f"a resumed backend was told {t}, of seq {places[t]}, behind the turn of seq {at}"
        at = later[0] if later else at
    return None


def nothing_is_both_stored_and_late(ledger: Ledger, late: set[Any]) -> Broken:
    """What is kept as late is not in the log."""
    both = late & ledger.origins.keys()
    return f"{sorted(both, key=str)[:2]} are late and stored" if both else None
