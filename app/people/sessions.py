"""Sessions of signed-in browsers: opened at a sign-in with a secret of their own, looked up by every request, closed at once.

Decides how long one lives. Nothing of it is kept in memory, so one that was closed anywhere, or whose account is gone, ends
with the next request to any instance.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.clock import Clock
from app.people.policy import SECRET_BYTES, SEEN_EVERY, SESSION_IDLE, csrf_of, ends_at, hash_of, token_of
from app.people.store import PeopleStore, Person

SECRET_CHARS = 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """`csrf`: what its forms carry. `began_at`: when its person signed in."""

    person: Person
    csrf: str
    began_at: datetime
    ends_at: datetime


class Sessions:
    def __init__(self, store: PeopleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def open(self, person_id: UUID, before: str | None = None) -> str:
        """The new session's secret, for the cookie. `before`: of the one that the browser had; it ends."""
        secret, now = token_of(os.urandom(SECRET_BYTES)), self._clock.now()
        if before:
            await self.close(before)
        await self._store.open_session(hash_of(secret), person_id, now, ends_at(now))
        return secret

    async def find(self, secret: str | None) -> Session | None:
        if secret is None or len(secret) != SECRET_CHARS:
            return None
        hashed, now = hash_of(secret), self._clock.now()
        found = await self._store.session(hashed, now, now - SESSION_IDLE)
        if found is None:
            return None
        person, seen_at, began_at = found
        if now - seen_at >= SEEN_EVERY:
            await self._store.seen(hashed, now)
        return Session(person=person, csrf=csrf_of(secret), began_at=began_at, ends_at=ends_at(began_at))

    async def close(self, secret: str) -> None:
        await self._store.close_session(hash_of(secret))

    async def close_all(self, person_id: UUID) -> None:
        await self._store.close_sessions(person_id)

    async def sweep(self) -> None:
        """What is over is deleted; it was worth nothing already."""
        now = self._clock.now()
        await self._store.sweep(now, now - SESSION_IDLE)
