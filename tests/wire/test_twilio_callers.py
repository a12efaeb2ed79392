"""Callers that speak Twilio Media Streams: their frames, to the letter, and what becomes of them in a call."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from regions.callers import twilio_stream as stream
from regions.wire.media import Position
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge

CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'
QUIET, LOUD = b"\xff" * 160, b"\x10\x90" * 80


def start(**parameters: str) -> str:
    body = {
        "accountSid": "AC1", "streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}, "customParameters": parameters,
    }  # fmt: skip
    return json.dumps({"event": "start", "sequenceNumber": "1", "start": body, "streamSid": "MZ1"})


def media(chunk: int, samples: bytes = QUIET, track: str = "inbound") -> str:
    payload = base64.b64encode(samples).decode()
    body = {"track": track, "chunk": str(chunk), "timestamp": str(chunk * 20), "payload": payload}
    return json.dumps({"event": "media", "sequenceNumber": str(chunk + 1), "media": body, "streamSid": "MZ1"})


class Stream:
    """The caller's end as Twilio is: plays at once, and says so of every mark."""

    def __init__(self, socket: ClientConnection, *, echoes: bool = True) -> None:
        self.socket, self.echoes = socket, echoes
        self.got: list[dict[str, Any]] = []
        self.closed: ConnectionClosed | None = None
        self.talking = True

    def of(self, event: str) -> list[dict[str, Any]]:
        return [m for m in self.got if m["event"] == event]

    async def listen(self) -> None:
        try:
            while True:
                message = json.loads(await self.socket.recv())
                self.got.append(message)
                if message["event"] == "mark" and self.echoes:
                    await self.socket.send(json.dumps({**message, "sequenceNumber": "9"}))
        except ConnectionClosed as closed:
            self.closed = closed

    async def talk(self) -> None:
        chunk = 0
        while self.talking and self.closed is None:
            chunk += 1
            await self.socket.send(media(chunk))
            await asyncio.sleep(0.02)


@asynccontextmanager
async def streaming(edge: LoneEdge, path: str = "", *, echoes: bool = True) -> AsyncIterator[Stream]:
    async with connect(f"{edge.url}/v1/twilio{path}", ping_interval=None, compression=None) as socket:
        made = Stream(socket, echoes=echoes)
        listening = asyncio.create_task(made.listen())
        try:
            yield made
        finally:
            listening.cancel()


@pytest.mark.parametrize("way", ["path", "parameter", "parts"])
async def test_a_stream_is_a_call(tmp_path: Path, way: str) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        ticket = edge.ticket(made.url)
        half = len(ticket) // 2
        parameters = {
            "path": {},
            "parameter": {"ticket": ticket},
            "parts": {"ticket_1": ticket[:half], "ticket_2": ticket[half:]},
        }
        async with streaming(edge, f"/{ticket}" if way == "path" else "") as caller:
            await caller.socket.send(CONNECTED)
            await caller.socket.send(start(**parameters[way]))
            await until(lambda: made.starts, "the backend")
            assert edge.log.of("call.answered") == [{"encoding": "mulaw", "sample_rate": 8000}]
            for chunk in range(1, 6):
                await caller.socket.send(media(chunk, LOUD))
                await caller.socket.send(media(chunk, QUIET, track="outbound"))
            loud = base64.b64encode(LOUD).decode()
            heard = [m["media"]["payload"] for m in made.got if m["event"] == "media"]
            await until(
                lambda: [m["media"]["payload"] for m in made.got if m["event"] == "media"].count(loud) == 5,
                f"{len(heard)}",
            )
            await caller.socket.send(
                '{"event":"dtmf","streamSid":"MZ1","dtmf":{"track":"inbound_track","digit":"5"}}'
            )
            await until(lambda: edge.log.of("dtmf.received") == [{"digit": "5"}], "the key")
            await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": loud}}))
            await until(lambda: caller.of("media"), "the agent")
            assert caller.of("media")[0] == {"event": "media", "streamSid": "MZ1", "media": {"payload": loud}}
            await caller.socket.send(
                '{"event":"stop","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}'
            )
            await until(lambda: caller.closed, "the goodbye")
            assert edge.log.why_ended() == {"end_reason": "caller_hung_up"}
            assert (
                caller.closed is not None
                and caller.closed.rcvd is not None
                and caller.closed.rcvd.code == 1000
            )
            assert {m["event"] for m in caller.got} <= {"media", "mark"}
        assert edge.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("echoes", [True, False], ids=["marks come back", "no mark does"])
