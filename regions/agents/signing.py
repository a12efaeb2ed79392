"""The signature on the upgrade of a backend's socket: by it the backend knows that the call is ours, and of its project. Pure.

    X-Voxplane-Call: call_…
    X-Voxplane-Timestamp: 1790000000
    X-Voxplane-Signature: v1,<base64 of HMAC-SHA256(secret, "{timestamp}.{call}.{url}")>

One signature for each secret that is valid, with a space between them. `url` is the one of the create, as it was written there.
In the `twilio` dialect there is `X-Twilio-Signature` as well, base64 of HMAC-SHA1(secret, url), which Twilio's own validators check
(twilio.com/docs/usage/security). It has room for one signature: while two secrets are valid it is the older one's, so that a
validator is given the new secret at any time before the old one expires.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from regions.wire.ticket import AgentSecret

TWILIO = "twilio"


def upgrade_headers(
    secrets: Sequence[AgentSecret], *, url: str, call: str, dialect: str, now_s: int
) -> dict[str, str]:
    """`secrets`: the newest first. None of them valid: no headers, as from an API that is older than this edge."""
    valid = [s.secret.encode() for s in secrets if s.until_s == 0 or now_s < s.until_s]
    if not valid:
        return {}
    signed = f"{now_s}.{call}.{url}".encode()
    headers = {
        "X-Voxplane-Call": call,
        "X-Voxplane-Timestamp": str(now_s),
        "X-Voxplane-Signature": " ".join("v1," + _mac(secret, signed, "sha256") for secret in valid),
    }
    if dialect == TWILIO:
        headers["X-Twilio-Signature"] = _mac(valid[-1], url.encode(), "sha1")
    return headers


def _mac(secret: bytes, signed: bytes, digest: str) -> str:
    return base64.b64encode(hmac.digest(secret, signed, digest)).decode()
