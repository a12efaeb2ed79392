"""What an endpoint may ask for beyond its shape: a URL that may be dialled, types that exist, headers that are ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from app.errors import FieldError
from app.pointers import escaped
from app.webhooks.signature import read_secret
from regions.wire.addresses import AddressError, check_url
from regions.wire.events import EVENT_TYPES
from regions.wire.targets import Targets

SCHEMES = ("https", "http")
PORTS = {"https": 443, "http": 80}
ENDPOINTS_MAX = 50
CALL_URLS_MAX = 5_000
"""So many different URLs may stand in the creates of a project at a time."""
SECRETS_MAX = 5
HEADERS_BYTES_MAX = 4_096
METADATA_KEY_MAX = 64
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?|")
RESERVED = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host",
        "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
RESERVED_PREFIXES = ("webhook-", "voxplane-", "proxy-")

DURABLE = tuple(sorted(name for name, kind in EVENT_TYPES.items() if kind.durable))


def url_faults(url: str, *, local_targets: bool, listed: Targets | None) -> list[FieldError]:
    try:
        check_url(url, schemes=SCHEMES, local_targets=local_targets, listed=listed)
    except AddressError as error:
        return [FieldError(pointer="/url", detail=f"{error.detail}. {error.fix}")]
    return []


def canonical(url: str) -> str:
    """The same for what leads to the same place. `url`: one that `url_faults` has nothing against."""
    parts = urlsplit(url)
    port = parts.port or PORTS[parts.scheme]
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path or '/'}?{parts.query}"


def type_faults(types: Iterable[str] | None) -> list[FieldError]:
    """A wildcard stands for everything that begins so: `call.*`; `*` alone for all."""
    return [
        FieldError(pointer=f"/types/{i}", detail=_unknown(name))
        for i, name in enumerate(types or [])
        if not _known(name)
    ]


def stored_types(types: list[str] | None) -> list[str] | None:
    """As the database keeps them: None for all."""
    return None if types is None or "*" in types else sorted(set(types))


def metadata_faults(metadata: Mapping[str, str] | None) -> list[FieldError]:
    return [
        FieldError(
            pointer=f"/metadata/{escaped(name)}", detail=f"a key has 1 to {METADATA_KEY_MAX} characters"
        )
        for name in metadata or {}
        if not 1 <= len(name) <= METADATA_KEY_MAX
    ]


def header_faults(headers: Mapping[str, str] | None) -> list[FieldError]:
    faults: list[FieldError] = []
    for name, value in (headers or {}).items():
        pointer = f"/headers/{escaped(name)}"
        if not _NAME.fullmatch(name):
            faults.append(
                FieldError(pointer=pointer, detail="this is no header name (RFC 9110, up to 64 characters)")
            )
        elif name.lower() in RESERVED or name.lower().startswith(RESERVED_PREFIXES):
            faults.append(FieldError(pointer=pointer, detail="this header is ours, or the connection's"))
        elif not _VALUE.fullmatch(value):
            faults.append(
                FieldError(pointer=pointer, detail="a value has printable ASCII, with no space at its ends")
            )
    names = [n.lower() for n in headers or {}]
    if len(set(names)) < len(names):
        faults.append(FieldError(pointer="/headers", detail="a header stands there twice"))
    if sum(len(n) + len(v) for n, v in (headers or {}).items()) > HEADERS_BYTES_MAX:
        faults.append(FieldError(pointer="/headers", detail=f"more than {HEADERS_BYTES_MAX} bytes in all"))
    return faults


def secret_faults(secret: str | None) -> list[FieldError]:
    if secret is None or read_secret(secret) is not None:
        return []
    detail = "expected whsec_ and 24 to 64 random bytes in base64; leave it out, and one is made"
    return [FieldError(pointer="/secret", detail=detail)]


def _unknown(name: str) -> str:
    if name in EVENT_TYPES:
        return "is never stored, so no endpoint gets it: follow a stream with volatile=true"
    return "there is no such event type"


def _known(name: str) -> bool:
    if name == "*":
        return True
    if name.endswith(".*"):
        return any(known.startswith(name[:-1]) and known.count(".") == 1 for known in DURABLE)
    return name in DURABLE
