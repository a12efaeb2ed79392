"""The regions' Valkeys, as far as production uses them: keys, hashes, sets, the tail's script, publish and subscribe.

Decides when a command fails: while its server is away, or cut off; one that was carried out may lose its answer. A server that
is lost forgets everything. A hint is a hint: it may be lost, doubled or late. It knows no access rules.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.log.tail_region import HEADLESS, OLDER, PUT_IF_NEWER, STORED
from tests.simulation.clocks import Machine
from tests.simulation.loop import RUNNING, Life, SimLoop
from tests.simulation.network import Network

SOCKET_TIMEOUT_S = 1.0
Command = tuple[str, tuple[Any, ...]]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class Server:
    """One region's. Sets are kept in the order of their making, so that a seed replays."""

    def __init__(self, machine: Machine, life: Life) -> None:
        self.machine = machine
        self.life = life
        self.keys: dict[str, Any] = {}
        self.channels: dict[str, dict[Channel, None]] = {}
        self.on_tail: Callable[[bytes, bytes], None] = lambda head, turns: None

    def lose(self) -> None:
        """The process and its memory."""
        self.life.kill()
        self.keys.clear()
        self.channels.clear()

    def do(self, command: Command) -> Any:
        name, args = command
        return getattr(self, "_" + name)(*args)

    def _get(self, key: str) -> bytes | None:
        found: bytes | None = self.keys.get(key)
        return found

    def _set(self, key: str, value: Any) -> bool:
        self.keys[key] = _bytes(value)
        return True

    def _ping(self) -> bool:
        return True

    def _delete(self, key: str) -> int:
        return 0 if self.keys.pop(key, None) is None else 1

    def _expire(self, key: str, seconds: int) -> bool:
        return key in self.keys

    def _hset(self, key: str, mapping: dict[Any, Any]) -> int:
        self.keys.setdefault(key, {}).update({_bytes(f): _bytes(v) for f, v in mapping.items()})
        return len(mapping)

    def _hdel(self, key: str, *fields: Any) -> int:
        held = self.keys.get(key, {})
        gone = sum(held.pop(_bytes(f), None) is not None for f in fields)
        if not held:
            self.keys.pop(key, None)
        return gone

    def _hlen(self, key: str) -> int:
        return len(self.keys.get(key, ()))

    def _hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self.keys.get(key, {}))

    def _sadd(self, key: str, *members: Any) -> int:
        held = self.keys.setdefault(key, {})
        held.update({_bytes(m): None for m in members})
        return len(members)

    def _srem(self, key: str, *members: Any) -> int:
        held = self.keys.get(key, {})
        gone = sum(held.pop(_bytes(m), self) is None for m in members)
        if not held:
            self.keys.pop(key, None)
        return gone

    def _smembers(self, key: str) -> list[bytes]:
        return list(self.keys.get(key, ()))

    def _srandmember(self, key: str, number: int) -> list[bytes]:
        return list(self.keys.get(key, ()))[:number]

    def _lpush(self, key: str, *values: Any) -> int:
        held = self.keys.setdefault(key, [])
        held[:0] = [_bytes(v) for v in values]
        return len(held)

    def _ltrim(self, key: str, first: int, last: int) -> bool:
        self.keys[key] = self.keys.get(key, [])[first : last + 1]
        return True

    def _hget(self, key: str, field: Any) -> bytes | None:
        found: bytes | None = self.keys.get(key, {}).get(_bytes(field))
        return found

    def _hmget(self, key: str, fields: Any) -> list[bytes | None]:
        return [self._hget(key, field) for field in fields]

    def _eval(
        self, script: str, _: int, key: str, seq: str, said_seq: str, head: bytes, turns: bytes, kept_s: int
    ) -> int:
        """The one script that production has: a tail that is newer."""
        if script != PUT_IF_NEWER:
            raise LookupError("the model does not know this script")
        there = self.keys.get(key, {})
        if there and int(there[b"seq"]) >= int(seq):
            return OLDER
        if not turns and there.get(b"said_seq") != said_seq.encode():
            return HEADLESS
        there = there | {b"seq": seq.encode(), b"head": head}
        if turns:
            there |= {b"said_seq": said_seq.encode(), b"turns": turns}
        self.keys[key] = there
        self.on_tail(there[b"head"], there[b"turns"])
        return STORED


