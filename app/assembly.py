"""Puts an instance together: who knows whom, once for the fleet and once for each cell, and the order in which things open and close.

Decides nothing else: what a service does stands in its own module, and what a route may use in `app.control`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.audit.reading import AuditLog
from app.audit.service import Audit
from app.calls.coalescer import Coalescer
from app.calls.conversation import Conversations
from app.calls.hang_up import HangUps
from app.calls.overdue import Overdue
from app.calls.service import CREATE_ROUTE, Calls
from app.calls.store import CallStore
from app.cells.cells import Cells
from app.cells.drains import WholeDrains
from app.cells.forward import OutboxHints
from app.cells.mirror import CellFleet
from app.cells.settings import CellSettings
from app.clock import Clock, SystemClock
from app.console.watch import CallWatch
from app.control import Control
from app.db import Database
from app.draining import Draining
from app.drilling import Drilling
from app.erasure.service import Erasures
from app.fleet.beats import Beats
from app.fleet.desired import Commands
from app.fleet.edge_access import EdgeAccess
from app.fleet.edge_keys import EdgeKeys
from app.fleet.events import FleetEvents
from app.fleet.health import HealthStore
from app.fleet.keyring import Keyring
from app.fleet.observations import Observations
from app.fleet.registration import Registration
from app.fleet.store import FleetStore
from app.fleet.view import FleetView
from app.hints import Hints
from app.log.acked import Acked
from app.log.append import Appender
from app.log.facts import FactsReader
from app.log.fan import Fan
from app.log.feeds import Feeds
from app.log.horizon import Horizon
from app.log.live import Live
from app.log.tail_log import TailLog
from app.log.tails import Tails
from app.people.front import FrontDoor
from app.placement.claimed import Claimed
from app.placement.learning import Learning
from app.placement.networks import MaxMindAtlas
from app.placement.round_trips import RoundTrips
from app.placement.service import Placer
from app.projects.agent_secrets import AgentSecrets
from app.projects.auth import Authenticator
from app.projects.keys import Keys
from app.projects.quotas_service import Quotas
from app.projects.request_log import RequestLog
from app.projects.service import Projects
from app.settings import Settings, SettingsError
from app.tracing import Tracer
from app.usage.service import Usages
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
    audit: Audit
    clock: Clock
    home: Database
    others: list[Database]
    horizon: Horizon
    hints: Hints
    acked: Acked
    stopping: asyncio.Event
    keyring: Keyring
    fleet: FleetView
    fleet_store: FleetStore
    fleet_events: FleetEvents
    beats: Beats
    observations: Observations
    learning: Learning
    tracer: Tracer
    registration: Registration
    edge_access: EdgeAccess
    edge_keys: EdgeKeys
    door: FrontDoor
    cells: Cells


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
    keyring, fleet = _keyring(settings, home, provider, hints), FleetView(home, HealthStore(home, hints))
    await keyring.open()
    await fleet.refresh()
    hints.listen("feed", (acked := Acked()).hear)
    horizon, fleet_store, audit = Horizon(home), FleetStore(home), Audit(home, provider, clock)
    fleet_events = FleetEvents(home, horizon, hints, clock)
    cells, edge_keys = Cells(), EdgeKeys(home, fleet, fleet_events, audit, clock)
    shared = Shared(
        settings=settings,
        provider=provider,
        audit=audit,
        clock=clock,
        home=home,
        others=others,
        horizon=horizon,
        hints=hints,
        acked=acked,
        stopping=stopping,
        keyring=keyring,
        fleet=fleet,
        fleet_store=fleet_store,
        fleet_events=fleet_events,
        beats=Beats(fleet_store),
        observations=Observations(home, lambda: [e for e in fleet.now.edges if not e.stopped]),
        learning=_learning(settings, home, fleet),
        tracer=Tracer(settings.tracing),
        registration=Registration(
            fleet_store, keyring, fleet, fleet_events, clock, home.cell, audit, edge_keys
        ),
        edge_keys=edge_keys,
        edge_access=EdgeAccess(settings.redis_urls, lambda: keyring.secret_for(b"valkey")),
        door=FrontDoor.of(home, clock, cells, settings.sign_in, audit),
        cells=cells,
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


def _keyring(settings: Settings, home: Database, provider: LocalKeys, hints: Hints) -> Keyring:
    fleet_days, signing_days = settings.fleet_keys_days, settings.signing_keys_days
    return Keyring(home, provider, hints, fleet_days=fleet_days, signing_days=signing_days)


def _cell(shared: Shared, cell: CellSettings, db: Database) -> Control:
    """One cell's services."""
    settings, clock, keyring = shared.settings, shared.clock, shared.keyring
    vault, horizon = Vault(db, shared.provider), shared.horizon if cell.home else Horizon(db)
    hints = shared.hints if cell.home else OutboxHints(shared.hints, cell.number)
    facts, fleet = FactsReader(db, vault, clock, traced=shared.tracer.on), shared.fleet
    audit = shared.audit if cell.home else Audit(db, shared.provider, clock)
    tails = Tails(TailLog(db, horizon), facts, clock, settings.redis_urls, fleet.regions_of, keyring)
    feeds = Feeds(db, vault, clock, hints, horizon, acked := shared.acked)
    opened = opening(lambda: keyring.fleet_secrets)
    live = Live(facts, settings.redis_urls, keyring.seal, opened, _carriers(fleet, cell))
    appender = Appender(db, clock, facts, hints, tails, acked, shared.tracer)
    auth = _auth(settings, db, clock)
    webhooks = Webhooks(db, vault, clock, hints, audit, local_targets=settings.local_targets)
    calls = _calls(shared, cell, db, CallStore(db, horizon), appender, vault, webhooks, hints, tails, audit)
    drilling, local = Drilling.of(db, calls, appender, shared.fleet_events, audit), settings.local_targets
    return Control(
        **_of_the_fleet(shared),
        settings=settings,
        cell=cell,
        cells=shared.cells,
        clock=clock,
        db=db,
        vault=vault,
        hints=hints,
        keyring=keyring,
        live_calls=CallWatch(db, clock, lambda: fleet.now),
        overdue=Overdue(db),
        commands=calls.commands,
        auth=auth,
        api_keys=Keys(db, clock, hints, auth, audit),
        audit=audit,
        audit_log=AuditLog.of(db, audit, settings),
        request_log=RequestLog(db, clock),
        projects=Projects(db, clock, hints, auth, audit, project_targets=settings.project_targets),
        quotas=Quotas(db, hints, auth, audit, settings.default_quotas),
        usages=Usages(db, calls.store, clock, audit),
        agent_secrets=AgentSecrets(db, shared.provider, clock, hints, auth, audit),
        appender=appender,
        feeds=feeds,
        fan=Fan(feeds, live, clock, shared.stopping),
        live=live,
        horizon=horizon,
        webhooks=webhooks,
        webhook_tests=Tests(db, webhooks, clock, local_targets=local, proxy=settings.egress_proxy),
        webhook_record=Record(db, webhooks, clock),
        webhook_recovery=Recovery(db, webhooks, clock, hints, audit),
        calls=calls,
        hang_ups=HangUps(calls.store, calls.commands, hints, clock),
        draining=_draining(shared, cell, db, calls, drilling, audit),
        drilling=drilling,
        conversations=Conversations(db, vault, horizon, hints, appender, clock),
        tails=tails,
        erasures=_erasures(shared, cell, db, vault, tails, appender, audit, hints),
    )


