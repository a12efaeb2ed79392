"""Which workers an instance runs: those of the fleet once, those of a cell once for each.

Decides nothing but who is started. Each worker's own module says what it does; the supervisor what becomes of one that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from app.calls.reconciler import Reconciler
from app.cells.forward import Forwarder
from app.cells.identity import WrongCell
from app.cells.mirror import CellFleet, Mirror
from app.connection import is_away
from app.erasure.retention import Retaining
from app.gauges import Gauges, loop_worker
from app.hints import Hints
from app.housekeeping import Housekeeping
from app.log.spool import SpoolFlusher
from app.log.tail_sweep import TailSweep
from app.supervisor import Worker
from app.webhooks.delivery import Delivery
from app.webhooks.service import CHANGED
from app.webhooks.upkeep import Upkeep

if TYPE_CHECKING:
    from app.control import Control

log = structlog.get_logger()


def fleet_workers(control: Control) -> None:
    """Once in an instance: with the home cell, which holds the fleet."""
    supervisor = control.supervisor
    control.hints.add_to(supervisor)
    supervisor.add("fleet.view", control.fleet.worker)
    supervisor.add("fleet.beats", control.beats.worker)
    supervisor.add("fleet.observations", control.observations.worker)
    supervisor.add("placement.learning", control.learning.worker)
    supervisor.add("placement.profiles", control.learning.profiles_worker)
    supervisor.add("fleet.keys", control.keyring.worker)
    control.door.add_to(supervisor)
    supervisor.add("loop", loop_worker)
    if control.calls.tracer.on:
        supervisor.add("traces", control.calls.tracer.worker)


async def follow_fleet(control: Control) -> None:
    """A cell that is not the home cell has a copy of the fleet, and hands its commands on. One that is away is waited for; where the
    database is another cell's, this raises `WrongCell`."""
    home, db, fleet = control.cells.home, control.db, control.calls.fleet
    assert isinstance(fleet, CellFleet)
    mirror = Mirror(home.db, db, fleet, control.commands, control.hints)
    control.supervisor.add("cell.fleet", fleet.worker)
    control.supervisor.add("cell.mirror", mirror.worker)
    control.supervisor.add("cell.commands", Forwarder(home.db, db, home.hints).worker)
    try:
        await mirror.round()
    except WrongCell:
        raise
    except Exception as error:
        if not is_away(error):
            raise
        log.warning("cell.away", cell=db.cell, error=type(error).__name__)


def spool_worker(control: Control) -> None:
    """A spool has calls of every cell."""
    spool = SpoolFlusher(
        control.settings.redis_urls,
        control.edge_access,
        lambda: control.fleet.now,
        control.uplinks.appends,
        control.clock,
        control.keyring,
    )
    spool.add_to(control.supervisor)


def cell_workers(control: Control) -> None:
    db, hints, supervisor = control.db, control.hints, control.supervisor
    supervisor.add("gauges", Gauges(control).worker)
    control.live.add_to(supervisor)
    control.tails.add_to(supervisor)
    if control.here:
        TailSweep(db, control.tails).add_to(supervisor)
    reconciler = Reconciler(
        control.overdue, control.commands, control.appender, patience_s=control.settings.lost_after_s
    )
    supervisor.add("calls.reconciler", reconciler.worker)
    control.draining.add_to(supervisor)
    control.drilling.add_to(supervisor)
    if control.delivers:
        delivery = Delivery(
            db,
            control.vault,
            hints,
            control.clock,
            local_targets=control.settings.local_targets,
            project_targets=control.settings.project_targets,
            proxy=control.settings.egress_proxy,
            jurisdictions=control.settings.jurisdictions,
            tracer=control.calls.tracer,
        )
        supervisor.add("webhooks", delivery.worker)
        supervisor.add("webhooks.replays", control.webhook_recovery.worker)
        backlog = control.settings.default_quotas.webhook_backlog
        supervisor.add("webhooks.upkeep", Upkeep(db, hints, default_backlog=backlog).worker)
    else:
        log.info("cell.not_delivered_here", cell=control.cell.number, jurisdiction=control.cell.jurisdiction)
    supervisor.add("auth.revocations", _forget_on(hints, "keys", control.auth.forget))
    supervisor.add("webhooks.changes", _forget_on(hints, CHANGED, control.webhooks.forget))
    supervisor.add("auth.last_used", control.auth.worker)
    supervisor.add("auth.streams", control.auth.watching.worker)
    supervisor.add("audit.anchors", control.audit_log.anchoring.worker)
    supervisor.add("placement.claims", control.calls.placer.claimed.worker)
    supervisor.add("requests", control.request_log.worker)
    supervisor.add("usage", control.usages.worker)
    supervisor.add("erasures", control.erasures.worker.worker)
    supervisor.add("retention", Retaining(db, control.clock, control.audit_log.anchoring).worker)
    housekeeping = Housekeeping(
        db,
        control.clock,
        events_kept_d=control.settings.events_kept_d,
        calls_kept_d=control.settings.calls_kept_d,
    )
    supervisor.add("housekeeping", housekeeping.worker)
    supervisor.add("log.marks", housekeeping.marks)


def _forget_on(hints: Hints, topic: str, forget: Callable[[], None]) -> Worker:
    async def worker(stop: asyncio.Event) -> None:
        changed = hints.subscribe(topic)
        try:
            while not stop.is_set():
                if await changed.wait(1.0) and not stop.is_set():
                    forget()
        finally:
            changed.close()

    return worker
