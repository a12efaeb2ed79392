"""What an earlier start has left is waited for, and what one that runs has started is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from app.local.orphans import orphans, until_orphans_end

CHILD = "import sys; sys.stdin.read()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, "regions.edge"], cwd=sys.argv[2])
print(child.pid, flush=True)
if sys.argv[1] == "voxplane":
    child.wait()
"""


async def started(name: str, folder: Path) -> tuple[int, int]:
    """An edge in the folder whose parent is called so, and stays only as `voxplane`; and what ends it when it is closed."""
    its_end, ours = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, name, str(folder)], stdin=its_end, stdout=subprocess.PIPE, text=True
    )
    os.close(its_end)
    assert parent.stdout is not None
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    if name != "voxplane":
        await asyncio.to_thread(parent.wait)
    return pid, ours


async def test_the_end_of_an_orphan_is_waited_for(tmp_path: Path) -> None:
    pid, ours = await started("killed", tmp_path)
    assert orphans(tmp_path) == [pid]
    assert orphans(tmp_path / "another") == []
    waiting = asyncio.create_task(until_orphans_end(tmp_path))
    await until_orphans_end(tmp_path, within_s=0.1)
    assert not waiting.done()
    os.close(ours)
    await waiting
    assert orphans(tmp_path) == []


async def test_what_runs_is_not_waited_for(tmp_path: Path) -> None:
    _, ours = await started("voxplane", tmp_path)
    assert orphans(tmp_path) == []
    os.close(ours)
