"""What a call needs of the edge around it, and nothing more."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from regions.agents.dial import Dial, dial
from regions.edge.answers import AnswerTimes
from regions.edge.backend_counts import BackendCounts
from regions.edge.call_counts import CallCounts
from regions.edge.call_trace import trace_call
from regions.edge.probing import Probing
from regions.edge.recall import TailSource
from regions.edge.settings import EdgeSettings
from regions.edge.watch import Watch
from regions.media.voice_activity import VoiceDetector, VoiceGate
from regions.wire.observations import Reason
from regions.wire.otlp import OFF
from regions.wire.span_export import Spans
from regions.wire.ticket import Claims, Grant, Sealed

if TYPE_CHECKING:
    from regions.edge.session import Session


class UplinkPort(Protocol):
    """The way to the log. Neither method blocks or raises, whatever the state of the uplink."""

    def notify(self, session: Session) -> None:
        """The call has events to send."""
        ...

    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None:
        """A live-only event: sent if the uplink is up, else forgotten."""
        ...


@dataclass(slots=True)
class EdgeContext:
    settings: EdgeSettings
    uplink: UplinkPort
    tls: ssl.SSLContext
    new_event_id: Callable[[], str]
    release: Callable[[Session], None]
    tails: TailSource | None = None
    ended: Callable[[str, int], None] = lambda _call, _epoch: None
    """A call has been ended by its owner here; the highest epoch that its ticket grants."""
    dial: Dial = dial
    failed: Callable[[str, str, Reason], None] = lambda _call, _edge, _reason: None
    """A caller has come here because its edge failed it: the call, the edge, why."""
    backends: BackendCounts = field(default_factory=BackendCounts)
    counts: CallCounts = field(default_factory=CallCounts)
    answers: AnswerTimes = field(default_factory=AnswerTimes)
    probing: Probing = field(default_factory=Probing)
    spans: Spans = field(default_factory=lambda: Spans(OFF, {}))
    certificate_ends_in_s: Callable[[], float] = lambda: math.inf
    """Of the listeners; infinite where they are plain."""
    voice: Callable[[], VoiceDetector] = VoiceGate
    """One for each call."""

    def watch(self, claims: Claims, grant: Grant, sealed: Sealed) -> Watch:
        """Of one ownership of a call."""
        return Watch(self.counts, trace_call(self.spans, sealed.trace, claims.call, grant.epoch))
