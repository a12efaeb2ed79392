"""The create without the framework in between: the same checks, the same answers, for about 200 µs less of processor time.

Decides which requests are plain enough: ``POST /v1/calls`` from a key that this instance has seen within seconds, with a
JSON body that fits. All others, and so every word about what does not fit, go to the framework's own route as if nothing
had looked at them (`app.calls.routes.create_call`, which also is the one that the OpenAPI document describes).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPReceiveMessage, Receive, ReceiveMessage, Scope, Send

from app.bodies import may_have_nul, repeats_a_name
from app.calls.shapes import CreateCall
from app.control import Control
from app.exchange import exchange_of
from app.problems import send_error
from app.protocols import Headers, writable, write_whole
from app.red import OPERATION

PATH = "/v1/calls"
JSON = b"application/json"
UNUSUAL = (b"authorization", b"idempotency-key", b"content-encoding", b"transfer-encoding")
"""Headers that are not there, or not twice, where there is nothing to think about."""
_decode = msgspec.json.Decoder(CreateCall).decode
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """The headers that a create looks at."""

    authorization: str
    idempotency_key: str | None
    traceparent: str | None


class CreateLane:
    def __init__(self, app: Litestar, *, body_bytes_max: int) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _plain(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        scope[OPERATION] = "createCall"  # type: ignore[literal-required]
        home: Control = self._app.state.control
        control = home.cells.asked_by(asked.authorization)
        principal = control.auth.known(asked.authorization)
        if principal is None or "calls:write" not in principal.scopes:
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        if exchange is not None:
            exchange.by(principal, control.request_log)
        read, content = await self._read(receive)
        body = _fitting(content)
        if body is None:
            await self._app(scope, _again(read, receive), send)
            return
        try:
            created, replayed, left = await control.calls.create(
                principal, asked.idempotency_key, body, asked.traceparent
            )
        except Exception as error:  # noqa: BLE001  answered as the framework answers it
            await send_error(error, send)
            return
        answer = _encode(created)
        headers: Headers = [(b"content-type", JSON), (b"location", f"{PATH}/{created.id}".encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in left.items()]
        if replayed:
            headers.append((b"idempotent-replayed", b"true"))
        if created.traceparent:
            headers.append((b"traceparent", created.traceparent.encode()))
        cycle = writable(scope)
        if cycle is not None and exchange is not None:
            headers.append(exchange.answered(201))
            write_whole(cycle, 201, headers, answer)
            return
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _read(self, receive: Receive) -> tuple[list[HTTPReceiveMessage], bytes | None]:
        """What came, and the body; None where it is too long or was broken off."""
        read: list[HTTPReceiveMessage] = []
        size = 0
        while True:
            message = await receive()
            read.append(message)  # type: ignore[arg-type]  # of an HTTP scope
            if message["type"] != "http.request":
                return read, None
            size += len(message["body"])
            if size > self._body_bytes_max:
                return read, None
            if not message.get("more_body"):
                break
        return read, b"".join([m["body"] for m in read if m["type"] == "http.request"])


def _plain(scope: Scope) -> Asked | None:
    """None for everything but a create whose headers say nothing out of the ordinary."""
    if (
        scope["type"] != ScopeType.HTTP
        or scope["path"] != PATH
        or scope["method"] != "POST"
        or scope["query_string"]
    ):
        return None
    authorization = key = traceparent = None
    for name, value in _headers(scope):
        if name == b"authorization" and authorization is None:
            authorization = value.decode("latin-1")
        elif name == b"idempotency-key" and key is None:
            key = value.decode("latin-1")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
        elif name in UNUSUAL or (name == b"content-type" and value != JSON):
            return None
    return Asked(authorization, key, traceparent) if authorization is not None else None


def _headers(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    return scope["headers"]


def _fitting(content: bytes | None) -> CreateCall | None:
    if content is None or may_have_nul(content):
        return None
    try:
        body = _decode(content)
        return None if repeats_a_name(content) else body
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _again(read: list[HTTPReceiveMessage], receive: Receive) -> Receive:
    """Gives what was read once more, then what comes."""
    waiting = iter(read)

    async def receive_again() -> ReceiveMessage:
        for message in waiting:
            return message
        return await receive()

    return receive_again
