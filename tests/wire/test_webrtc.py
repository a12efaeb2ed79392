"""Callers over WebRTC: real ICE, DTLS and Opus on loopback, with libwebrtc at the other end; the signalling over the edge's HTTP."""

from __future__ import annotations

import array
import asyncio
import audioop
import base64
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import webrtc

from regions.callers.sdp import without_silence
from regions.callers.webrtc import RATE_HZ, WebRtcCallers, allow_loopback
from regions.edge.http import make_app
from regions.wire import media as wire
from regions.wire.snapshot import Tail, Turn
from tests.bench.media_rtc import Relay
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge

TONE_HZ = 1_000
allow_loopback()


def tone(ms: int, rate_hz: int = RATE_HZ) -> bytes:
    samples = [
        round(8_000 * math.sin(2 * math.pi * TONE_HZ * i / rate_hz)) for i in range(rate_hz * ms // 1000)
    ]
    return array.array("h", samples).tobytes()


class Browser:
    """A caller as a page has it: a peer connection, the channel, and what came."""

    def __init__(self, *, channel: bool = True) -> None:
        self.pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(ice_servers=[]))
        self.out = webrtc.MediaStreamTrackGenerator("audio")
        self.writer = self.out.writable.get_writer()
        self.heard: list[bytes] = []
        self.said: list[dict[str, Any]] = []
        self.pc.add_track(self.out)
        self.pc.on("track", lambda event: self._run(self._listen(event.track)))
        self.channel = self.pc.create_data_channel(wire.SUBPROTOCOL) if channel else None
        self._tasks: list[asyncio.Task[None]] = []
        if self.channel is not None:
            self.channel.on("message", lambda event: self._got(json.loads(event.data)))

    async def offer(self) -> str:
        await self.pc.set_local_description(await self.pc.create_offer())
        await until(lambda: str(self.pc.ice_gathering_state) == "complete", "its candidates")
        assert self.pc.local_description is not None
        return self.pc.local_description.sdp

    async def answered(self, sdp: str) -> None:
        await self.pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=sdp))
        await until(lambda: str(self.pc.connection_state) == "connected", "the connection")
        if self.channel is not None:
            await until(
                lambda: self.channel is not None and self.channel.ready_state == "open", "the channel"
            )

    def tell(self, **message: Any) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps(message))

    def got(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.said if m["type"] == kind]

    async def speak(self, ms: int, *, loud: bool = True) -> None:
        samples = tone(20) if loud else bytes(1_920)
        for i in range(ms // 20):
            init = webrtc.AudioDataInit(
                format="s16", sample_rate=RATE_HZ, number_of_frames=960, number_of_channels=1, timestamp=i * 20_000, data=samples
            )  # fmt: skip
            await self.writer.write(webrtc.AudioData(init))
            await asyncio.sleep(0.02)

    def loud(self) -> int:
        """How many of the 10 ms that came are loud."""
        return sum(max(array.array("h", piece), default=0) > 2_000 for piece in self.heard)

    def sound_since(self, first: int) -> int:
        """How many of the 10 ms are not silence."""
        return sum(max(array.array("h", piece), default=0) > 200 for piece in self.heard[first:])

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.pc.close()

    def _got(self, message: dict[str, Any]) -> None:
        self.said.append(message)
        if "stamp" in message:
            self.tell(type="alive", stamp=message["stamp"])

    def _run(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _listen(self, track: Any) -> None:
        processor = webrtc.MediaStreamTrackProcessor(webrtc.MediaStreamTrackProcessorInit(track))
        async for data in processor.readable:
            assert isinstance(data, webrtc.AudioData)
            samples = bytearray(data.number_of_frames * data.number_of_channels * 2)
            data.copy_to(samples, webrtc.AudioDataCopyToOptions(plane_index=0, format="s16"))
            data.close()
            self.heard.append(bytes(samples))


@asynccontextmanager
async def serving(edge: LoneEdge) -> AsyncIterator[tuple[httpx.AsyncClient, WebRtcCallers]]:
    callers = WebRtcCallers(edge.calls)
    app: Any = make_app(edge.calls, edge.log, callers)  # type: ignore[arg-type]
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as http:
            yield http, callers
    finally:
        callers.close()


async def post(http: httpx.AsyncClient, sdp: str, ticket: str) -> httpx.Response:
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {ticket}"}
    return await http.post("/v1/webrtc", content=sdp, headers=headers)


@asynccontextmanager
async def calling(
    folder: Path, *, channel: bool = True, usedtx: bool = False, **attach: Any
) -> AsyncIterator[tuple[Any, ...]]:
    async with lone_edge(folder) as edge, Backend().run() as made, serving(edge) as (http, callers):
        ticket, browser = edge.ticket(made.url), Browser(channel=channel)
        try:
            offer = await browser.offer()
            answer = await post(http, without_silence(offer) if usedtx else offer, ticket)
            assert answer.status_code == 201, answer.text
            assert ("usedtx=1" in answer.text) == usedtx
            await browser.answered(answer.text)
            if channel:
                browser.tell(type="attach", ticket=ticket, epoch=1, **attach)
            await until(lambda: edge.log.of("agent.connected"), "the backend")
            yield edge, made, http, callers, browser, answer.headers["location"]
        finally:
            browser.close()


async def sent_by_now(made: Backend, browser: Browser) -> int:
    """How many messages the edge has sent the backend up to a key that is pressed now, however late the backend reads them."""
    browser.tell(type="dtmf", digit="5")
    await until(lambda: any(m["event"] == "dtmf" for m in made.got), "the key")
    return [m["event"] for m in made.got].index("dtmf")


async def test_a_browser_talks_and_hears(tmp_path: Path) -> None:
    async with calling(tmp_path) as (edge, made, _http, callers, browser, _location):
        await until(lambda: browser.got("attached"), "the call")
        assert browser.got("attached")[0]["epoch"] == 1
        assert edge.log.of("call.answered") == [{"encoding": "pcm16", "sample_rate": RATE_HZ}]
        await browser.speak(600)

        def loud() -> int:
            media = [m["media"]["payload"] for m in made.got if m["event"] == "media"]
            return sum(set(payload) != {"/", "w", "="} for payload in media)

        await until(lambda: loud() > 10, "the caller's voice")
        frame = "f/8AAX9/" * 26 + "fwA="
        await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": frame * 50}}))
        await until(lambda: edge.log.of("playback.started"), "the agent's voice")
        await until(lambda: browser.loud() > 20, "it heard")
        await until(lambda: any("at" in m for m in browser.got("tick")), "where it stands")
        browser.tell(type="hangup")
        await until(lambda: browser.got("ended"), "the end")
        assert edge.log.why_ended() == {"end_reason": "caller_hung_up"}
        await until(lambda: callers.peers == 0, "the peer let go")
        assert edge.errors == []


async def test_an_agent_that_falls_silent_is_silent_at_the_caller(tmp_path: Path) -> None:
    """A track that stops would be taken for lost packets, and its last sound be drawn out."""
    async with calling(tmp_path) as (edge, made, _http, _callers, browser, _location):
        await until(lambda: browser.got("attached"), "the call")
        frame = audioop.lin2ulaw(array.array("h", [6_000] * 10 + [-6_000] * 10).tobytes() * 8, 2)
        payload = base64.b64encode(frame * 150).decode()
        await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": payload}}))
        await until(lambda: browser.loud() > 80, "it heard")
        await made.sockets[0].send(json.dumps({"event": "clear"}))
        await until(lambda: edge.log.of("playback.interrupted"), "it cut")
        said = len(browser.heard)
        await until(lambda: len(browser.heard) >= said + 60, "what follows")
        assert browser.sound_since(said + 20) == 0


async def test_a_channel_that_asks_for_frames_without_samples_has_its_silence_on_the_track(
    tmp_path: Path,
) -> None:
    async with calling(tmp_path, dtx=True) as (edge, made, _http, callers, browser, _location):
        await until(lambda: browser.got("attached"), "the call")
        loud = audioop.lin2ulaw(array.array("h", [6_000] * 10 + [-6_000] * 10).tobytes() * 8, 2)
        payload = base64.b64encode(b"\xff" * 160 * 20 + loud * 40).decode()
        await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": payload}}))
        await until(lambda: browser.loud() > 40, "what follows the silence")
        [peer] = callers._peers.values()
        assert peer.carried.saved_bytes == 0
        assert edge.errors == []


async def test_without_the_channel_a_caller_attaches_by_connecting_and_stays(tmp_path: Path) -> None:
    async with calling(tmp_path, channel=False) as (edge, _made, http, _callers, browser, location):
        await browser.speak(4_000)  # longer than a lease
        assert edge.log.of("call.ended") == []
        assert len(edge.calls.held()) == 1
        assert (await http.delete(location)).status_code == 200
        await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.why_ended() == {"end_reason": "caller_hung_up"}


async def test_without_the_channel_a_call_that_was_carried_before_goes_on(tmp_path: Path) -> None:
    """At a later epoch an offer takes the call over: it is not answered a second time."""

    class Tails:
        async def read(self, call: str) -> Tail:
            return Tail(call=call, seq=5, epoch=1, n=3, turns=[Turn(role="caller", text="hello")])

    async with lone_edge(tmp_path) as edge, Backend().run() as made, serving(edge) as (http, _):
        edge.calls._tails = Tails()  # type: ignore[assignment]
        browser = Browser(channel=False)
        try:
            answer = await post(http, await browser.offer(), edge.ticket(made.url, epochs=(2,)))
            await browser.answered(answer.text)
            await until(lambda: made.starts, "the backend")
            assert edge.log.of("call.answered") == []
            assert [e["history"] for e in edge.log.of("call.reconnecting")] == ["tail"]
            assert "hello" in made.starts[0]["customParameters"]["voxplane_conversation"]
        finally:
            browser.close()


async def test_candidates_may_come_later(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made, serving(edge) as (http, _):
        browser = Browser()
        try:
            sdp = await browser.offer()
            lines = sdp.splitlines()
            bare = "\r\n".join(line for line in lines if not line.startswith("a=candidate:")) + "\r\n"
            answer = await post(http, bare, edge.ticket(made.url))
            fragment = (
                "\r\n".join(["a=mid:0", *(line for line in lines if line.startswith("a=candidate:"))])
                + "\r\n"
            )
            headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
            patched = await http.patch(answer.headers["location"], content=fragment, headers=headers)
            assert patched.status_code == 204, patched.text
            await browser.answered(answer.text)
        finally:
            browser.close()


NO_AUDIO = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp"}, "v=0", 401, "no_ticket"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/json", "Authorization": "Bearer x"}, "{}", 415, "bad_content_type"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp", "Authorization": "Bearer x"}, "v=0", 403, "malformed"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp", "Authorization": "TICKET"}, NO_AUDIO, 422, "no_audio"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp", "Authorization": "TICKET"}, "m=audio 9 x", 422, "bad_sdp"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp", "Authorization": "TICKET"}, "v" * 70_000, 413, "too_large"),
        ("POST", "/v1/webrtc", {"Content-Type": "application/sdp", "Authorization": "TICKET"}, b"\xff\xfe", 422, "bad_sdp"),
        ("GET", "/v1/webrtc", {}, "", 405, "method_not_allowed"),
        ("DELETE", "/v1/webrtc/nobody", {}, "", 404, "not_found"),
        ("PATCH", "/v1/webrtc/nobody", {"Content-Type": "application/trickle-ice-sdpfrag"}, "a=candidate:1", 404, "not_found"),
    ],
)  # fmt: skip
async def test_bad_offers_are_refused_and_leave_nothing(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], body: str | bytes, status: int, code: str
) -> None:
    async with lone_edge(tmp_path) as edge, serving(edge) as (http, callers):
        sent = {
            k: v.replace("TICKET", f"Bearer {edge.ticket('ws://127.0.0.1:9/')}") for k, v in headers.items()
        }
        answer = await http.request(method, path, content=body, headers=sent)
        assert (answer.status_code, answer.json()["code"], bool(answer.json()["fix"])) == (status, code, True)
        assert callers.peers == 0
        assert edge.calls.held() == []


