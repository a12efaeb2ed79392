"""The caller's side of the conversation: what it says on its way to the agent, who speaks, when a turn has ended. Pure.

Decides what is given to the agent in one turn of 20 ms. While a successor has no backend yet, what the caller says waits
(`CallerBuffer` says how much of it) and is given two at a time afterwards, so that a move costs the agent no word and the
call no delay.
"""

from __future__ import annotations

from regions.edge.handover import Boundary
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import to_pcm
from regions.media.voice_activity import VoiceGate


class Listening:
    def __init__(self, buffer: CallerBuffer) -> None:
        self._buffer = buffer
        self._voice = VoiceGate()
        self._boundary = Boundary()
        self._catching_up = False
        self.turn_over = True

    def due(self, *, waits: bool) -> list[bytes]:
        """The frames of this turn. `waits`: there is nobody yet to give them to."""
        if waits:
            self._catching_up = True
            return []
        frame = self._buffer.pop()
        if frame is None:
            self._catching_up = False
            return []
        if self._catching_up and (second := self._buffer.pop()) is not None:
            return [frame, second]
        return [frame]

    def hear(self, frame: bytes) -> str | None:
        """``started`` or ``stopped`` where the caller's voice has."""
        return self._voice.feed(to_pcm(frame))

    def turn(self, now_ms: int, *, agent: bool) -> None:
        """Call once in 20 ms. `agent`: something of the agent's is being played, or waits to be."""
        self.turn_over = self._boundary.at(now_ms, agent=agent, caller=self._voice.speaking)
