"""Templates to answers. Everything is escaped, nothing is cached, and the browser runs what this server serves as a file, no more.

Decides the headers of every page, how values are written (times, numbers, ids), and how files are served.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response

from app.errors import VoxplaneError

HERE = Path(__file__).parent
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "Cache-Control": "no-store",
}
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Html = Response[bytes]


@dataclass(frozen=True, slots=True)
class Asset:
    """`version`: changes with the content, so that a browser may keep it for ever."""

    body: bytes
    media_type: str
    version: str


def _assets() -> dict[str, Asset]:
    found = {}
    for path in sorted((HERE / "assets").iterdir()):
        if path.suffix in KINDS:
            body = path.read_bytes()
            found[path.name] = Asset(body, KINDS[path.suffix], hashlib.sha256(body).hexdigest()[:12])
    return found


ASSETS = _assets()


def asset(name: str) -> str:
    """The address of a file, with its version."""
    return f"/console/assets/{name}?v={ASSETS[name].version}"


def number(value: float | None, places: int = 0) -> str:
    """With thin spaces between thousands; an en dash for nothing."""
    return "–" if value is None else f"{value:,.{places}f}".replace(",", "\u202f")


def short(text: str) -> str:
    """An id so that it can be told from its neighbours: its kind and its last eight characters."""
    kind, _, tail = text.rpartition("_")
    return f"{kind}_…{tail[-8:]}" if kind and len(tail) > 12 else text


def moment(text: str | datetime | None) -> str:
    """A time as people read it. It says its zone wherever it stands."""
    if text is None:
        return "–"
    at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(text: str | datetime) -> str:
    return text if isinstance(text, str) else text.astimezone(UTC).isoformat(timespec="milliseconds")


def duration(seconds: float | None) -> str:
    """Two units at most."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, small, small_size in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def lasted(from_: str, to: str | None, now: datetime) -> float:
    """Seconds, until now where there is no end."""
    end = datetime.fromisoformat(to) if to else now
    return max(0.0, (end - datetime.fromisoformat(from_)).total_seconds())


def amount(count: float | None) -> str:
    """Of bytes, by thousands."""
    if count is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def written(value: Any) -> str:
    """JSON that somebody sent, on one line."""
    return msgspec.json.encode(value).decode()


def plain(value: Any) -> str:
    """A figure, or several, as people read them."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(inner) for inner in value) or "none"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "short": short,
        "moment": moment,
        "iso": iso,
        "duration": duration,
        "plain": plain,
    }
    made.filters |= {"bytes": amount, "written": written}
    made.globals |= {"asset": asset, "lasted": lasted}
    return made


TEMPLATES = _environment()


def text_of(template: str, **values: Any) -> str:
    return TEMPLATES.get_template(template).render(**values)


def html(template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any) -> Html:
    """`refused`, among the values: why it was not done; what it says of trying again stands in the headers, too."""
    refused = values.get("refused")
    headers = (refused.headers() if isinstance(refused, VoxplaneError) else {}) | (headers or {})
    body = text_of(template, **values).encode("utf-8", "replace")
    return Response(body, status_code=status, media_type="text/html", headers=HEADERS | headers)


def redirect(path: str, *, headers: dict[str, str] | None = None) -> Html:
    """303: what follows is a GET, and a reload repeats nothing."""
    return Response(b"", status_code=303, headers=HEADERS | {"Location": path} | (headers or {}))
