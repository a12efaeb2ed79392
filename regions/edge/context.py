"""What a call needs of the edge around it, and nothing more."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from regions.agents.dial import Dial, dial
from regions.edge.backend_counts import BackendCounts
from regions.edge.probing import Probing
from regions.edge.recall import TailSource
from regions.edge.settings import EdgeSettings
from regions.wire.observations import Reason

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
    probing: Probing = field(default_factory=Probing)
