"""The round trip to an attached caller, as this edge sees it: WebSocket pings with a nonce, which every client answers by itself.

Decides when a ping goes out and what a pong says. The stamps of the lease are no measure: a caller can foretell them, and it sends
them back with its next frame, up to 20 ms later. A pong comes at once, and carries what nobody could have known before.
"""

from __future__ import annotations

import asyncio
import os
import random

from picows import WSMsgType, WSTransport

from regions.edge.clock import precise_ms
from regions.edge.probing import Probing
from regions.edge.witnesses import Trips

WINDOW = 5
"""After so many samples they are handed on; what is left when the socket closes, too."""
NONCE_BYTES = 8


class Pings:
    """Of one socket. One ping is out at a time; a client that never answers is asked once."""

    def __init__(self, probing: Probing, transport: WSTransport) -> None:
        self._probing = probing
        self._transport = transport
        self._network: str | None = None
        self._nonce = b""
        self._sent_ms = 0.0
        self._trips = Trips()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Nothing where this edge pings nobody."""
        if self._probing.pings_every_s > 0 and self._timer is None:
            peername = self._transport.underlying_transport.get_extra_info("peername")
            self._network = self._probing.network(
                peername, self._transport.request.headers.getall("x-forwarded-for", [])
            )
            self._ping()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._hand_on()

    def pong(self, payload: bytes) -> None:
        if not self._nonce or payload != self._nonce:
            return
        self._trips.add(precise_ms() - self._sent_ms)
        self._nonce = b""
        if self._trips.samples >= WINDOW:
            self._hand_on()

    def _ping(self) -> None:
        pause_s = self._probing.pings_every_s * random.uniform(0.75, 1.25)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._ping)
        if self._nonce:
            return
        self._nonce = os.urandom(NONCE_BYTES)
        self._sent_ms = precise_ms()
        self._transport.send(WSMsgType.PING, self._nonce)

    def _hand_on(self) -> None:
        trips, self._trips = self._trips, Trips()
        self._probing.witnesses.caller(self._network, trips)
