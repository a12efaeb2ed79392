"""A client that measures: over real sockets behind delays, and in the rounds that a server suggests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from app.local.wan import Link
from tests.support.edges import until
from tests.support.lone_edge import lone_edge
from voxplane import prober as prober_module
from voxplane import probing as module
from voxplane.client import AsyncClient
from voxplane.errors import ApiError, Unavailable
from voxplane.prober import ALL_MAX, TTL_MAX_S, TTL_S, AsyncProbes
from voxplane.probing import AT_ONCE, FIRST_MAX, SAMPLES, Latency, Samples, chosen, probe_regions
from voxplane.requests import Request

LONG_MS = 20_000.0


@pytest.mark.parametrize(
    ("rtts_ms", "out_since_ms", "now_ms", "loss"),
    [
        ([80.0], [], 300.0, 0.0),
        ([80.0], [200.0], 300.0, 0.0),
        ([80.0], [50.0], 300.0, 0.5),
        ([5.0, 6.0, 7.0], [100.0], 300.0, 0.25),
        ([5.0, 6.0, 7.0], [100.0, 299.0, 310.0], 300.0, 0.25),
        ([5.0, 6.0], [100.0, 100.0], 300.0, 0.5),
    ],
)
def test_a_sample_that_may_still_come_back_is_not_lost(
    rtts_ms: list[float], out_since_ms: list[float], now_ms: float, loss: float
) -> None:
    out_ms = {str(i): at for i, at in enumerate(out_since_ms)}
    assert Samples(rtts_ms, out_ms).loss(now_ms) == loss


def region(name: str, *urls: str) -> dict[str, Any]:
    return {"id": name, "probes": [{"ws": url, "http": ""} for url in urls]}


def test_what_was_suggested_is_measured_and_no_more() -> None:
    regions = [region(f"r{n}", "ws://x") for n in range(9)] + [region("dark")]
    assert [r["id"] for r in chosen(regions, None)] == [f"r{n}" for n in range(9)]
    first = ["r7", "r7", "nowhere", "dark", "r1", "r2", "r3", "r4"]
    assert [r["id"] for r in chosen(regions, first)] == ["r7", "r1", "r2", "r3"]
    assert len(chosen(regions, first)) == FIRST_MAX
    assert chosen(regions, []) == []


# --------------------------------------------------------------------------------------------------- over real sockets


@asynccontextmanager
async def far(edge_url: str, *delays_ms: float) -> AsyncIterator[list[str]]:
    """The edge, at the other end of ways of so many milliseconds, one way."""
    port = int(edge_url.rsplit(":", 1)[1])
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(Link("127.0.0.1", port, d)) for d in delays_ms]
        yield [f"ws://127.0.0.1:{link.port}/probe" for link in links]


@asynccontextmanager
async def served(handler: Callable[[ServerConnection], Any]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/probe"


class Mute:
    """Takes sockets and says nothing."""

    def __init__(self) -> None:
        self.open = self.seen = 0

    async def __call__(self, socket: ServerConnection) -> None:
        self.open, self.seen = self.open + 1, self.seen + 1
        await socket.wait_closed()
        self.open -= 1


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"ws://127.0.0.1:{taken.getsockname()[1]}/probe"


async def test_the_nearest_come_first_and_no_round_trip_is_less_than_it_is(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, far(edge.url, 30.0, 5.0, 15.0) as urls:
        listed = [region(name, url) for name, url in zip(("c", "a", "b"), urls, strict=True)]
        found = await probe_regions(listed, budget_ms=LONG_MS)
        assert [m.region for m in found] == ["a", "b", "c"]
        for latency, least_ms in zip(found, (10.0, 30.0, 60.0), strict=True):
            assert latency.rtt_ms >= least_ms
            assert latency.jitter_ms >= 0
            assert latency.loss == 0
        assert set(found[0].to_json()) == {"region", "rtt_ms", "jitter_ms", "loss", "at"}
        probing = edge.calls.context.probing
        await until(lambda: probing.gate.sockets == 0, "the end of the sockets")
        measured = probing.witnesses.flush()
        assert measured is not None
        # the edge has seen each nonce come back, over the same ways
        assert measured.callers[0].rtt_ms >= 10.0
        # the last one of each socket may end with it
        assert 3 * (SAMPLES - 1) <= measured.callers[0].samples <= 3 * SAMPLES
        assert probing.gate.refused.total() == 0


async def test_the_nearest_few_get_more_samples_than_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROMISING", 1)
    async with lone_edge(tmp_path) as edge, far(edge.url, 1.0, 60.0) as (near, away):
        probing = edge.calls.context.probing
        await probe_regions([region("near", near), region("away", away)], budget_ms=LONG_MS)
        await until(lambda: probing.gate.sockets == 0, "the end of the sockets")
        measured = probing.witnesses.flush()
        assert measured is not None
        assert measured.callers[0].samples == SAMPLES + module.SAMPLES_FAR


async def test_samples_of_a_promising_region_overlap() -> None:
    """An edge that answers nothing after the first until three are there: whoever waits for one at a time waits for ever."""
    held_max = 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal held_max
        await socket.send(await socket.recv())
        held: list[str | bytes] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                held.append(await socket.recv())
                held_max = max(held_max, len(held))
                if len(held) >= AT_ONCE:
                    for message in held:
                        await socket.send(message)
                    held.clear()

    async with served(handler) as url:
        [found] = await probe_regions([region("a", url)], budget_ms=300, connect_ms=LONG_MS)
    assert found.region == "a"
    assert held_max == AT_ONCE


async def test_one_that_hangs_costs_the_budget_and_is_left_out(tmp_path: Path) -> None:
    mute = Mute()
    async with lone_edge(tmp_path) as edge, served(mute) as hanging:
        listed = [region("hangs", hanging), region("good", edge.url + "/probe"), region("gone", nowhere())]
        found = await probe_regions(listed, budget_ms=200, connect_ms=LONG_MS)
        assert [m.region for m in found] == ["good"]
        assert mute.seen == 1
        await until(lambda: mute.open == 0, "its socket closed")


async def test_no_region_answers() -> None:
    assert await probe_regions([], budget_ms=10) == []
    assert await probe_regions([region("dark")], budget_ms=10) == []
    assert await probe_regions([region("gone", nowhere())], connect_ms=100) == []


async def test_a_region_whose_first_edge_lets_nobody_in_is_measured_at_its_second(tmp_path: Path) -> None:
    async def full(socket: ServerConnection) -> None:
        await socket.close(1013, "too many probes at once")

    async with lone_edge(tmp_path) as edge, served(full) as refusing:
        for first in (refusing, nowhere()):
            [found] = await probe_regions([region("a", first, edge.url + "/probe")], budget_ms=LONG_MS)
            assert found.rtt_ms > 0


async def test_an_older_edge_echoes_and_gives_no_nonce() -> None:
    said: list[Any] = []

    async def handler(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                said.append(message)
                await socket.send(message)

    async with served(handler) as url:
        [found] = await probe_regions([region("a", url)], budget_ms=LONG_MS)
    assert found.loss == 0
    assert sorted(said) == [str(n) for n in range(SAMPLES)]


@pytest.mark.parametrize("when", ["open", "talking"])
async def test_a_cancelled_measurement_leaves_no_socket(tmp_path: Path, when: str) -> None:
    mute = Mute()
    async with lone_edge(tmp_path) as edge, served(mute) as hanging:
        listed = [region(f"h{n}", hanging) for n in range(3)]
        listed += [region("good", edge.url + "/probe")] if when == "talking" else []
        task = asyncio.create_task(probe_regions(listed, budget_ms=LONG_MS, connect_ms=LONG_MS))
        await until(lambda: mute.open == 3, "the sockets")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: mute.open == 0, "every socket closed")
        await until(lambda: edge.calls.context.probing.gate.sockets == 0, "the edge's as well")


@pytest.mark.parametrize("opens", [True, False])
async def test_a_peer_that_does_not_even_close_is_not_waited_for(*, opens: bool) -> None:
    """It opens the WebSocket and then says nothing, not to a close either; or it does not answer at all."""
    open_, seen = 0, asyncio.Event()

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_
        open_ += 1
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        if opens:
            key = next(line for line in asked.splitlines() if line.lower().startswith("sec-websocket-key"))
            accept = accept_key(key.split(": ")[1])
            writer.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
        seen.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                continue
        writer.close()
        open_ -= 1

    server = await asyncio.start_server(hangs, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/probe"
    async with asyncio.timeout(8):
        assert await probe_regions([region("a", url)], budget_ms=100, connect_ms=1_000) == []
        await seen.wait()
        await until(lambda: open_ == 0, "its socket closed")
    server.close()


async def test_a_clock_that_is_set_changes_no_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 3_600)
    async with lone_edge(tmp_path) as edge, far(edge.url, 10.0) as (url,):
        [found] = await probe_regions([region("a", url)], budget_ms=LONG_MS)
        assert 20.0 <= found.rtt_ms < 60_000


# ---------------------------------------------------------------------------------------------------------- in rounds


class Server(AsyncProbes):
    """A client whose server says what it is told to: `suggest` answers `POST /v1/probes`; None: there is no such route."""

    def __init__(self, regions: int, **page: Any) -> None:
        self.page = {"data": [region(f"r{n}", f"ws://r{n}") for n in range(regions)], "ttl_s": 60} | page
        self.suggest: Callable[[list[str]], Any] | None = None
        self.posted: list[list[str]] = []
        self.listed = 0

    async def _ask(self, wanted: Request) -> Any:
        await asyncio.sleep(0)
        if wanted.path == "/v1/regions":
            self.listed += 1
            return self.page
        assert (wanted.method, wanted.path) == ("POST", "/v1/probes")
        assert wanted.within_s is not None
        names = [entry["region"] for entry in wanted.json["latencies"]]
        self.posted.append(names)
        if self.suggest is None:
            raise ApiError(404, {})
        answer = self.suggest(names)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Whom each round has measured; the regions answer in the order of their names."""
    measured: list[list[str]] = []

    async def probe(regions: Any, *, first: list[str] | None = None, budget_ms: float = 0) -> list[Latency]:
        names = [r["id"] for r in chosen(regions, first)]
        measured.append(names)
        await asyncio.sleep(0)
        return [Latency(name, 10.0 + int(name[1:]), 0.0, 0.0, "now") for name in names]

    monkeypatch.setattr(prober_module, "probe_regions", probe)
    return measured


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1_000.0]
    monkeypatch.setattr(prober_module, "_now_s", lambda: clock[0])
    return clock


