"""How the server speaks HTTP and WebSocket, with one thing more: who serves a request can drop its connection at once.

A reader that has stopped reading is not got rid of by closing: what is still to be sent would be kept for it, for as long as its
machine answers.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT = "voxplane.abort"


class Http(HttpToolsProtocol):
    def on_headers_complete(self) -> None:
        # the request's own scope, before it is served
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort
        super().on_headers_complete()


class WebSocket(WebSocketsSansIOProtocol):
    async def run_asgi(self) -> None:
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort
        await super().run_asgi()


def abort(scope: Any) -> None:
    """Drops the connection of this scope; does nothing where another server serves it."""
    drop = scope.get(ABORT)
    if drop is not None:
        drop()
