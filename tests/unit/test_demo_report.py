"""What the demo prints fits the terminal that it is printed to."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCSWINSZ

PROGRAM = """
from app.local.demo import Outcome
from app.local.report import print_report
event = {"timestamp": "2026-11-25T00:00:00Z", "seq": 1, "epoch": 1, "region": "us-east", "type": "turn.ended"}
data = [{"role": "agent", "text": "to be said " * 20}, {"arguments": "x" * 300}, {}]
print_report(Outcome(call={"placement": {"candidates": [], "standbys": [], "protection": "none"}},
                     events=[event | {"data": of} for of in data]), as_json=False)
"""


def printed(columns: int) -> list[str]:
    ours, its = pty.openpty()
    ioctl(its, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=its, env=env) as program:
        os.close(its)
        text = b""
        with suppress(OSError):  # a terminal that nobody holds any more
            while piece := os.read(ours, 65_536):
                text += piece
    os.close(ours)
    assert program.returncode == 0
    lines = text.decode().splitlines()
    return lines[lines.index("Timeline") + 1 : lines.index("Figures") - 1]


def test_a_line_of_the_timeline_is_cut_to_the_terminal() -> None:
    for columns in (80, 200):
        said, long, short = printed(columns)
        assert len(said) == len(long) == columns, "both are longer than that"
        assert said.endswith("…")
        assert "agent: to be" in said
        assert len(short) < 80
