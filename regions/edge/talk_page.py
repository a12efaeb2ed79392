"""The page at ``/talk``: a microphone and a loudspeaker for one's own bot, in a browser. Read once; needs nothing from elsewhere.

The files in ``regions/edge/talk`` are generated from ``openapi/clients/typescript``. The page takes its ticket in the fragment of
its address, which no browser sends: nothing of a call reaches this listener. What the page may do is said in its policy: run its
own two scripts, and reach edges by WebSocket or by an offer, for those of a call have addresses that this one cannot know.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("talk")
HTML, CSS, JS = b"text/html; charset=utf-8", b"text/css; charset=utf-8", b"text/javascript; charset=utf-8"
PARTS = {
    "/talk": ("talk.html", HTML),
    "/talk/talk.css": ("talk.css", CSS),
    "/talk/talk.js": ("talk.js", JS),
    "/talk/worklet.js": ("worklet.js", JS),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws: wss: http: https:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True, slots=True)
class Part:
    headers: list[tuple[bytes, bytes]]
    body: bytes


class TalkPage:
    """Raises `OSError` where its files are not installed."""

    def __init__(self) -> None:
        self._parts = {
            path: _part((FOLDER / name).read_bytes(), kind) for path, (name, kind) in PARTS.items()
        }

    def part(self, path: str) -> Part | None:
        return self._parts.get(path)


def _part(body: bytes, kind: bytes) -> Part:
    length = str(len(body)).encode()
    return Part([*HEADERS, (b"content-type", kind), (b"content-length", length)], body)
