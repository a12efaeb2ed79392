"""Passwords: argon2id as RFC 9106 recommends it, beside the loop, and a few at once at most, for each takes 64 MiB.

Decides how they are hashed. Which are taken stands in `policy`.
"""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.profiles import RFC_9106_LOW_MEMORY

AT_ONCE_MAX = 2


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._seats = asyncio.Semaphore(AT_ONCE_MAX)
        self._nobody = ""

    async def hash(self, password: str) -> str:
        async with self._seats:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def fits(self, hash_: str | None, password: str) -> bool:
        """Takes as long where there is no account, or it has no password."""
        if hash_ is None and not self._nobody:
            self._nobody = await self.hash("nobody's password")
        async with self._seats:
            fits = await asyncio.to_thread(self._verify, hash_ or self._nobody, password)
        return fits and hash_ is not None

    def _verify(self, hash_: str, password: str) -> bool:
        try:
            return self._hasher.verify(hash_, password)
        except (Argon2Error, InvalidHashError):
            return False
