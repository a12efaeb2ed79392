"""What one owner writes of a call: numbered, folded into the conversation, kept until the log has it.

Decides what is left out when the log has been out of reach for too long (everything but the end, counted), and when the
caller's snapshot is out of date. Leaves numbering to `Outbox`, the fold to `wire.conversation`, sending to the uplink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from regions.agents.text import fitted
from regions.edge.clock import wall_ms
from regions.edge.outbox import Outbox
from regions.edge.takeover import Adopted, TakeoverPlan
from regions.edge.watch import Nobody, Seen
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import FINAL_TYPE, LOST_TYPE, EndReason, Lost, Origin
from regions.wire.snapshot import TURNS_MAX, CallSnapshot, Tail, Turn, Unacked, bounded

SNAPSHOT_TYPES = (
    frozenset({"call.answered", "call.reconnecting", "call.reconnected", "transcript.final"})
    | frozenset({"playback.started", "playback.interrupted", "playback.done"})
    | FOLDED_TYPES
)
WRITTEN_ALWAYS = frozenset({"call.ended"})
UNACKED_MAX = 200
NOBODY = Nobody()
"""Of a log that has been out of reach for long, a snapshot carries the oldest: a history without holes."""


class Journal:
    """`changed`: something a successor would need has been written since the caller's last snapshot.
    `news`: more is durable than the caller has been told.
    `known_seq`: up to where `turns` hold all that the log has; `behind`: the log has more, which others wrote."""

    def __init__(
        self,
        call: str,
        epoch: int,
        new_event_id: Callable[[], str],
        notify: Callable[[], None],
        seen: Seen = NOBODY,
    ) -> None:
        """`seen`: told of each event of the edge's own, before it is on its way."""
        self.outbox = Outbox(call, epoch)
        self.outbox.trace = seen.traceparent
        self.turns: list[Turn] = []
        self.changed = False
        self.news = False
        self.known_seq = 1 if epoch == 1 else 0
        self.behind = epoch != 1
        self._new_event_id = new_event_id
        self._notify = notify
        self._seen = seen
        self._lost_from = 0
        self._tools: dict[int, str] = {}

    def record_all(self, facts: list[tuple[str, dict[str, object]]]) -> None:
        for type_, data in facts:
            self.record(type_, data)

    def record(self, type_: str, data: dict[str, object]) -> None:
        """One durable event of the edge's own."""
        self._seen(type_, data)
        self._put(type_, msgspec.json.encode(data), at_ms=wall_ms())

    def end(self, reason: EndReason, why: Mapping[str, object]) -> None:
        """The final event. `why`: what says more, where there is something."""
        self.record(FINAL_TYPE, {"end_reason": reason.value, **why})

    def last_word(self, data: dict[str, object]) -> None:
        """What this owner has carried, once it carries no more. Where another has the call by now, or it has ended, the log
        keeps it as late; what else was waiting is void then. Else it stands behind all that was written, and left out."""
        void = self.outbox.closed
        if self.outbox.open_for_last_word():
            self._lost_from = 0 if void else self._lost_from
            self.record("call.quality", {**data, "final": True})

    def tool(self, type_: str, tool_id: str, data: bytes) -> None:
        """`tool.called` or `tool.result`, as the backend said it."""
        n = self._put(type_, data, at_ms=wall_ms())
        if type_ == "tool.called" and n is not None:
            self._tools[n] = tool_id

    def forget_tools(self) -> None:
        """Whoever waits for their acknowledgement is gone."""
        self._tools.clear()

    def adopt(self, adopted: Adopted) -> None:
        """An event of the owner before, which is not durable yet; the plan's turns contain it already."""
        event = adopted.event
        self._put(event.type, bytes(event.data), at_ms=event.at_ms, id=event.id, origin=adopted.origin)

    def take_over(self, plan: TakeoverPlan) -> None:
        """What the owner before has left, behind the event that says that it was taken over."""
        for adopted in plan.adopt:
            self.adopt(adopted)
        if plan.lost is not None:
            self._put(LOST_TYPE, msgspec.json.encode(plan.lost), at_ms=wall_ms())
        self.start_from(plan.turns)

    def start_from(self, turns: list[Turn]) -> None:
        self.turns = bounded([msgspec.structs.replace(t, seq=0) if t.seq < 0 else t for t in turns])

    def acknowledged(self, durable_n: int, seq: int = 0, stored: int = 0) -> list[str]:
        """Drops what is durable; the ids of the tool calls that may run now. `seq`: the call's newest event in the log.

        Where all that was acknowledged was new (`stored`), it stands in its order up to `seq`. Where the log stood higher
        before than is known here, others have written, and `behind` says so.
        """
        waiting = self.outbox.unacked
        self.outbox.acked_seq = max(self.outbox.acked_seq, seq)
        if not self.outbox.acknowledge(durable_n):
            return []
        self.news = True
        gone = waiting[: len(waiting) - len(self.outbox.unacked)]
        exact = stored > 0 and stored == len(gone)
        self._place({e.n: seq - stored + 1 + i for i, e in enumerate(gone)} if exact else {})
        if exact and self.known_seq > 0 and seq == self.known_seq + stored:
            self.known_seq = seq
        elif seq > self.known_seq:
            self.behind = True
        return [self._tools.pop(n) for n in sorted(self._tools) if n <= durable_n]

    def _place(self, places: dict[int, int]) -> None:
        """The turns of acknowledged events get their place in the log, or 0 where it is not known."""
        for i, turn in enumerate(self.turns):
            if 0 < -turn.seq <= self.outbox.acked_n:
                self.turns[i] = msgspec.structs.replace(turn, seq=places.get(-turn.seq, 0))

    def refresh(self, tail: Tail) -> bool:
        """Starts anew from the log's own fold, with what is not acknowledged yet on top; False where the tail does not have
        all that was acknowledged, or where an adopted event may stand in it twice."""
        outbox = self.outbox
        if tail.epoch != outbox.epoch or tail.n < outbox.acked_n or tail.seq < self.known_seq:
            return False
        if any(e.origin is not None for e in outbox.unacked):
            return False
        turns = list(tail.turns)
        for event in outbox.unacked:
            if event.n > tail.n:
                fold(turns, event.type, bytes(event.data), event.at_ms, seq=-event.n)
        self.turns = bounded(turns)
        self.known_seq = tail.seq
        self.behind = False
        self.changed = True
        return True

    def go_on_from(self, durable_n: int) -> None:
        """The log asks for what follows `durable_n`. Less than it had acknowledged: it has lost what was dropped here because
        of that. The call goes on without it, and says so."""
        outbox = self.outbox
        if durable_n < outbox.acked_n and not outbox.closed:
            lost = Lost(epoch=outbox.epoch, from_n=durable_n + 1, to_n=outbox.acked_n, reason="log_lost")
            outbox.reopen(
                durable_n,
                id=self._new_event_id(),
                type=LOST_TYPE,
                at_ms=wall_ms(),
                data=msgspec.json.encode(lost),
            )
        outbox.send_again(durable_n)

    def snapshot(self) -> CallSnapshot:
        """What of the journal a successor would need; the rest of the call is filled in by others."""
        outbox = self.outbox
        return CallSnapshot(
            call=outbox.call,
            epoch=outbox.epoch,
            acked_n=outbox.acked_n,
            last_n=outbox.last_n,
            turns=bounded(self.turns),
            unacked=[Unacked(epoch=outbox.epoch, event=e) for e in outbox.unacked[:UNACKED_MAX]],
        )

    def _put(
        self, type_: str, data: bytes, *, at_ms: int, id: str | None = None, origin: Origin | None = None
    ) -> int | None:
        if self.outbox.over and type_ not in WRITTEN_ALWAYS:
            skipped = self.outbox.skip()
            self._lost_from = self._lost_from or skipped
            return None
        if self._lost_from:
            self._give_up(at_ms)
        data = fitted(data)
        event = self.outbox.add(
            id=id or self._new_event_id(), type=type_, at_ms=at_ms, data=data, origin=origin
        )
        if origin is None and type_ in FOLDED_TYPES:
            fold(self.turns, type_, data, at_ms, seq=-event.n)
            if len(self.turns) > TURNS_MAX * 3 // 2:
                self.turns = bounded(self.turns)
        self.changed = self.changed or type_ in SNAPSHOT_TYPES
        self._notify()
        return event.n

    def _give_up(self, at_ms: int) -> None:
        """Says which numbers were left out; the call goes on behind them."""
        outbox, from_n, self._lost_from = self.outbox, self._lost_from, 0
        lost = Lost(epoch=outbox.epoch, from_n=from_n, to_n=outbox.last_n, reason="log_away")
        outbox.fill(id=self._new_event_id(), type=LOST_TYPE, at_ms=at_ms, data=msgspec.json.encode(lost))
