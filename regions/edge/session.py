"""One call on this edge: the caller on one side, the backend on the other, the log behind.

Decides what is written down and when audio may flow; leaves sockets to `callers` and `agents`, numbering to `Outbox`,
the right to speak to `Lease`, positions to `Playout`. Runs on the event loop; nothing in here waits except the dialling,
which is a task of its own. Every 20 ms the pacer calls `turn`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

import msgspec
import structlog

from regions.agents.connection import AgentConnection
from regions.agents.dial import DialError
from regions.agents.twilio import TwilioDialect, conversation_parameter, sid
from regions.edge.clock import lease_ms, wall_ms
from regions.edge.context import EdgeContext
from regions.edge.lease import Lease
from regions.edge.machine import Phase, step
from regions.edge.outbox import Outbox
from regions.edge.snapshots import seal_snapshot, snapshot_key
from regions.edge.takeover import TakeoverPlan
from regions.edge.utterances import Utterances
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import SILENCE, Transcoder, to_pcm
from regions.media.playout import Playout
from regions.media.voice_activity import VoiceGate
from regions.wire import media as wire
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import EndReason, Origin
from regions.wire.snapshot import CallSnapshot, Turn, Unacked, Word, bounded
from regions.wire.ticket import Claims, Grant, Sealed
from regions.wire.uplink import AppendStatus

log = structlog.get_logger()

REDIAL_S = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0)
MUTE_KEPT_S = 10.0
ACKS_EVERY_MS = 250
HANGUP_PLAYOUT_MAX_MS = 10_000
SNAPSHOT_TYPES = (
    frozenset({"call.answered", "call.reconnecting", "call.reconnected", "transcript.final"}) | FOLDED_TYPES
)


class CallerPort(Protocol):
    """The caller's socket. Sending to one that has closed does nothing."""

    def send_text(self, message: bytes) -> None: ...
    def send_audio(self, frame: bytes) -> None: ...
    def close(self) -> None: ...


class _WordData(msgspec.Struct):
    word: str = ""
    offset_ms: int = 0


class _TextData(msgspec.Struct):
    role: str = ""
    text: str = ""
    words: list[_WordData] = []


class _ToolData(msgspec.Struct):
    id: str = ""


_text = msgspec.json.Decoder(_TextData)
_tool = msgspec.json.Decoder(_ToolData)


