"""When this edge takes another key, and how it comes to it: by schedule, when an operator wants it, or on this machine's own demand.

Three steps, each of which may be taken again: the next key is put on the disk, the control plane is told of it over the uplink, and
it is used once that has said yes. An uplink that drops, an answer that is lost and a process that dies change nothing but the
time it takes; calls are not touched, and neither is the uplink. While it is not known whether the control plane has taken the
next key, `regions.edge.registration` asks with both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from regions.edge.identity import Identity, public_text
from regions.wire.uplink import KeyTaken, KeyWanted, NewKey

log = structlog.get_logger()

DAY_S = 86_400.0
LOOK_S = 60.0
"""So often it is looked whether the key is old."""
ANSWER_S = 10.0
"""Said again where no answer has come by then."""
AGAIN_S = 60.0
"""After a disk that took no key, or a control plane that would not have it."""

Send = Callable[[str], Awaitable[None]]


def is_due(*, since_s: float, now_s: float, days: int) -> bool:
    """Whether a key is old. One from the future says that a clock was set: its age is not known, so it is old. `days` 0: never."""
    age_s = now_s - since_s
    return days > 0 and (age_s >= days * DAY_S or age_s < -DAY_S)


class KeyChange:
    """`days`: how old a key becomes before the next one is made by itself; 0: only on demand."""

    def __init__(
        self, identity: Identity, region: str, days: int = 0, now_s: Callable[[], float] = time.time
    ) -> None:
        self._identity = identity
        self._region = region
        self._days = days
        self._now_s = now_s
        self._wanted = False
        self._wanted_at_ms = 0
        self._news = asyncio.Event()
        self._answers: asyncio.Queue[KeyTaken] = asyncio.Queue(maxsize=8)

    @property
    def unsettled(self) -> bool:
        """The control plane may have taken the next key, or not."""
        return self._identity.next_key is not None

    def want(self) -> None:
        """Another key, now, or as soon as there is an uplink."""
        self._wanted = True
        self._news.set()

    def heard(self, message: KeyWanted | KeyTaken) -> None:
        """The same wish twice is one: that the key has come may have crossed with it."""
        if isinstance(message, KeyTaken):
            if not self._answers.full():
                self._answers.put_nowait(message)
        elif message.asked_at_ms != self._wanted_at_ms:
            self._wanted_at_ms = message.asked_at_ms
            self.want()

    async def run(self, send: Send) -> None:
        """As long as the uplink is up. Raises what `send` raises."""
        self._answers = asyncio.Queue(maxsize=8)
        while True:
            pause_s = LOOK_S
            if self._due():
                pause_s = LOOK_S if await self._change(send) else AGAIN_S
            self._news.clear()
            if self._due() and pause_s == LOOK_S:
                continue
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _due(self) -> bool:
        since_s = self._identity.key_since_s
        return self._wanted or self.unsettled or is_due(since_s=since_s, now_s=self._now_s(), days=self._days)

    async def _change(self, send: Send) -> bool:
        """False where it is to be tried again later."""
        try:
            # a disk that is slow to say that it has the key keeps no caller waiting
            key = await asyncio.to_thread(self._identity.begin_next)
        except OSError as error:
            log.error("edge.key_not_kept", error=error.strerror)
            return False
        # from here on it is `unsettled` that asks; who wants another now wants one more
        self._wanted = False
        text = public_text(key)
        while True:
            said = NewKey(public_key=text, proof=self._identity.proof(self._region, key))
            await send(msgspec.json.encode(said).decode())
            answer = await self._answer(text)
            if answer is not None:
                break
        if not answer.taken:
            log.warning("edge.key_refused", why=answer.detail)
            return False
        await asyncio.to_thread(self._identity.settled)
        log.info("edge.key_changed", key=text)
        return True

    async def _answer(self, text: str) -> KeyTaken | None:
        """None where none came in time."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    answer = await self._answers.get()
                    if answer.public_key == text:
                        return answer
        except TimeoutError:
            return None
