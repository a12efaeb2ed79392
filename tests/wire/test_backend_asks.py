"""What a backend asks of the conversation on its own socket: a real one, against a call and a log that acknowledges it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve

from regions.edge.context import EdgeContext
from regions.edge.line import Carried
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings
from regions.edge.takeover import TakeoverPlan
from regions.wire.conversation import fold
from regions.wire.snapshot import Tail, Turn
from regions.wire.ticket import Agent, Claims, Grant, Sealed, b64
from regions.wire.uplink import AppendStatus

WITHIN_S = 10.0


class Caller:
    carried, dtx = Carried(), False

    def report(self) -> None: ...
    def send_text(self, message: bytes) -> None: ...
    def send_audio(self, frame: bytes) -> None: ...
    def silent(self) -> None: ...
    def close(self) -> None: ...


class Log:
    """Takes what the session writes, and what others write, and keeps the region's tail."""

    def __init__(self) -> None:
        self.seq, self.turns, self.n, self.epoch = 1, [], 0, 0
        self.turns: list[Turn]

    def notify(self, session: Session) -> None:
        asyncio.get_running_loop().call_soon(self._store, session)

    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None: ...

    def _store(self, session: Session) -> None:
        run = session.outbox.run()
        if not run:
            return
        session.outbox.sent(run)
        for event in run:
            self._put(event.type, bytes(event.data))
        self.epoch, self.n = session.epoch, run[-1].n
        session.settled(
            AppendStatus(
                call=session.call,
                epoch=session.epoch,
                status="durable",
                durable_n=run[-1].n,
                seq=self.seq,
                stored=len(run),
            )
        )

    def write(self, type_: str, **data: Any) -> int:
        """As the project does, through the API."""
        self._put(type_, msgspec.json.encode(data), by="project")
        return self.seq

    def _put(self, type_: str, data: bytes, by: str = "") -> None:
        self.seq += 1
        fold(self.turns, type_, data, 0, seq=self.seq, by=by)

    async def read(self, call: str) -> Tail | None:
        return Tail(call=call, seq=self.seq, epoch=self.epoch, n=self.n, turns=list(self.turns))