async def test_two_rounds_and_four_regions_where_the_server_suggests(rounds: list[list[str]]) -> None:
    server = Server(30, probe_first=["r9", "r20"])
    server.suggest = lambda names: {"probe_next": ["r9", "r4", "r5", "r6"], "ttl_s": 30}
    found = await server.probe()
    assert rounds == [["r9", "r20"], ["r4", "r5"]]
    assert server.posted == [["r9", "r20"]]
    assert [m.region for m in found] == ["r4", "r5", "r9", "r20"]


async def test_landmarks_are_asked_for_where_there_are_many_regions(rounds: list[list[str]]) -> None:
    server = Server(ALL_MAX + 1)
    server.suggest = lambda names: {"probe_next": ["r1", "r2"] if not names else [], "ttl_s": 30}
    assert [m.region for m in await server.probe()] == ["r1", "r2"]
    assert server.posted == [[], ["r1", "r2"]]


async def test_few_regions_are_all_measured_and_nobody_is_asked(rounds: list[list[str]]) -> None:
    server = Server(ALL_MAX)
    assert len(await server.probe()) == ALL_MAX
    assert (len(rounds), server.posted) == (1, [])


@pytest.mark.parametrize("page", [{}, {"probe_first": ["r3"]}])
async def test_a_server_without_the_route_has_all_measured(
    rounds: list[list[str]], page: dict[str, Any]
) -> None:
    server = Server(9, **page)
    assert [m.region for m in await server.probe()] == [f"r{n}" for n in range(9)]
    assert sorted(name for names in rounds for name in names) == [f"r{n}" for n in range(9)]


