"""The call's use cases: create, read, end, a new ticket, its conversation. The glue between pure decisions and the stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog

from app.audit.service import Audit
from app.buckets import Buckets
from app.calls.coalescer import Coalescer
from app.calls.creation import body_hash, caller_of, checked_key, new_call, subject_of
from app.calls.machine import FINAL
from app.calls.policy import check_bounds, check_create, check_epochs, check_log_residency
from app.calls.shapes import CallerRequest, CreateCall, CreatedCall, NewTicket, PlacementView
from app.calls.store import CallStore, NewCall, StoredCall, view_fields
from app.calls.tickets import TicketFor, make_ticket
from app.calls.took import Took
from app.clock import Clock, rfc3339
from app.errors import Conflict, Erased, Invalid, NotFound, QuotaExceeded, Unauthenticated, VoxplaneError
from app.fleet.desired import Commands
from app.fleet.keyring import Keyring
from app.fleet.view import EdgeState, Fleet, FleetView
from app.hints import Hints
from app.ids import new_id, parse
from app.log.append import Appender
from app.placement.again import recorded
from app.placement.choice import Placement
from app.placement.service import Placer, view
from app.projects.agent_secret import Version, valid
from app.projects.auth import Principal
from app.projects.quotas_policy import left, refused
from app.telemetry import calls_created_total
from app.times import unix_ms, whole_ms
from app.tracing import Tracer
from app.vault import CallKey, Vault
from regions.wire import ids
from regions.wire.events import EndReason, Source
from regions.wire.media import TWILIO_PATH, attach_url
from regions.wire.ticket import AgentSecret, Claims, Grant, MovedFor, Sealed, TicketError, read, unb64, unseal

log = structlog.get_logger()

CREATE_ROUTE = "POST /v1/calls"


class CallWebhooks(Protocol):
    async def for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        """The hidden endpoint of this URL in the project, created where there is none. Raises `Invalid` where there are too many."""
        ...


class CallTails(Protocol):
    def want(self, call: UUID) -> None:
        """The call has new standbys: their regions get what was said so far. Never blocks, never raises."""
        ...


class Outcome(NamedTuple):
    """`replayed`: the key had been used for the same body before. `headers`: what is left of the quotas, where there are any."""

    call: CreatedCall
    replayed: bool
    headers: dict[str, str]


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
    audit: Audit
    tracer: Tracer = field(default_factory=Tracer)
    jurisdiction: str = ""
    """Where the log of these calls lies; empty where the deployment names none."""
    renewals: Buckets = field(default_factory=lambda: Buckets(burst=10, per_s=0.5))

    async def create(
        self, principal: Principal, key: str | None, asked: CreateCall, traceparent: str | None = None
    ) -> Outcome:
        """The call and its ticket. Raises `QuotaExceeded` for a create that is not a repeated one and has no room in a quota."""
        key, body, bounds, hashed = checked_key(key), asked, principal.bounds, body_hash(asked)
        now, took = whole_ms(self.clock.now()), Took(self.clock)
        try:
            local_targets = self.local_targets and principal.mode == "test"
            check_create(body, local_targets=local_targets, listed=principal.targets)
            body = check_bounds(body, bounds)
            check_log_residency(body, self.jurisdiction, self.fleet.now)
            took.over("check")
            placed = self.placer.place(principal.project_id, body, self.fleet.now, now)
            took.over("place")
            webhook_id = await self._webhook(principal, body.webhook_url)
        except VoxplaneError:
            # what could be placed once is answered again, whatever has become of the fleet since
            made = await self.store.made(principal.project_id, CREATE_ROUTE, key)
            if made is None:
                raise
            return await self._replay(principal, made.call_id, made.body_hash == hashed)
        project_key = await self.vault.for_project(principal.project_id)
        placement, call_id = view(placed), new_id(self.cell, unix_ms(now))
        content = project_key.new_call(call_id)
        begun = self.tracer.begin(ids.encode(ids.CALL, call_id), traceparent)
        new = new_call(
            body,
            placed,
            placement,
            network=self.placer.network_kept(body),
            secret=principal.agent_secret,
            key=key,
            call_id=call_id,
            trace=begun[0].traceparent if begun is not None else "",
            event_id=new_id(self.cell),
            webhook_id=webhook_id,
            now=now,
            attach_within_s=self.attach_within_s,
            content=content,
            subject=subject_of(project_key, body),
            hashed=hashed,
            key_id=principal.key_id,
            limits=bounds.creates(principal.key_id),
        )
        outcome = await self.coalescer.create(principal.project_id, new)
        took.over("commit")
        if outcome.replayed:
            return await self._replay(principal, outcome.call_id, outcome.body_hash == new.body_hash)
        verdict = outcome.verdict
        if verdict is not None and verdict.refused:
            log.info("call.refused", quota=verdict.refused)
            raise refused(verdict, bounds)
        calls_created_total.labels(placed.region).inc()
        created = self._created(principal, body, new, placed, placement, content)
        took.over("answer")
        self.tracer.created(begun, now, took.until_s, created.id, placed.region)
        log.info("call.placed", call=created.id, region=placed.region, protection=placed.protection)
        return Outcome(created, replayed=False, headers=left(verdict, bounds) if verdict is not None else {})

    async def _webhook(self, principal: Principal, url: str | None) -> UUID | None:
        return await self.webhooks.for_url(principal.project_id, principal.mode, url) if url else None

    def _created(
        self,
        principal: Principal,
        body: CreateCall,
        new: NewCall,
        placed: Placement,
        placement: PlacementView,
        content: CallKey,
    ) -> CreatedCall:
        """The answer, from what was stored: nothing is read back."""
        grants = grants_of(1, placed.edges, body.caller.kind)
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
                end_when=body.end_when,
                latency_budget=body.latency_budget,
                turns=body.turns,
                grants=grants,
                local_targets=self.local_targets and principal.mode == "test",
                secrets=self._secrets(principal.project_id, principal.agent_secret),
                trace=new.trace,
            ),
            self.keyring,
            content,
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
            turns=body.turns,
            placement=placement,
            metadata=body.metadata,
            webhook_url=body.webhook_url,
            max_duration_s=body.max_duration_s,
            end_when=body.end_when,
            latency_budget=body.latency_budget,
            created_at=rfc3339(new.created_at),
            answered_at=None,
            ended_at=None,
            end_reason=None,
            traceparent=new.trace or msgspec.UNSET,
            ticket=ticket,
            attach=attach_urls(grants, body.caller.kind, ticket),
        )

    async def _replay(self, principal: Principal, call_id: UUID, same_body: bool) -> Outcome:
        call = await self.get(principal, call_id)
        if call.erased_at is not None:
            raise Erased
        if not same_body:
            raise Invalid(
                "This Idempotency-Key was used for another body.",
                code="idempotency_key_reused",
                fix="Use a fresh key for another call, or send the body you sent first.",
            )
        content = await self._key(call)
        grants = self._grants_from_record(call)
        local = self.local_targets and principal.mode == "test"
        ticket = make_ticket(self._ticket_for(call, grants, local), self.keyring, content)
        attach = attach_urls(grants, call.request.caller.kind, ticket)
        created = CreatedCall(**view_fields(call), ticket=ticket, attach=attach)
        return Outcome(created, replayed=True, headers={})

    async def get(self, principal: Principal, call_id: UUID | None) -> StoredCall:
        call = await self.store.get(principal.project_id, call_id) if call_id is not None else None
        if call is None:
            raise NotFound("There is no such call.")
        return call

    async def end(self, principal: Principal, call_id: UUID | None) -> StoredCall:
        """Ends the call now: who asks is noted, the final event stored above every grant, the edge told. Twice is as good as once."""
        call = await self.get(principal, call_id)
        if call.state in FINAL:
            self.audit.unchanged("call.end_asked")
            return call
        await self.audit.read(call.project_id, "call.end_asked", ids.encode(ids.CALL, call.id))
        ended = {"end_reason": EndReason.ENDED_BY_API.value}
        await self.appender.control(
            call.project_id, call.id, type="call.ended", data=ended, source=Source.CONTROL, source_key="end"
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
        check_epochs(call.epoch_granted)
        if not self.renewals.take(call_id, self.clock.monotonic_s()):
            raise QuotaExceeded(
                "This call asks for tickets too often.",
                fix="Use the grants of the newest ticket first.",
                retry_after_s=1,
            )
        body = CreateCall(
            caller=CallerRequest(kind=call.request.caller.kind),
            agent=call.request.agent,
            latencies=call.request.latencies,
            regions=call.request.regions,
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
        grants = grants_of(first, placed.edges, call.request.caller.kind)
        content = await self._key(call)
        local = self.local_targets and self._was_local(claims)
        ticket = make_ticket(self._ticket_for(call, grants, local), self.keyring, content)
        attach = attach_urls(grants, call.request.caller.kind, ticket)
        return NewTicket(ticket=ticket, epoch=first, attach=attach)

    async def ticket(
        self, call: StoredCall, grants: tuple[Grant, ...], *, test: bool, moved_for: MovedFor | None = None
    ) -> str:
        """A ticket of a stored call. `test`: its project may name backends on this machine. `moved_for`: why it is to move, for
        the log."""
        content = await self._key(call)
        return make_ticket(
            self._ticket_for(call, grants, self.local_targets and test), self.keyring, content, moved_for
        )

    async def _key(self, call: StoredCall) -> CallKey:
        """Raises `Gone` where the call was erased."""
        key = await self.vault.of_call(call.project_id, call.id, call.wrapped)
        if key is None:
            raise Erased
        return key

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
            end_when=call.request.end_when,
            latency_budget=call.request.latency_budget,
            turns=call.request.turns,
            grants=grants,
            local_targets=local,
            secrets=self._secrets(call.project_id, call.request.secret),
            trace=call.request.trace,
        )

    def _signalling(self, edge: str, otherwise: str) -> str:
        known = self.fleet.now.edge(ids.decode(ids.EDGE, edge))
        return known.http_url if known is not None else otherwise

    def _secrets(self, project_id: UUID, version: Version) -> list[AgentSecret]:
        now_s = int(self.clock.now().timestamp())
        return valid(self.vault.provider.derive, project_id, version, now_s)

    def _grants_from_record(self, call: StoredCall) -> tuple[Grant, ...]:
        """The first grants, as the create's answer had them."""
        places = [(call.placement.region, call.placement.edge, call.placement.url)]
        places += [(s.region, s.edge, s.url) for s in call.placement.standbys]
        if call.request.caller.kind == "webrtc":
            places = [(region, edge, self._signalling(edge, url)) for region, edge, url in places]
        return tuple(
            Grant(epoch=i, edge=edge, incarnation=str(incarnation), region=region, url=url)
            for i, ((region, edge, url), incarnation) in enumerate(
                zip(places, call.grant_incarnations, strict=False), start=1
            )
        )


def grants_of(first: int, edges: tuple[EdgeState, ...], kind: str) -> tuple[Grant, ...]:
    """`kind`: of the caller, which says at which listener it attaches."""
    return tuple(
        Grant(
            epoch=first + i,
            edge=ids.encode(ids.EDGE, e.id),
            incarnation=str(e.incarnation),
            region=e.region,
            url=e.http_url if kind == "webrtc" else e.media_url,
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
    return tuple(grants_of(epoch, (edge,), call.request.caller.kind)[0] for epoch, edge in found)


def attach_urls(grants: tuple[Grant, ...], kind: str, ticket: str) -> list[str]:
    """`kind`: of the caller. One that speaks as Twilio does can say nothing before it is there: its ticket is in the URL."""
    if kind == "twilio":
        return [f"{g.url}{TWILIO_PATH}/{ticket}" for g in grants]
    return [attach_url(g.url) for g in grants]
