"""The echo that callers measure round trips with, and by which this edge measures them.

Decides what a probe is and when a socket has had enough; how much one network may do is `ProbeGate`'s. A client that offers
``voxplane.probe.v1`` gets a nonce with each echo, and shows it in its next probe: the time from the echo to that probe is a round
trip as this edge has seen it. A client can be slow, and seem farther away than it is; nearer it cannot seem, for it cannot know
a nonce before it has arrived. Who offers nothing gets what it sent.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import OrderedDict

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from regions.callers.unread import answer
from regions.edge.clock import precise_ms
from regions.edge.probe_gate import (
    LIFETIME_S,
    MESSAGE_BYTES_MAX,
    MESSAGES_PER_SOCKET_MAX,
    SOCKET_BYTES_MAX,
    WORDS,
)
from regions.edge.probing import Probing
from regions.edge.witnesses import Trips
from regions.wire.media import PROBE_SUBPROTOCOL

NONCE_BYTES = 8
LINGER_S = 0.5
LINGERING_MAX = 128
NONCES_MAX = 16
"""Echoes of one socket that have not been answered; an older nonce is not known any more."""
TOO_MUCH = frozenset({"network_sockets", "edge_sockets", "network_rate", "edge_rate"})
_PROBE = re.compile(rb"([0-9A-Za-z]{1,16})(?: ([0-9a-f]{16}))?")


def probe_listener(probing: Probing, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if PROBE_SUBPROTOCOL not in [p.strip() for p in offered.split(",")]:
        return ProbeListener(probing, measures=False)
    response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": PROBE_SUBPROTOCOL})
    return WSUpgradeResponseWithListener(response, ProbeListener(probing, measures=True))


class ProbeListener(WSListener):
    """One socket, for a few seconds."""

    def __init__(self, probing: Probing, *, measures: bool) -> None:
        self._probing = probing
        self._measures = measures
        self._network: str | None = None
        self._in = self._over = self._lingers = False
        self._messages = self._bytes = 0
        self._sent_ms: OrderedDict[bytes, float] = OrderedDict()
        self._trips = Trips()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _sender(self) -> str:
        return self._network or ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        peername = transport.underlying_transport.get_extra_info("peername")
        self._network = self._probing.network(
            peername, transport.request.headers.getall("x-forwarded-for", [])
        )
        why = self._probing.gate.open(self._sender, precise_ms() / 1000)
        if why is not None:
            self._refuse(transport, why)
            return
        self._in = True
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LIFETIME_S, self._end, transport, "the time is over")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lingers:
            self._lingers = False
            self._probing.lingering -= 1
        if self._in:
            self._in = False
            self._probing.gate.closed(self._sender)
            self._probing.witnesses.caller(self._network, self._trips)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self._over:
            if kind == WSMsgType.CLOSE:
                transport.disconnect()
            return
        if kind == WSMsgType.CLOSE:
            self._end(transport, "")
            return
        now_ms = precise_ms()
        payload = frame.get_payload_as_bytes()
        why = self._too_much(len(payload)) or self._probing.gate.message(self._sender, now_ms / 1000)
        if why is not None:
            self._refuse(transport, why)
        elif self._measures and kind == WSMsgType.TEXT:
            self._measure(transport, payload, now_ms)
        elif kind == WSMsgType.PING:
            answer(transport, frame)
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(kind, payload)

    def _measure(self, transport: WSTransport, payload: bytes, now_ms: float) -> None:
        probe = _PROBE.fullmatch(payload)
        if probe is None:
            self._refuse(transport, self._probing.gate.refuse("not_a_probe"))
            return
        if (shown := probe[2]) is not None:
            sent_ms = self._sent_ms.pop(shown, None)
            if sent_ms is None:
                self._trips = Trips()
                self._refuse(transport, self._probing.gate.refuse("bad_nonce"))
                return
            self._trips.add(now_ms - sent_ms)
        nonce = os.urandom(NONCE_BYTES).hex().encode()
        if len(self._sent_ms) >= NONCES_MAX:
            self._sent_ms.popitem(last=False)
        self._sent_ms[nonce] = precise_ms()
        transport.send(WSMsgType.TEXT, probe[1] + b" " + nonce)

    def _too_much(self, size: int) -> str | None:
        self._messages += 1
        self._bytes += size
        gate = self._probing.gate
        if size > MESSAGE_BYTES_MAX:
            return gate.refuse("message_bytes")
        if self._messages > MESSAGES_PER_SOCKET_MAX:
            return gate.refuse("socket_messages")
        return gate.refuse("socket_bytes") if self._bytes > SOCKET_BYTES_MAX else None

    def _refuse(self, transport: WSTransport, why: str) -> None:
        """Closing over what was not read would reset the connection, and the words with it: a few may hang up by themselves."""
        probing = self._probing
        code = WSCloseCode.TRY_AGAIN_LATER if why in TOO_MUCH else WSCloseCode.POLICY_VIOLATION
        self._over = True
        transport.send_close(code, WORDS[why].encode())
        if self._timer is not None:
            self._timer.cancel()
        if probing.lingering >= LINGERING_MAX:
            transport.disconnect(False)
            return
        probing.lingering += 1
        self._lingers = True
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.disconnect, False)

    def _end(self, transport: WSTransport, words: str) -> None:
        self._over = True
        transport.send_close(WSCloseCode.OK, words.encode())
        transport.disconnect()
