"""Keys that hold a stream open. Decides when a stream is told that the key which opened it is not valid any more, or may do less.

Every key that has a stream here is looked at each second, once however many streams it has, and at once when something has changed
about any key: a stream ends with its key, whether or not a hint comes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from app.connection import is_away
from app.errors import Forbidden, Unauthenticated
from app.supervisor import until_stop

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
AT_ONCE_MAX = 20

Check = Callable[[], Awaitable[object]]
"""Raises `Unauthenticated` or `Forbidden` where the credential does not hold any more."""


@dataclass(eq=False, slots=True)
class Watch:
    """One stream's. `ended` is set once its credential does not hold; so are the events in `wakes`."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: list[asyncio.Event] = field(default_factory=list)

    def end(self) -> None:
        self.ended.set()
        for wake in self.wakes:
            wake.set()


class Watching:
    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self._look_every_s = look_every_s
        self._watched: dict[Hashable, tuple[Check, set[Watch]]] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(watches) for _, watches in self._watched.values())

    @contextmanager
    def open(self, who: Hashable, check: Check) -> Iterator[Watch]:
        """`who`: the same for streams that one `check` decides about."""
        watch = Watch()
        self._watched.setdefault(who, (check, set()))[1].add(watch)
        try:
            yield watch
        finally:
            watches = self._watched[who][1]
            watches.discard(watch)
            if not watches:
                del self._watched[who]

    def changed(self) -> None:
        """Something about a key has changed: looks now."""
        self._changed.set()

    async def worker(self, stop: asyncio.Event) -> None:
        await until_stop(stop, self._look_now_and_again())

    async def _look_now_and_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._changed.wait()
            self._changed.clear()
            await self.look()

    async def look(self) -> None:
        asked = list(self._watched.values())
        for at in range(0, len(asked), AT_ONCE_MAX):
            await asyncio.gather(*(self._ask(*one) for one in asked[at : at + AT_ONCE_MAX]))

    async def _ask(self, check: Check, watches: set[Watch]) -> None:
        try:
            await check()
        except (Unauthenticated, Forbidden):
            log.info("streams.ended_with_their_key", streams=len(watches))
            for watch in tuple(watches):
                watch.end()
        except Exception as error:
            # with the database away nothing is served either; it is asked again with the next look
            if not is_away(error):
                raise
