"""A caller on its way to a call, and in it: the control messages of ``voxplane.media.v1``, whatever carries them.

Decides what a caller may do and when it is refused; what a message means for the call is the session's. A caller that talks
nonsense is refused alone. One task runs only while it attaches; what comes is handled where it arrives.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec
import structlog

from regions.edge.calls import Calls, Refusal
from regions.edge.line import Carried, Connection
from regions.edge.session import Session
from regions.edge.takeover import TakeoverPlan, left_edge
from regions.media.quality import Report
from regions.wire import media as wire
from regions.wire.ticket import Grant, Sealed

log = structlog.get_logger()

ATTACH_WITHIN_S = 5.0
PREPARED_KEPT_S = 30.0
NOWHERE = wire.Position()
DTMF = frozenset("0123456789*#ABCD")


class Line(Connection, Protocol):
    """A caller's connection. What is sent to one that has gone is lost, and no error. `format`: what its audio is made of, where
    that is not for the caller to say: the encoding and the rate in hertz."""

    @property
    def format(self) -> tuple[wire.Encoding, int] | None: ...

    @property
    def gone(self) -> bool:
        """Nobody is there to be served any more. Asked after each wait."""
        ...

    def send_text(self, message: bytes) -> None: ...
    def send_audio(self, frame: bytes) -> None:
        """20 ms with their header."""
        ...

    def silent(self) -> None:
        """20 ms in which there is nothing to send. Where audio must not stop, silence goes out."""
        ...

    def goodbye(self, *, refused: bool) -> None:
        """Nothing more is said, and what was said is let arrive. `refused`: this caller was not served."""
        ...

    def drop(self, *, silent: bool) -> None:
        """As if this process had died. `silent`: the connection stays, and nothing comes any more."""
        ...

    def owned(self) -> None:
        """It carries a call from now on."""
        ...


class Attachment:
    """One caller's connection and what it has asked for: the `CallerPort` of its session."""

    def __init__(self, calls: Calls, line: Line) -> None:
        self._calls = calls
        self._line = line
        self.session: Session | None = None
        self._attach: wire.Attach | None = None
        self._sealed: Sealed | None = None
        self._plan: TakeoverPlan | None = None
        self.stamp = 0
        """The newest that the caller has echoed."""
        self._taking = False
        """A take was sent here; it is never withdrawn, and sending it again changes nothing."""
        self.owning = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        self._expect_within(ATTACH_WITHIN_S)

    def lost(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.session is not None:
            self.session.leave(self)

    # -------------------------------------------------------------------------------------- the caller port

    def send_text(self, message: bytes) -> None:
        self._line.send_text(message)

    def send_audio(self, frame: bytes) -> None:
        self._line.send_audio(frame)

    def silent(self) -> None:
        self._line.silent()

    def close(self) -> None:
        self._line.goodbye(refused=False)

    @property
    def carried(self) -> Carried:
        return self._line.carried

    def report(self) -> Report | None:
        return self._line.report()

    @property
    def dtx(self) -> bool:
        return self._attach is not None and self._attach.dtx

    def cut(self, *, silent: bool) -> None:
        self._line.drop(silent=silent)

    # ------------------------------------------------------------------------------------------- what comes

    def audio(self, payload: bytes) -> None:
        """A frame with its header."""
        if self.session is None or not self.owning:
            if not self._taking:
                self.refuse("not_attached", "audio before an attach", "send attach first")
            return
        quiet = self.dtx and len(payload) == wire.HEADER_BYTES and payload[1] == wire.FLAG_SILENCE
        fits = quiet or wire.HEADER_BYTES < len(payload) <= wire.BINARY_BYTES_MAX
        if not fits or payload[0] != wire.AUDIO:
            self.refuse(
                "bad_frame",
                "this is not an audio frame",
                "a header of 20 bytes, then at most 200 ms of samples",
            )
            return
        _, _, sequence, self.stamp, utterance, offset_ms = wire.HEADER.unpack_from(payload)
        played = wire.Position(utterance=utterance, offset_ms=offset_ms)
        self.session.caller_audio(self.stamp, played, payload[wire.HEADER_BYTES :], sequence)

    def text(self, payload: bytes) -> None:
        """A control message."""
        try:
            if len(payload) > wire.TEXT_BYTES_MAX:
                raise msgspec.DecodeError
            message = wire.from_caller_decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.refuse(
                "bad_message", "this is not a message of voxplane.media.v1", "see docs/reference/media.md"
            )
            return
        session = self.session
        match message:
            case wire.Attach():
                if self._attach is not None:
                    self.refuse("bad_message", "one attach per socket", "open another socket")
                    return
                if self._line.format is not None:
                    encoding, rate_hz = self._line.format
                    message = msgspec.structs.replace(
                        message, encoding=encoding, sample_rate=rate_hz, dtx=False
                    )
                self._attach = message
                self._task = asyncio.create_task(self._join(message))
            case wire.Take():
                self._take(message)
            case wire.Alive() if self._taking and not self.owning:
                return
            case _ if session is None or not self.owning:
                self.refuse("not_attached", "nothing before an attach", "send attach first")
            case wire.Alive():
                # where audio is on a track nobody drops what has come: all that was sent is heard
                self.proved(message.stamp, NOWHERE if self._line.format is not None else message.played)
            case wire.Talk():
                session.caller_talks(message.on)
            case wire.Dtmf():
                if message.digit in DTMF:
                    session.caller_dtmf(message.digit)
                else:
                    self.refuse("bad_message", "this is not a DTMF digit", "send one of 0-9 * # A-D")
            case wire.Hangup():
                session.caller_hung_up()
            case wire.Ready():
                session.moving.ready(message.epoch, message.code)
            case wire.Moved():
                session.caller_moved(message.epoch)

    async def _join(self, attach: wire.Attach) -> None:
        try:
            if attach.sample_rate not in wire.SAMPLE_RATES:
                raise Refusal(
                    "bad_rate", "this sample rate is not spoken here", f"use one of {wire.SAMPLE_RATES}"
                )
            claims, grant, sealed = self._calls.admit(attach)
            existing = self._calls.existing(claims.call, attach.epoch)
            if existing is not None and attach.mode != "prepare":
                self._own(existing)
                existing.resume(self, attach.encoding, attach.sample_rate)
                return
            if attach.mode == "resume":
                raise Refusal(
                    "not_held", "this edge does not hold the call any more", "take the next standby"
                )
            session = self._calls.open(claims, grant, sealed)
            if attach.mode == "attach":
                self._calls.own(session)
                self._own(session)
                session.attach(self, attach.encoding, attach.sample_rate)
                log.info("call.attached", call=session.call, epoch=session.epoch)
                return
            self.session, self._sealed = session, sealed
            self._plan = await self._calls.plan(session, sealed, attach.resume)
            if self._line.gone:
                return
            if attach.mode == "take":
                self._take(wire.Take(resume=attach.resume or wire.Resume(), reason=attach.reason))
                return
            self._expect_within(PREPARED_KEPT_S)
            prepared = wire.Prepared(
                call=session.call, epoch=session.epoch, stamp=session.stamp, source=self._plan.source
            )
            self.send_text(msgspec.json.encode(prepared))
        except Refusal as refusal:
            self.refuse(refusal.code, refusal.detail, refusal.fix, refusal.following)

    def _take(self, take: wire.Take) -> None:
        session, sealed, plan, attach = self.session, self._sealed, self._plan, self._attach
        if self._taking:
            return
        if session is None or sealed is None or plan is None or attach is None or self.owning:
            self.refuse("bad_message", "nothing is prepared here", "send attach with mode prepare first")
            return
        self._taking = True
        self._task = asyncio.create_task(self._take_prepared(take, session, sealed, attach))

    async def _take_prepared(
        self, take: wire.Take, session: Session, sealed: Sealed, attach: wire.Attach
    ) -> None:
        try:
            plan = await self._calls.plan(session, sealed, take.resume)
            if self._line.gone:
                return
            self._calls.own(session, first=plan.fresh)
        except Refusal as refusal:
            self.refuse(refusal.code, refusal.detail, refusal.fix, refusal.following)
            return
        self._own(session)
        session.take(self, attach.encoding, attach.sample_rate, plan, take.reason)
        left = left_edge(session.claims, plan, session.epoch)
        # an edge that had no room for a new call, and said so, has failed nobody
        sent_on = plan.fresh and take.reason == "refused"
        if left is not None and take.reason != "planned" and not sent_on:
            self._calls.context.failed(session.call, left, take.reason)
        log.info(
            "call.taken",
            call=session.call,
            epoch=session.epoch,
            from_epoch=plan.from_epoch,
            reason=take.reason,
            history=plan.source,
            adopted=len(plan.adopt),
        )

    def proved(self, stamp: int, played: wire.Position = NOWHERE) -> None:
        """The caller has heard what carried this stamp. `played`: what it has played of the agent, where it says so."""
        self.stamp = stamp
        if self.session is not None:
            self.session.caller_alive(stamp, played)

    def _own(self, session: Session) -> None:
        self.session = session
        self.owning = True
        if self._timer is not None:
            self._timer.cancel()
        self._line.owned()

    def _expect_within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            seconds, self.refuse, "too_late", "nothing came in time", "attach right after connecting"
        )

    def refuse(self, code: str, detail: str, fix: str, following: Grant | None = None) -> None:
        log.info("caller.refused", code=code)
        refused = wire.Refused(code=code, detail=detail, fix=fix)
        if following is not None:
            url, epoch = wire.attach_url(following.url), following.epoch
            refused = msgspec.structs.replace(refused, next_url=url, next_epoch=epoch)
        self.send_text(msgspec.json.encode(refused))
        self._line.goodbye(refused=True)
