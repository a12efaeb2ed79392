"""Verifies that it is Voxplane who opens a backend's WebSocket, with nothing but the standard library.

Works on the headers of the upgrade, whatever serves it: `request.headers` of websockets, `websocket.headers` of Starlette.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Mapping

from voxplane.errors import VoxplaneError

TOLERANCE_S = 300


class UpgradeError(VoxplaneError):
    """`code`: ``missing_header``, ``bad_timestamp``, ``too_old``, ``too_new`` or ``bad_signature``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def verify_upgrade(
    headers: Mapping[str, str],
    url: str,
    secrets: str | list[str],
    *,
    tolerance_s: int = TOLERANCE_S,
    now_s: float | None = None,
) -> str:
    """The id of the call, if one of the signatures is of one of the secrets; raises `UpgradeError`. `url`: as the call's create
    has it (`agent.url` or `agent.fallback_url`), not as a proxy hands it on."""
    lower = {k.lower(): v for k, v in headers.items()}
    try:
        call, timestamp, given = (lower[f"x-voxplane-{n}"] for n in ("call", "timestamp", "signature"))
    except KeyError as missing:
        raise UpgradeError("missing_header", f"the header {missing.args[0]} is missing") from None
    if not timestamp.isascii() or not timestamp.isdigit():
        raise UpgradeError("bad_timestamp", "x-voxplane-timestamp is not a number of seconds")
    age_s = (time.time() if now_s is None else now_s) - int(timestamp)
    if age_s > tolerance_s:
        raise UpgradeError("too_old", "the upgrade was signed too long ago")
    if age_s < -tolerance_s:
        raise UpgradeError("too_new", "the upgrade was signed in the future")
    signed = f"{timestamp}.{call}.{url}".encode()
    signatures = [s.partition(",")[2].encode() for s in given.split(" ") if s.startswith("v1,")]
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        expected = base64.b64encode(hmac.digest(secret.encode(), signed, "sha256"))
        if any(hmac.compare_digest(expected, s) for s in signatures):
            return call
    raise UpgradeError("bad_signature", "no signature is of one of the secrets")
