"""The key sets of the fleet: one that signs tickets (Ed25519), one under which edges' secrets are sealed (AES-256).

Created by the first instance that starts, wrapped by the key provider, shared by all through the database. They rotate, by schedule
and by command: a new key is told to everybody first and used a minute later; those before it still verify and open for the overlap,
and are then destroyed: what was sealed under them opens nowhere.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.db import Database
from app.hints import Hints
from app.supervisor import wait_for_stop
from app.vault import KeyProvider
from regions.wire.keeping import Seal, sealing
from regions.wire.ticket import b64
from regions.wire.uplink import FleetKey

log = structlog.get_logger()

REFRESH_S = 10.0
LEAD_S = 60.0
"""Longer than an instance that hears no hint takes to find a new key."""
OVERLAP_S = 26 * 3600.0
"""A ticket is good for 25 hours at most."""
FLEET_DAYS, SIGNING_DAYS = 30, 90
LOCK = 7423010
TOPIC = "fleet.keys"

Note = Callable[[Any], Awaitable[None]]
"""Writes down, on this connection, what is being done."""

FLEET, SIGNING = "fleet", "signing"
KINDS = (FLEET, SIGNING)
_TABLES = {FLEET: ("vx.fleet_keys", "id"), SIGNING: ("vx.signing_keys", "kid")}


def _each(statement: str) -> dict[str, str]:
    return {kind: statement.format(table=table, id=id_) for kind, (table, id_) in _TABLES.items()}


SOME = _each("select exists (select from {table} where drops_at is null)")
SELECT = {
    FLEET: "select id, wrapped, used_from <= now() as used from vx.fleet_keys order by used_from desc, id",
    SIGNING: """
select kid as id, wrapped, used_from <= now() and drops_at <= now() is not true as used,
       drops_at <= now() is true as dropped
  from vx.signing_keys order by used_from desc, kid
""",
}
STATES = _each(
    "select {id} as id, created_at, used_from, drops_at, used_from <= now() as used from {table}"
    " where drops_at > now() is not false order by used_from desc, {id}"
)
IS_OLD = _each("select max(used_from) < now() - make_interval(days => $1) from {table}")
RETIRE = _each(
    "update {table} set drops_at = least(drops_at, now() + make_interval(secs => $1::float8 + $2::float8))"
    " where drops_at is null or drops_at > now() + make_interval(secs => $1::float8 + $2::float8)"
)
DESTROY = {
    FLEET: "delete from vx.fleet_keys where drops_at <= now()",
    SIGNING: """
delete from vx.signing_keys where drops_at <= now()
   and kid <> (select kid from vx.signing_keys order by used_from, kid desc limit 1)