async def test_a_page_from_elsewhere_may_ask(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, serving(edge) as (http, _):
        asked = await http.options("/v1/webrtc")
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "*"
        assert "authorization" in asked.headers["access-control-allow-headers"]


async def test_nonsense_on_the_channel_ends_that_peer_alone(tmp_path: Path) -> None:
    async with calling(tmp_path) as (edge, _made, _http, callers, browser, _location):
        assert browser.channel is not None
        browser.channel.send(b"\x00\x01")
        await until(lambda: browser.got("refused"), "the refusal")
        assert browser.got("refused")[0]["code"] == "bad_message"
        await until(lambda: callers.peers == 0, "the peer let go")
        assert edge.errors == []


async def test_the_final_event_has_what_the_peer_connection_counted(tmp_path: Path) -> None:
    async with calling(tmp_path) as (edge, _made, _http, callers, browser, _location):
        await until(lambda: browser.got("attached"), "the call")
        await browser.speak(1_000)
        [peer] = callers._peers.values()
        await until(lambda: peer.carried.in_bytes > 2_000, "its count")
        browser.tell(type="hangup")
        await until(lambda: edge.log.of("call.ended"), "the end")
        [ended] = edge.log.of("call.ended")
        quality, usage = ended["quality"], ended["usage"]
        assert (quality["up"]["loss"], quality["mos"] > 4.2) == (0.0, True)
        assert usage["caller_in_bytes"] == peer.carried.in_bytes
        assert usage["caller_out_bytes"] > 1_000


async def test_silence_is_not_sent_either_way_and_is_counted(tmp_path: Path) -> None:
    async with calling(tmp_path, usedtx=True) as (edge, made, _http, callers, browser, _location):
        await until(lambda: browser.got("attached"), "the call")
        [peer] = callers._peers.values()
        given = len(made.got)
        await browser.speak(2_000, loud=False)
        assert await sent_by_now(made, browser) - given >= 90, "the backend hears fifty frames a second"
        await until(lambda: peer.carried.saved_bytes > 3_000, "what was saved")
        assert peer.report().up.lost == 0
        browser.tell(type="hangup")
        await until(lambda: edge.log.of("call.ended"), "the end")
        [ended] = edge.log.of("call.ended")
        assert ended["usage"]["silence_saved_bytes"] > 3_000


async def through(sdp: str, loss: float) -> tuple[Relay, str]:
    """An answer whose one address is that of a relay which loses packets, both ways, once it is told to."""
    lines = sdp.splitlines()
    mine = next(
        line
        for line in lines
        if line.startswith("a=candidate:") and " udp " in line and " 127.0.0.1 " in line
    )
    port = int(mine.split()[5])
    transport, relay = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Relay(("127.0.0.1", port), loss, random.Random(7)), local_addr=("127.0.0.1", 0)
    )
    there = transport.get_extra_info("sockname")[1]
    kept = [line for line in lines if not line.startswith("a=candidate:")]
    at = next(i for i, line in enumerate(kept) if line.startswith("a=ice-ufrag"))
    return relay, "\r\n".join([*kept[:at], mine.replace(f" {port} ", f" {there} "), *kept[at:]]) + "\r\n"


async def test_what_a_bad_network_loses_is_in_the_final_event(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made, serving(edge) as (http, callers):
        ticket, browser = edge.ticket(made.url), Browser()
        try:
            offer = await browser.offer()
            hidden = "".join(
                f"{line}\r\n" for line in offer.splitlines() if not line.startswith("a=candidate:")
            )
            relay, answer = await through((await post(http, hidden, ticket)).text, 0.25)
            await browser.answered(answer)
            browser.tell(type="attach", ticket=ticket, epoch=1)
            await until(lambda: browser.got("attached"), "the call")
            relay.losing = True
            given = len(made.got)
            await browser.speak(2_500)
            assert await sent_by_now(made, browser) - given >= 115, "the backend's timeline has no hole"
            [peer] = callers._peers.values()
            await until(lambda: peer.report().up.lost > 10, "its count")
            relay.losing = False
            browser.tell(type="hangup")
            await until(lambda: edge.log.of("call.ended"), "the end")
        finally:
            browser.close()
        quality = edge.log.of("call.ended")[0]["quality"]
        assert 0.1 < quality["up"]["loss"] < 0.4
        assert quality["mos_min"] <= quality["mos"] < 3.5
