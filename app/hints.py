"""Wake-ups between instances. Decides nothing: whoever is woken looks at the database, and would look anyway, later.

A wake is delivered to this process at once and to the others through every region's Valkey (publish/subscribe), each with
its own supervised connection. A Valkey that is away costs nothing; with none at all, hints stay in the process and the
others find out when they poll. What is woken within 20 ms of the last message goes with the next one.

A wake may carry a note that says all there is to know: who hears it twice, over two Valkeys, or hears its own, is not woken again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from app.supervisor import Supervisor, until_stop, wait_for_stop

log = structlog.get_logger()

CHANNEL = "vx:hints"
RETRY_S = 0.5
GATHER_S = 0.02
DELIVERIES = "deliveries"
"""What is due is sent by the instance that made it so, where that one sends at all; the others look by themselves."""
TOPICS_WAITING_MAX = 1_000
Listener = Callable[[str], bool]
"""Takes a note; whether it is news to this instance. Never raises."""


class Subscription:
    """Wakes of one topic. Wakes that come while nobody waits are kept as one."""

    def __init__(self, hints: Hints, topic: str) -> None:
        self._hints = hints
        self._topic = topic
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True when woken, False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    async def woken_or(self, other: asyncio.Future[Any]) -> bool:
        """True when woken, False when `other` is done before."""
        waiter = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((waiter, other), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        woken = self._event.is_set()
        self._event.clear()
        return woken

    def close(self) -> None:
        self._hints.drop(self._topic, self)


class Hints:
    def __init__(self, redis_urls: dict[str, str]) -> None:
        self._redis_urls = redis_urls
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._listeners: dict[str, Listener] = {}
        self._waiting: dict[str, dict[str, None]] = {region: {} for region in redis_urls}
        self._due: dict[str, asyncio.Event] = {region: asyncio.Event() for region in redis_urls}

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("hints.stop", self._wake_all)
        for region, url in self._redis_urls.items():
            supervisor.add(f"hints.send.{region}", self._sender(region, url))
            supervisor.add(f"hints.hear.{region}", self._hearer(region, url))

    def listen(self, kind: str, listener: Listener) -> None:
        """To the notes of all topics `kind:…` that somebody here has subscribed to."""
        self._listeners[kind] = listener

    def wake(self, topic: str, note: str = "") -> None:
        """`note`: one line, all there is to know. Never blocks, never raises."""
        self._local(topic)
        if topic == DELIVERIES and self.subscribers(topic):
            return
        for region, waiting in self._waiting.items():
            # notes are many and each is another line: half of the room is left to topics alone, a revoked key's among them
            line = f"{topic} {note}" if note and len(waiting) < TOPICS_WAITING_MAX // 2 else topic
            if len(waiting) < TOPICS_WAITING_MAX:
                waiting[line] = None
                self._due[region].set()

    def subscribe(self, topic: str) -> Subscription:
        subscription = Subscription(self, topic)
        self._subscriptions[topic].add(subscription)
        return subscription

    def subscribers(self, topic: str) -> int:
        return len(self._subscriptions.get(topic, ()))

    def drop(self, topic: str, subscription: Subscription) -> None:
        self._subscriptions[topic].discard(subscription)
        if not self._subscriptions[topic]:
            del self._subscriptions[topic]

    async def _wake_all(self, stop: asyncio.Event) -> None:
        """Whoever waits for a wake would else see that it is over when the wait is."""
        await stop.wait()
        for topic in tuple(self._subscriptions):
            self._local(topic)
        for due in self._due.values():
            due.set()

    def _local(self, topic: str) -> None:
        for subscription in tuple(self._subscriptions.get(topic, ())):
            subscription.notify()

    def _heard(self, line: str) -> None:
        topic, _, note = line.partition(" ")
        listener = self._listeners.get(topic.partition(":")[0]) if note else None
        if topic in self._subscriptions and (listener is None or listener(note)):
            self._local(topic)

    def _sender(self, region: str, url: str) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
        async def send(stop: asyncio.Event) -> None:
            client = redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
            due, waiting = self._due[region], self._waiting[region]
            try:
                while not stop.is_set():
                    try:
                        async with asyncio.timeout(0.5):
                            await due.wait()
                    except TimeoutError:
                        continue
                    due.clear()
                    lines = list(waiting)
                    waiting.clear()
                    if not lines:
                        continue
                    try:
                        await client.publish(CHANNEL, "\n".join(lines))
                        await asyncio.sleep(GATHER_S)
                    except (RedisError, OSError, TimeoutError):
                        await wait_for_stop(stop, RETRY_S)
            finally:
                await client.aclose()

        return send

    def _hearer(self, region: str, url: str) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
        async def listen() -> None:
            away = False
            while True:
                client = redis.from_url(url, socket_timeout=3.0, socket_connect_timeout=1.0)
                try:
                    async with client.pubsub(ignore_subscribe_messages=True) as channel:
                        await channel.subscribe(CHANNEL)
                        if away:
                            log.info("hints.back", region=region)
                        away = False
                        while True:
                            message = await channel.get_message(timeout=1.0)
                            if message is not None:
                                for line in message["data"].decode().split("\n"):
                                    self._heard(line)
                except (RedisError, OSError, TimeoutError):
                    if not away:
                        log.warning("hints.away", region=region)
                    away = True
                    await asyncio.sleep(RETRY_S)
                finally:
                    await client.aclose()

        async def hear(stop: asyncio.Event) -> None:
            await until_stop(stop, listen())

        return hear
