"""What a peer connection counts of its audio, in this product's words: loss, jitter, round trip, bytes, silence not sent. Pure.

The names are those of W3C's webrtc-stats, in the library's spelling. Loss and jitter of what comes are its receiver's; of what is
sent, the caller's RTCP reports; the round trip is RTCP's, and STUN's until there was a report.

Silence that was not sent (Opus DTX, RFC 6716, 2.1.9) shows in nothing but packets that are missing from the timeline without being
lost. What they would have weighed is estimated by the mean of those that came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from regions.media.quality import FRAME_MS, Heard, Report


class RtpCounts:
    __slots__ = ("_came_from_ms", "_out", "_saved_in", "in_bytes", "out_bytes", "packets_in", "report")

    def __init__(self) -> None:
        self.report = Report(up=Heard(), down=Heard())
        self.in_bytes = self.out_bytes = self._saved_in = 0
        self.packets_in = self._out = 0
        self._came_from_ms: float | None = None

    def look(self, entries: Iterable[Any]) -> None:
        """`entries`: of one `getStats`."""
        up, down, rtt_ms, stun_ms = Heard(), Heard(), None, None
        for entry in entries:
            match str(getattr(entry, "type", "")):
                case "inbound-rtp" if entry.kind == "audio":
                    got, lost = entry.packets_received or 0, max(0, entry.packets_lost or 0)
                    up = _heard(got, lost, entry.jitter)
                    self.packets_in, self.in_bytes = (
                        got,
                        _bytes(entry.bytes_received, entry.header_bytes_received),
                    )
                    self._left_out(got + lost, entry.last_packet_received_timestamp)
                case "outbound-rtp" if entry.kind == "audio":
                    self._out = entry.packets_sent or 0
                    self.out_bytes = _bytes(entry.bytes_sent, entry.header_bytes_sent)
                case "remote-inbound-rtp" if entry.kind == "audio":
                    lost = max(0, entry.packets_lost or 0)
                    down = Heard(frames=max(self._out, lost), lost=lost, jitter_ms=_ms(entry.jitter) or 0.0)
                    rtt_ms = _ms(entry.round_trip_time)
                case "candidate-pair" if entry.nominated:
                    stun_ms = _ms(entry.current_round_trip_time)
        self.report = Report(up=up, down=down, rtt_ms=stun_ms if rtt_ms is None else rtt_ms)

    def saved_bytes(self, written_ms: int) -> int:
        """`written_ms`: so much audio was given to the library to send."""
        unsent = max(0, written_ms // FRAME_MS - self._out)
        return _weight(self._saved_in, self.in_bytes, self.packets_in) + _weight(
            unsent, self.out_bytes, self._out
        )

    def _left_out(self, packets: int, last_ms: float | None) -> None:
        """Packets that a timeline of one in 20 ms has, and that were never sent."""
        if last_ms is None or not packets:
            return
        if self._came_from_ms is None:
            self._came_from_ms = last_ms - (packets - 1) * FRAME_MS
        self._saved_in = max(0, round((last_ms - self._came_from_ms) / FRAME_MS) + 1 - packets)


def _heard(got: int, lost: int, jitter_s: float | None) -> Heard:
    return Heard(frames=got + lost, lost=lost, jitter_ms=_ms(jitter_s) or 0.0)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _bytes(payload: int | None, headers: int | None) -> int:
    return (payload or 0) + (headers or 0)


def _weight(packets: int, bytes_: int, of: int) -> int:
    return packets * bytes_ // of if of else 0
