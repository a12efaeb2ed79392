"""How loud a frame must be to be the caller's voice: well above what the line sounds like when nobody speaks. Pure.

The noise of the line is followed quickly down and slowly up, so that speech does not pass for noise, and a fan that is switched on
stops being a voice after a few seconds. The bound stays between two fixed ones: a silent line makes no whisper loud, and a noisy
one makes nobody shout. Of what the detector is sure of less is asked. Levels are root mean squares of PCM16.
"""

from __future__ import annotations

ABOVE_NOISE, ABOVE_NOISE_SURE = 3.0, 1.4
SURE = 0.8
BOUND_MIN, BOUND_MAX = 160, 1_200
NOISE_START = 60.0
DOWN, UP = 1 / 4, 1 / 200
UP_SPOKEN = 1 / 1_500
"""While the detector hears a voice."""


class Level:
    __slots__ = ("_noise",)

    def __init__(self) -> None:
        self._noise = NOISE_START

    def bound(self, probability: float) -> float:
        above = ABOVE_NOISE_SURE if probability >= SURE else ABOVE_NOISE
        return min(max(self._noise * above, BOUND_MIN), BOUND_MAX)

    def loud(self, rms: int, *, voice: bool, probability: float) -> bool:
        """Takes one frame in, and says whether it stands out. `voice`: the detector takes it for one."""
        loud = rms >= self.bound(probability)
        share = DOWN if rms < self._noise else UP_SPOKEN if voice else UP
        self._noise += (rms - self._noise) * share
        return loud
