"""The call's use cases: create, read, end, a new ticket, its conversation. The glue between pure decisions and the stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from app.buckets import Buckets
from app.calls.coalescer import Coalescer
from app.calls.creation import body_hash, caller_of, checked_key, new_call
from app.calls.machine import FINAL
from app.calls.policy import check_create, check_log_residency
from app.calls.shapes import CreateCall, CreatedCall, NewTicket, PlacementView
from app.calls.store import CallStore, NewCall, StoredCall, view_fields
from app.calls.tickets import TicketFor, make_ticket
from app.clock import Clock, rfc3339
from app.errors import Conflict, Invalid, NotFound, QuotaExceeded, Unauthenticated, VoxplaneError
from app.fleet.desired import Commands
from app.fleet.keyring import Keyring
from app.fleet.view import EdgeState, Fleet, FleetView
from app.hints import DELIVERIES, Hints
from app.ids import new_id, parse
from app.log.append import Appender
from app.placement.again import recorded
from app.placement.choice import Placement
from app.placement.service import Placer, view
from app.projects.auth import Principal
from app.telemetry import calls_created_total
from app.vault import ContentKey, Vault
from regions.wire import ids
from regions.wire.events import EndReason, Source
from regions.wire.ticket import Claims, Grant, MovedFor, Sealed, TicketError, read, unb64, unseal

log = structlog.get_logger()

CREATE_ROUTE = "POST /v1/calls"
MEDIA_PATH = "/v1/media"
EPOCHS_MAX = 1_000


class CallWebhooks(Protocol):
    async def for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        """The hidden endpoint of this URL in the project, created where there is none. Raises `Invalid` where there are too many."""
        ...


class CallTails(Protocol):
    def want(self, call: UUID) -> None:
        """The call has new standbys: their regions get what was said so far. Never blocks, never raises."""
        ...


@dataclass(slots=True)
class Calls:
    store: CallStore
    coalescer: Coalescer
    appender: Appender
    vault: Vault
    keyring: Keyring
    fleet: FleetView
    webhooks: CallWebhooks
    commands: Commands
    hints: Hints
    clock: Clock
    cell: int
    attach_within_s: int
    local_targets: bool
    tails: CallTails
    placer: Placer
    jurisdiction: str = ""
    """Where the log of these calls lies; empty where the deployment names none."""
    renewals: Buckets = field(default_factory=lambda: Buckets(burst=10, per_s=0.5))

    async def create(
        self, principal: Principal, key: str | None, body: CreateCall
    ) -> tuple[CreatedCall, bool]:
        """The call and its ticket; True where the key had been used for the same body before."""
        key = checked_key(key)
        now = self.clock.now()
        try:
            local_targets = self.local_targets and principal.mode == "test"
            check_create(body, local_targets=local_targets, listed=principal.targets)
            check_log_residency(body, self.jurisdiction)
            placed = self.placer.place(principal.project_id, body, self.fleet.now, now)
            webhook_id = await self._webhook(principal, body.webhook_url)
        except VoxplaneError:
            # what could be placed once is answered again, whatever has become of the fleet since
            made = await self.store.made(principal.project_id, CREATE_ROUTE, key)
            if made is None:
                raise
            return await self._replay(principal, made.call_id, made.body_hash == body_hash(body)), True
        content_key = await self.vault.for_project(principal.project_id)
        placement = view(placed)
        new = new_call(
            body,
            placed,
            placement,
            network=self.placer.network_kept(body),
            key=key,
            call_id=new_id(self.cell, int(now.timestamp() * 1000)),
            event_id=new_id(self.cell),
            webhook_id=webhook_id,
            now=now,
            attach_within_s=self.attach_within_s,
            content_hash=content_key.hash,
        )
        outcome = await self.coalescer.create(principal.project_id, new)
        if outcome.replayed:
            return await self._replay(principal, outcome.call_id, outcome.body_hash == new.body_hash), True
        self.hints.wake(DELIVERIES)
        self.hints.wake(f"feed:{principal.project_id}")
        calls_created_total.labels(placed.region).inc()
        created = self._created(principal, body, new, placed, placement, content_key)
        log.info("call.placed", call=created.id, region=placed.region, protection=placed.protection)
        return created, False

    async def _webhook(self, principal: Principal, url: str | None) -> UUID | None:
        return await self.webhooks.for_url(principal.project_id, principal.mode, url) if url else None

    def _created(
        self,
        principal: Principal,
        body: CreateCall,
        new: NewCall,
        placed: Placement,
        placement: PlacementView,
        content_key: ContentKey,
    ) -> CreatedCall:
        """The answer, from what was stored: nothing is read back."""
        grants = grants_of(1, placed.edges)
        caller = caller_of(body)
        ticket = make_ticket(
            TicketFor(
                call_id=new.call_id,
                project_id=principal.project_id,
                issued_at=new.created_at,
                attach_by=new.attach_by,
                expire_at=new.expire_at,
                max_duration_s=body.max_duration_s,
                caller=caller,
                agent=body.agent,
                grants=grants,
                local_targets=self.local_targets and principal.mode == "test",
            ),
            self.keyring,
            content_key,
        )
        return CreatedCall(
            id=ids.encode(ids.CALL, new.call_id),
            state="ringing",
            epoch=1,
            seq=1,
            region=placed.region,
            edge=placement.edge,
            caller=caller,
            agent=body.agent,
            placement=placement,
            metadata=body.metadata,
            webhook_url=body.webhook_url,
            max_duration_s=body.max_duration_s,
            created_at=rfc3339(new.created_at),
            answered_at=None,
            ended_at=None,
            end_reason=None,
            ticket=ticket,
            attach=attach_urls(grants),
        )

    async def _replay(self, principal: Principal, call_id: UUID, same_body: bool) -> CreatedCall:
        if not same_body:
            raise Invalid(
                "This Idempotency-Key was used for another body.",
                code="idempotency_key_reused",
                fix="Use a fresh key for another call, or send the body you sent first.",
            )
        call = await self.get(principal, call_id)
        content_key = await self.vault.for_project(call.project_id)
        grants = self._grants_from_record(call)
        local = self.local_targets and principal.mode == "test"
        ticket = make_ticket(self._ticket_for(call, grants, local), self.keyring, content_key)
        return CreatedCall(**view_fields(call), ticket=ticket, attach=attach_urls(grants))

    async def get(self, principal: Principal, call_id: UUID | None) -> StoredCall:
        call = await self.store.get(principal.project_id, call_id) if call_id is not None else None
        if call is None:
            raise NotFound("There is no such call.")
        return call

    async def end(self, principal: Principal, call_id: UUID | None) -> StoredCall:
        """Ends the call now: the final event is stored above every grant, then the edge is told. Twice is as good as once."""
        call = await self.get(principal, call_id)
        if call.state in FINAL:
            return call
        await self.appender.control(
            call.project_id,
            call.id,
            type="call.ended",
            data={"end_reason": EndReason.ENDED_BY_API.value},
            source=Source.CONTROL,
            source_key="end",
        )
        await self.commands.end_call(call.id, set(call.grant_edges), EndReason.ENDED_BY_API)
        return await self.get(principal, call_id)

    async def new_ticket(self, text: str, old_ticket: str) -> NewTicket:
        """Fresh epochs above all that were granted; the old ticket, still genuine and unexpired, is the credential."""
        try:
            claims = read(old_ticket, keys=self.keyring.public_keys)
        except TicketError as error:
            raise Unauthenticated(error.detail, fix=error.fix, code="bad_ticket") from None
        call_id = parse(ids.CALL, text)
        if claims.call != text or call_id is None:
            raise NotFound("There is no such call.")
        if claims.exp < self.clock.now().timestamp():
            raise Unauthenticated("The ticket has expired.", code="bad_ticket", fix="Create a new call.")
        call = await self.store.get_any(call_id)
        if call is None or ids.encode(ids.PROJECT, call.project_id) != claims.project:
            raise NotFound("There is no such call.")
        if call.state in FINAL:
            raise Conflict("The call has ended.", code="call_ended", fix="Create a new call.")
        if call.epoch_granted >= EPOCHS_MAX or not self.renewals.take(call_id, self.clock.monotonic_s()):
            raise QuotaExceeded(
                "This call asks for tickets too often.",
                fix="Use the grants of the newest ticket first.",
                retry_after_s=1,
            )
        body = CreateCall(
            agent=call.request.agent, latencies=call.request.latencies, regions=call.request.regions
        )
        placed = self.placer.place(
            call.project_id,
            body,
            self.fleet.now,
            self.clock.now(),
            before=recorded(call.placement.candidates),
        )
        first = await self.store.grant(
            call, [(e.id, e.incarnation) for e in placed.edges], call.grants_expire_at
        )
        if first is None:
            raise Conflict("The call has ended.", code="call_ended", fix="Create a new call.")
        self.tails.want(call.id)
        grants = grants_of(first, placed.edges)
        content_key = await self.vault.for_project(call.project_id)
        local = self.local_targets and self._was_local(claims)
        ticket = make_ticket(self._ticket_for(call, grants, local), self.keyring, content_key)
        return NewTicket(ticket=ticket, epoch=first, attach=attach_urls(grants))

    async def ticket(
        self, call: StoredCall, grants: tuple[Grant, ...], *, test: bool, moved_for: MovedFor | None = None
    ) -> str:
        """A ticket of a stored call. `test`: its project may name backends on this machine. `moved_for`: why it is to move, for
        the log."""
        content_key = await self.vault.for_project(call.project_id)
        return make_ticket(
            self._ticket_for(call, grants, self.local_targets and test), self.keyring, content_key, moved_for
        )

    def _was_local(self, claims: Claims) -> bool:
        """Whether the old ticket let its edge dial local addresses: it was a test project's."""
        keys = {k.id: unb64(k.key) for k in self.keyring.fleet_keys}
        try:
            plain = unseal(claims.sealed, keys=keys, bound_to=claims.call)
            return msgspec.json.decode(plain, type=Sealed).local_targets
        except (TicketError, msgspec.MsgspecError):
            return False

    def _ticket_for(self, call: StoredCall, grants: tuple[Grant, ...], local: bool) -> TicketFor:
        return TicketFor(
            call_id=call.id,
            project_id=call.project_id,
            issued_at=call.created_at,
            attach_by=call.attach_by,
            expire_at=call.grants_expire_at,
            max_duration_s=call.max_duration_s,
            caller=call.request.caller,
            agent=call.request.agent,
            grants=grants,
            local_targets=local,
        )

    def _grants_from_record(self, call: StoredCall) -> tuple[Grant, ...]:
        """The first grants, as the create's answer had them."""
        places = [(call.placement.region, call.placement.edge, call.placement.url)]
        places += [(s.region, s.edge, s.url) for s in call.placement.standbys]
        return tuple(
            Grant(epoch=i, edge=edge, incarnation=str(incarnation), region=region, url=url)
            for i, ((region, edge, url), incarnation) in enumerate(
                zip(places, call.grant_incarnations, strict=False), start=1
            )
        )


def grants_of(first: int, edges: tuple[EdgeState, ...]) -> tuple[Grant, ...]:
    return tuple(
        Grant(
            epoch=first + i,
            edge=ids.encode(ids.EDGE, e.id),
            incarnation=str(e.incarnation),
            region=e.region,
            url=e.media_url,
        )
        for i, e in enumerate(edges)
    )


def grants_between(call: StoredCall, first: int, count: int, fleet: Fleet) -> tuple[Grant, ...]:
    """The grants from epoch `first` on, as they are stored, of edges that are known and have not restarted since."""
    stored = zip(call.grant_edges, call.grant_incarnations, strict=True)
    found = [
        (epoch, edge)
        for epoch, (edge_id, incarnation) in enumerate(stored, start=1)
        if first <= epoch < first + count
        and (edge := fleet.edge(edge_id)) is not None
        and edge.incarnation == incarnation
    ]
    return tuple(grants_of(epoch, (edge,))[0] for epoch, edge in found)


def attach_urls(grants: tuple[Grant, ...]) -> list[str]:
    return [g.url + MEDIA_PATH for g in grants]
