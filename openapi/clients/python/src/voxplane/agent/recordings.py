"""The newest utterance of each call as it was sent, so that one that a failure has cut can go on where the caller stopped hearing
it. Pure. In one process: another one has none, and answers anew."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from voxplane.agent.ledger import Utterance

BYTES_MAX = 128 * 1024 * 1024


@dataclass(slots=True)
class Recording:
    """`pcm`: from the utterance's beginning, at `rate_hz`."""

    utterance: Utterance
    rate_hz: int
    pcm: bytearray = field(default_factory=bytearray)

    def rest(self, offset_ms: int) -> bytes:
        return bytes(self.pcm[2 * (offset_ms * self.rate_hz // 1000) :])


class Recordings:
    """At most `bytes_max` of audio: the calls that were recorded longest ago give way."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._of: OrderedDict[str, Recording] = OrderedDict()

    def begin(self, call: str, utterance: Utterance, rate_hz: int) -> None:
        self.forget(call)
        self._of[call] = Recording(utterance, rate_hz)

    def add(self, call: str, utterance: Utterance, pcm: bytes) -> None:
        """Only of the newest utterance of the call."""
        recording = self._of.get(call)
        if recording is None or recording.utterance is not utterance:
            return
        recording.pcm += pcm
        self._bytes += len(pcm)
        while self._bytes > self._bytes_max:
            self.forget(next(iter(self._of)))

    def of(self, call: str, id_: str, rate_hz: int) -> Recording | None:
        recording = self._of.get(call)
        if recording is None or recording.utterance.id != id_ or recording.rate_hz != rate_hz:
            return None
        return recording

    def forget(self, call: str) -> None:
        recording = self._of.pop(call, None)
        if recording is not None:
            self._bytes -= len(recording.pcm)
