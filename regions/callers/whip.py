"""The signalling of callers over WebRTC, as HTTP: the shape of WHIP (RFC 9725), for audio in both directions. One function.

    POST   /v1/webrtc        an SDP offer, the ticket as bearer → 201, the answer, and in Location the session
    PATCH  /v1/webrtc/{id}   more candidates of the caller (trickle ICE, RFC 8840) → 204
    DELETE /v1/webrtc/{id}   hangs up → 200
    OPTIONS                  what a browser asks before them → 204

Every error is a problem (RFC 9457) with a `code` and a `fix`. The id of a session is a secret of 122 bits: who has it may end it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from regions.wire.media import WEBRTC_PATH as PATH

BODY_BYTES_MAX = 64 * 1024
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
METHODS = b"POST, PATCH, DELETE, OPTIONS"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


class Rejected(Exception):
    """An offer, or what came after it, that is answered with `status`. `code` is stable; `fix` says how to mend it."""

    def __init__(self, status: int, code: str, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.fix = status, code, detail, fix


class Signalling(Protocol):
    """Every method raises `Rejected`."""

    async def offer(self, sdp: str, bearer: str) -> tuple[str, str]:
        """The session's id, and the answer with all its candidates."""
        ...

    async def trickle(self, name: str, fragment: str) -> None: ...
    def hang_up(self, name: str) -> None: ...
    def close(self) -> None:
        """All of them are let go."""
        ...


def is_whip(path: str) -> bool:
    return path == PATH or path.startswith(PATH + "/")


async def whip(signalling: Signalling | None, scope: dict[str, Any], receive: Receive) -> Answer:
    try:
        if scope["method"] == "OPTIONS":
            return 204, _PREFLIGHT, b""
        if signalling is None:
            raise Rejected(
                501,
                "no_webrtc",
                "this edge does not serve WebRTC",
                "attach over WebSocket, or set VOXPLANE_WEBRTC=1",
            )
        return await _answer(signalling, scope, receive)
    except Rejected as error:
        body = {
            "type": f"urn:voxplane:problem:{error.code}", "title": error.detail, "status": error.status, "detail": error.detail,
            "code": error.code, "fix": error.fix,
        }  # fmt: skip
        headers = [(b"content-type", b"application/problem+json")]
        if error.status == 405:
            headers.append((b"allow", METHODS))
        return error.status, headers, msgspec.json.encode(body)


async def _answer(signalling: Signalling, scope: dict[str, Any], receive: Receive) -> Answer:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    method, name = scope["method"], scope["path"].removeprefix(PATH).strip("/")
    match method, bool(name):
        case "POST", False:
            scheme, _, bearer = headers.get(b"authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not bearer:
                raise Rejected(
                    401, "no_ticket", "the request carries no ticket", "send Authorization: Bearer <ticket>"
                )
            sdp = await _body(headers, receive, SDP)
            session, answer = await signalling.offer(sdp, bearer)
            location = f"{PATH}/{session}".encode()
            return 201, [(b"content-type", SDP.encode()), (b"location", location)], answer.encode()
        case "PATCH", True:
            await signalling.trickle(name, await _body(headers, receive, FRAGMENT))
            return 204, [], b""
        case "DELETE", True:
            signalling.hang_up(name)
            return 200, [(b"content-type", b"text/plain")], b""
    raise Rejected(
        405, "method_not_allowed", "this resource does not take that method", "see docs/reference/webrtc.md"
    )


async def _body(headers: dict[bytes, str], receive: Receive, kind: str) -> str:
    if headers.get(b"content-type", "").partition(";")[0].strip().lower() != kind:
        raise Rejected(415, "bad_content_type", f"the body is not {kind}", f"send Content-Type: {kind}")
    body = bytearray()
    while True:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise Rejected(400, "cut_short", "the body ended early", "send it whole")
        body += part.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise Rejected(
                413, "too_large", f"the body has more than {BODY_BYTES_MAX} bytes", "send a smaller offer"
            )
        if not part.get("more_body"):
            break
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Rejected(422, "bad_sdp", "the body is not UTF-8", "send SDP as text") from None


_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", METHODS),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"86400"),
]
