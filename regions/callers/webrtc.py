"""Callers over WebRTC: audio as Opus over DTLS-SRTP, the control messages of ``voxplane.media.v1`` on a data channel.

Decides what becomes of an offer (`WebRtcCallers`), and is the line of a caller that came with one (`Peer`). The HTTP around it is
`whip`'s. What a caller says on the channel is `Attachment`'s, so that it prepares, takes, moves and is refused as on a
WebSocket. A caller without the channel attaches by connecting: it can call, and hears a failure as an end.

Reordering, loss and jitter are libwebrtc's (NetEQ): what it hands out is 10 ms at a time without a hole. The library is
imported where this module is, in no more than a process that was told to serve WebRTC.
"""

from __future__ import annotations

import asyncio
import audioop
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal
from uuid import uuid4

import msgspec
import structlog
import webrtc

from regions.callers.attachment import Attachment
from regions.callers.rtp_counts import RtpCounts
from regions.callers.sdp import without_silence
from regions.callers.whip import Rejected
from regions.edge.calls import Calls, Refusal
from regions.edge.line import Carried
from regions.media.codecs import Converter, Format
from regions.media.quality import Report
from regions.wire import media as wire

log = structlog.get_logger()

RATE_HZ = 48_000
INNER = Format("pcm16", RATE_HZ)
SILENCE = INNER.silence
GATHER_WITHIN_S = 3.0
CONNECT_WITHIN_S = 15.0
GOODBYE_S = 1.0
SILENT_S = 10.0
COUNT_EVERY_S = 1.0
LOOK_EVERY_S = 0.5
"""A caller without a data channel shows that it is there by packets that come."""
TICK_FRAMES = 5
PEERS_OVER_CAPACITY = 20
"""So many more than there may be calls: callers that are connecting, or that stand by."""
CANDIDATES_MAX = 64
UNSENT_BYTES_MAX = 256 * 1024
_AUDIO_LINE = re.compile(r"^m=audio [1-9]\d* ", re.MULTILINE)
_CHANNEL_LINE = re.compile(r"^m=application [1-9]\d* ", re.MULTILINE)
_CANDIDATE = re.compile(r"^a=(candidate:\S.*)$", re.MULTILINE)
_MID = re.compile(r"^a=mid:(\S+)\s*$", re.MULTILINE)


def allow_loopback() -> None:
    """Addresses of this machine alone are candidates as well. Call it before there is a peer."""
    webrtc.allow_loopback()


class WebRtcCallers:
    """The peers of one edge. `ice_servers`: URLs of STUN or TURN that the edge itself uses; none means host addresses alone.
    `ports`: the UDP ports that media may use, both ends included."""

    def __init__(
        self,
        calls: Calls,
        *,
        ice_servers: tuple[str, ...] = (),
        ports: tuple[int, int] | None = None,
    ) -> None:
        self._calls = calls
        self._ice_servers = ice_servers
        self._ports = ports
        self._peers: dict[str, Peer] = {}

    @property
    def peers(self) -> int:
        return len(self._peers)

    async def offer(self, sdp: str, bearer: str) -> tuple[str, str]:
        """The peer's name and the answer, with all its candidates. Raises `Rejected`."""
        if len(self._peers) >= self._calls.context.settings.capacity_calls + PEERS_OVER_CAPACITY:
            raise Rejected(503, "full", "this edge has too many peers", "take the next standby")
        try:
            grant = self._calls.granted(bearer)
        except Refusal as refusal:
            raise Rejected(403, refusal.code, refusal.detail, refusal.fix) from None
        if not _AUDIO_LINE.search(sdp):
            raise Rejected(422, "no_audio", "the offer has no audio", "offer one audio track, sendrecv")
        name = uuid4().hex
        peer = Peer(self._calls, self._configuration(), lambda: self._peers.pop(name, None))
        self._peers[name] = peer
        attach = None
        if not _CHANNEL_LINE.search(sdp):
            # at a later epoch somebody may have carried the call before
            mode: Literal["attach", "take"] = "attach" if grant.epoch == 1 else "take"
            attach = wire.Attach(ticket=bearer, epoch=grant.epoch, mode=mode, sample_rate=RATE_HZ)
        answer = None
        try:
            answer = await peer.answer(sdp, attach)
        except TimeoutError:
            raise Rejected(
                503, "no_candidates", "this edge has found no address for its audio", "post the offer again"
            ) from None
        except Rejected:
            raise
        except Exception as error:  # noqa: BLE001  whatever the library raises for an offer
            log.info("webrtc.rejected", error=type(error).__name__)
            raise Rejected(
                422,
                "bad_sdp",
                "the offer is not one that can be answered",
                "send the SDP of an RTCPeerConnection",
            ) from None
        finally:
            if answer is None:
                peer.close()
        return name, answer

    async def trickle(self, name: str, fragment: str) -> None:
        """More candidates of the caller's (RFC 8840). Raises `Rejected`."""
        peer = self._peer(name)
        found = _CANDIDATE.findall(fragment)
        if not found or len(found) > CANDIDATES_MAX:
            raise Rejected(
                422,
                "bad_fragment",
                f"1 to {CANDIDATES_MAX} candidates are expected",
                "send a=candidate: lines",
            )
        mid = _MID.search(fragment)
        try:
            await peer.add(found, mid.group(1) if mid else "0")
        except Exception as error:
            raise Rejected(
                422, "bad_fragment", type(error).__name__, "send candidates as they were gathered"
            ) from error

    def hang_up(self, name: str) -> None:
        """The caller ends its call. Raises `Rejected`."""
        self._peer(name).hang_up()

    def close(self) -> None:
        for peer in list(self._peers.values()):
            peer.close()

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            raise Rejected(404, "not_found", "there is no such session", "post an offer first")
        return peer

    def _configuration(self) -> webrtc.RTCConfiguration:
        servers = [webrtc.RTCIceServer(urls=url) for url in self._ice_servers]
        return webrtc.RTCConfiguration(ice_servers=servers, port_range=self._ports)