""",
}
ADD_SIGNING = """
insert into vx.signing_keys (kid, public_key, wrapped, used_from) values ($1, $2, $3, now() + make_interval(secs => $4))
"""
ADD_FLEET = (
    "insert into vx.fleet_keys (id, wrapped, used_from) values ($1, $2, now() + make_interval(secs => $3))"
)


@dataclass(frozen=True, slots=True)
class KeyState:
    """`drops_at`: when it is destroyed; None where no other follows it yet."""

    kind: str
    id: str
    created_at: datetime
    used_from: datetime
    drops_at: datetime | None
    used: bool


class Keyring:
    def __init__(
        self,
        db: Database,
        provider: KeyProvider,
        hints: Hints | None = None,
        *,
        fleet_days: int = FLEET_DAYS,
        signing_days: int = SIGNING_DAYS,
    ) -> None:
        """`fleet_days`, `signing_days`: how old a key becomes before the next one is made; 0: only by command."""
        self._db = db
        self._hints = hints
        self._fleet_days = fleet_days
        self._signing_days = signing_days
        self._provider = provider
        self.signer: tuple[str, Ed25519PrivateKey]
        self.fleet_key: tuple[str, bytes]
        self.public_keys: dict[str, Ed25519PublicKey] = {}
        self.fleet_keys: list[FleetKey] = []
        self.fleet_secrets: dict[str, bytes] = {}
        """The same keys, by their ids."""
        self._root = b""
        self.seal: Seal = sealing(lambda: self.fleet_key)

    async def open(self) -> None:
        """Reads the keys, makes what is missing and destroys what is over; raises `VaultError` where the master key is another
        one."""
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            for kind in KINDS:
                # the oldest signing key stays, for what is derived from it, and signs and verifies nothing
                await connection.execute(DESTROY[kind])
                if not await connection.fetchval(SOME[kind]):
                    await self._add(connection, kind, lead_s=0)
            signing = await connection.fetch(SELECT[SIGNING])
            fleet = await connection.fetch(SELECT[FLEET])
        self._take(signing, fleet)

    async def rotate(
        self, kinds: Iterable[str], *, lead_s: float, overlap_s: float, note: Note | None = None
    ) -> None:
        """A new key of each kind. It is told to all at once, and used from `lead_s` on, when every instance and every edge with an
        uplink has it; those before it open and verify for `overlap_s` more, and are destroyed. `note`
        writes it down, in the same transaction. Raises what the driver raises."""
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            for kind in kinds:
                await connection.execute(RETIRE[kind], lead_s, overlap_s)
                await self._add(connection, kind, lead_s=lead_s)
            if note is not None:
                await note(connection)
        await self.open()
        if self._hints is not None:
            self._hints.wake(TOPIC)

    async def _rotate_old(self) -> None:
        """By schedule. Two instances that find the same key old make one new one."""
        for kind, days in ((FLEET, self._fleet_days), (SIGNING, self._signing_days)):
            if days and await self._db.pool("admin").fetchval(IS_OLD[kind], days):
                async with self._db.pool("admin").acquire() as connection, connection.transaction():
                    await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
                    if not await connection.fetchval(IS_OLD[kind], days):
                        continue
                    await connection.execute(RETIRE[kind], LEAD_S, OVERLAP_S)
                    await self._add(connection, kind, lead_s=LEAD_S)
                log.info("keys.rotated", kind=kind)
                if self._hints is not None:
                    self._hints.wake(TOPIC)

    async def _add(self, connection: Any, kind: str, *, lead_s: float) -> None:
        if kind == SIGNING:
            key = Ed25519PrivateKey.generate()
            kid = "sig_" + os.urandom(6).hex()
            wrapped = self._provider.wrap(key.private_bytes_raw(), f"signing:{kid}")
            await connection.execute(ADD_SIGNING, kid, raw_public(key.public_key()), wrapped, lead_s)
            return
        key_id = "fk_" + os.urandom(6).hex()
        wrapped = self._provider.wrap(os.urandom(32), f"fleet:{key_id}")
        await connection.execute(ADD_FLEET, key_id, wrapped, lead_s)

    async def states(self) -> list[KeyState]:
        """Of both kinds, the newest first; nothing secret is in it."""
        pool = self._db.pool("admin")
        return [
            KeyState(kind, row["id"], row["created_at"], row["used_from"], row["drops_at"], row["used"])
            for kind in KINDS
            for row in await pool.fetch(STATES[kind])
        ]

    def _take(self, signing: list[Any], fleet: list[Any]) -> None:
        private = {
            r["id"]: Ed25519PrivateKey.from_private_bytes(
                self._provider.unwrap(r["wrapped"], f"signing:{r['id']}")
            )
            for r in signing
        }
        self._root = private[signing[-1]["id"]].private_bytes_raw()
        self.public_keys = {r["id"]: private[r["id"]].public_key() for r in signing if not r["dropped"]}
        kid = _in_use(signing)
        self.signer = (kid, private[kid])
        secrets = {r["id"]: self._provider.unwrap(r["wrapped"], f"fleet:{r['id']}") for r in fleet}
        newest = _in_use(fleet)
        # edges seal with the first of the list
        ordered = {newest: secrets[newest]} | secrets
        self.fleet_keys = [FleetKey(id=key_id, key=b64(secret)) for key_id, secret in ordered.items()]
        self.fleet_secrets = ordered
        self.fleet_key = (newest, secrets[newest])

    def secret_for(self, purpose: bytes) -> bytes:
        """A secret that every instance derives and no edge can: from the oldest signing key, so that rotation leaves it alone."""
        return hmac.digest(self._root, purpose, "sha256")

    def jwks(self) -> dict[str, Any]:
        """RFC 7517, with OKP keys after RFC 8037."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": kid,
                    "x": b64(raw_public(key)),
                }
                for kid, key in sorted(self.public_keys.items())
            ]
        }

    async def worker(self, stop: asyncio.Event) -> None:
        changed = self._hints.subscribe(TOPIC) if self._hints is not None else None
        try:
            while not stop.is_set():
                if changed is None:
                    await wait_for_stop(stop, REFRESH_S)
                else:
                    await changed.wait(REFRESH_S)
                if not stop.is_set():
                    await self._rotate_old()
                    await self.open()
        finally:
            if changed is not None:
                changed.close()


def _in_use(rows: list[Any]) -> str:
    """The newest that is used already; the newest at all where none is."""
    used = [r["id"] for r in rows if r["used"]]
    return str((used or [r["id"] for r in rows])[0])


def raw_public(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
