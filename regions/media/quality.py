"""How well a caller and its edge hear each other: loss and jitter from what has come, and what a listener would say of it. Pure.

The opinion is the E-model's (ITU-T G.107, simplified): ``R = 93.2 - Id - Ie,eff``, with `Id` for the delay as in R. G. Cole and
J. H. Rosenbluth, "Voice over IP performance monitoring" (2001), `Ie,eff` for the loss as in G.107, 7.5, for losses at random, and
R to MOS as in G.107, Annex B. The robustness against loss, `Bpl`, is G.711's in G.113, Appendix I: with concealment where the library
conceals (WebRTC), without where what is lost is silence. It is an estimate of the line, on the scale of narrow-band telephony (1 to
4.4), and says nothing of the voice at either end.
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME_MS = 20
R_BEST = 93.2
BPL_CONCEALED, BPL_SILENT = 25.1, 4.3
GAP_MS_MAX = 500.0
"""A caller that has sent nothing for so long had nothing to say, or is gone: neither is jitter."""
LOST_AT_ONCE_MAX = 1_000
"""A sequence that leaps farther has begun anew."""
WINDOW_MS = 10_000


def mos(*, loss: float, jitter_ms: float, rtt_ms: float, concealed: bool) -> float:
    """`loss`: 0 to 1. The delay is one way: half of the round trip, a frame, and a buffer of twice the jitter."""
    delay_ms = rtt_ms / 2 + FRAME_MS + 2 * jitter_ms
    delayed = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - 177.3)
    percent = 100 * min(1.0, max(0.0, loss))
    lossy = 95 * percent / (percent + (BPL_CONCEALED if concealed else BPL_SILENT))
    r = R_BEST - delayed - lossy
    if r <= 0:
        return 1.0
    return round(max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Of one direction, since its connection began. `frames`: those that were sent, the `lost` included."""

    frames: int = 0
    lost: int = 0
    jitter_ms: float = 0.0

    def plus(self, before: Heard) -> Heard:
        """With what earlier connections of the same call had."""
        return Heard(
            frames=self.frames + before.frames, lost=self.lost + before.lost, jitter_ms=self.jitter_ms
        )

    def since(self, before: Heard) -> Heard:
        return Heard(
            frames=max(0, self.frames - before.frames),
            lost=max(0, self.lost - before.lost),
            jitter_ms=self.jitter_ms,
        )

    @property
    def loss(self) -> float:
        return self.lost / self.frames if self.frames else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a connection that counts for itself says. `down`: what the caller has said of what it was sent."""

    up: Heard
    down: Heard
    rtt_ms: float | None = None


class Arrivals:
    """Frames as they come over a connection that loses none: late ones, and such as their sender has left out. Jitter as in RFC 3550,
    6.4.1, by when a frame comes against how much audio lies before it."""

    __slots__ = ("_came_ms", "_jitter_ms", "_last", "_media_ms", "frames", "lost", "quiet_frames")

    def __init__(self) -> None:
        self.frames = self.lost = self.quiet_frames = 0
        self._jitter_ms = self._media_ms = 0.0
        self._came_ms: float | None = None
        self._last: tuple[int, bool] | None = None

    def came(self, now_ms: float, sequence: int, media_ms: float, *, quiet: bool = False) -> int:
        """`sequence`: of 16 bits. `quiet`: the frame says that the caller is silent; what it leaves out behind it is no loss.
        Gives how many it has left out so before this one."""
        left_out = 0
        if self._last is not None:
            number, was_quiet = self._last
            missing = (sequence - number - 1) & 0xFFFF
            if missing < LOST_AT_ONCE_MAX:
                left_out = missing if was_quiet else 0
                self.lost += 0 if was_quiet else missing
        if self._came_ms is not None and left_out == 0 and now_ms - self._came_ms < GAP_MS_MAX:
            off_ms = abs(now_ms - self._came_ms - self._media_ms)
            self._jitter_ms += (off_ms - self._jitter_ms) / 16
        self._came_ms, self._media_ms, self._last = now_ms, media_ms, (sequence, quiet)
        self.frames += 1
        self.quiet_frames += left_out + quiet
        return left_out

    def heard(self) -> Heard:
        return Heard(frames=self.frames + self.lost, lost=self.lost, jitter_ms=round(self._jitter_ms, 1))


class Opinions:
    """The estimate over the whole call, and of its worst ten seconds."""

    __slots__ = ("_concealed", "_rtt_ms", "_trips", "_window", "_window_from_ms", "worst")

    def __init__(self, now_ms: int, *, concealed: bool) -> None:
        self._concealed = concealed
        self._rtt_ms, self._trips = 0.0, 0
        self._window = Report(up=Heard(), down=Heard())
        self._window_from_ms = now_ms
        self.worst: float | None = None

    @property
    def rtt_ms(self) -> float | None:
        """The mean of what was said."""
        return self._rtt_ms / self._trips if self._trips else None

    def look(self, now_ms: int, report: Report) -> None:
        """Call it once a second or so, with what was counted since the beginning."""
        if report.rtt_ms is not None:
            self._rtt_ms += report.rtt_ms
            self._trips += 1
        if now_ms - self._window_from_ms < WINDOW_MS:
            return
        before, self._window, self._window_from_ms = self._window, report, now_ms
        window = Report(up=report.up.since(before.up), down=report.down.since(before.down))
        if window.up.frames or window.down.frames:
            found = self._of(window, report.rtt_ms)
            self.worst = found if self.worst is None else min(self.worst, found)

    def mos(self, report: Report) -> float:
        return self._of(report, self.rtt_ms)

    def _of(self, report: Report, rtt_ms: float | None) -> float:
        """Of the direction that is worse."""
        return min(
            mos(loss=way.loss, jitter_ms=way.jitter_ms, rtt_ms=rtt_ms or 0.0, concealed=self._concealed)
            for way in (report.up, report.down)
        )
