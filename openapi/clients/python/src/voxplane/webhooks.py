"""Verifies webhooks after Standard Webhooks 1.0 (``v1``, HMAC-SHA256) with nothing but the standard library."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from voxplane.errors import VoxplaneError

TOLERANCE_S = 300


class WebhookError(VoxplaneError):
    """`code`: ``missing_header``, ``bad_timestamp``, ``too_old``, ``too_new``, ``bad_secret``, ``bad_signature`` or ``bad_body``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | list[str],
    *,
    tolerance_s: int = TOLERANCE_S,
    now_s: float | None = None,
) -> dict[str, Any]:
    """The event, if one of the signatures is of one of the secrets; raises `WebhookError`. Give it the body as received."""
    lower = {k.lower(): v for k, v in headers.items()}
    try:
        message_id, timestamp, given = (lower[f"webhook-{n}"] for n in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookError("missing_header", f"the header {missing.args[0]} is missing") from None
    if not timestamp.isascii() or not timestamp.isdigit():
        raise WebhookError("bad_timestamp", "webhook-timestamp is not a number of seconds")
    age_s = (time.time() if now_s is None else now_s) - int(timestamp)
    if age_s > tolerance_s:
        raise WebhookError("too_old", "the webhook was signed too long ago")
    if age_s < -tolerance_s:
        raise WebhookError("too_new", "the webhook was signed in the future")
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [s.partition(",")[2] for s in given.split(" ") if s.startswith("v1,")]
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        expected = base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()
        if any(hmac.compare_digest(expected.encode(), s.encode()) for s in signatures):
            break
    else:
        raise WebhookError("bad_signature", "no signature is of one of the secrets")
    try:
        event: dict[str, Any] = json.loads(body)
    except ValueError:
        raise WebhookError("bad_body", "the body is not JSON") from None
    return event


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise WebhookError("bad_secret", "a secret looks like whsec_ and base64") from None
