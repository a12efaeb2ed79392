"""What a benchmark says: figures, a table for people, `build/bench.json` for machines."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`target` and `met` None: a figure without one. `at_most`: smaller is better. `how`: in a few words."""

    family: str
    name: str
    value: float
    unit: str
    how: str
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def as_json(figures: list[Figure]) -> str:
    rows = []
    for figure in figures:
        row = asdict(figure)
        del row["at_most"]
        rows.append(row | {"met": figure.met})
    return json.dumps(rows, indent=2) + "\n"


def as_table(figures: list[Figure]) -> str:
    lines = []
    for f in figures:
        sign = "≤" if f.at_most else "≥"
        target = "" if f.target is None else f"{sign} {f.target:g}"
        verdict = {None: "", True: "met", False: "MISSED"}[f.met]
        lines.append(f"  {f.name:28} {f.value:>12,.2f} {f.unit:10} {target:>9} {verdict:7} {f.how}")
    return "\n".join(lines)


def machine() -> str:
    """The machine in one line."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown processor",
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return (
        f"{model}, {os.cpu_count()} cores, {memory / 1e6:.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
