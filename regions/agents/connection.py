"""A call's connection to the customer's backend: opens it, speaks the dialect, says what came and how it ended.

Decides which URL is tried and how a close is to be read (`Ending`). A backend that closes with 1000, or without a code, has
hung up; anything else, a lost connection too, is a crash, after which the call may dial again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from regions.agents.dial import Dial, DialError, dial
from regions.agents.dialect import (
    AgentAudio,
    AgentClear,
    AgentHangup,
    AgentMark,
    AgentSilence,
    AgentText,
    AgentUtterance,
    Dialect,
    Start,
)
from regions.edge.line import Carried
from regions.media.silence import SilenceDiscard
from regions.wire.ticket import Agent

log = structlog.get_logger()

CONNECT_DEADLINE_S = 2.0
HURRIED_DEADLINE_S = 1.0
"""Of the first URL where a caller waits and there is a second one."""
UNREAD_BYTES_MAX = 512 * 1024
MESSAGE_BYTES_MAX = 1 << 20
CLEAN_CODES = (1000, 1005)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a backend's socket ended. `clean`: it has hung up. `why`: ``closed`` (a close frame, with its `code`), ``lost`` (the
    connection broke, or answered no ping), ``does_not_read``, ``too_large`` (a message), ``hung_up_at_once`` (see `agent_leg`)."""

    clean: bool
    why: str
    code: int | None = None

    def data(self) -> dict[str, object]:
        data: dict[str, object] = {"clean": self.clean, "why": self.why}
        return data if self.code is None else data | {"code": self.code}


LOST = Ending(clean=False, why="lost")
TOO_LARGE = Ending(clean=False, why="too_large")


class AgentEvents(Protocol):
    """What a call is told by its backend. Called on the event loop; never awaited. `owns` is asked before everything that is said
    to the backend but the goodbye: a process that was stopped goes on in the middle of what it did."""

    def owns(self) -> bool: ...
    def on_audio(self, samples: bytes) -> None:
        """In the format of the dialect."""
        ...

    def on_mark(self, name: str) -> None: ...
    def on_clear(self, chunk: bytes | None) -> None:
        """Takes back what is not played yet; only of one chunk, where it is named."""
        ...

    def on_text(self, type_: str, data: bytes) -> None: ...
    def on_utterance(self, id_: str, offset_ms: int) -> None:
        """What follows is another utterance, or the rest of one."""
        ...

    def on_hangup(self, reason: str) -> None:
        """The backend ends the call, once what it has said is heard."""
        ...

    def on_closed(self, connection: AgentConnection, ending: Ending) -> None: ...


