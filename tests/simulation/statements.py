"""The production statements, as the modelled PostgreSQL carries them out, found by their very text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.calls import moves, overdue
from app.calls.store import CREATE_CALLS, GRANT_EPOCHS, SELECT_CALL, SELECT_CALLS, SELECT_MADE
from app.fleet import drain_store
from app.fleet import store as fleet_store
from app.fleet import view as fleet_view
from app.log import append as log_append
from app.log import facts, feeds, horizon, tail_log, tail_sweep
from app.webhooks import claims, settle
from tests.simulation.delivery_statements import DeliveryStatements
from tests.simulation.drain_statements import DrainStatements
from tests.simulation.fleet_statements import FleetStatements
from tests.simulation.overdue_statements import OverdueStatements
from tests.simulation.read_statements import ReadStatements
from tests.simulation.tables import Row, Tables, Txn

Handler = Callable[..., list[Row]]


class Statements(OverdueStatements, ReadStatements, FleetStatements, DeliveryStatements, DrainStatements):
    """`off`: checks that are switched off. `grace_s`, `claim_s`: the reconciler's and a delivery's, shorter than in production so
    that a seed sees their end."""

    def __init__(
        self,
        off: frozenset[str] = frozenset(),
        *,
        grace_s: float = overdue.GRACE_S,
        claim_s: float = claims.CLAIM_S,
    ) -> None:
        self.off = off
        self.grace_s = grace_s
        self.claim_s = claim_s
        self.by_text: dict[str, Handler] = {
            CREATE_CALLS: self.create_calls,
            GRANT_EPOCHS: self.grant_epochs,
            log_append.APPEND: self.append,
            log_append.APPEND_CONTROL: self.append_control,
            log_append.END_UNHELD: self.end_unheld,
            horizon.READ: self.read_horizon,
            fleet_store.NEXT_GENERATION: self.next_generation,
            fleet_store.PUT_EDGE: self.put_edge,
            fleet_store.HEARTBEATS: self.heartbeats,
            fleet_store.ADD_COMMAND: self.add_command,
            fleet_store.COMMANDS_DONE: self.commands_done,
            overdue.NOTE: self.note,
            overdue.NOTE_LAPSED: self.note_lapsed,
            overdue.DROP: self.drop_overdue,
            overdue.ASK: self.ask,
            overdue.ANSWER: self.answer,
            claims.RENEW: self.renew,
            claims.RELEASE_EXPIRED: self.release_expired,
            claims.GIVE_BACK: self.give_back,
            claims.POSTPONE: self.postpone,
            claims.CLAIM: self.claim,
            settle.SETTLE: self.settle,
            drain_store.LOCK: self.lock_commands,
            drain_store.SELECT_RUNNING: self.select_running,
            drain_store.SET_REGION: self.set_region,
            drain_store.SET_EDGE: self.set_edge,
            drain_store.START: self.start_drain,
            drain_store.CHANGE: self.change_drain,
            drain_store.END: self.end_drain,
            drain_store.CLAIM: self.claim_drain,
            drain_store.RELEASE: self.release_drain,
            drain_store.SETTLE: self.settle_moves,
            drain_store.NOT_TAKEN: self.not_taken,
            drain_store.HURRY: self.hurry_moves,
            drain_store.MOVE: self.move_calls,
        }
        reads: dict[str, Handler] = {
            SELECT_CALL: self.select_call,
            SELECT_MADE: self.select_made,
            facts.SELECT_FACTS: self.select_facts,
            facts.SELECT_ENDED: self.select_ended,
            horizon.SELECT_MODE: lambda t, x: [{"mode": True}],
            horizon.SELECT_PROVEN: self.select_proven,
            feeds.SELECT_FEED: self.select_feed,
            feeds.SELECT_CALL_EVENTS: self.select_call_events,
            tail_log.SELECT_DURABLE: self.select_durable,
            tail_log.SELECT_OWNER: self.select_owner,
            tail_log.SELECT_SAID: self.select_said,
            tail_sweep.SELECT_LIVE: self.select_live,
            fleet_view.SELECT_REGIONS: lambda t, x: list(t.rows["regions"].values()),
            fleet_view.SELECT_EDGES: self.select_edges,
            fleet_view.SELECT_COMING: self.select_coming,
            drain_store.SELECT_NEWEST: self.select_newest,
            drain_store.SELECT_OPEN: self.select_open,
            drain_store.COUNT_CALLS: self.count_calls,
            drain_store.COUNT_OPEN: self.count_open,
            drain_store.SELECT_LEAVING: self.select_leaving,
            drain_store.RESERVED: self.reserved,
            drain_store.SELECT_MOVE: self.select_move,
            drain_store.SELECT_MOVES: self.select_granted,
            drain_store.PROGRESS: self.select_progress,
            moves.SELECT_MODES: self.select_modes,
            SELECT_CALLS: self.select_calls,
            fleet_store.SELECT_EDGE_BY_ID: self.select_edge,
            fleet_store.SELECT_COMMANDS: self.select_commands,
            overdue.SELECT_OVER: self.select_over,
            claims.EVENTS_OF: self.delivered_events,
            claims.ENDPOINTS: self.endpoints,
        }
        self.reads = frozenset(reads)
        self.by_text |= reads

    def run(self, text: str, tables: Tables, txn: Txn, args: tuple[Any, ...]) -> list[Row]:
        """Raises `Blocked`, or `LookupError` for a statement that the model was never told."""
        handler = self.by_text.get(text)
        if handler is None:
            raise LookupError(f"the model does not know this statement: {text[:200]}")
        return handler(tables, txn, *args)
