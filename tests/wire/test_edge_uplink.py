"""The edge's end of the uplink against control planes that hang: it leaves them, and what it has goes elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.edge import uplink as module
from regions.edge.identity import Identity
from regions.edge.keyring import Keyring
from regions.edge.outbox import Outbox
from regions.edge.uplink import Uplink
from regions.wire.uplink import Alive, AppendStatus, Load

ALIVE_S = 0.02


class Instance:
    """Welcomes, and says `alive` as long as it is let. `promises`: whether it says that it will. `got`: all messages."""

    def __init__(self, *, promises: bool = True, alive: bool = True) -> None:
        self.promises = promises
        self.alive = alive
        self.got: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], str | None] = lambda _: None
        self.url = ""

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.got if m["type"] == kind]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Instance]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        beating: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                self.got.append(message)
                if message["type"] == "hello":
                    await socket.send(self._welcome())
                    beating = asyncio.create_task(self._beat(socket))
                elif (answer := self.answer(message)) is not None:
                    await socket.send(answer)
        except ConnectionClosed:
            pass
        finally:
            if beating is not None:
                beating.cancel()

    def _welcome(self) -> str:
        keys = {"type": "keys", "fleet_keys": [], "jwks": {"keys": []}}
        welcome = {"type": "welcome", "generation": 1, "heartbeat_s": ALIVE_S, "keys": keys}
        return json.dumps(welcome | ({"alive_s": ALIVE_S} if self.promises else {}))

    async def _beat(self, socket: ServerConnection) -> None:
        try:
            while self.alive:
                await socket.send(msgspec.json.encode(Alive()).decode())
                await asyncio.sleep(ALIVE_S)
        except ConnectionClosed:
            return


class Call:
    """A call as the uplink sees it."""

    def __init__(self, call: str = "call_1") -> None:
        self.call, self.epoch, self.outbox = call, 1, Outbox(call, 1)
        self.statuses: list[AppendStatus] = []

    def write(self) -> None:
        self.outbox.add(id="evt_1", type="speech.started", at_ms=1, data=b"{}")

    def settled(self, status: AppendStatus) -> None:
        self.statuses.append(status)
        if status.status == "durable":
            self.outbox.acknowledge(status.durable_n)
        else:
            self.outbox.send_again()


class Calls:
    def __init__(self, *sessions: Call) -> None:
        self.sessions = list(sessions)

    def load(self) -> Load:
        return Load(calls=len(self.sessions), capacity_calls=5)

    def held(self) -> list[Any]:
        return []

    lapsed = not_taken = held

    def session(self, call: str, epoch: int) -> Call | None:
        return next((s for s in self.sessions if (s.call, s.epoch) == (call, epoch)), None)


@asynccontextmanager
async def connecting(tmp_path: Path, *urls: str, calls: Calls) -> AsyncIterator[Uplink]:
    identity = Identity(tmp_path)
    identity.registered("edge_1")

    async def register() -> list[str]:
        raise AssertionError("nobody was refused")

    uplink = Uplink(list(urls), "lab", identity, Keyring(tmp_path / "keys.json"), register)
    uplink.calls = calls  # type: ignore[assignment]
    running = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(true: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(20):
        try:
            while not true():
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            print(f"never came: {what}")
            raise


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENCE_MAX_S", "ACK_DEADLINE_S"):
        monkeypatch.setattr(module, name, 0.2)
    monkeypatch.setattr(module, "WATCH_EVERY_S", 0.01)


async def test_an_instance_that_falls_silent_is_left_for_the_next(tmp_path: Path) -> None:
    async with (
        Instance().run() as a,
        Instance().run() as b,
        connecting(tmp_path, a.url, b.url, calls=Calls()),
    ):
        await until(lambda: a.said("heartbeat"), "a heartbeat")
        a.alive = False
        await until(lambda: b.said("heartbeat"), "the uplink at the other instance")


@pytest.mark.parametrize("talks", [True, False])
async def test_an_answer_that_never_comes_is_waited_for_from_the_sending_on(
    tmp_path: Path, talks: bool
) -> None:
    """The instance goes on talking, or never promised to: either way the batch goes to the next one."""
    call = Call()
    async with (
        Instance(promises=talks, alive=talks).run() as a,
        Instance().run() as b,
        connecting(tmp_path, a.url, b.url, calls=Calls(call)) as uplink,
    ):
        await until(lambda: a.said("heartbeat"), "a heartbeat")
        call.write()
        uplink.notify(call)  # type: ignore[arg-type]
        await until(lambda: a.said("events"), "the batch")
        await until(lambda: b.said("events"), "the batch, again")
        assert a.said("events")[0]["calls"] == b.said("events")[0]["calls"]


async def test_an_instance_that_promises_nothing_may_be_silent(tmp_path: Path) -> None:
    async with (
        Instance(promises=False, alive=False).run() as a,
        Instance().run() as b,
        connecting(tmp_path, a.url, b.url, calls=Calls()),
    ):
        await until(lambda: len(a.said("heartbeat")) > 30, "heartbeats long after the silence began")
        assert b.got == []


@pytest.mark.parametrize("status", ["busy", "gap"])
async def test_a_call_that_the_log_does_not_take_now_is_sent_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """What other calls write meanwhile does not cut the pause short."""
    monkeypatch.setattr(module, "BUSY_PAUSE_S", 1_000.0)
    stuck, other = Call("call_1"), Call("call_2")
    async with Instance().run() as a, connecting(tmp_path, a.url, calls=Calls(stuck, other)) as uplink:
        a.answer = lambda m: ack(m, stuck=status) if m["type"] == "events" else None
        await until(lambda: a.said("heartbeat"), "a heartbeat")
        for call in (stuck, other):
            call.write()
            uplink.notify(call)  # type: ignore[arg-type]
        for n in range(2, 5):
            await until(lambda: other.outbox.settled and stuck.statuses, "the answers")
            other.write()
            uplink.notify(other)  # type: ignore[arg-type]
            await until(lambda n=n: len(runs(a, "call_2")) == n, "the next run")  # type: ignore[misc]
        assert len(runs(a, "call_1")) == 1
        uplink.notify(stuck)  # type: ignore[arg-type]
        await until(lambda: len(runs(a, "call_1")) == 2, "the same again")


def runs(instance: Instance, call: str) -> list[dict[str, Any]]:
    return [run for m in instance.said("events") for run in m["calls"] if run["call"] == call]


def ack(message: dict[str, Any], *, stuck: str) -> str:
    results = [
        {
            "call": run["call"],
            "epoch": 1,
            "status": stuck if run["call"] == "call_1" else "durable",
            "durable_n": run["events"][-1]["n"] if run["call"] == "call_2" else 0,
        }
        for run in message["calls"]
    ]
    return json.dumps({"type": "ack", "batch": message["batch"], "results": results})
