"""Signatures after Standard Webhooks 1.0 (standardwebhooks.com): ``v1``, HMAC-SHA256 over ``id.timestamp.body``. Pure."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 24


def write_secret(secret: bytes) -> str:
    """The form in which a customer keeps it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[bytes]) -> str:
    """The ``webhook-signature`` header: one signature per secret that is valid now, so that secrets rotate with an overlap."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(s, signed, "sha256")).decode() for s in secrets)


def headers(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[bytes]) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": sign(message_id, timestamp_s, body, secrets),
        "content-type": "application/json",
        "user-agent": "Voxplane-Webhooks/1",
    }
