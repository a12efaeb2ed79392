"""A caller over WebSocket that looks after itself: it hears silence or a closed socket, prepares a standby, takes it, goes on.

Decides nothing about when (that is `watch`), nor how a message is written (`messages`): it holds the sockets (`links`),
carries out what the watch says, and echoes the newest clock stamp in everything it sends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any

import msgspec

from voxplane import messages as wire
from voxplane import trust
from voxplane.client import AsyncClient
from voxplane.errors import CallLost, CallRefused
from voxplane.hearing import Frame, Gap, Hearing
from voxplane.links import Connect, Link, Links, websocket
from voxplane.moving import Moving, Overlap
from voxplane.tickets import Lost, Tickets
from voxplane.watch import Action, AskTicket, GiveUp, LetGo, Prepare, Retry, State, Take, Watch

TICK_S = 0.02
ALIVE_EVERY_S = 0.4
BACKEND_UP = frozenset({"agent.connected", "call.reconnected"})
HANGUP_WITHIN_S = 5.0
PRIMARY_WITHIN_S = 3.0
"""A primary that is silent after the first attach is given up for its standby."""
BEGIN_WITHIN_S = 10.0


class AsyncCaller:
    """``async with AsyncCaller(call["ticket"]) as caller: …``

    `client` lets the caller ask for a new ticket once every grant has been used. `receive` gives audio frames; `notices`
    what the edge has told: ``call.reconnecting`` and ``call.reconnected`` are for a display. `send` takes samples of any length
    and sends them as they come: pace them yourself, 20 ms at a time. Entering raises `CallRefused` or `CallLost` where no edge
    takes the call. `discard_silence`: frames of 20 ms that are silent are not sent, either way.
    """

    def __init__(
        self,
        ticket: str,
        *,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
        client: AsyncClient | None = None,
        connect: Connect = websocket,
        discard_silence: bool = False,
    ) -> None:
        self._tickets = Tickets(ticket, client)
        self.call_id = self._tickets.call_id
        self._encoding = encoding
        self._rate_hz = sample_rate
        self._bytes_per_s = sample_rate * (2 if encoding == "pcm16" else 1)
        self._links = Links(self._received, self._closed, connect)
        self._watch = Watch(self._tickets.epochs, self._tickets.first.epoch, 0.0, random.random)
        self._moving = Moving(
            self._tickets,
            self._links,
            prepare=lambda epoch: self._link(epoch, "prepare"),
            tell=lambda message: self._links.spawn(self._tell(message)),
            go=lambda epoch: self._carry_out(self._watch.planned(epoch, _now_ms())),
        )
        self._watching = False
        self._served = False
        silence = wire.silence_of(encoding, sample_rate)
        self._standing = wire.Standing(silence if discard_silence else b"")
        self._owner: Link | None = None
        self._joining: Link | None = None
        """Attaches or resumes at the present epoch."""
        self._standbys: dict[int, Link] = {}
        self._hearing = Hearing(self._bytes_per_s)
        self._sequence = 0
        self._sent_s = 0.0
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._refused: CallRefused | None = None
        self.end_reason: str | None = None
        self.lost = False
        self.gaps: list[Gap] = self._hearing.gaps
        self.notices: list[dict[str, Any]] = []
        self.cleared: list[float] = []

    # ------------------------------------------------------------------------------------------------- the user

    async def __aenter__(self) -> AsyncCaller:
        trust.context()  # a file that is none is told here
        self._joining = self._link(self._watch.epoch, "attach")
        self._links.spawn(self._keep())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_WITHIN_S):
                    await self._begun.wait()
        except asyncio.CancelledError:
            await self.close()
            raise
        if not self._served:
            await self.close()
            raise self._refused or CallLost("no edge answered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def epoch(self) -> int:
        return self._watch.epoch

    @property
    def region(self) -> str:
        return self._tickets.grant(self._watch.epoch).region

    @property
    def over(self) -> bool:
        return self._watch.state is State.OVER

    async def send(self, samples: bytes) -> None:
        """Audio to the agent. While the call is being moved it is dropped, as a network would."""
        size = self._bytes_per_s * wire.PIECE_MS_MAX // 1000
        for i in range(0, len(samples), size):
            if self._watch.state is State.TAKING:
                return
            self._sequence += 1
            if (audio := self._standing.audio(samples[i : i + size], self._sequence)) is not None:
                await self._tell(audio)

    async def receive(self) -> Frame | None:
        """The next audio frame; None once the call is over."""
        return await self._hearing.receive()

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self.receive()) is not None:
            yield frame

    async def dtmf(self, digit: str) -> None:
        await self._tell(self._standing.dtmf(digit))

    async def talk(self, on: bool) -> None:
        """The button of a call whose `turns.mode` is ``push_to_talk``; an edge that takes the call over is told again."""
        self._standing.talking = on
        await self._tell(wire.talk(on))

    async def hangup(self) -> None:
        """Ends the call and waits until the edge has said so; one that takes the call over meanwhile is told as well."""
        self._standing.hanging_up = True
        await self._tell(wire.hangup())
        with suppress(TimeoutError):
            async with asyncio.timeout(HANGUP_WITHIN_S):
                await self._over.wait()

    async def close(self) -> None:
        """Leaves without a word: the call goes on for a while, and ends by itself."""
        self._finish()
        await self._links.close()

    # ------------------------------------------------------------------------------------------------ the watch

    async def _keep(self) -> None:
        """The clock of the watch, and the keep-alive."""
        began_s = time.monotonic()
        while not self.over:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            if not self._watching:
                if now_s - began_s > PRIMARY_WITHIN_S:
                    self._primary_failed()
                continue
            self._carry_out(self._watch.tick(_now_ms()))
            self._moving.tick(_now_ms())
            if now_s - self._sent_s > ALIVE_EVERY_S and self._watch.state is not State.TAKING:
                await self._tell(self._standing.alive())

    def _primary_failed(self) -> None:
        """The first attach came to nothing: the first standby is as good a place to begin."""
        joining, self._joining = self._joining, None
        self._links.drop(joining)
        self._watching = True
        refused = joining is not None and joining.refused
        self._carry_out(self._watch.closed(_now_ms(), "refused" if refused else "closed"))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Prepare(epoch):
                    self._standbys[epoch] = self._link(epoch, "prepare")
                case Take(epoch, reason):
                    self._take(epoch, reason)
                case LetGo(epoch):
                    self._let_go(epoch)
                case Retry(epoch):
                    self._links.drop(self._joining)
                    self._joining = self._link(epoch, "resume")
                case AskTicket():
                    self._links.spawn(self._ask_ticket())
                case GiveUp():
                    self._lose()

    def _take(self, epoch: int, reason: str) -> None:
        self._hearing.lost(self._watch.epoch, reason, time.monotonic())
        if reason == "planned" and (link := self._moving.taken()) is not None:
            # the owner goes on until this one is attached
            self._standbys[epoch] = link
            self._links.spawn(link.tell(self._standing.take(reason)))
            return
        self._moving.cancel()
        self._moving.let_go()
        prepared = self._standbys.pop(epoch, None)
        for link in (self._owner, self._joining, *self._standbys.values()):
            self._links.drop(link)
        self._owner = self._joining = None
        self._standbys.clear()
        if prepared is not None and prepared.prepared:
            self._standbys[epoch] = prepared
            self._links.spawn(prepared.tell(self._standing.take(reason)))
            return
        self._links.drop(prepared)
        self._standbys[epoch] = self._link(epoch, "take", self._watch.left_for)

    def _let_go(self, epoch: int) -> None:
        self._links.drop(self._standbys.pop(epoch, None))

    async def _ask_ticket(self) -> None:
        if self._refused is not None and not self._served and not self._tickets.renewable:
            self._begun.set()  # every edge of the only ticket has said no
        try:
            epochs = await self._tickets.renew()
        except Lost:
            self._lose()
            return
        if epochs:
            self._carry_out(self._watch.granted(epochs, _now_ms()))
            return
        await asyncio.sleep(self._tickets.pause_s(random.random()))
        self._carry_out(self._watch.not_granted(_now_ms()))

    # ---------------------------------------------------------------------------------------------- the sockets

    def _link(self, epoch: int, mode: str, reason: str = "closed") -> Link:
        def first() -> str:
            ticket, rate_hz = self._tickets.of(epoch), self._rate_hz
            return self._standing.attach(
                ticket, epoch, mode, encoding=self._encoding, sample_rate=rate_hz, reason=reason
            )

        return self._links.open(self._tickets.grant(epoch).url, epoch, mode, first)

    def _closed(self, link: Link) -> None:
        """A socket has closed or never opened, or its edge has refused."""
        if self.over:
            return
        if link is self._joining and not self._watching:
            self._primary_failed()
        elif link is self._joining:
            self._joining = None
            if self._owner is None:
                self._carry_out(self._watch.closed(_now_ms()))
        elif link is self._owner:
            self._owner = None
            if self._joining is None:
                self._carry_out(self._watch.closed(_now_ms()))
        elif self._standbys.get(link.epoch) is link:
            del self._standbys[link.epoch]
            self._standby_failed(link)
        elif link is self._moving.link:
            self._moving.failed(link)
        elif self._moving.is_left(link):
            self._moving.let_go()

    def _standby_failed(self, link: Link) -> None:
        moving = self._watch.state is State.MOVING
        fell = self._watch.declined if link.refused else self._watch.failed
        self._carry_out(fell(link.epoch, _now_ms()))
        if moving and self._watch.state is State.ATTACHED:
            self._hearing.stayed()
            self._moving.answer(link.epoch, link.refused)

    def _received(self, link: Link, raw: str | bytes) -> None:
        if isinstance(raw, bytes):
            audio = wire.read_audio(raw, self._standing.silence)
            if audio is not None:
                self._audio(link, audio)
            return
        message = wire.read(raw)
        match message:
            case None:
                return
            case wire.Refused():
                self._was_refused(link, message)
                return
            case wire.Prepared():
                link.prepared = True
                if link is self._moving.link:
                    self._moving.prepared(link)
                else:
                    self._carry_out(self._watch.prepared(link.epoch, _now_ms()))
                return
            case wire.Attached():
                self._now_owned_by(link)
        if link is not self._owner:
            return
        self._carry_out(self._watch.heard(_now_ms()))
        self._standing.heard(message)
        match message:
            case wire.Clear():
                self.cleared.append(time.monotonic())
                self._standing.played = self._hearing.clear(self._standing.played)
            case wire.Notice():
                self.notices.append(msgspec.to_builtins(message))
                if message.event in BACKEND_UP:
                    self._moving.note(Overlap.backend_up)
            case wire.Ticket():
                self._carry_out(self._watch.granted(self._tickets.add(message.ticket), _now_ms()))
            case wire.Move() | wire.Go():
                self._moving.asked(message)
            case wire.Ended():
                self.end_reason = message.end_reason
                self._finish()
                self._links.drop(link)

    def _was_refused(self, link: Link, refused: wire.Refused) -> None:
        """A full or restarted primary names the next, and a standby's refusal leaves the others; a bad ticket is bad everywhere.
        An owner that refuses a resume has answered: it is not the caller's own network. An edge that knows that the call has
        ended is believed."""
        self._refused = CallRefused(refused.code, refused.detail, refused.fix)
        link.refused = refused.code
        self._links.drop(link)
        if refused.code == "ended" and self._begun.is_set():
            self._finish()
            return
        if link.mode == "attach" and not self._begun.is_set() and refused.next_url is None:
            self._begun.set()
            return
        if link is self._joining and link.mode == "resume" and self._watch.state is State.SUSPICIOUS:
            self._links.drop(self._owner)
            self._owner = None
        self._closed(link)

    def _now_owned_by(self, link: Link) -> None:
        if not self._watch.accepts(link.epoch):
            self._links.drop(link)
            return
        self._standbys.pop(link.epoch, None)
        if link is self._joining:
            self._joining = None
        old, self._owner = self._owner, link
        if old is not None and old is not link and self._watch.state is State.MOVING:
            self._moving.leave(old, link.epoch, _now_ms())
        elif old is not link:
            self._links.drop(old)
        self._carry_out(self._watch.attached(link.epoch, _now_ms()))
        self._hearing.attached(link.epoch, time.monotonic())
        self._watching = self._served = True
        self._begun.set()
        for wish in self._standing.wishes():
            self._links.spawn(self._tell(wish))

    def _audio(self, link: Link, audio: wire.Audio) -> None:
        now_s = time.monotonic()
        if link is not self._owner:
            if self._moving.is_left(link) and not audio.filler and self._moving.old_spoke(now_s * 1000):
                self._hearing.audio(link.epoch, audio, now_s)
            return
        self._carry_out(self._watch.heard(now_s * 1000))
        self._standing.stamped(audio.stamp)
        if audio.filler:
            self._hearing.filler(link.epoch, audio, now_s)
        else:
            self._moving.note(Overlap.new_spoke)
            self._standing.played = self._hearing.audio(link.epoch, audio, now_s)

    async def _tell(self, message: str | bytes) -> None:
        """To the owner, where there is one."""
        if self._owner is not None:
            self._sent_s = time.monotonic()
            await self._owner.tell(message)

    def _lose(self) -> None:
        self.lost = True
        self._finish()

    def _finish(self) -> None:
        self._watch.over()
        self._begun.set()
        self._over.set()
        self._hearing.finish()


def _now_ms() -> float:
    return time.monotonic() * 1000
