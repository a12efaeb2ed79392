"""The calls this edge holds, and who may join them: tickets, capacity, one session per call and epoch.

The edge is the final authority on its own capacity: what the control plane knows of its load is some moments old. A caller it has no
room for is told the next standby. A call that lives elsewhere and is to be taken over has no better right to a place than a new one:
what is over the bound makes every call here late. Room for takeovers is kept below it, by placement (`app.placement.policy`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TypeVar

import msgspec
import structlog

from regions.edge.clock import lease_ms, wall_ms
from regions.edge.context import EdgeContext
from regions.edge.cutting import Cuts
from regions.edge.keyring import Keyring
from regions.edge.machine import Phase
from regions.edge.outbox import Outbox
from regions.edge.session import Session
from regions.edge.snapshots import open_snapshot, snapshot_key
from regions.edge.tails import TailReader
from regions.edge.takeover import TakeoverPlan, plan_takeover
from regions.media.pacer import Pacer
from regions.wire.media import Attach, Resume
from regions.wire.ticket import Claims, Grant, Sealed, TicketError, admit, check_first, read, unseal
from regions.wire.uplink import Cut, Held, Load

log = structlog.get_logger()

K = TypeVar("K")
V = TypeVar("V")

CALLS_KEPT = 20_000
EVERY_EPOCH = 1 << 31
LAPSED_KEPT_MS = 3_600_000
LAPSED_SAID_MAX = 200
NOT_TAKEN_SAID_MAX = 200


class Refusal(Exception):
    """A caller that is not served. `following`: the grant to try instead."""

    def __init__(self, code: str, detail: str, fix: str, following: Grant | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix
        self.following = following


class Calls:
    def __init__(self, keyring: Keyring, tails: TailReader, pacer: Pacer) -> None:
        self._keyring = keyring
        self._tails = tails
        self._pacer = pacer
        self._sessions: dict[tuple[str, int], Session] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()
        """Call → the epochs up to this one are refused. An edge that only stood by knows it from an `end` command alone: a call
        that ended elsewhere can still be taken here, and then the log fences it."""
        self._used: OrderedDict[tuple[str, int], None] = OrderedDict()
        """A ticket outlives the call: what was owned here once is not owned again, also after it was released."""
        self._denied: OrderedDict[str, int] = OrderedDict()
        """Call → the epochs up to this one are refused."""
        self._lapsed: OrderedDict[Held, int] = OrderedDict()
        self._cuts = Cuts()
        self.context: EdgeContext
        self.identity: tuple[str, str] = ("", "")
        self.refused = 0
        self.draining = self.stopping = False
        """Who attaches first is sent to its standby, where it has one. `stopping`: told by a signal, which nobody takes back."""

    def admit(self, attach: Attach) -> tuple[Claims, Grant, Sealed]:
        """Verifies the ticket without asking anyone. Raises `Refusal`."""
        resuming = attach.mode != "attach"
        edge, incarnation = self.identity
        claims: Claims | None = None
        try:
            claims = read(attach.ticket, keys=self._keyring.public)
            self._check_alive(claims.call, attach.epoch)
            grant = admit(
                claims,
                epoch=attach.epoch,
                edge=edge,
                incarnation=incarnation,
                now_s=time.time(),
                resuming=resuming,
            )
            plain = unseal(claims.sealed, keys=self._keyring.fleet, bound_to=claims.call)
            sealed = msgspec.json.decode(plain, type=Sealed)
        except TicketError as error:
            following = next_grant(claims, attach.epoch) if claims is not None else None
            raise Refusal(error.code, error.detail, error.fix, following) from None
        except msgspec.MsgspecError:
            raise Refusal(
                "forged", "the ticket's private part cannot be read", "use the ticket as issued"
            ) from None
        key = (claims.call, attach.epoch)
        newest = max((epoch for call, epoch in self._sessions if call == claims.call), default=0)
        if newest > attach.epoch:
            raise Refusal(
                "stale_epoch", "a higher epoch of this call has been taken here", "take a higher epoch"
            )
        self._check_room(claims, attach.epoch)
        if (self.draining or self.stopping) and not resuming and key not in self._sessions:
            following = next_grant(claims, attach.epoch)
            if following is not None:
                raise Refusal("draining", "this edge takes no new calls", "take the next standby", following)
        return claims, grant, sealed

    def granted(self, ticket: str, *, alone: bool = False) -> Grant:
        """The newest grant that a genuine ticket gives to this life of this edge. `alone`: of a caller that cannot go elsewhere, so
        that nobody else may be granted the call. Raises `Refusal`."""
        edge, incarnation = self.identity
        try:
            claims = read(ticket, keys=self._keyring.public)
        except TicketError as error:
            raise Refusal(error.code, error.detail, error.fix) from None
        if alone and len(claims.grants) > 1:
            raise Refusal(
                "has_standbys",
                "the ticket names standbys, which this caller cannot go to",
                "create the call with caller.kind twilio",
            )
        grants = [g for g in claims.grants if (g.edge, g.incarnation) == (edge, incarnation)]
        if not grants:
            raise Refusal(
                "wrong_edge", "the ticket grants nothing to this edge", "attach where its grants say"
            )
        self._check_alive(claims.call, grants[-1].epoch)
        return max(grants, key=lambda g: g.epoch)

    def _check_room(self, claims: Claims, epoch: int) -> None:
        """Asked again when a call is taken: while it was prepared others may have come. A call that is owned here has its place,
        whatever its epoch; one that was let go has none any more."""
        if self._owned() >= self.context.settings.capacity_calls and not self._owning(claims.call):
            self.refused += 1
            raise Refusal("full", "this edge is full", "take the next standby", next_grant(claims, epoch))

    def existing(self, call: str, epoch: int) -> Session | None:
        """The session that owns the call at this epoch here, if there is one."""
        session = self._sessions.get((call, epoch))
        return session if session is not None and session.owns() else None

    def open(self, claims: Claims, grant: Grant, sealed: Sealed) -> Session:
        """A session in the phase `prepared`; it counts once it is taken. Raises `Refusal` where this epoch was used here before."""
        self._check_unused(claims.call, grant.epoch)
        return Session(self.context, claims, grant, sealed)

    def own(self, session: Session, *, first: bool = False) -> None:
        """Call before the session is attached or taken. `first`: nothing shows that the call was served before. Raises
        `Refusal` where it is too late for that, and where this epoch was used here before."""
        key = (session.call, session.epoch)
        self._check_alive(*key)
        self._check_unused(*key)
        if first:
            try:
                check_first(session.claims, now_s=time.time())
            except TicketError as error:
                raise Refusal(error.code, error.detail, error.fix) from None
        self._check_room(session.claims, session.epoch)
        for (call, _), other in list(self._sessions.items()):
            if call == session.call:
                other.supersede()
        self._lapsed = OrderedDict((h, at) for h, at in self._lapsed.items() if h.call != session.call)
        self._sessions[key] = session
        _keep(self._used, key, None)
        self._pacer.add(session.turn)

    async def plan(self, session: Session, sealed: Sealed, resume: Resume | None) -> TakeoverPlan:
        """What the session would start from: the caller's snapshot, and the region's tail where it is there in time."""
        key = snapshot_key(sealed.snapshot_key)
        snapshot = open_snapshot(resume.snapshot if resume else None, call=session.call, key=key)
        return plan_takeover(resume, snapshot, await self._tails.read(session.call))

    def release(self, session: Session) -> None:
        self._pacer.remove(session.turn)
        self._sessions.pop((session.call, session.epoch), None)
        if session.lapsed:
            _keep(self._lapsed, Held(call=session.call, epoch=session.epoch), lease_ms())
        log.info("call.released", call=session.call, epoch=session.epoch)

    def end(self, call: str, reason: str) -> None:
        """The control plane has ended the call: it is dropped here and its tickets are refused."""
        _keep(self._ended, call, EVERY_EPOCH)
        for (held, _), session in list(self._sessions.items()):
            if held == call:
                session.end_by_control(reason)

    def move(self, call: str, ticket: str, within_ms: int, *, forced: bool = True) -> None:
        """The caller is to take one of the ticket's grants, on another edge. Nothing where the call is not owned here."""
        edge, _ = self.identity
        try:
            claims = read(ticket, keys=self._keyring.public)
        except TicketError as error:
            log.warning("call.not_moved", call=call, code=error.code)
            return
        for session in self._owning(call):
            epochs = [g.epoch for g in claims.grants if g.epoch > session.epoch and g.edge != edge]
            if claims.call == call and epochs:
                session.moving.start(
                    ticket, epochs, within_ms, lease_ms(), first=min(g.epoch for g in claims.grants), forced=forced
                )  # fmt: skip

    def renew(self, call: str, ticket: str) -> None:
        """The caller is to have a newer ticket, while it stays here. Nothing where the call is not owned here."""
        try:
            claims = read(ticket, keys=self._keyring.public)
        except TicketError as error:
            log.warning("call.not_renewed", call=call, code=error.code)
            return
        for session in self._owning(call):
            if claims.call == call:
                session.moving.renewed(ticket)

    def drain(self, *, on: bool) -> None:
        """Calls that are being moved are not touched: each is told by itself."""
        self.draining = on

    def stay(self, call: str, epoch: int | None) -> None:
        """The move whose first grant is `epoch` is off; None: whatever move there is."""
        for session in self._owning(call):
            session.moving.stay(epoch)

    def cut(self, call: str, epoch: int, how: str) -> Cut:
        """A drill: the call is treated as if this edge had died."""
        return self._cuts.cut(call, epoch, how, self._owning(call))

    def hang_up(self, call: str, epoch: int, socket: int, until_ms: int) -> None:
        """The backend ends the call over REST. Only while it is awaited, and only at the word of the very socket that is in use:
        a backend also hangs up because its socket has died, and then the call lives on with another."""
        if wall_ms() > until_ms:
            log.info("call.hung_up_late", call=call, epoch=epoch)
            return
        for session in self._owning(call):
            if session.epoch == epoch:
                session.hang_up(socket)

    def _owning(self, call: str) -> list[Session]:
        return [s for (held, _), s in self._sessions.items() if held == call and s.phase is Phase.OWNING]

    def ended(self, call: str, epoch: int) -> None:
        """A call has been ended here. `epoch`: the highest that its ticket grants. A later ticket would show that the log has
        not taken the end from this owner, and that the call lives on."""
        _keep(self._ended, call, max(epoch, self._ended.get(call, 0)))

    def deny(self, call: str, epoch: int) -> bool:
        """True where nothing here can own the call up to `epoch` any more: its grants are refused from now on. False where one
        session owns it, or still has something for the log."""
        for (held, _), session in self._sessions.items():
            if held == call and (session.phase is Phase.OWNING or not session.outbox.settled):
                return False
        _keep(self._denied, call, max(epoch, self._denied.get(call, 0)))
        return True

    def _check_alive(self, call: str, epoch: int) -> None:
        if 0 < epoch <= self._ended.get(call, 0):
            raise Refusal("ended", "the call has ended", "create a new call")
        if 0 < epoch <= self._denied.get(call, 0):
            raise Refusal("denied", "this epoch was given up", "ask for a new ticket")

    def _check_unused(self, call: str, epoch: int) -> None:
        if (call, epoch) in self._used or (call, epoch) in self._sessions:
            raise Refusal("epoch_used", "this epoch has been used here", "take the next standby")

    def lapsed(self) -> list[Held]:
        """Calls that were let go here in the last hour, and that nobody has ended or taken here since."""
        now = lease_ms()
        while self._lapsed and now - next(iter(self._lapsed.values())) > LAPSED_KEPT_MS:
            self._lapsed.popitem(last=False)
        return [h for h in self._lapsed if h.call not in self._ended and h.call not in self._denied][
            :LAPSED_SAID_MAX
        ]

    def not_taken(self) -> list[Held]:
        """Calls that were to be moved and have stayed, by the first epoch of the move."""
        first = ((s.call, s.moving.not_taken) for s in self._sessions.values() if s.phase is Phase.OWNING)
        return [Held(call=call, epoch=epoch) for call, epoch in first if epoch is not None][
            :NOT_TAKEN_SAID_MAX
        ]

    def session(self, call: str, epoch: int) -> Session | None:
        return self._sessions.get((call, epoch))

    @property
    def late_turns(self) -> list[int]:
        """How many turns of calls began how late, by the buckets of the pacer."""
        return self._pacer.late_turns

    @property
    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    @property
    def outboxes(self) -> list[Outbox]:
        return [s.outbox for s in self._sessions.values()]

    def _owned(self) -> int:
        return sum(s.phase is Phase.OWNING for s in self._sessions.values())

    def load(self) -> Load:
        return Load(
            calls=self._owned(),
            capacity_calls=self.context.settings.capacity_calls,
            lateness_p99_ms=round(self._pacer.lateness_p99_ms(), 2),
        )

    def held(self) -> list[Held]:
        return [Held(call=s.call, epoch=s.epoch) for s in self._sessions.values() if s.phase is Phase.OWNING]


def next_grant(claims: Claims, epoch: int) -> Grant | None:
    """The standby after this epoch."""
    return min((g for g in claims.grants if g.epoch > epoch), key=lambda g: g.epoch, default=None)


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """The newest `CALLS_KEPT`."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > CALLS_KEPT:
        kept.popitem(last=False)
