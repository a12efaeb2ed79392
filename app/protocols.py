"""How the server speaks HTTP and WebSocket, with one thing more: who serves a request can drop its connection at once.

A reader that has stopped reading is not got rid of by closing: what is still to be sent would be kept for it, for as long as its
machine answers.
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import uuid4

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.errors import BadRequest, VoxplaneError
from app.problems import PROBLEM, problem_body

ABORT = "voxplane.abort"


class UnknownMethod(VoxplaneError):
    code, status, title = "unknown_method", 501, "There is no such method"
    fix = "Use a method of HTTP, such as GET or POST; GET /openapi.json lists those of each route."


class Malformed(BadRequest):
    code, title = "malformed_http", "This is not HTTP"
    fix = "Send HTTP/1.1, with one Host header and no control characters in header lines."


_REASONS = {400: b"Bad Request", 501: b"Not Implemented"}


class Http(HttpToolsProtocol):
    def on_headers_complete(self) -> None:
        """Raises where the request does not say once whom it is for (RFC 9112, 3.2); the parser hands that on as its own error."""
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise httptools.HttpParserError("host")
        # the request's own scope, before it is served
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read reaches no application. Called where its error is at hand."""
        unknown = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
        self.transport.write(unread(UnknownMethod() if unknown else Malformed()))
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
