"""What the caller has played of the agent, as it says itself in everything it sends. Pure.

What it says is as old as the newest stamp it echoes beside it: what it has played since it was told to fall silent is known once
it has echoed the stamp of that message, or a later one. A caller that never says what it has played is believed to have played
all that it was sent.
"""

from __future__ import annotations

from regions.wire.media import Position

NOTHING = Position()


class Played:
    __slots__ = ("_position", "_stamp")

    def __init__(self) -> None:
        self._stamp = 0
        self._position = NOTHING

    @property
    def tells(self) -> bool:
        """The caller says what it plays."""
        return self._position.utterance > 0

    def said(self, stamp: int, played: Position) -> None:
        if stamp >= self._stamp:
            self._stamp, self._position = stamp, played

    def heard_ms(self, at: Position, since_stamp: int) -> int | None:
        """How much of the utterance at `at` was heard when the caller knew what was sent under `since_stamp`; None where it has
        not said so, or never does."""
        if self._stamp < since_stamp or not self._position.utterance:
            return None
        if self._position.utterance < at.utterance:
            return 0
        return min(at.offset_ms, self._position.offset_ms)
