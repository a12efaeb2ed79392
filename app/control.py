"""One instance of the control plane, put together: every service that a route may use.

Decides the order in which things open and close. What matters lives in PostgreSQL: an instance that dies takes nothing
with it but its open sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.calls.coalescer import Coalescer
from app.calls.conversation import Conversations
from app.calls.overdue import Overdue
from app.calls.reconciler import Reconciler
from app.calls.service import CREATE_ROUTE, Calls
from app.calls.store import CallStore
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
from app.fleet.registration import Registration
from app.fleet.store import FleetStore
from app.fleet.view import FleetView
from app.hints import Hints
from app.housekeeping import Housekeeping
from app.log.append import Appender
from app.log.facts import FactsReader
from app.log.fan import Fan
from app.log.feeds import Feeds
from app.log.horizon import Horizon
from app.log.live import Live
from app.log.spool import SpoolFlusher
from app.log.tail_log import TailLog
from app.log.tail_sweep import TailSweep
from app.log.tails import Tails
from app.placement.learning import Learning
from app.placement.networks import MaxMindAtlas
from app.placement.round_trips import RoundTrips
from app.placement.service import Placer
from app.projects.auth import Authenticator
from app.projects.service import Projects
from app.settings import Settings, SettingsError
from app.supervisor import Supervisor, Worker
from app.vault import MASTER_KEY_FILE, LocalKeys, Vault
from app.webhooks.delivery import Delivery
from app.webhooks.record import Record
from app.webhooks.recovery import Recovery
from app.webhooks.service import CHANGED, Webhooks
from app.webhooks.testing import Tests
from app.webhooks.upkeep import Upkeep
from regions.wire.keeping import opening


@dataclass(slots=True, kw_only=True)
class Control:
    settings: Settings
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


@asynccontextmanager
async def open_control(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Control]:
    """Opens everything, starts the workers, and closes in the opposite order."""
    settings.data.mkdir(parents=True, exist_ok=True)
    provider = LocalKeys.from_file(settings.data / MASTER_KEY_FILE)
    async with Database.open(settings.database_url, cell=settings.cell, urls=settings.database_urls) as db:
        control = await _build(settings, db, provider, stopping)
        control.supervisor.start()
        try:
            yield control
        finally:
            control.stopping.set()
            await control.supervisor.stop()


async def _build(settings: Settings, db: Database, provider: LocalKeys, stopping: asyncio.Event) -> Control:
    """Who knows whom. Fails where the database has no schema yet or cannot be reached."""
    clock = SystemClock()
    vault, hints = Vault(db, provider), Hints(settings.redis_urls)
    keyring, fleet = Keyring(db, provider), FleetView(db, HealthStore(db, hints))
    await keyring.open()
    await fleet.refresh()
    fleet_store = FleetStore(db)
    horizon, facts = Horizon(db), FactsReader(db, clock)
    fleet_events = FleetEvents(db, horizon, hints, clock)
    tails = Tails(TailLog(db, vault, horizon), facts, clock, settings.redis_urls, fleet.regions_of, keyring)
    feeds = Feeds(db, vault, clock, hints, horizon)
    live = Live(facts, settings.redis_urls, keyring.seal, opening(lambda: keyring.fleet_secrets))
    appender = Appender(db, vault, clock, facts, hints, tails)
    auth = Authenticator(db, clock, settings.operator_key)
    webhooks = Webhooks(db, vault, clock, hints, local_targets=settings.local_targets)
    commands = Commands(fleet_store, hints)
    learning = _learning(settings, db, fleet)
    calls = _calls(
        settings, CallStore(db, horizon), appender, vault, keyring, fleet, webhooks, commands, hints, tails, learning
    )  # fmt: skip
    drilling = Drilling.of(db, calls, appender, fleet_events)
    control = Control(
        settings=settings,
        clock=clock,
        db=db,
        vault=vault,
        hints=hints,
        stopping=stopping,
        keyring=keyring,
        fleet=fleet,
        fleet_store=fleet_store,
        beats=Beats(fleet_store),
        observations=Observations(db, lambda: [e for e in fleet.now.edges if not e.stopped]),
        learning=learning,
        fleet_events=fleet_events,
        registration=Registration(fleet_store, keyring, fleet, fleet_events, clock, settings.cell),
        edge_access=EdgeAccess(settings.redis_urls, lambda: keyring.secret_for(b"valkey")),
        overdue=Overdue(db),
        commands=commands,
        auth=auth,
        projects=Projects(db, clock, hints, auth),
        appender=appender,
        feeds=feeds,
        fan=Fan(feeds, live, clock, stopping),
        live=live,
        horizon=horizon,
        webhooks=webhooks,
        webhook_tests=Tests(
            db, webhooks, clock, local_targets=settings.local_targets, proxy=settings.egress_proxy
        ),
        webhook_record=Record(db, webhooks, clock),
        webhook_recovery=Recovery(db, webhooks, clock, hints),
        calls=calls,
        draining=Draining.of(db, calls, fleet_events, drilling.worker),
        drilling=drilling,
        conversations=Conversations(db, vault, horizon, hints, appender, clock),
        tails=tails,
    )
    return _with_workers(control)


def _calls(
    settings: Settings,
    store: CallStore,
    appender: Appender,
    vault: Vault,
    keyring: Keyring,
    fleet: FleetView,
    webhooks: Webhooks,
    commands: Commands,
    hints: Hints,
    tails: Tails,
    learning: Learning,
) -> Calls:
    clock = SystemClock()
    return Calls(
        store=store,
        coalescer=Coalescer(store, clock, CREATE_ROUTE),
        appender=appender,
        vault=vault,
        keyring=keyring,
        fleet=fleet,
        webhooks=webhooks,
        commands=commands,
        hints=hints,
        clock=clock,
        cell=settings.cell,
        attach_within_s=settings.attach_within_s,
        local_targets=settings.local_targets,
        tails=tails,
        placer=Placer(learning),
    )


def _learning(settings: Settings, db: Database, fleet: FleetView) -> Learning:
    try:
        atlas = MaxMindAtlas(*settings.geo_files) if settings.geo_files else None
    except (OSError, ValueError) as error:
        raise SettingsError(f"VOXPLANE_GEO_FILES: {error}") from None
    kept_windows = settings.networks_kept_days * 24
    return Learning(lambda: fleet.now, SystemClock(), RoundTrips(db), atlas, kept_windows)


def _with_workers(control: Control) -> Control:
    db, hints, supervisor = control.db, control.hints, control.supervisor
    hints.add_to(supervisor)
    control.live.add_to(supervisor)
    control.tails.add_to(supervisor)
    TailSweep(db, control.tails).add_to(supervisor)
    spool = SpoolFlusher(
        control.settings.redis_urls,
        control.edge_access,
        lambda: control.fleet.now,
        control.appender,
        control.clock,
        control.keyring,
    )
    spool.add_to(supervisor)
    supervisor.add("fleet.view", control.fleet.worker)
    supervisor.add("fleet.beats", control.beats.worker)
    supervisor.add("fleet.observations", control.observations.worker)
    supervisor.add("fleet.keys", control.keyring.worker)
    supervisor.add("placement.learning", control.learning.worker)
    supervisor.add("placement.profiles", control.learning.profiles_worker)
    reconciler = Reconciler(
        control.overdue, control.commands, control.appender, patience_s=control.settings.lost_after_s
    )
    supervisor.add("calls.reconciler", reconciler.worker)
    control.draining.add_to(supervisor)
    control.drilling.add_to(supervisor)
    if control.settings.deliveries:
        delivery = Delivery(
            db,
            control.vault,
            hints,
            control.clock,
            local_targets=control.settings.local_targets,
            proxy=control.settings.egress_proxy,
        )
        supervisor.add("webhooks", delivery.worker)
        supervisor.add("webhooks.replays", control.webhook_recovery.worker)
        supervisor.add("webhooks.upkeep", Upkeep(db, hints).worker)
    supervisor.add("auth.revocations", _forget_on(hints, "keys", control.auth.forget))
    supervisor.add("webhooks.changes", _forget_on(hints, CHANGED, control.webhooks.forget))
    supervisor.add("auth.last_used", control.auth.worker)
    supervisor.add("housekeeping", Housekeeping(db, control.clock).worker)
    return control


def _forget_on(hints: Hints, topic: str, forget: Callable[[], None]) -> Worker:
    async def worker(stop: asyncio.Event) -> None:
        changed = hints.subscribe(topic)
        try:
            while not stop.is_set():
                if await changed.wait(1.0):
                    forget()
        finally:
            changed.close()

    return worker
