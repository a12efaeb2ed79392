"""``python -m tests.bench``: measures every family, or ``ONLY=family``; ``FULL=1`` adds the large ones.

Exit code 0 when everything was measured, whether a target was met or not; 1 where a family could not be measured.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

import uvloop

from tests.bench.report import Figure, as_json, as_table, machine

FAMILIES = (
    "start",
    "create",
    "append",
    "feed",
    "edge",
    "media",
    "tail",
    "webhooks",
    "failover",
    "detector",
    "sim",
    "placement",
    "admin",
)
LONG = ("backlog",)
"""Measured with FULL=1, or by name."""
OUT = Path("build") / "bench.json"


def main() -> int:
    only = os.environ.get("ONLY", "")
    if only and only not in FAMILIES + LONG:
        sys.stderr.write(
            f"ONLY={only}: there is no such family; choose one of {', '.join(FAMILIES + LONG)}\n"
        )
        return 2
    full = os.environ.get("FULL", "") not in ("", "0")
    all_ = FAMILIES + LONG if full else FAMILIES
    print(machine(), flush=True)
    figures: list[Figure] = []
    failed: list[str] = []
    for family in (only,) if only else all_:
        began = time.monotonic()
        print(f"\n{family} …", flush=True)
        try:
            module = importlib.import_module(f"tests.bench.{family}")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found: list[Figure] = runner.run(module.measure(full=full))
        except Exception:  # noqa: BLE001  the other families are still measured
            traceback.print_exc()
            failed.append(family)
            continue
        figures += found
        print(as_table(found) + f"\n  in {time.monotonic() - began:.0f} s", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(as_json(figures))
    print(f"\n{OUT} has {len(figures)} figures" + (f"; NOT MEASURED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
