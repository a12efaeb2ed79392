"""Who this edge is: an Ed25519 key, an incarnation that is new at every start, tokens it signs itself.

The key stays until another takes its place, and there is no moment at which the disk holds none that works. The next one is
whole on the disk (``edge.next.key``) before anybody is told of it, and takes the place of ``edge.key`` only once the control plane
has taken it. An edge that dies between does not know which of the two is its key: it has both, and asks with the next one first.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from regions.wire.ticket import b64
from regions.wire.uplink import EDGE_KEY_TYP, EDGE_TOKEN_AUDIENCE, EDGE_TOKEN_TYP

log = structlog.get_logger()

TOKEN_TTL_S = 30


class Identity:
    """`edge_id` is known after the first registration, and kept beside the key. `next_key`: one that the control plane may have
    taken, or not. Raises `OSError` where there is no key and none can be written, `ValueError` where what is there is none."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._changing = threading.Lock()
        self._key_file, self._next_file = folder / "edge.key", folder / "edge.next.key"
        self.key = _load_key(self._key_file)
        self.next_key = _next_key(self._next_file)
        self.incarnation = str(uuid4())
        id_file = folder / "edge.id"
        self.edge_id = id_file.read_text(encoding="ascii").strip() if id_file.exists() else ""

    @property
    def public_key(self) -> str:
        return public_text(self.key)

    @property
    def key_since_s(self) -> float:
        """When the key was made: Unix seconds, by this machine's clock then."""
        for file in (self._key_file, self._next_file):
            with suppress(OSError, ValueError):
                if file.read_bytes() == self.key.private_bytes_raw():
                    return file.stat().st_mtime
        return time.time()

    def registered(self, edge_id: str) -> None:
        """Kept at once; a disk that is full costs the copy, and with it a new enrolment at the next start."""
        if edge_id == self.edge_id:
            return
        self.edge_id = edge_id
        try:
            write_whole(self._folder / "edge.id", (edge_id + "\n").encode())
        except OSError as error:
            log.error("edge.id_not_kept", error=error.strerror)

    def begin_next(self) -> Ed25519PrivateKey:
        """The next key, safe on the disk; the same one until it is `settled`. Raises `OSError`: nothing has changed then."""
        with self._changing:
            if self.next_key is None:
                # what a full disk has kept from its place is the present key: it goes there before another takes its name
                self._put_in_place()
                key = Ed25519PrivateKey.generate()
                write_whole(self._next_file, key.private_bytes_raw())
                self.next_key = key
            return self.next_key

    def settled(self) -> None:
        """The control plane has taken the next key: it is the key. Where the disk does not take it, both stay there, for the next
        start to ask with."""
        with self._changing:
            if self.next_key is None:
                return
            self.key, self.next_key = self.next_key, None
            try:
                self._put_in_place()
            except OSError as error:
                log.error("edge.key_not_in_place", error=error.strerror)

    def _put_in_place(self) -> None:
        if self._key_file.read_bytes() == self.key.private_bytes_raw():
            return
        os.replace(self._next_file, self._key_file)
        sync_folder(self._folder)

    def token(self, region: str, key: Ed25519PrivateKey | None = None) -> str:
        """Short-lived and for one use; the control plane knows the public key. `key`: instead of the present one."""
        return self._signed(region, key or self.key, EDGE_TOKEN_TYP)

    def proof(self, region: str, key: Ed25519PrivateKey) -> str:
        """That this edge has `key`."""
        return self._signed(region, key, EDGE_KEY_TYP)

    def _signed(self, region: str, key: Ed25519PrivateKey, typ: str) -> str:
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
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": typ})


def public_text(key: Ed25519PrivateKey) -> str:
    """As it is registered."""
    return b64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def write_whole(file: Path, data: bytes) -> None:
    """All of it is there (0600) and stays there, or `OSError` is raised and what was there before is as it was."""
    part = file.with_name(file.name + ".part")
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load_key(file: Path) -> Ed25519PrivateKey:
    if file.exists():
        return Ed25519PrivateKey.from_private_bytes(file.read_bytes())
    key = Ed25519PrivateKey.generate()
    write_whole(file, key.private_bytes_raw())
    return key


def _next_key(file: Path) -> Ed25519PrivateKey | None:
    """None where there is none, and where what is there was never one that anybody was told of."""
    try:
        return Ed25519PrivateKey.from_private_bytes(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("edge.next_key_unreadable", error=type(error).__name__)
        return None