class Valkeys:
    """`from_url("sim://region")` gives a client to whoever is running, with a name and a password or without: these servers know no
    users. `on_tail` is told of every tail written."""

    def __init__(self, loop: SimLoop, network: Network, chance: random.Random) -> None:
        self.loop = loop
        self.network = network
        self.chance = chance
        self.servers: dict[str, Server] = {}
        self.hints_lost = 0.0

    def from_url(self, url: str, **options: Any) -> Client:
        return Client(self, self.servers[url.removeprefix("sim://").rpartition("@")[2]], self.loop.current)


class Pipeline:
    """Commands that go together; they may be carried out in part."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.commands: list[Command] = []

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def __getattr__(self, name: str) -> Callable[..., Pipeline]:
        def add(*args: Any, **more: Any) -> Pipeline:
            self.commands.append((name, (*args, *more.values())))
            return self

        return add

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        return await self._client.run(self.commands)


class Client:
    def __init__(self, valkeys: Valkeys, server: Server, life: Life) -> None:
        self._valkeys = valkeys
        self.server = server
        self._life = life

    def pipeline(self, *, transaction: bool = True) -> Pipeline:
        return Pipeline(self)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if not hasattr(self.server, "_" + name):
            raise LookupError(f"the model does not know the command {name}")

        async def command(*args: Any, **options: Any) -> Any:
            given = options.get("mapping")
            return (await self.run([(name, args if given is None else (*args, given))]))[0]

        return command

    async def execute_command(self, *words: str) -> Any:
        raise ResponseError(f"unknown command '{words[0].split()[0]}'")

    async def publish(self, channel: str, message: str) -> None:
        await self.run([])
        valkeys, chance = self._valkeys, self._valkeys.chance
        network, loop = valkeys.network, valkeys.loop
        for heard in list(self.server.channels.get(channel, ())):
            for _ in range(2 if chance.random() < valkeys.hints_lost / 2 else 1):
                if chance.random() < valkeys.hints_lost:
                    continue
                if not network.is_cut(self.server.machine, heard.life.machine):
                    when_s = loop.now + network.latency_s(self.server.machine, heard.life.machine)
                    loop.deliver_at(when_s, heard.life, heard.arrived, {"data": message.encode()})

    @asynccontextmanager
    async def pubsub(self, **options: Any) -> AsyncIterator[Channel]:
        channel = Channel(self, self._life)
        try:
            yield channel
        finally:
            channel.close()

    async def aclose(self) -> None:
        return

    async def run(self, commands: list[Command]) -> list[Any]:
        """There, carried out, and back again."""
        network, server, life = self._valkeys.network, self.server, self._life
        if not server.life.alive and server.machine.name not in network.down:
            await asyncio.sleep(0.001)
            raise RedisConnectionError("connection refused")
        if server.life.state is not RUNNING or network.is_cut(life.machine, server.machine):
            await asyncio.sleep(SOCKET_TIMEOUT_S)
            raise RedisTimeoutError("timeout writing to the server")
        await asyncio.sleep(network.latency_s(life.machine, server.machine))
        if server.life.state is not RUNNING:
            raise RedisConnectionError("connection closed by the server")
        results = [server.do(command) for command in commands]
        back_s = network.latency_s(server.machine, life.machine)
        if network.is_cut(server.machine, life.machine):
            await asyncio.sleep(SOCKET_TIMEOUT_S)
            raise RedisTimeoutError("timeout reading from the server")
        await asyncio.sleep(back_s)
        return results


class Channel:
    """A subscription. What comes while nobody reads waits, bounded."""

    def __init__(self, client: Client, life: Life) -> None:
        self._client = client
        self._server = client.server
        self._server_life = self._server.life
        self.life = life
        self._messages: list[dict[str, bytes]] = []
        self._wake = asyncio.Event()

    def arrived(self, message: dict[str, bytes]) -> None:
        if len(self._messages) < 1_000:
            self._messages.append(message)
        self._wake.set()

    async def subscribe(self, channel: str) -> None:
        await self._client.run([])
        self._server_life = self._server.life
        self._server.channels.setdefault(channel, {})[self] = None

    async def get_message(self, *, timeout: float) -> dict[str, bytes] | None:
        if not self._messages:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                if self._server.life is not self._server_life or not self._server_life.alive:
                    raise RedisConnectionError("connection closed by the server") from None
                return None
        return self._messages.pop(0)

    def close(self) -> None:
        for heard in self._server.channels.values():
            heard.pop(self, None)