class Peer:
    """One peer connection, as the `Line` of its attachment."""

    format: Final[tuple[wire.Encoding, int] | None] = ("pcm16", RATE_HZ)

    def __init__(
        self, calls: Calls, configuration: webrtc.RTCConfiguration, gone: Callable[[], object]
    ) -> None:
        self.attachment = Attachment(calls, self)
        self._forget = gone
        self._pc = webrtc.RTCPeerConnection(configuration)
        self._out = webrtc.MediaStreamTrackGenerator("audio")
        self._writer = self._out.writable.get_writer()
        self._channel: webrtc.RTCDataChannel | None = None
        self._attach: wire.Attach | None = None
        self._closing = self._closed = self._wants_no_silence = False
        self._frames = self._written_ms = 0
        self._stamp = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.carried = Carried()
        self._rtp = RtpCounts()
        self._data_in = self._data_out = 0
        self._timers: list[asyncio.TimerHandle] = []

    async def answer(self, sdp: str, attach: wire.Attach | None) -> str:
        """`attach`: what the caller says by connecting, where it has no channel to say it on."""
        self._attach, self._wants_no_silence = attach, "usedtx=1" in sdp
        pc = self._pc
        pc.on("track", lambda event: self._run(self._listen(event.track)))
        pc.on("datachannel", lambda event: self._opened(event.channel))
        pc.on("connectionstatechange", lambda _: self._changed())
        gathered = asyncio.Event()

        def look(_: webrtc.Event) -> None:
            if str(pc.ice_gathering_state) == "complete":
                gathered.set()

        pc.on("icegatheringstatechange", look)
        await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="offer", sdp=sdp))
        pc.add_track(self._out)
        await pc.set_local_description(await pc.create_answer())
        async with asyncio.timeout(GATHER_WITHIN_S):
            await gathered.wait()
        self._later(CONNECT_WITHIN_S, self._expect_connected)
        local = pc.local_description
        if local is None:
            raise Rejected(
                422, "bad_sdp", "nothing of the offer can be answered", "offer one audio track, sendrecv"
            )
        return without_silence(local.sdp) if self._wants_no_silence else local.sdp

    async def add(self, candidates: list[str], mid: str) -> None:
        for candidate in candidates:
            await self._pc.add_ice_candidate(
                webrtc.RTCIceCandidateInit(candidate=candidate.strip(), sdp_mid=mid)
            )

    def hang_up(self) -> None:
        if self.attachment.session is not None:
            self.attachment.session.caller_hung_up()
        self.close()

    # ------------------------------------------------------------------------------------------------ the line

    @property
    def gone(self) -> bool:
        return self._closing or self._closed

    def send_text(self, message: bytes) -> None:
        channel = self._channel
        if channel is None or self._closing or channel.ready_state != "open":
            return
        if channel.buffered_amount > UNSENT_BYTES_MAX:
            # a caller that does not read: its network is gone; it attaches again where it can
            self.close()
            return
        self._data_out += len(message)
        channel.send(message.decode())

    def send_audio(self, frame: bytes) -> None:
        if self.gone:
            return
        _, _, _, stamp, utterance, offset_ms = wire.HEADER.unpack_from(frame)
        samples = frame[wire.HEADER_BYTES :]
        self._stamp = stamp
        self._frames += 1
        if self._frames % TICK_FRAMES == 0:
            at = wire.Position(utterance=utterance, offset_ms=offset_ms)
            self.send_text(msgspec.json.encode(wire.Tick(stamp=stamp, at=at)))
        self._play(samples)

    def silent(self) -> None:
        """A track that stops is a loss to whoever hears it: its buffer would go on with what it had."""
        if not self.gone and self.attachment.owning:
            self._play(SILENCE)

    def _play(self, samples: bytes) -> None:
        self._written_ms += wire.FRAME_MS
        init = webrtc.AudioDataInit(
            format="s16",
            sample_rate=RATE_HZ,
            number_of_frames=len(samples) // 2,
            number_of_channels=1,
            timestamp=self._written_ms * 1_000,
            data=samples,
        )
        self._writer.write(webrtc.AudioData(init)).add_done_callback(_seen)

    def goodbye(self, *, refused: bool) -> None:
        if not self.gone:
            self._closing = True
            self._later(GOODBYE_S, self.close)

    def drop(self, *, silent: bool) -> None:
        if self.gone:
            return
        self._closing = True
        if silent:
            self._later(SILENT_S, self.close)
        else:
            self.close()

    def owned(self) -> None:
        if self._channel is not None:
            self._run(self._count())

    def report(self) -> Report | None:
        return self._rtp.report

    def close(self) -> None:
        if self._closed:
            return
        self._closed = self._closing = True
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._pc.close()
        self.attachment.lost()
        self._forget()

    # ------------------------------------------------------------------------------------------- what comes

    def _opened(self, channel: webrtc.RTCDataChannel) -> None:
        if self._channel is not None or channel.label != wire.SUBPROTOCOL:
            channel.close()
            return
        self._channel = channel
        channel.on("message", lambda event: self._said(event.data))
        self.attachment.opened()

    def _said(self, data: object) -> None:
        if self._closing:
            return
        if isinstance(data, str):
            message = data.encode("utf-8", "surrogatepass")
            self._data_in += len(message)
            self.attachment.text(message)
        else:
            self.attachment.refuse("bad_message", "audio goes over the track", "send text on this channel")

    def _changed(self) -> None:
        state = str(self._pc.connection_state)
        if state in ("failed", "closed"):
            self.close()
        elif state == "connected" and self._attach is not None:
            attach, self._attach = self._attach, None
            self.attachment.opened()
            self.attachment.text(msgspec.json.encode(attach))
            self._run(self._watch())

    def _expect_connected(self) -> None:
        if str(self._pc.connection_state) != "connected":
            self.close()

    async def _listen(self, track: webrtc.MediaStreamTrack) -> None:
        """What the caller says, 10 ms at a time."""
        if str(track.kind) != "audio":
            return
        converters: dict[int, Converter] = {}
        processor = webrtc.MediaStreamTrackProcessor(webrtc.MediaStreamTrackProcessorInit(track))
        whole = webrtc.AudioDataCopyToOptions(plane_index=0, format="s16")
        async for data in processor.readable:
            assert isinstance(data, webrtc.AudioData)
            rate_hz, channels = round(data.sample_rate), data.number_of_channels
            samples = bytearray(data.number_of_frames * channels * 2)
            data.copy_to(samples, whole)
            data.close()
            pcm = bytes(samples) if channels == 1 else audioop.tomono(samples, 2, 0.5, 0.5)
            convert = converters.setdefault(rate_hz, Converter(Format("pcm16", rate_hz), INNER))
            self._heard(convert(pcm))

    def _heard(self, pcm: bytes) -> None:
        session = self.attachment.session
        if session is None or self.gone or not self.attachment.owning:
            return
        session.caller_audio(self.attachment.stamp, wire.Position(), pcm, 0)

    async def _watch(self) -> None:
        """Stands in for the keep-alives of a caller that cannot send any: what it was sent before the last look has been answered by
        packets since. What lay in a buffer while this process was stopped is as old as the stamp that it is taken to answer."""
        seen, stamp = -1, 0
        while True:
            before, stamp = stamp, self._stamp or stamp
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()
            packets, session = self._rtp.packets_in, self.attachment.session
            if packets > seen and session is not None and self.attachment.owning:
                self.attachment.proved(before or session.stamp)
            seen = packets

    async def _count(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(COUNT_EVERY_S)

    async def _look(self) -> None:
        rtp, carried = self._rtp, self.carried
        rtp.look((await self._pc.get_stats()).values())
        carried.in_bytes, carried.out_bytes = rtp.in_bytes + self._data_in, rtp.out_bytes + self._data_out
        carried.saved_bytes = rtp.saved_bytes(self._written_ms if self._wants_no_silence else 0)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("webrtc.failed", error=type(error).__name__)
            self.close()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, what))


def _seen(written: Awaitable[None]) -> None:
    """A track that has ended takes no audio: the connection's state says so."""
    if isinstance(written, asyncio.Future) and not written.cancelled():
        written.exception()
