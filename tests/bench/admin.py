"""What administration costs: each module beside this one whose name begins with `admin_` measures a part of it."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.bench.report import Figure


async def measure(*, full: bool) -> list[Figure]:
    figures: list[Figure] = []
    for path in sorted(Path(__file__).parent.glob("admin_*.py")):
        module = importlib.import_module(f"tests.bench.{path.stem}")
        figures += await module.measure(full=full)
    return figures
