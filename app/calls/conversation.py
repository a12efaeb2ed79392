"""The conversation of a call: read in windows, written by the project, its tools' results found by key.

Decides what is durable enough to be served, and waits for it where it was asked to. A reader that demands a sequence number
never gets less, and nobody gets more than is durable: what is served is the fold of the call's events below the durable
horizon. What is said of a window stands in `wire.conversation`, what of an entry in `entries`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from app.calls.conversation_shapes import Conversation, ToolView, TurnView, WriteEntry, WrittenEntry
from app.calls.entries import entry_of
from app.calls.store import StoredCall
from app.clock import Clock, at_ms, ms_of, rfc3339
from app.db import Database
from app.errors import Conflict, Erased, Gone, Invalid, NotFound, QuotaExceeded
from app.hints import Hints
from app.log.append import Appender
from app.log.horizon import Horizon
from app.log.rows import event_data
from app.log.tail_log import by_of
from app.vault import CallKey, Vault
from regions.wire import ids
from regions.wire.conversation import FOLDED_TYPES, TOOL_TYPES, fold, tool_of, window
from regions.wire.events import Source
from regions.wire.snapshot import Turn

PAGE_EVENTS = 250
EVENTS_MAX = 5_000
TOOL_EVENTS_MAX = 2_000
WINDOW_BYTES_MAX = 1 << 20
WAIT_MS_MAX = 8_000
"""Below the ten seconds after which many HTTP clients give up."""
TOOL_WAIT_MS = REPLAY_WAIT_MS = 1_000
POLL_S = 0.25
LOOK_PAUSE_S = 0.02
WAITING_MAX = 200
SEQ_MAX = 50_000
"""A call with more events takes no more entries from its project."""

SELECT_DURABLE = "select seq from vx.events where call_id = $1 and feed_xid < $2 order by seq desc limit 1"
SELECT_SAID = """
select seq, id, type, source, at, data, content from vx.events
 where call_id = $1 and seq < $2 and type = any($3::text[]) order by seq desc limit $4