@pytest.mark.parametrize(
    "answer",
    [
        Unavailable(["timed out"]),
        ApiError(429, {}),
        ApiError(503, {}),
        None,
        [],
        {"probe_next": None},
        {"probe_next": ["x"]},
    ],
    ids=range(7),
)
async def test_a_server_that_does_not_help_costs_nothing_that_was_measured(
    rounds: list[list[str]], answer: Any
) -> None:
    server = Server(9, probe_first=["r3", "r1"])
    server.suggest = lambda names: answer
    assert [m.region for m in await server.probe()] == ["r1", "r3"]
    assert {name for names in rounds for name in names} == {"r1", "r3"}


async def test_a_result_holds_as_long_as_the_server_says(rounds: list[list[str]], now: list[float]) -> None:
    server = Server(9, probe_first=["r3"], ttl_s=1_000)
    server.suggest = lambda names: {"probe_next": [], "ttl_s": 30}
    first = await server.probe()
    now[0] += 29.0
    assert await server.probe() == first
    assert (len(rounds), server.listed) == (1, 1)
    now[0] += 2.0
    await server.probe()
    await server.probe(fresh=True)
    assert (len(rounds), server.listed) == (3, 2)
    assert await server.probe() is not await server.probe()


async def test_another_set_of_regions_is_measured_anew(rounds: list[list[str]], now: list[float]) -> None:
    server = Server(3, ttl_s=5)
    await server.probe()
    now[0] += 4.0
    server.page = Server(4, ttl_s=60).page
    assert len(await server.probe()) == 3
    now[0] += 2.0
    assert len(await server.probe()) == 4
    assert len(rounds) == 2


