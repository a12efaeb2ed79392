"""A call on its way to another edge, as the one that is left sees it: what the caller is told, and when it is let go.

Leaves the when to `handover`; what a move looks like to the caller stands in docs/reference/media.md.
"""

from __future__ import annotations

from collections import deque

import structlog

from regions.edge.caller_leg import CallerLeg
from regions.edge.handover import Drop, Go, Handover, Offer
from regions.wire import media as wire

log = structlog.get_logger()

TICKETS_KEPT = 4


class Moving:
    def __init__(self, call: str, caller: CallerLeg) -> None:
        self._call = call
        self._caller = caller
        self._tickets: deque[str] = deque(maxlen=TICKETS_KEPT)
        self._first = 0
        self._handover: Handover | None = None
        self._arrived = False

    @property
    def gone(self) -> bool:
        """The caller was told to take the new edge."""
        return self._handover is not None and self._handover.gone

    @property
    def wanted(self) -> bool:
        """There is a grant that the caller may still be sent to."""
        return self._handover is not None and not self._handover.failed

    @property
    def not_taken(self) -> int | None:
        """The first epoch of a move that has come to nothing: none of its grants can be had."""
        return self._first if self._handover is not None and self._handover.failed else None

    def start(
        self, ticket: str, epochs: list[int], within_ms: int, now_ms: int, *, first: int | None = None,
        forced: bool = True,
    ) -> None:  # fmt: skip
        """Replaces a move that has not gone yet; said again, it begins again. `first`: of all that its ticket grants.
        `forced`: when the time is over, it is made in the middle of a turn."""
        if self.gone:
            return
        self._first = min(epochs) if first is None else first
        self._handover = Handover(epochs, now_ms, within_ms, forced=forced)
        self.renewed(ticket)

    def renewed(self, ticket: str) -> None:
        """A ticket with better standbys."""
        self._tickets.append(ticket)
        self._caller.tell(wire.Ticket(ticket=ticket))

    def stay(self, epoch: int | None = None) -> None:
        """The move that began with `epoch` is off, but not one that was asked for after it; too late where the caller has gone."""
        if not self.gone and (epoch is None or self._first <= epoch):
            self._handover = None

    def ready(self, epoch: int, code: str) -> None:
        if self._handover is None:
            return
        if code:
            log.info("call.not_moved", call=self._call, to_epoch=epoch, code=code[:32])
        self._handover.ready(epoch, code)

    def again(self, now_ms: int) -> None:
        """The caller has come back on a new socket, and may have missed what the old one was told."""
        for ticket in self._tickets:
            self._caller.tell(wire.Ticket(ticket=ticket))
        if self._handover is not None and not self.gone:
            self._handover.again(now_ms)

    def goes(self, now_ms: int, *, boundary: bool) -> bool:
        """Whether the next `turn` tells the caller to go: what is sent to it before goes with it to the new edge."""
        return self._handover is not None and self._handover.goes(now_ms, boundary=boundary)

    def arrived(self, higher: bool) -> bool:
        """The caller says that it is served elsewhere, at a higher epoch; whether that is so."""
        self._arrived = self._arrived or (higher and self.gone)
        return self._arrived

    def turn(self, now_ms: int, *, boundary: bool, silent: bool) -> bool:
        """Call once in 20 ms, when the caller has the newest snapshot. True: the call is to be let go without a word. `silent`:
        nothing of the agent's is being played."""
        if self._arrived:
            return silent
        if self._handover is None:
            return False
        match self._handover.tick(now_ms, boundary=boundary):
            case Offer(epoch, within_ms):
                self._caller.tell(wire.Move(epoch=epoch, within_ms=within_ms))
            case Go(epoch):
                log.info("call.going", call=self._call, to_epoch=epoch)
                self._caller.tell(wire.Go(epoch=epoch))
            case Drop():
                log.info("call.pushed", call=self._call)
                return True
        return False
