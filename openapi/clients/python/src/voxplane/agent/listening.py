"""The caller's way to the speech-to-text: frames at its rate, numbered by their time, and what is heard in them.

Decides when a speech-to-text that fails is begun again, and when it is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing

from voxplane.agent.audio import FRAME_MS, Resampler
from voxplane.agent.parts import Final, Frame, Heard, SpeechToText
from voxplane.agent.streams import Feed, Watched

FRAMES_MAX = 500
"""Ten seconds that the speech-to-text has not read."""
ARRIVALS_MAX = 1_500
SKIPPED_MS_MAX = 60_000
PAUSES_S = (0.0, 0.1, 0.4, 1.6)


class EndedEarly(Exception):
    """A speech-to-text has ended before its frames did."""


class Listening:
    """`heard` is told what is; `failed` of every error; `give_up` once it has failed too often."""

    def __init__(
        self,
        stt: SpeechToText,
        rate_hz: int,
        heard: Callable[[Heard], None],
        failed: Callable[[str, Exception], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._stt = stt
        self._heard = heard
        self._failed = failed
        self._give_up = give_up
        self._frames: Feed[Frame] = Feed(FRAMES_MAX)
        self._resampler = Resampler(rate_hz, stt.sample_rate)
        self._frame_bytes = 2 * stt.sample_rate * FRAME_MS // 1000
        self._rest = bytearray()
        self._count = 0
        self._arrivals: deque[float] = deque(maxlen=ARRIVALS_MAX)
        self._stopped_s: float | None = None
        self._closed = False

    def feed(self, pcm: bytes) -> None:
        """At the wire's rate, of any length."""
        self._rest += self._resampler.feed(pcm)
        while len(self._rest) >= self._frame_bytes:
            self._frames.put(Frame(bytes(self._rest[: self._frame_bytes]), self._count * FRAME_MS))
            del self._rest[: self._frame_bytes]
            self._count += 1
            self._arrivals.append(time.monotonic())

    def skip(self, ms: object) -> None:
        """So much silence was left out, which nobody reads: the frames behind it lie later."""
        if isinstance(ms, int) and 0 < ms <= SKIPPED_MS_MAX:
            self._count += ms // FRAME_MS
            self._arrivals.extend([time.monotonic()] * (ms // FRAME_MS))

    def voice_started(self) -> None:
        self._stopped_s = None

    def voice_stopped(self) -> None:
        """The edge hears the caller no more."""
        self._stopped_s = time.monotonic()

    def turn_ended(self) -> None:
        """The edge takes the caller's turn for over."""
        self._stopped_s = time.monotonic() if self._stopped_s is None else self._stopped_s
        self._frames.put(Frame(b"", self._count * FRAME_MS, turn_ended=True))

    def voice_ended_s(self, ended_ms: int | None) -> float | None:
        """When what ended at that place of the frames had arrived; where the place is not known, when the edge heard it end."""
        stopped_s, self._stopped_s = self._stopped_s, None
        if ended_ms is None:
            return stopped_s
        back = self._count - ended_ms // FRAME_MS
        return self._arrivals[-back] if 0 < back <= len(self._arrivals) else stopped_s

    def close(self) -> None:
        self._closed = True
        self._frames.close()

    def _over(self) -> bool:
        return self._closed

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                stream = Watched(self._stt.listen(self._frames))
                async with aclosing(stream):
                    async for heard in stream:
                        failures = 0 if isinstance(heard, Final) else failures
                        if not self._over():
                            self._heard(heard)
                if self._over():
                    return
                raise EndedEarly("listen() has ended, and the call has not")
            except Exception as error:  # noqa: BLE001  a part's own code, contained to this call's ear
                failures += 1
                self._failed("stt", error)
            if self._over():
                return
            if failures > len(PAUSES_S):
                self._give_up("speech-to-text fails")
                return
            await asyncio.sleep(PAUSES_S[failures - 1])
