"""The messages of the feed's WebSocket, one struct each. Pure; the AsyncAPI document is made from them.

The reader says `subscribe` first, then acknowledges what it has dealt with: `ack` names the cursor up to which. At most `window`
events are under way without one. Either side may `ping`, and the other answers `pong`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.log.rendering import Format

WINDOW_DEFAULT, WINDOW_MAX = 256, 1_000
Cursor = Annotated[str, Meta(max_length=512)]


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag="subscribe", forbid_unknown_fields=True):
    """The first message. Without a cursor it begins with the first event stored at `since` (RFC 3339) or later; without either,
    with the next that becomes durable. `types` as in
    `GET /v1/events`; `volatile`: with those that have no place in the log."""

    cursor: Cursor | None = None
    since: Annotated[str, Meta(max_length=40)] | None = None
    types: list[str] | None = None
    call_id: str | None = None
    metadata: dict[str, str] = {}
    volatile: bool = False
    window: Annotated[int, Meta(ge=1)] = WINDOW_DEFAULT
    format: Format = "voxplane"


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack", forbid_unknown_fields=True):
    """All events up to and with this cursor are dealt with."""

    cursor: Cursor


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping", omit_defaults=True):
    """From the server, after 15 s without an event: `cursor` is as good a place to go on as that of an event."""

    cursor: Cursor | None = None


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag="pong"):
    pass


class Subscribed(msgspec.Struct, frozen=True, kw_only=True, tag="subscribed"):
    """`cursor`: where this reader begins. `window`: how many events may be under way."""

    cursor: Cursor
    window: int


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """`event`: the envelope, or a CloudEvent."""

    cursor: Cursor
    event: msgspec.Raw


class VolatileMessage(msgspec.Struct, frozen=True, kw_only=True, tag="volatile"):
    """Not to be acknowledged. `dropped`: how many this reader was too slow for, so far."""

    event: msgspec.Raw
    dropped: int


class ProblemMessage(msgspec.Struct, frozen=True, kw_only=True, tag="problem"):
    """The last message. `problem`: RFC 9457. `cursor`: behind the last event that was acknowledged, where there is one."""

    problem: dict[str, Any]
    cursor: Cursor | None = None


FromReader = Subscribe | Ack | Ping | Pong
ToReader = Subscribed | EventMessage | VolatileMessage | Ping | Pong | ProblemMessage

decode = msgspec.json.Decoder(FromReader).decode
