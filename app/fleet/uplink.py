"""One edge's uplink on this instance: from its handshake to its goodbye.

Decides the order of things on the socket and how much may be under way. Batches of one uplink are appended in the order
they came, one after the other in each of a few lanes by call, and acknowledged as they finish; while too much is under
way the socket is not read. An older uplink of the same edge, here or on another instance, finds its generation gone at
its next heartbeat and closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from uuid import UUID

import msgspec
import structlog

from app.connection import DATABASE_ERRORS
from app.fleet.beats import Beats
from app.fleet.desired import topic
from app.fleet.edge_keys import UplinkKey
from app.fleet.frames import BadFrame, read_frame
from app.fleet.in_time import InTime
from app.fleet.keyring import Keyring
from app.fleet.notes import QUESTIONS_MAX, Closed, Notes
from app.fleet.orders import Orders
from app.fleet.ports import Appends, Listening, LostContact, Measuring, Observing, Socket
from app.fleet.store import Beat, FleetStore
from app.fleet.telling import telling
from app.hints import Hints
from app.log.append import EdgeIdentity
from app.log.unfit import fitting
from app.telemetry import append_seconds, events_appended_total, events_unfit_total, failovers_total, uplinks
from regions.wire import ids
from regions.wire.measuring import Measured
from regions.wire.observations import Observed
from regions.wire.uplink import (
    ALIVE_S,
    BATCHES_IN_FLIGHT_MAX,
    HEARTBEAT_S,
    Ack,
    Alive,
    AppendStatus,
    Desired,
    Done,
    Events,
    Goodbye,
    Heartbeat,
    Hello,
    Keys,
    Load,
    NewKey,
    ToEdge,
    Volatile,
    Welcome,
)

log = structlog.get_logger()

HELLO_WITHIN_S = 5.0
SEND_DEADLINE_S = 10.0
SILENCE_MAX_S = 10.0
"""Edges send a heartbeat every second; a connection that is silent for so long is half open."""
POLL_S = 1.0
FAILOVERS = frozenset({"call.reconnecting", "call.reconnected", "call.moved"})
POLICY_VIOLATION, SERVICE_RESTART = 1008, 1012


class Uplink:
    def __init__(
        self,
        socket: Socket,
        edge: EdgeIdentity,
        *,
        store: FleetStore,
        appender: Appends,
        keyring: Keyring,
        hints: Hints,
        beats: Beats,
        contact: LostContact,
        orders: Orders | None = None,
        observing: Observing | None = None,
        measuring: Measuring | None = None,
        live: Listening | None = None,
        revoked: Callable[[UUID], bool] = lambda _: False,
        key: UplinkKey | None = None,
        redis_url: str | None,
        stop: asyncio.Event,
    ) -> None:
        self._socket = socket
        self._edge = edge
        self._store = store
        self._appender = appender
        self._keyring = keyring
        self._hints = hints
        self._beats = beats
        self._contact = contact
        self._orders = orders
        self._observing = observing
        self._measuring = measuring
        self._live = live
        self._questions: deque[tuple[int, UUID, int]] = deque(maxlen=QUESTIONS_MAX)
        """Version, call and epoch of the denials that this edge was asked for."""
        self._notes = Notes(edge, contact, orders)
        self._redis_url = redis_url
        self._revoked = revoked
        self._key = key
        self._stop = stop
        self._in_time = InTime(edge.edge_id, store)
        self._generation = 0
        self._sent_version = 0
        self._in_flight = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)
        self._sending = asyncio.Lock()
        self._said_s = 0.0
        self._runs: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serves until either side has had enough. Never raises for what the edge sent."""
        try:
            hello = await self._hello()
            generation = await self._store.next_generation(
                self._edge.edge_id, self._edge.incarnation, hello.load.calls
            )
            if generation is None:
                raise Closed("unauthorized", "this incarnation is not the newest", "register again")
            self._generation = generation
            await self._serve(hello)
        except Closed as closed:
            await self._goodbye(closed)
        except (ConnectionError, TimeoutError):
            log.info("uplink.lost", edge=str(self._edge.edge_id))
        except DATABASE_ERRORS as error:
            log.info("uplink.lost", edge=str(self._edge.edge_id), error=type(error).__name__)
            await self._goodbye(Closed("unavailable", "the database is away", "reconnect in a moment"))

    async def _hello(self) -> Hello:
        try:
            async with asyncio.timeout(HELLO_WITHIN_S):
                message = read_frame(await self._socket.receive())
        except TimeoutError:
            raise Closed("bad_frame", "no hello came", "say hello first") from None
        except BadFrame as error:
            raise Closed("bad_frame", str(error), "say hello first") from None
        if not isinstance(message, Hello):
            raise Closed("bad_frame", "the first frame is a hello", "say hello first")
        if message.incarnation != str(self._edge.incarnation):
            raise Closed(
                "other_incarnation",
                "the hello is of another incarnation than the token",
                "sign and say the same one",
            )
        return message

    async def _serve(self, hello: Hello) -> None:
        gone = asyncio.Event()
        key = (self._edge.edge_id, self._generation)
        self._beats.superseded[key] = gone
        self._sent_version = hello.desired_version
        uplinks.inc()
        log.info(
            "uplink.up", edge=str(self._edge.edge_id), region=self._edge.region, generation=self._generation
        )
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._send(
                Welcome(
                    generation=self._generation,
                    heartbeat_s=HEARTBEAT_S,
                    keys=self._keys(),
                    redis_url=self._redis_url,
                    alive_s=ALIVE_S,
                    new_keys=self._key is not None,
                )
            )
            tasks = {
                asyncio.create_task(self._read(), name="read"),
                asyncio.create_task(self._carry_commands(), name="commands"),
                asyncio.create_task(self._say_alive(), name="alive"),
                *map(
                    asyncio.create_task,
                    telling(self._edge.edge_id, self._send, self._observing, self._measuring, self._key),
                ),
                asyncio.create_task(
                    self._leave_on(gone, Closed("superseded", "a newer uplink took over", "use that one"))
                ),
                asyncio.create_task(
                    self._leave_on(self._stop, Closed("shutting_down", "this instance stops", "reconnect"))
                ),
            }
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            uplinks.dec()
            self._beats.superseded.pop(key, None)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    frame = await self._socket.receive()
            except TimeoutError:
                raise Closed("silent", f"nothing was heard for {SILENCE_MAX_S:g} s", "reconnect") from None
            if frame is None:
                log.info("uplink.down", edge=str(self._edge.edge_id))
                return
            try:
                message = read_frame(frame)
            except BadFrame as error:
                raise Closed(
                    "bad_frame", str(error), "mend the edge; nothing of this frame was kept"
                ) from None
            match message:
                case Heartbeat():
                    self._in_time.heard(message.at_ms)
                    self._beat(message.load)
                    await self._notes.beat(message)
                case Events():
                    await self._in_flight.acquire()
                    self._append(message)
                case Done():
                    await self._done(message)
                case Observed():
                    if self._observing is not None:
                        self._observing.heard(self._edge.edge_id, message)
                case Measured():
                    if self._measuring is not None:
                        self._measuring.heard(self._edge.region, message)
                case Volatile():
                    if self._live is not None:
                        self._live.heard(self._edge, message)
                case NewKey():
                    taken = (
                        await self._key.heard(self._generation, message) if self._key is not None else None
                    )
                    if taken is not None:
                        await self._send(taken)
                case Hello():
                    raise Closed("bad_frame", "one hello is enough", "reconnect to say it again")

    def _beat(self, load: Load) -> None:
        self._beats.newest[(self._edge.edge_id, self._generation)] = Beat(
            self._edge.edge_id, self._generation, load
        )

    async def _done(self, done: Done) -> None:
        answers: list[tuple[UUID, int, bool]] = []
        while self._questions and self._questions[0][0] <= done.version:
            _, call_id, epoch = self._questions.popleft()
            answers.append((call_id, epoch, ids.encode(ids.CALL, call_id) not in done.held))
        try:
            if done.cut and self._orders is not None:
                await self._orders.cut(self._edge.edge_id, done.cut)
            if answers:
                await self._contact.answered(self._edge.edge_id, self._edge.incarnation, answers)
            await self._store.commands_done(self._edge.edge_id, done.version)
        except DATABASE_ERRORS as error:
            # the commands are carried out again after the next hello, and what was asked is asked again
            log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)

    def _append(self, batch: Events) -> None:
        """Runs of a call never overtake each other: a batch waits for those before it that hold one of its calls."""
        before = {task for run in batch.calls if (task := self._runs.get(run.call)) is not None}
        task = asyncio.create_task(self._append_after(before, batch))
        for run in batch.calls:
            self._runs[run.call] = task

    async def _append_after(self, before: set[asyncio.Task[None]], batch: Events) -> None:
        me = asyncio.current_task()
        try:
            if before:
                await asyncio.wait(before)
            began = time.perf_counter()
            batch, unfit = fitting(batch)
            if unfit:
                events_unfit_total.labels(self._edge.region).inc(unfit)
                log.warning("append.unfit", edge=str(self._edge.edge_id), events=unfit)
            results = await self._appender.append(self._edge, batch.calls)
            for status, runs in Counter([result.status for result in results]).items():
                events_appended_total.labels(status).inc(runs)
            await self._send(Ack(batch=batch.batch, results=results))
            append_seconds.observe(time.perf_counter() - began)
            self._count_failovers(batch, results)
            took_ms = (time.perf_counter() - began) * 1000
            if took_ms > 1000:
                log.warning("append.slow", ms=round(took_ms), calls=len(batch.calls))
        except (ConnectionError, TimeoutError):
            pass  # the socket has gone: the edge sends the batch again, with the same numbers
        finally:
            self._in_flight.release()
            for run in batch.calls:
                if self._runs.get(run.call) is me:
                    del self._runs[run.call]

    def _count_failovers(self, batch: Events, results: list[AppendStatus]) -> None:
        """Of what is new in the log: a run that was sent again is counted once."""
        for run, result in zip(batch.calls, results, strict=True):
            for event in run.events if result.stored else ():
                if event.type in FAILOVERS and event.n > result.durable_n - result.stored:
                    failovers_total.labels(self._edge.region, event.type.removeprefix("call.")).inc()

    async def _carry_commands(self) -> None:
        subscription = self._hints.subscribe(topic(self._edge.edge_id))
        keys = self._keys()
        try:
            while True:
                try:
                    commands = await self._store.commands(self._edge.edge_id, self._sent_version)
                    if self._orders is not None:
                        commands = await self._orders.complete(commands)
                    commands = await self._in_time.complete(commands)
                except DATABASE_ERRORS:
                    commands = []
                if commands:
                    self._questions.extend(
                        (command.version, call_id, int(command.body["epoch"]))
                        for command, call_id in commands
                        if command.kind == "deny" and call_id is not None
                    )
                    named = [
                        msgspec.structs.replace(command, call=ids.encode(ids.CALL, call_id))
                        if call_id
                        else command
                        for command, call_id in commands
                    ]
                    await self._send(Desired(commands=named))
                    self._sent_version = named[-1].version
                present = self._keys()
                changed = present.fleet_keys != keys.fleet_keys or bytes(present.jwks) != bytes(keys.jwks)
                if changed and await self._store.holds(self._edge.edge_id, self._generation):
                    keys = present
                    await self._send(keys)
                await subscription.wait(POLL_S)
                if self._revoked(self._edge.edge_id):
                    raise Closed("unauthorized", "this edge was revoked", "enrol it anew, with another key")
        finally:
            subscription.close()

    async def _say_alive(self) -> None:
        """An edge takes silence for an instance that hangs."""
        while True:
            wait_s = self._said_s + ALIVE_S * 0.8 - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            else:
                await self._send(Alive())

    async def _leave_on(self, event: asyncio.Event, closed: Closed) -> None:
        await event.wait()
        raise closed

    def _keys(self) -> Keys:
        return Keys(
            fleet_keys=self._keyring.fleet_keys, jwks=msgspec.Raw(msgspec.json.encode(self._keyring.jwks()))
        )

    async def _send(self, message: ToEdge) -> None:
        text = msgspec.json.encode(message).decode()
        async with self._sending, asyncio.timeout(SEND_DEADLINE_S):
            await self._socket.send(text)
            self._said_s = asyncio.get_running_loop().time()

    async def _goodbye(self, closed: Closed) -> None:
        log.warning("uplink.closed", edge=str(self._edge.edge_id), code=closed.code, detail=closed.detail)
        try:
            await self._send(Goodbye(code=closed.code, detail=closed.detail, fix=closed.fix))
            await self._socket.close(
                SERVICE_RESTART if closed.code in ("shutting_down", "unavailable") else POLICY_VIOLATION,
                closed.code,
            )
        except (ConnectionError, TimeoutError):
            return
