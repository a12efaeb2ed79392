"""One ownership's part of its call's trace, from what is written of the call.

Decides which spans there are. The ownership's own (`call.attach`, or `call.take` with a link to the one before) is over as soon as
the caller is served, so that the death of an edge leaves it behind; everything later hangs under it, and its id is derived from the
call and the epoch, so that whoever takes over can name it. No span has content: numbers, codes and durations alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from regions.wire.span_export import Spans
from regions.wire.tracing import CLIENT, INTERNAL, SERVER, Context, Span, Value, parse, span_of

KEPT = frozenset(
    {"reason", "history", "from_epoch", "to_epoch", "attempts", "away_ms", "fallback", "resumed", "end_reason", "why", "code"}
)  # fmt: skip
"""Of an event's data, what may stand in a span."""
MS = 1_000_000


class CallTrace:
    def __init__(self, spans: Spans, context: Context, call: str, epoch: int) -> None:
        self._spans = spans
        self._context = context
        self._call = call
        self._epoch = epoch
        self._own = span_of(call, epoch)
        self._begun_ns = self._served_ns = self._dialled_ns = time.time_ns()
        self._away_ns = self._connected_ns = 0

    @property
    def traceparent(self) -> str:
        """What hangs under this ownership."""
        return self._context.under(self._own).traceparent

    def __call__(self, type_: str, data: Mapping[str, object]) -> None:
        now = time.time_ns()
        match type_:
            case "call.answered":
                self._owned("call.attach", now, data)
            case "call.reconnecting" | "call.moved" if data.get("from_epoch") != self._epoch:
                self._owned("call.take", now, data)
                self._away_ns = now
            case "call.reconnecting":
                self._away_ns = self._dialled_ns = now
            case "agent.connected":
                self._add("agent.connect", self._dialled_ns, now, data, kind=CLIENT)
                self._connected_ns = now
            case "agent.disconnected":
                self._add("agent.disconnected", now, now, data)
                self._dialled_ns = now
            case "playback.started" if self._connected_ns:
                self._add("agent.first_audio", self._connected_ns, now, {})
                self._connected_ns = 0
            case "turn.answered":
                self._turn(now, data)
            case "call.reconnected" if self._away_ns:
                self._add("call.return", self._away_ns, now, data)
                self._away_ns = 0
            case "call.ended":
                self._add("call.serve", self._served_ns, now, data)

    def _owned(self, name: str, now: int, data: Mapping[str, object]) -> None:
        self._served_ns = self._dialled_ns = now
        before = data.get("from_epoch")
        links = (span_of(self._call, before),) if isinstance(before, int) and before else ()
        self._add(
            name,
            self._begun_ns,
            now,
            data,
            kind=SERVER,
            span_id=self._own,
            under=self._context.span_id,
            links=links,
        )

    def _turn(self, now: int, data: Mapping[str, object]) -> None:
        """Its stages follow each other from the caller's last sound to the answer's first in its ear."""
        stages, total_ms = data.get("stages"), data.get("total_ms")
        if not isinstance(stages, dict) or not isinstance(total_ms, int):
            return
        turn = os.urandom(8)
        at = now + stages.get("downlink", 0) * MS - total_ms * MS
        self._add("turn", at, at + total_ms * MS, {}, span_id=turn)
        for stage, ms in stages.items():
            self._add(f"turn.{stage}", at, at + ms * MS, {}, under=turn)
            at += ms * MS

    def _add(
        self,
        name: str,
        start_ns: int,
        end_ns: int,
        data: Mapping[str, object],
        *,
        kind: int = INTERNAL,
        span_id: bytes = b"",
        under: bytes = b"",
        links: tuple[bytes, ...] = (),
    ) -> None:
        attributes: dict[str, Value] = {"voxplane.call": self._call, "voxplane.epoch": self._epoch}
        for key in KEPT & data.keys():
            value = data[key]
            if isinstance(value, str | int | float | bool):
                attributes[f"voxplane.{key}"] = value
        self._spans.add(
            Span(
                name=name,
                trace_id=self._context.trace_id,
                span_id=span_id or os.urandom(8),
                parent_id=under or self._own,
                start_ns=start_ns,
                end_ns=end_ns,
                kind=kind,
                attributes=attributes,
                links=links,
            )
        )


def handed_on(spans: Spans, trace: str, call: str, epoch: int) -> str:
    """The `traceparent` for the backend: under this ownership where this edge tells of it, else as the ticket has it."""
    found = trace_call(spans, trace, call, epoch)
    return found.traceparent if found is not None else trace


def trace_call(spans: Spans, trace: str, call: str, epoch: int) -> CallTrace | None:
    """`trace`: as the ticket has it. None where this edge is to say nothing of it."""
    context = parse(trace) if trace and spans else None
    return CallTrace(spans, context, call, epoch) if context is not None and context.sampled else None
