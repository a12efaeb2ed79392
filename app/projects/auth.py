"""Who is asking. Decides which principal a bearer credential stands for and what its role may do.

A key that was seen is kept in memory for 3 s from when it was asked after, so the hot path asks nobody and a revocation is known
everywhere within that time (at once on the instance that revoked it, and on the others when the hint arrives). What was asked
before a change is not remembered after it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.clock import Clock
from app.db import Database
from app.errors import Forbidden, Unauthenticated
from app.peer import Network, address_of, read_network, within
from app.projects.agent_secret import FIRST, Version, version_of
from app.projects.quotas_policy import NO_LIMITS, UNBOUNDED, Bounds, DefaultLimits, bounds_of
from app.projects.roles import Actor, permissions
from app.projects.secrets import parse
from app.projects.targets import targets_of
from app.projects.watching import Watching
from app.supervisor import wait_for_stop
from regions.wire import ids
from regions.wire.targets import Targets

CACHE_S = 3.0
AHEAD_S = 1.0
"""So long before it is forgotten, a key that is in use is asked after again: none of its requests waits for that."""
CACHED_MAX = 10_000

TOUCH_EVERY_S = 30.0

FIND_KEY = "select * from vx.find_key($1)"
TOUCH_KEYS = "select vx.touch_keys($1, $2)"


@dataclass(frozen=True, slots=True)
class Principal:
    """A project's key at work. `targets`: inner addresses that its webhooks may reach; None where it may have none.
    `agent_secret`: which of its secrets sign what is said to its backends. `bounds`: what its project and it may use."""

    project_id: UUID
    key_id: UUID
    mode: str
    role: str
    scopes: frozenset[str]
    cell: int
    targets: Targets | None = None
    agent_secret: Version = FIRST
    bounds: Bounds = UNBOUNDED
    person: UUID | None = None

    @property
    def actor(self) -> Actor:
        if self.person is not None:
            return Actor(kind="person", id=ids.encode(ids.PERSON, self.person))
        return Actor(kind="key", id=ids.encode(ids.KEY, self.key_id))

    def require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Forbidden(
                f"This key lacks the scope {scope}.", fix=f"Use a key whose role or scopes contain {scope}."
            )


@dataclass(frozen=True, slots=True)
class Operator:
    """The platform's own key, or a person who is an operator of the platform."""

    person: UUID | None = None

    @property
    def actor(self) -> Actor:
        if self.person is not None:
            return Actor(kind="person", id=ids.encode(ids.PERSON, self.person))
        return Actor(kind="operator", id="operator_key")


@dataclass(frozen=True, slots=True)
class _Cached:
    principal: Principal
    until_s: float
    expires_at: datetime | None
    replaced: bool
    allow_from: tuple[Network, ...]


class Authenticator:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        operator_key: str,
        *,
        project_targets: bool = False,
        default_quotas: DefaultLimits = NO_LIMITS,
    ) -> None:
        self._db = db
        self._clock = clock
        self._project_targets = project_targets
        self._default_quotas = default_quotas
        self._operator_key = operator_key.encode()
        self.watching = Watching()
        self._changes = 0
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._used: set[UUID] = set()
        self._looking: dict[str, asyncio.Task[_Cached]] = {}
        """Look-ups under way: a thousand streams with one key ask for it once."""

    def known(self, authorization: str) -> Principal | None:
        """Whom a key stands for that was looked up within seconds; None where `authenticate` has to be asked."""
        if not authorization.startswith("Bearer "):
            return None
        cached = self._cache.get(authorization[7:])
        now_s = self._clock.monotonic_s()
        if cached is None or now_s >= cached.until_s:
            return None
        if cached.expires_at is not None or cached.allow_from:
            return None
        if now_s >= cached.until_s - AHEAD_S:
            self._looking_up(authorization[7:])
        return cached.principal

    async def authenticate(self, authorization: str | None, scope: Any = None) -> Principal | Operator:
        """`scope`: the connection's, for keys that may be used from some addresses only. Raises `Unauthenticated`; the answer says
        what is wrong with the form, never which keys exist."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("The request carries no bearer credential.")
        cached = self._cache.get(secret)
        if cached is not None and self._clock.monotonic_s() < cached.until_s:
            return self._holds(cached, scope)
        if secret.startswith("vx_op_"):
            if self._operator_key and hmac.compare_digest(secret.encode(), self._operator_key):
                return Operator()
            raise Unauthenticated("This operator key is not valid.")
        return self._holds(await asyncio.shield(self._looking_up(secret)), scope)

    def _looking_up(self, secret: str) -> asyncio.Task[_Cached]:
        """The look-up of this key that is under way, or a new one."""
        looking = self._looking.get(secret)
        if looking is None:
            looking = self._looking[secret] = asyncio.create_task(self._look_up(secret))
            looking.add_done_callback(lambda done: self._looked_up(secret, done))
        return looking

    def _looked_up(self, secret: str, done: asyncio.Task[_Cached]) -> None:
        if self._looking.get(secret) is done:
            del self._looking[secret]
        if not done.cancelled():
            done.exception()  # those who asked have got it; where all of them have left, no one need be told

    async def project(self, authorization: str | None, scope: Any = None) -> Principal:
        """The same where operators have no business. Raises `Forbidden` for one."""
        who = await self.authenticate(authorization, scope)
        if isinstance(who, Operator):
            raise Forbidden(
                "This is a project's resource.", fix="Use a project's key (vx_live_… or vx_test_…)."
            )
        return who

    def forget(self) -> None:
        """Drops what is cached, and what is being looked up: a key has changed somewhere."""
        self._changes += 1
        self._cache.clear()
        self._looking.clear()
        self.watching.changed()

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

    async def _look_up(self, secret: str) -> _Cached:
        asked_s, changes = self._clock.monotonic_s(), self._changes
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
        principal = Principal(
            project_id=row["project_id"],
            key_id=row["id"],
            mode=row["mode"],
            role=row["role"],
            scopes=permissions(row["role"], row["scopes"]),
            cell=parsed.cell,
            targets=targets_of(row["mode"], row["settings"]) if self._project_targets else None,
            agent_secret=version_of(msgspec.json.decode(row["settings"])),
            bounds=bounds_of(row["quotas"], row["limits"], self._default_quotas),
        )
        self._used.add(principal.key_id)
        networks = tuple(read_network(text) for text in row["allow_from"])
        found = _Cached(principal, asked_s + CACHE_S, row["expires_at"], row["replaced"], networks)
        if changes == self._changes:
            self._cache[secret] = found
            while len(self._cache) > CACHED_MAX:
                self._cache.popitem(last=False)
        return found

    def _holds(self, found: _Cached, scope: Any) -> Principal:
        """Raises `Unauthenticated` where the time or the place is wrong."""
        if found.expires_at is not None and found.expires_at <= self._clock.now():
            if found.replaced:
                raise Unauthenticated(
                    "This secret was replaced, and the time that both were valid is over.",
                    fix="Use the secret that the key's rotation has shown.",
                )
            raise Unauthenticated("This key has expired.", fix="Create a new key.")
        if found.allow_from and not within(address_of(scope), found.allow_from):
            raise Unauthenticated(
                "This key may not be used from the address that you are asking from.",
                code="address_refused",
                fix="Ask from an address of the key's allow_from, or create a key that has yours. "
                "Behind a proxy of your own, name it in VOXPLANE_TRUSTED_PROXIES.",
            )
        return found.principal
