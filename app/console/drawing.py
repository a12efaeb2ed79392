"""The drawing of the world: where a place stands on it, its land as dots, an arc between two places. Pure.

Gall's stereographic projection, which makes neither the poles nor the tropics too large, cut off where nobody places a region. The
dots of land are in `land.txt`; deploy/dev/land.py makes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

WIDTH = 1000.0
NORTH, SOUTH = 76.0, -56.0
_SCALE = WIDTH * math.sqrt(2) / (2 * math.pi)
_STRETCH = 1 + math.sqrt(2) / 2
_WEST = -169.0
"""The left edge: the Bering Strait lies at both."""


def _up(latitude: float) -> float:
    return _SCALE * _STRETCH * math.tan(math.radians(latitude) / 2)


_TOP = _up(NORTH)
HEIGHT = round(_TOP - _up(SOUTH), 1)


def at(latitude: float, longitude: float) -> tuple[float, float]:
    """Of a place on the drawing, x from the left and y from the top."""
    east = (longitude - _WEST) % 360
    return east / 360 * WIDTH, _TOP - _up(min(NORTH, max(SOUTH, latitude)))


def place_at(x: float, y: float) -> tuple[float, float]:
    """The other way round: latitude and longitude."""
    latitude = math.degrees(2 * math.atan((_TOP - y) / (_SCALE * _STRETCH)))
    longitude = x / WIDTH * 360 + _WEST
    return latitude, longitude - 360 if longitude > 180 else longitude


LETTER = 14.5
"""Of a label on a phone, where it is drawn largest."""
GAP = 8.0


def label_left(x: float, radius: float, text: str) -> bool:
    """Whether a label stands to the left of its place: there is no room to the right, and more to the left."""
    wide = radius + GAP + LETTER * len(text)
    return x + wide > WIDTH and x > WIDTH / 2


@dataclass(frozen=True, slots=True)
class Dots:
    columns: int
    step: float
    row_step: float

    def x(self, row: int, column: int) -> float:
        return (column + (0.75 if row % 2 else 0.25)) * self.step


DOTS = Dots(columns=168, step=WIDTH / 168, row_step=WIDTH / 168 * 0.866)


def land_path(text: str) -> str:
    """One line for each run of dots; drawn with round ends and a dash of nothing every `DOTS.step`, it is those dots."""
    moves = []
    for row, line in enumerate(text.splitlines()):
        y = (row + 0.5) * DOTS.row_step
        for run in line.split():
            first, _, last = run.partition("-")
            length = (int(last or first) - int(first)) * DOTS.step
            moves.append(f"M{DOTS.x(row, int(first)):.1f} {y:.1f}h{length + 0.1:.1f}")
    return "".join(moves)


LAND = land_path((Path(__file__).parent / "land.txt").read_text())


def arc(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve that rises to the north with its length, the short way round the drawing."""
    (x1, y1), (x2, y2) = start, end
    length = math.hypot(x2 - x1, y2 - y1)
    rise = min(0.32 * length, 110.0)
    return f"M{x1:.1f} {y1:.1f}Q{(x1 + x2) / 2:.1f} {(y1 + y2) / 2 - rise:.1f} {x2:.1f} {y2:.1f}"
