"""One instance of the control plane, put together: every service that a route may use, once for each cell.

Decides the order in which things open and close, and what a cell has of its own. A route is given the `Control` of the cell that its
key names (`app.cells.cells`), and need not know that there are others. What matters lives in PostgreSQL: an instance that dies takes
nothing with it but its open sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from app.calls.coalescer import Coalescer
from app.calls.conversation import Conversations
from app.calls.overdue import Overdue
from app.calls.service import CREATE_ROUTE, Calls
from app.calls.store import CallStore
from app.cells.cells import Cells
from app.cells.dispatch import Dispatch, Parts
from app.cells.drains import WholeDrains
from app.cells.forward import OutboxHints
from app.cells.mirror import CellFleet
from app.cells.settings import CellSettings
from app.clock import Clock, SystemClock
from app.connection import is_away
from app.db import Database
from app.draining import Draining
from app.drilling import Drilling
from app.fleet.beats import Beats
from app.fleet.desired import Commands
from app.fleet.edge_access import EdgeAccess
from app.fleet.events import FleetEvents
from app.fleet.health import HealthStore
from app.fleet.keyring import Keyring
from app.fleet.observations import Observations
from app.fleet.orders import Orders
from app.fleet.ports import Appends, Listening, LostContact
from app.fleet.registration import Registration
from app.fleet.store import FleetStore
from app.fleet.view import FleetView
from app.hints import Hints
from app.log.append import Appender
from app.log.facts import FactsReader
from app.log.fan import Fan
from app.log.feeds import Feeds
from app.log.horizon import Horizon
from app.log.live import Live
from app.log.tail_log import TailLog
from app.log.tails import Tails
from app.placement.claimed import Claimed
from app.placement.learning import Learning
from app.placement.networks import MaxMindAtlas
from app.placement.round_trips import RoundTrips
from app.placement.service import Placer
from app.projects.auth import Authenticator
from app.projects.request_log import RequestLog
from app.projects.service import Projects
from app.settings import Settings, SettingsError
from app.supervisor import Supervisor
from app.vault import MASTER_KEY_FILE, LocalKeys, Vault
from app.webhooks.record import Record
from app.webhooks.recovery import Recovery
from app.webhooks.service import Webhooks
from app.webhooks.testing import Tests
from app.workers import cell_workers, fleet_workers, follow_fleet, spool_worker
from regions.wire.keeping import opening


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the cells of an instance share. The fleet is the home cell's: `home` is its database, `others` those of the rest."""

    settings: Settings
    provider: LocalKeys
    clock: Clock
    home: Database
    others: list[Database]
    horizon: Horizon
    hints: Hints
    stopping: asyncio.Event
    keyring: Keyring
    fleet: FleetView
    fleet_store: FleetStore
    fleet_events: FleetEvents
    beats: Beats
    observations: Observations
    learning: Learning
    registration: Registration
    edge_access: EdgeAccess
    cells: Cells = field(default_factory=Cells)


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
    overdue: Overdue
    commands: Commands
    auth: Authenticator
    projects: Projects
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
    draining: Draining
    drilling: Drilling
    conversations: Conversations
    tails: Tails
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(waits_for=is_away))

    @property
    def here(self) -> bool:
        """Whether this instance may send what lies in the cell to the world: its jurisdiction is the cell's, or one is not named."""
        mine = self.settings.jurisdiction
        return not mine or not self.cell.jurisdiction or mine == self.cell.jurisdiction

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
    def parts(self) -> Parts:
        return Parts(
            db=self.db,
            appends=self.appender,
            contact=self.overdue,
            tickets=self.draining.moves,
            cuts=self.drilling.worker,
            live=self.live,
        )


@asynccontextmanager
async def open_control(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Control]:
    """Opens everything, starts the workers, and closes in the opposite order. Gives the home cell's; the others are its `cells`.

    Raises what the driver raises where the home cell is away or has no schema, `WrongCell` where any database is another's.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    provider = LocalKeys.from_file(settings.data / MASTER_KEY_FILE)
    async with AsyncExitStack() as stack:
        dbs = [
            await stack.enter_async_context(
                Database.open(c.url, cell=c.number, jurisdiction=c.jurisdiction, urls=c.urls)
            )
            for c in settings.all_cells
        ]
        cells = await _build(settings, dbs, provider, stopping)
        for control in cells:
            control.supervisor.start()
        try:
            yield cells.home
        finally:
            stopping.set()
            await asyncio.gather(*(control.supervisor.stop() for control in cells))


async def _build(
    settings: Settings, dbs: list[Database], provider: LocalKeys, stopping: asyncio.Event
) -> Cells:
    """Who knows whom. Fails where the home cell's database has no schema yet or cannot be reached."""
    clock, hints, (home, *others) = SystemClock(), Hints(settings.redis_urls), dbs
    keyring, fleet = Keyring(home, provider), FleetView(home, HealthStore(home, hints))
    await keyring.open()
    await fleet.refresh()
    horizon, fleet_store = Horizon(home), FleetStore(home)
    fleet_events = FleetEvents(home, horizon, hints, clock)
    shared = Shared(
        settings=settings,
        provider=provider,
        clock=clock,
        home=home,
        others=others,
        horizon=horizon,
        hints=hints,
        stopping=stopping,
        keyring=keyring,
        fleet=fleet,
        fleet_store=fleet_store,
        fleet_events=fleet_events,
        beats=Beats(fleet_store),
        observations=Observations(home, lambda: [e for e in fleet.now.edges if not e.stopped]),
        learning=_learning(settings, home, fleet),
        registration=Registration(fleet_store, keyring, fleet, fleet_events, clock, home.cell),
        edge_access=EdgeAccess(settings.redis_urls, lambda: keyring.secret_for(b"valkey")),
    )
    for cell, db in zip(settings.all_cells, dbs, strict=True):
        control = _cell(shared, cell, db)
        shared.cells.add(cell.number, control)
        cell_workers(control)
        if cell.home:
            fleet_workers(control)
        else:
            await follow_fleet(control)
    spool_worker(shared.cells.home)
    return shared.cells


