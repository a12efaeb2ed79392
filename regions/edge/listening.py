"""The caller's side of the conversation: what it says on its way to the agent, who speaks, when a turn has ended. Pure.

Decides what is given to the agent in one turn of 20 ms; who speaks is the `Floor`'s to say (`voice`). While there is no backend,
what the caller says waits, the newest five seconds of it, and is given four frames at a time afterwards, so that a lost backend
costs no word and the call no delay. The same holds for the turn that the lost one had heard and not answered: its successor hears
that turn from its beginning. A turn that was answered is not given again: the conversation has it.
"""

from __future__ import annotations

from collections import deque

from regions.edge.handover import Boundary
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import FRAME_MS

HELD_FRAMES_MAX = 250
CATCH_UP_FRAMES = 4
EARLY_FRAMES_MAX = 5
"""What has piled up beyond this is a delay, and no jitter: an edge that was held up hands it on."""
BEFORE_FRAMES = 15
"""Given again before the first frame in which a voice was noticed, but for what was answered before it."""


class Listening:
    def __init__(self, buffer: CallerBuffer) -> None:
        self._buffer = buffer
        self._speaking = self._begun = False
        self._boundary = Boundary()
        self._held: deque[bytes] = deque()
        self._given: deque[bytes] = deque(maxlen=HELD_FRAMES_MAX)
        self._unanswered = False
        self._since_start = 0
        self._quiet = 0
        self._dropped = 0
        self.turn_over = True

    def waited(self) -> dict[str, object]:
        """What waits for the agent, and what was too old to be kept since this was asked last."""
        dropped, self._dropped = self._dropped, 0
        return {"replayed_ms": len(self._held) * FRAME_MS, "dropped_ms": dropped * FRAME_MS}

    def next(self) -> list[bytes]:
        """What of the caller's is to be heard in this turn, and then given: 20 ms where they have come, more where they are late,
        and all that has come while something waits, so that nothing of a delay stays."""
        frames: list[bytes] = []
        while (not frames or self._held or self._buffer.frames > EARLY_FRAMES_MAX) and (
            frame := self._buffer.pop()
        ) is not None:
            frames.append(frame)
        return frames

    def voice(self, speaking: bool) -> None:
        """The caller's turn has begun, or is over."""
        self._begun = self._begun or (speaking and not self._speaking)
        self._speaking = speaking

    def hear(self, frame: bytes) -> None:
        """The next frame of the caller's, on its way to the agent."""
        self._hold(frame)
        self._quiet = 0 if self._speaking else self._quiet + 1
        self._since_start += 1
        if self._begun:
            self._begun, self._unanswered, self._since_start = False, True, 1
        elif self._unanswered and self._quiet >= HELD_FRAMES_MAX:
            self.answered()

    def due(self) -> list[bytes]:
        """The frames to give to the agent in this turn."""
        frames = [self._held.popleft() for _ in range(min(CATCH_UP_FRAMES, len(self._held)))]
        self._given.extend(frames)
        while not self._unanswered and len(self._given) > BEFORE_FRAMES:
            self._given.popleft()
        return frames

    def answered(self) -> None:
        """The agent has answered, or has written down what the caller said: that is not given again. What has begun since is."""
        self._unanswered = self._speaking
        kept = BEFORE_FRAMES + max(0, self._since_start - len(self._held)) if self._unanswered else 0
        while len(self._given) > kept:
            self._given.popleft()

    def again(self) -> None:
        """The agent is gone, and with it what it had heard and not answered."""
        given = list(self._given) if self._unanswered else []
        waiting, self._held = self._held, deque()
        self._given.clear()
        for frame in (*given, *waiting):
            self._hold(frame)

    def turn(self, now_ms: int, *, agent: bool) -> None:
        """Call once in 20 ms. `agent`: something of the agent's is being played, or waits to be."""
        self.turn_over = self._boundary.at(now_ms, agent=agent, caller=self._speaking)

    def _hold(self, frame: bytes) -> None:
        self._held.append(frame)
        if len(self._held) > HELD_FRAMES_MAX:
            self._held.popleft()
            self._dropped += 1
