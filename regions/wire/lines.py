"""Where log lines go, in a process that must not end for want of a log.

Decides what becomes of a line that cannot be written, because the disk is full or nobody reads any more: it is left out. Whoever
logs is in the middle of something (a batch that is to be answered, a caller who attaches), and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Lines:
    """A file, of text or of bytes, that raises nothing. `lost` is called for each write that came to nothing."""

    def __init__(self, file: Any, lost: Callable[[], object] = lambda: None) -> None:
        self._file = file
        self._lost = lost

    def write(self, line: Any) -> int:
        try:
            self._file.write(line)
        except (OSError, ValueError):
            self._lost()
        return len(line)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError):
            self._lost()
