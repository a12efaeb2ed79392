"""What an event says of the line between a caller and an edge, and of what was carried over it. Generated, as `event_data`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Milliseconds = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One direction."""

    loss: Annotated[float, Meta(ge=0, le=1, description="Of what was sent: lost, or too late to be used.")]
    jitter_ms: Annotated[float, Meta(ge=0, description="RFC 3550, 6.4.1.")]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The line between the caller and this owner of the call, since it has it. `up`: what the caller has sent. `down`: what it was
    sent, where it reports that (WebRTC)."""

    period_ms: Milliseconds
    up: Way
    mos: Annotated[
        float, Meta(ge=1, le=5, description="ITU-T G.107, simplified: 1 to 4.4, of the worse direction.")
    ]
    mos_min: Annotated[float, Meta(ge=1, le=5, description="Of the worst ten seconds.")]
    down: Way | None = None
    rtt_ms: Milliseconds | None = None


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that this owner of the call has carried: messages with their headers, or RTP with its own. `in`: they came to the edge.

    What was not sent because it was silence: of the caller's side, of the backend's, and in all. `caller_ms` and
    `agent_ms`: so long the caller was attached to it, and a backend connected.
    """

    caller_in_bytes: Bytes
    caller_out_bytes: Bytes
    agent_in_bytes: Bytes
    agent_out_bytes: Bytes
    caller_saved_bytes: Bytes
    agent_saved_bytes: Bytes
    silence_saved_bytes: Bytes
    caller_ms: Milliseconds = 0
    agent_ms: Milliseconds = 0
