"""An edge without a control plane: its real media listener, its calls and its pacer, and a log that takes everything."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.callers.websocket import listen
from regions.edge.calls import Calls
from regions.edge.context import EdgeContext
from regions.edge.keyring import Keyring
from regions.edge.main import new_event_id
from regions.edge.probing import Probing
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings
from regions.edge.tails import TailReader
from regions.edge.valkey import RegionValkey
from regions.media.pacer import Pacer
from regions.wire.keeping import opening
from regions.wire.ticket import (
    TICKET_AUDIENCE,
    TICKET_ISSUER,
    Agent,
    Claims,
    Grant,
    Sealed,
    b64,
    seal,
    sign,
)
from regions.wire.uplink import AppendStatus, FleetKey, Keys

EDGE, INCARNATION, FLEET_KEY = "edge_1", "an incarnation", b"f" * 32
SNAPSHOT_KEY = b"s" * 32


class Log:
    """Acknowledges whatever is written, soon; keeps it. `live`: what was volatile."""

    def __init__(self) -> None:
        self.live: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [data for kind, data in self.events if kind == type_]

    def why_ended(self) -> dict[str, Any]:
        """The final event, without what the call's line was like."""
        [ended] = self.of("call.ended")
        return {name: value for name, value in ended.items() if name not in ("quality", "usage")}

    def notify(self, session: Session) -> None:
        asyncio.get_running_loop().call_soon(self._take, session)

    def _take(self, session: Session) -> None:
        run = session.outbox.run()
        if run:
            session.outbox.sent(run)
            self.events += [(e.type, json.loads(bytes(e.data))) for e in run]
            session.settled(
                AppendStatus(
                    call=session.call, epoch=session.epoch, status="durable", durable_n=run[-1].n, seq=9
                )
            )

    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None:
        self.live.append((type_, json.loads(data)))


class Backend:
    """Keeps every `start` and every socket; says nothing by itself."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.sockets: list[ServerConnection] = []
        self.got: list[dict[str, Any]] = []
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Backend]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        try:
            async for text in socket:
                message = json.loads(text)
                self.got.append(message)
                if message["event"] == "start":
                    self.starts.append(message["start"])
        except ConnectionClosed:
            return


class LoneEdge:
    def __init__(self, folder: Path, name: str = EDGE, key: Ed25519PrivateKey | None = None) -> None:
        self.name = name
        self.key = key or Ed25519PrivateKey.generate()
        self.log = Log()
        self.errors: list[Exception] = []
        self.pacer = Pacer(lambda _, error: self.errors.append(error))
        keyring = Keyring(folder / "keys.json")
        jwk = {
            "kid": "k", "kty": "OKP", "crv": "Ed25519", "x": b64(self.key.public_key().public_bytes_raw()),
        }  # fmt: skip
        keyring.update(
            Keys(
                fleet_keys=[FleetKey(id="f", key=b64(FLEET_KEY))],
                jwks=msgspec.Raw(msgspec.json.encode({"keys": [jwk]})),
            )
        )
        self.calls = Calls(
            keyring, TailReader(RegionValkey(None), opening(lambda: keyring.fleet)), self.pacer
        )
        self.calls.identity = (name, INCARNATION)
        settings = EdgeSettings(
            region="lab", name="e", control_urls=("http://127.0.0.1",), data=folder, local_targets=True
        )
        self.calls.context = EdgeContext(
            settings,
            self.log,
            ssl.create_default_context(),
            new_event_id,
            self.calls.release,
            ended=self.calls.ended,
            probing=Probing(0.02),
        )
        self.url = ""

    def ticket(
        self,
        agent_url: str,
        *,
        call: str = "call_1",
        epochs: tuple[int, ...] = (1,),
        attach_in_s: float = 60,
        max_s: int = 60,
        edges: tuple[LoneEdge, ...] = (),
        **private: Any,
    ) -> str:
        """Grants of this edge, or of `edges`, one per epoch; `private`: more of what is sealed."""
        now = time.time()
        sealed = Sealed(
            agent=Agent(url=agent_url, **private.pop("agent", {})),
            snapshot_key=b64(SNAPSHOT_KEY),
            local_targets=True,
            **private,
        )
        claims = Claims(
            iss=TICKET_ISSUER,
            aud=TICKET_AUDIENCE,
            call=call,
            project="prj_1",
            jti=b64(os.urandom(6)),
            iat=int(now),
            exp=int(now) + 600,
            attach_by=int(now + attach_in_s),
            max_s=max_s,
            grants=[
                Grant(epoch=e, edge=edge.name, incarnation=INCARNATION, region=edge.name, url=edge.url)
                for e, edge in zip(epochs, edges or [self] * len(epochs), strict=True)
            ],
            sealed=seal(
                msgspec.json.encode(sealed), key_id="f", key=FLEET_KEY, nonce=os.urandom(12), bound_to=call
            ),
        )
        return sign(claims, kid="k", key=self.key)

    @asynccontextmanager
    async def caller(
        self, ticket: str = "", epoch: int = 1, mode: str = "attach", **more: Any
    ) -> AsyncIterator[Caller]:
        """A socket; with a ticket it has said `attach`."""
        async with connect(
            self.url + "/v1/media", ping_interval=None, compression=None, max_queue=None
        ) as socket:
            caller = Caller(socket)
            if ticket:
                await caller.say("attach", ticket=ticket, epoch=epoch, mode=mode, **more)
            yield caller


class Caller:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.got: list[dict[str, Any]] = []

    async def say(self, kind: str, **more: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **more}))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these kinds."""
        async with asyncio.timeout(20):
            while True:
                frame = await self.socket.recv()
                if isinstance(frame, bytes):
                    continue
                message: dict[str, Any] = json.loads(frame)
                self.got.append(message)
                if message["type"] in kinds:
                    return message


@asynccontextmanager
async def lone_edge(
    folder: Path, name: str = EDGE, key: Ed25519PrivateKey | None = None
) -> AsyncIterator[LoneEdge]:
    """`key`: another's, so that its tickets hold here as well."""
    edge = LoneEdge(folder / name, name, key)
    server = await listen(edge.calls, "127.0.0.1", 0)
    edge.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    edge.pacer.start()
    try:
        yield edge
    finally:
        for session in edge.calls.sessions:
            session.supersede()
        edge.pacer.stop()
        server.close()
