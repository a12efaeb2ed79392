"""A caller over WebSocket that looks after itself: it hears silence or a closed socket, prepares a standby, takes it, goes on.

Decides nothing about when (that is `watch`); carries out, keeps what a successor needs (snapshot, acknowledged position,
what was played) and echoes the newest clock stamp in everything it sends.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from voxplane.client import AsyncClient
from voxplane.errors import ApiError, Unavailable, VoxplaneError
from voxplane.watch import Action, AskTicket, GiveUp, LetGo, Prepare, Retry, State, Take, Watch

SUBPROTOCOL = "voxplane.media.v1"
HEADER = struct.Struct("!BBHQII")
AUDIO = 1
FLAG_SILENCE = 0x01
FRAME_MS = 20
TICK_S = 0.02
ALIVE_EVERY_S = 0.4
OPEN_WITHIN_S = 1.5
RECEIVED_MAX = 5_000
TICKET_PAUSE_S = 0.3
HANGUP_WITHIN_S = 5.0
MEDIA_PATH = "/v1/media"


class CallLost(VoxplaneError):
    """No edge could be reached any more."""


class CallRefused(VoxplaneError):
    """The primary would not have this caller. `code` is the edge's."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(f"{code}: {detail} {fix}".strip())
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """Audio from the agent. `offset_ms` counts from the start of the agent's `utterance`; `at_s`: monotonic arrival time."""

    samples: bytes
    utterance: int
    offset_ms: int
    epoch: int
    at_s: float


@dataclass(slots=True)
class Gap:
    """One failover as the caller heard it, in monotonic seconds. `audio_gap_s`: last frame of the old owner to first of the new."""

    from_epoch: int
    reason: str
    lost_at_s: float
    last_frame_at_s: float | None
    to_epoch: int | None = None
    attached_at_s: float | None = None
    first_frame_at_s: float | None = None

    @property
    def audio_gap_s(self) -> float | None:
        if self.last_frame_at_s is None or self.first_frame_at_s is None:
            return None
        return self.first_frame_at_s - self.last_frame_at_s


@dataclass(frozen=True, slots=True)
class _Grant:
    epoch: int
    region: str
    url: str


def read_grants(ticket: str) -> tuple[str, list[_Grant]]:
    """(call id, grants in order of epoch). The signature is the edges' business."""
    try:
        payload = ticket.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        grants = [_Grant(g["e"], g["region"], g["url"]) for g in claims["g"]]
        return claims["sub"], sorted(grants, key=lambda g: g.epoch)
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError("this is not a ticket: use the `ticket` of a created call") from None


