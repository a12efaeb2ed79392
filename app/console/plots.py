"""Stacked bars as SVG: one bar for a day, one colour for a series. Pure: numbers in, places in hundredths of the width out.

Decides the scale, which days and numbers are written beside it, and that what is small is gathered as the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

SERIES_MAX = 8
DAYS_MAX = 400
HEIGHT = 200.0
GRID_LINES = 4
LABELS_MAX = 8
REST = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`x`, `width` in hundredths of the width; `y`, `height` in pixels."""

    x: float
    width: float
    y: float
    height: float
    tone: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """`series`: (name, its tone, its sum), the greatest first. `across`: days below; `up`: numbers at the side."""

    pieces: list[Piece]
    series: list[tuple[str, str, float]]
    across: list[Mark]
    up: list[Mark]
    height: float = HEIGHT


def stacked(values: Mapping[date, Mapping[str, float]], first: date, last: date, *, unit: str) -> Plot:
    """`values`: by day and series. `last` is not drawn any more."""
    days = [first + timedelta(days=i) for i in range(min((last - first).days, DAYS_MAX))]
    names = _ordered(values)
    kept, rest = names[: SERIES_MAX - 1], names[SERIES_MAX - 1 :]
    shown = [*kept, REST] if len(rest) > 1 else names
    gathered = set(rest) if len(rest) > 1 else set()
    columns = [_column(values.get(day, {}), kept if gathered else names, gathered) for day in days]
    top = _round_up(max((sum(column.values()) for column in columns), default=0))
    slot = 100 / max(len(days), 1)
    pieces = []
    for i, (day, column) in enumerate(zip(days, columns, strict=True)):
        y = HEIGHT
        for name in shown:
            value = column.get(name, 0)
            height = HEIGHT * value / top
            if value <= 0:
                continue
            y -= height
            title = f"{day.isoformat()}, {name}: {_text(value)} {unit}"
            x, width = round(slot * i + slot * 0.12, 3), round(slot * 0.76, 3)
            pieces.append(
                Piece(
                    x=x,
                    width=width,
                    y=round(y, 2),
                    height=round(max(height, 0.5), 2),
                    tone=f"s{shown.index(name)}",
                    title=title,
                )
            )
    sums = {name: sum(column.get(name, 0) for column in columns) for name in shown}
    every = max(1, -(-len(days) // LABELS_MAX))
    across = [
        Mark(at=round(slot * (i + 0.5), 3), text=f"{day.day} {day:%b}")
        for i, day in enumerate(days)
        if i % every == 0
    ]
    up = [
        Mark(at=round(HEIGHT - HEIGHT * i / GRID_LINES, 2), text=_text(top * i / GRID_LINES))
        for i in range(GRID_LINES + 1)
    ]
    series = [(name, f"s{i}", sums[name]) for i, name in enumerate(shown)]
    return Plot(pieces=pieces, series=series, across=across, up=up)


def _ordered(values: Mapping[date, Mapping[str, float]]) -> list[str]:
    """The series with anything in them, the greatest first."""
    sums: dict[str, float] = {}
    for column in values.values():
        for name, value in column.items():
            sums[name] = sums.get(name, 0) + value
    return sorted((n for n, v in sums.items() if v > 0), key=lambda n: (-sums[n], n))


def _column(given: Mapping[str, float], names: Sequence[str], gathered: set[str]) -> dict[str, float]:
    column = {name: given.get(name, 0) for name in names}
    if gathered:
        column[REST] = sum(value for name, value in given.items() if name in gathered)
    return column


def _round_up(most: float) -> float:
    """1, 2, 4 or 8 times a power of ten: lines at a quarter of it are easy to read."""
    if most <= 0:
        return 1.0
    step = 1e-6
    while True:
        for times in (1, 2, 4, 8):
            if step * times >= most:
                return step * times
        step *= 10


def _text(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 100 else f"{value:.3g}"
