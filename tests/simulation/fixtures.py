"""What a simulated deployment has from the start: its project, keys and edges. Nothing in here decides anything."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.fleet.keyring import raw_public
from app.projects.auth import Principal
from app.vault import CallKey
from regions.wire.ids import uuid7
from regions.wire.keeping import sealing
from regions.wire.ticket import b64
from regions.wire.uplink import FleetKey, Keys
from tests.simulation.clocks import WALL_BASE_S
from tests.simulation.plan import REGIONS


def _id(n: int) -> UUID:
    return uuid7((WALL_BASE_S - 3600) * 1000 + n, n)


def _secret(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=32).digest()


PROJECT = _id(1)
WEBHOOK = _id(2)
HOOKS_URL = "https://hooks.example.com/"
HOOK_TYPES = ["call.created", "call.answered", "call.reconnecting", "call.ended", "tool.called"]
EDGES = {region: _id(10 + i) for i, region in enumerate(REGIONS)}
CONTENT = CallKey(_secret("content"), b"wrapped")
PRINCIPAL = Principal(PROJECT, _id(4), "live", "owner", frozenset(), 0)


class FixedProjectKey:
    """`app.vault.ProjectKey` whose calls all have one key."""

    @staticmethod
    def new_call(call_id: UUID) -> CallKey:
        return CONTENT


class FixedVault:
    """`app.vault.Vault` with keys that never change."""

    class provider:
        @staticmethod
        def unwrap(wrapped: bytes, bound_to: str) -> bytes:
            return wrapped

        @staticmethod
        def derive(purpose: bytes) -> bytes:
            return _secret(purpose.hex())

    async def for_project(self, project_id: UUID) -> type[FixedProjectKey]:
        return FixedProjectKey

    async def of_call(self, project_id: UUID, call_id: UUID, wrapped: bytes | None) -> CallKey | None:
        return CONTENT if wrapped == CONTENT.wrapped else None


_signing = Ed25519PrivateKey.from_private_bytes(_secret("signing"))
_public = raw_public(_signing.public_key())
PUBLIC_KEYS: dict[str, Ed25519PublicKey] = {"sig_1": _signing.public_key()}
FLEET_KEYS = {"fk_1": _secret("fleet")}


class FixedKeyring:
    """`app.fleet.keyring.Keyring` with keys that never change."""

    def __init__(self) -> None:
        self.signer = ("sig_1", _signing)
        self.fleet_key = ("fk_1", FLEET_KEYS["fk_1"])
        self.fleet_keys = [FleetKey(id="fk_1", key=b64(FLEET_KEYS["fk_1"]))]
        self.fleet_secrets = FLEET_KEYS
        self.seal = sealing(lambda: self.fleet_key)
        self.public_keys = PUBLIC_KEYS

    async def open(self) -> None:
        return

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "sig_1", "x": b64(_public)}]}


class EdgeKeys:
    """`regions.edge.keyring.Keyring` of an edge that has had its keys before."""

    def __init__(self) -> None:
        self.public = PUBLIC_KEYS
        self.fleet = FLEET_KEYS
        self.newest = ("fk_1", FLEET_KEYS["fk_1"])

    def update(self, keys: Keys) -> None:
        return


def webhook_row() -> dict[str, Any]:
    secrets = [{"id": "s", "wrapped": b64(b"secret") + "==", "created_at": "", "expires_at": None}]
    return {
        "id": WEBHOOK, "project_id": PROJECT, "scope": "project", "url": HOOKS_URL, "enabled": True, "types": HOOK_TYPES,
        "local_targets": False, "signatures": ["v1"], "headers": None, "format": "voxplane",
        "secrets": msgspec.json.encode(secrets).decode(),
    }  # fmt: skip


def region_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": r,
            "name": r,
            "jurisdiction": "us",
            "latitude": 0.0,
            "longitude": 0.0,
            "admin_state": "active",
            "weight": 1.0,
            "proximity": "",
            "price_ms": 0.0,
            "version": 1,
        }
        for r in REGIONS
    ]


class UnwrittenAudit:
    """The audit log stands in the database, and the model has none of it: what is asked for is as good as written."""

    async def read(self, project_id: UUID, action: str, target: str = "", summary: Any = None) -> None:
        return

    def unchanged(self, action: str) -> None:
        return
