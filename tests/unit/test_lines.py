"""A log that cannot be written costs nobody what he was doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regions.wire.lines import Lines

ROOT = Path(__file__).parents[2]
LOGS = """
import os, structlog, {module}
log = structlog.get_logger()
{configure}
for _ in range(3):
    log.warning("edge.lost", text="x" * 5_000)
os._exit(7)
"""
PROCESSES = {
    "an instance": ("app.telemetry", "app.telemetry.configure()"),
    "an instance at a terminal": ("app.telemetry", "app.telemetry.configure('console')"),
    "an edge": ("regions.edge.logs", "regions.edge.logs.configure('json')"),
}


@pytest.mark.parametrize("who", PROCESSES)
def test_a_process_goes_on_whose_log_is_on_a_full_disk(who: str) -> None:
    module, configure = PROCESSES[who]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", LOGS.format(module=module, configure=configure)],
            stdout=full, stderr=subprocess.PIPE, cwd=ROOT, timeout=60,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (7, b"")


def test_what_comes_when_there_is_room_again_is_written(tmp_path: Path) -> None:
    class Full:
        def __init__(self) -> None:
            self.room, self.written = False, ""

        def write(self, line: str) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            self.written += line
            return len(line)

        def flush(self) -> None:
            return

    file, lost = Full(), list[int]()
    lines = Lines(file, lambda: lost.append(1))
    lines.write("one\n")
    file.room = True
    lines.write("two\n")
    assert (file.written, len(lost)) == ("two\n", 1)
