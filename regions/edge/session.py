"""One call on this edge: the caller on one side, the backend on the other, the log behind.

Decides when audio may flow and when the call is over. Leaves sockets to its two legs, what is written to the `Journal`, the right
to speak to the `Lease`, who speaks and who is silenced to the `Floor`. Never waits; the pacer calls `turn` every 20 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from regions.agents.connection import AgentConnection, Ending
from regions.agents.speaking import format_of
from regions.edge.agent_leg import AgentLeg, Dialled, Known
from regions.edge.answers import Answers
from regions.edge.call_time import CallTime
from regions.edge.caller_leg import CallerLeg, CallerPort
from regions.edge.clock import lease_ms, wall_ms
from regions.edge.closing import Closing
from regions.edge.context import EdgeContext
from regions.edge.floor import Floor
from regions.edge.journal import Journal
from regions.edge.kept import Kept
from regions.edge.leases import lease_from_now
from regions.edge.line import CallLine
from regions.edge.machine import Phase, step
from regions.edge.moving import Moving
from regions.edge.outbox import Outbox
from regions.edge.recall import Recall
from regions.edge.returning import Returning
from regions.edge.snapshots import seal_snapshot, snapshot_key
from regions.edge.speech import AgentSpeech
from regions.edge.takeover import TakeoverPlan, taken
from regions.edge.told import Told
from regions.media.playout import Popped
from regions.wire import media as wire
from regions.wire.events import EndReason
from regions.wire.ticket import Claims, Grant, Sealed
from regions.wire.uplink import AppendStatus

log = structlog.get_logger()


class Session:
    def __init__(self, context: EdgeContext, claims: Claims, grant: Grant, sealed: Sealed) -> None:
        self._context = context
        self.claims = claims
        self.grant = grant
        self.call = claims.call
        self.epoch = grant.epoch
        self.phase = Phase.PREPARED
        self.lapsed = False
        """Let go because the caller was not heard."""
        self._key = snapshot_key(sealed.snapshot_key)
        self._moved_for = sealed.moved_for
        self._journal = Journal(
            claims.call, grant.epoch, context.new_event_id, lambda: context.uplink.notify(self), context.watch(claims, grant, sealed)
        )  # fmt: skip
        self._format = format_of(sealed.agent)
        self._caller = CallerLeg(self.owns, self._format)
        self._agent = AgentLeg(self, context, claims, grant.epoch, sealed)
        self._recall = Recall(self._journal, self.call, context.tails, self._agent, self.owns)
        self._lease = lease_from_now()
        self._speech = AgentSpeech(inner=self._format)
        self._answers = Answers(sealed.latency_budget, self._journal, context.answers, lease_ms)
        self._floor = Floor(
            sealed.turns, context.voice, self._journal, self._caller, self._agent, self._speech, lambda: self.stamp,
            lambda: self._time.elapsed_ms(lease_ms()), self._answers,
            context.counts.presses("button", claims.call, grant.epoch), self._format,
        )  # fmt: skip
        self._listening = self._floor.listening
        self._told = Told(self._journal, self._recall, self._floor, self._live)
        self._returning = Returning(
            self._journal, self._caller, grant, sealed.agent.reconnect, context.backends
        )
        self.moving = Moving(claims.call, self._caller)
        self._time = CallTime(lease_ms(), 0)
        self._closing = Closing(claims.max_s, sealed.end_when, lease_ms())
        self._kept = Kept()

    @property
    def outbox(self) -> Outbox:
        return self._journal.outbox

    @property
    def stamp(self) -> int:
        return self._lease.stamp(lease_ms())

    def owns(self) -> bool:
        return self.phase is Phase.OWNING and self._lease.holds(lease_ms())

    # ------------------------------------------------------------------------------------------------ the caller

    def attach(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """Begins the call (the primary's first attach)."""
        self._carry(port, encoding, sample_rate)
        self._time = CallTime(lease_ms(), wall_ms())
        self._begin(encoding, sample_rate)

    def take(
        self, port: CallerPort, encoding: str, sample_rate: int, plan: TakeoverPlan, reason: str
    ) -> None:
        """Goes on where the owner before left off: the takeover event first, then what was not durable. Where nobody has
        carried the call before, it begins here."""
        self._lease = lease_from_now()
        self._carry(port, encoding, sample_rate)
        self._time = CallTime(lease_ms(), plan.answered_at_ms or wall_ms(), plan.elapsed_ms)
        self._speech.follow(plan.utterance)
        if plan.fresh:
            self._begin(encoding, sample_rate)
            return
        self._returning.taken(plan.from_epoch, lease_ms(), planned=reason == "planned")
        self._journal.record(*taken(plan, self.epoch, reason, self._moved_for))
        self._journal.take_over(plan)
        self._journal.record_all(
            self._speech.cut_before(plan.cut, plan.cut_text, plan.cut_words, plan.cut_id)
        )
        self._greet(resumed=True)
        self._agent.dial(self._known, resumed=True)

    def _carry(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        self.phase = step(self.phase, "take")
        caller, answers = self._caller, self._answers
        caller.take(port, encoding, sample_rate)
        self._line = CallLine(caller.line, caller.too_late, lambda: answers.rtt_ms, self._agent, lease_ms())

    def _begin(self, encoding: str, sample_rate: int) -> None:
        self._journal.record("call.answered", {"encoding": encoding, "sample_rate": sample_rate})
        self._greet(resumed=False)
        self._agent.dial(self._known, resumed=False)

    def resume(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """The same owner and epoch after a broken socket."""
        self._caller.take(port, encoding, sample_rate)
        self._greet(resumed=True)
        self._returning.tell_caller()
        self.moving.again(lease_ms())

    def leave(self, port: CallerPort) -> None:
        """The socket has closed. The call is kept while its lease holds: the caller may come back, or may have moved."""
        if self._caller.leave(port):
            self.caller_talks(False)
        if self.phase is Phase.PREPARED:
            self.phase = step(self.phase, "leave")

    def caller_audio(self, stamp: int, played: wire.Position, samples: bytes, sequence: int) -> None:
        """`played`: by the caller, last."""
        if self._echo(stamp):
            self._floor.played.said(stamp, played)
            self._caller.heard(samples, sequence)
            if self.owns():
                self._floor.hear()

    def caller_alive(self, stamp: int, played: wire.Position) -> None:
        if self._echo(stamp):
            self._floor.played.said(stamp, played)

    def caller_talks(self, on: bool) -> None:
        if self.owns():
            self._floor.talk(on)

    def caller_dtmf(self, digit: str) -> None:
        if self.owns() and self._agent.dtmf(digit):
            self._journal.record("dtmf.received", {"digit": digit})

    def caller_moved(self, epoch: int) -> None:
        """Another edge serves the caller. What has begun to be played here is heard to its end."""
        if self.owns() and self.moving.arrived(epoch > self.epoch) and not self._speech.active:
            self._leave_to_others("lapse")

    def caller_hung_up(self) -> None:
        self.end(EndReason.CALLER_HUNG_UP)

    # ----------------------------------------------------------------------------------------------- the backend

    def leaving(self) -> bool:
        return self.moving.gone

    def on_connected(self, dialled: Dialled) -> None:
        self._floor.agent_up()
        self._returning.agent_up(dialled, self._listening.waited(), lease_ms())

    def on_unreached(self) -> None:
        self._returning.agent_away(lease_ms())

    def on_unreachable(self, dialled: Dialled) -> None:
        """What the backend before has said is heard out."""
        if not dialled.resumed:
            self.end(EndReason.AGENT_UNREACHABLE, {"detail": dialled.code})
            return
        self._returning.over(dialled, lease_ms())
        self._closing.once_heard(EndReason.AGENT_LOST, dialled.tried)

    def on_audio(self, samples: bytes) -> None:
        if self.owns() and not self._closing.wanted:
            self._journal.record_all(self._speech.push(samples))
            self._answers.audio()

    def on_utterance(self, id_: str, offset_ms: int) -> None:
        self._journal.record_all(self._speech.begin(id_, offset_ms) if self.owns() else [])

    def on_hangup(self, reason: str) -> None:
        """What it has said is heard out, then the call ends."""
        if self.owns() and not self._closing.wanted:
            self._speech.end()
            self._journal.record_all(self._closing.hung_up(reason))

    def on_mark(self, name: str) -> None:
        self._speech.mark(name)

    def on_clear(self, chunk: bytes | None) -> None:
        if self.owns() and not self._speech.cancel(chunk):
            self._floor.interrupt("agent")

    def on_text(self, type_: str, data: bytes) -> None:
        if self.owns():
            self._told.take(type_, data, self._speech, lease_ms())

    def on_closed(self, connection: AgentConnection, ending: Ending) -> None:
        taken_as = self._agent.lost(connection, ending)
        if taken_as is None or not self.owns():
            return
        self._journal.record("agent.disconnected", taken_as.data())
        if taken_as.clean:
            self.on_hangup("")
            return
        self._speech.broken_off()
        self._recall.forget()
        self._floor.agent_lost()
        self._returning.agent_lost(taken_as, self._speech.last_utterance, lease_ms())
        self._agent.again(self._known)

    def _known(self) -> Known:
        """What a new backend should know."""
        return Known(self._journal.turns + self._speech.unheard(), self._speech.awaited)

    def _live(self, type_: str, data: bytes) -> None:
        self._context.uplink.volatile(self.call, self.epoch, type_, wall_ms(), data)

    # -------------------------------------------------------------------------------------------------- the log

    def settled(self, status: AppendStatus) -> None:
        """What the log says of a run. See `wire.uplink.AppendStatus`."""
        match status.status:
            case "durable":
                self._recall.acknowledged(status)
            case "gap":
                self._journal.go_on_from(status.durable_n)
            case "busy":
                self.outbox.send_again()
            case "fenced" if status.end_reason and self.phase is Phase.OWNING:
                self.end_by_control(status.end_reason)
            case code:
                self._fence(code, status.detail)

    def _snapshot(self) -> str:
        snapshot = self._journal.snapshot()
        self._time.into(snapshot, lease_ms())
        snapshot.stream_sid = self._agent.stream_sid
        self._speech.into(snapshot)
        return seal_snapshot(snapshot, self._key)

    # ------------------------------------------------------------------------------------------------ the clock

    def turn(self, _: int) -> None:
        """The call's 20 ms. The lease is asked first: a process that was stopped and goes on sends nothing."""
        now = lease_ms()
        if self.phase is not Phase.OWNING:
            self._wind_down(now)
            return
        if not self._lease.holds(now):
            log.info("call.lapsed", call=self.call, epoch=self.epoch)
            self.lapsed = True
            self._leave_to_others("lapse")
            return
        self._floor.turn()
        self._to_agent()
        self._to_caller(self._speech.pop(), now)
        backend, caller, agent = self._agent.connection is not None, self._floor.speaking, self._speech.active
        over = self._closing.turn(
            now, self._time.elapsed_ms(now), backend=backend, caller=caller, agent=agent
        )
        if over is not None:
            self.end(*over)
            return
        self._listening.turn(now, agent=self._speech.active)
        boundary = self._listening.turn_over
        goes = self.moving.goes(now, boundary=boundary)
        self._journal.record_all(self._line.turn(now, last=goes))
        self._journal.changed |= self._time.stale(now) or goes
        self._caller.keep_informed(self._journal, self._snapshot, stamp=self._lease.stamp(now), now=now)
        if self.moving.turn(now, boundary=boundary, silent=not self._speech.active):
            self._leave_to_others("lapse")

    def _to_agent(self) -> None:
        for frame in self._listening.next():
            self._listening.hear(self._floor.given(frame))
        if (agent := self._agent.connection) is None:
            return
        for frame in self._listening.due() or (self._format.silence,):
            agent.send_audio(frame, voice=self._floor.voiced)
        self._returning.given(lease_ms())

    def _to_caller(self, popped: Popped | None, now: int) -> None:
        stamp = self._lease.stamp(now)
        if popped is not None:
            self._floor.echo(popped.marks)
            if popped.started:
                self._floor.answered(popped.utterance)
            self._journal.record_all(self._speech.facts(popped))
            if (tick := self._speech.tick(popped)) is not None:
                self._live("playback.tick", tick)
            if self._caller.play(popped, stamp=stamp, now=now):
                self._returning.played(popped.utterance, now)
                return
        if not self._speech.active and (sound := self._returning.sound(now)) is not None:
            self._caller.fill(sound, stamp=stamp, now=now)

    # -------------------------------------------------------------------------------------------------- the end

    def hang_up(self, socket: int) -> None:
        """At the word of the backend whose socket has that number: nothing where it is another, or the caller is on its way."""
        if self._agent.socket == socket and not self.moving.gone:
            self.end(EndReason.AGENT_HUNG_UP)

    def end(self, reason: EndReason, why: Mapping[str, object] | None = None) -> None:
        """Writes the final event, while the lease holds, and closes both sides. What is not acknowledged yet is still sent."""
        if not self.owns():
            return
        self._floor.end()
        self._journal.end(reason, {**(why or {}), **self._line.data(lease_ms())})
        self._finish(reason.value)

    def end_by_control(self, reason: str) -> None:
        """The log has the final event already: nothing more is written. The command and a run that was fenced say so."""
        if self.phase is Phase.OWNING:
            self._finish(reason)
            self.outbox.close(fenced=True)
            self._journal.last_word(self._line.data(lease_ms()))

    def _finish(self, reason: str) -> None:
        self.phase = step(self.phase, "end")
        self._lease.end()
        self._floor.close()
        self._returning.over(None, lease_ms())
        self._agent.close(stop=True)
        self._caller.tell(wire.Ended(end_reason=reason))
        self._caller.close()
        self._context.ended(self.call, max(g.epoch for g in self.claims.grants))
        log.info("call.ended", call=self.call, epoch=self.epoch, end_reason=reason, events=self.outbox.last_n)

    def _fence(self, code: str, why: str) -> None:
        """A caller that was told to go is heard out, under what is left of the lease: it says when it has arrived."""
        self.outbox.close(fenced=code == "fenced")
        if self.phase is Phase.OWNING and not self.moving.gone:
            log.warning("call.fenced", call=self.call, epoch=self.epoch, status=code, detail=why)
            refused = wire.Refused(code=code, detail="another edge has the call", fix="take the next standby")
            self._caller.tell(refused)
            self._leave_to_others("fence")

    def _leave_to_others(self, action: str) -> None:
        """Mute from here on: the caller may be elsewhere. Nothing final is written, for lost contact ends no call."""
        self.phase = step(self.phase, action)
        self._lease.end()
        self._floor.close()
        self._returning.over(None, lease_ms())
        self._journal.last_word(self._line.data(lease_ms()))
        self._agent.close(stop=False)
        self._caller.close()

    def supersede(self) -> None:
        """A higher epoch of the same call has been taken on this very edge, or the edge stops."""
        if self.phase is Phase.OWNING:
            self._leave_to_others("lapse")

    def cut(self, *, silent: bool) -> None:
        """As if this process had died, for this call alone: nobody is told."""
        self._caller.cut(silent=silent)
        self._leave_to_others("lapse")

    def _wind_down(self, now: int) -> None:
        """Kept a while so that what is not acknowledged can still be sent."""
        if self.phase in (Phase.MUTE, Phase.ENDED) and self._kept.over(
            now, ended=self.phase is Phase.ENDED, settled=self.outbox.settled
        ):
            self.phase = step(self.phase, "release")
        if self.phase is Phase.GONE:
            self._context.release(self)

    def _greet(self, *, resumed: bool) -> None:
        self._caller.greet(self.call, self.grant, stamp=self.stamp, resumed=resumed)
        self._journal.changed = True

    def _echo(self, stamp: int) -> bool:
        now = lease_ms()
        if heard := self.phase is Phase.OWNING and self._lease.echo(stamp, now):
            self._returning.caller_heard = True
            self._answers.echoed(self._lease.age_ms(stamp, now))
        return heard
