"""Calls that a drill has cut on this edge: what is done to one, and what is said of it.

A cut call is treated as if this process had died, for that call alone: its caller's connection is gone without a word (or stays
open and silent), its backend's too, its lease is over, and what the log has not acknowledged is never sent. What was found at
that moment is kept for a while, so that a report which got lost is given again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import structlog

from regions.edge.clock import wall_ms
from regions.edge.session import Session
from regions.wire.events import Origin
from regions.wire.uplink import Cut

log = structlog.get_logger()

CUTS_KEPT = 5_000
UNACKED_SAID_MAX = 200


class Cuts:
    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, int], Cut] = OrderedDict()

    def cut(self, call: str, epoch: int, how: str, owning: Iterable[Session]) -> Cut:
        """`owning`: the sessions that own the call here. The same again gives the same report."""
        if (made := self._made.get((call, epoch))) is not None:
            return made
        session = next((s for s in owning if s.epoch == epoch and not s.moving.gone), None)
        if session is None:
            return Cut(call=call, epoch=epoch, held=False)
        outbox = session.outbox
        made = Cut(
            call=call,
            epoch=epoch,
            at_ms=wall_ms(),
            acked_seq=outbox.acked_seq,
            unacked=[e.origin or Origin(epoch=epoch, n=e.n) for e in outbox.unacked[:UNACKED_SAID_MAX]],
        )
        session.lapsed = True
        outbox.close()
        session.cut(silent=how == "silent")
        log.info("call.cut", call=call, epoch=epoch, how=how[:16], unacked=len(made.unacked))
        self._made[(call, epoch)] = made
        while len(self._made) > CUTS_KEPT:
            self._made.popitem(last=False)
        return made
