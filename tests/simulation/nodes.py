"""API instances and edges, put together from production parts as `app.control` and `regions.edge.main` do it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from app.calls.coalescer import Coalescer
from app.calls.overdue import Overdue
from app.calls.reconciler import Reconciler
from app.calls.service import CREATE_ROUTE, Calls
from app.calls.shapes import AgentRequest, CreateCall, LatencyRequest
from app.calls.store import CallStore
from app.connection import DATABASE_ERRORS
from app.draining import Draining
from app.errors import VoxplaneError
from app.fleet.beats import Beats
from app.fleet.desired import Commands
from app.fleet.drain_shapes import MoveRequest
from app.fleet.edge_access import EdgeAccess
from app.fleet.policy import takes_first
from app.fleet.store import FleetStore
from app.fleet.uplink import Uplink
from app.fleet.view import FleetView
from app.hints import Hints
from app.ids import parse
from app.log.acked import Acked
from app.log.append import Appender, EdgeIdentity
from app.log.facts import FactsReader
from app.log.feeds import Feeds
from app.log.filters import EVERYTHING
from app.log.horizon import Horizon
from app.log.positions import Position, scope_of
from app.log.spool import SpoolFlusher
from app.log.tail_log import TailLog
from app.log.tail_sweep import TailSweep
from app.log.tails import Tails
from app.placement.claimed import Claimed
from app.placement.learning import Learning
from app.placement.service import Placer
from app.supervisor import Supervisor
from app.webhooks.delivery import Delivery
from regions.callers.websocket import CallerListener
from regions.edge.calls import Calls as EdgeCalls
from regions.edge.clock import wall_ms
from regions.edge.context import EdgeContext
from regions.edge.main import _flush, new_event_id
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings
from regions.edge.spool import Spool
from regions.edge.tails import TailReader
from regions.edge.uplink import Uplink as EdgeUplink
from regions.edge.valkey import RegionValkey
from regions.media.pacer import Pacer
from regions.wire import ids
from regions.wire.keeping import opening, sealing
from regions.wire.uplink import Ack, EdgeListeners, RegisterRequest, to_edge_decoder
from tests.simulation import fixtures
from tests.simulation.clocks import Machine, NodeClock
from tests.simulation.customers import HookSender
from tests.simulation.driver import CELL, SimDatabase
from tests.simulation.loop import Life
from tests.simulation.network import End, Refused
from tests.simulation.plan import REGIONS, CallPlan
from tests.simulation.sockets import (
    CallerTransport,
    ClientSocket,
    Connecting,
    ServerSocket,
    address_of,
    dialler,
)
from voxplane.errors import ApiError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.world import World

ATTACH_WITHIN_S = 20
PATIENCE_S = 2.0
"""The reconciler's, shorter than in production so that a seed sees it at work."""


