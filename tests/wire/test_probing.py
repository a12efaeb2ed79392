"""Probing a real edge: what it measures itself, what it refuses, and what a flood costs its calls."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from app.fleet.frames import read_frame
from app.local.wan import Link
from regions.agents.dial import dial
from regions.callers import probe as probe_module
from regions.edge import main
from regions.edge import measurer as module
from regions.edge.http import make_app
from regions.edge.measurer import Measurer
from regions.edge.probe_gate import MESSAGES_PER_SOCKET_MAX, ProbeGate
from regions.edge.probing import Probing
from regions.edge.settings import EdgeSettings
from regions.edge.uplink import Uplink
from regions.edge.witnesses import Witnesses
from regions.wire.measuring import BackendTarget, Measure, Measured, MeshTarget
from regions.wire.media import PROBE_SUBPROTOCOL
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge

HERE = "127.0.0.0/24"


def probing(url: str, *, nonces: bool = True) -> Any:
    return connect(
        url + "/probe", ping_interval=None, compression=None, proxy=None,
        subprotocols=[Subprotocol(PROBE_SUBPROTOCOL)] if nonces else None,
    )  # fmt: skip


def told(edge: LoneEdge) -> dict[str, tuple[float, int]]:
    """What the edge would report of its callers now."""
    measured = edge.calls.context.probing.witnesses.flush()
    return {c.network: (c.rtt_ms, c.samples) for c in measured.callers} if measured is not None else {}


async def refusal(echo: ClientConnection) -> tuple[int, str]:
    """How the socket was closed."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            async for _ in echo:
                continue
    assert echo.close_code is not None
    return echo.close_code, echo.close_reason or ""


# ---------------------------------------------------------------------------------------------- what an edge measures


async def test_an_edge_times_the_nonces_that_come_back(tmp_path: Path) -> None:
    """Over a way of 2 x 20 ms no sample is less, whatever else the machine does."""
    async with lone_edge(tmp_path) as edge:
        port = int(edge.url.rsplit(":", 1)[1])
        async with Link("127.0.0.1", port, 20.0) as far:
            async with probing(f"ws://127.0.0.1:{far.port}") as echo:
                assert echo.subprotocol == PROBE_SUBPROTOCOL
                nonce = ""
                for i in range(5):
                    await echo.send(f"{i} {nonce}".strip())
                    number, nonce = (await echo.recv()).split()
                    assert number == str(i)
            await until(lambda: edge.calls.context.probing.gate.sockets == 0, "the end of the socket")
        found = told(edge)
        assert found[HERE][1] == 4
        assert found[HERE][0] >= 40.0


