"""Which `turn.ended` of the caller's is written, and when: each turn once, with its words where the backend says them. Pure.

The edge knows when a turn has ended, the backend what was said in it, usually a moment later. The cases, in order:

1. The backend says that the caller's turn has ended: that is what is written, and from then on nothing but that.
2. The detector has found the end of a turn: it waits `WORDS_WITHIN_MS` for the backend's word. What the backend has said of this turn
   as final transcripts becomes its text.
3. A final transcript comes while a turn waits: it waits `MORE_WITHIN_MS` more, in case the backend ends the turn itself.
4. The agent begins to answer, the caller goes on, or the call ends: what waits is written now.
5. A turn was waited for in vain, and the backend has never said a word: the next ones are written at once.
6. A final transcript comes and no turn is open or waits (it is late, or the detector has heard nothing): it is a turn of its own,
   after `MORE_WITHIN_MS`.
"""

from __future__ import annotations

from regions.media.turns import Ended

WORDS_WITHIN_MS = 1_000
MORE_WITHIN_MS = 200
CHARS_MAX = 8_000
"""Of the final transcripts of one turn; what is said beyond stands in `transcript.final` alone."""
Data = dict[str, object]


class CallerTurns:
    def __init__(self) -> None:
        self._words: list[str] = []
        self._due_ms: int | None = None
        self._ended: Ended | None = None
        self._open = False
        self._theirs = self._silent = False

    def started(self) -> Data | None:
        """The caller speaks. What is to be written."""
        found = self.flush()
        self._open = True
        return found

    def ended(self, ended: Ended, now_ms: int) -> Data | None:
        """The detector's word."""
        self._open, self._ended = False, ended
        if self._theirs:
            return None
        self._due_ms = now_ms + (MORE_WITHIN_MS if self._words else WORDS_WITHIN_MS)
        return self.flush() if self._silent else None

    def void(self) -> None:
        """What had begun was no turn."""
        self._open = False

    def final(self, text: str, now_ms: int) -> None:
        """What the backend has understood for good of the turn, or of a part of it."""
        self._silent = False
        if self._theirs or not text:
            return
        if sum(map(len, self._words)) + len(text) <= CHARS_MAX:
            self._words.append(text)
        if not self._open:
            self._due_ms = now_ms + MORE_WITHIN_MS

    def theirs(self, text: str) -> Data:
        """The backend ends the caller's turn."""
        self._theirs, self._silent = True, False
        self._words.clear()
        self._due_ms = None
        return self._written(text)

    def due(self, now_ms: int) -> Data | None:
        """Asked every 20 ms."""
        return self.flush() if self._due_ms is not None and now_ms >= self._due_ms else None

    def forget(self) -> None:
        """Another backend comes, which may report in another way."""
        self._theirs = self._silent = False

    def flush(self) -> Data | None:
        """Written now, where a turn waits."""
        if self._due_ms is None:
            return None
        self._due_ms = None
        text = " ".join(self._words)
        self._silent = self._silent or not text
        self._words.clear()
        return self._written(text)

    def _written(self, text: str) -> Data:
        ended, self._ended = self._ended, None
        data: Data = {"role": "caller", "text": text}
        if ended is None:
            return data
        return data | {
            "started_ms": ended.started_ms,
            "stopped_ms": ended.stopped_ms,
            "waited_ms": ended.waited_ms,
            "by": ended.by,
        }
