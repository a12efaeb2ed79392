"""Streams and requests between lives, and what can happen to them on the way.

Decides when a message arrives: after the link's latency, in order; not before a cut has healed; never where the connection
has gone silent or its end has died. A stream is what TCP gives: ordered, whole, and broken for good once it is broken.
Leaves what a message means to the two ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.simulation.clocks import Machine
from tests.simulation.loop import Life, SimLoop

RESET, CLEAN = 1006, 1000
WITHIN_REGION_S = 0.0006
STUCK_MESSAGES_MAX = 2_000


class Receiver(Protocol):
    """What is told of an end's events, as the end's own life. `closed` comes once, after the last message."""

    def message(self, message: Any) -> None: ...
    def closed(self, code: int) -> None: ...


class Refused(Exception):
    """A listener's answer to a connection it does not want."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class End:
    """One side of a stream. Sending to a stream that is gone does nothing."""

    __slots__ = (
        "_early", "_receiver", "arrive_s", "life", "network", "number", "open", "peer", "silent", "stuck",
        "unanswered_s",
    )  # fmt: skip

    def __init__(self, network: Network, life: Life, number: int) -> None:
        self.network = network
        self.life = life
        self.number = number
        self.peer: End = self
        self._receiver: Receiver | None = None
        self._early: list[tuple[str, Any]] = []
        self.open = True
        self.silent = False
        self.unanswered_s: float | None = None
        """Since when a ping has no answer."""
        self.arrive_s = 0.0
        self.stuck: list[tuple[str, Any]] = []
        """What waits for a cut to heal, on its way to the peer."""

    @property
    def receiver(self) -> Receiver | None:
        """Who is told. What came before there was one is told then."""
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver
        early, self._early = self._early, []
        for kind, value in early:
            self._told(kind, value)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def send(self, message: Any) -> None:
        if self.open:
            self.network.carry(self, "message", message)

    def ping(self) -> float:
        """How long the last ping has been without an answer; sends one where it has one."""
        now = self.network.loop.now
        if self.unanswered_s is None:
            self.unanswered_s = now
            self.network.carry(self, "ping", None)
        return now - self.unanswered_s

    def close(self, code: int = CLEAN) -> None:
        """After what was sent before."""
        if self.open:
            self._gone()
            self.network.carry(self, "closed", code)

    def abort(self) -> None:
        self.close(RESET)

    def _gone(self) -> None:
        self.open = False
        self.network.forget(self)

    def arrived(self, kind: str, value: Any) -> None:
        """Runs as this end's life."""
        if not self.open or self.silent:
            return
        if kind == "ping":
            self.network.carry(self, "pong", value)
            return
        if kind == "pong":
            self.unanswered_s = None
            return
        if kind == "closed":
            self._gone()
        self._told(kind, value)

    def _told(self, kind: str, value: Any) -> None:
        if self._receiver is None:
            self._early.append((kind, value))
        elif kind == "message":
            self._receiver.message(value)
        else:
            self._receiver.closed(value)


Accept = Callable[[End, Any], Awaitable[None] | None]
Answer = Callable[[Any], Awaitable[Any]]


@dataclass(slots=True)
class Cut:
    """Nothing passes from `sources` to `targets` (names of machines)."""

    sources: frozenset[str]
    targets: frozenset[str]


@dataclass(slots=True)
class Mischief:
    """What befalls requests while it lasts: chances per request."""

    lost_answer: float = 0.0
    doubled: float = 0.0


@dataclass(slots=True)
class Listener:
    life: Life
    accept: Accept | None = None
    answer: Answer | None = None


