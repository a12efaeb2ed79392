"""One instance of the control plane, put together: every service that a route may use, once for each cell.

Decides what a cell has of its own; `app.assembly` puts it together. A route is given the `Control` of the cell that its
key names (`app.cells.cells`), and need not know that there are others. What matters lives in PostgreSQL: an instance that dies takes
nothing with it but its open sockets.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from app.audit.reading import AuditLog
from app.audit.service import Audit
from app.calls.conversation import Conversations
from app.calls.hang_up import HangUps
from app.calls.overdue import Overdue
from app.calls.service import Calls
from app.cells.cells import Cells
from app.cells.dispatch import Dispatch, Parts
from app.cells.settings import CellSettings
from app.clock import Clock
from app.connection import is_away
from app.console.watch import CallWatch
from app.db import Database
from app.draining import Draining
from app.drilling import Drilling
from app.erasure.service import Erasures
from app.fleet.beats import Beats
from app.fleet.desired import Commands
from app.fleet.edge_access import EdgeAccess
from app.fleet.edge_keys import EdgeKeys
from app.fleet.events import FleetEvents
from app.fleet.keyring import FLEET, Keyring
from app.fleet.observations import Observations
from app.fleet.orders import Orders
from app.fleet.ports import Appends, Listening, LostContact
from app.fleet.registration import Registration
from app.fleet.revocation import REVOKED_LEAD_S, REVOKED_OVERLAP_S, Revocations
from app.fleet.store import FleetStore
from app.fleet.view import FleetView
from app.hints import Hints
from app.log.append import Appender
from app.log.fan import Fan
from app.log.feeds import Feeds
from app.log.horizon import Horizon
from app.log.live import Live
from app.log.tails import Tails
from app.people.front import FrontDoor
from app.placement.learning import Learning
from app.projects.agent_secrets import AgentSecrets
from app.projects.auth import Authenticator
from app.projects.keys import Keys
from app.projects.quotas_service import Quotas
from app.projects.request_log import RequestLog
from app.projects.service import Projects
from app.settings import Settings
from app.supervisor import Supervisor
from app.usage.service import Usages
from app.vault import Vault
from app.webhooks.record import Record
from app.webhooks.recovery import Recovery
from app.webhooks.service import Webhooks
from app.webhooks.testing import Tests


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplinks:
    """What uplinks and spools speak to: the parts of all cells as one."""

    appends: Appends
    contact: LostContact
    orders: Orders
    live: Listening


@dataclass(slots=True, kw_only=True)
class Control:
    """Of one cell, which `cell` names. The fleet's parts are the same in all of them."""

    settings: Settings
    cell: CellSettings
    cells: Cells
    clock: Clock
    db: Database
    vault: Vault
    hints: Hints
    stopping: asyncio.Event
    keyring: Keyring
    fleet: FleetView
    fleet_store: FleetStore
    beats: Beats
    observations: Observations
    learning: Learning
    fleet_events: FleetEvents
    registration: Registration
    edge_access: EdgeAccess
    edge_keys: EdgeKeys
    overdue: Overdue
    commands: Commands
    auth: Authenticator
    api_keys: Keys
    audit: Audit
    audit_log: AuditLog
    projects: Projects
    quotas: Quotas
    usages: Usages
    agent_secrets: AgentSecrets
    request_log: RequestLog
    appender: Appender
    feeds: Feeds
    fan: Fan
    live: Live
    horizon: Horizon
    webhooks: Webhooks
    webhook_tests: Tests
    webhook_record: Record
    webhook_recovery: Recovery
    calls: Calls
    hang_ups: HangUps
    draining: Draining
    drilling: Drilling
    conversations: Conversations
    tails: Tails
    erasures: Erasures
    door: FrontDoor
    live_calls: CallWatch
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(waits_for=is_away))

    @property
    def here(self) -> bool:
        """Whether this instance may send what lies in the cell to the world: it runs where the cell lies, or one is not named."""
        return self.cell.lies_in(self.settings.jurisdictions)

    @property
    def delivers(self) -> bool:
        return self.settings.deliveries and self.here

    @property
    def uplinks(self) -> Uplinks:
        """The same whichever cell is asked."""
        home, parts = self.cells.home, {c.cell.number: c.parts for c in self.cells}
        if len(parts) == 1:
            return Uplinks(
                appends=home.appender, contact=home.overdue, orders=home.draining.orders, live=home.live
            )
        every = Dispatch(parts)
        orders = Orders(every, home.draining.operators, every)
        return Uplinks(appends=every, contact=every, orders=orders, live=every)

    @property
    def revocations(self) -> Revocations:
        """Of the fleet, which is the home cell's."""
        home = self.cells.home
        return Revocations(
            db=home.db,
            view=home.fleet,
            events=home.fleet_events,
            hints=home.hints,
            access=home.edge_access,
            drains=home.draining.operators,
            audit=home.audit,
            rotate=partial(home.keyring.rotate, [FLEET], lead_s=REVOKED_LEAD_S, overlap_s=REVOKED_OVERLAP_S),
        )

    @property
    def parts(self) -> Parts:
        return Parts(
            db=self.db,
            appends=self.appender,
            contact=self.overdue,
            tickets=self.draining.moves,
            cuts=self.drilling.worker,
            live=self.live,
        )
