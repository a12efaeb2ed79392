"""The record that backends leave: lines in a file, each written at once, so that it outlives whoever writes and whoever reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.chaos.history import Noted


class Record:
    """Append only; several processes may write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, kind: str, call: str, socket: str, **more: Any) -> None:
        line = {"kind": kind, "call": call, "socket": socket} | more
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_record(path: Path) -> list[Noted]:
    if not path.exists():
        return []
    return [Noted(**json.loads(line)) for line in path.read_text().splitlines()]
