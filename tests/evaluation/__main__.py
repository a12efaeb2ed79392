"""``python -m tests.evaluation [FILE.npz …]``: how near to the oracle callers are placed, by ``make eval-placement``.

Without an argument it takes ``../shared/data/rtt/*.npz`` beside the project, and where there is none a small synthetic world.
``ONLY=matrix`` or ``ONLY=load`` runs one half, ``CALLERS=1000000`` says how many calls the load has. Writes
``build/placement.json``. Exit code 0 when everything was measured, whether a target was met or not; 2 for what cannot be read.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.bench.report import as_json, machine
from tests.evaluation.placement import everything
from tests.evaluation.placement_load import loaded
from tests.evaluation.placement_report import Report, progress
from tests.evaluation.placement_world import World, load, synthetic

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "rtt"
OUT = ROOT / "build" / "placement.json"
PARTS = ("matrix", "load")
CALLERS = 50_000


def main(arguments: list[str]) -> int:
    only = os.environ.get("ONLY", "")
    if only and only not in PARTS:
        progress(f"ONLY={only}: there is no such part; choose one of {', '.join(PARTS)}")
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
            everything(world, report)
        if only != "matrix":
            loaded(world, report, int(os.environ.get("CALLERS", "") or CALLERS))
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


def worlds_of(arguments: list[str]) -> list[World]:
    files = [Path(a) for a in arguments] or sorted(DATA.glob("*.npz"))
    if not files:
        progress("There is no file of round trips: give one as an argument.")
        progress("This is a synthetic world, which says little of the real one.")
        return [synthetic()]
    return [load(f) for f in files]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