async def test_samples_may_overlap(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        async with probing(edge.url) as echo:
            for i in range(4):
                await echo.send(str(i))
            nonces = [(await echo.recv()).split()[1] for _ in range(4)]
            assert len(set(nonces)) == 4
            for nonce in nonces:
                await echo.send(f"x {nonce}")
                await echo.recv()
        await until(lambda: edge.calls.context.probing.gate.sockets == 0, "the end of the socket")
        assert told(edge)[HERE][1] == 4


@pytest.mark.parametrize("lie", ["0123456789abcdef", "again"])
async def test_who_shows_a_nonce_that_is_not_out_is_believed_nothing(tmp_path: Path, lie: str) -> None:
    """Neither one that was made up, nor one that was shown before."""
    async with lone_edge(tmp_path) as edge:
        async with probing(edge.url) as echo:
            await echo.send("1")
            nonce = (await echo.recv()).split()[1]
            await echo.send(f"2 {nonce}")
            await echo.recv()
            await echo.send(f"3 {nonce if lie == 'again' else lie}")
            assert (await refusal(echo))[0] == 1008
        await until(lambda: edge.calls.context.probing.gate.sockets == 0, "the end of the socket")
        assert told(edge) == {}
        assert edge.calls.context.probing.gate.refused["bad_nonce"] == 1


@pytest.mark.parametrize("said", ["", " ", "1  2", "x" * 17, "1 0123456789ABCDEF", "1 0123", "\u00e9", "1\n"])
async def test_what_is_no_probe_is_refused_with_words(tmp_path: Path, said: str) -> None:
    async with lone_edge(tmp_path) as edge, probing(edge.url) as echo:
        await echo.send(said)
        code, words = await refusal(echo)
        assert code == 1008
        assert "newest nonce" in words


async def test_an_older_client_gets_back_what_it_sent(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        async with probing(edge.url, nonces=False) as echo:
            assert echo.subprotocol is None
            for sent in ("0", "1 0123456789abcdef", b"\x00\xff", "\u00e9"):
                await echo.send(sent)
                assert await echo.recv() == sent
        assert told(edge) == {}


async def test_an_attached_caller_is_witnessed_by_pongs(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        port = int(edge.url.rsplit(":", 1)[1])
        async with Link("127.0.0.1", port, 15.0) as far:
            near, edge.url = edge.url, f"ws://127.0.0.1:{far.port}"
            async with edge.caller(edge.ticket(backend.url)) as caller:
                await caller.hear("attached")
                witnesses = edge.calls.context.probing.witnesses
                await until(lambda: witnesses._networks.get(HERE), "a window of pongs")
            edge.url = near
        found = told(edge)
        assert found[HERE][1] >= 5
        assert found[HERE][0] >= 30.0


async def test_a_pong_that_was_not_asked_for_says_nothing(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        edge.calls.context.probing.pings_every_s = 1_000.0
        async with edge.caller(edge.ticket(backend.url)) as caller:
            await caller.hear("attached")
            for _ in range(10):
                await caller.socket.pong(b"12345678")
            await caller.say("hangup")
            await caller.hear("ended")
        await until(lambda: not edge.calls.held(), "the end")
        assert told(edge).get(HERE, (0.0, 0))[1] <= 1


# ----------------------------------------------------------------------------------------------------------- limits


async def test_a_socket_takes_so_much_and_no_more(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        gate = edge.calls.context.probing.gate
        async with probing(edge.url, nonces=False) as echo:
            await echo.send("x" * 65)
            assert await refusal(echo) == (1008, "a probe has at most 64 bytes")
        async with probing(edge.url, nonces=False) as echo:
            for _ in range(MESSAGES_PER_SOCKET_MAX + 1):
                await echo.send("x")
            assert await refusal(echo) == (1008, "a socket takes 100 probes")
        async with probing(edge.url, nonces=False) as echo:
            for _ in range(MESSAGES_PER_SOCKET_MAX):
                await echo.send("x" * 64)
            assert await refusal(echo) == (1008, "a socket takes 4096 bytes of probes")
        await until(lambda: gate.sockets == 0, "the end of the sockets")
        assert (
            gate.refused["message_bytes"],
            gate.refused["socket_messages"],
            gate.refused["socket_bytes"],
        ) == (1, 1, 1)


async def test_a_socket_lives_for_a_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "LIFETIME_S", 0.05)
    async with lone_edge(tmp_path) as edge, probing(edge.url) as echo:
        assert await refusal(echo) == (1000, "the time is over")


async def test_too_many_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        edge.calls.context.probing.gate = ProbeGate(sockets_per_network=2, messages_per_network_s=5)
        async with AsyncExitStack() as stack:
            first, second, third = [await stack.enter_async_context(probing(edge.url)) for _ in range(3)]
            assert await refusal(third) == (1013, "too many probes at once from your network")
            for i in range(6):
                await (first, second)[i % 2].send("1")
            await until(lambda: 1013 in (first.close_code, second.close_code), "one of them refused")
        await until(lambda: edge.calls.context.probing.gate.sockets == 0, "the end of the sockets")
        assert edge.calls.context.probing.gate.refused["network_rate"] >= 1
        async with probing(edge.url) as echo:
            await until(lambda: edge.calls.context.probing.gate.sockets == 1, "another is let in")
            assert echo.subprotocol == PROBE_SUBPROTOCOL


async def test_a_flood_is_refused_and_the_call_goes_on(tmp_path: Path) -> None:
    """Sockets and messages without end from one network: the gate stays shut, the call hears its ticks, nothing raises."""
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        gate = edge.calls.context.probing.gate = ProbeGate(sockets_per_network=4, messages_per_network_s=50)

        async def flood() -> None:
            while True:
                try:
                    async with probing(edge.url, nonces=False) as echo:
                        for _ in range(150):
                            await echo.send("x" * 64)
                        await echo.recv()
                except (ConnectionClosed, OSError):
                    continue

        flooding = [asyncio.create_task(flood()) for _ in range(12)]
        try:
            async with edge.caller(edge.ticket(backend.url)) as caller:
                await caller.hear("attached")
                ticks = 0
                while gate.refused["network_sockets"] < 20 or gate.refused["network_rate"] < 20 or ticks < 5:
                    await caller.say("alive", stamp=(await caller.hear("tick"))["stamp"])
                    ticks += 1
                assert gate.sockets <= 4
                await caller.say("hangup")
                assert (await caller.hear("ended"))["end_reason"] == "caller_hung_up"
        finally:
            for task in flooding:
                task.cancel()
            await asyncio.gather(*flooding, return_exceptions=True)
        await until(lambda: gate.sockets == 0, "the end of the sockets")
        assert edge.calls.context.probing.lingering <= 12
        assert edge.errors == []


async def test_a_websocket_at_the_listener_for_http_is_told_what_is_there(tmp_path: Path) -> None:
    """A caller may have taken one port of the edge's for the other."""
    async with lone_edge(tmp_path) as edge:
        settings = EdgeSettings(
            region="lab", name="e", control_urls=("http://127.0.0.1",), data=tmp_path, http_port=0
        )
        server, task, port = await main._serve_http(settings, edge.calls, cast(Uplink, None), None, None)
        try:
            for path in ("/v1/media", "/probe"):
                with pytest.raises(InvalidStatus) as refused:
                    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None):
                        raise AssertionError
                assert refused.value.response.status_code == (404 if path == "/v1/media" else 204)
            async with httpx.AsyncClient() as client:
                assert "the media listener" in (await client.get(f"http://127.0.0.1:{port}/v1/media")).text
        finally:
            server.should_exit = True
            await task


async def test_too_many_requests_over_http_are_refused_with_429(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        probing_ = edge.calls.context.probing = Probing(gate=ProbeGate(messages_per_network_s=3))

        class Up:
            up = True

        app: Any = make_app(edge.calls, Up())  # type: ignore[arg-type]
        transport = httpx.ASGITransport(app, client=("198.51.100.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            answers = [await client.get("/probe") for _ in range(5)]
            assert [a.status_code for a in answers] == [204, 204, 204, 429, 429]
            refused = answers[-1]
            assert refused.headers["retry-after"] == "1"
            assert (
                refused.headers["timing-allow-origin"]
                == refused.headers["access-control-allow-origin"]
                == "*"
            )
            assert "your network" in refused.text
            assert (await client.get("/healthz")).status_code == 200
            said = (await client.get("/metrics")).text
        assert 'voxplane_edge_probes_refused_total{why="network_rate"} 2\n' in said
        other = httpx.ASGITransport(app, client=("203.0.113.7", 1))
        async with httpx.AsyncClient(transport=other, base_url="http://e") as client:
            assert (await client.get("/probe")).status_code == 204
        assert len(probing_.gate) == 2


# ------------------------------------------------------------------------------------------------------ what it is asked


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REPORT_EVERY_S", "LOOK_S", "FIRST_WITHIN_S"):
        monkeypatch.setattr(module, name, 0.02)


async def measuring(measure: Measure | None, *, enough: Any, local: bool = True) -> list[Measured]:
    said: list[Measured] = []
    measurer = Measurer(said.append, Witnesses(), local_targets=local)
    measurer.use(measure)
    task = asyncio.create_task(measurer.run())
    try:
        await until(lambda: enough(said), "what was measured")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return said


@pytest.mark.usefixtures("hasty")
async def test_the_way_to_another_region_is_its_echo_alone(tmp_path: Path, closed_port: int) -> None:
    async with lone_edge(tmp_path) as edge:
        port = int(edge.url.rsplit(":", 1)[1])
        async with Link("127.0.0.1", port, 10.0) as far:
            nobody = f"ws://127.0.0.1:{closed_port}"
            targets = [
                MeshTarget(region="far", media_url=f"ws://127.0.0.1:{far.port}"),
                MeshTarget(region="gone", media_url=nobody),
            ]
            said = await measuring(
                Measure(mesh=targets), enough=lambda said: len({m.region for s in said for m in s.mesh}) == 2
            )
        found = {m.region: m for s in said for m in s.mesh}
        assert found["far"].rtt_ms >= 20.0
        assert found["far"].loss == 0.0
        assert (found["gone"].rtt_ms, found["gone"].loss) == (0.0, 1.0)
        assert read_frame(msgspec.json.encode(said[-1]).decode()) == said[-1]


@pytest.mark.usefixtures("hasty")
async def test_an_edge_that_has_had_enough_of_probes_is_not_lost(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        edge.calls.context.probing.gate = gate = ProbeGate(sockets_per_network=0)
        witnesses = Witnesses()
        await Measurer(lambda _: None, witnesses, local_targets=True).region(
            MeshTarget(region="r", media_url=edge.url)
        )
        assert witnesses.flush() is None
        assert gate.refused["network_sockets"] == 1


@pytest.mark.usefixtures("hasty")
async def test_a_backend_is_connected_to_and_told_nothing_and_once(closed_port: int) -> None:
    heard: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    measure = Measure(
        backends=[
            BackendTarget(host=f"127.0.0.1:{port}", tls=False),
            BackendTarget(host=f"127.0.0.1:{closed_port}"),
            BackendTarget(host="10.0.0.1:443"), BackendTarget(host="169.254.169.254:80", tls=False),
            BackendTarget(host="bot.example:22"), BackendTarget(host="127.0.0.1"), BackendTarget(host="user@127.0.0.1:1"),
            BackendTarget(host="127.0.0.1:1/x"),
        ]
    )  # fmt: skip
    said: list[Measured] = []
    measurer = Measurer(said.append, Witnesses(), local_targets=True)
    measurer.use(measure)
    task = asyncio.create_task(measurer.run())
    try:
        await until(lambda: len({b.host for s in said for b in s.backends}) == 2, "both")
        reports = len(heard)
        for _ in range(5):
            # a control plane that comes anew, and asks the same
            measurer.use(None)
            measurer.use(measure)
            measurer._start_due()
        await until(lambda: not measurer._busy, "nothing under way")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
    legs = [b for s in said for b in s.backends]
    assert {b.host.partition(":")[0] for b in legs} == {"127.0.0.1"}
    assert sorted(b.failures for b in legs) == [0, 1]
    assert heard == [b""] * reports == [b""]


@pytest.mark.usefixtures("hasty")
async def test_loopback_is_measured_only_where_the_deployment_allows_it(closed_port: int) -> None:
    witnesses = Witnesses()
    measurer = Measurer(lambda _: None, witnesses, local_targets=False)
    for tls in (True, False):
        await measurer.backend(BackendTarget(host=f"127.0.0.1:{closed_port}", tls=tls))
    assert witnesses.flush() is None


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where another of its addresses is public."""
    accepted: list[object] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    here = server.sockets[0].getsockname()

    async def resolve(*_: Any, **__: Any) -> list[Any]:
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, here), (*stream, ("8.8.8.8", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    witnesses = Witnesses()
    await Measurer(lambda _: None, witnesses, local_targets=False).backend(
        BackendTarget(host="bot.example.com:443")
    )
    server.close()
    assert witnesses.flush() is None
    assert accepted == []


@pytest.mark.usefixtures("hasty")
async def test_who_has_not_asked_is_not_told_what_was_measured() -> None:
    said: list[Measured] = []
    witnesses = Witnesses()
    measurer = Measurer(said.append, witnesses, local_targets=True)
    task = asyncio.create_task(measurer.run())
    try:
        witnesses.backend("bot.example:443", 1.0)
        await until(lambda: not witnesses._hosts, "dropped")
        assert said == []
        measurer.use(Measure())
        witnesses.backend("bot.example:443", 1.0)
        await until(lambda: said, "told")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_real_dial_is_timed_as_well(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        witnesses = Witnesses()
        edge.calls.context.dial = partial(dial, connected=witnesses.backend)
        async with edge.caller(edge.ticket(backend.url)) as caller:
            await caller.hear("attached")
            await until(lambda: backend.starts, "the backend's start")
        measured = witnesses.flush()
        assert measured is not None
        [leg] = measured.backends
        assert leg.host == backend.url.removeprefix("ws://").rstrip("/")
        assert leg.failures == 0