class Backend:
    """Every socket's messages of the extension, and a way to say something on the newest one."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.starts: list[dict[str, str]] = []
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def serve(self, socket: ServerConnection) -> None:
        async for raw in socket:
            message = json.loads(raw)
            if message["event"] == "start":
                self.sockets.append(socket)
                self.starts.append(message["start"]["customParameters"])
            elif message["event"] == "voxplane":
                self.got.put_nowait({"type": message["type"]} | {"data": message["data"]})

    async def say(self, type_: str, **data: Any) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not self.sockets:
                await asyncio.sleep(0.005)
        await self.sockets[-1].send(json.dumps({"event": "voxplane", "type": type_, "data": data}))

    async def ask(self, type_: str, **data: Any) -> tuple[str, dict[str, Any]]:
        await self.say(type_, **data)
        async with asyncio.timeout(WITHIN_S):
            answer = await self.got.get()
        return answer["type"], answer["data"]


@asynccontextmanager
async def calling(
    tmp_path: Path, *, epoch: int = 1, plan: TakeoverPlan | None = None, log: Log | None = None
) -> AsyncIterator[tuple[Session, Log, Backend]]:
    backend, log = Backend(), log or Log()
    async with serve(backend.serve, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        settings = EdgeSettings(
            region="lab", name="e", control_urls=("http://127.0.0.1",), data=tmp_path, local_targets=True
        )
        ids = iter(range(1_000_000))
        context = EdgeContext(
            settings, log, ssl.create_default_context(), lambda: f"evt_{next(ids)}", lambda _: None, log
        )
        claims = Claims(
            iss="", aud="", call="call_1", project="prj_1", jti="", iat=0, exp=0, attach_by=0, max_s=600, grants=[], sealed=""
        )  # fmt: skip
        grant = Grant(epoch=epoch, edge="edge_1", incarnation="i", region="lab", url="")
        sealed = Sealed(agent=Agent(url=url), snapshot_key=b64(b"k" * 32), local_targets=True)
        session = Session(context, claims, grant, sealed)
        if plan is None:
            session.attach(Caller(), "pcm16", 16_000)
        else:
            session.take(Caller(), "pcm16", 16_000, plan, "failure")
        try:
            yield session, log, backend
        finally:
            session.supersede()


async def test_a_backend_reads_its_conversation_and_runs_a_tool_once(tmp_path: Path) -> None:
    async with calling(tmp_path) as (_, log, backend):
        await backend.say("turn.ended", role="caller", text="pay five")
        called = {"id": "a", "key": "pay:1", "name": "pay", "arguments": {"eur": 5}}
        kind, ack = await backend.ask("tool.called", **called)
        assert (kind, ack["id"], "again" in ack) == ("ack", "a", False)
        kind, ack = await backend.ask("tool.called", **(called | {"id": "b"}))
        assert (kind, ack["id"], ack["again"]) == ("ack", "b", True)
        await backend.say("tool.result", id="b", result={"paid": True})
        written = log.seq
        kind, cached = await backend.ask("tool.called", **(called | {"id": "c"}))
        assert (kind, cached["id"], cached["result"]) == ("tool.cached", "c", {"paid": True})
        kind, refused = await backend.ask("tool.called", id="d", key="no spaces", name="pay")
        assert (kind, refused["code"]) == ("refused", "bad_key")
        kind, window = await backend.ask("conversation.get", id="q", turns=2, min_seq=log.seq)
        assert (kind, window["id"], window["seq"]) == ("conversation", "q", log.seq)
        assert [(t["role"], t["seq"]) for t in window["turns"]] == [("tool", 5), ("tool", 6)]
        assert log.seq == written + 1, "neither the second call nor the refused one was written"


async def test_a_backend_is_never_given_what_is_older_than_it_demands(tmp_path: Path) -> None:
    async with calling(tmp_path) as (_, log, backend):
        await backend.say("turn.ended", role="caller", text="hello")
        kind, refused = await backend.ask("conversation.get", min_seq=99)
        assert (kind, refused["code"]) == ("refused", "not_yet")
        assert refused["fix"] == "GET /v1/calls/call_1/conversation?min_seq=99"
        seq = log.write("turn.ended", role="agent", text="from a person")
        async with asyncio.timeout(WITHIN_S):
            while True:
                kind, answer = await backend.ask("conversation.get", min_seq=seq)
                if answer.get("code") != "too_often":
                    break
        assert kind == "conversation"
        assert answer["turns"][-1] == {"role": "agent", "text": "from a person", "seq": seq}


async def test_a_resumed_backend_finds_the_result_that_its_predecessor_had(tmp_path: Path) -> None:
    log = Log()
    async with calling(tmp_path, log=log) as (_, _, before):
        assert (await before.ask("tool.called", id="a", key="pay:1", name="pay"))[0] == "ack"
        await before.say("tool.result", id="a", result=7)
        assert (await before.ask("tool.called", id="b", key="pay:1"))[0] == "tool.cached"
    plan = TakeoverPlan(source="tail", turns=list(log.turns), from_epoch=1)
    async with calling(tmp_path, epoch=2, plan=plan, log=log) as (_, _, after):
        kind, cached = await after.ask("tool.called", id="c", key="pay:1")
        assert (kind, cached["result"]) == ("tool.cached", 7)
        assert json.loads(after.starts[0]["voxplane_conversation"])["turns"][0]["done"] is True
        async with asyncio.timeout(WITHIN_S):
            while True:
                kind, answer = await after.ask("conversation.get", min_seq=log.seq)
                if kind == "conversation":
                    break
        assert answer["seq"] == log.seq