def _auth(settings: Settings, db: Database, clock: Clock) -> Authenticator:
    targets, quotas = settings.project_targets, settings.default_quotas
    return Authenticator(db, clock, settings.operator_key, project_targets=targets, default_quotas=quotas)


def _erasures(
    shared: Shared,
    cell: CellSettings,
    db: Database,
    vault: Vault,
    tails: Tails,
    appender: Appender,
    audit: Audit,
    hints: Hints,
) -> Erasures:
    here = cell.lies_in(shared.settings.jurisdictions)
    return Erasures.of(
        db, shared.home, vault, tails, appender, audit, shared.fleet, hints, shared.settings, here=here
    )


def _of_the_fleet(shared: Shared) -> dict[str, Any]:
    """What all cells have alike."""
    names = (
        "stopping",
        "fleet",
        "fleet_store",
        "beats",
        "observations",
        "learning",
        "fleet_events",
        "registration",
        "edge_access",
        "edge_keys",
        "door",
    )
    return {name: getattr(shared, name) for name in names}


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
    audit: Audit,
) -> Calls:
    settings, clock = shared.settings, shared.clock
    return Calls(
        store=store,
        coalescer=Coalescer(store, clock, CREATE_ROUTE, appender.tell),
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
        audit=audit,
        placer=Placer(shared.learning, Claimed(db, clock)),
        tracer=shared.tracer,
    )


def _draining(
    shared: Shared, cell: CellSettings, db: Database, calls: Calls, drilling: Drilling, audit: Audit
) -> Draining:
    """A drain is the fleet's: the home cell begins it, counts it, and says in the fleet's log what became of it."""
    if not cell.home:
        return Draining.of(db, calls, drills=drilling.worker, audit=audit)
    store = WholeDrains(db, shared.others) if shared.others else None
    return Draining.of(db, calls, shared.fleet_events, drilling.worker, store, audit)


def _learning(settings: Settings, db: Database, fleet: FleetView) -> Learning:
    try:
        atlas = MaxMindAtlas(*settings.geo_files) if settings.geo_files else None
    except (OSError, ValueError) as error:
        raise SettingsError(f"VOXPLANE_GEO_FILES: {error}") from None
    kept_windows = settings.networks_kept_days * 24
    return Learning(lambda: fleet.now, SystemClock(), RoundTrips(db), atlas, kept_windows)
