"""How the server speaks HTTP and WebSocket: its library's protocols, and what these leave open.

Decides how a connection ends that its other side does not end well: who has sent whole requests is answered, who sends no request, or
none that comes to its end, is told so and cut off. Lets who serves a request drop its connection at once, and give the whole of
an answer in one write. Leaves what is answered to the application.

A reader that has stopped reading is not got rid of by closing: what is still to be sent would be kept for it, for as long as its
machine answers. An answer that goes out in two writes costs two system calls, and wakes its reader twice.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import uuid4

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.errors import BadRequest, VoxplaneError
from app.problems import PROBLEM, problem_body

ABORT = "voxplane.abort"
CYCLE = "voxplane.cycle"
"""Where in the scope of a request stands what its answer goes through."""
Headers = list[tuple[bytes, bytes]]
WISH = (b"upgrade", b"http2-settings")
"""The headers of a wish for another protocol, which `connection` names too."""


READ_WITHIN_S = 30.0
"""A request is read whole within so long, and half as much again at the most: who sends one byte a minute holds no connection."""


class UnknownMethod(VoxplaneError):
    code, status, title = "unknown_method", 501, "There is no such method"
    fix = "Use a method of HTTP, such as GET or POST; GET /openapi.json lists those of each route."


class Malformed(BadRequest):
    code, title = "malformed_http", "This is not HTTP"
    fix = "Send HTTP/1.1, with one Host header and no control characters in header lines."


class TooSlow(VoxplaneError):
    code, status, title = "request_timeout", 408, "The request did not come to its end"
    fix = f"Send the head of a request and its whole body within {READ_WITHIN_S:g} s; nothing of it was done."


_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 501: b"Not Implemented"}


class Http(HttpToolsProtocol):
    """Requests that were read whole are answered, in their order, also where no more can come: their sender has closed its own
    direction (`nc -N`, some clients of HTTP/1.0), or what it sent behind them cannot be read, or does not come to its end. The
    connection ends with that.

    A stream that has begun ends with its reader's direction: who goes away is not told from who only reads on. With TLS nothing is
    answered after the sender's end, for the event loop closes such a connection itself."""

    _served: RequestResponseCycle | None = None
    _last: bytes | None = None
    """What is written behind the last answer; None while requests may come."""
    _begun_s = 0.0
    """Since when a request is awaited that has begun, or the first; 0 while none is."""
    _silent = True
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begun_s = self.loop.time()
        self._watch = self.loop.call_later(READ_WITHIN_S / 2, self._look)

    def _look(self) -> None:
        """One timer for a connection, not for each request."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        late = self._begun_s and self.loop.time() - self._begun_s >= READ_WITHIN_S
        if late and self._silent:
            self.transport.close()
        elif late and self._last is None and not self.flow.read_paused:
            self._refuse(unread(TooSlow()))
        self._watch = self.loop.call_later(READ_WITHIN_S / 2, self._look)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._last is not None:
            return
        self._unset_keepalive_if_required()
        self._silent = False
        if not self._begun_s:
            self._begun_s = self.loop.time()
        left: bytes | None = data
        while left is not None:
            left = self._read(left)

    def _read(self, data: bytes) -> bytes | None:
        """What is to be read next, where it is not over."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response(str(error))
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._wants_another_protocol():
                return self._without_the_wish(data[upgrade.args[0] :])
            else:
                self._unsupported_upgrade_warning()
        return None

    def _wants_another_protocol(self) -> bool:
        """Than HTTP/1.1 and WebSocket: Java's client asks for ``h2c`` with every request on a plain connection."""
        return self.parser.should_upgrade() and self._get_upgrade() not in (None, b"websocket")

    def _without_the_wish(self, rest: bytes) -> bytes:
        """The wish is not heard, as RFC 9110 (7.8) has it. The parser leaves the body of such a request to the other protocol: it
        is read again without the wish. `rest`: what came behind its head."""
        head = [
            self.parser.get_method(),
            b" ",
            self.url,
            b" HTTP/",
            self.parser.get_http_version().encode(),
            b"\r\n",
        ]
        for name, value in self.headers:
            if name == b"connection":
                named = [token.strip() for token in value.split(b",")]
                value = b", ".join([token for token in named if token.lower() not in WISH])
            if name not in WISH and value:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n", rest])

    def eof_received(self) -> bool:  # type: ignore[override]
        """True: the connection stays open, for answers."""
        served = self._served
        if served is None or served.response_complete or served.more_body or self.scheme == "https":
            return False
        if served.response_started and served.chunked_encoding:
            return False
        self._answer_and_end(b"")
        return True

    def _answer_and_end(self, last: bytes) -> None:
        """Those that wait are answered, the newest only if it is whole."""
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
        if self._last is None:
            self._last = last

    def on_response_complete(self) -> None:
        waiting = bool(self.pipeline)
        super().on_response_complete()
        if self._last is not None and not waiting and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.transport.write(self._last)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server itself tells only the newest request; where others came before it, the one that is served is another."""
        served = self._served
        if served is not None and not served.response_complete:
            served.disconnected = True
            served.message_event.set()
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._begun_s = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Raises where the request does not say once whom it is for (RFC 9112, 3.2); the parser hands that on as its own error."""
        if self._wants_another_protocol():
            return
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise httptools.HttpParserError("host")
        # the request's own scope, before it is served
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort
        super().on_headers_complete()
        scope[CYCLE] = self.cycle

    def on_message_complete(self) -> None:
        if not self._wants_another_protocol():
            self._begun_s = 0.0
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read reaches no application. Called where its error is at hand."""
        unknown = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
        self._refuse(unread(UnknownMethod() if unknown else Malformed()))

    def _refuse(self, answer: bytes) -> None:
        """Nothing more is read. Those that were read whole are answered first."""
        served = self._served
        if served is not None and not served.response_complete and not served.more_body:
            self._answer_and_end(answer)
            self.flow.pause_reading()
            return
        if served is None or served.response_complete or not served.response_started:
            self.transport.write(answer)
        self.transport.close()


class WebSocket(WebSocketsSansIOProtocol):
    def data_received(self, data: bytes) -> None:
        """The upgrade is read a second time, with narrower limits (8 KiB for a header): without a word of ours its sender would wait
        for ever for what cannot be read."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(unread(Malformed()))
            self.transport.close()

    async def run_asgi(self) -> None:
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort
        await super().run_asgi()