def _cell(shared: Shared, cell: CellSettings, db: Database) -> Control:
    """One cell's services."""
    settings, clock, keyring = shared.settings, shared.clock, shared.keyring
    vault, horizon = Vault(db, shared.provider), shared.horizon if cell.home else Horizon(db)
    hints = shared.hints if cell.home else OutboxHints(shared.hints, cell.number)
    facts, fleet = FactsReader(db, clock), shared.fleet
    tails = Tails(TailLog(db, vault, horizon), facts, clock, settings.redis_urls, fleet.regions_of, keyring)
    feeds = Feeds(db, vault, clock, hints, horizon)
    opened = opening(lambda: keyring.fleet_secrets)
    live = Live(facts, settings.redis_urls, keyring.seal, opened, _carriers(fleet, cell))
    appender = Appender(db, vault, clock, facts, hints, tails)
    auth = Authenticator(db, clock, settings.operator_key, project_targets=settings.project_targets)
    webhooks = Webhooks(db, vault, clock, hints, local_targets=settings.local_targets)
    calls = _calls(shared, cell, db, CallStore(db, horizon), appender, vault, webhooks, hints, tails)
    drilling = Drilling.of(db, calls, appender, shared.fleet_events)
    local = settings.local_targets
    return Control(
        settings=settings,
        cell=cell,
        cells=shared.cells,
        clock=clock,
        db=db,
        vault=vault,
        hints=hints,
        stopping=shared.stopping,
        keyring=keyring,
        fleet=shared.fleet,
        fleet_store=shared.fleet_store,
        beats=shared.beats,
        observations=shared.observations,
        learning=shared.learning,
        fleet_events=shared.fleet_events,
        registration=shared.registration,
        edge_access=shared.edge_access,
        overdue=Overdue(db),
        commands=calls.commands,
        auth=auth,
        request_log=RequestLog(db, clock),
        projects=Projects(db, clock, hints, auth, project_targets=settings.project_targets),
        appender=appender,
        feeds=feeds,
        fan=Fan(feeds, live, clock, shared.stopping),
        live=live,
        horizon=horizon,
        webhooks=webhooks,
        webhook_tests=Tests(db, webhooks, clock, local_targets=local, proxy=settings.egress_proxy),
        webhook_record=Record(db, webhooks, clock),
        webhook_recovery=Recovery(db, webhooks, clock, hints),
        calls=calls,
        draining=_draining(shared, cell, db, calls, drilling),
        drilling=drilling,
        conversations=Conversations(db, vault, horizon, hints, appender, clock),
        tails=tails,
    )


def _carriers(fleet: FleetView, cell: CellSettings) -> Callable[[str], bool]:
    """The regions whose Valkey may carry what is said in the cell's calls: those of its own jurisdiction, where it has one."""

    def may_carry(region: str) -> bool:
        state = fleet.now.regions.get(region)
        return not cell.jurisdiction or (state is not None and state.jurisdiction == cell.jurisdiction)

    return may_carry


def _calls(
    shared: Shared,
    cell: CellSettings,
    db: Database,
    store: CallStore,
    appender: Appender,
    vault: Vault,
    webhooks: Webhooks,
    hints: Hints,
    tails: Tails,
) -> Calls:
    settings, clock = shared.settings, shared.clock
    return Calls(
        store=store,
        coalescer=Coalescer(store, clock, CREATE_ROUTE),
        appender=appender,
        vault=vault,
        keyring=shared.keyring,
        fleet=shared.fleet if cell.home else CellFleet(shared.fleet),
        webhooks=webhooks.named,
        commands=Commands(shared.fleet_store if cell.home else FleetStore(db), hints),
        hints=hints,
        clock=clock,
        cell=cell.number,
        jurisdiction=cell.jurisdiction,
        attach_within_s=settings.attach_within_s,
        local_targets=settings.local_targets,
        tails=tails,
        placer=Placer(shared.learning, Claimed(db, clock)),
    )


def _draining(shared: Shared, cell: CellSettings, db: Database, calls: Calls, drilling: Drilling) -> Draining:
    """A drain is the fleet's: the home cell begins it, counts it, and says in the fleet's log what became of it."""
    if not cell.home:
        return Draining.of(db, calls, drills=drilling.worker)
    store = WholeDrains(db, shared.others) if shared.others else None
    return Draining.of(db, calls, shared.fleet_events, drilling.worker, store)


def _learning(settings: Settings, db: Database, fleet: FleetView) -> Learning:
    try:
        atlas = MaxMindAtlas(*settings.geo_files) if settings.geo_files else None
    except (OSError, ValueError) as error:
        raise SettingsError(f"VOXPLANE_GEO_FILES: {error}") from None
    kept_windows = settings.networks_kept_days * 24
    return Learning(lambda: fleet.now, SystemClock(), RoundTrips(db), atlas, kept_windows)
