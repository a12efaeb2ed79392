"""People of one instance, put together: what the console, the routes and the supervisor need of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.audit.service import Audit
from app.cells.cells import Cells
from app.clock import Clock
from app.connection import is_away
from app.db import Database
from app.people.oidc import Oidc
from app.people.passwords import Passwords
from app.people.service import People
from app.people.sessions import Sessions
from app.people.settings import SignInSettings
from app.people.sign_in import SignIn
from app.people.store import PeopleStore
from app.supervisor import Supervisor, wait_for_stop

SWEEP_EVERY_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDoor:
    """`provider`: None where none is named."""

    settings: SignInSettings
    people: People
    sessions: Sessions
    sign_in: SignIn
    provider: Oidc | None

    @classmethod
    def of(
        cls, db: Database, clock: Clock, cells: Cells, settings: SignInSettings, audit: Audit
    ) -> FrontDoor:
        """`db`: the home cell's."""
        store = PeopleStore(db, audit)
        return cls(
            settings=settings,
            people=People(store, clock, cells, settings.console_url),
            sessions=Sessions(store, clock),
            sign_in=SignIn(store, Passwords(), clock),
            provider=Oidc(settings) if settings.oidc else None,
        )

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("people.sweep", self._worker)

    async def _worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, SWEEP_EVERY_S):
            try:
                await self.sessions.sweep()
            except Exception as error:
                if not is_away(error):
                    raise
