"""Callers over WebSocket (``voxplane.media.v1``).

Decides what a socket may do and when it is refused; what a message means for the call is the session's. A socket that
talks nonsense is refused alone. One task per socket runs only while it attaches; frames are handled where they arrive.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
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

from regions.callers.pings import Pings
from regions.callers.probe import probe_listener
from regions.edge.calls import Calls, Refusal
from regions.edge.session import Session
from regions.edge.takeover import TakeoverPlan, left_edge
from regions.wire import media as wire
from regions.wire.ticket import Grant, Sealed

log = structlog.get_logger()

ATTACH_WITHIN_S = 5.0
PREPARED_KEPT_S = 30.0
CLOSE_WITHIN_S = 1.0
SILENT_S = 10.0
"""So long a caller of a call that was cut finds the connection open."""
UNSENT_BYTES_MAX = 256 * 1024
FRAME_BYTES_MAX = 256 * 1024
DTMF = frozenset("0123456789*#ABCD")


def route(calls: Calls, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
    """The listener for a path; None answers 404."""
    path = request.path.split(b"?")[0]
    if path == b"/probe":
        return probe_listener(calls.context.probing, request)
    if path != wire.MEDIA_PATH.encode():
        return None
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    listener = CallerListener(calls)
    if wire.SUBPROTOCOL in [p.strip() for p in offered.split(",")]:
        headers = {"Sec-WebSocket-Protocol": wire.SUBPROTOCOL}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), listener)
    return listener


class CallerListener(WSListener):
    """One caller's socket: the `CallerPort` of its session."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._transport: WSTransport | None = None
        self._session: Session | None = None
        self._attach: wire.Attach | None = None
        self._sealed: Sealed | None = None
        self._plan: TakeoverPlan | None = None
        self._taking = False
        """A take was sent here; it is never withdrawn, and sending it again changes nothing."""
        self._owning = False
        self._closing = False
        self._pings: Pings | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------- the socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._expect_within(ATTACH_WITHIN_S)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self._stop_pings()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._session is not None:
            self._session.leave(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closing:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif self._closing:
            return
        elif kind == WSMsgType.BINARY and frame.fin:
            self._audio(frame.get_payload_as_bytes())
        elif kind == WSMsgType.TEXT and frame.fin:
            self._text(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PONG:
            if self._pings is not None:
                self._pings.pong(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._refuse("bad_message", "messages come in one frame", "do not fragment")

    @property
    def _gone(self) -> bool:
        """Nobody is there to be served any more. Asked after each wait."""
        return self._closing or self._transport is None

    # -------------------------------------------------------------------------------------- the caller port

    def send_text(self, message: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.send(WSMsgType.TEXT, message)

    def send_audio(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        if transport.underlying_transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            # a caller that does not read: its network is gone; it attaches again where it can
            transport.disconnect(False)
            return
        transport.send(WSMsgType.BINARY, frame)

    def close(self) -> None:
        self._close(WSCloseCode.OK)

    def cut(self, *, silent: bool) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._stop_pings()
        if silent:
            asyncio.get_running_loop().call_later(SILENT_S, transport.disconnect, False)
        else:
            transport.disconnect(False)

    def _close(self, code: WSCloseCode) -> None:
        """Says goodbye and leaves the hanging up to the caller, for a while: closing over unread audio would reset the
        connection, and the last message with it."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._stop_pings()
        transport.send_close(code)
        asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, transport.disconnect)

    # ------------------------------------------------------------------------------------------- what comes

    def _audio(self, payload: bytes) -> None:
        if self._session is None or not self._owning:
            if not self._taking:
                self._refuse("not_attached", "audio before an attach", "send attach first")
            return
        if not wire.HEADER_BYTES < len(payload) <= wire.BINARY_BYTES_MAX or payload[0] != wire.AUDIO:
            self._refuse(
                "bad_frame",
                "this is not an audio frame",
                "a header of 20 bytes, then at most 200 ms of samples",
            )
            return
        stamp = wire.HEADER.unpack_from(payload)[3]
        self._session.caller_audio(stamp, payload[wire.HEADER_BYTES :])

    def _text(self, payload: bytes) -> None:
        try:
            if len(payload) > wire.TEXT_BYTES_MAX:
                raise msgspec.DecodeError
            message = wire.from_caller_decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._refuse(
                "bad_message", "this is not a message of voxplane.media.v1", "see docs/reference/media.md"
            )
            return
        session = self._session
        match message:
            case wire.Attach():
                if self._attach is not None:
                    self._refuse("bad_message", "one attach per socket", "open another socket")
                    return
                self._attach = message
                self._task = asyncio.create_task(self._join(message))
            case wire.Take():
                self._take(message)
            case wire.Alive() if self._taking and not self._owning:
                return
            case _ if session is None or not self._owning:
                self._refuse("not_attached", "nothing before an attach", "send attach first")
            case wire.Alive():
                session.caller_alive(message.stamp)
            case wire.Dtmf():
                if message.digit in DTMF:
                    session.caller_dtmf(message.digit)
                else:
                    self._refuse("bad_message", "this is not a DTMF digit", "send one of 0-9 * # A-D")
            case wire.Hangup():
                session.caller_hung_up()
            case wire.Ready():
                session.moving.ready(message.epoch, message.code)
            case wire.Moved():
                session.caller_moved(message.epoch)

    async def _join(self, attach: wire.Attach) -> None:
        try:
            if attach.sample_rate not in wire.SAMPLE_RATES:
                raise Refusal(
                    "bad_rate", "this sample rate is not spoken here", f"use one of {wire.SAMPLE_RATES}"
                )
            claims, grant, sealed = self._calls.admit(attach)
            existing = self._calls.existing(claims.call, attach.epoch)
            if existing is not None and attach.mode != "prepare":
                self._own(existing)
                existing.resume(self, attach.encoding, attach.sample_rate)
                return
            if attach.mode == "resume":
                raise Refusal(
                    "not_held", "this edge does not hold the call any more", "take the next standby"
                )
            session = self._calls.open(claims, grant, sealed)
            if attach.mode == "attach":
                self._calls.own(session)
                self._own(session)
                session.attach(self, attach.encoding, attach.sample_rate)
                log.info("call.attached", call=session.call, epoch=session.epoch)
                return
            self._session, self._sealed = session, sealed
            self._plan = await self._calls.plan(session, sealed, attach.resume)
            if self._gone:
                return
            if attach.mode == "take":
                self._take(wire.Take(resume=attach.resume or wire.Resume(), reason=attach.reason))
                return
            self._expect_within(PREPARED_KEPT_S)
            prepared = wire.Prepared(
                call=session.call, epoch=session.epoch, stamp=session.stamp, source=self._plan.source
            )
            self.send_text(msgspec.json.encode(prepared))
        except Refusal as refusal:
            self._refuse(refusal.code, refusal.detail, refusal.fix, refusal.following)

    def _take(self, take: wire.Take) -> None:
        session, sealed, plan, attach = self._session, self._sealed, self._plan, self._attach
        if self._taking:
            return
        if session is None or sealed is None or plan is None or attach is None or self._owning:
            self._refuse("bad_message", "nothing is prepared here", "send attach with mode prepare first")
            return
        self._taking = True
        self._task = asyncio.create_task(self._take_prepared(take, session, sealed, attach))

    async def _take_prepared(
        self, take: wire.Take, session: Session, sealed: Sealed, attach: wire.Attach
    ) -> None:
        try:
            plan = await self._calls.plan(session, sealed, take.resume)
            if self._gone:
                return
            self._calls.own(session, first=plan.fresh)
        except Refusal as refusal:
            self._refuse(refusal.code, refusal.detail, refusal.fix, refusal.following)
            return
        self._own(session)
        session.take(self, attach.encoding, attach.sample_rate, plan, take.reason)
        left = left_edge(session.claims, plan, session.epoch)
        # an edge that had no room for a new call, and said so, has failed nobody
        sent_on = plan.fresh and take.reason == "refused"
        if left is not None and take.reason != "planned" and not sent_on:
            self._calls.context.failed(session.call, left, take.reason)
        log.info(
            "call.taken",
            call=session.call,
            epoch=session.epoch,
            from_epoch=plan.from_epoch,
            reason=take.reason,
            history=plan.source,
            adopted=len(plan.adopt),
        )

    def _own(self, session: Session) -> None:
        self._session = session
        self._owning = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and self._pings is None:
            self._pings = Pings(self._calls.context.probing, self._transport)
            self._pings.start()

    def _stop_pings(self) -> None:
        if self._pings is not None:
            self._pings.stop()

    def _expect_within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            seconds, self._refuse, "too_late", "nothing came in time", "attach right after connecting"
        )

    def _refuse(self, code: str, detail: str, fix: str, following: Grant | None = None) -> None:
        log.info("caller.refused", code=code)
        refused = wire.Refused(code=code, detail=detail, fix=fix)
        if following is not None:
            url, epoch = following.url + wire.MEDIA_PATH, following.epoch
            refused = msgspec.structs.replace(refused, next_url=url, next_epoch=epoch)
        self.send_text(msgspec.json.encode(refused))
        self._close(WSCloseCode.POLICY_VIOLATION)