@pytest.mark.parametrize(
    ("said", "ttl_s"),
    [({}, TTL_S), ({"ttl_s": None}, TTL_S), ({"ttl_s": "9"}, TTL_S), ({"ttl_s": float("nan")}, TTL_S), ({"ttl_s": 1e9}, TTL_MAX_S),
     ({"ttl_s": -5}, 1.0), ({"ttl_s": 30}, 30.0)],
    ids=range(7),
)  # fmt: skip
def test_a_time_to_live_has_bounds(said: dict[str, Any], ttl_s: float) -> None:
    assert prober_module._ttl_s(said) == ttl_s


async def test_tasks_that_ask_together_share_one_measurement(rounds: list[list[str]]) -> None:
    server = Server(9, probe_first=["r3"])
    server.suggest = lambda names: {"probe_next": ["r1"], "ttl_s": 30}
    found = await asyncio.gather(*(server.probe() for _ in range(10)))
    assert all(f == found[0] for f in found)
    assert rounds == [["r3"], ["r1"]]


async def test_nothing_is_kept_of_a_measurement_that_found_nothing(
    rounds: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(3)
    good = prober_module.probe_regions

    async def silent(regions: Any, **more: Any) -> list[Latency]:
        return []

    monkeypatch.setattr(prober_module, "probe_regions", silent)
    assert await server.probe() == []
    monkeypatch.setattr(prober_module, "probe_regions", good)
    assert len(await server.probe()) == 3


def test_the_client_can_do_it() -> None:
    assert AsyncClient.probe is AsyncProbes.probe
    assert AsyncClient._ask is not AsyncProbes._ask