class AgentConnection:
    """`fallback`: whether the second URL was the one that answered. `said`: something has come of it."""

    def __init__(
        self,
        events: AgentEvents,
        dialect: Dialect,
        *,
        dial: Dial = dial,
        signed: Callable[[str], Mapping[str, str]] = lambda _url: {},
        carried: Carried | None = None,
    ) -> None:
        """`signed`: the headers with which a URL is dialled. `carried`: counts what goes over it."""
        self._events: AgentEvents | None = events
        self._signed = signed
        self._carried = carried or Carried()
        self._dialect = dialect
        self._audio_kind = WSMsgType.BINARY if dialect.binary else WSMsgType.TEXT
        self._dial = dial
        self._transport: WSTransport | None = None
        self._listener: _Listener | None = None
        self.speaks_text = dialect.speaks_text
        self._discard: SilenceDiscard | None = None
        self.fallback = False
        self.said = False

    async def open(
        self,
        agent: Agent,
        start: Start,
        *,
        local_targets: bool,
        tls: ssl.SSLContext,
        hurry: bool = False,
    ) -> None:
        """Dials `url`, then `fallback_url`; sends the dialect's opening. Raises the `DialError` of the last one tried. `hurry`:
        somebody waits, and the second URL is not kept waiting for long."""
        urls = [agent.url, agent.fallback_url] if agent.fallback_url else [agent.url]
        away = False
        for i, url in enumerate(urls):
            assert url is not None
            try:
                brief = hurry and i + 1 < len(urls)
                deadline_s = HURRIED_DEADLINE_S if brief else CONNECT_DEADLINE_S
                silent_s = agent.reconnect.silent_s
                transport = await self._connect(
                    url, deadline_s, local_targets=local_targets, silent_s=silent_s, tls=tls
                )
            except DialError as error:
                self._listener = None
                error.away = away = away or error.away
                log.info("agent.unreachable", attempt=i + 1, code=error.code)
                if i + 1 == len(urls):
                    raise
                continue
            if self._events is None or not self._events.owns():
                transport.disconnect(False)
                raise DialError("lapsed", "the call has gone while its backend was dialled")
            self.fallback = i > 0
            self._transport = transport
            for message in self._dialect.opening(start):
                self._carried.out_bytes += len(message)
                transport.send(WSMsgType.TEXT, message)
            return

    async def _connect(
        self, url: str, deadline_s: float, *, local_targets: bool, silent_s: float, tls: ssl.SSLContext
    ) -> WSTransport:
        """A backend that closes before anything was said to it was not reached: there is no call that it could hang up on."""
        listener = self._listener = _Listener(self)
        transport = await self._dial(
            url,
            lambda: listener,
            local_targets=local_targets,
            deadline_s=deadline_s,
            silent_s=silent_s,
            tls=tls,
            headers=self._signed(url),
        )
        if listener.over:
            transport.disconnect(False)
            raise DialError("handshake", "the backend closed right after the handshake")
        return transport

    @property
    def up(self) -> bool:
        return self._transport is not None

    def send_audio(self, frame: bytes, *, voice: bool | None = True) -> None:
        """20 ms in the format of the dialect. `voice`: the caller is heard to speak; None: nobody listens for that."""
        discard = self._discard
        if discard is None:
            self._send(self._dialect.audio(frame), self._audio_kind)
            return
        before = discard.discarded_frames
        for part in discard.frame(frame, voice=voice):
            if isinstance(part, int):
                self._send(self._dialect.text("silence", {"ms": part}))
            else:
                self._send(self._dialect.audio(part), self._audio_kind)
        self._carried.saved_bytes += (discard.discarded_frames - before) * len(frame)

    def send_mark(self, name: str) -> None:
        self._send(self._dialect.mark(name))

    def send_dtmf(self, digit: str) -> None:
        self._send(self._dialect.dtmf(digit))

    def send_text(self, type_: str, data: object) -> None:
        """Only to a backend that has shown that it speaks the extension."""
        if self.speaks_text:
            self._send(self._dialect.text(type_, data))

    def close(self, *, stop: bool = True) -> None:
        """Says `stop` and closes; nothing is reported after it."""
        self._events = None
        transport, self._transport = self._transport, None
        if transport is not None:
            if stop:
                if last := self._dialect.stop():
                    transport.send(WSMsgType.TEXT, last)
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def _send(self, message: bytes, kind: WSMsgType = WSMsgType.TEXT) -> None:
        transport = self._transport
        if not message or transport is None or self._events is None or not self._events.owns():
            return
        if transport.underlying_transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            log.warning("agent.does_not_read")
            self.lost(Ending(clean=False, why="does_not_read"))
            transport.disconnect(False)
            return
        self._carried.out_bytes += len(message)
        transport.send(kind, message)

    def received(self, listener: _Listener, message: bytes, *, binary: bool) -> None:
        events = self._events
        if events is None or listener is not self._listener:
            return
        self.said = True
        self._carried.in_bytes += len(message)
        match self._dialect.read(message, binary=binary):
            case AgentAudio(samples):
                events.on_audio(samples)
            case AgentText(type_, data):
                self.speaks_text = True
                events.on_text(type_, data)
            case AgentMark(name):
                events.on_mark(name)
            case AgentClear(chunk):
                events.on_clear(chunk)
            case AgentUtterance(id_, offset_ms):
                events.on_utterance(id_, offset_ms)
            case AgentSilence(discard):
                self._discard = SilenceDiscard(self._dialect.format) if discard else None
            case AgentHangup(reason):
                events.on_hangup(reason)

    def closed(self, listener: _Listener, ending: Ending) -> None:
        """A socket is gone. One that was never in use, or is not any more, was seen to where it was dialled."""
        if listener is self._listener and self._transport is not None:
            self.lost(ending)

    def lost(self, ending: Ending) -> None:
        events, self._events = self._events, None
        self._transport = None
        if events is not None:
            events.on_closed(self, ending)


class _Listener(WSListener):
    """Puts fragments together and tells a hang-up from a crash. `over`: the backend has closed, or is gone."""

    def __init__(self, connection: AgentConnection) -> None:
        self._connection = connection
        self._parts = bytearray()
        self._binary = False
        self._ending = LOST
        self.over = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            if kind != WSMsgType.CONTINUATION:
                self._binary = kind == WSMsgType.BINARY
            if frame.fin and not self._parts:
                self._connection.received(self, frame.get_payload_as_bytes(), binary=self._binary)
                return
            self._parts += frame.get_payload_as_bytes()
            if len(self._parts) > MESSAGE_BYTES_MAX:
                self._ending = TOO_LARGE
                transport.disconnect(False)
            elif frame.fin:
                message = bytes(self._parts)
                self._parts.clear()
                self._connection.received(self, message, binary=self._binary)
        elif kind == WSMsgType.CLOSE:
            self.over = True
            payload = frame.get_payload_as_bytes()
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            self._ending = Ending(clean=code is None or code in CLEAN_CODES, why="closed", code=code)
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.over = True
        # what was wrong with the last frame is known only behind this
        asyncio.ensure_future(transport.wait_disconnected()).add_done_callback(self._gone)

    def _gone(self, waited: asyncio.Future[None]) -> None:
        error = None if waited.cancelled() else waited.exception()
        if isinstance(error, WSProtocolError) and error.args[0] == WSCloseCode.MESSAGE_TOO_BIG:
            self._ending = TOO_LARGE
        self._connection.closed(self, self._ending)
