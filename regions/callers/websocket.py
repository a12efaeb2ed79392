"""Callers over WebSocket (``voxplane.media.v1``): the socket itself. What is said on it is `Attachment`'s."""

from __future__ import annotations

import asyncio
import ssl

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from regions.callers.attachment import Attachment
from regions.callers.pings import Pings
from regions.callers.probe import probe_listener
from regions.callers.twilio import TwilioCaller
from regions.callers.unread import answer, reads
from regions.edge.calls import Calls
from regions.edge.line import Carried
from regions.wire import media as wire

TWILIO = wire.TWILIO_PATH.encode()
CLOSE_WITHIN_S = 1.0
SILENT_S = 10.0
"""So long a caller of a call that was cut finds the connection open."""
FRAME_BYTES_MAX = 256 * 1024
HANDSHAKE_WITHIN_S = 5


async def listen(calls: Calls, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """The edge's media listener; port 0 for any. Pings are left to the listeners: the toolkit would answer all, read or not."""
    return await ws_create_server(
        lambda request: route(calls, request),
        host,
        port,
        max_frame_size=FRAME_BYTES_MAX,
        websocket_handshake_timeout=HANDSHAKE_WITHIN_S,
        enable_auto_pong=False,
        ssl=tls,
    )


def route(calls: Calls, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
    """The listener for a path; None answers 404."""
    path = request.path.split(b"?")[0]
    if path == b"/probe":
        return probe_listener(calls.context.probing, request)
    if path == TWILIO or path.startswith(TWILIO + b"/"):
        return TwilioCaller(calls, path[len(TWILIO) + 1 :].decode("latin-1"))
    if path != wire.MEDIA_PATH.encode():
        return None
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    listener = CallerListener(calls)
    if wire.SUBPROTOCOL in [p.strip() for p in offered.split(",")]:
        headers = {"Sec-WebSocket-Protocol": wire.SUBPROTOCOL}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), listener)
    return listener


class CallerListener(WSListener):
    """One caller's socket: the `Line` of its attachment."""

    format = None

    def report(self) -> None:
        """TCP loses nothing that could be counted here."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.carried = Carried()
        self.attachment = Attachment(calls, self)
        self._transport: WSTransport | None = None
        self._closing = False
        self._pings: Pings | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.attachment.opened()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self._stop_pings()
        self.attachment.lost()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closing:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif self._closing:
            return
        elif kind in (WSMsgType.BINARY, WSMsgType.TEXT) and frame.fin:
            message = frame.get_payload_as_bytes()
            self.carried.in_bytes += len(message)
            (self.attachment.audio if kind == WSMsgType.BINARY else self.attachment.text)(message)
        elif kind == WSMsgType.PING:
            answer(transport, frame)
        elif kind == WSMsgType.PONG:
            if self._pings is not None:
                self._pings.pong(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self.attachment.refuse("bad_message", "messages come in one frame", "do not fragment")

    # ------------------------------------------------------------------------------------------------ the line

    @property
    def gone(self) -> bool:
        return self._closing or self._transport is None

    def send_text(self, message: bytes) -> None:
        if self._transport is not None and not self._closing:
            self.carried.out_bytes += len(message)
            self._transport.send(WSMsgType.TEXT, message)

    def send_audio(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        if not reads(transport):
            return
        self.carried.out_bytes += len(frame)
        transport.send(WSMsgType.BINARY, frame)

    def silent(self) -> None:
        return

    def goodbye(self, *, refused: bool) -> None:
        """Leaves the hanging up to the caller, for a while: closing over unread audio would reset the connection, and the last
        message with it."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._stop_pings()
        transport.send_close(WSCloseCode.POLICY_VIOLATION if refused else WSCloseCode.OK)
        asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, transport.disconnect)

    def drop(self, *, silent: bool) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._stop_pings()
        if silent:
            asyncio.get_running_loop().call_later(SILENT_S, transport.disconnect, False)
        else:
            transport.disconnect(False)

    def owned(self) -> None:
        if self._transport is not None and self._pings is None:
            self._pings = Pings(self._calls.context.probing, self._transport)
            self._pings.start()

    def _stop_pings(self) -> None:
        if self._pings is not None:
            self._pings.stop()
