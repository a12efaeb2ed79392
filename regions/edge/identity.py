"""Who this edge is: an Ed25519 key that stays, an incarnation that is new at every start, tokens it signs itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from regions.wire.ticket import b64
from regions.wire.uplink import EDGE_TOKEN_AUDIENCE, EDGE_TOKEN_TYP

TOKEN_TTL_S = 30


class Identity:
    """`edge_id` is known after the first registration, and kept beside the key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.key = _load_key(folder / "edge.key")
        self.incarnation = str(uuid4())
        id_file = folder / "edge.id"
        self.edge_id = id_file.read_text(encoding="ascii").strip() if id_file.exists() else ""

    @property
    def public_key(self) -> str:
        return b64(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def registered(self, edge_id: str) -> None:
        self.edge_id = edge_id
        (self._folder / "edge.id").write_text(edge_id + "\n", encoding="ascii")

    def token(self, region: str) -> str:
        """Short-lived and for one use; the control plane knows the public key."""
        now = int(time.time())
        claims = {
            "iss": self.edge_id,
            "sub": region,
            "inc": self.incarnation,
            "aud": EDGE_TOKEN_AUDIENCE,
            "jti": b64(os.urandom(16)),
            "iat": now,
            "exp": now + TOKEN_TTL_S,
        }
        return jwt.encode(claims, self.key, algorithm="EdDSA", headers={"typ": EDGE_TOKEN_TYP})


def _load_key(file: Path) -> Ed25519PrivateKey:
    if file.exists():
        return Ed25519PrivateKey.from_private_bytes(file.read_bytes())
    key = Ed25519PrivateKey.generate()
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(key.private_bytes_raw())
    return key