async def test_it_is_cut_where_its_marks_say_and_stays_longer_than_a_lease(
    tmp_path: Path, echoes: bool
) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with streaming(edge, f"/{edge.ticket(made.url)}", echoes=echoes) as caller:
            await caller.socket.send(start())
            await until(lambda: made.starts, "the backend")
            talking = asyncio.create_task(caller.talk())
            payload = base64.b64encode(LOUD * 500).decode()
            await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": payload}}))
            await until(lambda: len(caller.of("media")) >= 200, "four seconds")
            assert len(edge.calls.held()) == 1, "the lease is three seconds"
            await made.sockets[0].send('{"event":"clear"}')
            await until(lambda: caller.of("clear"), "the clear")
            assert caller.of("clear") == [{"event": "clear", "streamSid": "MZ1"}]
            heard = len(caller.of("media"))
            await until(lambda: edge.log.of("playback.interrupted"), "the cut")
            [cut] = edge.log.of("playback.interrupted")
            assert heard * 20 - 400 <= cut["offset_ms"] <= heard * 20
            marks = len(caller.of("mark"))
            await until(lambda: len(caller.of("mark")) >= marks + 2, "marks in the silence")
            assert len(caller.of("media")) == heard, "nothing after the clear"
            caller.talking = False
            await talking
        await until(lambda: not edge.calls.held(), "it is let go, without an end")
        assert not edge.log.of("call.ended")


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (lambda edge, url: ["{"], "bad_message"),
        (lambda edge, url: [b"\0\1"], "bad_message"),
        (lambda edge, url: [CONNECTED, start()], "no_ticket"),
        (lambda edge, url: [start(ticket="x.y.z")], "malformed"),
        (lambda edge, url: [start(ticket=edge.ticket(url)).replace("8000", "16000")], "bad_format"),
        (lambda edge, url: [start(ticket=edge.ticket(url)), start(ticket="again")], "bad_message"),
        (lambda edge, url: [start(ticket=edge.ticket(url, epochs=(1, 2)))], "has_standbys"),
    ],
    ids=["not JSON", "binary", "no ticket", "no ticket of ours", "wrong rate", "two starts", "standbys"],
)
async def test_nonsense_is_refused_with_a_code_in_the_close(
    tmp_path: Path, messages: Callable[[LoneEdge, str], list[Any]], code: str
) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with streaming(edge) as caller:
            for message in messages(edge, made.url):
                await caller.socket.send(message)
            await until(lambda: caller.closed, "the refusal")
            assert caller.closed is not None and caller.closed.rcvd is not None
            assert (caller.closed.rcvd.code, caller.closed.rcvd.reason) == (1008, code)
        assert edge.errors == []


def test_what_is_unknown_is_ignored_and_marks_of_others_say_nothing() -> None:
    said = [
        '{"event":"zzz"}',
        '{"event":"media"}',
        '{"event":"mark","mark":{"name":"vx.1.2"}}',
        '{"event":"mark","mark":{"name":"vx.a.b.c"}}',
    ]
    assert [stream.read(m.encode()) for m in said] == [stream.IGNORED] * 4
    ours = json.loads(stream.mark("MZ1", 280121740644790, Position(utterance=2, offset_ms=1600)))
    assert ours == {"event": "mark", "streamSid": "MZ1", "mark": {"name": "vx.280121740644790.2.1600"}}
    assert stream.read(json.dumps(ours).encode()) == stream.Played(
        280121740644790, Position(utterance=2, offset_ms=1600)
    )
    assert stream.read(b"[" * 5_000) is None
