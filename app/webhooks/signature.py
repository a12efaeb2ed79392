"""Signatures after Standard Webhooks 1.0 (standardwebhooks.com), over ``id.timestamp.body``. Pure.

``v1`` is HMAC-SHA256 under a secret that both sides have; ``v1a`` is Ed25519 (RFC 8032), which whoever has the public key can
check and only we can make.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
SECRET_BYTES = 24
SECRET_BYTES_MAX = 64


def write_secret(secret: bytes) -> str:
    """The form in which a customer keeps it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def read_secret(text: str) -> bytes | None:
    """The secret a customer brings: `whsec_` and 24 to 64 bytes in base64; None where it is anything else."""
    if not text.startswith(SECRET_PREFIX):
        return None
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return secret if SECRET_BYTES <= len(secret) <= SECRET_BYTES_MAX else None


def public_key(private: Ed25519PrivateKey) -> str:
    return PUBLIC_PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode()


def sign(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[bytes]) -> str:
    """For the ``webhook-signature`` header: one signature per secret that is valid now, so that secrets rotate with an overlap."""
    signed = _signed(message_id, timestamp_s, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(s, signed, "sha256")).decode() for s in secrets)


def sign_asymmetric(message_id: str, timestamp_s: int, body: bytes, keys: Iterable[Ed25519PrivateKey]) -> str:
    signed = _signed(message_id, timestamp_s, body)
    return " ".join("v1a," + base64.b64encode(key.sign(signed)).decode() for key in keys)


def headers(message_id: str, timestamp_s: int, signatures: str) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signatures,
        "content-type": "application/json",
        "user-agent": "Voxplane-Webhooks/1",
    }


def _signed(message_id: str, timestamp_s: int, body: bytes) -> bytes:
    return f"{message_id}.{timestamp_s}.".encode() + body
