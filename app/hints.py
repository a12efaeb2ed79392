"""Wake-ups between instances. Decides nothing: whoever is woken looks at the database, and would look anyway, later.

A wake is delivered to this process at once and to the others through every region's Valkey (publish/subscribe), each with
its own supervised connection. A Valkey that is away costs nothing; with none at all, hints stay in the process and the
others find out when they poll. What is woken within 20 ms of the last message goes with the next one.
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

    def close(self) -> None:
        self._hints.drop(self._topic, self)


class Hints:
    def __init__(self, redis_urls: dict[str, str]) -> None:
        self._redis_urls = redis_urls
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._waiting: dict[str, set[str]] = {region: set() for region in redis_urls}
        self._due: dict[str, asyncio.Event] = {region: asyncio.Event() for region in redis_urls}

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("hints.stop", self._wake_all)
        for region, url in self._redis_urls.items():
            supervisor.add(f"hints.send.{region}", self._sender(region, url))
            supervisor.add(f"hints.hear.{region}", self._hearer(region, url))

    def wake(self, topic: str) -> None:
        """Never blocks, never raises."""
        self._local(topic)
        if topic == DELIVERIES and self.subscribers(topic):
            return
        for region, waiting in self._waiting.items():
            if len(waiting) < TOPICS_WAITING_MAX:
                waiting.add(topic)
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
                    topics = sorted(waiting)
                    waiting.clear()
                    if not topics:
                        continue
                    try:
                        await client.publish(CHANNEL, "\n".join(topics))
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
                                for topic in message["data"].decode().split("\n"):
                                    self._local(topic)
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
