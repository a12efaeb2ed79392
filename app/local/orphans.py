"""What an earlier start has left: instances and edges that end by themselves once their parent has died, calls first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from app.local.process import STOP_DEADLINE_S

OURS = (b"app.cli", b"regions.edge")
LOOK_EVERY_S = 0.05


async def until_orphans_end(folder: Path, within_s: float = STOP_DEADLINE_S) -> None:
    """They hold the ports that the next start wants, for as long as an edge drains. Not those of a start that runs. Gives up after
    `within_s`; does nothing where there is no ``/proc``."""
    deadline = asyncio.get_running_loop().time() + within_s
    while orphans(folder) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(LOOK_EVERY_S)


def orphans(folder: Path) -> list[int]:
    return [pid for pid in _processes() if _is_ours(pid, folder) and not _runs_us(_parent(pid))]


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def _is_ours(pid: int, folder: Path) -> bool:
    try:
        here = Path(os.readlink(f"/proc/{pid}/cwd")) == folder.resolve()
    except OSError:
        return False
    return here and any(name in _words(pid) for name in OURS)


def _runs_us(pid: int) -> bool:
    return pid > 1 and (b"voxplane" in _words(pid) or b"app.cli" in _words(pid))


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