class AsyncCaller:
    """``async with AsyncCaller(call["ticket"]) as caller: …``

    `client` lets the caller ask for a new ticket once every grant has been used. `receive` gives audio frames; `events` the
    notices. `send` takes samples of any length and sends them as they come: pace them yourself, 20 ms at a time.
    """

    def __init__(
        self,
        ticket: str,
        *,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
        client: AsyncClient | None = None,
    ) -> None:
        self.call_id, grants = read_grants(ticket)
        self._grants = {g.epoch: g for g in grants}
        self._ticket = ticket
        self._encoding = encoding
        self._rate_hz = sample_rate
        self._client = client
        self._watch = Watch([g.epoch for g in grants], grants[0].epoch, 0.0)
        self._owner: ClientConnection | None = None
        self._standbys: dict[int, ClientConnection] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(RECEIVED_MAX)
        self._stamp = 0
        self._sequence = 0
        self._sent_s = 0.0
        self._snapshot: str | None = None
        self._acked = (0, 0)
        self._played = (0, 0)
        self._last_frame_s: float | None = None
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._refused: CallRefused | None = None
        self.end_reason: str | None = None
        self.lost = False
        self.gaps: list[Gap] = []
        self.notices: list[dict[str, Any]] = []
        self.cleared: list[float] = []

    # ------------------------------------------------------------------------------------------------- the user

    async def __aenter__(self) -> AsyncCaller:
        self._spawn(self._join(self._watch.epoch, "attach"))
        self._spawn(self._keep())
        try:
            async with asyncio.timeout(10):
                await self._ready.wait()
        except TimeoutError:
            await self.close()
            raise CallLost("no edge answered") from None
        if self._refused is not None:
            await self.close()
            raise self._refused
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
        return self._grants[self._watch.epoch].region

    @property
    def over(self) -> bool:
        return self._watch.state is State.OVER

    async def send(self, samples: bytes) -> None:
        """Audio to the agent. While the call is being moved it is dropped, as a network would."""
        owner = self._owner
        if owner is None or self._watch.state is State.TAKING:
            return
        self._sequence += 1
        header = HEADER.pack(AUDIO, 0, self._sequence & 0xFFFF, self._stamp, *self._played)
        await self._tell(owner, header + samples)

    async def receive(self) -> Frame | None:
        """The next audio frame; None once the call is over."""
        if self.over and self._frames.empty():
            return None
        return await self._frames.get()

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self.receive()) is not None:
            yield frame

    async def dtmf(self, digit: str) -> None:
        await self._tell(self._owner, _text({"type": "dtmf", "digit": digit, "stamp": self._stamp}))

    async def hangup(self) -> None:
        """Ends the call and waits until the edge has said so."""
        await self._tell(self._owner, _text({"type": "hangup"}))
        try:
            async with asyncio.timeout(HANGUP_WITHIN_S):
                await self._over.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Leaves without a word: the call goes on for a while, and ends by itself."""
        self._finish()
        for socket in [self._owner, *self._standbys.values()]:
            if socket is not None:
                socket.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------ the watch

    async def _keep(self) -> None:
        """The clock of the watch, and the keep-alive."""
        while not self.over:
            await asyncio.sleep(TICK_S)
            if not self._ready.is_set():
                continue
            self._carry_out(self._watch.tick(_now_ms()))
            owner = self._owner
            if (
                owner is not None
                and time.monotonic() - self._sent_s > ALIVE_EVERY_S
                and self._watch.state is not State.TAKING
            ):
                played = {"utterance": self._played[0], "offset_ms": self._played[1]}
                await self._tell(owner, _text({"type": "alive", "stamp": self._stamp, "played": played}))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Prepare(epoch):
                    self._spawn(self._join(epoch, "prepare"))
                case Take(epoch, reason):
                    self._take(epoch, reason)
                case LetGo(epoch):
                    socket = self._standbys.pop(epoch, None)
                    if socket is not None:
                        socket.transport.abort()
                case Retry(epoch):
                    self._spawn(self._join(epoch, "resume"))
                case AskTicket():
                    self._spawn(self._ask_ticket())
                case GiveUp():
                    self.lost = True
                    self._finish()

    def _take(self, epoch: int, reason: str) -> None:
        if not self.gaps or self.gaps[-1].attached_at_s is not None:
            self.gaps.append(Gap(self._watch.epoch, reason, time.monotonic(), self._last_frame_s))
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.transport.abort()
        prepared = self._standbys.get(epoch)
        if prepared is not None:
            self._spawn(
                self._tell(prepared, _text({"type": "take", "resume": self._resume(), "reason": reason}))
            )
        else:
            self._spawn(self._join(epoch, "take"))

    async def _ask_ticket(self) -> None:
        if self._client is not None:
            try:
                fresh = await self._client.new_ticket(self.call_id, self._ticket)
                _, grants = read_grants(fresh["ticket"])
                self._ticket = fresh["ticket"]
                self._grants |= {g.epoch: g for g in grants}
                self._carry_out(self._watch.granted([g.epoch for g in grants], _now_ms()))
                return
            except ApiError as error:
                if error.status in (401, 404) or error.code == "call_ended":
                    self.lost = True
                    self._finish()
                    return
            except Unavailable:
                pass
        await asyncio.sleep(TICKET_PAUSE_S)
        self._carry_out(self._watch.not_granted(_now_ms()))

    # ---------------------------------------------------------------------------------------------- the sockets

    async def _join(self, epoch: int, mode: str) -> None:
        """Opens a socket to the edge of `epoch` and reads it until it closes."""
        socket: ClientConnection | None = None
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                socket = await connect(
                    self._grants[epoch].url + MEDIA_PATH,
                    subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                    open_timeout=OPEN_WITHIN_S,
                    close_timeout=0.2,
                    ping_interval=None,
                    compression=None,
                    max_size=1 << 20,
                    proxy=None,
                )
            attach = {
                "type": "attach",
                "ticket": self._ticket,
                "epoch": epoch,
                "mode": mode,
                "encoding": self._encoding,
                "sample_rate": self._rate_hz,
            }
            if mode != "attach":
                attach["resume"] = self._resume()
            if mode in ("prepare", "take"):
                self._standbys[epoch] = socket
            await self._tell(socket, _text(attach))
            async for message in socket:
                self._received(socket, epoch, message)
                if self.over:
                    break
        except (WebSocketException, OSError, TimeoutError):
            pass
        finally:
            if socket is not None:
                socket.transport.abort()
            self._closed(socket, epoch, mode)

    def _closed(self, socket: ClientConnection | None, epoch: int, mode: str) -> None:
        if self.over:
            return
        if socket is not None and socket is self._owner:
            self._owner = None
            self._carry_out(self._watch.closed(_now_ms()))
        elif self._standbys.get(epoch) is socket and socket is not None:
            del self._standbys[epoch]
            self._carry_out(self._watch.failed(epoch, _now_ms()))
        elif mode == "attach" and not self._ready.is_set():
            # the primary is not there: the first standby is as good a place to begin
            self._ready.set()
            self._carry_out(self._watch.closed(_now_ms()))
        elif mode in ("take", "prepare"):
            self._carry_out(self._watch.failed(epoch, _now_ms()))

    def _received(self, socket: ClientConnection, epoch: int, message: str | bytes) -> None:
        if isinstance(message, bytes):
            if socket is self._owner:
                self._audio(epoch, message)
            return
        said = json.loads(message)
        kind = said.get("type")
        if kind == "refused":
            if not self._ready.is_set() and not self._watch_can_go_on(said):
                self._refused = CallRefused(said.get("code", ""), said.get("detail", ""), said.get("fix", ""))
                self._ready.set()
            return
        if kind == "prepared":
            self._carry_out(self._watch.prepared(epoch, _now_ms()))
            return
        if kind == "attached":
            self._now_owned_by(socket, epoch, said)
        if socket is not self._owner:
            return
        self._carry_out(self._watch.heard(_now_ms()))
        self._stamp = said.get("stamp", self._stamp)
        if kind == "snapshot":
            self._snapshot = said["sealed"]
        elif kind == "acked":
            self._acked = (said["epoch"], said["n"])
        elif kind == "clear":
            self.cleared.append(time.monotonic())
        elif kind == "notice":
            self.notices.append(said)
        elif kind == "ended":
            self.end_reason = said["end_reason"]
            self._finish()

    def _now_owned_by(self, socket: ClientConnection, epoch: int, said: dict[str, Any]) -> None:
        if epoch < self._watch.epoch:
            return
        self._standbys.pop(epoch, None)
        old, self._owner = self._owner, socket
        if old is not None and old is not socket:
            old.transport.abort()
        self._stamp = said["stamp"]
        self._carry_out(self._watch.attached(epoch, _now_ms()))
        if self.gaps and self.gaps[-1].attached_at_s is None:
            self.gaps[-1].to_epoch = epoch
            self.gaps[-1].attached_at_s = time.monotonic()
        self._ready.set()

    def _audio(self, epoch: int, message: bytes) -> None:
        if len(message) <= HEADER.size:
            return
        _, _, _, stamp, utterance, offset_ms = HEADER.unpack_from(message)
        now_s = time.monotonic()
        self._carry_out(self._watch.heard(now_s * 1000))
        self._stamp = stamp
        self._played = (utterance, offset_ms + FRAME_MS)
        self._last_frame_s = now_s
        if self.gaps and self.gaps[-1].first_frame_at_s is None and self.gaps[-1].to_epoch == epoch:
            self.gaps[-1].first_frame_at_s = now_s
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(Frame(message[HEADER.size :], utterance, offset_ms, epoch, now_s))

    def _watch_can_go_on(self, refused: dict[str, Any]) -> bool:
        """A full or restarted primary names the next; a bad ticket is bad everywhere."""
        return refused.get("next_url") is not None

    def _resume(self) -> dict[str, Any]:
        resume: dict[str, Any] = {
            "epoch": self._acked[0],
            "n": self._acked[1],
            "played": {"utterance": self._played[0], "offset_ms": self._played[1]},
        }
        if self._snapshot is not None:
            resume["snapshot"] = self._snapshot
        return resume

    async def _tell(self, socket: ClientConnection | None, message: str | bytes) -> None:
        if socket is None:
            return
        if socket is self._owner:
            self._sent_s = time.monotonic()
        try:
            await socket.send(message)
        except (WebSocketException, OSError):
            return

    def _finish(self) -> None:
        if not self.over:
            self._watch.over()
        self._ready.set()
        self._over.set()
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now_ms() -> float:
    return time.monotonic() * 1000


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
