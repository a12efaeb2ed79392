"""Asks the system's resolver for the addresses of hosts. Decides which threads wait for it; what may be dialled is the sender's.

The system's resolver holds a thread until it answers, which a name server that hangs puts off for many seconds. So lookups have
threads of their own, a host is asked for once at a time, and one that took long is asked for by few threads that wait for slow
hosts alone: those that answer do not wait for those that do not.
"""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

QUICK_THREADS = 64
SLOW_THREADS = 8
SLOW_S = 1.0
SLOW_FOR_S = 600.0
SLOW_MAX = 10_000

Asked = tuple[str, int, int]


class Lookups:
    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "lookup")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, "lookup-slow")
        self._slow_until_s: dict[str, float] = {}
        self._running: dict[Asked, asyncio.Future[list[Any]]] = {}

    async def find(self, host: str, port: int, family: int) -> list[Any]:
        """As `getaddrinfo` answers; raises `OSError`. Whoever is canceled leaves the lookup to the others."""
        asked = (host, port, family)
        running = self._running.get(asked)
        if running is None:
            is_slow = self._slow_until_s.get(host, 0.0) > time.monotonic()
            threads = self._slow if is_slow else self._quick
            running = asyncio.get_running_loop().run_in_executor(threads, self._ask, asked)
            self._running[asked] = running
            running.add_done_callback(lambda done: self._over(asked, done))
        return await asyncio.shield(running)

    def close(self) -> None:
        for threads in (self._quick, self._slow):
            threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, asked: Asked) -> list[Any]:
        host, port, family = asked
        began_s = time.monotonic()
        try:
            return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        finally:
            now_s = time.monotonic()
            if now_s - began_s < SLOW_S:
                self._slow_until_s.pop(host, None)
            elif len(self._slow_until_s) < SLOW_MAX:
                self._slow_until_s[host] = now_s + SLOW_FOR_S

    def _over(self, asked: Asked, done: asyncio.Future[list[Any]]) -> None:
        del self._running[asked]
        if not done.cancelled():
            done.exception()  # seen, also where nobody waits any more
        if len(self._slow_until_s) >= SLOW_MAX:
            now_s = time.monotonic()
            self._slow_until_s = {h: s for h, s in self._slow_until_s.items() if s > now_s}