class Network:
    def __init__(self, loop: SimLoop, chance: random.Random, latency_s: dict[tuple[str, str], float]) -> None:
        self.loop = loop
        self._chance = chance
        self._latency_s = latency_s
        self.listeners: dict[str, Listener] = {}
        self.cuts: list[Cut] = []
        self.slow: dict[str, float] = {}
        self.down: set[str] = set()
        """Machines without power: nobody answers for them, not even with a refusal."""
        self.mischief = Mischief()
        self._ends: dict[Life, dict[End, None]] = {}
        self._stuck: dict[End, None] = {}
        self._numbers = 0
        self.trace: Callable[[str, str, Any], None] | None = None

    # ------------------------------------------------------------------------------------------------- the links

    def latency_s(self, source: Machine, target: Machine) -> float:
        base = self._latency_s.get((source.region, target.region), WITHIN_REGION_S)
        draw = self._chance.random()
        one_way = base * (1 + 0.25 * draw) if draw < 0.99 else base * 4
        if self.slow:
            one_way *= max(self.slow.get(source.name, 1.0), self.slow.get(target.name, 1.0))
        return one_way

    def is_cut(self, source: Machine, target: Machine) -> bool:
        if not self.cuts:
            return False
        return any(source.name in c.sources and target.name in c.targets for c in self.cuts)

    def cut(self, cut: Cut) -> None:
        self.cuts.append(cut)

    def heal(self, cut: Cut) -> None:
        self.cuts.remove(cut)
        for end in list(self._stuck):
            if not self.is_cut(end.life.machine, end.peer.life.machine):
                del self._stuck[end]
                waiting, end.stuck = end.stuck, []
                for kind, value in waiting:
                    self._send(end, kind, value)

    def carry(self, end: End, kind: str, value: Any) -> None:
        if end.silent:
            return
        if end.stuck or self.is_cut(end.life.machine, end.peer.life.machine):
            if len(end.stuck) < STUCK_MESSAGES_MAX:
                end.stuck.append((kind, value))
                self._stuck[end] = None
            return
        self._send(end, kind, value)

    def _send(self, end: End, kind: str, value: Any) -> None:
        peer = end.peer
        when_s = max(end.arrive_s, self.loop.now + self.latency_s(end.life.machine, peer.life.machine))
        end.arrive_s = when_s
        if not peer.life.alive:
            if end.open and peer.life.machine.name not in self.down:
                # the machine answers for the process it had: there is no such connection
                self.loop.deliver_at(when_s, end.life, end.arrived, "closed", RESET)
            return
        self.loop.deliver_at(when_s, peer.life, peer.arrived, kind, value)

    def forget(self, end: End) -> None:
        self._ends.get(end.life, {}).pop(end, None)

    # ------------------------------------------------------------------------------------------------- the faults

    def life_ended(self, life: Life, *, silently: bool) -> None:
        """What the others notice of it."""
        for end in list(self._ends.pop(life, {})):
            end.open = False
            if not silently:
                self.carry(end, "closed", RESET)

    def streams(self, *lives: Life) -> list[End]:
        """Open ends of these lives."""
        return [end for life in lives for end in self._ends.get(life, {})]

    def break_(self, end: End) -> None:
        """Both sides are told that it is broken."""
        for side in (end, end.peer):
            self.loop.deliver_at(self.loop.now, side.life, side.arrived, "closed", RESET)

    def silence(self, end: End) -> None:
        """Half-open: nothing passes any more, and nobody is told."""
        end.silent = end.peer.silent = True

    # ------------------------------------------------------------------------------------------------ connections

    def listen(
        self, address: str, life: Life, *, accept: Accept | None = None, answer: Answer | None = None
    ) -> None:
        self.listeners[address] = Listener(life, accept, answer)

    async def connect(self, life: Life, address: str, hello: Any = None) -> End:
        """The caller's end of a new stream. Raises `ConnectionRefusedError`, or `Refused` with the listener's word; waits for
        ever where nobody answers."""
        future: asyncio.Future[End] = self.loop.create_future()
        self._to_listener(life, address, future, self._open, hello)
        return await future

    async def request(self, life: Life, address: str, payload: Any) -> Any:
        """The listener's answer, or the exception it raised. `ConnectionError` where it is lost; waits for ever where nobody is."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._to_listener(life, address, future, self._ask, payload)
        if self.mischief.doubled and self._chance.random() < self.mischief.doubled:
            twin: asyncio.Future[Any] = self.loop.create_future()
            twin.add_done_callback(lambda f: f.exception())
            self._to_listener(life, address, twin, self._ask, payload)
        return await future

    def _to_listener(
        self, life: Life, address: str, future: asyncio.Future[Any], arrive: Callable[..., None], payload: Any
    ) -> None:
        listener = self.listeners.get(address)
        machine: Machine = life.machine
        if listener is None:
            self.loop.deliver_at(self.loop.now, life, _fail, future, ConnectionRefusedError(address))
            return
        target: Machine = listener.life.machine
        if target.name in self.down:
            return
        if self.is_cut(machine, target) or self.is_cut(target, machine):
            # a handshake needs both ways; it is tried again for a while
            self.loop.world_at(self.loop.now + 0.5, self._again, life, address, future, arrive, payload)
            return
        when_s = self.loop.now + self.latency_s(machine, target)
        if not listener.life.alive:
            self.loop.deliver_at(when_s, life, _fail, future, ConnectionRefusedError(address))
            return
        self.loop.deliver_at(when_s, listener.life, arrive, listener, life, future, payload)

    def _again(self, life: Life, address: str, future: asyncio.Future[Any], *rest: Any) -> None:
        if life.alive and not future.done():
            self._to_listener(life, address, future, *rest)

    def _open(self, listener: Listener, client: Life, future: asyncio.Future[End], hello: Any) -> None:
        """Runs as the listener's life."""
        here, there = self._end(listener.life), self._end(client)
        here.peer, there.peer = there, here

        async def shake() -> None:
            try:
                if listener.accept is not None:
                    waits = listener.accept(here, hello)
                    if waits is not None:
                        await waits
            except Refused as refused:
                self.forget(here)
                self.forget(there)
                self._answer(listener.life, client, _fail, future, refused)
                return
            self._answer(listener.life, client, self._opened, future, there)

        listener.life.spawn(shake(), "accept")

    def _end(self, life: Life) -> End:
        self._numbers += 1
        end = End(self, life, self._numbers)
        ends = self._ends.get(life)
        if ends is None:
            ends = self._ends[life] = {}
        ends[end] = None
        return end

    def _opened(self, future: asyncio.Future[End], end: End) -> None:
        if future.done():
            end.abort()
        else:
            future.set_result(end)

    def _ask(self, listener: Listener, client: Life, future: asyncio.Future[Any], payload: Any) -> None:
        """Runs as the listener's life."""

        async def handle() -> None:
            assert listener.answer is not None
            try:
                result = await listener.answer(payload)
            except Exception as error:  # noqa: BLE001  the other side gets it
                told: Callable[..., None] = _fail
                result = error
            else:
                told = _succeed
            if self.mischief.lost_answer and self._chance.random() < self.mischief.lost_answer:
                told, result = _fail, ConnectionResetError("the answer was lost")
            self._answer(listener.life, client, told, future, result)

        task = listener.life.spawn(handle(), "answer")
        # a server that dies with the request in hand breaks the connection
        listener.life.on_death.append(lambda: None if task.done() else self._lost(client, future))

    def _lost(self, client: Life, future: asyncio.Future[Any]) -> None:
        self.loop.deliver_at(
            self.loop.now + 0.01, client, _fail, future, ConnectionResetError("the server died")
        )

    def _answer(self, server: Life, client: Life, told: Callable[..., None], *args: Any) -> None:
        if self.is_cut(server.machine, client.machine):
            self.loop.world_at(self.loop.now + 0.5, self._answer, server, client, told, *args)
            return
        when_s = self.loop.now + self.latency_s(server.machine, client.machine)
        self.loop.deliver_at(when_s, client, told, *args)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


@dataclass(slots=True)
class Inbox:
    """A receiver that is read with `await`: messages in order, then None for ever."""

    end: End
    waiting: list[Any] = field(default_factory=list)
    over: bool = False
    code: int = RESET
    _reader: asyncio.Future[None] | None = None

    def message(self, message: Any) -> None:
        self.waiting.append(message)
        self._wake()

    def closed(self, code: int) -> None:
        self.over, self.code = True, code
        self._wake()

    async def get(self) -> Any:
        """None once the stream is over."""
        while not self.waiting:
            if self.over:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.waiting.pop(0)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
