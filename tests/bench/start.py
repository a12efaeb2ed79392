"""How long `voxplane up` takes on data that is there already, and what an idle API process and an idle edge weigh.

Weight is the proportional set size (`Pss` of /proc/PID/smaps_rollup): what the process adds to the machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

from app.local.folder import temporary_folder
from tests.bench.report import Figure

STARTS = 3
DEADLINE_S = 60.0
IDLE_S = 3.0


async def measure(*, full: bool) -> list[Figure]:
    folder = temporary_folder("voxplane-bench")
    try:
        await up(folder)
        taken = [await up(folder) for _ in range(STARTS * (2 if full else 1))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    how = f"median of {len(taken)}: 3 regions, 2 instances, from the command to its ready line"
    return [
        Figure(family="start", name="start.warm_s", value=statistics.median(t[0] for t in taken), unit="s",
               how=how, target=5.0, at_most=True),
        Figure(family="start", name="memory.api_mb", value=max(t[1] for t in taken), unit="MB",
               how="the heavier of two, idle, Pss", target=150.0, at_most=True),
        Figure(family="start", name="memory.edge_mb", value=max(t[2] for t in taken), unit="MB",
               how="the heaviest of three, idle, Pss", target=150.0, at_most=True),
    ]  # fmt: skip


async def up(folder: Path) -> tuple[float, float, float]:
    """(seconds until ready, the heaviest API process in MB, the heaviest edge in MB)."""
    env = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", "up", "--port", "0",
        env=env | {"VOXPLANE_DATA": str(folder), "PYTHONUNBUFFERED": "1"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not re.search(rb"^ready in", line := await process.stdout.readline()):
                if not line:
                    raise RuntimeError("`voxplane up` ended before it was ready")
            ready_s = time.perf_counter() - began
            await asyncio.sleep(IDLE_S)
            apis, edges = weights(process.pid, b"serve"), weights(process.pid, b"regions.edge")
            return ready_s, max(apis), max(edges)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), DEADLINE_S)


def weights(parent: int, word: bytes) -> list[float]:
    """Pss in MB of the children of `parent` whose command line has `word`."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    chosen = [c for c in children if word in Path(f"/proc/{c}/cmdline").read_bytes().split(b"\0")]
    return [pss_mb(int(c)) for c in chosen]


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("the kernel tells no Pss")
