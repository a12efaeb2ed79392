"""What a new owner starts from. Pure: the caller's snapshot and the region's tail come in, a plan goes out.

The cases, in order:

1. neither snapshot nor tail      → the call starts with an empty memory; it goes on all the same. Where the caller has seen
   nothing acknowledged either, nobody has carried it yet, and it begins
2. the tail is newer than the snapshot by (epoch, n)  → turns from the tail; what the snapshot had unacknowledged and the
   tail has folded in is durable already
3. else                           → turns from the snapshot, which contain its unacknowledged events, and what the project has
   written through the API, which only the tail knows
Events of the snapshot that were not acknowledged are adopted with their origin, those that the caller saw acknowledged
excepted; the log stores none of them twice. An agent utterance that was cut by the failure is written as interrupted, with
what the caller had played of it, once its backend has not gone on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from regions.wire.conversation import with_project_writes
from regions.wire.events import EdgeEvent, Lost, Origin
from regions.wire.media import Position, Resume
from regions.wire.snapshot import CallSnapshot, Tail, Turn, Word
from regions.wire.ticket import Claims, MovedFor


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """An event as it was, and where it was first numbered."""

    event: EdgeEvent
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverPlan:
    """`source`: ``snapshot``, ``tail`` or ``none``. `cut`: the utterance that was being played, with the text announced for it
    and the name that its backend gave it. `lost`: what the owner before had written, as its snapshot says, and had no room for
    there."""

    source: str
    turns: list[Turn] = field(default_factory=list)
    adopt: list[Adopted] = field(default_factory=list)
    from_epoch: int = 0
    cut: Position = field(default_factory=Position)
    cut_text: str = ""
    cut_words: list[Word] = field(default_factory=list)
    cut_id: str = ""
    utterance: int = 0
    lost: Lost | None = None
    answered_at_ms: int = 0
    elapsed_ms: int = 0

    @property
    def fresh(self) -> bool:
        """No owner has served the caller before: the primary was full, or never answered."""
        return self.source == "none" and self.from_epoch == 0


def left_edge(claims: Claims, plan: TakeoverPlan, epoch: int) -> str | None:
    """The edge that the caller has left for this one: the owner that it had, or the one that was to be its first."""
    earlier = [g for g in claims.grants if g.epoch < epoch]
    left = next((g for g in earlier if g.epoch == plan.from_epoch), None)
    if left is None and plan.fresh:
        left = min(earlier, key=lambda g: g.epoch, default=None)
    return left.edge if left is not None else None


def taken(
    plan: TakeoverPlan, epoch: int, reason: str, moved_for: MovedFor | None
) -> tuple[str, dict[str, object]]:
    """The first event of an owner that goes on."""
    data: dict[str, object] = {
        "from_epoch": plan.from_epoch, "to_epoch": epoch, "reason": reason, "history": plan.source,
    }  # fmt: skip
    if reason != "planned":
        return "call.reconnecting", data
    return "call.moved", data if moved_for is None else {**data, **msgspec.structs.asdict(moved_for)}


def plan_takeover(resume: Resume | None, snapshot: CallSnapshot | None, tail: Tail | None) -> TakeoverPlan:
    if snapshot is None and tail is None:
        return TakeoverPlan(
            source="none", from_epoch=resume.epoch if resume else 0, utterance=_played(resume).utterance
        )
    if snapshot is None:
        assert tail is not None
        return TakeoverPlan(
            source="tail", turns=list(tail.turns), from_epoch=tail.epoch, utterance=_played(resume).utterance
        )
    newer_tail = tail is not None and (tail.epoch, tail.n) > (snapshot.epoch, snapshot.last_n)
    acked_n = max(snapshot.acked_n, resume.n if resume is not None and resume.epoch == snapshot.epoch else 0)
    adopt = [
        Adopted(event=u.event, origin=u.event.origin or Origin(epoch=u.epoch, n=u.event.n))
        for u in snapshot.unacked
        if u.epoch < snapshot.epoch or u.event.n > acked_n
    ]
    played = _played(resume)
    cut = Position()
    if snapshot.playing.utterance or (
        played.utterance and played.utterance == snapshot.utterance and snapshot.playing_text
    ):
        utterance = max(snapshot.playing.utterance, played.utterance)
        heard_ms = played.offset_ms if played.utterance == utterance else 0
        cut = Position(utterance=utterance, offset_ms=heard_ms)
    return TakeoverPlan(
        source="tail" if newer_tail else "snapshot",
        turns=_history(snapshot, tail, newer_tail),
        adopt=adopt,
        from_epoch=snapshot.epoch,
        cut=cut,
        cut_text=snapshot.playing_text,
        cut_words=snapshot.playing_words,
        cut_id=snapshot.playing_id,
        utterance=max(snapshot.utterance, played.utterance),
        lost=_lost(snapshot, max(acked_n, tail.n if tail and tail.epoch == snapshot.epoch else 0)),
        answered_at_ms=snapshot.answered_at_ms,
        elapsed_ms=snapshot.elapsed_ms,
    )


def _lost(snapshot: CallSnapshot, acked_n: int) -> Lost | None:
    """A snapshot has the oldest of what was not acknowledged. Of the rest nobody knows any more whether the log has it."""
    carried_n = max([acked_n, *(u.event.n for u in snapshot.unacked if u.epoch == snapshot.epoch)])
    if carried_n >= snapshot.last_n:
        return None
    return Lost(epoch=snapshot.epoch, from_n=carried_n + 1, to_n=snapshot.last_n, reason="snapshot")


def _history(snapshot: CallSnapshot, tail: Tail | None, newer_tail: bool) -> list[Turn]:
    if tail is None:
        return list(snapshot.turns)
    return list(tail.turns) if newer_tail else with_project_writes(snapshot.turns, tail.turns)


def _played(resume: Resume | None) -> Position:
    return resume.played if resume is not None else Position()
