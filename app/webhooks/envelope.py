"""What a webhook request says: the body, the signatures of every secret that is valid now, and the endpoint's own headers.

Decides no more than that: what is sent when is the delivery's, where it may go the sender's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.log.cloudevents import CONTENT_TYPE, cloudevent
from app.vault import Vault
from app.webhooks.signature import headers, public_key, sign, sign_asymmetric
from regions.wire import ids
from regions.wire.events import PublicEvent

JSON = "application/json"
OVERTOOK = "Voxplane-Overtook"
REPLAY = "Voxplane-Replay"


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """As it stands in the row; `expires_at` None: the newest."""

    wrapped: str
    created_at: str
    expires_at: str | None = None


_secrets = msgspec.json.Decoder(list[Secret])
_headers = msgspec.json.Decoder(dict[str, str])


class Envelopes:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def body(self, endpoint: Mapping[str, Any], event: PublicEvent) -> bytes:
        if endpoint["format"] != "cloudevents":
            return msgspec.json.encode(event)
        return msgspec.json.encode(cloudevent(event, project=ids.encode(ids.PROJECT, endpoint["project_id"])))

    async def headers(
        self,
        endpoint: Mapping[str, Any],
        message_id: str,
        body: bytes,
        now: datetime,
        *,
        content_type: str = JSON,
    ) -> dict[str, str]:
        """All but `Voxplane-Overtook`. Raises `VaultError` where something cannot be opened with this master key."""
        valid = [s for s in secrets_of(endpoint) if not has_expired(s, now)]
        timestamp_s = int(now.timestamp())
        signatures: list[str] = []
        if "v1" in endpoint["signatures"]:
            signatures.append(sign(message_id, timestamp_s, body, [self._opened(endpoint, s) for s in valid]))
        if "v1a" in endpoint["signatures"]:
            keys = [await self.private_key(endpoint["project_id"], endpoint["id"], s) for s in valid]
            signatures.append(sign_asymmetric(message_id, timestamp_s, body, keys))
        return {**self._own(endpoint), **headers(message_id, timestamp_s, " ".join(signatures), content_type)}

    async def private_key(self, project_id: UUID, webhook_id: UUID, secret: Secret) -> Ed25519PrivateKey:
        """Of one endpoint, renewed with its secret. It is derived, so that it is stored nowhere."""
        key = await self._vault.for_project(project_id)
        label = f"webhook v1a:{webhook_id}:{secret.created_at}"
        return Ed25519PrivateKey.from_private_bytes(key.derive(label.encode()))

    async def public_keys(self, endpoint: Mapping[str, Any], now: datetime) -> list[str]:
        """`whpk_…`, the newest first; empty where the endpoint wants none."""
        if "v1a" not in endpoint["signatures"]:
            return []
        return [
            public_key(await self.private_key(endpoint["project_id"], endpoint["id"], s))
            for s in secrets_of(endpoint)
            if not has_expired(s, now)
        ]

    def wrap_secret(self, webhook_id: UUID, secret: bytes) -> str:
        return base64.b64encode(self._vault.provider.wrap(secret, f"webhook:{webhook_id}")).decode()

    def wrap_headers(self, webhook_id: UUID, own: dict[str, str]) -> bytes:
        return self._vault.provider.wrap(msgspec.json.encode(own), f"webhook headers:{webhook_id}")

    def _opened(self, endpoint: Mapping[str, Any], secret: Secret) -> bytes:
        return self._vault.provider.unwrap(base64.b64decode(secret.wrapped), f"webhook:{endpoint['id']}")

    def _own(self, endpoint: Mapping[str, Any]) -> dict[str, str]:
        sealed = endpoint["headers"]
        if not sealed:
            return {}
        return _headers.decode(self._vault.provider.unwrap(sealed, f"webhook headers:{endpoint['id']}"))


def type_of(endpoint: Mapping[str, Any]) -> str:
    """The content type of the endpoint's events."""
    return CONTENT_TYPE if endpoint["format"] == "cloudevents" else JSON


def secrets_of(endpoint: Mapping[str, Any]) -> list[Secret]:
    """The newest first."""
    found = endpoint["secrets"]
    return msgspec.convert(found, list[Secret]) if isinstance(found, list) else _secrets.decode(found)


def has_expired(secret: Secret, now: datetime) -> bool:
    return secret.expires_at is not None and datetime.fromisoformat(secret.expires_at) <= now


def name_of(endpoint: Mapping[str, Any]) -> str:
    return ids.encode(ids.WEBHOOK, endpoint["id"])
