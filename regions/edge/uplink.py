"""The edge's end of the uplink: keeps one connection, carries events up and commands down, loses nothing when it drops.

Decides when to connect, what to send and how much may be under way. Events stay with their calls until they are
acknowledged; after a reconnect everything that is not goes again with the same numbers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from regions.edge.calls import Calls
from regions.edge.clock import wall_ms
from regions.edge.identity import Identity
from regions.edge.key_change import KeyChange
from regions.edge.keyring import Keyring
from regions.edge.obeying import Obeying
from regions.edge.pacing import Pace
from regions.edge.registration import Registrar
from regions.edge.retry import Retry
from regions.edge.session import Session
from regions.edge.tls import Connect
from regions.wire.measuring import Measure, Measured
from regions.wire.observations import Neighbours, Observed
from regions.wire.uplink import (
    BATCHES_IN_FLIGHT_MAX,
    CALLS_PER_BATCH_MAX,
    EVENTS_PER_BATCH_MAX,
    FRAME_BYTES_MAX,
    Ack,
    CallEvents,
    Desired,
    Events,
    Goodbye,
    Heartbeat,
    Hello,
    Keys,
    KeyTaken,
    KeyWanted,
    Volatile,
    Welcome,
    to_edge_decoder,
)

log = structlog.get_logger()

CONNECT_DEADLINE_S = 5.0
SILENCE_MAX_S = 3.0
"""A control plane that has promised to say something (`Welcome.alive_s`) and is silent for so long is not there."""
ACK_DEADLINE_S = 8.0
WATCH_EVERY_S, LAST_WORD_S = 0.25, 1.0
BATCH_BYTES_MAX = FRAME_BYTES_MAX * 3 // 4
VOLATILE_MAX, VOLATILE_ROUND = 1_000, 50
BUSY_PAUSE_S = 0.05
AGAIN_LATER = frozenset({"busy", "gap"})
"""Answers after which the same call is sent again: not at once, or a log that says it for ever is asked without pause."""


class Uplink:
    def __init__(
        self,
        urls: list[str],
        region: str,
        identity: Identity,
        keyring: Keyring,
        register: Registrar,
        use_valkey: Callable[[str | None], None] = lambda _: None,
        use_neighbours: Callable[[Neighbours | None], None] = lambda _: None,
        use_measure: Callable[[Measure | None], None] = lambda _: None,
        *,
        connect: Connect = connect,
        key_change: KeyChange | None = None,
    ) -> None:
        self._urls = urls
        self._region = region
        self._identity = identity
        self._keyring = keyring
        self._register = register
        self._use_valkey = use_valkey
        self._use_neighbours = use_neighbours
        self._use_measure = use_measure
        self._connect = connect
        self._key_change = key_change
        self._dirty: dict[Session, None] = {}
        self._wake = asyncio.Event()
        self._volatile: list[bytes] = []
        self._in_flight: dict[int, float] = {}
        """Batches that wait for their answer, and when each was sent, by the loop's clock; the oldest first."""
        self._pace = Pace()
        self._pausing = False
        self._heard_s = 0.0
        self._silence_max_s: float | None = None
        self._served_s = 0.0
        self._batch = 0
        self._obeying = Obeying()
        self._heartbeat_s = 1.0
        self._stopping = asyncio.Event()
        self._stop_at_s = 0.0
        self._stopped = asyncio.Event()
        self._said_it = asyncio.Event()
        self.calls: Calls
        self.up = False

    def use(self, urls: list[str]) -> None:
        self._urls = urls

    # ------------------------------------------------------------------------------------------- for the calls

    def notify(self, session: Session) -> None:
        self._dirty[session] = None
        self._wake.set()

    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None:
        if self.up and len(self._volatile) < VOLATILE_MAX:
            message = Volatile(call=call, epoch=epoch, type=type_, at_ms=at_ms, data=msgspec.Raw(data))
            self._volatile.append(msgspec.json.encode(message))
            self._wake.set()

    def tell(self, report: Observed | Measured) -> None:
        """What is seen and measured of others: sent if the uplink is up, else forgotten."""
        if self.up and len(self._volatile) < VOLATILE_MAX:
            self._volatile.append(msgspec.json.encode(report))
            self._wake.set()

    def will_stop(self, within_s: float) -> None:
        """The control plane is told that this edge was told to stop, and when it will."""
        self._stop_at_s = asyncio.get_running_loop().time() + within_s
        self._stopping.set()

    async def stopped(self) -> None:
        """Says that nothing is left here. Returns once that was heard, or is not to be."""
        self._stopped.set()
        if self.up:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._said_it.wait()

    # --------------------------------------------------------------------------------------------- connecting

    async def run(self) -> None:
        """Until cancelled, or `stopped`: connects, serves, reconnects, over all URLs in turn (`Retry`)."""
        retry = Retry()
        while not self._stopped.is_set():
            url, self._served_s = retry.url(self._urls), 0.0
            try:
                if self._key_change is not None and self._key_change.unsettled:
                    self._urls = await self._register()
                headers = {"Authorization": f"Bearer {self._identity.token(self._region)}"}
                async with self._connect(
                    url,
                    additional_headers=headers,
                    open_timeout=CONNECT_DEADLINE_S,
                    close_timeout=1.0,
                    max_size=2 * FRAME_BYTES_MAX,
                    ping_interval=None,
                    compression=None,
                    proxy=None,
                ) as socket:
                    await self._serve(socket)
            except InvalidStatus as error:
                log.warning("uplink.refused", status=error.response.status_code)
                if error.response.status_code in (401, 403):
                    self._urls = await self._register()
            except (WebSocketException, OSError, TimeoutError, msgspec.MsgspecError) as error:
                log.info("uplink.down", error=type(error).__name__)
            await asyncio.sleep(retry.ended(self._urls, self._served_s) * (0.5 + random.random()))

    async def _serve(self, socket: ClientConnection) -> None:
        hello = Hello(
            incarnation=self._identity.incarnation,
            desired_version=self._obeying.done_version,
            load=self.calls.load(),
            held=self.calls.held(),
        )
        await socket.send(msgspec.json.encode(hello).decode())
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            welcome = to_edge_decoder.decode(await socket.recv())
        if not isinstance(welcome, Welcome):
            log.warning(
                "uplink.refused", code=getattr(welcome, "code", ""), detail=getattr(welcome, "detail", "")
            )
            return
        self._heartbeat_s = welcome.heartbeat_s
        self._silence_max_s = max(SILENCE_MAX_S, 2 * welcome.alive_s) if welcome.alive_s > 0 else None
        self._keyring.update(welcome.keys)
        self._use_valkey(welcome.redis_url)
        self._use_neighbours(None)
        self._use_measure(None)
        self._forget_in_flight()
        self.up = True
        log.info("uplink.up", generation=welcome.generation)
        began_s = self._heard_s = asyncio.get_running_loop().time()
        tasks = {
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._receive(socket)),
            asyncio.create_task(self._send(socket)),
            asyncio.create_task(self._beat(socket)),
        }
        if self._key_change is not None and welcome.new_keys:
            tasks.add(asyncio.create_task(self._key_change.run(socket.send)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except TimeoutError:
            # nobody is there to say goodbye to
            socket.transport.abort()
            raise
        finally:
            self.up = False
            if self._stopped.is_set():
                self._said_it.set()
            self._served_s = self._heard_s - began_s
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._forget_in_flight()

    def _forget_in_flight(self) -> None:
        """What was sent and not answered goes again."""
        self._in_flight.clear()
        for session in self.calls.sessions:
            session.outbox.send_again()
            if not session.outbox.settled:
                self._dirty[session] = None
        self._wake.set()

    async def _watch(self) -> None:
        """Raises `TimeoutError` where the control plane is silent or an answer is overdue: its instance hangs, or the
        connection is half open. Reading and sending may wait for ever then, so neither is relied upon."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            if self._silence_max_s is not None and now_s - self._heard_s > self._silence_max_s:
                raise TimeoutError("the control plane is silent")
            sent_s = next(iter(self._in_flight.values()), None)
            if sent_s is not None and now_s - sent_s > ACK_DEADLINE_S:
                raise TimeoutError("no answer to a batch")

    # -------------------------------------------------------------------------------------------------- sending

    async def _beat(self, socket: ClientConnection) -> None:
        while True:
            beat = Heartbeat(
                at_ms=wall_ms(),
                load=self.calls.load(),
                draining=self._stopping.is_set(),
                drain_left_s=max(0.0, self._stop_at_s - asyncio.get_running_loop().time()),
                stopped=self._stopped.is_set(),
                lapsed=self.calls.lapsed(),
                not_taken=self.calls.not_taken(),
            )
            await socket.send(msgspec.json.encode(beat).decode())
            await self._next_beat()

    async def _next_beat(self) -> None:
        """The first after the edge was told to stop does not wait for its turn, nor does the last."""
        news = self._stopped if self._stopping.is_set() else self._stopping
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await (asyncio.Event() if news.is_set() else news).wait()
        except TimeoutError:
            return

    async def _send(self, socket: ClientConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._may_go() and (batch := self._next_batch()) is not None:
                await socket.send(msgspec.json.encode(batch).decode())
            for message in self._take_volatile():
                await socket.send(message.decode())

    def _may_go(self) -> bool:
        """Where it may not yet, the sender is woken when it may."""
        if not self._dirty or len(self._in_flight) >= BATCHES_IN_FLIGHT_MAX:
            return False
        loop = asyncio.get_running_loop()
        wait_s = self._pace.wait_s(loop.time(), len(self._in_flight))
        if wait_s > 0.0 and not self._pausing:
            self._pausing = True
            loop.call_later(wait_s, self._go_on)
        return wait_s <= 0.0

    def _go_on(self) -> None:
        self._pausing = False
        self._wake.set()

    def _take_volatile(self) -> list[bytes]:
        """A few at a time: what is durable never waits behind all of them."""
        taken, self._volatile = self._volatile[:VOLATILE_ROUND], self._volatile[VOLATILE_ROUND:]
        if self._volatile:
            self._wake.set()
        return taken

    def _next_batch(self) -> Events | None:
        """A call stands once in a batch: of two of its owners here, one that ends and one that takes over, the second waits for
        the next."""
        runs: list[CallEvents] = []
        calls: set[str] = set()
        events = size = 0
        for session in list(self._dirty):
            if session.call in calls:
                continue
            run = session.outbox.run()
            room = 0
            for event in run:
                cost = len(bytes(event.data)) + 160
                if events >= EVENTS_PER_BATCH_MAX or (size + cost > BATCH_BYTES_MAX and (room or runs)):
                    break
                room, events, size = room + 1, events + 1, size + cost
            if not room:
                if run:
                    break
                del self._dirty[session]
                continue
            chosen = run[:room]
            session.outbox.sent(chosen)
            runs.append(
                CallEvents(call=session.call, epoch=session.epoch, events=chosen, trace=session.outbox.trace)
            )
            calls.add(session.call)
            if len(chosen) == len(run):
                del self._dirty[session]
            if len(runs) >= CALLS_PER_BATCH_MAX:
                break
        if not runs:
            return None
        self._batch += 1
        now_s = self._in_flight[self._batch] = asyncio.get_running_loop().time()
        self._pace.sent(now_s, full=bool(self._dirty))
        return Events(batch=self._batch, calls=runs)

    # ------------------------------------------------------------------------------------------------ receiving

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            frame = await socket.recv()
            self._heard_s = asyncio.get_running_loop().time()
            try:
                message = to_edge_decoder.decode(frame)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                # a control plane that is newer says what this edge does not know yet
                log.warning("uplink.unread", bytes=len(frame))
                continue
            match message:
                case Ack():
                    await self._acknowledged(message)
                case Desired():
                    await self._carry_out(socket, message)
                case Keys():
                    self._keyring.update(message)
                case Neighbours():
                    self._use_neighbours(message)
                case Measure():
                    self._use_measure(message)
                case KeyWanted() | KeyTaken() if self._key_change is not None:
                    self._key_change.heard(message)
                case Goodbye():
                    log.info("uplink.goodbye", code=message.code, detail=message.detail)
                    if message.code == "unauthorized":
                        self._urls = await self._register()
                    return

    async def _acknowledged(self, ack: Ack) -> None:
        sent_s = self._in_flight.pop(ack.batch, None)
        if sent_s is not None:
            self._pace.answered(asyncio.get_running_loop().time() - sent_s)
        later: list[Session] = []
        for status in ack.results:
            session = self.calls.session(status.call, status.epoch)
            if session is None:
                continue
            session.settled(status)
            if session.outbox.settled:
                continue
            if status.status in AGAIN_LATER:
                self._dirty.pop(session, None)
                later.append(session)
            else:
                self._dirty[session] = None
        self._wake.set()
        if later:
            pause_s = BUSY_PAUSE_S * (0.5 + random.random())
            asyncio.get_running_loop().call_later(pause_s, self._notify_all, later)

    def _notify_all(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.notify(session)

    async def _carry_out(self, socket: ClientConnection, desired: Desired) -> None:
        done = self._obeying.carry_out(desired, self.calls)
        await socket.send(msgspec.json.encode(done).decode())