"""
SELECT_LATER = """
select seq, id, type, source, at, data, content from vx.events
 where call_id = $1 and seq >= $2 and seq <= $3 and type = any($4::text[]) order by seq limit $5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`wait_ms`: how long a reader waits for `min_seq` to be durable. `before_seq`: only what was said before it."""

    turns: int
    tokens: int | None = None
    min_seq: int = 0
    wait_ms: int = 0
    before_seq: int | None = None


class Conversations:
    def __init__(
        self, db: Database, vault: Vault, horizon: Horizon, hints: Hints, appender: Appender, clock: Clock
    ) -> None:
        self._db = db
        self._vault = vault
        self._horizon = horizon
        self._hints = hints
        self._appender = appender
        self._clock = clock
        self._waiting = 0

    # ------------------------------------------------------------------------------------------------------ reading

    async def read(self, call: StoredCall, asked: Asked) -> Conversation:
        """Raises `Conflict` ``not_yet`` where `min_seq` is not durable in time, ``call_ended`` where it cannot come."""
        check_kept(call)
        seq = await self.durable(call, min_seq=asked.min_seq, wait_ms=asked.wait_ms)
        below = min(seq + 1, asked.before_seq or seq + 1)
        key = await self._key(call)
        found: list[Any] = []
        later: list[Any] = []
        while True:
            async with self._db.project_driver(call.project_id) as connection:
                page = await connection.fetch(
                    SELECT_SAID,
                    call.id,
                    found[0]["seq"] if found else below,
                    list(FOLDED_TYPES),
                    PAGE_EVENTS,
                )
                if not found and below <= seq:
                    later = await connection.fetch(
                        SELECT_LATER, call.id, below, seq, list(TOOL_TYPES), TOOL_EVENTS_MAX
                    )
            found = page[::-1] + found
            turns = [t for t in self._folded(key, found + later) if t.seq < below]
            cut = window(turns, turns_max=asked.turns, tokens_max=asked.tokens, bytes_max=WINDOW_BYTES_MAX)
            beginning = len(page) < PAGE_EVENTS
            if beginning or cut.cut or len(found) >= EVENTS_MAX:
                break
        more = bool(cut.turns) and (not beginning or cut.turns[0].seq > turns[0].seq)
        return Conversation(
            call_id=ids.encode(ids.CALL, call.id),
            seq=seq,
            turns=[turn_view(t) for t in cut.turns],
            tokens=cut.tokens,
            next_before_seq=cut.turns[0].seq if more else None,
        )

    async def tool(self, call: StoredCall, key: str) -> ToolView:
        """The newest call of `key` that has a result, else the newest. It speaks of all that was written when it was asked:
        what of this is not durable in a second is ``not_yet``."""
        check_kept(call)
        seq = await self.durable(call, min_seq=call.seq, wait_ms=TOOL_WAIT_MS)
        found = tool_of(await self._tools(call, seq), key)
        if found is None:
            raise NotFound("No tool was called with this key.", fix="Check the key; `tool.called` gives it.")
        return tool_view(call.id, found)

    async def durable(self, call: StoredCall, *, min_seq: int, wait_ms: int) -> int:
        """The call's newest durable sequence number, once it has reached `min_seq`."""
        deadline_s = self._clock.monotonic_s() + wait_ms / 1000
        seq = await self._newest(call)
        if seq >= min_seq:
            return seq
        if call.ended_at is not None and call.seq < min_seq:
            raise Conflict(
                f"The call has ended at {call.seq}.", code="call_ended", fix="Ask for no more than that."
            )
        if self._waiting >= WAITING_MAX:
            raise QuotaExceeded("Too many readers wait on this instance.", retry_after_s=1)
        self._waiting += 1
        wakes = self._hints.subscribe(f"feed:{call.project_id}")
        try:
            while seq < min_seq:
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0:
                    raise Conflict(
                        f"The call's log is durable up to {seq}.",
                        code="not_yet",
                        fix="Ask again, with `wait_ms` if you can wait.",
                        retry_after_s=1,
                        extra={"seq": seq},
                    )
                await wakes.wait(min(left_s, POLL_S))
                await asyncio.sleep(min(max(left_s, 0), LOOK_PAUSE_S))
                seq = await self._newest(call)
        finally:
            wakes.close()
            self._waiting -= 1
        return seq

    async def _newest(self, call: StoredCall) -> int:
        horizon = await self._horizon.read()
        async with self._db.project_driver(call.project_id) as connection:
            return int(await connection.fetchval(SELECT_DURABLE, call.id, horizon) or 0)

    async def _tools(self, call: StoredCall, seq: int) -> list[Turn]:
        async with self._db.project_driver(call.project_id) as connection:
            rows = await connection.fetch(SELECT_SAID, call.id, seq + 1, list(TOOL_TYPES), TOOL_EVENTS_MAX)
        return self._folded(await self._key(call), rows[::-1])

    async def _key(self, call: StoredCall) -> CallKey | None:
        return await self._vault.of_call(call.project_id, call.id, call.wrapped)

    def _folded(self, key: CallKey | None, rows: list[Any]) -> list[Turn]:
        turns: list[Turn] = []
        for row in rows:
            data = event_data(key, row)
            if isinstance(data, msgspec.Raw):
                fold(turns, row["type"], bytes(data), ms_of(row["at"]), seq=row["seq"], by=by_of(row))
        return turns

    # ------------------------------------------------------------------------------------------------------ writing

    async def write(
        self, call: StoredCall, body: WriteEntry, header_key: str | None
    ) -> tuple[WrittenEntry, bool]:
        """Where the entry stands; True where it, or the tool's result, was there before.

        Raises `Conflict` ``call_ended`` and ``tool_not_called``, `Invalid` ``idempotency_key_reused``.
        """
        entry = entry_of(body, header_key)
        check_kept(call)
        call_id = ids.encode(ids.CALL, call.id)
        if body.type != "turn":
            known = tool_of(await self._tools(call, call.seq), entry.key)
            if body.type == "tool.called" and known is not None and known.done:
                tool = await self.tool(call, entry.key)
                return WrittenEntry(
                    call_id=call_id, type=body.type, key=entry.key, seq=tool.seq, tool=tool
                ), True
            if body.type == "tool.result" and known is None:
                raise Conflict(
                    "No tool was called with this key.",
                    code="tool_not_called",
                    fix="Write `tool.called` with this key first.",
                )
        if call.seq > SEQ_MAX:
            raise Conflict("The call has too many events.", code="call_full", fix="Write less into one call.")
        outcome = await self._appender.control(
            call.project_id,
            call.id,
            type=entry.event_type,
            data=entry.data,
            source=Source.PROJECT,
            source_key=entry.source_key,
        )
        match outcome.status:
            case "stored" | "duplicate":
                if outcome.status == "duplicate":
                    # it was there, and is said to be there for good only once it is
                    await self.durable(call, min_seq=outcome.seq, wait_ms=REPLAY_WAIT_MS)
                written = WrittenEntry(call_id=call_id, type=body.type, key=entry.key, seq=outcome.seq)
                return written, outcome.status == "duplicate"
            case "conflict":
                raise Invalid(
                    "This key was used for another entry.",
                    code="idempotency_key_reused",
                    fix="Use a fresh key for another entry, or send what you sent first.",
                )
            case "erased":
                raise Erased
            case "ended":
                raise Conflict("The call has ended.", code="call_ended", fix="Nothing can be added any more.")
            case _:
                raise NotFound("There is no such call.")


def turn_view(turn: Turn) -> TurnView:
    return TurnView(
        seq=turn.seq,
        role=turn.role,
        at=rfc3339(at_ms(turn.at_ms)),
        text=turn.text,
        interrupted=turn.interrupted,
        by=turn.by,
        id=turn.id,
        key=turn.key,
        name=turn.name,
        arguments=turn.arguments,
        done=turn.done,
        result=turn.result,
        truncated=turn.truncated,
    )


def tool_view(call_id: UUID, turn: Turn) -> ToolView:
    return ToolView(
        call_id=ids.encode(ids.CALL, call_id),
        key=turn.key or "",
        id=turn.id or "",
        name=turn.name or "",
        arguments=turn.arguments,
        done=turn.done,
        result=turn.result,
        truncated=turn.truncated,
        seq=turn.seq,
        at=rfc3339(at_ms(turn.at_ms)),
    )


def check_kept(call: StoredCall) -> None:
    """Raises `Gone` where nothing that was said can be opened any more."""
    if call.erased_at is not None:
        raise Erased
    if call.wrapped is None:
        raise Gone(
            "The conversation of this call is kept no longer.",
            code="conversation_expired",
            fix="Read the call itself; the project's privacy settings say for how long conversations are kept.",
        )
