"""One trace per call: its context, the ids of its spans, and what a span is. Pure.

The context travels as W3C's `traceparent` (https://www.w3.org/TR/trace-context/): with the create, in the call, its ticket and its
webhooks, to its backend. Who has it continues the trace without asking anyone, since every id that others refer to is derived from
the call: its own span's, and that of each ownership (an epoch). The sampled flag was decided once, with the create, and is obeyed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
TRACEPARENT_CHARS_MAX = 512
SAMPLED = 1
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""
Value = str | int | float | bool


class Context(NamedTuple):
    """Where a span hangs: in which trace, under which span (16 and 8 bytes)."""

    trace_id: bytes
    span_id: bytes
    sampled: bool

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{'01' if self.sampled else '00'}"

    def under(self, span_id: bytes) -> Context:
        return self._replace(span_id=span_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`parent_id` empty: it is the first of its trace. `links`: spans of the same trace that it follows. `error`: empty: there was
    none. No attribute carries what was said, a number, an address or a key."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int
    kind: int = INTERNAL
    attributes: dict[str, Value] = field(default_factory=dict)
    links: tuple[bytes, ...] = ()
    error: str = ""


def parse(traceparent: str) -> Context | None:
    """None for what is not one; one of a later version is read as far as it is known."""
    if len(traceparent) > TRACEPARENT_CHARS_MAX:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Context(bytes.fromhex(trace_id), bytes.fromhex(span_id), bool(int(flags, 16) & SAMPLED))


def trace_of(call: str) -> bytes:
    """The trace of a call that was created without one: as good as random, and the same for whoever knows the call."""
    return hashlib.blake2b(call.encode(), digest_size=16, person=b"voxplane.trace").digest()


def span_of(call: str, epoch: int = 0) -> bytes:
    """The call's own span, or that of an ownership of it."""
    return hashlib.blake2b(f"{call}/{epoch}".encode(), digest_size=8, person=b"voxplane.span").digest()


def sampled_at(trace_id: bytes, ratio: float) -> bool:
    """By the id alone, so that every service decides alike (OpenTelemetry's TraceIdRatioBased)."""
    return int.from_bytes(trace_id[8:], "big") < ratio * (1 << 64)
