"""Server-sent events, from bytes to events (WHATWG HTML, 9.2). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Lines:
    """Cuts bytes at the ends that the format knows and no other: a text may hold what Unicode also calls a line end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        *whole, self._rest = LINE_END.split(self._rest + chunk)
        return [line.decode("utf-8", "replace") for line in whole]


class SseReader:
    """`feed` a line without its end; it gives (cursor, event) when a block is complete: one of them may be None. A volatile event
    has no cursor, and a place that is reached no event."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._data: list[str] = []

    def feed(self, line: str) -> list[tuple[str | None, dict[str, Any] | None]]:
        if not line:
            cursor, data = self._id, self._data
            self._id, self._data = None, []
            if cursor is None and not data:
                return []
            return [(cursor, json.loads("\n".join(data)) if data else None)]
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "data":
            self._data.append(value)
        return []


class EventStream:
    """A stream that may break: keeps the cursor of what was given out, so that the next connection goes on behind it."""

    def __init__(self, cursor: str | None) -> None:
        self._cursor = cursor
        self._lines, self._reader = Lines(), SseReader()

    def again(self) -> dict[str, str]:
        """Before a connection: forgets the half of an event that the last one left; gives the headers to ask with."""
        self._lines, self._reader = Lines(), SseReader()
        return {"Last-Event-ID": self._cursor} if self._cursor else {}

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        for line in self._lines.feed(chunk):
            for cursor, event in self._reader.feed(line):
                self._cursor = cursor or self._cursor
                if event is not None:
                    yield event
