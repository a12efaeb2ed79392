"""``python -m tests.evaluation [FILE.npz …]``: how near to the oracle callers are placed, by ``make eval-placement``.

Without an argument it takes ``../shared/data/rtt/*.npz`` beside the project, and where there is none a small synthetic world.
``ONLY=matrix``, ``ONLY=hostile`` (of the matrix, that alone) or ``ONLY=load`` runs a part, ``REGIONS=12`` at so many regions alone,
``CALLERS=1000000`` says how many calls the load has, ``DRAWS=16`` on how many draws the hostile are measured. Writes
``build/placement.json``. Exit code 0 when everything was measured, whether a target was met or not; 2 for what cannot be read.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.bench.report import as_json, machine
from tests.evaluation.placement import DRAWS, everything
from tests.evaluation.placement_load import loaded
from tests.evaluation.placement_report import Report, progress
from tests.evaluation.placement_world import REGIONS, World, load, synthetic

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "rtt"
OUT = ROOT / "build" / "placement.json"
PARTS = ("matrix", "hostile", "load")
CALLERS = 50_000


def main(arguments: list[str]) -> int:
    only = os.environ.get("ONLY", "")
    if only and only not in PARTS:
        progress(f"ONLY={only}: there is no such part; choose one of {', '.join(PARTS)}")
        return 2
    try:
        regions = _numbers("REGIONS", REGIONS)
        (draws,) = _numbers("DRAWS", (len(DRAWS),))
        (callers,) = _numbers("CALLERS", (CALLERS,))
    except ValueError as error:
        progress(str(error))
        return 2
    try:
        worlds = worlds_of(arguments)
    except (OSError, ValueError) as error:
        progress(f"cannot read the round trips: {error}")
        return 2
    print(machine(), flush=True)
    report = Report()
    began = time.monotonic()
    for world in worlds:
        if only != "load":
            everything(
                world,
                report,
                regions,
                range(DRAWS.start, DRAWS.start + draws),
                only_hostile=only == "hostile",
            )
        if only in ("", "load"):
            loaded(world, report, callers)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(as_json(report.figures))
    missed = [f.name for f in report.figures if f.met is False]
    held = sum(f.met is True for f in report.figures)
    taken_s = time.monotonic() - began
    print(f"\n{OUT.relative_to(ROOT)} has {len(report.figures)} figures, in {taken_s:.0f} s")
    print(f"{held} targets met, {len(missed)} missed")
    for name in missed:
        print(f"  MISSED {name}")
    return 0


def _numbers(name: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    """Of a variable of the environment. Raises `ValueError` for what is no number above 0; only ``REGIONS`` may be several."""
    text = os.environ.get(name, "")
    if not text:
        return usual
    numbers = tuple(int(word) if word.strip().isdecimal() else 0 for word in text.split(","))
    if min(numbers) < 1 or (name != "REGIONS" and len(numbers) > 1):
        raise ValueError(
            f"{name}={text}: give a number above 0{', or several: 5,12,30' if name == 'REGIONS' else ''}"
        )
    return numbers


def worlds_of(arguments: list[str]) -> list[World]:
    files = [Path(a) for a in arguments] or sorted(DATA.glob("*.npz"))
    if not files:
        progress("There is no file of round trips: give one as an argument.")
        progress("This is a synthetic world, which says little of the real one.")
        return [synthetic()]
    return [load(f) for f in files]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