class Api:
    """One instance of the control plane."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.life: Life
        self.start()

    def start(self) -> None:
        self.life = Life(self.world.loop, self.machine.name, self.machine)
        self.life.spawn(self._boot(), "boot")

    async def _boot(self) -> None:
        """As the composition root does; it fails, and is started again, where the database cannot be reached."""
        while True:
            try:
                await self._open()
                return
            except DATABASE_ERRORS:
                await asyncio.sleep(0.5)

    async def _open(self) -> None:
        world, clock = self.world, NodeClock(self.machine)
        db: Any = SimDatabase(world.cluster, self.life)
        vault: Any = fixtures.FixedVault()
        keyring: Any = fixtures.FixedKeyring()
        urls = {region: f"sim://{region}" for region in REGIONS}
        hints = Hints({self.world.hint_region: urls[self.world.hint_region]})
        self.fleet = FleetView(db)
        await self.fleet.refresh()
        self.store = FleetStore(db)
        horizon, known = Horizon(db), FactsReader(db, vault, clock)
        tails = Tails(TailLog(db, horizon), known, clock, urls, self.fleet.regions_of, keyring)
        acked = Acked()
        hints.listen("feed", acked.hear)
        appender = Appender(db, clock, known, hints, tails, acked)
        store = CallStore(db, horizon)
        commands = Commands(self.store, hints)
        self.overdue = Overdue(db)
        self.access = EdgeAccess(urls, lambda: b"secret")
        self.learning = Learning(lambda: self.fleet.now, clock)
        nobody: Any = None
        audit: Any = fixtures.UnwrittenAudit()
        self.calls = Calls(
            store=store, coalescer=Coalescer(store, clock, CREATE_ROUTE, appender.tell), appender=appender,
            vault=vault, keyring=keyring, fleet=self.fleet, webhooks=nobody, commands=commands, hints=hints, clock=clock, cell=CELL,
            attach_within_s=ATTACH_WITHIN_S, tails=tails, local_targets=False, audit=audit,
            placer=Placer(self.learning, Claimed(db, clock), chance=random.Random(world.chance.getrandbits(32))),
        )  # fmt: skip
        self.draining = Draining.of(db, self.calls)
        self.feeds = Feeds(db, vault, clock, hints, horizon, acked)
        self.stopping = asyncio.Event()
        self.beats = Beats(self.store)
        self.parts = {
            "appender": appender,
            "keyring": keyring,
            "hints": hints,
            "orders": self.draining.orders,
        }
        chance = random.Random(world.chance.getrandbits(32))
        delivery = Delivery(
            db,
            vault,
            hints,
            clock,
            local_targets=False,
            sender=lambda **_: HookSender(world, self.life),
            chance=chance,
        )
        self.supervisor = Supervisor()
        hints.add_to(self.supervisor)
        tails.add_to(self.supervisor)
        TailSweep(db, tails).add_to(self.supervisor)
        self.supervisor.add("fleet.view", self.fleet.worker)
        self.supervisor.add("fleet.beats", self.beats.worker)
        SpoolFlusher(urls, self.access, lambda: self.fleet.now, appender, clock, keyring).add_to(
            self.supervisor
        )
        reconciler = Reconciler(self.overdue, commands, appender, patience_s=PATIENCE_S)
        self.supervisor.add("calls.reconciler", reconciler.worker)
        self.supervisor.add("fleet.drains", self.draining.worker.worker)
        self.supervisor.add("webhooks", delivery.worker)
        self.supervisor.start()
        name = self.machine.name
        world.network.listen(f"{name}/uplink", self.life, accept=self._uplink)
        world.network.listen(f"{name}/rest", self.life, answer=self._rest)
        world.network.listen(f"{name}/feed", self.life, accept=self._feed)

    async def _uplink(self, end: End, hello: Any) -> None:
        """Refused before it is accepted where the incarnation is not the newest."""
        edge_id, incarnation = hello
        try:
            known = await self.store.edge(edge_id)
        except DATABASE_ERRORS:
            raise Refused(503) from None
        if known is None or str(known.incarnation) != incarnation:
            raise Refused(401)
        edge = EdgeIdentity(known.id, known.incarnation, known.region)
        socket = ServerSocket(end)
        uplink = Uplink(
            socket,
            edge,
            store=self.store,
            beats=self.beats,
            contact=self.overdue,
            redis_url=await self.access.url_for(known.region, known.id),
            stop=self.stopping,
            **self.parts,  # type: ignore[arg-type]
        )
        asyncio.create_task(self._serve(uplink, end), name="uplink")  # noqa: RUF006  the loop keeps all tasks

    async def _serve(self, uplink: Uplink, end: End) -> None:
        try:
            await uplink.run()
        except DATABASE_ERRORS as error:
            # as the web framework does: the socket is closed, the instance goes on
            self.world.ledger.say(self.machine.name, f"uplink failed: {type(error).__name__}")
        finally:
            end.close(1011)

    async def _rest(self, payload: tuple[Any, ...]) -> Any:
        try:
            match payload:
                case ("create", str(key), CallPlan() as plan):
                    created, *_ = await self.calls.create(fixtures.PRINCIPAL, key, _body(plan))
                    return {"id": created.id, "ticket": created.ticket, "region": created.region}
                case ("ticket", str(call_id), str(ticket)):
                    return (await self.calls.new_ticket(call_id, ticket)).ticket
                case ("end", str(call_id)):
                    await self.calls.end(fixtures.PRINCIPAL, parse(ids.CALL, call_id))
                    return None
                case ("register", RegisterRequest() as body):
                    edge_id = await self.store.put_edge(
                        self.store._pool, fixtures.EDGES[body.region], UUID(body.incarnation), b"", body
                    )
                    await self.fleet.refresh()
                    edge = self.fleet.now.edge(edge_id)
                    if edge is not None and not takes_first(self.fleet.now, edge):
                        await self.store.add_command(edge_id, "drain", None, {})
                    return ids.encode(ids.EDGE, edge_id)
                case ("operate", str(verb), "edge", str(target), float(within_s)):
                    await self.draining.operators.edge(verb, target, within_s)
                    return None
                case ("operate", str(verb), "region", str(target), float(within_s)):
                    await self.draining.operators.region(verb, target, within_s)
                    return None
                case ("move", str(call_id), int(within_s)):
                    wanted = MoveRequest(within_s=within_s)
                    await self.draining.moves.move(fixtures.PRINCIPAL, parse(ids.CALL, call_id), wanted)
                    return None
        except VoxplaneError as error:
            if error.status < 500:
                raise ApiError(error.status, {"code": error.code}) from None
            raise Refused(error.status) from None
        except DATABASE_ERRORS:
            raise Refused(503) from None
        raise AssertionError(payload)

    async def _feed(self, end: End, cursor: str) -> None:
        after = scope_of(fixtures.PROJECT, EVERYTHING).position(cursor) if cursor else Position()
        asyncio.create_task(self._stream(end, after), name="feed")  # noqa: RUF006

    async def _stream(self, end: End, after: Position) -> None:
        feed = self.feeds.follow(fixtures.PROJECT, after, look_every_s=2.0, stop=self.stopping)
        scope = scope_of(fixtures.PROJECT, EVERYTHING)
        try:
            async for position, found in feed:
                if not end.open:
                    return
                for at, event in found:
                    end.send((scope.cursor(at), (event.call_id, event.seq, event.id)))
                if not found:
                    end.send((scope.cursor(position), None))
        except DATABASE_ERRORS:
            return
        finally:
            end.close(1011)


def _body(plan: CallPlan) -> CreateCall:
    near = [
        LatencyRequest(region=r, rtt_ms=20.0 if r == plan.region else 60.0 + 9 * i)
        for i, r in enumerate(REGIONS)
    ]
    fallback = f"wss://backend-{plan.fallback}.example.com/" if plan.fallback else None
    return CreateCall(
        agent=AgentRequest(url=f"wss://backend-{plan.backend}.example.com/", fallback_url=fallback),
        latencies=near,
        max_duration_s=plan.max_duration_s,
    )


class _Identity:
    """`regions.edge.identity.Identity` of an edge that was enrolled before."""

    def __init__(self, edge_id: UUID, incarnation: str) -> None:
        self.edge_id = ids.encode(ids.EDGE, edge_id)
        self.incarnation = incarnation

    def token(self, region: str) -> str:
        return self.incarnation


class Edge:
    """One region's media edge. `owner` names its present life."""

    def __init__(self, world: World, machine: Machine, folder: Path) -> None:
        self.world = world
        self.machine = machine
        self.region = machine.region
        self.edge_id = fixtures.EDGES[machine.region]
        self.settings = EdgeSettings(
            region=self.region,
            name="edge-1",
            control_urls=("https://api",),
            data=folder,
            capacity_calls=world.plan.capacity,
        )
        self.lives = 0
        self.life: Life
        self.calls: EdgeCalls
        self.uplink: EdgeUplink
        self.spool: Spool
        self.socket: UplinkSocket | None = None
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.life = Life(self.world.loop, self.machine.name, self.machine)
        self.life.call(self._open)

    @property
    def owner(self) -> str:
        return f"{self.machine.name}/{self.lives}"

    def _open(self) -> None:
        world = self.world
        identity: Any = _Identity(self.edge_id, str(uuid4()))
        keys: Any = fixtures.EdgeKeys()
        pacer = Pacer(self._failed)
        valkey = RegionValkey("")
        tails = TailReader(valkey, opening(lambda: keys.fleet))
        calls = EdgeCalls(keys, tails, pacer)
        spool = Spool(valkey, calls, wall_ms, sealing(lambda: keys.newest))
        self.identity = identity

        async def register_again() -> list[str]:
            await self._register(identity)
            return urls

        urls = [f"wss://{name}" for name in world.apis]
        uplink = EdgeUplink(
            urls, self.region, identity, keys, register_again, valkey.use, connect=self._connect
        )
        nobody: Any = None
        dial = dialler(world.network, self.life, world.ledger)
        calls.context = EdgeContext(
            self.settings, uplink, nobody, new_event_id, self._release, tails, ended=calls.ended, dial=dial
        )
        uplink.calls = calls
        calls.identity = spool.identity = (identity.edge_id, identity.incarnation)
        self.calls, self.uplink, self.spool = calls, uplink, spool
        world.network.listen(f"edge-{self.region}.example.com", self.life, accept=self._accept)
        pacer.start()
        asyncio.create_task(self._run(identity, uplink), name="uplink")  # noqa: RUF006
        asyncio.create_task(spool.run(), name="spool")  # noqa: RUF006

    def _release(self, session: Session) -> None:
        """As `regions.edge.main.Edge` does."""
        self.calls.release(session)
        if not session.outbox.settled:
            self.spool.leave(session.outbox)

    async def leave(self) -> None:
        """As `regions.edge.main.Edge` does."""
        for session in self.calls.sessions:
            session.supersede()
        await _flush(self.calls)
        await self.spool.sweep(after_ms=0)

    async def _run(self, identity: Any, uplink: EdgeUplink) -> None:
        await self._register(identity)
        await uplink.run()

    async def _register(self, identity: Any) -> None:
        """As `regions.edge.registration` does over HTTP: until it is let in."""
        listeners = EdgeListeners(
            media_url=f"wss://edge-{self.region}.example.com",
            http_url=f"https://edge-{self.region}.example.com",
        )
        body = RegisterRequest(
            name="edge-1", region=self.region, incarnation=identity.incarnation, listeners=listeners,
            capacity_calls=self.settings.capacity_calls, public_key="",
        )  # fmt: skip
        pause_s = 0.2
        while True:
            for name in self.world.apis:
                try:
                    async with asyncio.timeout(5.0):
                        await self.world.network.request(self.life, f"{name}/rest", ("register", body))
                    return
                except (OSError, TimeoutError, Refused):
                    continue
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(pause_s * 2, 5.0)

    def _accept(self, end: End, hello: Any) -> None:
        listener = CallerListener(self.calls)
        transport: Any = CallerTransport(end, listener, self.world.ledger)
        listener.on_ws_connected(transport)

    def _connect(self, url: str, *, additional_headers: dict[str, str], **options: Any) -> Any:
        incarnation = additional_headers["Authorization"].removeprefix("Bearer ")

        async def open_() -> UplinkSocket:
            address = f"{address_of(url)}/uplink"
            end = await self.world.network.connect(self.life, address, (self.edge_id, incarnation))
            self.socket = UplinkSocket(end)
            return self.socket

        return Connecting(open_, **options)

    def _failed(self, turn: Any, error: Exception) -> None:
        self.world.unexpected(self.machine.name, error)


class UplinkSocket(ClientSocket):
    """The edge's side of the uplink. `strange`: batches that the edge never sent, and what is to be said of their answers."""

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.strange: dict[int, Any] = {}

    def inject(self, batch: int, frame: str, judge: Any) -> None:
        self.strange[batch] = judge
        self._end.send(frame)

    async def recv(self) -> Any:
        while True:
            message = await super().recv()
            judge = self._judge(message) if self.strange else None
            if judge is None:
                return message
            judge()

    def _judge(self, message: str) -> Any:
        read = to_edge_decoder.decode(message)
        if isinstance(read, Ack) and read.batch in self.strange:
            told = self.strange.pop(read.batch)
            return lambda: told(read.results)
        return None
