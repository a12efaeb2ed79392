"""What the processes under test complained of: errors in their logs, counted by what they say.

An error breaks no rule. It is shown because code that fell over while the world broke is worth a look, even where nothing was
lost by it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

OF_OURS = ("api-*.log", "edge-*.log")
SHOWN_MAX = 12


def complaints(folder: Path) -> Counter[str]:
    """``what: error`` → how often. A traceback that is no log line is told by its last line."""
    found: Counter[str] = Counter()
    for pattern in OF_OURS:
        for log in folder.glob(pattern):
            kind = log.name.partition("-")[0]
            inside = False
            with log.open(errors="replace") as lines:
                for line in lines:
                    said = _complaint(line)
                    if inside and line.strip() and not line.startswith((" ", "{")):
                        said = f"traceback {line.strip()[:70]}"
                    inside = line.startswith("Traceback") or (inside and not said)
                    if said:
                        found[f"{kind}: {said}"] += 1
    return found


def _complaint(line: str) -> str:
    if '"level": "error"' not in line:
        return ""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    last = str(entry.get("exception", "")).strip().rpartition("\n")[2]
    return f"{entry.get('event')} {entry.get('worker', '')} {last[:70]}".replace("  ", " ").strip()


def shown(found: Counter[str]) -> list[tuple[str, str]]:
    return [(f"  {said[:90]}", str(times)) for said, times in found.most_common(SHOWN_MAX)]
