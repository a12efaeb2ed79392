"""Streams between the kit and the parts: bounded ones to feed, and the parts' own, watched so that none is waited for in vain."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

SENTENCE_ENDS = ".!?…。！？"
SENTENCE_CHARS_MAX = 400


class TooSlow(Exception):
    """A part gave nothing for longer than it may. `within_s`: how long that is."""

    def __init__(self, within_s: float) -> None:
        super().__init__(f"nothing came within {within_s:g} s")
        self.within_s = within_s


class Feed(Generic[T]):
    """A stream that is fed without waiting. With more than `most` that nobody has read the oldest is dropped, and counted."""

    def __init__(self, most: int) -> None:
        self._items: deque[T] = deque()
        self._most = most
        self._come = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        if self._closed:
            return
        self._items.append(item)
        if len(self._items) > self._most:
            self._items.popleft()
            self.dropped += 1
        self._come.set()

    def close(self) -> None:
        """No more is fed; what is there is still read."""
        self._closed = True
        self._come.set()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._come.clear()
            await self._come.wait()
        return self._items.popleft()


class Watched(Generic[T]):
    """The same items. Raises `TooSlow` where one does not come in time (None: ever), counted from when
    it was wanted or from the last `pulse`, whichever is later. `aclose` lets the stream clean up."""

    def __init__(
        self, stream: AsyncIterator[T], first_s: float | None = None, next_s: float | None = None
    ) -> None:
        self._stream = stream
        self._within_s = first_s
        self._next_s = next_s
        self._limit: asyncio.Timeout | None = None

    def pulse(self) -> None:
        """Whoever is waited for was just given something to work with."""
        if self._limit is not None and self._within_s is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._within_s)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            async with asyncio.timeout(self._within_s) as limit:
                self._limit = limit
                item = await anext(self._stream)
        except TimeoutError:
            if self._within_s is not None and limit.expired():
                raise TooSlow(self._within_s) from None
            raise
        finally:
            self._limit = None
        self._within_s = self._next_s
        return item

    async def aclose(self) -> None:
        """One that is being cancelled elsewhere cleans up there."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            with suppress(RuntimeError):
                await close()


class Sentences:
    """Cuts a growing text into sentences: after an end that is followed by a blank, or where one becomes too long. Pure."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> list[str]:
        self._rest += piece
        found: list[str] = []
        while (end := self._end()) is not None:
            sentence, self._rest = self._rest[:end].strip(), self._rest[end:]
            if sentence:
                found.append(sentence)
        return found

    def flush(self) -> str:
        """What has not ended."""
        rest, self._rest = self._rest.strip(), ""
        return rest

    def _end(self) -> int | None:
        text = self._rest
        for i, char in enumerate(text[:-1]):
            if (char in SENTENCE_ENDS and text[i + 1].isspace()) or char == "\n":
                return i + 1
        if len(text) > SENTENCE_CHARS_MAX:
            blank = text.rfind(" ", 1, SENTENCE_CHARS_MAX)
            return blank if blank > 0 else SENTENCE_CHARS_MAX
        return None


async def sentences(text: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """For a synthesiser that speaks whole sentences: each one as soon as it is complete."""
    cutter = Sentences()
    async for piece in text:
        for sentence in cutter.feed(piece):
            yield sentence
    if rest := cutter.flush():
        yield rest