def unread(error: VoxplaneError) -> bytes:
    """The whole answer to a request that could not be read; the connection ends with it, for where the next begins is not known."""
    rid = uuid4().hex
    body = msgspec.json.encode(problem_body(error) | {"request_id": rid})
    head = (
        b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nrequest-id: %b\r\nconnection: close\r\n\r\n"
        % (error.status, _REASONS[error.status], PROBLEM.encode(), len(body), rid.encode())
    )
    return head + body


def abort(scope: Any) -> None:
    """Drops the connection of this scope; does nothing where another server serves it."""
    drop = scope.get(ABORT)
    if drop is not None:
        drop()


def writable(scope: Any) -> RequestResponseCycle | None:
    """What `write_whole` takes. None where another server serves this scope, or its reader is behind: then it is for `send`."""
    cycle: RequestResponseCycle | None = scope.get(CYCLE)
    if cycle is None or cycle.response_started or cycle.flow.write_paused:
        return None
    return cycle


def write_whole(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    """The answer, which is over with it. `headers`: well-formed and in lower case, without those of its length and its connection.
    Nothing is written to a reader that has gone."""
    if cycle.disconnected:
        return
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    ends = b"" if cycle.keep_alive else b"connection: close\r\n"
    parts.append(b"content-length: %d\r\n%b\r\n" % (len(body), ends))
    parts.append(body)
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
