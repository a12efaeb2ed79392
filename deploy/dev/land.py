"""Makes app/console/land.txt, the dots of land on the console's map, from public figures.

    python deploy/dev/land.py land-50m.json

The argument is the land of Natural Earth (public domain) as TopoJSON, as the npm package world-atlas has it. Each line of the
result is a row of dots from the north, as runs of columns: `first-last` or a lone column. Rows stand as far apart as `DOTS` in
app/console/drawing.py says, in the same projection; every second row is half a step to the right.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.console.drawing import DOTS, HEIGHT, SOUTH, place_at

SHARE_OF_LAND = 0.3
LOOKS = (-0.36, 0.0, 0.36)
OUT = Path(__file__).parents[2] / "app" / "console" / "land.txt"


def rings(topology: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """Of (longitude, latitude); which ring is a hole does not matter to a count of crossings."""
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x * sx + tx, y * sy + ty))
        arcs.append(points)
    found = []
    for geometry in topology["objects"]["land"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for ring in (ring for polygon in polygons for ring in polygon):
            points = []
            for number in ring:
                points += arcs[number] if number >= 0 else arcs[~number][::-1]
            if max(latitude for _, latitude in points) > SOUTH:
                whole = unwrapped(points)
                found += [[(x + turn, y) for x, y in whole] for turn in (-360, 0, 360)]
    return found


def unwrapped(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A ring that crosses 180° goes on beyond it."""
    turn, found = 0, points[:1]
    for (x1, _), (x2, y2) in itertools.pairwise(points):
        turn += 360 * ((x1 - x2 > 180) - (x2 - x1 > 180))
        found.append((x2 + turn, y2))
    return found


def crossings(land: list[list[tuple[float, float]]], latitude: float) -> list[float]:
    found = []
    for ring in land:
        for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
            if (y1 > latitude) != (y2 > latitude):
                found.append(x1 + (latitude - y1) / (y2 - y1) * (x2 - x1))
    return sorted(found)


def runs(columns: list[int]) -> str:
    parts: list[list[int]] = []
    for column in columns:
        if parts and parts[-1][1] == column - 1:
            parts[-1][1] = column
        else:
            parts.append([column, column])
    return " ".join(f"{a}-{b}" if a != b else str(a) for a, b in parts)


def main() -> None:
    land = rings(json.loads(Path(sys.argv[1]).read_text()))
    lines = []
    for row in range(int(HEIGHT / DOTS.row_step)):
        y = (row + 0.5) * DOTS.row_step
        looks = []
        for dy in LOOKS:
            latitude, _ = place_at(0, y + dy * DOTS.row_step)
            looks.append(crossings(land, latitude))
        columns = []
        for column in range(DOTS.columns):
            x = DOTS.x(row, column)
            hits = 0
            for cuts in looks:
                for dx in LOOKS:
                    _, longitude = place_at(x + dx * DOTS.step, y)
                    hits += sum(cut < longitude for cut in cuts) % 2
            if hits / len(LOOKS) ** 2 > SHARE_OF_LAND:
                columns.append(column)
        lines.append(runs(columns))
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
