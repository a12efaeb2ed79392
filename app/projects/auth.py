"""Who is asking. Decides which principal a bearer credential stands for and what its role may do.

A key that was seen is kept in memory for 3 s, so the hot path asks nobody and a revocation is known everywhere within
that time (at once on the instance that revoked it, and on the others when the hint arrives).
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.errors import Forbidden, Unauthenticated
from app.projects.secrets import parse
from app.projects.targets import targets_of
from app.supervisor import wait_for_stop
from regions.wire.targets import Targets

CACHE_S = 3.0
CACHED_MAX = 10_000

TOUCH_EVERY_S = 30.0

FIND_KEY = "select * from vx.find_key($1)"
TOUCH_KEYS = "select vx.touch_keys($1, $2)"

_READ = {"calls:read", "events:read", "webhooks:read", "regions:read", "targets:read", "requests:read"}
_ADMIN = {"keys:read", "keys:write", "targets:write"}
_WRITE = {"calls:write", "webhooks:write", "conversation:read", "conversation:write"}
ROLE_SCOPES: dict[str, frozenset[str]] = {
    "viewer": frozenset(_READ),
    "developer": frozenset(_READ | _WRITE),
    "admin": frozenset(_READ | _WRITE | _ADMIN),
    "owner": frozenset(_READ | _WRITE | _ADMIN),
}
SCOPES = ROLE_SCOPES["owner"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A project's key at work. `targets`: inner addresses that its webhooks may reach; None where it may have none."""

    project_id: UUID
    key_id: UUID
    mode: str
    role: str
    scopes: frozenset[str]
    cell: int
    targets: Targets | None = None

    def require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Forbidden(
                f"This key lacks the scope {scope}.", fix=f"Use a key whose role or scopes contain {scope}."
            )


@dataclass(frozen=True, slots=True)
class Operator:
    """The platform's own key."""


@dataclass(frozen=True, slots=True)
class _Cached:
    principal: Principal
    until_s: float
    expires_at: datetime | None


class Authenticator:
    def __init__(
        self, db: Database, clock: Clock, operator_key: str, *, project_targets: bool = False
    ) -> None:
        self._db = db
        self._clock = clock
        self._project_targets = project_targets
        self._operator_key = operator_key.encode()
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._used: set[UUID] = set()
        self._looking: dict[str, asyncio.Task[Principal]] = {}
        """Look-ups under way: a thousand streams with one key ask for it once."""

    def known(self, authorization: str) -> Principal | None:
        """Whom a key stands for that was looked up within seconds; None where `authenticate` has to be asked."""
        if not authorization.startswith("Bearer "):
            return None
        cached = self._cache.get(authorization[7:])
        if cached is None or cached.expires_at is not None or self._clock.monotonic_s() >= cached.until_s:
            return None
        return cached.principal

    async def authenticate(self, authorization: str | None) -> Principal | Operator:
        """Raises `Unauthenticated`; the answer says what is wrong with the form, never which keys exist."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("The request carries no bearer credential.")
        cached = self._cache.get(secret)
        if cached is not None and self._clock.monotonic_s() < cached.until_s:
            self._check_expiry(cached.expires_at)
            return cached.principal
        if secret.startswith("vx_op_"):
            if self._operator_key and hmac.compare_digest(secret.encode(), self._operator_key):
                return Operator()
            raise Unauthenticated("This operator key is not valid.")
        looking = self._looking.get(secret)
        if looking is None:
            looking = self._looking[secret] = asyncio.create_task(self._look_up(secret))
            looking.add_done_callback(lambda done: self._looked_up(secret, done))
        return await asyncio.shield(looking)

    def _looked_up(self, secret: str, done: asyncio.Task[Principal]) -> None:
        self._looking.pop(secret, None)
        if not done.cancelled():
            done.exception()  # those who asked have got it; where all of them have left, no one need be told

    async def project(self, authorization: str | None) -> Principal:
        """The same where operators have no business. Raises `Forbidden` for one."""
        who = await self.authenticate(authorization)
        if isinstance(who, Operator):
            raise Forbidden(
                "This is a project's resource.", fix="Use a project's key (vx_live_… or vx_test_…)."
            )
        return who

    def forget(self) -> None:
        """Drops what is cached: a key has been revoked somewhere."""
        self._cache.clear()

    async def worker(self, stop: asyncio.Event) -> None:
        """Writes down, now and then and at the end, which keys were used: `last_used_at` is that exact."""
        stopping = False
        while not stopping:
            stopping = await wait_for_stop(stop, TOUCH_EVERY_S)
            await self.touch()

    async def touch(self) -> None:
        used = self._used
        if used:
            self._used = set()
            await self._db.pool("keys").execute(TOUCH_KEYS, list(used), self._clock.now())

    async def _look_up(self, secret: str) -> Principal:
        parsed = parse(secret)
        if parsed is None:
            raise Unauthenticated(
                "This is not a key of this service, or it was cut or changed.",
                fix="Copy the key again, whole.",
            )
        row: Any = None
        if parsed.cell == self._db.cell:
            row = await self._db.pool("keys").fetchrow(FIND_KEY, parsed.hash)
        # a key of a cell that is not here is told no more than one that was never made
        if row is None or row["revoked_at"] is not None:
            raise Unauthenticated(
                "This key is not valid.", fix="Create a new key, or check that it was not revoked."
            )
        self._check_expiry(row["expires_at"])
        allowed = ROLE_SCOPES.get(row["role"], frozenset())
        principal = Principal(
            project_id=row["project_id"],
            key_id=row["id"],
            mode=row["mode"],
            role=row["role"],
            scopes=allowed & frozenset(row["scopes"]) if row["scopes"] else allowed,
            cell=parsed.cell,
            targets=targets_of(row["mode"], row["settings"]) if self._project_targets else None,
        )
        self._used.add(principal.key_id)
        self._cache[secret] = _Cached(principal, self._clock.monotonic_s() + CACHE_S, row["expires_at"])
        while len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        return principal

    def _check_expiry(self, expires_at: datetime | None) -> None:
        if expires_at is not None and expires_at <= self._clock.now():
            raise Unauthenticated("This key has expired.", fix="Create a new key.")