class Session:
    def __init__(self, context: EdgeContext, claims: Claims, grant: Grant, sealed: Sealed) -> None:
        self._context = context
        self.claims = claims
        self.grant = grant
        self._sealed = sealed
        self._key = snapshot_key(sealed.snapshot_key)
        self.call = claims.call
        self.epoch = grant.epoch
        self.phase = Phase.PREPARED
        self.outbox = Outbox(claims.call, grant.epoch)
        self._lease = Lease(lease_ms(), int.from_bytes(os.urandom(6), "big"))
        self._caller: CallerPort | None = None
        self._transcoder = Transcoder("pcm16", 16_000)
        self._buffer = CallerBuffer()
        self._playout = Playout()
        self._voice = VoiceGate()
        self._utterances = Utterances()
        self._turns: list[Turn] = []
        self._agent: AgentConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._stream_sid = sid("MZ", os.urandom(16))
        self._sequence = 0
        self._sent_ms = 0
        self._answered_at_ms = 0
        self._resumed_from: int | None = None
        self._announce_resume = False
        self._snapshot_due = False
        self._acks_sent_ms = 0
        self._acks_due = False
        self._tool_acks: dict[int, str] = {}
        self._hanging_up: EndReason | None = None
        self._lost_events = 0
        self._released_at_ms = 0

    # ------------------------------------------------------------------------------------------------ the caller

    @property
    def stamp(self) -> int:
        return self._lease.stamp(lease_ms())

    def attach(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """Begins the call (the primary's first attach)."""
        self.phase = step(self.phase, "take")
        self._take_caller(port, encoding, sample_rate)
        self._answered_at_ms = wall_ms()
        self.record("call.answered", {"encoding": encoding, "sample_rate": sample_rate})
        self._greet(resumed=False)
        self._dial(resumed=False)

    def take(
        self, port: CallerPort, encoding: str, sample_rate: int, plan: TakeoverPlan, reason: str
    ) -> None:
        """Goes on where the owner before left off: the takeover event first, then what was not durable."""
        self.phase = step(self.phase, "take")
        self._lease = Lease(lease_ms(), int.from_bytes(os.urandom(6), "big"))
        self._take_caller(port, encoding, sample_rate)
        self._resumed_from = plan.from_epoch
        self._announce_resume = True
        self._answered_at_ms = plan.answered_at_ms or wall_ms()
        self._playout = Playout(plan.utterance)
        planned = reason == "planned"
        self.record(
            "call.moved" if planned else "call.reconnecting",
            {"from_epoch": plan.from_epoch, "to_epoch": self.epoch, "reason": reason, "history": plan.source},
        )
        for adopted in plan.adopt:
            event = adopted.event
            self._put(event.type, bytes(event.data), at_ms=event.at_ms, id=event.id, origin=adopted.origin)
        self._turns = bounded(plan.turns)
        if plan.cut.utterance and plan.cut_text:
            self._utterances.announce(plan.cut.utterance, plan.cut_text, plan.cut_words)
            said = self._utterances.of(plan.cut.utterance)
            heard = said.heard(plan.cut.offset_ms) if said else ""
            self._say_interrupted(plan.cut, heard)
        self._greet(resumed=True)
        self._dial(resumed=True)

    def resume(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """The same owner and epoch after a broken socket: the caller's newest socket is the one that counts."""
        if self._caller is not None and self._caller is not port:
            self._caller.close()
        self._take_caller(port, encoding, sample_rate)
        self._greet(resumed=True)

    def leave(self, port: CallerPort) -> None:
        """The socket has closed. The call is kept while its lease holds: the caller may come back, or may have moved."""
        if self._caller is port:
            self._caller = None
            if self.phase is Phase.PREPARED:
                self.phase = step(self.phase, "leave")

    def caller_audio(self, stamp: int, samples: bytes) -> None:
        if self._echo(stamp):
            self._buffer.push(self._transcoder.to_agent(samples))

    def caller_alive(self, stamp: int) -> None:
        self._echo(stamp)

    def caller_dtmf(self, digit: str) -> None:
        if self._owns():
            self.record("dtmf.received", {"digit": digit})
            if self._agent is not None:
                self._agent.send_dtmf(digit)

    def caller_hung_up(self) -> None:
        if self._owns():
            self.end(EndReason.CALLER_HUNG_UP)

    # ----------------------------------------------------------------------------------------------- the backend

    def on_audio(self, ulaw: bytes) -> None:
        if self._owns() and self._hanging_up is None:
            self._playout.push(ulaw)

    def on_mark(self, name: str) -> None:
        self._playout.mark(name)

    def on_clear(self) -> None:
        self._interrupt(by_caller=False)

    def on_text(self, type_: str, data: bytes) -> None:
        if not self._owns():
            return
        try:
            self._on_text(type_, data)
        except msgspec.MsgspecError:
            log.info("agent.nonsense", call=self.call, type=type_[:32])

    def _on_text(self, type_: str, data: bytes) -> None:
        match type_:
            case "transcript.partial":
                msgspec.json.decode(data, type=dict[str, object])
                self._context.uplink.volatile(self.call, self.epoch, type_, wall_ms(), data)
            case "transcript.final":
                said = _text.decode(data)
                if said.role == "agent":
                    words = [Word(w.word, w.offset_ms) for w in said.words]
                    self._utterances.announce(self._playout.next_utterance, said.text, words)
                elif said.text:
                    self.record(type_, {"role": "caller", "text": said.text})
            case "turn.ended":
                said = _text.decode(data)
                if said.role == "agent":
                    self._playout.end_utterance()
                elif said.role == "caller":
                    self.record(type_, {"role": "caller", "text": said.text})
            case "tool.called" | "tool.result":
                tool = _tool.decode(data)
                n = self._put(type_, data)
                if type_ == "tool.called" and n is not None:
                    self._tool_acks[n] = tool.id

    def on_closed(self, connection: AgentConnection, *, clean: bool) -> None:
        if self._agent is not connection:
            return
        self._agent = None
        if not self._owns():
            return
        self.record("agent.disconnected", {"clean": clean})
        if clean:
            # what it has said is heard out, then the call ends
            self._playout.end_utterance()
            self._hanging_up = EndReason.AGENT_HUNG_UP
        else:
            self._dial(resumed=True, lost=True)

    def _dial(self, *, resumed: bool, lost: bool = False) -> None:
        self._dialling = asyncio.create_task(
            self._dial_until_up(resumed=resumed, lost=lost), name=f"dial {self.call}"
        )

    async def _dial_until_up(self, *, resumed: bool, lost: bool) -> None:
        for pause_s in REDIAL_S if resumed or lost else REDIAL_S[:1]:
            await asyncio.sleep(pause_s)
            if not self._owns():
                return
            dialect = TwilioDialect(
                stream_sid=self._stream_sid,
                account_sid=sid("AC", self.claims.project.encode()[-16:]),
                call_sid=sid("CA", self.call.encode()[-16:]),
            )
            connection = AgentConnection(self, dialect)
            try:
                await connection.open(
                    self._sealed.agent,
                    self._parameters(resumed),
                    local_targets=self._sealed.local_targets and self._context.settings.local_targets,
                    tls=self._context.tls,
                )
            except DialError as error:
                log.info("agent.unreachable", call=self.call, code=error.code, detail=error.detail)
                continue
            if not self._owns():
                connection.close()
                return
            self._agent = connection
            self.record("agent.connected", {"fallback": connection.fallback, "resumed": resumed})
            return
        self.end(EndReason.AGENT_LOST if resumed or lost else EndReason.AGENT_UNREACHABLE)

    def _parameters(self, resumed: bool) -> dict[str, str]:
        own = {
            "voxplane_call": self.call,
            "voxplane_epoch": str(self.epoch),
            "voxplane_resumed": "true" if resumed else "false",
        }
        if resumed:
            own["voxplane_conversation"] = conversation_parameter(self._turns)
        return dict(self._sealed.agent.parameters) | own

    # -------------------------------------------------------------------------------------------------- the log

    def record(self, type_: str, data: dict[str, object]) -> None:
        """One durable event: numbered, folded, sent when the uplink has room for it."""
        self._put(type_, msgspec.json.encode(data))

    def _put(
        self,
        type_: str,
        data: bytes,
        *,
        at_ms: int | None = None,
        id: str | None = None,
        origin: Origin | None = None,
    ) -> int | None:
        if self.outbox.over and type_ != "call.ended":
            self._lost_events += 1
            return None
        if self._lost_events and type_ != "events.lost":
            lost, self._lost_events = self._lost_events, 0
            self._put("events.lost", msgspec.json.encode({"count": lost}))
        at_ms = wall_ms() if at_ms is None else at_ms
        event = self.outbox.add(
            id=id or self._context.new_event_id(), type=type_, at_ms=at_ms, data=data, origin=origin
        )
        if origin is None and type_ in FOLDED_TYPES:
            fold(self._turns, type_, data, at_ms)
            if len(self._turns) > 96:
                self._turns = bounded(self._turns)
        if type_ in SNAPSHOT_TYPES:
            self._snapshot_due = True
        self._context.uplink.notify(self)
        return event.n

    def settled(self, status: AppendStatus) -> None:
        """What the log says of a run. See `wire.uplink.AppendStatus`."""
        match status.status:
            case "durable":
                self._acknowledged(status)
            case "gap":
                self.outbox.send_again(status.durable_n)
            case "busy":
                self.outbox.send_again()
            case _:
                log.warning(
                    "call.fenced",
                    call=self.call,
                    epoch=self.epoch,
                    status=status.status,
                    detail=status.detail,
                )
                self._fence(status.status)

    def _acknowledged(self, status: AppendStatus) -> None:
        if not self.outbox.acknowledge(status.durable_n):
            return
        self._acks_due = True
        for n in [n for n in self._tool_acks if n <= status.durable_n]:
            tool = self._tool_acks.pop(n)
            if self._agent is not None and self._owns():
                self._agent.send_text("ack", {"type": "tool.called", "id": tool, "seq": status.seq})

    def _snapshot(self) -> CallSnapshot:
        position = self._playout.position
        said = self._utterances.of(position.utterance) if position.utterance else None
        return CallSnapshot(
            call=self.call,
            epoch=self.epoch,
            acked_n=self.outbox.acked_n,
            last_n=self.outbox.last_n,
            turns=bounded(self._turns),
            unacked=[Unacked(epoch=self.epoch, event=e) for e in self.outbox.unacked[-200:]],
            playing=position,
            playing_text=said.text if said else "",
            playing_words=said.words if said else [],
            utterance=self._playout.last_utterance,
            answered_at_ms=self._answered_at_ms,
            stream_sid=self._stream_sid,
        )

    # ------------------------------------------------------------------------------------------------ the clock

    def turn(self, _: int) -> None:
        """The call's 20 ms. The lease is asked first: a process that was stopped and goes on sends nothing."""
        now = lease_ms()
        if self.phase is not Phase.OWNING:
            self._wind_down(now)
            return
        if not self._lease.holds(now):
            log.info("call.lapsed", call=self.call, epoch=self.epoch)
            self._leave_to_others("lapse")
            return
        if self._answered_at_ms and wall_ms() - self._answered_at_ms > self.claims.max_s * 1000:
            self.end(EndReason.MAX_DURATION)
            return
        self._to_agent()
        self._to_caller(now)
        if self._hanging_up is not None and not self._playout.active:
            self.end(self._hanging_up)
            return
        self._keep_caller_informed(now)

    def _to_agent(self) -> None:
        frame = self._buffer.pop()
        if frame is not None:
            heard = self._voice.feed(to_pcm(frame))
            if heard == "started":
                self.record(
                    "speech.started", {"offset_ms": self._offset_ms(), "barge_in": self._playout.active}
                )
                self._interrupt(by_caller=True)
            elif heard == "stopped":
                self.record("speech.stopped", {"offset_ms": self._offset_ms()})
        if self._agent is not None:
            self._agent.send_media(frame or SILENCE)
            if self._announce_resume and frame is not None:
                self._say_reconnected()

    def _to_caller(self, now: int) -> None:
        popped = self._playout.pop()
        if popped is None:
            return
        for name in popped.marks:
            if self._agent is not None:
                self._agent.send_mark(name)
        if popped.started:
            self.record("playback.started", {"utterance": popped.utterance})
            self._snapshot_due = True
        if popped.frame is not None and self._caller is not None:
            samples = self._transcoder.to_caller(popped.frame)
            self._sequence += 1
            self._caller.send_audio(
                wire.pack(
                    samples,
                    sequence=self._sequence,
                    stamp=self._lease.stamp(now),
                    utterance=popped.utterance,
                    offset_ms=popped.offset_ms,
                )
            )
            self._sent_ms = now
            if self._announce_resume:
                self._say_reconnected()
        if popped.done:
            self.record("playback.done", {"utterance": popped.utterance, "length_ms": popped.offset_ms})
            said = self._utterances.of(popped.utterance)
            if said is not None and said.text:
                self.record("turn.ended", {"role": "agent", "text": said.text, "utterance": popped.utterance})
            self._utterances.drop(popped.utterance)

    def _interrupt(self, *, by_caller: bool) -> None:
        """Empties the playout; what of the utterance was heard stays in the conversation."""
        if not self._owns():
            return
        receiving = self._playout.next_utterance
        cleared = self._playout.clear()
        for name in cleared.marks:
            if self._agent is not None:
                self._agent.send_mark(name)
        if not cleared.was_playing:
            self._utterances.drop(receiving)
            return
        position = cleared.position
        if self._caller is not None:
            self._caller.send_text(msgspec.json.encode(wire.Clear(stamp=self.stamp, at=position)))
        self.record(
            "playback.interrupted",
            {
                "utterance": position.utterance,
                "offset_ms": position.offset_ms,
                "by": "caller" if by_caller else "agent",
            },
        )
        said = self._utterances.of(position.utterance)
        heard = ""
        if said is not None:
            said.length_ms = position.offset_ms + cleared.dropped_ms
            heard = said.heard(position.offset_ms)
            self._say_interrupted(position, heard)
        if by_caller and self._agent is not None:
            self._agent.send_text(
                "playback.interrupted",
                {"utterance": position.utterance, "offset_ms": position.offset_ms, "text": heard},
            )

    def _say_interrupted(self, at: wire.Position, heard: str) -> None:
        self._utterances.drop(at.utterance)
        self.record(
            "turn.interrupted",
            {"role": "agent", "text": heard, "utterance": at.utterance, "offset_ms": at.offset_ms},
        )

    def _say_reconnected(self) -> None:
        """Only now: audio flows."""
        self._announce_resume = False
        data = {"from_epoch": self._resumed_from or 0, "region": self.grant.region}
        self.record("call.reconnected", dict(data))
        if self._caller is not None:
            self._caller.send_text(
                msgspec.json.encode(
                    wire.Notice(
                        type="call.reconnected", at_ms=wall_ms(), data=msgspec.Raw(msgspec.json.encode(data))
                    )
                )
            )

    def _keep_caller_informed(self, now: int) -> None:
        if self._caller is None:
            return
        if self._snapshot_due or (self._acks_due and now - self._acks_sent_ms >= ACKS_EVERY_MS):
            sealed = seal_snapshot(self._snapshot(), self._key)
            message = wire.Snapshot(epoch=self.epoch, n=self.outbox.last_n, sealed=sealed)
            self._caller.send_text(msgspec.json.encode(message))
            if self._acks_due:
                self._caller.send_text(
                    msgspec.json.encode(wire.Acked(epoch=self.epoch, n=self.outbox.acked_n))
                )
                self._acks_sent_ms = now
            self._snapshot_due = self._acks_due = False
        if now - self._sent_ms >= wire.TICK_MS - wire.FRAME_MS:
            self._caller.send_text(msgspec.json.encode(wire.Tick(stamp=self._lease.stamp(now))))
            self._sent_ms = now

    # -------------------------------------------------------------------------------------------------- the end

    def end(self, reason: EndReason) -> None:
        """Writes the final event and closes both sides. What is not acknowledged yet is still sent."""
        if self.phase is not Phase.OWNING:
            return
        self.record("call.ended", {"end_reason": reason.value})
        self._finish(reason.value)

    def end_by_control(self, reason: str) -> None:
        """The log has the final event already: nothing more is written."""
        if self.phase is Phase.OWNING:
            self._finish(reason)
            self.outbox.close()

    def _finish(self, reason: str) -> None:
        self.phase = step(self.phase, "end")
        self._lease.end()
        self._drop_agent(stop=True)
        if self._caller is not None:
            self._caller.send_text(msgspec.json.encode(wire.Ended(end_reason=reason)))
            self._caller.close()
            self._caller = None
        log.info("call.ended", call=self.call, epoch=self.epoch, end_reason=reason, events=self.outbox.last_n)

    def _fence(self, code: str) -> None:
        self.outbox.close()
        if self.phase is Phase.OWNING:
            if self._caller is not None:
                refused = wire.Refused(
                    code=code, detail="another edge has the call", fix="take the next standby"
                )
                self._caller.send_text(msgspec.json.encode(refused))
            self._leave_to_others("fence")

    def _leave_to_others(self, action: str) -> None:
        """Mute from here on: the caller may be elsewhere. Nothing final is written, for lost contact ends no call."""
        self.phase = step(self.phase, action)
        self._lease.end()
        self._drop_agent(stop=False)
        if self._caller is not None:
            self._caller.close()
            self._caller = None

    def supersede(self) -> None:
        """A higher epoch of the same call has been taken on this very edge."""
        if self.phase is Phase.OWNING:
            self._leave_to_others("lapse")

    def _wind_down(self, now: int) -> None:
        if not self._released_at_ms:
            self._released_at_ms = now
        waited_s = (now - self._released_at_ms) / 1000
        if self.phase is Phase.PREPARED:
            return
        if (
            self.phase is not Phase.GONE
            and (self.outbox.settled or waited_s > 600)
            and (self.phase is Phase.ENDED or waited_s > MUTE_KEPT_S)
        ):
            self.phase = step(self.phase, "release")
        if self.phase is Phase.GONE:
            self._context.release(self)

    def _drop_agent(self, *, stop: bool) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close(stop=stop)
        if self._dialling is not None and self._dialling is not asyncio.current_task():
            self._dialling.cancel()

    def _take_caller(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        self._caller = port
        self._transcoder = Transcoder(encoding, sample_rate)

    def _greet(self, *, resumed: bool) -> None:
        assert self._caller is not None
        attached = wire.Attached(
            call=self.call,
            epoch=self.epoch,
            region=self.grant.region,
            edge=self.grant.edge,
            stamp=self.stamp,
            resumed=resumed,
        )
        self._caller.send_text(msgspec.json.encode(attached))
        self._sent_ms = lease_ms()
        self._snapshot_due = True

    def _echo(self, stamp: int) -> bool:
        return self.phase is Phase.OWNING and self._lease.echo(stamp, lease_ms())

    def _owns(self) -> bool:
        return self.phase is Phase.OWNING and self._lease.holds(lease_ms())

    def _offset_ms(self) -> int:
        return max(0, wall_ms() - self._answered_at_ms)
