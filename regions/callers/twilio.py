"""Callers that speak Twilio Media Streams: a ``<Stream>`` of Twilio's, or whoever speaks as it does. The `Line` of an attachment.

Such a caller knows nothing of `voxplane.media.v1`: it attaches by its `start`, hears audio, `clear` and marks, and says what it
has played by the marks that come back, which carry the stamp of the lease. What else an attachment would say it is not told. It can
go to no other edge: a call that it makes has no standbys (`caller.kind` `twilio`), so that whoever holds its ticket has no second
owner to take; a move is answered for it with ``cannot_move``.

Where no mark ever comes back, the frames that do stand in for the echo, half a second late, as for a WebRTC caller without the
channel.
"""

from __future__ import annotations

import asyncio

import msgspec
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from regions.callers import twilio_stream as stream
from regions.callers.attachment import DTMF, Attachment
from regions.callers.unread import answer, reads
from regions.edge.calls import Calls, Refusal
from regions.edge.line import Carried
from regions.wire import media as wire

CLOSE_WITHIN_S = 1.0
SILENT_S = 10.0
LOOK_EVERY_S = 0.5
MARK_FRAMES = 5
"""A mark goes out so often while something is played, and five times less often else."""


class TwilioCaller(WSListener):
    format: tuple[wire.Encoding, int] | None = ("mulaw", 8_000)

    def __init__(self, calls: Calls, ticket: str = "") -> None:
        """`ticket`: of the path, where it has one."""
        self._calls = calls
        self._ticket = ticket
        self.carried = Carried()
        self.attachment = Attachment(calls, self)
        self._transport: WSTransport | None = None
        self._closing = False
        self._stream = self._reason = ""
        self._slots = 0
        self._at = wire.Position()
        self._cleared_stamp = -1
        self._marks_come = False
        self._frames = self._frames_before = 0
        self._stamp_before = 0
        self._timer: asyncio.TimerHandle | None = None

    def report(self) -> None:
        """TCP loses nothing that could be counted here."""

    # ---------------------------------------------------------------------------------------------- the socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.attachment.opened()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.attachment.lost()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closing:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif self._closing or kind == WSMsgType.PONG:
            return
        elif kind == WSMsgType.PING:
            answer(transport, frame)
        elif kind == WSMsgType.TEXT and frame.fin:
            message = frame.get_payload_as_bytes()
            self.carried.in_bytes += len(message)
            self._heard(message)
        else:
            self._refuse(
                "bad_message", "messages are JSON text, one frame each", "speak Twilio Media Streams"
            )

    def _heard(self, message: bytes) -> None:
        said = stream.read(message) if len(message) <= wire.TEXT_BYTES_MAX else None
        session = self.attachment.session if self.attachment.owning else None
        match said:
            case None:
                self._refuse(
                    "bad_message", "this is not a message of Twilio Media Streams", "see its reference"
                )
            case stream.Begun():
                self._begin(said)
            case stream.Stopped():
                if session is not None:
                    session.caller_hung_up()
                self.goodbye(refused=False)
            case _ if session is None:
                return  # audio that comes while the call is looked up
            case stream.Audio(chunk, samples):
                self._frames += 1
                session.caller_audio(self.attachment.stamp, self._at, samples, chunk & 0xFFFF)
            case stream.Played(stamp, at):
                self._marks_come = True
                if stamp > self._cleared_stamp:
                    self._at = at
                self.attachment.proved(stamp, self._at)
            case stream.Key(digit) if digit in DTMF:
                session.caller_dtmf(digit)

    def _begin(self, begun: stream.Begun) -> None:
        ticket = begun.ticket or self._ticket
        if self._stream:
            self._refuse("bad_message", "one start per socket", "open another socket")
        elif begun.fault or not begun.stream:
            self._refuse(
                "bad_format", begun.fault or "the start names no stream", "send Twilio's start as it is"
            )
        elif not ticket or len(ticket) > stream.TICKET_CHARS_MAX:
            self._refuse(
                "no_ticket", "the stream brings no ticket", "use the URL in `attach`, or the parameter ticket"
            )
        else:
            self._stream = begun.stream
            try:
                grant = self._calls.granted(ticket, alone=True)
            except Refusal as refusal:
                self._refuse(refusal.code, refusal.detail, refusal.fix)
                return
            attach = wire.Attach(ticket=ticket, epoch=grant.epoch, encoding="mulaw", sample_rate=8_000)
            self.attachment.text(msgspec.json.encode(attach))

    # ------------------------------------------------------------------------------------------------ the line

    @property
    def gone(self) -> bool:
        return self._closing or self._transport is None

    def send_text(self, message: bytes) -> None:
        """Of what an attachment says, what this caller has a word for."""
        if message.startswith(b'{"type":"clear"'):
            session = self.attachment.session
            self._cleared_stamp = session.stamp if session is not None else 0
            self._send(stream.clear(self._stream))
            self._send(stream.mark(self._stream, self._cleared_stamp, self._at))
        elif message.startswith(b'{"type":"move"') and self.attachment.session is not None:
            move = wire.to_caller_decoder.decode(message)
            if isinstance(move, wire.Move):
                self.attachment.session.moving.ready(move.epoch, "cannot_move")
        elif message.startswith(b'{"type":"refused"'):
            refused = wire.to_caller_decoder.decode(message)
            self._reason = refused.code if isinstance(refused, wire.Refused) else ""

    def send_audio(self, frame: bytes) -> None:
        _, flags, _, stamp, utterance, offset_ms = wire.HEADER.unpack_from(frame)
        self._send(stream.media(self._stream, frame[wire.HEADER_BYTES :]))
        self._slots += 1
        if flags & wire.FLAG_FILLER:
            return
        if self._slots % MARK_FRAMES == 0:
            at = wire.Position(utterance=utterance, offset_ms=offset_ms + wire.FRAME_MS)
            self._send(stream.mark(self._stream, stamp, at))

    def silent(self) -> None:
        self._slots += 1
        if self._slots % (MARK_FRAMES * 5) == 0 and (session := self.attachment.session) is not None:
            self._send(stream.mark(self._stream, session.stamp, self._at))

    def goodbye(self, *, refused: bool) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        code = WSCloseCode.POLICY_VIOLATION if refused else WSCloseCode.OK
        transport.send_close(code, self._reason.encode()[:100] or None)
        asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, transport.disconnect)

    def drop(self, *, silent: bool) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        if silent:
            asyncio.get_running_loop().call_later(SILENT_S, transport.disconnect, False)
        else:
            transport.disconnect(False)

    def owned(self) -> None:
        if self.attachment.session is not None:
            self.attachment.proved(self.attachment.session.stamp)
        self._look()

    def _look(self) -> None:
        """Every half second, while no mark has come back."""
        session = self.attachment.session
        if self._marks_come or self.gone or session is None:
            return
        if self._frames > self._frames_before:
            self.attachment.proved(self._stamp_before or session.stamp, self._at)
        self._frames_before, self._stamp_before = self._frames, session.stamp
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _refuse(self, code: str, detail: str, fix: str) -> None:
        self.attachment.refuse(code, detail, fix)

    def _send(self, message: bytes) -> None:
        transport = self._transport
        if transport is None or self._closing or not reads(transport):
            return
        self.carried.out_bytes += len(message)
        transport.send(WSMsgType.TEXT, message)
