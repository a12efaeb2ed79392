"""The ways in: a password, a link that works once, a provider that vouches. Each ends with a person, or with why not.

Decides what a try costs and when there are too many of them; what an answer says is the same for an account that is not there.
"""

from __future__ import annotations

import os
from math import ceil
from uuid import UUID

import structlog

from app.clock import Clock
from app.errors import Forbidden, Invalid, QuotaExceeded, Rate
from app.people import policy
from app.people.passwords import Passwords
from app.people.policy import hash_of, token_of
from app.people.store import Flow, PeopleStore
from regions.wire import ids

log = structlog.get_logger()

REFUSED = "The address or the password is not right."
USED = "This link has been used, or it is too old."
USED_FIX = (
    "Where voxplane up runs, voxplane console prints another one. "
    "Elsewhere a platform operator makes one: voxplane people link."
)


class SignIn:
    def __init__(self, store: PeopleStore, passwords: Passwords, clock: Clock) -> None:
        self._store = store
        self._passwords = passwords
        self._clock = clock

    # ------------------------------------------------------------------------------------------------------- password

    async def by_password(self, email: str, password: str, address: str) -> UUID:
        """Raises `Forbidden`, or `QuotaExceeded` without having looked."""
        account = email.strip().lower()
        of_both, of_account = _subject("both", f"{address}\n{account}"), _subject("account", account)
        await self._count(of_both, policy.TRIES_OF_ACCOUNT_FROM_ADDRESS_MAX)
        await self._count(_subject("address", address), policy.TRIES_OF_ADDRESS_MAX)
        await self._count(of_account, policy.TRIES_OF_ACCOUNT_MAX)
        found = await self._store.password_of(policy.email_of(email) or "")
        hash_ = found[1] if found is not None else None
        if not await self._passwords.fits(hash_, password[: policy.PASSWORD_MAX]) or found is None:
            log.info("sign_in.refused", way="password")
            raise Forbidden(REFUSED, code="sign_in_refused", fix="Try again, or ask for a new link.")
        await self._store.forget_tries(of_both)
        await self._store.forget_tries(of_account)
        _came_in(found[0], "password")
        return found[0]

    async def _count(self, subject: bytes, most: int) -> None:
        now = self._clock.now()
        if await self._store.count_try(subject, now, now - policy.TRIES_WITHIN) > most:
            window_s = int(policy.TRIES_WITHIN.total_seconds())
            nth = await self._store.nth_newest_try(subject, most)
            # tries that are refused count as well: who waits for so long, and no shorter, is looked at
            wait_s = ceil(((nth or now) + policy.TRIES_WITHIN - now).total_seconds())
            log.info("sign_in.too_often")
            raise QuotaExceeded(
                "There were too many tries to sign in.",
                fix="Wait a quarter of an hour.",
                rate=Rate(name="sign-in", quota=most, window_s=window_s, wait_s=max(1, wait_s)),
            )

    # ---------------------------------------------------------------------------------------------------------- links

    async def by_link(self, secret: str) -> UUID:
        person_id = await self._store.take_link(hash_of(secret), "sign_in", self._clock.now())
        if person_id is None:
            raise Forbidden(USED, code="link_used", fix=USED_FIX)
        _came_in(person_id, "link")
        return person_id

    async def set_password(self, secret: str, password: str) -> UUID:
        """The link is used up by a password that is taken, not by one that is not."""
        hashed = hash_of(secret)
        email = await self._store.look_at_link(hashed, "password", self._clock.now())
        if email is None:
            raise Forbidden(USED, code="link_used", fix=USED_FIX)
        fault = policy.password_fault(password, email)
        if fault is not None:
            raise Invalid(f"The password {fault}.", fix="Take another one.")
        made = await self._passwords.hash(password)
        person_id = await self._store.take_link(hashed, "password", self._clock.now())
        if person_id is None:
            raise Forbidden(USED, code="link_used", fix=USED_FIX)
        await self._store.set_password(person_id, made)
        _came_in(person_id, "password_set")
        return person_id

    # ------------------------------------------------------------------------------------------------------- provider

    async def begin(self, return_to: str) -> tuple[str, str, Flow]:
        """`state` for the provider, a secret for the browser's cookie, and what belongs to both."""
        state, browser, nonce, verifier = (token_of(os.urandom(policy.SECRET_BYTES)) for _ in range(4))
        flow = Flow(nonce=nonce, verifier=verifier, return_to=return_to)
        until = self._clock.now() + policy.FLOW_LIFE
        await self._store.put_flow(hash_of(state), hash_of(browser), flow, until)
        return state, browser, flow

    async def resume(self, state: str, browser: str) -> Flow:
        """Once. Raises `Forbidden` for what nobody began here, or another browser."""
        flow = await self._store.take_flow(hash_of(state), hash_of(browser), self._clock.now())
        if flow is None:
            raise Forbidden(
                "This sign-in was not begun in this browser, or it took too long.",
                code="sign_in_stale",
                fix="Sign in again.",
            )
        return flow

    async def vouched(self, issuer: str, subject: str, email: str | None) -> UUID:
        """`email`: only where the provider says that it is verified; an account made for it is the subject's from then on."""
        person = await self._store.by_subject(issuer, subject)
        person_id = person.id if person is not None else None
        if person_id is None and email and (known := policy.email_of(email)) is not None:
            person_id = await self._store.link_subject(known, issuer, subject)
        if person_id is None:
            log.info("sign_in.refused", way="provider")
            raise Forbidden(
                "The provider knows you, and there is no account for you here.",
                code="no_account",
                fix="Ask a platform operator: voxplane people create, with the address that the provider has verified.",
            )
        _came_in(person_id, "provider")
        return person_id


def _subject(kind: str, text: str) -> bytes:
    return hash_of(f"{kind}\n{text}")


def _came_in(person_id: UUID, way: str) -> None:
    log.info("sign_in.done", person=ids.encode(ids.PERSON, person_id), way=way)
